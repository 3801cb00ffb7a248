"""The same attack through shifted, scaled and centred logits, which decide as the plain ones do.

An attack that finds more through one of them was stopped by rounding and not by the network: a softmax that saturates
has no gradient left, and a tenth of its logits has one.

References:
    Carlini, Wagner 2016, "Defensive distillation is not robust to adversarial examples", arXiv:1607.04311: smaller
    logits bring the gradients back that a distilled network had rounded to zero.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jl1.array_types import ApplyFn, AttackFn, Inputs, Labels, Logits, Mask, Params, PRNGKey, Scalar
from jl1.attacks.fgsm import predicted_labels


class Transform(NamedTuple):
    """The logits z become scale * (z - centring * mean z) + shift."""

    scale: float = 1.0
    shift: float = 0.0
    centring: float = 0.0


TRANSFORMS: Mapping[str, Transform] = {
    "plain": Transform(),
    "shift 1e4": Transform(shift=1e4),
    "scale 0.1": Transform(scale=0.1),
    "scale 10": Transform(scale=10.0),
    "centred": Transform(centring=1.0),
}
"""None changes a decision, but for ties that rounding makes: 1e4 leaves three decimals to a logit."""


class Invariance(NamedTuple):
    """The same attack through every one of `TRANSFORMS`, one row an example.

    Attributes:
        stands: Whether the network, untransformed, classifies the attacked point right; a column a transform, in the
            order of `TRANSFORMS`.
        stands_again: The same for a second attack through the plain logits with another key. It says which points
            any second walk breaks: in a crooked ball some fall by luck.
    """

    stands: Bool[Array, " batch transforms"]
    stands_again: Mask


def make_invariance_step(apply_fn: ApplyFn, *, attack_fn: AttackFn) -> Callable[..., Invariance]:
    """Make the jitted `step(params, inputs, labels, epsilon, key)` that attacks through every transform.

    All attacks but the second plain one have the same key. They run one after another: memory is that of one.

    Args:
        apply_fn: Function of params and inputs to logits.
        attack_fn: The attack, such as `partial(pgd, num_steps=40)` on the cross-entropy: the margin and the DLR do
            not change under a scale.

    Returns:
        The step, for `batches.measure`.
    """

    def step(params: Params, inputs: Inputs, labels: Labels, epsilon: Scalar, key: PRNGKey) -> Invariance:
        logits_fn = partial(apply_fn, params)

        def stands(attempt: tuple[Float[Array, "3"], PRNGKey]) -> Mask:
            transform, attack_key = attempt

            def through(points: Inputs) -> Logits:
                return transformed(logits_fn(points), Transform(*transform))

            points = attack_fn(through, inputs, labels=labels, epsilon=epsilon, key=attack_key)
            return predicted_labels(logits_fn, points) == labels

        transforms = jnp.asarray([*TRANSFORMS.values(), Transform()], inputs.dtype)
        keys = jnp.stack([*[key] * len(TRANSFORMS), jax.random.fold_in(key, 1)])
        verdicts = jax.lax.map(stands, (transforms, keys))
        return Invariance(verdicts[:-1].T, verdicts[-1])

    return jax.jit(step)


def transformed(logits: Logits, transform: Transform) -> Logits:
    """Apply a transform.

    Example:
        >>> transformed(jnp.array([[3.0, 1.0]]), TRANSFORMS["centred"]).tolist()
        [[1.0, -1.0]]
    """
    mean = jnp.mean(logits, axis=1, keepdims=True)
    return transform.scale * (logits - transform.centring * mean) + transform.shift
