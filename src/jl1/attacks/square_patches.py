"""The random patches of the Square attack, in L-infinity and in L2, and their schedule.

References:
    Andriushchenko, Croce, Flammarion, Hein 2020, arXiv:1912.00049: the schedule of Section 5, Algorithm 2 (L-infinity),
    Algorithm 3 and equation 2 (L2).
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jl1.array_types import PRNGKey, Scalar
from jl1.per_example import tiny
from jl1.shares import draw_rows

Images = Float[Array, "batch height width channels"]

_HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)  # of the share, after so many of 10,000 queries


class Patches(NamedTuple):
    """How the search begins, and what it tries.

    Attributes:
        start: (key, images, epsilon) to perturbed images.
        propose: (key, query, points, images, epsilon) to changed points; neither is clipped to the range.
    """

    start: Callable[[PRNGKey, Images, Scalar], Images]
    propose: Callable[[PRNGKey, Int[Array, ""], Images, Images, Scalar], Images]


def image_shape(shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """Return (batch, height, width, channels); anything but a batch of images is one row of pixels."""
    if len(shape) == 4:
        return shape
    return (shape[0], 1, int(np.prod(shape[1:], dtype=int)), 1)


def schedule(num_queries: int, first_share: float, length: int) -> np.ndarray:
    """Return the share of the image that a patch covers, for every query: halved nine times in `length` queries."""
    of_10000 = np.arange(num_queries) * 10_000 // length
    return first_share / 2.0 ** np.searchsorted(_HALVINGS, of_10000, side="left")


def linf_patches(shape: tuple[int, ...], shares: np.ndarray) -> Patches:
    """Squares of a random sign a channel, at the border of the ball; the start has vertical stripes."""
    height, width, channels = shape
    sizes = jnp.array([_patch_size(share, height, width) for share in shares])

    def start(key: PRNGKey, images: Images, epsilon: Scalar) -> Images:
        return images + epsilon * _signs(key, (len(images), 1, width, channels), images.dtype)

    def propose(key: PRNGKey, query: Int[Array, ""], points: Images, images: Images, epsilon: Scalar) -> Images:
        place_key, sign_key = jax.random.split(key)
        inside = _inside(_corners(place_key, len(images), sizes[query], shape), sizes[query], shape)
        signs = _signs(sign_key, (len(images), 1, 1, channels), images.dtype)
        return jnp.where(inside, images + epsilon * signs, points)

    return Patches(start, propose)


def l2_patches(shape: tuple[int, ...], shares: np.ndarray) -> Patches:
    """Patterns with two opposite bumps that take over the length of the perturbation from another window.

    Each channel of a window keeps its own share of the length, as in Algorithm 3 (AutoAttack's copy gives every
    channel the length of all of them; for one channel it is the same).
    """
    height, width, channels = shape
    kinds, first = np.unique(shares, return_inverse=True)
    odd_sizes = [_odd_size(share, height, width) for share in kinds]
    kind_of, sizes = jnp.asarray(first), jnp.array(odd_sizes)
    patterns = jnp.asarray(np.stack([_both_ways(size, height, width) for size in odd_sizes]))

    def start(key: PRNGKey, images: Images, epsilon: Scalar) -> Images:
        bumps = _tiles(key, images)
        return images + epsilon * bumps / _length(bumps)

    def propose(key: PRNGKey, query: Int[Array, ""], points: Images, images: Images, epsilon: Scalar) -> Images:
        kind, size, old = kind_of[query], sizes[kind_of[query]], points - images
        new_key, old_key, turn_key, sign_key = jax.random.split(key, 4)
        corners = _corners(new_key, len(images), size, shape)
        window, source = (_inside(each, size, shape) for each in (corners, _corners(old_key, len(images), size, shape)))
        turned = draw_rows(lambda rows: jax.random.randint(turn_key, (rows,), 0, 2), len(images))
        pattern = jax.vmap(jnp.roll, (0, 0, None))(patterns[kind].astype(images.dtype)[turned], corners, (0, 1))
        bump = pattern[..., None] * _signs(sign_key, (len(images), 1, 1, channels), images.dtype)
        inside = jnp.where(window, old, 0.0)
        bump = bump + inside / (tiny(images) + _channel_length(inside))
        unused = jnp.maximum(epsilon**2 - _length(old) ** 2, 0.0) / channels
        taken = _channel_length(jnp.where(window | source, old, 0.0)) ** 2
        bump = bump / (tiny(images) + _channel_length(bump)) * jnp.sqrt(unused + taken)
        new = jnp.where(window, bump, jnp.where(source, 0.0, old))
        return images + epsilon * new / (tiny(images) + _length(new))

    return Patches(start, propose)


PATCHES: Mapping[str, Callable[[tuple[int, ...], np.ndarray], Patches]] = {"linf": linf_patches, "l2": l2_patches}
"""By the name of the norm."""


def _patch_size(share: float, height: int, width: int) -> tuple[int, int]:
    """Return height and width of a patch: a square, or a strip of the same area where a square does not fit."""
    side = max(round(float(np.sqrt(share * height * width))), 1)
    if side <= height:
        return side, min(side, width)
    return height, min(max(round(share * width), 1), width)


def _odd_size(share: float, height: int, width: int) -> tuple[int, int]:
    """Return an odd size of at least 3 by 3, where the image has room for it."""
    sides = zip(_patch_size(share, height, width), (height, width), strict=True)
    odd_sides = [min(max(side, 3) | 1, limit - (limit % 2 == 0)) for side, limit in sides]
    return odd_sides[0], odd_sides[1]


def _corners(key: PRNGKey, count: int, size: Int[Array, "2"], shape: tuple[int, ...]) -> Int[Array, "batch 2"]:
    """Draw the upper left corner of a window that fits into the image, one an example."""
    limits = jnp.array([shape[:2]]) - size[None] + 1
    return draw_rows(lambda rows: jax.random.randint(key, (rows, 2), 0, limits), count)


def _inside(
    corners: Int[Array, "batch 2"], size: Int[Array, "2"], shape: tuple[int, ...]
) -> Bool[Array, "batch height width 1"]:
    """Mark the pixels of every example's window."""
    rows, columns = (
        (jnp.arange(length)[None] >= corners[:, axis, None])
        & (jnp.arange(length)[None] < corners[:, axis, None] + size[axis])
        for axis, length in enumerate(shape[:2])
    )
    return (rows[:, :, None] & columns[:, None, :])[..., None]


