"""The two norms that attacks are bounded by: lengths, steps, random points and projections of each."""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jl1.array_types import Inputs, Labels, PerExample, PRNGKey, Scalar
from jl1.attacks.ball import check_radius, known, project, rounded_inwards
from jl1.inputs import check_floating
from jl1.labels import check_labels
from jl1.per_example import is_narrow, spread, tiny
from jl1.precision import in_one_precise_type
from jl1.shares import draw_rows


class Norm(NamedTuple):
    """What differs between attacks in one norm and in another.

    Attributes:
        length: ||v|| of every example.
        dual_length: The norm of a gradient g for which distance to a plane is |gap| / dual_length(g).
        ascent: The step v of length 1 along which a linear function rises most.
        slope: How fast entry i of a plane's nearest point moves with the distance, given |normal_i|.
        noise: Random vectors (key, shape, dtype); divided by their length they are random points of the sphere.
        in_ball: The same, uniformly random points of the unit ball.
        project: Points to the ball and the range.
        check: Refuses a radius that cannot be meant.
    """

    length: Callable[[Inputs], PerExample]
    dual_length: Callable[[Inputs], PerExample]
    ascent: Callable[[Inputs], Inputs]
    slope: Callable[[Float[Array, " batch features"]], Float[Array, " batch features"]]
    noise: Callable[..., Inputs]
    in_ball: Callable[..., Inputs]
    project: Callable[..., Inputs]
    check: Callable[[Scalar, float, float], None]


def find_norm(name: str) -> Norm:
    """Look a norm up, or say which there are."""
    if name not in NORMS:
        raise ValueError(f"unknown norm {name!r}; known are {', '.join(NORMS)}")
    return NORMS[name]


def check_task(norm: str, inputs: Inputs, labels: Labels, *, epsilon: Scalar, lower: float, upper: float) -> Norm:
    """Refuse what no attack can be asked for, and look the norm up.

    Raises:
        ValueError: Inputs that are not floating, labels that are not one integer an example, an unknown norm, or a
            number for epsilon that the norm refuses.
    """
    check_floating(inputs)
    check_labels(labels, inputs, what="inputs")
    geometry = find_norm(norm)
    geometry.check(epsilon, lower, upper)
    return geometry


def random_start(key: PRNGKey, inputs: Inputs, *, norm: Norm, epsilon: Scalar, lower: float, upper: float) -> Inputs:
    """Draw a uniformly random point of the ball and clip it to the range."""
    num_rows, *features = inputs.shape
    noise = draw_rows(lambda rows: norm.in_ball(key, (rows, *features), inputs.dtype), num_rows)
    return norm.project(inputs + epsilon * noise, inputs, epsilon=epsilon, lower=lower, upper=upper)


def random_border_point(
    key: PRNGKey, inputs: Inputs, *, norm: Norm, radius: Scalar | PerExample, lower: float, upper: float
) -> Inputs:
    """Draw a point at distance `radius` of every example in a random direction, and clip it to the range."""
    num_rows, *features = inputs.shape
    noise = draw_rows(lambda rows: norm.noise(key, (rows, *features), inputs.dtype), num_rows)
    radii = jnp.broadcast_to(jnp.asarray(radius, inputs.dtype), (num_rows,))
    centre, noise, radii = in_one_precise_type(inputs, noise, radii)
    points = jnp.clip(centre + noise * spread(radii / (norm.length(noise) + tiny(noise)), inputs), lower, upper)
    return rounded_inwards(points, inputs) if is_narrow(inputs) else points


def _rows(vectors: Inputs) -> Float[Array, " batch features"]:
    """Flatten every example: XLA's CPU reductions over several axes are slow."""
    return vectors.reshape(len(vectors), -1)


def _l1_length(vectors: Inputs) -> PerExample:
    return jnp.sum(jnp.abs(_rows(vectors)), axis=1)


