"""The L-infinity ball around the inputs, inside the range that inputs may have, and radii in general."""

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float

from jl1.array_types import Inputs, Scalar
from jl1.per_example import is_narrow
from jl1.precision import in_one_precise_type


def check_radius(epsilon: Scalar, lower: float, upper: float) -> None:
    """Refuse a radius that cannot be meant; a traced one cannot be looked at.

    Raises:
        ValueError: A number below 0, or above the whole range of the inputs.
    """
    radius = known(epsilon)
    if radius is not None and not 0 <= radius <= radius.dtype.type(upper - lower):  # a rounded 0.3 is not above 0.3
        raise ValueError(
            f"epsilon={epsilon}: must be in [0, {upper - lower:g}], in the units of the inputs, which lie in "
            f"[{lower:g}, {upper:g}] (8 grey levels are 8/255 = 0.0314)"
        )


def known(epsilon: Scalar) -> np.ndarray | None:
    """Return a radius that can be looked at, in its own floating type; None for a traced one."""
    if isinstance(epsilon, Tracer):
        return None
    radius = np.asarray(epsilon)
    return radius if jnp.issubdtype(radius.dtype, jnp.floating) else radius.astype(float)


def typed_as(inputs: Inputs, value: Scalar) -> Float[Array, ""]:
    """Give a radius or a step the type of the inputs, or the points would take on that of the radius.

    In types of 16 bits it is rounded down: what is rounded up is another ball.
    """
    typed = jnp.asarray(value, jnp.result_type(inputs))
    return rounded_inwards(jnp.asarray(value, jnp.float32), jnp.zeros_like(typed)) if is_narrow(typed) else typed


def rounded_inwards(points: Array, centre: Array) -> Array:
    """Give points the type of the centre, rounded towards it: no coordinate gets farther from it than it was."""
    rounded = points.astype(centre.dtype)
    ends, middle, exact = in_one_precise_type(rounded, centre, points)
    farther = jnp.abs(ends - middle) > jnp.abs(exact - middle)
    return jnp.where(farther, jnp.nextafter(rounded, centre), rounded)


def default_step(epsilon: Scalar, num_steps: int) -> Scalar:
    """Return 2.5 epsilon / num_steps, with which the border can be reached from anywhere inside (Madry et al. 2018)."""
    return 2.5 * epsilon / num_steps


def project(points: Inputs, centre: Inputs, *, epsilon: Scalar, lower: float, upper: float) -> Inputs:
    """Move each coordinate to the nearest value within `epsilon` of `centre` and in [lower, upper]."""
    if is_narrow(centre):
        exact, middle, radius = in_one_precise_type(points, centre, jnp.asarray(epsilon))
        return rounded_inwards(project(exact, middle, epsilon=radius, lower=lower, upper=upper), centre)
    return jnp.clip(jnp.clip(points, centre - epsilon, centre + epsilon), lower, upper)
