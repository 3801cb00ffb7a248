"""Inputs that can be attacked: floating numbers in their range."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

_ROUNDING = 1e-6


def check_floating(inputs: np.ndarray | Array) -> None:
    """Refuse whole numbers: there is no derivative at them, and a radius would be rounded to one of them.

    Looks at the type alone, which is known inside jit too.

    Raises:
        ValueError: A type that is not floating.

    Example:
        >>> check_floating(np.zeros((2, 4), np.uint8))
        Traceback (most recent call last):
        ...
        ValueError: inputs of type uint8: floating numbers are needed; divide bytes by 255, or give \
inputs.astype('float32')
    """
    if not jnp.issubdtype(inputs.dtype, jnp.floating):
        raise ValueError(
            f"inputs of type {inputs.dtype}: floating numbers are needed; divide bytes by 255, or give "
            "inputs.astype('float32')"
        )


def check_range(inputs: np.ndarray | Array, lower: float, upper: float) -> None:
    """Refuse points outside the range that inputs may have: attacks clip to it, so one of radius 0 would move them.

    Args:
        inputs: Known values, an example a row.
        lower: Lowest value an input may have.
        upper: Highest value an input may have; both up to rounding.

    Raises:
        ValueError: A point out of the range, or one that is no number; how many there are.
    """
    values = np.asarray(inputs)
    is_inside = (values >= lower - _ROUNDING) & (values <= upper + _ROUNDING)
    num_outside = len(values) - np.sum(np.all(is_inside, axis=tuple(range(1, values.ndim))))
    if num_outside:
        raise ValueError(
            f"{num_outside} of {len(values)} points are not in [{lower:g}, {upper:g}]: what a ball holds depends on "
            "the range of the inputs; give lower=... and upper=..., or bring the inputs into it"
        )
