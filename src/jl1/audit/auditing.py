"""The whole audit of a network on arrays: attacks, measures, checks, conclusion."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jl1.array_types import ApplyFn, Params, PRNGKey
from jl1.attacks.ensemble import standard_attack
from jl1.attacks.suite import Suite
from jl1.audit.attacks import make_audit_suite, uses_targeted_dlr
from jl1.audit.certificate_check import certificate_check
from jl1.audit.check import Check
from jl1.audit.conclusion import Conclusion, conclude
from jl1.audit.examination import Subject, examine
from jl1.audit.hygiene import CLASSES_OF_TARGETED_DLR, network_checks, points_checks
from jl1.audit.order import LARGE_RADIUS, Standing, order_checks
from jl1.audit.planted import FeaturesFn, penultimate_features
from jl1.audit.segment_check import Segments, segment_check, walk_to_twins
from jl1.certificates import make_certificate_step
from jl1.labels import check_labels
from jl1.models import SequentialNet
from jl1.piecewise_linear.intervals import SLOPES
from jl1.piecewise_linear.kinks import KINKS

StandsFn = Callable[[str, float], np.ndarray]
"""Name of an attack of the suite and a radius to which points stand, bool `[n]`."""

ProgressFn = Callable[[str], None]
"""Told what is being measured."""

_AT_EVERY_RADIUS = ("fgsm", "pgd", "standard")
_NUM_SEGMENTS = 50


class Audit(NamedTuple):
    """What an audit found.

    Attributes:
        epsilon: The radius that it is about.
        standing: Which points stand, by attack and radius.
        checks: In the order of the report.
        conclusion: What they come to.
        gradient_norms: L1 norms of the input gradients of each loss, by its name.
        segments: The walks of Eq. 2; None where the network is not piecewise linear.
        certified: Which points are certified, by `("certified", radius)`; empty where there are no certificates.
    """

    epsilon: float
    standing: Standing
    checks: list[Check]
    conclusion: Conclusion
    gradient_norms: dict[str, np.ndarray]
    segments: Segments | None
    certified: Standing


def audit_network(
    apply_fn: ApplyFn,
    params: Params,
    *,
    inputs: Float[np.ndarray | Array, " num_examples *features"],
    labels: Int[np.ndarray | Array, " num_examples"],
    epsilon: float,
    key: PRNGKey,
    suite: Suite | None = None,
    module: SequentialNet | None = None,
    features_fn: FeaturesFn | None = None,
    stands_fn: StandsFn | None = None,
    num_points: int | None = None,
    num_examined: int = 200,
    batch_size: int = 100,
    progress: ProgressFn = lambda _: None,
) -> Audit:
    """Attack a classifier from noise to the ensemble, look at its gradients, and say whether its accuracy holds.

    Works on any classifier whose examples do not interact. The network is called with batches of `batch_size`
    examples; expect a compilation for every measure, some thirty in all, and a minute for a small network.

    Args:
        apply_fn: Function of params and inputs in [0, 1] to LOGITS.
        params: Parameters.
        inputs: Points, at least two.
        labels: Their classes.
        epsilon: L-infinity radius, in (0, 1].
        key: Fixes all randomness.
        suite: From `attacks.make_audit_suite`; unless given the one of the budget `fast`, or `few_classes` for two or
            three classes, which takes longer.
        module: The network, if it is a `SequentialNet`: then the gauge is tested, and Eq. 2 if it is piecewise linear.
        features_fn: Features for the unit test of the attack; those of `module` before its last layer, or the
            logits, unless given.
        stands_fn: Has the verdicts of the attacks of the suite, such as from a store; computed here unless given.
        num_points: How many points there are in all, if these are only some.
        num_examined: Points, of those that the network has right, that the measures of gradients look at.
        batch_size: Examples at a time, at least 1.
        progress: Told what is being measured.

    Returns:
        The audit.

    Raises:
        ValueError: A radius that is not in (0, 1], fewer than two points, labels that are not one integer an example,
            no point that the network has right, or fewer than four classes and a suite with the targeted DLR.
    """
    if not 0 < epsilon <= 1:
        raise ValueError(f"epsilon={epsilon}: must be above 0 and at most 1, the range of the inputs")
    inputs, labels = np.asarray(inputs), np.asarray(labels)
    if len(inputs) < 2:
        raise ValueError(f"{len(inputs)} points: an audit needs at least two")
    check_labels(labels, inputs, what="inputs")
    num_classes = jax.eval_shape(apply_fn, params, inputs[:1]).shape[1]
    suite = suite or make_audit_suite("fast" if num_classes >= CLASSES_OF_TARGETED_DLR else "few_classes")
    if stands_fn is None:
        _check_classes(suite, num_classes)
        stands_fn = partial(_stands, apply_fn, params, inputs, labels, key, suite, batch_size)
    network = partial(apply_fn, params)
    checks = network_checks(network, jnp.asarray(inputs[:8]), targeted_dlr=uses_targeted_dlr(suite))
    standing: Standing = {task: stands_fn(*task) for task in audit_tasks(suite, epsilon)}
    subject = _subject(apply_fn, params, inputs, labels, standing, epsilon, key, num_examined, batch_size)
    examined = examine(
        subject,
        features_fn=features_fn or (penultimate_features(module) if module else apply_fn),
        has_output_layer=module is not None,
        progress=progress,
    )
    segments = _walk(subject, module, progress)
    radii = {radius for _, radius in standing if radius > 0}
    certified = _certify(subject._replace(inputs=inputs, labels=labels), module, radii, progress)
    checks += points_checks(standing, epsilon, num_points=num_points or len(inputs))
    chance = float(np.unique(labels, return_counts=True)[1].max()) / len(labels)
    checks += order_checks(standing, epsilon, chance=chance) + examined.checks
    checks += [segment_check(segments.norms, segments.radii)] if segments else []
    checks += [certificate_check(standing, certified, epsilon)] if certified else []
    conclusion = _conclude(epsilon, standing, int(examined.broken.sum()), checks, chance)
    return Audit(epsilon, standing, checks, conclusion, dict(examined.gradient_norms), segments, certified)


def audit_tasks(suite: Suite, epsilon: float) -> list[tuple[str, float]]:
    """List attacks and radii: all attacks at `epsilon`, some at a quarter, half and twice of it, and at half the range.

    Args:
        suite: From `attacks.make_audit_suite`.
        epsilon: The radius that is asked about.

    Returns:
        Attack and radius of each, `clean` first.

    Example:
        >>> len(audit_tasks(make_audit_suite("fast"), 0.1))
        19
    """
    radii = sorted({epsilon / 4, epsilon / 2, min(2 * epsilon, 1.0), LARGE_RADIUS} - {epsilon})
    at_epsilon = [(name, epsilon) for name in suite if name != "clean"]
    return [("clean", 0.0), *at_epsilon, *[(name, radius) for radius in radii for name in _AT_EVERY_RADIUS]]


def _check_classes(suite: Suite, num_classes: int) -> None:
    """Refuse a suite that would fail on its last attack."""
    if num_classes < CLASSES_OF_TARGETED_DLR and uses_targeted_dlr(suite):
        raise ValueError(
            f"{num_classes} classes, and an attack of the suite raises the targeted DLR, which needs "
            f"{CLASSES_OF_TARGETED_DLR}: give suite=make_audit_suite('few_classes'), which has the margin in its place"
        )


def _subject(
    apply_fn: ApplyFn,
    params: Params,
    inputs: np.ndarray,
    labels: np.ndarray,
    standing: Standing,
    epsilon: float,
    key: PRNGKey,
    num_examined: int,
    batch_size: int,
) -> Subject:
    """Choose what the measures of gradients look at: the first points that the network has right."""
    chosen = np.flatnonzero(standing["clean", 0.0])[:num_examined]
    if not len(chosen):
        raise ValueError("the network has no point right without attack: there is nothing to audit")
    stands, size = _under_all(standing, epsilon), min(batch_size, len(chosen))
    return Subject(apply_fn, params, inputs[chosen], labels[chosen], stands[chosen], epsilon, key, batch_size=size)


def _under_all(standing: Standing, epsilon: float) -> np.ndarray:
    """Return which points stand under every attack at one radius."""
    return np.all([stands for (_, radius), stands in standing.items() if radius == epsilon], axis=0)


def _stands(
    apply_fn: ApplyFn,
    params: Params,
    inputs: np.ndarray,
    labels: np.ndarray,
    key: PRNGKey,
    suite: Suite,
    batch_size: int,
    name: str,
    epsilon: float,
) -> np.ndarray:
    """Attack all points by one attack of the suite."""
    size = min(batch_size, len(inputs))
    attacked = standard_attack(
        apply_fn,
        params,
        inputs=inputs,
        labels=labels,
        epsilon=epsilon,
        key=key,
        budget=suite[name],
        batch_sizes=(size, max(size // 10, 1)),
    )
    return attacked.stands


def _walk(subject: Subject, module: SequentialNet | None, progress: ProgressFn) -> Segments | None:
    """Walk from some points to their FGSM twins where the network is piecewise linear."""
    if module is None or module.activation not in KINKS:
        return None
    progress("Eq. 2 on segments")
    points = {"inputs": subject.inputs[:_NUM_SEGMENTS], "labels": subject.labels[:_NUM_SEGMENTS]}
    return walk_to_twins(module, subject.params, epsilon=subject.epsilon, **points)


def _certify(subject: Subject, module: SequentialNet | None, radii: set[float], progress: ProgressFn) -> Standing:
    """Certify all points at every radius where the network is one that can be."""
    if module is None or module.activation not in SLOPES:
        return {}
    progress("certificates")
    step = make_certificate_step(module)
    return {("certified", radius): subject.measure(step, epsilon=radius) for radius in sorted(radii)}


def _conclude(epsilon: float, standing: Standing, num_broken: int, checks: list[Check], chance: float) -> Conclusion:
    """Weigh the checks with the accuracies; points that fell to an attack of the examination alone have fallen too."""
    stands = _under_all(standing, epsilon)
    return conclude(
        checks,
        epsilon=epsilon,
        clean=float(standing["clean", 0.0].mean()),
        fgsm=float(standing["fgsm", epsilon].mean()),
        strongest=(int(stands.sum()) - num_broken) / len(stands),
        chance=chance,
    )
