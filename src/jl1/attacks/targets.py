"""Which classes a targeted attack tries, and the attack over several of them."""

from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from jl1.array_types import Inputs, Labels, Logits, LogitsFn, Mask, NormAttackFn, PRNGKey, Scalar
from jl1.attacks.fgsm import predicted_labels
from jl1.labels import check_labels, decisions, one_hot
from jl1.per_example import choose


@runtime_checkable
class TargetedAttackFn(Protocol):
    """An attack toward one class an example."""

    def __call__(
        self,
        logits_fn: LogitsFn,
        inputs: Inputs,
        *,
        labels: Labels,
        targets: Labels,
        epsilon: Scalar,
        key: PRNGKey,
        **options: object,
    ) -> Inputs:
        """Return one adversarial input for every input."""
        ...


def ranked_targets(logits: Logits, labels: Labels, *, rank: Scalar) -> Labels:
    """Return the class of the given rank among those that are not the label, from the highest logit down.

    Args:
        logits: Scores at the unperturbed inputs.
        labels: True labels.
        rank: 0 for the closest rival, at most the number of classes - 2; may be traced.

    Returns:
        One class an example.

    Example:
        >>> import jax.numpy as jnp
        >>> ranked_targets(jnp.array([[3.0, 1.0, 2.5]]), jnp.array([0]), rank=1).tolist()
        [1]
    """
    check_labels(labels, logits, what="logits")
    is_label = one_hot(labels, logits.shape[1], bool)
    return jnp.argsort(jnp.where(is_label, jnp.inf, -logits), axis=1)[:, rank]


def over_targets(attack_fn: TargetedAttackFn, *, num_targets: int = 9) -> NormAttackFn:
    """Make an attack that tries the `num_targets` closest rivals one after another.

    Every example keeps the first misclassified point; one that stands is returned unchanged. The loop ends when
    all examples are beaten. `ensemble.standard_attack` does the same with fewer examples from target to target.

    Args:
        attack_fn: Attack toward given classes, such as `apgd_targeted`.
        num_targets: How many classes, at least 1; no more are tried than there are rivals.

    Returns:
        The attack; like all attacks not jitted.

    Raises:
        ValueError: `num_targets` below 1.
    """
    if num_targets < 1:
        raise ValueError(f"num_targets={num_targets}: must be at least 1")

    def attack(
        logits_fn: LogitsFn, inputs: Inputs, *, labels: Labels, epsilon: Scalar, key: PRNGKey, **options: object
    ) -> Inputs:
        check_labels(labels, inputs, what="inputs")
        logits = logits_fn(inputs)

        def one_target(carry: tuple[Int[Array, ""], Inputs, Mask]) -> tuple[Int[Array, ""], Inputs, Mask]:
            rank, best, beaten = carry
            points = attack_fn(
                logits_fn,
                inputs,
                labels=labels,
                targets=ranked_targets(logits, labels, rank=rank),
                epsilon=epsilon,
                key=jax.random.fold_in(key, rank),
                **options,
            )
            won = ~beaten & (predicted_labels(logits_fn, points) != labels)
            return rank + 1, choose(won, points, best), beaten | won

        limit, wrong = min(num_targets, logits.shape[1] - 1), decisions(logits) != labels
        state = jax.lax.while_loop(
            lambda carry: (carry[0] < limit) & ~jnp.all(carry[2]), one_target, (jnp.asarray(0), inputs, wrong)
        )
        return jax.lax.stop_gradient(state[1])

    return attack
