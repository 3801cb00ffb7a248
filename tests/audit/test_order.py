"""What accuracies say of each other, on verdicts made by hand."""

from itertools import pairwise

import numpy as np
import pytest

from jl1.audit.order import CHAIN, SINGLE_STEP, order_checks
from jl1.audit.thresholds import GAP

NUM_POINTS = 1000
HONEST = {"noise": 0.96, "fgsm": 0.90, "pgd": 0.871, "pgd_long": 0.87, "standard": 0.85, "square": 0.92}


def standing(here, elsewhere=None):
    """The verdicts that give these accuracies: the first points fall, under every attack."""
    accuracies = {("clean", 0.0): 0.98, **{(name, 0.1): value for name, value in here.items()}, **(elsewhere or {})}
    return {task: np.arange(NUM_POINTS) >= round(NUM_POINTS * (1 - value)) for task, value in accuracies.items()}


def outcomes(here, elsewhere=None, chance=0.1):
    checks = order_checks(standing(here, elsewhere), 0.1, chance=chance)
    return {check.name: check for check in checks}


def test_an_honest_network_passes_every_check_that_applies():
    checks = outcomes(HONEST, {("fgsm", 0.2): 0.5, ("standard", 0.2): 0.2, ("standard", 0.5): 0.0})
    assert {check.outcome for check in checks.values()} == {"PASS", "SKIP"}
    assert [name for name, check in checks.items() if check.outcome == "SKIP"] == [
        "own gradients find more than another network's"
    ]
    assert all(check.topic == "order" for check in checks.values())


@pytest.mark.parametrize(("weak", "strong"), list(pairwise(CHAIN[:-1])))
def test_a_weaker_attack_that_finds_more_fails_and_shows_masking(weak, strong):
    check = outcomes(HONEST | {strong: HONEST[weak] + 0.003})["stronger attacks leave less"]
    assert (check.outcome, check.shows_masking) == ("FAIL", True)
    assert strong in check.advice
    assert weak in check.advice


def test_luck_of_two_points_in_a_thousand_is_no_masking():
    assert outcomes(HONEST | {"fgsm": 0.961})["stronger attacks leave less"].outcome == "PASS"


def test_a_small_ensemble_that_loses_to_long_pgd_is_a_warning():
    check = outcomes(HONEST | {"standard": 0.88})["stronger attacks leave less"]
    assert (check.outcome, check.shows_masking) == ("WARN", False)


@pytest.mark.parametrize(("gap", "outcome"), [(GAP - 0.002, "PASS"), (GAP + 0.002, "FAIL")])
def test_the_gap_between_fgsm_and_the_ensemble(gap, outcome):
    check = outcomes(HONEST | {"standard": HONEST["fgsm"] - gap})[SINGLE_STEP]
    assert (check.outcome, check.shows_masking) == (outcome, False)
    assert check.values["gap"] == pytest.approx(gap)


def test_pgd_that_has_not_converged_is_a_warning():
    assert outcomes(HONEST | {"pgd_long": 0.86})["more steps change nothing"].outcome == "WARN"


def test_square_and_transfer_that_find_more_than_gradients_show_masking():
    for name, attack in (
        ("gradients find more than queries", "square"),
        ("own gradients find more than another network's", "transfer"),
    ):
        check = outcomes(HONEST | {attack: 0.86})[name]
        assert (check.outcome, check.shows_masking) == ("FAIL", True)
        assert outcomes(HONEST | {attack: 0.8705})[name].outcome == "PASS"


def test_accuracy_that_rises_with_the_radius():
    name = "accuracy falls with the radius"
    assert outcomes(HONEST, {("fgsm", 0.2): 0.95})[name].outcome == "WARN"  # a single step may overshoot
    check = outcomes(HONEST, {("fgsm", 0.2): 0.95, ("pgd", 0.2): 0.9})[name]
    assert (check.outcome, check.shows_masking) == ("FAIL", True)


@pytest.mark.parametrize(("left", "chance", "outcome"), [(0.1, 0.1, "PASS"), (0.11, 0.1, "FAIL"), (0.5, 0.5, "PASS")])
def test_half_the_range_leaves_chance_at_most(left, chance, outcome):
    checks = outcomes(HONEST, {("standard", 0.5): left, ("fgsm", 0.5): 0.7}, chance)
    assert checks["nothing is left at 0.5"].outcome == outcome
