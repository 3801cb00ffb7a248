"""Intervals of numbers: through a layer, by each other, and what an activation makes of one.

They are rounded outwards. An interval holds what exact arithmetic makes of any numbers in the intervals before it, and
what floating point makes of them, in whatever order it adds up: a sum of n products is off by at most n u / (1 - n u)
times the sum of their absolute values, with u half an epsilon of the type. Left out are overflow, underflow, and
products that are not sums of products in this type (those of Winograd, of Fourier transforms, of TF32).

References:
    Higham 2002, "Accuracy and stability of numerical algorithms", Sec. 3.1.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from jl1.per_example import spread_channels
from jl1.piecewise_linear.kinks import KINKS
from jl1.piecewise_linear.linear_ops import LinearOps

_MORE_ROUNDINGS = 8
"""For what else is done to a sum: its bias, its activation, the ends of its interval."""


class Interval(NamedTuple):
    """Numbers that lie between two others.

    Attributes:
        low: The lower ends.
        high: The upper ends, of the same shape.
    """

    low: Float[Array, "..."]
    high: Float[Array, "..."]

    @property
    def largest(self) -> Float[Array, "..."]:
        """The largest absolute values."""
        return jnp.maximum(jnp.abs(self.low), jnp.abs(self.high))

    def widened(self, by: Float[Array, "..."]) -> "Interval":
        """Move both ends outwards."""
        return Interval(self.low - by, self.high + by)


def roundings(num_summands: int, dtype: Any) -> float:
    """Return what rounding can do to a sum of products, as a share of the sum of their absolute values.

    Twice over, for a bound and for the network that it is about.

    Args:
        num_summands: How many products are added up.
        dtype: Their type.
    """
    share = (num_summands + _MORE_ROUNDINGS) * float(jnp.finfo(dtype).eps)
    return share / (1 - share)


def push(op: LinearOps, kernel: Array, bias: Array, values: Interval) -> tuple[Interval, Float[Array, "..."]]:
    """Push an interval through a layer: c to W c + b, r to |W| r.

    Pools in front of a layer are averages, without signs, so the kernel's sign is all there is.

    Returns:
        What leaves the layer, and how much of its radius is for rounding.
    """
    centre = op.push(kernel, (values.low + values.high)[None] / 2)[0]
    shift = spread_channels(bias, centre)
    radius, size = op.push(jnp.abs(kernel), jnp.stack([(values.high - values.low) / 2, values.largest]))
    slack = roundings(op.num_summands, centre.dtype) * (size + jnp.abs(shift))
    return Interval(centre + shift, centre + shift).widened(radius + slack), slack


def pull(op: LinearOps, kernel: Array, rows: Interval) -> Interval:
    """Pull an interval of one row back through a layer: c to W^T c, r to |W|^T r."""
    centre = op.pull(kernel, (rows.low + rows.high)[None] / 2, _itself)[0]
    radius, size = op.pull(jnp.abs(kernel), jnp.stack([(rows.high - rows.low) / 2, rows.largest]), _itself)
    return Interval(centre, centre).widened(radius + roundings(op.num_summands, centre.dtype) * size)


def through(activation: Callable[[Array], Array], entering: Interval) -> Interval:
    """Return what an activation that never falls makes of an interval."""
    ends = Interval(activation(entering.low), activation(entering.high))
    share = roundings(0, entering.low.dtype)
    return Interval(ends.low - share * jnp.abs(ends.low), ends.high + share * jnp.abs(ends.high))


def times(values: Interval, factors: Interval) -> Interval:
    """Multiply intervals, the second of which is not negative."""
    return Interval(
        jnp.minimum(values.low * factors.low, values.low * factors.high),
        jnp.maximum(values.high * factors.low, values.high * factors.high),
    )


def _itself(row: Array) -> Array:
    """Change nothing on the way."""
    return row


def _rising_slopes(slope_fn: Callable[[Array], Array], entering: Interval) -> Interval:
    """Return the slopes of an activation whose slope never falls: they lie between those at the ends."""
    return Interval(slope_fn(entering.low), slope_fn(entering.high))


def _softplus_slopes(entering: Interval) -> Interval:
    """Return the slopes of softplus, the sigmoid, which rises."""
    return _rounded_slopes(_rising_slopes(nn.sigmoid, entering))


def _tanh_slopes(entering: Interval) -> Interval:
    """Return the slopes of tanh, 1 - tanh^2: they fall on both sides of 0."""
    nearest = jnp.maximum(jnp.maximum(entering.low, -entering.high), 0)
    return _rounded_slopes(Interval(1 - jnp.tanh(entering.largest) ** 2, 1 - jnp.tanh(nearest) ** 2))


def _rounded_slopes(slopes: Interval) -> Interval:
    """Add what rounding can do to slopes between 0 and 1."""
    wider = slopes.widened(jnp.full_like(slopes.low, roundings(0, slopes.low.dtype)))
    return Interval(jnp.maximum(wider.low, 0), jnp.minimum(wider.high, 1))


SLOPES: Mapping[Any, Callable[[Interval], Interval]] = {
    **{activation: partial(_rising_slopes, kink.slopes) for activation, kink in KINKS.items()},
    nn.softplus: _softplus_slopes,
    nn.tanh: _tanh_slopes,
}
"""Activations that never fall: what enters one to its slopes there."""
