"""Statistics over seeds: mean, spread, intervals, tests. docs/tables.md says what each of them means."""

import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

CONFIDENCE = 0.95
"""Of every interval."""


class Summary(NamedTuple):
    """Some values of one quantity, one a seed.

    Attributes:
        n: How many.
        mean: Their mean; NaN of none.
        std: Their standard deviation with n - 1; NaN of fewer than two.
        low: Lower end of the t-interval of the mean; NaN of fewer than two.
        high: Its upper end.
    """

    n: int
    mean: float
    std: float
    low: float
    high: float


class Trend(NamedTuple):
    """How values go along with a setting.

    Attributes:
        n: Number of pairs.
        tau: Kendall's tau-b, in [-1, 1].
        p: Two-sided p-value of tau = 0.
    """

    n: int
    tau: float
    p: float


def summarise(values: Sequence[float]) -> Summary:
    """Take the mean, the standard deviation (n - 1) and the 95 % t-interval of the mean.

    Args:
        values: One a seed, of any number.

    Returns:
        The summary; what the number of values does not allow is NaN.

    Example:
        >>> summary = summarise([0.25, 0.75])
        >>> summary.n, summary.mean, round(summary.std, 6)
        (2, 0.5, 0.353553)
    """
    n = len(values)
    mean = float(np.mean(values)) if n else np.nan
    if n < 2:
        return Summary(n, mean, np.nan, np.nan, np.nan)
    std = float(np.std(values, ddof=1))
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, n - 1)) * std / n**0.5
    return Summary(n, mean, std, mean - half, mean + half)


def welch_p(one: Sequence[float], other: Sequence[float]) -> float:
    """Test by Welch's t whether two groups have the same mean; their variances may differ.

    Args:
        one: Values of a group.
        other: Values of the other.

    Returns:
        Two-sided p-value; NaN with fewer than two values in a group, or where neither group has any spread.

    Example:
        >>> round(welch_p([1.0, 2.0, 3.0], [2.0, 4.0, 6.0]), 4)
        0.2209
    """
    if min(len(one), len(other)) < 2 or not (np.ptp(one) or np.ptp(other)):
        return np.nan
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Precision loss occurred", RuntimeWarning)  # one group without spread
        found: Any = stats.ttest_ind(one, other, equal_var=False)
    return float(found.pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p-values by Holm's step-down rule: the k-th smallest of m times m - k + 1, never falling.

    Args:
        p_values: Of one family of tests; NaN, a test that could not be made, does not count.

    Returns:
        Corrected p-values in the same order, at most 1.

    Example:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]

    References:
        Holm 1979, Scandinavian Journal of Statistics 6.
    """
    corrected = [np.nan] * len(p_values)
    tested = sorted((p, index) for index, p in enumerate(p_values) if not np.isnan(p))
    largest = 0.0
    for rank, (p, index) in enumerate(tested):
        largest = max(largest, min(1.0, p * (len(tested) - rank)))
        corrected[index] = largest
    return corrected


def trend(settings: Sequence[float], values: Sequence[float]) -> Trend | None:
    """Test whether values rise or fall with a setting, by the ranks alone: Kendall's tau-b over all pairs.

    With the seeds of a setting tied, the statistic counts the same pairs as the test of Jonckheere and Terpstra.

    Args:
        settings: Such as lambda, one a value.
        values: One a seed.

    Returns:
        The trend; None with fewer than three different settings, with one seed a setting, or with values that are all
        the same.

    Example:
        >>> trend([0.0, 0.0, 1.0, 1.0, 2.0, 2.0], [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]).tau > 0.89
        True
    """
    if len(set(settings)) < 3 or len(values) == len(set(settings)) or len(set(values)) < 2:
        return None
    found: Any = stats.kendalltau(settings, values)
    return Trend(len(values), float(found.statistic), float(found.pvalue))


def standard_error_of_difference(one: tuple[float, int], other: tuple[float, int]) -> float:
    """Return the standard error of the difference of two means, each given as (standard deviation, n).

    Example:
        >>> standard_error_of_difference((3.0, 9), (4.0, 4))
        2.23606797749979
    """
    return float(sum(std**2 / n for std, n in (one, other)) ** 0.5)
