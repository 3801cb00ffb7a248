"""Figures of the audit as lines that pass or fail, by the bounds of `thresholds`.

A failed check with `shows_masking` says that gradients are masked: attacks by gradient then prove nothing, whatever
accuracy they leave. All shares are of the points given; give those that the network has right.
"""

from collections.abc import Mapping
from typing import Literal, NamedTuple

import numpy as np

from jl1.array_types import Mask, PerExample
from jl1.audit.ascent_health import AscentHealth
from jl1.audit.defence import GAUGE_INVARIANT, Gauge
from jl1.audit.double_precision import PrecisionVerdicts
from jl1.audit.gradient_health import GradientHealth
from jl1.audit.invariance import SHARPENED, TRANSFORMS, Invariance
from jl1.audit.planted import Planted
from jl1.audit.thresholds import (
    ALIGNMENT,
    EASY,
    FOUND,
    GAUGE_CHANGE,
    HIDDEN,
    LATE_RISE,
    LOST,
    STILL_RISING,
    UNMOVED,
    VANISHING,
)

Outcome = Literal["PASS", "WARN", "FAIL", "SKIP"]

Topic = Literal["hygiene", "order", "gradients", "unit test", "defence"]


class Check(NamedTuple):
    """One line of an audit.

    Attributes:
        name: What was checked, in a few words.
        topic: The part of the audit that it belongs to.
        outcome: PASS; WARN where the figure needs a look; FAIL where the evaluation cannot be trusted; SKIP where it
            does not apply.
        figure: One line with its number and unit.
        advice: One sentence: what to do unless it passes.
        shows_masking: Whether a failure means that gradients are masked, so that attacks by gradient say nothing.
        values: The numbers behind it, by name.
    """

    name: str
    topic: Topic
    outcome: Outcome
    figure: str
    advice: str
    shows_masking: bool
    values: Mapping[str, float]


def outcome_above(value: float, *, warn: float, fail: float) -> Outcome:
    """Judge a number that is to be small: a value above a bound meets it, NaN fails.

    Example:
        >>> [outcome_above(value, warn=0.01, fail=0.05) for value in (0.01, 0.02, 0.06, float("nan"))]
        ['PASS', 'WARN', 'FAIL', 'FAIL']
    """
    if value <= warn:
        return "PASS"
    return "WARN" if value <= fail else "FAIL"


def gradient_check(health: GradientHealth, *, loss: str) -> Check:
    """Judge whether a loss, by its name, has a gradient to follow at every point."""
    values = {
        "zero": _share(health.is_zero),
        "subnormal": _share(health.is_subnormal),
        "not finite": _share(~health.is_finite),
        "features with sign 0": _share(health.zero_share),
    }
    unusable = _share(health.is_zero | health.is_subnormal | ~health.is_finite)
    outcome = outcome_above(unusable, **VANISHING)
    return Check(
        name=f"gradient of {loss}",
        topic="gradients",
        outcome="WARN" if outcome == "PASS" and values["features with sign 0"] > UNMOVED else outcome,
        figure=f"{_percent(unusable)} of the points have none that can be used; "
        f"{_percent(values['features with sign 0'])} of their features have sign 0",
        advice="Attack by another loss (margin, DLR) and without gradients (Square), and look for rounding, stopped "
        "gradients or a saturated softmax in the network.",
        shows_masking=True,
        values=values,
    )


def alignment_check(cosines: PerExample | np.ndarray, *, loss: str) -> Check:
    """Judge whether the gradient of a loss points one way inside the ball."""
    mean = float(np.mean(cosines))
    return Check(
        name=f"gradient of {loss} inside the ball",
        topic="gradients",
        outcome="PASS" if mean >= ALIGNMENT else "WARN",
        figure=f"cosine {mean:.2f} on average between a point and a random one of its ball",
        advice="Report no accuracy under single steps (FGSM): the loss is far from linear in the ball, as after "
        "catastrophic overfitting.",
        shows_masking=False,
        values={"mean cosine": mean, "points below 0.2": _share(np.asarray(cosines) < ALIGNMENT)},
    )


def convergence_check(health: AscentHealth, *, loss: str) -> Check:
    """Judge whether the walks on the points that stand had come to an end."""
    standing = ~np.asarray(health.is_broken | health.was_broken)
    rising = _share(np.asarray(health.late_rise)[standing] > LATE_RISE) if standing.any() else 0.0
    return Check(
        name=f"PGD on {loss} has converged",
        topic="gradients",
        outcome=outcome_above(rising, **STILL_RISING),
        figure=f"the loss still rises at {_percent(rising)} of the points that stand",
        advice="Attack with more steps until the accuracy no longer falls.",
        shows_masking=False,
        values={"still rising": rising, "standing": _share(standing)},
    )


def lost_iterates_check(health: AscentHealth, *, loss: str) -> Check:
    """Judge whether the last iterate loses adversarial examples that the walk has met."""
    lost = _share(health.was_broken & ~health.is_broken)
    return Check(
        name=f"PGD on {loss} keeps what it finds",
        topic="gradients",
        outcome=outcome_above(lost, **LOST),
        figure=f"the last iterate has lost the adversarial example of {_percent(lost)} of the points",
        advice="Use an attack that keeps its best iterate, as jl1's do, and smaller steps.",
        shows_masking=False,
        values={"lost": lost, "broken at the end": _share(health.is_broken)},
    )


