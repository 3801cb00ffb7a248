"""Shapes and signatures that the rest of jl1 speaks in.

Shapes stand in the annotations; the test suite checks every one of them at run time
(jaxtyping's import hook with beartype). A `Callable` cannot be checked that way, so functions
that receive one assert the rank of what it returns.
"""

from collections.abc import Callable
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

Inputs = Float[Array, " batch *features"]
"""Network inputs in [0, 1], any feature shape."""

Labels = Int[Array, " batch"]
"""Class indices."""

Logits = Float[Array, " batch classes"]
"""Pre-softmax scores."""

Outputs = Float[Array, " batch outputs"]
"""Whatever is differentiated: logits, or a function of them."""

Jacobian = Float[Array, " batch outputs *features"]
"""df_i/dx_j of every example."""

PerExample = Float[Array, " batch"]
"""One value an example; nothing is averaged."""

Mask = Bool[Array, " batch"]
"""True where an example counts, False where it pads a batch."""

Scalar = float | int | np.floating[Any] | np.integer[Any] | Float[Array, ""] | Int[Array, ""]
"""A number or a traced scalar, so that a sweep over it compiles once."""

PRNGKey = Key[Array, ""]
"""A typed key, `jax.random.key(seed)`."""

Params = Any
"""A tree of arrays, such as `module.init(...)["params"]`."""

OutputsFn = Callable[[Float[Array, " *features"]], Float[Array, " outputs"]]
"""The function of ONE example whose Jacobian is taken."""

BatchedFn = Callable[[Inputs], Outputs]
"""The same for a batch whose examples do not interact."""

LogitsFn = Callable[[Inputs], Logits]
"""A network with its parameters bound: a batch of inputs to logits."""

ApplyFn = Callable[[Params, Inputs], Logits]
"""A network: parameters and a batch of inputs to logits."""

ExampleLossFn = Callable[[Logits, Labels], PerExample]
"""A loss of logits and labels, one value an example."""


@runtime_checkable
class PenaltyFn(Protocol):
    """A penalty of a network at some points, one value an example (`penalties.make_penalty`)."""

    def __call__(
        self, logits_fn: LogitsFn, inputs: Inputs, *, labels: Labels, key: PRNGKey | None = None
    ) -> PerExample:
        """Return the penalty at every example; one that draws at random needs the key."""
        ...


@runtime_checkable
class ChangePenaltyFn(Protocol):
    """A penalty of the outputs' change between two points (`penalties.make_change_penalty`)."""

    def __call__(self, logits: Logits, twin_logits: Logits, *, inputs: Inputs, epsilon: Scalar) -> PerExample:
        """Return the penalty of every pair, of which `inputs` are the first points."""
        ...


@runtime_checkable
class AttackFn(Protocol):
    """An attack: inputs to adversarial inputs within `epsilon` of them, such as `fgsm` or `pgd`."""

    def __call__(self, logits_fn: LogitsFn, inputs: Inputs, *, labels: Labels, epsilon: Scalar, key: PRNGKey) -> Inputs:
        """Return one adversarial input for every input; one that draws nothing is given a key all the same."""
        ...


NormName = Literal["linf", "l2"]
"""The norms that attacks are bounded by, `attacks.norms.NORMS`."""


@runtime_checkable
class NormAttackFn(Protocol):
    """An attack that is told its norm and the range of the inputs too: what `budgets.Stage` needs.

    All attacks of `jl1.attacks` are of this kind. One that knows a single norm has to refuse the other: an
    attack in the wrong norm is not seen in the accuracy that it leaves.
    """

    def __call__(
        self,
        logits_fn: LogitsFn,
        inputs: Inputs,
        *,
        labels: Labels,
        epsilon: Scalar,
        key: PRNGKey,
        norm: NormName = "linf",
        lower: float = 0.0,
        upper: float = 1.0,
    ) -> Inputs:
        """Return one adversarial input for every input, within `epsilon` in `norm` and in [lower, upper]."""
        ...
