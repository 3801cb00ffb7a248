"""A network evaluated once: all terms of a loss at the same inputs take one forward pass and one backward pass.

XLA finds out that the cross-entropy and a penalty run the same forward pass, but not that two backward passes with
different cotangents could be one. Where both terms depend on one value, JAX adds their cotangents up first. That saves
a fifth to a third of a step with a penalty of one row, wherever the penalised outputs bend (probabilities, the loss),
and memory too (docs/estimators.md). The rows of a ReLU network's logits do not depend on its values: nothing comes
back through them, so nothing is saved, and passes of their own leave memory to each other. So a penalty says whether
it wants to share (`Sharing`).
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jl1.array_types import Inputs, Labels, LogitsFn, PenaltyFn, PerExample, PRNGKey
from jl1.inputs import check_floating

Values = Float[Array, " batch *rest"]
"""Outputs, or one value an example."""

Pullback = Callable[[Values], tuple[Inputs]]
"""Cotangents of the values to those of the inputs."""


@dataclass(frozen=True, eq=False)  # hashed as itself, and no tree of arrays: jit takes it for the function that it is
class Evaluated:
    """A batched function with its value and its pullback at some inputs; called, it is that function.

    Attributes:
        function: The function, for any other inputs.
        inputs: Where it was evaluated.
        values: Its value there.
        pullback: Its derivative there, from the cotangents of the values to those of the inputs.
    """

    function: Callable[[Inputs], Values]
    inputs: Inputs
    values: Values
    pullback: Pullback

    def __call__(self, inputs: Inputs) -> Values:
        """Return the function's value at any inputs, without a pass over it at those where it was evaluated."""
        return self.values if inputs is self.inputs else self.function(inputs)


def evaluate_once(function: Callable[[Inputs], Values], inputs: Inputs) -> Evaluated:
    """Evaluate a batched function at inputs where its value and its derivative are needed more than once.

    Args:
        function: Examples must not interact.
        inputs: Batch of examples.

    Returns:
        What `compose` and `value_and_pullback` recognise at these very inputs, and a function everywhere.

    Example:
        >>> import jax.numpy as jnp
        >>> inputs = jnp.array([[3.0]])
        >>> square = evaluate_once(lambda x: x**2, inputs)
        >>> value_and_pullback(compose(jnp.negative, square), inputs)[1](jnp.ones((1, 1)))[0].tolist()
        [[-6.0]]
    """
    check_floating(inputs)
    return Evaluated(function, inputs, *jax.vjp(function, inputs))


def compose(outer: Callable[[Values], Values], inner: Callable[[Inputs], Values]) -> Callable[[Inputs], Values]:
    """Return outer(inner(.)), evaluated where `inner` is."""
    if not isinstance(inner, Evaluated):
        return lambda inputs: outer(inner(inputs))
    values, outer_pullback = jax.vjp(outer, inner.values)

    def pullback(cotangents: Values) -> tuple[Inputs]:
        return inner.pullback(outer_pullback(cotangents)[0])

    return Evaluated(lambda inputs: outer(inner.function(inputs)), inner.inputs, values, pullback)


@dataclass(frozen=True)
class Sharing:
    """A penalty that takes its derivatives from the pass of the loss beside it, if it is given an `Evaluated` network.

    Attributes:
        penalty_fn: The penalty, which is called as it is.
    """

    penalty_fn: PenaltyFn

    def __call__(
        self, logits_fn: LogitsFn, inputs: Inputs, *, labels: Labels, key: PRNGKey | None = None
    ) -> PerExample:
        """Return the penalty of every example."""
        return self.penalty_fn(logits_fn, inputs, labels=labels, key=key)


def value_and_pullback(function: Callable[[Inputs], Values], inputs: Inputs) -> tuple[Values, Pullback]:
    """Do as `jax.vjp`, without a pass over a network that is already evaluated at the same array.

    The pullback also takes cotangents that are the same on all devices where the values are not (in `shard_map`).
    """
    if isinstance(function, Evaluated) and function.inputs is inputs:
        values, pullback = function.values, function.pullback
    else:
        check_floating(inputs)
        values, pullback = jax.vjp(function, inputs)
    return values, lambda cotangents: pullback(as_varying(cotangents, values))


def as_varying(cotangents: Values, values: Values) -> Values:
    """Let cotangents vary over devices as the values do: `shard_map` asks for it."""
    return jnp.ones_like(values) * cotangents