def invariance_check(invariance: Invariance) -> Check:
    """Judge whether shifted, scaled or centred logits break points that the plain ones do not.

    What `SHARPENED` adds is a warning at most: it nears the margin, which is another loss, and it cures no saturation.
    """
    stands = dict(zip(TRANSFORMS, np.asarray(invariance.stands).T, strict=True))
    plain = stands["plain"] & np.asarray(invariance.stands_again)
    hidden = {name: _share(plain & ~column) for name, column in stands.items()}
    del hidden["plain"]
    best = max(hidden, key=lambda name: hidden[name])
    outcome = outcome_above(max(of for name, of in hidden.items() if name != SHARPENED), **HIDDEN)
    values = {name: _share(column) for name, column in stands.items()}
    values |= {"plain again": _share(invariance.stands_again), "worst case": _share(np.all(invariance.stands, axis=1))}
    return Check(
        name="same attack on transformed logits",
        topic="gradients",
        outcome="WARN" if outcome == "PASS" and hidden[best] > HIDDEN["warn"] else outcome,
        figure=f"{_percent(hidden[best])} of the points fall to another one ({best}) and not to two plain attacks",
        advice="Attack the logits on that scale, or by the margin or the DLR: cross-entropy misleads here.",
        shows_masking=True,
        values=values | {"hidden": hidden[best]},
    )


def double_precision_check(verdicts: PrecisionVerdicts, *, attack: str) -> Check:
    """Judge whether an attack, by its name, breaks points in float64 that it does not in float32."""
    return _check_beside(
        verdicts.stands_single,
        verdicts.stands_double,
        name=f"{attack} in float64",
        topic="gradients",
        figure="in float64 only",
        advice="Attack in float64, or by the margin or the DLR: float32 rounds the gradient away.",
        shows_masking=True,
    )


def planted_check(planted: Planted) -> Check:
    """Judge whether the attack finds adversarial examples that are known to exist."""
    found, noise = _share(planted.found), _share(planted.found_by_noise)
    return Check(
        name="planted adversarial examples",
        topic="unit test",
        outcome="FAIL" if not found >= FOUND else "WARN" if noise > EASY else "PASS",
        figure=f"{_percent(found)} found by the attack, {_percent(noise)} by noise",
        advice="Plant with more corners, noise finds too much."
        if found >= FOUND
        else "Do not trust the attack on this network: it misses adversarial examples that exist.",
        shows_masking=True,
        values={"found": found, "found by noise": noise, "planted": _share(planted.is_planted)},
    )


def adaptive_attack_check(stands: Mask | np.ndarray, stands_adaptive: Mask | np.ndarray, *, attack: str) -> Check:
    """Judge whether an attack on the defence itself breaks points that stand under all others."""
    return _check_beside(
        stands,
        stands_adaptive,
        name=attack,
        topic="defence",
        figure="to it and to no other attack of the audit",
        advice="Report the worst case with this attack, or a larger budget of the ensemble: the others do not suffice.",
        shows_masking=False,
    )


def gauge_check(gauge: Gauge) -> Check:
    """Judge whether centring the output layer leaves decisions and gauge-free penalties as they are."""
    before, after = ({name: float(np.mean(of)) for name, of in norms.items()} for norms in (gauge.before, gauge.after))
    changes = {name: _relative_change(before[name], after[name]) for name in before}
    must_stay = [change for name, change in changes.items() if name.endswith(GAUGE_INVARIANT)]
    decisions, worst = _share(gauge.changes_decision), float(np.max([*must_stay, np.max(gauge.gap)]))  # NaN stays
    changed = {name: of for name, of in changes.items() if not of <= GAUGE_CHANGE}
    moved = ", ".join(f"{name} by {_percent(of)}" for name, of in changed.items()) or "no penalty"
    return Check(
        name="gauge of the output layer",
        topic="defence",
        outcome="FAIL" if decisions > 0 or not worst <= GAUGE_CHANGE else "PASS",
        figure=f"centring it changes {_percent(decisions)} of the decisions; it changes {moved}",
        advice="Compare penalties on outputs that the gauge does not change: what it changes restricts no classifier.",
        shows_masking=False,
        values={"decisions": decisions, "largest gap of centred logits": float(np.max(gauge.gap))} | changes,
    )


def _relative_change(before: float, after: float) -> float:
    """Return by which part a penalty changed; infinitely much where there was none."""
    return abs(after / before - 1) if before else float("inf" if after else 0.0)


def _check_beside(
    stands: Mask | np.ndarray,
    stands_variant: Mask | np.ndarray,
    *,
    name: str,
    topic: Topic,
    figure: str,
    advice: str,
    shows_masking: bool,
) -> Check:
    """Judge the points that a variant of an attack breaks and the attack does not."""
    hidden = _share(np.asarray(stands) & ~np.asarray(stands_variant))
    values = {"hidden": hidden, "stands": _share(stands), "stands the variant": _share(stands_variant)}
    text = f"{_percent(hidden)} of the points fall {figure}"
    return Check(name, topic, outcome_above(hidden, **HIDDEN), text, advice, shows_masking, values)


def _share(values: Mask | PerExample | np.ndarray) -> float:
    """Return the mean."""
    return float(np.mean(values))


def _percent(share: float) -> str:
    """Write a share for people."""
    return f"{100 * share:.1f} %"
