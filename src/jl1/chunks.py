"""Batches worked off in chunks, so that what a chunk needs stays in the caches, or in a bound of memory."""

import math
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array

from jl1.array_types import Inputs
from jl1.linear_ops import LinearOps

CPU_CHUNK_BYTES = 2_000_000
"""Rows and tangents of one chunk: with twice as much, probabilities on model C slow down by a sixth."""


def chunk_size(ops: list[LinearOps], inputs: Inputs, chunk_bytes: int) -> int:
    """Return how many examples are worked off at a time: a divisor of the batch if one is near the limit."""
    batch_size, num_outputs = inputs.shape[0], ops[-1].output_shape[0]
    numbers = math.prod(inputs.shape[1:]) + sum(op.num_numbers for op in ops[:-1])
    limit = max(1, min(batch_size, chunk_bytes // (num_outputs * numbers * inputs.dtype.itemsize)))
    divisors = [size for size in range(limit, 0, -1) if batch_size % size == 0]
    return divisors[0] if 2 * divisors[0] >= limit else limit


def in_chunks(size: int, arrays: tuple[Array, Array, Array]) -> Any:
    """Cut a batch into chunks; zeros, of weight zero, fill up the last."""
    missing = -arrays[0].shape[0] % size
    padded = (jnp.pad(array, [(0, missing), *[(0, 0)] * (array.ndim - 1)]) for array in arrays)
    return tuple(array.reshape(-1, size, *array.shape[1:]) for array in padded)
