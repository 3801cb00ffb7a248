"""Which functions draw at random."""

import inspect
from collections.abc import Callable
from typing import Any


def needs_key(fn: Callable[..., Any]) -> bool:
    """Tell whether a function cannot be called without a `key`: it has one, without a default and not bound.

    Example:
        >>> from functools import partial
        >>> attack_fn = lambda logits_fn, inputs, *, key: inputs
        >>> needs_key(attack_fn), needs_key(partial(attack_fn, key=None))
        (True, False)
    """
    parameter = inspect.signature(fn).parameters.get("key")
    return parameter is not None and parameter.default is parameter.empty
