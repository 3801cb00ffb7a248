"""Patches and their fold against loops over pixels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jl1.patches import make_patches

GEOMETRIES = [
    ((5, 6, 2), 3, 1, "SAME"),
    ((7, 4, 1), 4, 2, "SAME"),
    ((6, 7, 3), 2, 3, "VALID"),
    ((8, 8, 2), 1, 2, "SAME"),
    ((3, 3, 1), 3, 1, "VALID"),
]


def slow_patches(images, window, stride, padding):
    """One pixel at a time, with zeros around the image."""
    height, width = images.shape[1:3]
    if padding == "SAME":
        outputs = [-(-size // stride) for size in (height, width)]
        missing = [max((n - 1) * stride + window - size, 0) for n, size in zip(outputs, (height, width), strict=True)]
    else:
        outputs, missing = [(size - window) // stride + 1 for size in (height, width)], [0, 0]
    around = [(0, 0), *((total // 2, total - total // 2) for total in missing), (0, 0)]
    padded = np.pad(images, around)
    rows = [
        image[i * stride : i * stride + window, j * stride : j * stride + window].reshape(-1)
        for image in padded
        for i in range(outputs[0])
        for j in range(outputs[1])
    ]
    return np.stack(rows)


@pytest.mark.parametrize(("shape", "window", "stride", "padding"), GEOMETRIES)
def test_patches_are_the_windows_and_the_fold_is_their_transpose(shape, window, stride, padding):
    patches = make_patches(shape, window=window, stride=stride, padding=padding)
    images = np.random.default_rng(0).normal(size=(3, *shape)).astype(np.float32)
    matrix = patches.gather(jnp.asarray(images))
    np.testing.assert_array_equal(matrix, slow_patches(images, window, stride, padding))
    assert matrix.shape == (3 * np.prod(patches.output_shape), patches.num_columns)

    cotangents = np.random.default_rng(1).normal(size=matrix.shape).astype(np.float32)
    (expected,) = jax.linear_transpose(patches.gather, images)(jnp.asarray(cotangents))
    np.testing.assert_allclose(patches.fold(jnp.asarray(cotangents)), expected, rtol=1e-5, atol=1e-5)
