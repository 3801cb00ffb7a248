"""Attacks on a Jacobian penalty itself, and what of it decides nothing.

* A network that is flat at the data need not be flat beside it: `pgd_from_peak` looks for a point of the ball where the
  penalty is high, and begins PGD there.
* The penalty sees all classes alike: `pgd_each_rival` raises the margin of one rival after another.
* The gauge: adding the same function to all logits changes no decision, but most norms of their Jacobian.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jl1.array_types import (
    ApplyFn,
    Inputs,
    Labels,
    LogitsFn,
    Mask,
    NormName,
    Params,
    PenaltyFn,
    PerExample,
    PRNGKey,
    Scalar,
)
from jl1.attacks.ball import check_radius, project, typed_as
from jl1.attacks.norms import LINF, random_start
from jl1.attacks.objectives import targeted_margin
from jl1.attacks.pgd import pgd
from jl1.attacks.targets import over_targets
from jl1.gauge import centre_output_layer
from jl1.penalties import centred_logits, make_penalty
from jl1.per_example import choose


def penalty_peak(
    penalty_fn: Callable[[Inputs], PerExample],
    inputs: Inputs,
    *,
    epsilon: Scalar,
    key: PRNGKey,
    num_steps: int = 20,
    lower: float = 0.0,
    upper: float = 1.0,
) -> Inputs:
    """Look for the point of the ball at which a penalty is highest.

    A climb from the better of the inputs and a random point: steps of epsilon, 1/2, 1/4 and 1/8 of it in turn, along
    the sign of the penalty's gradient, taken where the penalty does not fall. A network with ReLU has a Jacobian that
    is constant between kinks, so that the gradient of a norm of it is zero everywhere: entries without a slope move
    in a random direction.

    Args:
        penalty_fn: Batch of points to one value an example, such as ||J||_{1,1}.
        inputs: Batch in [lower, upper].
        epsilon: L-infinity radius, at least 0; may be traced.
        key: Fixes the random point and directions.
        num_steps: Steps, at least 1, each a penalty and its gradient.
        lower: Lowest value an input may have.
        upper: Highest value an input may have.

    Returns:
        The points, where the penalty is at least that at the inputs, detached.

    Raises:
        ValueError: `num_steps` below 1, or a number for epsilon that is negative or above upper - lower.
    """
    check_radius(epsilon, lower, upper)
    if num_steps < 1:
        raise ValueError(f"num_steps={num_steps}: must be at least 1")
    epsilon = typed_as(inputs, epsilon)
    ball = {"epsilon": epsilon, "lower": lower, "upper": upper}

    def look(points: Inputs) -> tuple[Inputs, PerExample]:
        def total(points: Inputs) -> tuple[Scalar, PerExample]:
            values = penalty_fn(points)
            return jnp.sum(values), values

        return jax.grad(total, has_aux=True)(points)

    def step(index: Scalar, best: _Peak) -> _Peak:
        random = jax.random.rademacher(jax.random.fold_in(key, index), inputs.shape, inputs.dtype)
        is_blind = (best.gradient == 0) | jnp.isnan(best.gradient)
        signs = jnp.where(is_blind, random, jnp.sign(best.gradient))
        points = project(best.points + epsilon / 2.0 ** (index % 4) * signs, inputs, **ball)
        return _higher(_Peak(points, *look(points)), best)

    start = random_start(jax.random.fold_in(key, num_steps), inputs, norm=LINF, **ball)
    best = _higher(_Peak(start, *look(start)), _Peak(inputs, *look(inputs)))
    return jax.lax.stop_gradient(jax.lax.fori_loop(0, num_steps, step, best).points)


def pgd_from_peak(
    logits_fn: LogitsFn,
    inputs: Inputs,
    *,
    labels: Labels,
    epsilon: Scalar,
    key: PRNGKey,
    penalty_fn: PenaltyFn | None = None,
    norm: NormName = "linf",
    lower: float = 0.0,
    upper: float = 1.0,
    **options: Any,
) -> Inputs:
    """Attack by PGD that begins where the penalty is high.

    Args:
        logits_fn: Network with its parameters bound, a batch to logits.
        inputs: Batch in [lower, upper].
        labels: True labels.
        epsilon: L-infinity radius, at least 0; may be traced.
        key: Fixes the way to the peak.
        penalty_fn: From `penalties.make_penalty`; ||J||_{1,1} of the logits, one output at a time, unless given.
        norm: "linf" and no other.
        lower: Lowest value an input may have.
        upper: Highest value an input may have.
        **options: Of `attacks.pgd.pgd`: `num_steps`, `step_size`, `loss_fn`.

    Returns:
        Adversarial inputs, within `epsilon` of `inputs` and in [lower, upper], detached.

    Raises:
        ValueError: As `attacks.pgd.pgd`, and for another norm.
    """
    if norm != "linf":
        raise ValueError(f"norm={norm!r}: the peak of the penalty is looked for in L-infinity balls only")
    penalty_fn = make_penalty("jacobian_l1") if penalty_fn is None else penalty_fn
    ball = {"epsilon": epsilon, "lower": lower, "upper": upper}
    peak_key, penalty_key = jax.random.split(key)

    def penalty(points: Inputs) -> PerExample:
        return penalty_fn(logits_fn, points, labels=labels, key=penalty_key)

    start = penalty_peak(penalty, inputs, key=peak_key, **ball)
    return pgd(logits_fn, inputs, labels=labels, key=None, start=start, **ball, **options)


def pgd_each_rival(
    logits_fn: LogitsFn, inputs: Inputs, *, labels: Labels, epsilon: Scalar, key: PRNGKey, **options: Any
) -> Inputs:
    """Attack by PGD on z_t - z_y for every class t other than the label y, the closest rival first.

    Args:
        logits_fn: Network with its parameters bound, a batch to logits of c classes; costs up to c - 1 attacks.
        inputs: Batch in [lower, upper].
        labels: True labels.
        epsilon: L-infinity radius, at least 0; may be traced.
        key: Fixes the random starts.
        **options: Of `attacks.pgd.pgd`: `num_steps`, `step_size`, `num_restarts`, `lower`, `upper`.

    Returns:
        The first misclassified point of every example, or its input, detached.
    """
    num_classes = jax.eval_shape(logits_fn, inputs).shape[1]
    attack_fn = over_targets(_pgd_toward, num_targets=num_classes - 1)
    return attack_fn(logits_fn, inputs, labels=labels, epsilon=epsilon, key=key, **options)


class Gauge(NamedTuple):
    """A network beside the same with a centred output layer, one row an example.

    Attributes:
        changes_decision: Whether the decision is another one, by more than rounding can explain.
        gap: How far the centred logits of the two lie apart at most, in units of the largest of them.
        before: Each penalty of the network, by name.
        after: The same of the network with the centred output layer.
    """

    changes_decision: Mask
    gap: PerExample
    before: Mapping[str, PerExample]
    after: Mapping[str, PerExample]


GAUGE_INVARIANT = ("centred_logits", "probs", "log_probs")
"""Outputs whose Jacobian the gauge does not change."""

GAUGE_PENALTIES: Mapping[str, PenaltyFn] = {
    f"{name} on {outputs}": make_penalty(name, outputs=outputs)
    for name, outputs in (
        *(("jacobian_l1", outputs) for outputs in ("logits", *GAUGE_INVARIANT)),
        ("class_sum_l1", "logits"),
        ("class_sum_l1", "log_probs"),
    )
}
"""What is measured unless penalties are given."""

_ROUNDING = 1e-4
"""Of the largest logit: differences that float32 can make over a few layers."""


def make_gauge_step(
    apply_fn: ApplyFn,
    *,
    penalties: Mapping[str, PenaltyFn] = GAUGE_PENALTIES,
    centre_fn: Callable[[Params], Params] = centre_output_layer,
) -> Callable[..., Gauge]:
    """Make the jitted `step(params, inputs, labels, key)` that compares a network with its centred one.

    Args:
        apply_fn: Function of params and inputs to logits.
        penalties: Penalties by name, of which estimators get the same key twice.
        centre_fn: Parameters to those whose logits sum to zero; for networks with another output layer than
            `models.SequentialNet`, `partial(centre_output_layer, layer=...)`.

    Returns:
        The step, for `batches.measure`.
    """

    def step(params: Params, inputs: Inputs, labels: Labels, key: PRNGKey | None = None) -> Gauge:
        before_fn, after_fn = partial(apply_fn, params), partial(apply_fn, centre_fn(params))
        before, after = (centred_logits(logits_fn(inputs)) for logits_fn in (before_fn, after_fn))
        norms = [
            {name: penalty_fn(logits_fn, inputs, labels=labels, key=key) for name, penalty_fn in penalties.items()}
            for logits_fn in (before_fn, after_fn)
        ]
        scale = jnp.max(jnp.abs(before), axis=1)
        gap = jnp.max(jnp.abs(before - after), axis=1) / jnp.where(scale > 0, scale, 1)
        chosen = jax.nn.one_hot(jnp.argmax(after, axis=1), before.shape[1], dtype=before.dtype)
        lead = jnp.max(before, axis=1) - jnp.sum(chosen * before, axis=1)
        return Gauge(lead > _ROUNDING * scale, gap, *norms)

    return jax.jit(step)


class _Peak(NamedTuple):
    """The highest point met so far, for every example, with the penalty's gradient and value."""

    points: Inputs
    gradient: Inputs
    value: PerExample


def _higher(new: _Peak, best: _Peak) -> _Peak:
    """Keep the higher point of every example, of two at one height the new one, which may lead off a plateau."""
    is_higher = new.value >= best.value
    return _Peak(
        choose(is_higher, new.points, best.points),
        choose(is_higher, new.gradient, best.gradient),
        jnp.where(is_higher, new.value, best.value),
    )


def _pgd_toward(logits_fn: LogitsFn, inputs: Inputs, *, targets: Labels, **options: Any) -> Inputs:
    """Attack by PGD on the margin of one class an example."""
    return pgd(logits_fn, inputs, loss_fn=partial(targeted_margin, targets=targets), **options)
