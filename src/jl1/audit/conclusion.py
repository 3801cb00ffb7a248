"""One sentence on what an audit found."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

from jl1.audit.check import Check
from jl1.audit.order import SINGLE_STEP
from jl1.audit.thresholds import GAP, GUESSING, WITHSTOOD

Finding = Literal[
    "no classifier", "single step only", "not robust", "masked", "not to be trusted", "FGSM overstates", "holds"
]


class Conclusion(NamedTuple):
    """What an audit comes to.

    Attributes:
        finding: In a word or two.
        sentence: The same with its figures.
        is_masked: Whether a check says that gradients are masked, whatever the finding.
    """

    finding: Finding
    sentence: str
    is_masked: bool


def conclude(
    checks: Sequence[Check], *, epsilon: float, clean: float, fgsm: float, strongest: float, chance: float
) -> Conclusion:
    """Weigh the checks; of several findings that apply, the first one in this order is the conclusion.

    What strong attacks break is broken, masked gradients or not; only what they leave can be too good to be true.

    Args:
        checks: All that were made.
        epsilon: The radius.
        clean: Accuracy without attack.
        fgsm: Accuracy under FGSM.
        strongest: Accuracy under all attacks together.
        chance: Accuracy of the best constant answer.

    Returns:
        The conclusion.

    Example:
        >>> conclude([], epsilon=0.1, clean=0.98, fgsm=0.9, strongest=0.88, chance=0.1).sentence
        'This accuracy holds against every attack of this audit: 88.0% at 0.1 (98.0% without attack).'
    """
    failed = [check for check in checks if check.outcome == "FAIL" and check.name != SINGLE_STEP]
    masking = "; ".join(check.name for check in failed if check.shows_masking)
    others = "; ".join(check.name for check in failed if not check.shows_masking)
    at, overstated, all_broken = f"at {epsilon:g}", fgsm - strongest > GAP, strongest <= chance
    left = f"FGSM leaves {fgsm:.1%} {at}, strong attacks {strongest:.1%}"
    clean_too = f"({clean:.1%} without attack)"
    applies: dict[Finding, bool] = {
        "no classifier": clean <= chance + GUESSING * (1 - chance),
        "single step only": all_broken and overstated and fgsm >= WITHSTOOD * clean,
        "not robust": all_broken,
        "masked": bool(masking),
        "not to be trusted": bool(others),
        "FGSM overstates": overstated,
        "holds": True,
    }
    sentences: dict[Finding, str] = {
        "no classifier": f"Not a classifier: {clean:.1%} without attack, where chance is {chance:.1%}.",
        "single step only": f"Robust to single-step attacks only: {left}.",
        "not robust": f"Not robust {at}: strong attacks leave {strongest:.1%}.",
        "masked": f"Gradients are masked ({masking}): {strongest:.1%} {at} is an upper bound, perhaps far off.",
        "not to be trusted": f"The evaluation cannot be trusted: {others}.",
        "FGSM overstates": f"FGSM overstates what is left: {left} {clean_too}.",
        "holds": f"This accuracy holds against every attack of this audit: {strongest:.1%} {at} {clean_too}.",
    }
    finding: Finding = next(name for name in applies if applies[name])
    return Conclusion(finding, sentences[finding], bool(masking))
