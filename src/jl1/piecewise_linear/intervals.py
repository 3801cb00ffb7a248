"""Intervals of numbers: through a linear map, by each other, and what an activation makes of one."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from jl1.piecewise_linear.kinks import KINKS


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


def _rising_slopes(slope_fn: Callable[[Array], Array], entering: Interval) -> Interval:
    """Return the slopes of an activation whose slope never falls: they lie between those at the ends."""
    return Interval(slope_fn(entering.low), slope_fn(entering.high))


def _tanh_slopes(entering: Interval) -> Interval:
    """Return the slopes of tanh, 1 - tanh^2: they fall on both sides of 0."""
    farthest = jnp.maximum(jnp.abs(entering.low), jnp.abs(entering.high))
    nearest = jnp.maximum(jnp.maximum(entering.low, -entering.high), 0)
    return Interval(1 - jnp.tanh(farthest) ** 2, 1 - jnp.tanh(nearest) ** 2)


SLOPES: Mapping[Any, Callable[[Interval], Interval]] = {
    **{activation: partial(_rising_slopes, kink.slopes) for activation, kink in KINKS.items()},
    nn.softplus: partial(_rising_slopes, nn.sigmoid),
    nn.tanh: _tanh_slopes,
}
"""Activations that never fall: what enters one to its slopes there."""
