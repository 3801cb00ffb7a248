"""The stopping rules on sequences made by hand, at and around their edges."""

import pytest

from jl1.stopping import STOPPING, StoppingOptions, fixed, patience, successive_difference

TWO = StoppingOptions(tolerance=0.01, num_epochs=2)


def test_the_defaults_are_those_of_the_paper():
    assert StoppingOptions() == (1e-4, 10)
    assert set(STOPPING) == {"fixed", "patience", "successive_difference"}


def test_fixed_never_stops():
    assert not fixed([0.5] * 1000, StoppingOptions())


@pytest.mark.parametrize(
    ("accuracies", "stops"),
    [
        ([], False),
        ([0.5], False),
        ([0.5, 0.5], False),
        ([0.5, 0.5, 0.5], True),  # two epochs without a rise
        ([0.5, 0.4, 0.3], True),
        ([0.5, 0.4, 0.6], False),  # a rise in time
        ([0.5, 0.4, 0.6, 0.6, 0.6], True),
        ([0.5, 0.6, 0.4, 0.6], True),  # back to the best is no rise
        ([0.5, 0.505, 0.509], True),  # within the tolerance of the best
        ([0.5, 0.5, 0.511], False),
        ([0.25, 0.5, 0.5, 0.26], True),  # and not a rise over the last one
    ],
)
def test_patience_waits_for_a_rise_over_the_best(accuracies, stops):
    assert patience(accuracies, TWO) is stops


def test_patience_counts_small_rises_from_the_last_best_and_not_from_each_other():
    # 0.006 at a time: the second step is 0.012 over the best that counts
    assert not patience([0.5, 0.506, 0.512, 0.518], TWO)


def test_patience_takes_a_rise_of_exactly_the_tolerance_for_none():
    exact = StoppingOptions(tolerance=0.25, num_epochs=1)  # binary fractions: no rounding
    assert patience([0.5, 0.75], exact)
    assert not patience([0.5, 0.75 + 2**-40], exact)


@pytest.mark.parametrize(
    ("accuracies", "stops"),
    [
        ([], False),
        ([0.5], False),
        ([0.5, 0.5], False),  # not before two epochs have passed
        ([0.5, 0.6, 0.6], True),
        ([0.5, 0.6, 0.595], True),  # a small fall is a small difference
        ([0.5, 0.6, 0.58], False),  # a large one is not
        ([0.5, 0.5, 0.6], False),  # only the last two count
    ],
)
def test_successive_difference_compares_the_last_two_epochs(accuracies, stops):
    assert successive_difference(accuracies, TWO) is stops


def test_successive_difference_takes_exactly_the_tolerance_for_a_change():
    exact = StoppingOptions(tolerance=0.25, num_epochs=1)
    assert not successive_difference([0.5, 0.75], exact)
    assert successive_difference([0.5, 0.75 - 2**-40], exact)


@pytest.mark.parametrize("num_epochs", [0, 1])
def test_successive_difference_needs_two_epochs_whatever_is_asked(num_epochs):
    assert not successive_difference([0.5], StoppingOptions(0.01, num_epochs))
    assert successive_difference([0.5, 0.5], StoppingOptions(0.01, num_epochs))


@pytest.mark.parametrize("size", [500, 5000])
@pytest.mark.parametrize("rule", [patience, successive_difference])
def test_with_the_defaults_one_more_right_answer_is_a_rise(rule, size):
    # 1e-4 is less than one image of either validation set
    flat = [0.9] * 11
    assert rule(flat, StoppingOptions())
    assert not rule([*flat, (0.9 * size + 1) / size], StoppingOptions())
