"""A step over all examples: batch after batch, one compilation, bounded memory."""

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import jax
import numpy as np
from jaxtyping import Array, Float, Int

from jl1.array_types import Params, PRNGKey, Scalar
from jl1.labels import check_labels

T = TypeVar("T")

BatchFn = Callable[..., Any]
"""A jitted function of (params, inputs, labels, ...) with an array, or a tree of arrays, of a row an example."""


def over_batches(
    batch_fn: BatchFn,
    params: Params,
    *,
    inputs: Float[np.ndarray | Array, " num_examples *features"],
    labels: Int[np.ndarray | Array, " num_examples"],
    batch_size: int = 500,
    key: PRNGKey | None = None,
    **options: Scalar,
) -> Iterator[Any]:
    """Run a step over all examples, one batch after another, and give its values batch by batch.

    Every batch has the same shape, the last one is padded and the padding cut off its values: one compilation, no
    example dropped. `numpy.concatenate(list(...))` gives the values of all examples.

    Args:
        batch_fn: Step such as from `make_eval_step` or `make_penalty_step`.
        params: Parameters.
        inputs: All inputs.
        labels: All labels.
        batch_size: Examples at a time, at least 1.
        key: Passed to the step with the number of the batch folded in, if given.
        **options: Passed to the step as they are, such as epsilon.

    Returns:
        An iterator over what the step returned for each batch, an array or a tree of arrays with a row an example.

    Raises:
        ValueError: At the call: no examples, `batch_size` below 1, or labels that are not one integer an example.
    """
    if len(inputs) == 0 or batch_size < 1:
        raise ValueError(f"{len(inputs)} examples in batches of {batch_size}: both must be at least 1")
    check_labels(labels, inputs, what="inputs")
    batch_size = min(batch_size, len(inputs))

    def one_batch(number: int, start: int) -> Any:
        rows = np.arange(start, start + batch_size)
        size = min(batch_size, len(inputs) - start)
        rows[size:] = start
        keys = {} if key is None else {"key": jax.random.fold_in(key, number)}
        values = batch_fn(params, inputs[rows], labels[rows], **options, **keys)
        return jax.tree.map(lambda leaf: np.asarray(leaf)[:size], values)

    return (one_batch(number, start) for number, start in enumerate(range(0, len(inputs), batch_size)))


def measure(
    step: Callable[..., T],
    params: Params,
    *,
    inputs: Float[np.ndarray | Array, " num_examples *features"],
    labels: Int[np.ndarray | Array, " num_examples"],
    **options: Any,
) -> T:
    """Run a step over all examples and put its arrays together.

    Args:
        step: From a `make_*_step`.
        params: Parameters.
        inputs: All inputs.
        labels: All labels.
        **options: Of `batches.over_batches` (`batch_size`, `key`) and of the step (`epsilon`).

    Returns:
        What the step returns, as NumPy arrays with a row for each of all examples.

    Raises:
        ValueError: As `over_batches`.

    Example:
        >>> step = lambda params, inputs, labels: {"sum": params + inputs.sum(axis=1)}
        >>> points = np.ones((3, 2), np.float32)
        >>> measure(step, 1.0, inputs=points, labels=np.zeros(3, int), batch_size=2)["sum"].tolist()
        [3.0, 3.0, 3.0]
    """
    batches = over_batches(step, params, inputs=inputs, labels=labels, **options)
    return jax.tree.map(lambda *parts: np.concatenate(parts), *batches)
