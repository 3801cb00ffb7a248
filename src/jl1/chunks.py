"""Batches worked off in chunks, so that what a chunk needs stays in the caches, or in a bound of memory."""

import math
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array

from jl1.array_types import Inputs
from jl1.linear_ops import LinearOps

_CHUNK_BYTES = 3_000_000
"""Rows of one chunk, about: with their tangents they stay in the shared cache of a processor."""

_FEWEST_ROWS, _MOST_ROWS = 20, 160
"""A product with ten rows runs at half its speed, since it reorders the whole kernel for them; with more than 160 it
gains 2 % more and costs a third more memory."""


def chunk_size(ops: list[LinearOps], inputs: Inputs, chunk_bytes: int | None = None) -> int:
    """Return how many examples are worked off at a time: a divisor of the batch if one is near the limit.

    Args:
        ops: The layers.
        inputs: The batch.
        chunk_bytes: Of the rows of a chunk; None: what is fastest on a CPU.

    Returns:
        At least 1 and at most the size of the batch.
    """
    batch_size, num_outputs = inputs.shape[0], ops[-1].output_shape[0]
    numbers = math.prod(inputs.shape[1:]) + sum(math.prod(op.output_shape) for op in ops[:-1])
    limit = (chunk_bytes or _CHUNK_BYTES) // (num_outputs * numbers * inputs.dtype.itemsize)
    if chunk_bytes is None:
        limit = min(max(limit, -(-_FEWEST_ROWS // num_outputs)), -(-_MOST_ROWS // num_outputs))
    limit = max(1, min(batch_size, limit))
    divisors = [size for size in range(limit, 0, -1) if batch_size % size == 0]
    return divisors[0] if 2 * divisors[0] >= limit else limit


def in_chunks(size: int, arrays: tuple[Array, Array, Array]) -> Any:
    """Cut a batch into chunks; zeros, of weight zero, fill up the last."""
    missing = -arrays[0].shape[0] % size
    padded = (jnp.pad(array, [(0, missing), *[(0, 0)] * (array.ndim - 1)]) for array in arrays)
    return tuple(array.reshape(-1, size, *array.shape[1:]) for array in padded)