def _l2_length(vectors: Inputs) -> PerExample:
    """Sum in float32 at least: in float16 the squares of entries below 2e-4 are 0, and a ball would have no border."""
    (rows,) = in_one_precise_type(_rows(vectors))
    return jnp.sqrt(jnp.sum(rows**2, axis=1)).astype(vectors.dtype)


def _linf_length(vectors: Inputs) -> PerExample:
    return jnp.max(jnp.abs(_rows(vectors)), axis=1)


def _linf_ascent(gradient: Inputs) -> Inputs:
    """Return the sign, 0 where the gradient is no number: a step there would leave the ball for NaN."""
    return jnp.where(jnp.isnan(gradient), 0, jnp.sign(gradient))


def _l2_ascent(gradient: Inputs) -> Inputs:
    """Scale by the largest entry first: a saturated network has gradients whose squares are below every float.

    In float32 at least: XLA multiplies by the inverse, which in float16 is infinite for entries that are not.
    """
    (wide,) = in_one_precise_type(jnp.where(jnp.isfinite(gradient), gradient, 0))
    largest = _linf_length(wide)
    scaled = wide / spread(jnp.where(largest >= jnp.finfo(wide.dtype).tiny, largest, 1), wide)
    return (scaled / spread(_l2_length(scaled) + tiny(scaled), wide)).astype(gradient.dtype)


def _l2_project(points: Inputs, centre: Inputs, *, epsilon: Scalar, lower: float, upper: float) -> Inputs:
    """Shrink the perturbation to length epsilon, then clip to the range, which only shrinks it more (as in APGD)."""
    if is_narrow(centre):
        exact, middle, radius = in_one_precise_type(points, centre, jnp.asarray(epsilon))
        return rounded_inwards(_l2_project(exact, middle, epsilon=radius, lower=lower, upper=upper), centre)
    perturbation = points - centre
    length = _l2_length(perturbation)
    shrunk = perturbation * spread(jnp.minimum(1.0, epsilon / jnp.maximum(length, tiny(length))), points)
    return jnp.clip(centre + shrunk, lower, upper)


def _uniform(key: PRNGKey, shape: tuple[int, ...], dtype: jnp.dtype) -> Array:
    return jax.random.uniform(key, shape, dtype, -1.0, 1.0)


def _in_l2_ball(key: PRNGKey, shape: tuple[int, ...], dtype: jnp.dtype) -> Array:
    """Draw directions, and lengths that grow like the root of a uniform number."""
    direction_key, length_key = jax.random.split(key)
    size = math.prod(shape[1:])
    length = jax.random.uniform(length_key, shape[:1], dtype) ** (1 / size)
    direction = jax.random.normal(direction_key, shape, dtype)
    return direction * spread(length / (_l2_length(direction) + tiny(direction)), direction)


def _check_l2_radius(epsilon: Scalar, lower: float, upper: float) -> None:
    """Refuse a radius that is negative or no number; the largest that makes sense grows with the number of features.

    Raises:
        ValueError: A number below 0, infinity or NaN.
    """
    del lower, upper  # the range bounds no length by itself
    radius = known(epsilon)
    if radius is not None and not 0 <= radius < math.inf:
        raise ValueError(f"epsilon={epsilon}: must be at least 0 and finite, a length in the units of the inputs")


LINF = Norm(
    length=_linf_length,
    dual_length=_l1_length,
    ascent=_linf_ascent,
    slope=jnp.ones_like,
    noise=_uniform,
    in_ball=_uniform,
    project=project,
    check=check_radius,
)

L2 = Norm(
    length=_l2_length,
    dual_length=_l2_length,
    ascent=_l2_ascent,
    slope=lambda sizes: sizes,
    noise=jax.random.normal,
    in_ball=_in_l2_ball,
    project=_l2_project,
    check=_check_l2_radius,
)

NORMS: Mapping[str, Norm] = {"linf": LINF, "l2": L2}
"""By name, as in `norm="linf"` of the attacks."""
