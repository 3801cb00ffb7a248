"""The nearest point of a plane inside a box, in L-infinity and in L2: the projection that FAB rests on."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jl1.array_types import Inputs, PerExample
from jl1.attacks.norms import Norm


def step_to_plane(points: Inputs, normal: Inputs, gap: PerExample, *, norm: Norm, lower: float, upper: float) -> Inputs:
    """Compute the shortest step d with <normal, d> = gap and lower <= points + d <= upper.

    Entry i moves by min(t slope_i, room_i) in the direction that closes the gap, with slope 1 in L-infinity and
    |normal_i| in L2, until the range stops it. So the gap that a distance t closes,
    h(t) = sum_i |normal_i| min(t slope_i, room_i), is concave and piecewise linear, and Newton's steps to
    h(t) = |gap| from t = 0 never pass it: they end at the exact t after at most one step a piece, in practice a few,
    and no sort of the entries is needed. Where no point of the box closes the gap, all go as far as they can.

    Args:
        points: Where the step begins, in [lower, upper].
        normal: Normal of every example's plane.
        gap: What <normal, d> must be.
        norm: Whose length is least.
        lower: Lowest value an input may have.
        upper: Highest value an input may have.

    Returns:
        The step of every example.

    References:
        Croce, Hein 2020, "Minimally distorted adversarial examples with a fast adaptive boundary
        attack", arXiv:1907.02044, where the entries are sorted.
    """
    rows = len(points)
    uphill = (normal.reshape(rows, -1) * jnp.sign(gap)[:, None]).astype(points.dtype)
    room = jnp.where(uphill > 0, upper - points.reshape(rows, -1), points.reshape(rows, -1) - lower)
    weight = jnp.abs(uphill)
    distance = _distance(weight, jnp.where(weight > 0, norm.slope(weight), 0.0), room, jnp.abs(gap))
    return (jnp.sign(uphill) * _move(distance, norm.slope(weight), room)).reshape(points.shape)


_Rows = Float[Array, " batch features"]


def _move(distance: PerExample, slope: _Rows, room: _Rows) -> _Rows:
    """Compute min(t slope, room); where the slope is 0 an infinite t moves nothing either."""
    return jnp.where(slope > 0, jnp.minimum(jnp.where(slope > 0, slope, 1.0) * distance[:, None], room), 0.0)


def _distance(weight: _Rows, slope: _Rows, room: _Rows, gap: PerExample) -> PerExample:
    """Solve sum_i weight_i min(t slope_i, room_i) = gap for t; infinite where no t is enough."""
    most = jnp.where(slope > 0, room / jnp.where(slope > 0, slope, 1.0), jnp.inf)  # the t at which entry i stops

    def newton(carry: tuple[PerExample, Bool[Array, ""]]) -> tuple[PerExample, Bool[Array, ""]]:
        distance, _ = carry
        stopped = most <= distance[:, None]
        closed = jnp.sum(jnp.where(stopped, weight * room, 0.0), axis=1)
        speed = jnp.sum(jnp.where(stopped, 0.0, weight * slope), axis=1)
        left = gap - closed
        further = jnp.where(speed > 0, left / jnp.where(speed > 0, speed, 1.0), jnp.where(left > 0, jnp.inf, 0.0))
        further = jnp.maximum(distance, further)  # rounding must not turn it round
        return further, jnp.any(further > distance)

    begins = jnp.any(jnp.ones_like(gap, bool))  # of the gap: inside `shard_map` it varies over the devices as that does
    start = (jnp.zeros_like(gap), begins)
    return jax.lax.while_loop(lambda carry: carry[1], newton, start)[0]
