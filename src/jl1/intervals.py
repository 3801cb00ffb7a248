"""Intervals of numbers: through a linear map, by each other, and what an activation makes of one."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float


class Interval(NamedTuple):
    """Numbers that lie between two others.

    Attributes:
        low: The lower ends.
        high: The upper ends, of the same shape.
    """

    low: Float[Array, "..."]
    high: Float[Array, "..."]


def affine(push: Callable[..., Array], kernel: Array, values: Interval, **options: Any) -> Interval:
    """Push an interval through an operation of `linear_ops`, for one row: c to W c, r to |W| r.

    Pools in front of a layer are averages, without signs, so the kernel's sign is all there is.
    """
    centre = push(kernel, (values.low + values.high)[None] / 2, **options)[0]
    radius = push(jnp.abs(kernel), (values.high - values.low)[None] / 2, **options)[0]
    return Interval(centre - radius, centre + radius)


def times(values: Interval, factors: Interval) -> Interval:
    """Multiply intervals, the second of which is not negative."""
    return Interval(
        jnp.minimum(values.low * factors.low, values.low * factors.high),
        jnp.maximum(values.high * factors.low, values.high * factors.high),
    )


def _step_slopes(slope: float, entering: Interval) -> Interval:
    """Return the slopes of an activation that is linear on both sides of 0; what can only be 0 counts as off."""
    may_be_on, may_be_off = entering.high > 0, entering.low < 0
    return Interval(jnp.where(may_be_on & ~may_be_off, 1.0, slope), jnp.where(may_be_on, 1.0, slope))


def _tanh_slopes(entering: Interval) -> Interval:
    """Return the slopes of tanh, 1 - tanh^2: they fall on both sides of 0."""
    farthest = jnp.maximum(jnp.abs(entering.low), jnp.abs(entering.high))
    nearest = jnp.maximum(jnp.maximum(entering.low, -entering.high), 0)
    return Interval(1 - jnp.tanh(farthest) ** 2, 1 - jnp.tanh(nearest) ** 2)


SLOPES: Mapping[Any, Callable[[Interval], Interval]] = {
    nn.relu: partial(_step_slopes, 0.0),
    nn.leaky_relu: partial(_step_slopes, 0.01),
    nn.softplus: lambda entering: Interval(nn.sigmoid(entering.low), nn.sigmoid(entering.high)),
    nn.tanh: _tanh_slopes,
}
"""Activations that never fall: what enters one to its slopes there."""
