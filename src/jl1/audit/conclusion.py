"""One sentence on what an audit found."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

from jl1.audit.check import Check
from jl1.audit.order import GAP, SINGLE_STEP

Finding = Literal["holds", "single step only", "not robust", "masked", "not to be trusted"]


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
    """Weigh the checks.

    What strong attacks break is broken, masked gradients or not; only what they leave can be too good to be true.

    Args:
        checks: All that were made.
        epsilon: The radius.
        clean: Accuracy without attack.
        fgsm: Accuracy under FGSM.
        strongest: Accuracy under all attacks together.
        chance: That of a constant answer.

    Returns:
        The conclusion.

    Example:
        >>> conclude([], epsilon=0.1, clean=0.98, fgsm=0.9, strongest=0.88, chance=0.1).sentence
        'This accuracy holds against every attack of this audit: 88.0% at 0.1 (98.0% without attack).'
    """
    failed = [check for check in checks if check.outcome == "FAIL" and check.name != SINGLE_STEP]
    masking = "; ".join(check.name for check in failed if check.shows_masking)
    others = "; ".join(check.name for check in failed if not check.shows_masking)
    at, is_masked = f"at {epsilon:g}", bool(masking)
    if fgsm - strongest > GAP and (strongest <= chance or not is_masked):
        sentence = f"Robust to single-step attacks only: FGSM leaves {fgsm:.1%} {at}, strong attacks {strongest:.1%}."
        return Conclusion("single step only", sentence, is_masked)
    if strongest <= chance:
        return Conclusion("not robust", f"Not robust {at}: strong attacks leave {strongest:.1%}.", is_masked)
    if is_masked:
        sentence = (
            f"Gradients are masked ({masking}): {strongest:.1%} {at} is an upper bound, perhaps far from the truth."
        )
        return Conclusion("masked", sentence, True)
    if others:
        return Conclusion("not to be trusted", f"The evaluation cannot be trusted: {others}.", False)
    sentence = (
        f"This accuracy holds against every attack of this audit: {strongest:.1%} {at} ({clean:.1%} without attack)."
    )
    return Conclusion("holds", sentence, False)
