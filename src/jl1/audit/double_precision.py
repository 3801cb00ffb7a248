"""The same attack in float64: what it finds and float32 does not was hidden by rounding."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jl1.array_types import ApplyFn, Inputs, Labels, LogitsFn, Params, Scalar
from jl1.attacks.fgsm import predicted_labels
from jl1.batches import measure

KeylessAttackFn = Callable[..., Inputs]
"""An attack without randomness: (logits_fn, inputs, labels=..., epsilon=...) to points."""


class PrecisionVerdicts(NamedTuple):
    """Verdicts of the float32 network on points that were found in float32 and in float64, bool `[n]`.

    Attributes:
        stands_single: Whether it classifies the point right that the attack in float32 returned.
        stands_double: The same for the attack in float64, whose point is rounded to float32.
    """

    stands_single: np.ndarray
    stands_double: np.ndarray


def precision_verdicts(
    apply_fn: ApplyFn,
    params: Params,
    *,
    inputs: Float[np.ndarray | Array, " num_examples *features"],
    labels: Int[np.ndarray | Array, " num_examples"],
    epsilon: float,
    attack_fn: KeylessAttackFn,
    batch_size: int = 100,
) -> PrecisionVerdicts:
    """Attack in float32 and in float64, from the same start, and compare what the float32 network says.

    Costs a compilation for each precision; float64 is slow on accelerators, so a few dozen points are enough. JAX
    computes in float64 inside this call only: the process's own setting stays as it is. A network that fixes its
    own type (flax's `dtype=jnp.float32`) computes in that one all the same, and nothing is learnt.

    Args:
        apply_fn: Function of params and inputs to logits.
        params: Parameters.
        inputs: All inputs.
        labels: All labels.
        epsilon: L-infinity radius.
        attack_fn: Without a random start, which would be another one in the other precision: `fgsm`, or
            `partial(pgd, key=None)`.
        batch_size: Examples at a time, at least 1.

    Returns:
        Two verdicts an example.

    Raises:
        ValueError: No examples, or a `batch_size` below 1.
    """

    def step(params: Params, inputs: Inputs, labels: Labels, epsilon: Scalar) -> Inputs:
        return attack_fn(partial(apply_fn, params), inputs, labels=labels, epsilon=epsilon)

    def judge(params: Params, points: Inputs, labels: Labels) -> Array:
        logits_fn: LogitsFn = partial(apply_fn, params)
        return predicted_labels(logits_fn, points) == labels

    step, judge = jax.jit(step), jax.jit(judge)
    over_all = partial(measure, labels=labels, batch_size=batch_size)
    single = over_all(step, _as_type(np.float32, params), inputs=_as_type(np.float32, inputs), epsilon=epsilon)
    with jax.enable_x64(True):
        double = over_all(step, _as_type(np.float64, params), inputs=_as_type(np.float64, inputs), epsilon=epsilon)
    params = _as_type(np.float32, params)
    verdicts = (over_all(judge, params, inputs=_as_type(np.float32, points)) for points in (single, double))
    return PrecisionVerdicts(*verdicts)


def _as_type(dtype: type, tree: Any) -> Any:
    """Turn the floating arrays of a tree into NumPy arrays of one type."""
    return jax.tree.map(
        lambda leaf: np.asarray(leaf, dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf, tree
    )
