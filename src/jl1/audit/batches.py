"""A measure over all examples: batch after batch, one compilation, bounded memory."""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import numpy as np
from jaxtyping import Array, Float, Int

from jl1.array_types import Params
from jl1.evaluation import over_batches

T = TypeVar("T")


def measure(
    step: Callable[..., T],
    params: Params,
    *,
    inputs: Float[np.ndarray | Array, " num_examples *features"],
    labels: Int[np.ndarray | Array, " num_examples"],
    **options: Any,
) -> T:
    """Run a step of this package over all examples and put its arrays together.

    Args:
        step: From a `make_*_step`.
        params: Parameters.
        inputs: All inputs.
        labels: All labels.
        **options: Of `evaluation.over_batches` (`batch_size`, `key`) and of the step (`epsilon`).

    Returns:
        What the step returns, as NumPy arrays with a row for each of all examples.

    Raises:
        ValueError: No examples, or a `batch_size` below 1.

    Example:
        >>> step = lambda params, inputs, labels: {"sum": params + inputs.sum(axis=1)}
        >>> points = np.ones((3, 2), np.float32)
        >>> measure(step, 1.0, inputs=points, labels=np.zeros(3, int), batch_size=2)["sum"].tolist()
        [3.0, 3.0, 3.0]
    """
    batches = over_batches(step, params, inputs=inputs, labels=labels, **options)
    return jax.tree.map(lambda *parts: np.concatenate(parts), *batches)
