"""The L-infinity ball around the inputs, inside the range that inputs may have."""

import jax
import jax.numpy as jnp

from jl1.array_types import Inputs, PRNGKey, Scalar
from jl1.shares import draw_rows


def check_radius(epsilon: Scalar, lower: float, upper: float) -> None:
    """Refuse a radius that cannot be meant; a traced one cannot be looked at.

    Raises:
        ValueError: A number below 0, or above the whole range of the inputs.
    """
    if isinstance(epsilon, int | float) and not 0 <= epsilon <= upper - lower:
        raise ValueError(
            f"epsilon={epsilon}: must be in [0, {upper - lower:g}], in the units of the inputs, which lie in "
            f"[{lower:g}, {upper:g}] (8 grey levels are 8/255 = 0.0314)"
        )


def project(points: Inputs, centre: Inputs, *, epsilon: Scalar, lower: float, upper: float) -> Inputs:
    """Move each coordinate to the nearest value within `epsilon` of `centre` and in [lower, upper]."""
    return jnp.clip(jnp.clip(points, centre - epsilon, centre + epsilon), lower, upper)


def random_start(key: PRNGKey, inputs: Inputs, *, epsilon: Scalar, lower: float, upper: float) -> Inputs:
    """Draw a uniformly random point of the ball and clip it to the range."""
    num_rows, *features = inputs.shape
    noise = draw_rows(lambda rows: jax.random.uniform(key, (rows, *features), inputs.dtype, -1.0, 1.0), num_rows)
    return project(inputs + epsilon * noise, inputs, epsilon=epsilon, lower=lower, upper=upper)
