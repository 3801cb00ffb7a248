"""From checks to one finding."""

import pytest

from jl1.audit.check import Check
from jl1.audit.conclusion import conclude
from jl1.audit.order import SINGLE_STEP


def check(name="a check", outcome="FAIL", masking=False):
    return Check(name, "gradients", outcome, "", "", masking, {})


MASKED, BAD, GAP = check("zero gradients", masking=True), check("hygiene"), check(SINGLE_STEP)


@pytest.mark.parametrize(
    ("checks", "fgsm", "strongest", "finding", "is_masked"),
    [
        ([], 0.90, 0.88, "holds", False),
        ([check(outcome="WARN", masking=True)], 0.90, 0.88, "holds", False),
        ([GAP], 0.93, 0.02, "single step only", False),
        ([GAP, MASKED], 0.93, 0.02, "single step only", True),
        ([GAP], 0.66, 0.02, "not robust", False),  # a plain network: FGSM takes a third of it already
        ([GAP], 0.87, 0.51, "FGSM overstates", False),
        ([GAP, BAD], 0.87, 0.51, "not to be trusted", False),
        ([GAP, MASKED], 0.93, 0.60, "masked", True),  # 60 % are not known to be there
        ([MASKED], 0.05, 0.0, "not robust", True),  # what has fallen has fallen
        ([], 0.08, 0.05, "not robust", False),
        ([MASKED], 0.90, 0.88, "masked", True),
        ([BAD], 0.90, 0.88, "not to be trusted", False),
        ([BAD, MASKED], 0.90, 0.88, "masked", True),
    ],
)
def test_findings(checks, fgsm, strongest, finding, is_masked):
    conclusion = conclude(checks, epsilon=0.1, clean=0.98, fgsm=fgsm, strongest=strongest, chance=0.1)
    assert (conclusion.finding, conclusion.is_masked) == (finding, is_masked)
    assert f"{strongest:.1%}" in conclusion.sentence or finding == "not to be trusted"


@pytest.mark.parametrize(("clean", "chance", "finding"), [(0.15, 0.1, "no classifier"), (0.54, 0.5, "no classifier")])
def test_a_network_that_guesses_is_said_to_guess_whatever_the_attacks_leave(clean, chance, finding):
    conclusion = conclude([GAP], epsilon=0.1, clean=clean, fgsm=clean, strongest=0.0, chance=chance)
    assert conclusion.finding == finding
    assert f"{clean:.1%} without attack, where chance is {chance:.1%}" in conclusion.sentence
