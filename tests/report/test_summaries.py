"""Statistics over seeds, against closed forms, SciPy on the raw numbers, and examples worked by hand."""

import math

import numpy as np
import pytest
from scipy import stats

from jl1.report.summaries import holm, standard_error_of_difference, summarise, trend, welch_p

T_1 = 12.706204736432095  # the 97.5 % point of Student's t with one degree of freedom: tan(0.475 pi)


def test_two_seeds_in_closed_form():
    summary = summarise([0.3, 0.7])
    assert (summary.n, summary.mean) == (2, 0.5)
    assert summary.std == pytest.approx(0.4 / math.sqrt(2))
    assert summary.high - summary.mean == pytest.approx(T_1 * 0.2)  # std / sqrt(2) is half of the difference
    assert summary.mean - summary.low == pytest.approx(math.tan(0.475 * math.pi) * 0.2)


def test_the_interval_covers_the_true_mean_in_95_of_100_samples():
    rng = np.random.default_rng(0)
    samples = [summarise(rng.normal(3.0, 2.0, 5).tolist()) for _ in range(2000)]
    assert np.mean([sample.low <= 3.0 <= sample.high for sample in samples]) == pytest.approx(0.95, abs=0.015)


def test_one_seed_has_no_spread_and_none_has_nothing():
    one, none = summarise([0.4]), summarise([])
    assert (one.n, one.mean, none.n) == (1, 0.4, 0)
    assert np.isnan([one.std, one.low, one.high, none.mean, none.std]).all()


def test_welch_is_the_formula_with_satterthwaites_degrees_of_freedom():
    one, other = [0.2, 0.25, 0.33, 0.41], [0.5, 0.52, 0.49]
    parts = [np.var(group, ddof=1) / len(group) for group in (one, other)]
    t = (np.mean(one) - np.mean(other)) / math.sqrt(sum(parts))
    freedom = sum(parts) ** 2 / (parts[0] ** 2 / 3 + parts[1] ** 2 / 2)
    assert welch_p(one, other) == pytest.approx(2 * stats.t.sf(abs(t), freedom))
    assert welch_p(one, other) == pytest.approx(stats.ttest_ind(one, other, equal_var=False).pvalue)
    assert welch_p(one, other) != pytest.approx(stats.ttest_ind(one, other).pvalue)


@pytest.mark.parametrize(("one", "other"), [([0.5], [0.1, 0.2]), ([0.1, 0.2], []), ([0.5, 0.5], [0.7, 0.7])])
def test_welch_needs_two_seeds_on_each_side_and_some_spread(one, other):
    assert math.isnan(welch_p(one, other))


def test_welch_with_spread_on_one_side_only():
    assert welch_p([0.5, 0.5, 0.5], [0.1, 0.2, 0.3]) == pytest.approx(
        stats.ttest_1samp([0.1, 0.2, 0.3], 0.5).pvalue  # the other side has no error
    )


def test_holm_by_hand():
    # sorted: 0.005 * 4 = 0.02, 0.01 * 3 = 0.03, 0.03 * 2 = 0.06, 0.04 * 1 = 0.04 < 0.06, so 0.06
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_holm_does_not_count_a_test_that_could_not_be_made_and_stops_at_one():
    corrected = holm([math.nan, 0.02, 0.9, 0.6])
    assert math.isnan(corrected[0])
    assert corrected[1:] == pytest.approx([0.06, 1.0, 1.0])
    assert holm([]) == []


def test_a_trend_is_that_of_the_ranks_alone():
    lambdas, values = [0.0, 0.0, 1.0, 1.0, 50.0, 50.0], [0.1, 0.2, 0.3, 0.25, 0.9, 0.8]
    found = trend(lambdas, values)
    assert found.n == 6
    concordant, tied = 12, 3  # of 15 pairs 3 are tied in lambda, and every other one rises
    assert found.tau == pytest.approx(concordant / math.sqrt((15 - tied) * 15))
    assert trend([0.0, 0.0, 1.0, 1.0, 2.0, 2.0], values) == found  # how far the lambdas lie apart does not matter
    assert trend(lambdas, [-value for value in values]).tau == -found.tau
    assert found.p < 0.05


def test_no_trend_of_two_lambdas_or_of_equal_values():
    assert trend([0.0, 0.0, 1.0, 1.0], [0.1, 0.2, 0.3, 0.4]) is None
    assert trend([0.0, 0.0, 1.0, 2.0], [0.5, 0.5, 0.5, 0.5]) is None
    assert trend([0.0, 1.0, 2.0, 3.0], [0.1, 0.2, 0.3, 0.4]) is None  # one seed each: no test


def test_the_standard_error_has_both_sides_in_it():
    assert standard_error_of_difference((0.3, 9), (0.2, 4)) == pytest.approx(math.sqrt(0.01 + 0.01))
    assert math.isnan(standard_error_of_difference((math.nan, 1), (0.2, 4)))
