"""Losses of robust training that a penalty is judged beside, each with a penalty of its own if one is wanted.

Like those of `losses.py` they return one value an example; averages and jit are the caller's.
"""

from collections.abc import Callable

from jl1.array_types import Inputs, Labels, Logits, LogitsFn, PenaltyFn, PerExample, PRNGKey, Scalar
from jl1.attacks.ascent import pgd_last_point
from jl1.attacks.divergence import kl_ascent, kl_divergence
from jl1.losses import LossTerms, cross_entropy, penalised_loss, twins_of


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
    w = 1/2 is `defended_loss`. The attacked points are constants.

    Args:
        logits_fn: Network with its parameters bound, a batch to logits.
        inputs: Batch in [0, 1].
        labels: True classes, the target of both points.
        lam: lambda, at least 0; may be traced.
        epsilon: Radius of the attack, in [0, 1]; may be traced.
        penalty_fn: From `penalties.make_penalty`; None for adversarial training alone.
        clean_weight: The w above, in [0, 1]; a Python number, since at 0 no pass over x is compiled.
        loss_fn: L; bind the smoothing with `functools.partial`.
        attack_fn: Called as attack_fn(logits_fn, inputs, labels=..., epsilon=...); bind the rest, its key too.
        key: Passed to the penalty, if given; the attack's own is bound in it.

    Returns:
        The terms of every example, not averaged over the batch.

    References:
        Madry et al. 2018, arXiv:1706.06083. Wong, Rice, Kolter 2020, "Fast is better than free", arXiv:2001.03994.
    """
    twins = twins_of(logits_fn, inputs, labels=labels, epsilon=epsilon, attack_fn=attack_fn)
    options = {"labels": labels, "lam": lam, "penalty_fn": penalty_fn, "loss_fn": loss_fn, "key": key}
    at_twins = penalised_loss(logits_fn, twins, **options)
    if clean_weight == 0:
        return at_twins
    at_inputs = penalised_loss(logits_fn, inputs, **options)
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
        attack_fn: Called as attack_fn(logits_fn, inputs, labels=..., epsilon=...); bind the rest, its key too.
        key: Passed to the penalty, if given; the attack's own is bound in it.

    Returns:
        The terms of every example, not averaged over the batch; `cross_entropy` has the weighted divergence in it.

    References:
        Zhang et al. 2019, "Theoretically principled trade-off between robustness and accuracy", arXiv:1901.08573.
    """
    twins = twins_of(logits_fn, inputs, labels=labels, epsilon=epsilon, attack_fn=attack_fn)

    def with_divergence(logits: Logits, labels: Labels) -> PerExample:
        return loss_fn(logits, labels) + beta * kl_divergence(logits, logits_fn(twins))

    return penalised_loss(
        logits_fn, inputs, labels=labels, lam=lam, penalty_fn=penalty_fn, loss_fn=with_divergence, key=key
    )
