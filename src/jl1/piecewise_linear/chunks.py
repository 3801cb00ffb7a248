"""Batches worked off in chunks, so that what a chunk needs stays in the caches, or in a bound of memory."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jl1.array_types import Inputs
from jl1.piecewise_linear.linear_ops import LinearOps

_CHUNK_BYTES = 3_000_000
"""Rows of one chunk, about: with their tangents they stay in the shared cache of a processor."""

_FEWEST_ROWS, MOST_ROWS = 20, 160
"""A product with ten rows runs at half its speed, since it reorders the whole kernel for them; with more than 160 it
gains 2 % more and costs a third more memory."""

_WORTH_IT = 0.9
"""What half of the examples must take at most of the memory: where the parameters take most, fewer only cost time."""


class Chunks(NamedTuple):
    """What is worked off at a time, and what that takes.

    Attributes:
        examples: Examples at a time, at least 1.
        outputs: Outputs of the network at a time, at least 1.
        num_bytes: Temporary memory that this needs, about.
    """

    examples: int
    outputs: int
    num_bytes: int


def choose_chunks(
    bytes_of: Callable[[int, int], int],
    *,
    examples: int,
    outputs: int,
    fewest_outputs: int,
    max_bytes: float | int,
    max_rows: float | int = math.inf,
) -> Chunks:
    """Choose how much is worked off at a time in a bound of memory: all examples if that can be, then more outputs.

    Args:
        bytes_of: What (examples, outputs) at a time need.
        examples: Number of examples.
        outputs: Number of outputs.
        fewest_outputs: Outputs at a time, at least.
        max_bytes: The bound. Where it cannot be kept, examples are halved as long as that saves a tenth.
        max_rows: Examples times outputs from which on more of them gain nothing.

    Returns:
        The choice.

    Example:
        >>> def bytes_of(examples, outputs):
        ...     return 1000 * examples * outputs
        >>> choose_chunks(bytes_of, examples=128, outputs=1000, fewest_outputs=1, max_bytes=300_000)
        Chunks(examples=128, outputs=2, num_bytes=256000)
        >>> choose_chunks(bytes_of, examples=128, outputs=1000, fewest_outputs=1, max_bytes=40_000)
        Chunks(examples=32, outputs=1, num_bytes=32000)
    """
    at_a_time = min(fewest_outputs, outputs)
    num_bytes = bytes_of(examples, at_a_time)
    while num_bytes > max_bytes and examples > 1:
        fewer = -(-examples // 2)
        if (needed := bytes_of(fewer, at_a_time)) > _WORTH_IT * num_bytes:
            break
        examples, num_bytes = fewer, needed
    while at_a_time < outputs and examples * (more := min(2 * at_a_time, outputs)) <= max_rows:
        if (needed := bytes_of(examples, more)) > max_bytes:
            break
        at_a_time, num_bytes = more, needed
    return Chunks(examples, at_a_time, num_bytes)


def cached_examples(ops: list[LinearOps], inputs: Inputs | jax.ShapeDtypeStruct) -> int:
    """Return how many examples a CPU is fastest with at a time: a divisor of the batch if one is near.

    Args:
        ops: The layers.
        inputs: The batch, or its shape.

    Returns:
        At least 1 and at most the size of the batch.
    """
    batch_size, num_outputs = inputs.shape[0], ops[-1].output_shape[0]
    numbers = math.prod(inputs.shape[1:]) + sum(math.prod(op.output_shape) for op in ops[:-1])
    limit = _CHUNK_BYTES // (num_outputs * numbers * inputs.dtype.itemsize)
    limit = min(max(limit, -(-_FEWEST_ROWS // num_outputs)), -(-MOST_ROWS // num_outputs))
    limit = max(1, min(batch_size, limit))
    divisors = [size for size in range(limit, 0, -1) if batch_size % size == 0]
    return divisors[0] if 2 * divisors[0] >= limit else limit


def in_chunks(size: int, arrays: tuple[Array, Array, Array]) -> Any:
    """Cut a batch into chunks; zeros, of weight zero, fill up the last."""
    missing = -arrays[0].shape[0] % size
    padded = (jnp.pad(array, [(0, missing), *[(0, 0)] * (array.ndim - 1)]) for array in arrays)
    return tuple(array.reshape(-1, size, *array.shape[1:]) for array in padded)
