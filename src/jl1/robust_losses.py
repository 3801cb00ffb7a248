"""Losses of robust training that a penalty is judged beside, each with a penalty of its own if one is wanted.

Like those of `losses.py` they return one value an example; averages and jit are the caller's.
"""

from collections.abc import Callable

from jl1.array_types import Inputs, Labels, Logits, LogitsFn, PenaltyFn, PerExample, PRNGKey, Scalar
from jl1.attacks.ascent import pgd_last_point
from jl1.attacks.divergence import kl_ascent, kl_divergence
from jl1.attacks.twins import split_key, twins_of
from jl1.losses import LossTerms, cross_entropy, penalised_loss
from jl1.ranges import check_number, check_weight


def adversarial_loss(
    logits_fn: LogitsFn,
    inputs: Inputs,
    *,
    labels: Labels,
    lam: Scalar,
    epsilon: Scalar,
    penalty_fn: PenaltyFn | None,
    clean_weight: float = 0.0,
    loss_fn: Callable[[Logits, Labels], PerExample] = cross_entropy,
    attack_fn: Callable[..., Inputs] = pgd_last_point,
    key: PRNGKey | None = None,
) -> LossTerms:
    """Compute (1 - w) L_gp(x', y) + w L_gp(x, y): adversarial training, on the attacked points alone where w is 0.

    With w = 0 and PGD it is the training of Madry et al., with one step from a random start that of Wong et al.;
    w = 1/2 is `defended_loss`, in expectation where the penalty draws at random. The attacked points are constants.

    Args:
        logits_fn: Network with its parameters bound, a batch to logits.
        inputs: Batch in [0, 1].
        labels: True classes, the target of both points.
        lam: lambda, at least 0; may be traced.
        epsilon: Radius of the attack, in [0, 1]; may be traced.
        penalty_fn: From `penalties.make_penalty`; None for adversarial training alone.
        clean_weight: The w above, in [0, 1]; a Python number, since at 0 no pass over x is compiled.
        loss_fn: L; bind the smoothing with `functools.partial`.
        attack_fn: Called as attack_fn(logits_fn, inputs, labels=..., epsilon=...), with a key if there is one; bind the
            rest.
        key: Split in two, for the attack and the penalty; needed if one of them draws at random, as this attack does.

    Returns:
        The terms of every example, not averaged over the batch.

    Raises:
        ValueError: A number for `lam` below 0 or for `clean_weight` outside [0, 1]; an attack or a penalty that needs
            a key, and no key.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> inputs, labels, key = jnp.full((1, 2), 0.5), jnp.array([0]), jax.random.key(0)
        >>> terms = adversarial_loss(
        ...     lambda x: x * 2, inputs, labels=labels, lam=0.0, epsilon=0.5, penalty_fn=None, key=key)
        >>> round(float(terms.total[0]), 4)  # logits (0, 2) at x' = (0, 1)
        2.1269

    References:
        Madry et al. 2018, arXiv:1706.06083. Wong, Rice, Kolter 2020, "Fast is better than free", arXiv:2001.03994.
    """
    check_number("clean_weight", clean_weight, lambda weight: (weight >= 0) & (weight <= 1), "in [0, 1]")
    attack_key, penalty_key = split_key(key)
    twins = twins_of(logits_fn, inputs, labels=labels, epsilon=epsilon, attack_fn=attack_fn, key=attack_key)
    options = {"labels": labels, "lam": lam, "penalty_fn": penalty_fn, "loss_fn": loss_fn}
    if clean_weight == 0:
        return penalised_loss(logits_fn, twins, **options, key=penalty_key)
    twin_key, input_key = split_key(penalty_key)  # the same draws at both would double the variance
    at_twins = penalised_loss(logits_fn, twins, **options, key=twin_key)
    at_inputs = penalised_loss(logits_fn, inputs, **options, key=input_key)
    pairs = zip(at_twins, at_inputs, strict=True)
    return LossTerms(*((1 - clean_weight) * there + clean_weight * here for there, here in pairs))


def trades_loss(
    logits_fn: LogitsFn,
    inputs: Inputs,
    *,
    labels: Labels,
    lam: Scalar,
    epsilon: Scalar,
    penalty_fn: PenaltyFn | None,
    beta: Scalar = 6.0,
    loss_fn: Callable[[Logits, Labels], PerExample] = cross_entropy,
    attack_fn: Callable[..., Inputs] = kl_ascent,
    key: PRNGKey | None = None,
) -> LossTerms:
    """Compute L(f(x), y) + beta max_x' KL(f(x) || f(x')) + lambda penalty(f, x) (TRADES, Algorithm 1 of the reference).

    It is Eq. 3 with the first two terms in place of L. The maximiser x' is a constant; the divergence is
    differentiated at both of its points, as in the reference's code.

    Args:
        logits_fn: Network with its parameters bound, a batch to logits.
        inputs: Batch in [0, 1].
        labels: True classes.
        lam: lambda, at least 0; may be traced.
        epsilon: Radius of the maximisation, in [0, 1]; may be traced.
        penalty_fn: From `penalties.make_penalty`, taken at the inputs; None for TRADES alone.
        beta: Weight of the divergence, at least 0 (1/lambda in the reference); may be traced.
        loss_fn: L; bind the smoothing with `functools.partial`.
        attack_fn: Called as attack_fn(logits_fn, inputs, labels=..., epsilon=...), with a key if there is one; bind the
            rest.
        key: Split in two, for the attack and the penalty; needed if one of them draws at random, as this attack does.

    Returns:
        The terms of every example, not averaged over the batch; `cross_entropy` has the weighted divergence in it.

    Raises:
        ValueError: A number for `lam` or `beta` below 0, or an attack or a penalty that needs a key, and no key.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> inputs, labels, key = jnp.full((1, 2), 0.5), jnp.array([0]), jax.random.key(0)
        >>> terms = trades_loss(
        ...     lambda x: x * 2, inputs, labels=labels, lam=0.0, epsilon=0.5, penalty_fn=None, key=key)
        >>> round(float(terms.total[0]), 4)  # log 2 + 6 KL(softmax(1, 1) || softmax(0, 2))
        3.2958

    References:
        Zhang et al. 2019, "Theoretically principled trade-off between robustness and accuracy", arXiv:1901.08573.
    """
    check_weight("beta", beta)
    attack_key, penalty_key = split_key(key)
    twins = twins_of(logits_fn, inputs, labels=labels, epsilon=epsilon, attack_fn=attack_fn, key=attack_key)

    def with_divergence(logits: Logits, labels: Labels) -> PerExample:
        return loss_fn(logits, labels) + beta * kl_divergence(logits, logits_fn(twins))

    return penalised_loss(
        logits_fn, inputs, labels=labels, lam=lam, penalty_fn=penalty_fn, loss_fn=with_divergence, key=penalty_key
    )
