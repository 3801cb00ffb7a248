"""One value an example, or one a channel, beside whole batches of any rank."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from jl1.array_types import Inputs, Mask, PerExample


def spread(values: PerExample | Mask, rows: Array) -> Array:
    """Give one value an example the rank of the rows, so that it multiplies or selects whole examples."""
    return values.reshape(-1, *[1] * (rows.ndim - 1))


def spread_channels(values: Float[Array, " channels"], rows: Array) -> Array:
    """Give one value a channel, the last axis, the rank of the rows."""
    return values.reshape(*[1] * (rows.ndim - 1), -1)


def is_narrow(values: Array) -> bool:
    """Say whether numbers are of a type of 16 bits, so coarse that rounding carries points out of their balls."""
    return jnp.finfo(values.dtype).bits < 32


def tiny(rows: Array) -> float:
    """Return what keeps a quotient of numbers of this type from being 0 / 0: 1e-12, more where that would be 0."""
    return max(1e-12, float(jnp.finfo(rows.dtype).tiny))


def check_losses(losses: Array, num_examples: int) -> None:
    """Refuse a loss that has been averaged: its slopes would be too small by the number of examples.

    Raises:
        ValueError: Not one value an example.
    """
    if losses.shape != (num_examples,):
        raise ValueError(
            f"loss_fn returned shape {losses.shape} for {num_examples} examples: one value an example is needed, of "
            f"shape ({num_examples},); do not average in it"
        )


def is_finite(rows: Array) -> Mask:
    """Say of each example whether all its numbers are numbers."""
    return jnp.all(jnp.isfinite(rows.reshape(len(rows), -1)), axis=1)


def choose(mask: Mask, points: Inputs, otherwise: Inputs) -> Inputs:
    """Take whole examples from one batch where the mask is true and from the other elsewhere."""
    return jnp.where(spread(mask, points), points, otherwise)
