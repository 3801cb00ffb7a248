"""Numbers that must lie in a range, wherever they can be looked at."""

from collections.abc import Callable

import numpy as np

from jl1.array_types import Scalar
from jl1.attacks.ball import known


def check_number(name: str, value: Scalar, is_allowed: Callable[[np.ndarray], np.ndarray | bool], allowed: str) -> None:
    """Refuse a number that cannot be meant; a traced one cannot be looked at, so nothing is added inside jit.

    Args:
        name: Of the argument, for the message.
        value: The number.
        is_allowed: Tells whether a number may be meant; false for NaN.
        allowed: The same in words, after "must be".

    Raises:
        ValueError: A number that is not allowed.
    """
    number = known(value)
    if number is not None and not np.all(is_allowed(number)):
        raise ValueError(f"{name}={value}: must be {allowed}")


def check_weight(name: str, value: Scalar) -> None:
    """Refuse a number below 0 for a weight in a loss, and NaN."""
    check_number(name, value, lambda weight: weight >= 0, "at least 0")
