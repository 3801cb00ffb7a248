"""How much temporary memory a function needs, told from the function alone: nothing is compiled and nothing run."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, Var


def temporary_bytes(function: Callable[..., Any], *arguments: Any) -> int:
    """Count the bytes of the arrays that are alive at the same time, at most, while a function is computed as written.

    A compiler mostly needs less, since it fuses operations, and rarely more, where it copies arrays into another
    layout: on the penalties of models A, B and C XLA for CPUs took 0.2 to 1.1 times the count (tests/test_memory.py).

    Args:
        function: A function of arrays, such as a gradient; loops and differentiation may be inside.
        *arguments: Its arguments, or `jax.ShapeDtypeStruct` in their place.

    Returns:
        Bytes, without those of the arguments.

    Example:
        >>> import jax.numpy as jnp
        >>> temporary_bytes(lambda x: jnp.sum(x[:, None] * x[None]), jnp.ones(100))  # 10,000 products, two factors
        40800
    """
    return _peak(jax.make_jaxpr(function)(*arguments).jaxpr)


def _peak(program: Jaxpr) -> int:
    """Go through a program and keep account of what is alive."""
    last_use = {value: index for index, step in enumerate(program.eqns) for value in _variables(step.invars)}
    last_use |= dict.fromkeys(_variables(program.outvars), len(program.eqns))
    alive: dict[Var, int] = {}
    peak = now = 0
    for index, step in enumerate(program.eqns):
        alive |= {value: _bytes_of(value) for value in step.outvars}
        now += sum(alive[value] for value in step.outvars)
        peak = max(peak, now + max(map(_peak, _programs_in(step)), default=0))
        for value in {*_variables(step.invars), *step.outvars}:
            if last_use.get(value, index) == index:
                now -= alive.pop(value, 0)
    return peak


def _variables(values: list[Any]) -> Iterator[Var]:
    """Yield those that are no constants in the text of the program."""
    return (value for value in values if not isinstance(value, Literal))


def _programs_in(step: JaxprEqn) -> Iterator[Jaxpr]:
    """Yield the bodies of a loop, of branches or of a call."""
    for parameter in step.params.values():
        for part in parameter if isinstance(parameter, tuple | list) else (parameter,):
            if isinstance(part, Jaxpr | ClosedJaxpr):
                yield part.jaxpr if isinstance(part, ClosedJaxpr) else part


def _bytes_of(value: Var) -> int:
    """Return the size of an array; tokens and the like have none."""
    return getattr(value.aval, "size", 0) * getattr(getattr(value.aval, "dtype", None), "itemsize", 0)
