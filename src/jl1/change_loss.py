"""The left side of Eq. 2 as a penalty: how far the outputs move between a point and its twin."""

from collections.abc import Callable

import jax.numpy as jnp

from jl1.array_types import ChangePenaltyFn, Inputs, Labels, Logits, LogitsFn, PerExample, PRNGKey, Scalar
from jl1.attacks.fgsm import fgsm
from jl1.attacks.twins import split_key, twins_of
from jl1.losses import LossTerms, cross_entropy
from jl1.ranges import check_weight


def output_change_loss(
    logits_fn: LogitsFn,
    inputs: Inputs,
    *,
    labels: Labels,
    lam: Scalar,
    epsilon: Scalar,
    penalty_fn: ChangePenaltyFn,
    loss_fn: Callable[[Logits, Labels], PerExample] = cross_entropy,
    attack_fn: Callable[..., Inputs] = fgsm,
    key: PRNGKey | None = None,
) -> LossTerms:
    """Compute (L(x, y) + L(x', y)) / 2 + lambda * sum_i |f_i(x') - f_i(x)| / epsilon.

    Twins as in `defended_loss`, and the left side of Eq. 2 in place of the Jacobian on its right. The penalty takes the
    logits that the two losses take: it costs no pass over the network.

    Args:
        logits_fn: Network with its parameters bound, a batch to logits.
        inputs: Batch in [0, 1].
        labels: True classes, the target of both points.
        lam: lambda, at least 0; may be traced.
        epsilon: Radius of the attack, in [0, 1]; may be traced. At 0 the penalty is 0.
        penalty_fn: From `penalties.make_change_penalty`.
        loss_fn: L; bind the smoothing with `functools.partial`.
        attack_fn: As of `defended_loss`.
        key: As of `defended_loss`, with the same half for the attack; this penalty draws nothing.

    Returns:
        The terms of every example, not averaged over the batch.

    Raises:
        ValueError: A number for `lam` below 0, or an attack that needs a key, and no key.
    """
    check_weight("lam", lam)
    attack_key, _ = split_key(key)
    twins = twins_of(logits_fn, inputs, labels=labels, epsilon=epsilon, attack_fn=attack_fn, key=attack_key)
    points = jnp.concatenate([inputs, twins])
    logits = logits_fn(points)
    losses = jnp.mean(loss_fn(logits, jnp.concatenate([labels, labels])).reshape(2, -1), axis=0)
    penalties = penalty_fn(*jnp.split(logits, 2), inputs=inputs, epsilon=epsilon)
    return LossTerms(losses + lam * penalties, losses, penalties)
