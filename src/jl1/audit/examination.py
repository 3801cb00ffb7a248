"""Every measure of the audit on a few points, each as a check: the gradients, the attack, the defence."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from jl1.array_types import ApplyFn, Params, PRNGKey
from jl1.attacks.fgsm import fgsm
from jl1.attacks.objectives import OBJECTIVES
from jl1.attacks.pgd import pgd
from jl1.audit.ascent_health import make_ascent_step
from jl1.audit.check import (
    Check,
    adaptive_attack_check,
    alignment_check,
    convergence_check,
    double_precision_check,
    gauge_check,
    gradient_check,
    invariance_check,
    lost_iterates_check,
    planted_check,
)
from jl1.audit.defence import make_gauge_step, pgd_each_rival, pgd_from_peak
from jl1.audit.double_precision import precision_verdicts
from jl1.audit.gradient_health import make_alignment_step, make_gradient_step
from jl1.audit.invariance import make_invariance_step
from jl1.audit.planted import FeaturesFn, make_planted_step
from jl1.batches import measure
from jl1.evaluation import make_eval_step

NUM_STEPS = 40
"""Of the walks of PGD that are watched."""

_NUM_DOUBLE = 64
"""Points that are attacked in float64 too."""

_COSTLY = 25
"""Examples at a time where each needs its whole Jacobian."""

_CLASSES_OF_UNTARGETED_DLR = 3  # it divides by the distance from the highest logit to the third

_LOSS_NAMES = {"ce": "cross-entropy", "margin": "margin", "dlr": "DLR"}


class Subject(NamedTuple):
    """What is examined.

    Attributes:
        apply_fn: Function of params and inputs to logits.
        params: Parameters.
        inputs: Examples that the network has right, at least one.
        labels: Their classes.
        stands: Which of them stand under every attack that has been tried.
        epsilon: L-infinity radius, above 0.
        key: Fixes all randomness.
        batch_size: Examples at a time.
    """

    apply_fn: ApplyFn
    params: Params
    inputs: np.ndarray
    labels: np.ndarray
    stands: np.ndarray
    epsilon: float
    key: PRNGKey
    batch_size: int

    def measure(self, step: Callable[..., Any], **options: Any) -> Any:
        """Run a step over all examples."""
        options = {"batch_size": self.batch_size} | options
        return measure(step, self.params, inputs=self.inputs, labels=self.labels, **options)

    def measure_in_ball(self, step: Callable[..., Any], **options: Any) -> Any:
        """Run a step that takes the radius and a key over all examples."""
        return self.measure(step, epsilon=self.epsilon, key=self.key, **options)


class Examined(NamedTuple):
    """What was found.

    Attributes:
        checks: In the order of the report.
        gradient_norms: L1 norms of the input gradient of each loss, `[n]`, by the loss's name.
        broken: Which examples stand under every attack that had been tried and fall to one of those made here.
    """

    checks: list[Check]
    gradient_norms: Mapping[str, np.ndarray]
    broken: np.ndarray


def examine(
    subject: Subject,
    *,
    features_fn: FeaturesFn,
    has_output_layer: bool,
    progress: Callable[[str], None] = lambda _: None,
) -> Examined:
    """Make every check of this package that needs the network and no ensemble.

    Args:
        subject: The network and some points.
        features_fn: Features for the unit test of the attack, such as `planted.penultimate_features`.
        has_output_layer: Whether the parameters are those of a `SequentialNet`, whose output layer can be centred.
        progress: Told what is being measured.

    Returns:
        The checks, the norms and the examples that fell.
    """
    norms: dict[str, np.ndarray] = {}
    broken = np.zeros(len(subject.labels), bool)
    checks: list[Check] = []
    parts = {
        "gradients": partial(_gradients, subject, norms),
        "gradients inside the ball": partial(_alignment, subject),
        "walks of PGD": partial(_ascents, subject),
        "transformed logits": partial(_invariance, subject),
        "float64": partial(_double_precision, subject),
        "planted examples": partial(_planted, subject, features_fn),
        "attacks on the penalty": partial(_adaptive, subject, broken),
        **({"gauge": partial(_gauge, subject)} if has_output_layer else {}),
    }
    for title, part in parts.items():
        progress(title)
        checks += part()
    return Examined(checks, norms, broken)


def _gradients(subject: Subject, norms: dict[str, np.ndarray]) -> Iterator[Check]:
    """Look at the gradient of every loss, and keep its norms."""
    num_classes = jax.eval_shape(subject.apply_fn, subject.params, subject.inputs[:1]).shape[1]
    for name, loss_fn in OBJECTIVES.items():
        if name == "dlr" and num_classes < _CLASSES_OF_UNTARGETED_DLR:
            continue
        health = subject.measure(make_gradient_step(subject.apply_fn, loss_fn=loss_fn))
        norms[_LOSS_NAMES[name]] = health.l1_norm
        yield gradient_check(health, loss=_LOSS_NAMES[name])


def _alignment(subject: Subject) -> Iterator[Check]:
    """Look whether the gradient points one way in the ball."""
    cosines = subject.measure_in_ball(make_alignment_step(subject.apply_fn, loss_fn=OBJECTIVES["ce"]))
    yield alignment_check(cosines, loss=_LOSS_NAMES["ce"])


def _ascents(subject: Subject) -> Iterator[Check]:
    """Watch PGD on two losses."""
    for name in ("ce", "margin"):
        step = make_ascent_step(subject.apply_fn, loss_fn=OBJECTIVES[name], num_steps=NUM_STEPS)
        health = subject.measure_in_ball(step)
        yield convergence_check(health, loss=_LOSS_NAMES[name])
        yield lost_iterates_check(health, loss=_LOSS_NAMES[name])


def _invariance(subject: Subject) -> Iterator[Check]:
    """Attack through transformed logits."""
    attack_fn = partial(pgd, num_steps=NUM_STEPS)
    yield invariance_check(subject.measure_in_ball(make_invariance_step(subject.apply_fn, attack_fn=attack_fn)))


def _double_precision(subject: Subject) -> Iterator[Check]:
    """Attack in float64."""
    verdicts = precision_verdicts(
        subject.apply_fn,
        subject.params,
        inputs=subject.inputs[:_NUM_DOUBLE],
        labels=subject.labels[:_NUM_DOUBLE],
        epsilon=subject.epsilon,
        attack_fn=fgsm,
        batch_size=min(subject.batch_size, _NUM_DOUBLE),
    )
    yield double_precision_check(verdicts, attack="FGSM")


def _planted(subject: Subject, features_fn: FeaturesFn) -> Iterator[Check]:
    """Put the attack to its unit test."""
    step = make_planted_step(features_fn, attack_fn=partial(pgd, num_steps=NUM_STEPS), num_draws=NUM_STEPS + 1)
    yield planted_check(subject.measure_in_ball(step))


def _adaptive(subject: Subject, broken: np.ndarray) -> Iterator[Check]:
    """Attack the penalty itself, and each rival, and mark what falls."""
    for attack_fn, name, size in (
        (pgd_from_peak, "PGD from where the Jacobian is largest", min(subject.batch_size, _COSTLY)),
        (pgd_each_rival, "PGD on each rival's margin", subject.batch_size),
    ):
        step = make_eval_step(subject.apply_fn, attack_fn=partial(attack_fn, num_steps=NUM_STEPS))
        stands = subject.measure_in_ball(step, batch_size=size)
        broken |= subject.stands & ~stands
        yield adaptive_attack_check(subject.stands, stands, attack=name)


def _gauge(subject: Subject) -> Iterator[Check]:
    """Centre the output layer."""
    yield gauge_check(subject.measure(make_gauge_step(subject.apply_fn), batch_size=min(subject.batch_size, _COSTLY)))