def _signs(key: PRNGKey, shape: tuple[int, ...], dtype: jnp.dtype) -> Array:
    num_rows, *rest = shape
    return draw_rows(lambda rows: jax.random.rademacher(key, (rows, *rest), dtype), num_rows)


def _channel_length(images: Images) -> Float[Array, "batch 1 1 channels"]:
    return jnp.sqrt(jnp.sum(images**2, axis=(1, 2), keepdims=True))


def _length(images: Images) -> Float[Array, "batch 1 1 1"]:
    return jnp.sqrt(jnp.sum(images**2, axis=(1, 2, 3), keepdims=True))


def _tiles(key: PRNGKey, images: Images) -> Images:
    """Cover the image with five by five patterns of random sign, each turned or not."""
    batch, height, width, channels = images.shape
    side = max(min(height, width) // 5, 1)
    grid = (height // side, width // side)
    turn_key, sign_key = jax.random.split(key)
    tile = _pattern(side, side)
    upright, lying = (jnp.asarray(np.tile(each, grid)[None, ..., None], images.dtype) for each in (tile, tile.T))

    def stretch(values: Array) -> Array:
        return jnp.repeat(jnp.repeat(values, side, axis=1), side, axis=2)

    turned = stretch(draw_rows(lambda rows: jax.random.bernoulli(turn_key, 0.5, (rows, *grid, 1)), batch))
    bumps = jnp.where(turned, upright, lying) * stretch(_signs(sign_key, (batch, *grid, channels), images.dtype))
    margins = [(length - side * count) // 2 for length, count in zip((height, width), grid, strict=True)]
    rests = [
        length - side * count - before for length, count, before in zip((height, width), grid, margins, strict=True)
    ]
    return jnp.pad(bumps, ((0, 0), *zip(margins, rests, strict=True), (0, 0)))


def _both_ways(size: tuple[int, int], height: int, width: int) -> np.ndarray:
    """Return the pattern and its transpose (of a strip, which cannot be turned, its mirror image), padded."""
    pattern = _pattern(*size)
    other = pattern.T if size[0] == size[1] else pattern[::-1, ::-1]
    return np.stack([np.pad(each, ((0, height - size[0]), (0, width - size[1]))) for each in (pattern, other)])


def _pattern(height: int, width: int) -> np.ndarray:
    """Return two opposite bumps, one above the other (side by side in a strip), of length 1 together."""
    if height == 1 < width:
        return _pattern(width, 1).T
    pattern = np.concatenate([_bump(height // 2, width), -_bump(height - height // 2, width)])
    return pattern / np.linalg.norm(pattern)


def _bump(height: int, width: int) -> np.ndarray:
    """Return eq. 2: the sum of 1/k^2 over the frames around the middle that hold a pixel, of length 1."""
    if height == 0:
        return np.zeros((0, width))
    middle = (height // 2, width // 2)
    rows, columns = np.ogrid[:height, :width]
    frame = np.maximum(np.abs(rows - middle[0]), np.abs(columns - middle[1]))
    falling = 1.0 / np.arange(1, max(middle) + 2) ** 2
    bump = np.cumsum(falling[::-1])[::-1][frame]
    return bump / np.linalg.norm(bump)
