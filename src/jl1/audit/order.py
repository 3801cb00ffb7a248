"""What accuracies say of each other: a stronger attack, a larger radius, more steps can only leave less.

Where it is otherwise, an attack has failed, and a gradient that leads nowhere is the usual reason.

References:
    Carlini et al. 2019, "On evaluating adversarial robustness", arXiv:1902.06705, Sec. 5.
    Athalye, Carlini, Wagner 2018, "Obfuscated gradients give a false sense of security", arXiv:1802.00420, Sec. 3.1.
"""

from collections.abc import Iterator, Mapping
from itertools import pairwise

import numpy as np

from jl1.attacks.suite import luck
from jl1.audit.check import Check, Outcome, outcome_above
from jl1.audit.thresholds import CONVERGED, GAP

Standing = Mapping[tuple[str, float], np.ndarray]
"""Which points stand, bool `[n]`, by attack and radius; `("clean", 0.0)` has those that are right without attack."""

CHAIN = ("noise", "fgsm", "pgd", "pgd_long", "standard")
"""The attacks of an audit, the weakest first."""

WHITE_BOX = ("fgsm", "pgd", "pgd_long")
"""Those that follow the gradient and nothing else."""

SINGLE_STEP = "FGSM tells the same as the ensemble"
"""Name of the check whose failure is a finding of its own."""

LARGE_RADIUS = 0.5
"""In a range of [0, 1] every image can be made grey, so that no more than one class is left (arXiv:1902.06705)."""


def order_checks(standing: Standing, epsilon: float, *, chance: float) -> list[Check]:
    """Compare the accuracies under attacks and at radii.

    Args:
        standing: Verdicts on the same points; at `epsilon` those of `CHAIN` and `square`, and of `transfer` where there
            is another network; at other radii any.
        epsilon: The radius that is asked about.
        chance: Accuracy of the best constant answer.

    Returns:
        The checks, in the order of the report.
    """
    accuracies = {task: float(stands.mean()) for task, stands in standing.items()}
    slack = luck(len(standing["clean", 0.0]))
    here = {name: accuracy for (name, radius), accuracy in accuracies.items() if radius == epsilon}
    return [
        _strength(here, slack),
        _single_step(here),
        _convergence(here, slack),
        _black_box(here, slack),
        _transfer(here, slack),
        _radii(accuracies, slack),
        _large_radius(accuracies, chance, slack),
    ]


def _strength(here: Mapping[str, float], slack: float) -> Check:
    """Compare each attack with the next stronger one."""
    chain = [name for name in CHAIN if name in here]
    bad = [(weak, strong) for weak, strong in pairwise(chain) if here[strong] > here[weak] + slack]
    outcome: Outcome = "FAIL" if bad else "PASS"
    if bad == [("pgd_long", "standard")]:
        outcome = "WARN"  # a small budget loses to a thousand steps
    figure = " >= ".join(f"{name} {here[name]:.1%}" for name in chain)
    advice = " ".join(f"Look at {strong}: it leaves more than {weak}, a weaker attack." for weak, strong in bad)
    values = {name: here[name] for name in chain}
    return Check("stronger attacks leave less", "order", outcome, figure, advice, outcome == "FAIL", values)


def _single_step(here: Mapping[str, float]) -> Check:
    """Compare FGSM with the ensemble."""
    gap = here["fgsm"] - here["standard"]
    outcome: Outcome = "FAIL" if gap > GAP else "PASS"
    figure = f"FGSM leaves {here['fgsm']:.1%}, the ensemble {here['standard']:.1%}: a gap of {100 * gap:.1f} points"
    advice = "Report the ensemble's accuracy: FGSM, a single step, says more than is there."
    return Check(SINGLE_STEP, "order", outcome, figure, advice, False, {"gap": gap})


