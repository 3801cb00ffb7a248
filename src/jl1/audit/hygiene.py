"""What an evaluation relies on before the first attack: logits, inputs in range, the same answer twice, all points.

References:
    Carlini et al. 2019, "On evaluating adversarial robustness", arXiv:1902.06705.
    RobustBench's rules for defences, arXiv:2010.09670.
"""

import jax.numpy as jnp
import numpy as np

from jl1.array_types import Inputs, LogitsFn
from jl1.audit.check import Check, Outcome
from jl1.audit.order import Standing
from jl1.audit.thresholds import WIDE
from jl1.classifier_check import check_classifier
from jl1.evaluation import accuracy_interval

CLASSES_OF_TARGETED_DLR = 4
"""Fewest classes for the targeted DLR loss of the published ensemble (arXiv:2003.01690, eq. 7)."""


def network_checks(logits_fn: LogitsFn, inputs: Inputs, *, targeted_dlr: bool) -> list[Check]:
    """Check what the network returns on a few real examples.

    Args:
        logits_fn: Network with its parameters bound.
        inputs: At least two examples.
        targeted_dlr: Whether an attack of the audit raises the targeted DLR.

    Returns:
        The checks.
    """
    return [_outputs(logits_fn, inputs), _repetition(logits_fn, inputs), _classes(logits_fn, inputs, targeted_dlr)]


def points_checks(standing: Standing, epsilon: float, *, num_points: int) -> list[Check]:
    """Check which points were counted, and how.

    Args:
        standing: Verdicts by attack and radius; `standard` at `epsilon` and `clean` among them.
        epsilon: The radius that is asked about.
        num_points: How many points there are in the whole set.

    Returns:
        The checks.
    """
    return [_clean_errors(standing), _enough(standing["standard", epsilon], num_points)]


def _outputs(logits_fn: LogitsFn, inputs: Inputs) -> Check:
    """Look for probabilities, numbers that are not finite, inputs out of range, examples that interact."""
    name, outcome, figure, advice = "logits, inputs in range", "PASS", "", ""
    try:
        check_classifier(logits_fn, inputs)
        figure = f"finite logits, not probabilities; inputs in [{float(jnp.min(inputs)):g}, {float(jnp.max(inputs)):g}]"
    except ValueError as error:
        outcome, figure, advice = "FAIL", str(error).partition(":")[0], str(error).partition(":")[2].strip()
    return Check(name, "hygiene", outcome, figure, advice, outcome == "FAIL", {})


def _repetition(logits_fn: LogitsFn, inputs: Inputs) -> Check:
    """Ask twice."""
    difference = float(jnp.max(jnp.abs(logits_fn(inputs) - logits_fn(inputs))))
    outcome: Outcome = "PASS" if difference == 0 else "FAIL"
    figure = f"two forward passes differ by {difference:g}"
    advice = "The network is random: fix its key, or attack the mean over its randomness."
    return Check("same answer twice", "hygiene", outcome, figure, advice, True, {"difference": difference})


def _classes(logits_fn: LogitsFn, inputs: Inputs, targeted_dlr: bool) -> Check:
    """Count the classes, if an attack has a loss that needs many."""
    num_classes = logits_fn(inputs).shape[1]
    outcome: Outcome = "PASS" if num_classes >= CLASSES_OF_TARGETED_DLR or not targeted_dlr else "WARN"
    advice = "Use the budget `few_classes`, which has the margin for the DLR."
    need = f"the targeted DLR needs {CLASSES_OF_TARGETED_DLR}" if targeted_dlr else "no attack has the targeted DLR"
    figure = f"{num_classes} classes; {need}"
    return Check("enough classes", "hygiene", outcome, figure, advice, False, {"num_classes": float(num_classes)})


def _clean_errors(standing: Standing) -> Check:
    """Look for a point that is wrong without attack and counted as standing under one."""
    clean = standing["clean", 0.0]
    mended = int(sum(np.sum(stands & ~clean) for stands in standing.values()))
    outcome: Outcome = "PASS" if mended == 0 else "FAIL"
    figure = f"{np.sum(~clean)} of {len(clean):,} points are wrong without attack; {mended} of them counted as standing"
    advice = "Count a point that is wrong without an attack as broken."
    return Check("clean errors count", "hygiene", outcome, figure, advice, False, {"mended": float(mended)})


def _enough(stands: np.ndarray, num_points: int) -> Check:
    """Look at the width of the interval of the ensemble's accuracy."""
    low, high = accuracy_interval(int(stands.sum()), len(stands))
    outcome: Outcome = "PASS" if len(stands) == num_points or high - low <= WIDE else "WARN"
    figure = f"{len(stands):,} of {num_points:,} points; 95 % interval {low:.1%} to {high:.1%}"
    advice = "Attack more points (--max_points) before the figure is published."
    return Check("enough points", "hygiene", outcome, figure, advice, False, {"low": low, "high": high})
