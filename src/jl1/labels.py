"""Labels that are labels: one class index an example."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jl1.array_types import Labels, Logits


def check_labels(labels: np.ndarray | Array, rows: np.ndarray | Array, *, what: str) -> None:
    """Refuse labels that are not one integer for each row: broadcast or clamped, they would give wrong numbers.

    Looks at shapes and types alone, which are known inside jit too.

    Args:
        labels: What is given as labels.
        rows: What they are to be labels of, such as inputs or logits, an example a row.
        what: Its name for the message.

    Raises:
        ValueError: Another shape, or a type that is not an integer.

    Example:
        >>> check_labels(np.zeros((2, 1), int), np.zeros((2, 10)), what="logits")
        Traceback (most recent call last):
        ...
        ValueError: labels of shape (2, 1) with logits of shape (2, 10): one class index an example is needed, of \
shape (2,); give labels[:, 0]
    """
    if labels.shape != rows.shape[:1]:
        raise ValueError(
            f"labels of shape {labels.shape} with {what} of shape {rows.shape}: one class index an example is needed, "
            f"of shape {rows.shape[:1]}{_advice(labels.shape, len(rows))}"
        )
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise ValueError(f"labels of type {labels.dtype}: class indices are integers; give labels.astype('int32')")


def one_hot(labels: Labels, num_classes: int, dtype: Any) -> Array:
    """Return a row an example, 1 at its label; `jax.nn.one_hot` would count the classes in the labels' own type."""
    return jax.nn.one_hot(labels.astype(jnp.int32), num_classes, dtype=dtype)


def decisions(logits: Logits) -> Labels:
    """Return the class of the highest logit, the first of several; -1, which is no label, where one is no number."""
    return jnp.where(jnp.any(jnp.isnan(logits), axis=-1), -1, jnp.argmax(logits, axis=-1))


def _advice(shape: tuple[int, ...], num_rows: int) -> str:
    """Say what makes labels of such a shape, as far as it can be told."""
    if len(shape) != 2 or shape[0] != num_rows:
        return ""
    return "; give labels[:, 0]" if shape[1] == 1 else "; if each row is one-hot, give labels.argmax(axis=1)"