def _convergence(here: Mapping[str, float], slack: float) -> Check:
    """Compare a short PGD with a long one."""
    drop = here["pgd"] - here["pgd_long"]
    outcome = outcome_above(drop, warn=max(CONVERGED, slack), fail=1.0)
    figure = f"from PGD-40 to PGD-100 x 10 {100 * drop:.1f} points more fall"
    advice = "Use more steps and restarts until the accuracy no longer falls."
    return Check("more steps change nothing", "order", outcome, figure, advice, False, {"drop": drop})


def _black_box(here: Mapping[str, float], slack: float) -> Check:
    """Compare the attacks by gradient with Square, which sees scores only."""
    best = min(here[name] for name in WHITE_BOX if name in here)
    outcome: Outcome = "FAIL" if best > here["square"] + slack else "PASS"
    figure = f"the best attack by gradient leaves {best:.1%}, Square {here['square']:.1%}"
    advice = "Gradients are masked: an attack without them finds more. Find what stops them (rounding, saturation)."
    values = {"white_box": best, "square": here["square"]}
    return Check("gradients find more than queries", "order", outcome, figure, advice, True, values)


def _transfer(here: Mapping[str, float], slack: float) -> Check:
    """Compare the attacks by gradient with examples that were made on another network."""
    name = "own gradients find more than another network's"
    if "transfer" not in here:
        advice = "Give another network of the same data with --transfer_from=DIR, such as a plainly trained one."
        return Check(name, "order", "SKIP", "no other network was given", advice, True, {})
    best = min(here[each] for each in WHITE_BOX if each in here)
    outcome: Outcome = "FAIL" if best > here["transfer"] + slack else "PASS"
    figure = f"the best attack by gradient leaves {best:.1%}, transferred examples {here['transfer']:.1%}"
    advice = "Gradients are masked: another network's serve better."
    return Check(name, "order", outcome, figure, advice, True, {"white_box": best, "transfer": here["transfer"]})


def _radii(accuracies: Mapping[tuple[str, float], float], slack: float) -> Check:
    """Follow each attack over the radii."""
    rises = list(_rises(accuracies, slack))
    alone = all(name == "fgsm" for name, *_ in rises)
    outcome: Outcome = "PASS" if not rises else "WARN" if alone else "FAIL"
    figure, advice = "no accuracy rises with the radius", ""
    if rises:
        name, low, high, rise = max(rises, key=lambda each: each[-1])
        figure = f"{name} leaves {100 * rise:.1f} points more at {high:g} than at {low:g}"
        advice = (
            "FGSM's single step overshoots: judge by the other attacks."
            if alone
            else f"{name} fails at the larger radius: look at its gradients and step size."
        )
    values = {"largest_rise": max((rise for *_, rise in rises), default=0.0)}
    return Check("accuracy falls with the radius", "order", outcome, figure, advice, outcome == "FAIL", values)


def _rises(accuracies: Mapping[tuple[str, float], float], slack: float) -> Iterator[tuple[str, float, float, float]]:
    """Yield attack, smaller radius, larger radius and rise wherever an accuracy rises."""
    for name in dict.fromkeys(name for name, _ in accuracies):
        radii = sorted(radius for each, radius in accuracies if each == name)
        for low, high in pairwise(radii):
            rise = accuracies[name, high] - accuracies[name, low]
            if rise > slack:
                yield name, low, high, rise


def _large_radius(accuracies: Mapping[tuple[str, float], float], chance: float, slack: float) -> Check:
    """Look whether a radius of half the range leaves nothing."""
    at_large = [accuracy for (_, radius), accuracy in accuracies.items() if radius == LARGE_RADIUS]
    name = f"nothing is left at {LARGE_RADIUS:g}"
    if not at_large:
        return Check(name, "order", "SKIP", f"no attack ran at {LARGE_RADIUS:g}", "Attack at it.", True, {})
    left = min(at_large)
    outcome: Outcome = "FAIL" if left > chance + slack else "PASS"
    figure = f"the best attack at {LARGE_RADIUS:g} leaves {left:.1%}; chance is {chance:.1%}"
    advice = "The attacks do not work on this network: an image that may become grey cannot keep its class."
    return Check(name, "order", outcome, figure, advice, True, {"left": left})
