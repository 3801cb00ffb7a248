"""Trends over lambda: Kendall's tau of every penalty and measure, corrected over all of them."""

import pandas as pd

from jl1.report.cells import MEASURE_COLUMNS, TRUE_LABELS, Cells
from jl1.report.frames import Frame
from jl1.report.run_settings import GROUP_COLUMNS, PENALTY_COLUMNS
from jl1.report.summaries import holm, trend

_KEYS = (*GROUP_COLUMNS, *PENALTY_COLUMNS, *MEASURE_COLUMNS)


def make_trends(cells: Cells) -> Frame:
    """Test for each penalty and measure of each group whether accuracy goes along with lambda.

    Args:
        cells: As `cells.make_cells` returns them.

    Returns:
        A line a test: what it is of (`GROUP_COLUMNS`, the penalty without lambda, `MEASURE_COLUMNS`), `num_runs`,
        `tau`, `p`, and `p_holm`, corrected over all lines. Lambda 0 belongs to every penalty.
    """
    found = []
    values = cells.values[cells.values["labels"] == TRUE_LABELS]
    ways = cells.cells.loc[cells.cells["lam"] > 0, [*GROUP_COLUMNS, *PENALTY_COLUMNS]].drop_duplicates()
    groups = {key: part for key, part in values.groupby([*GROUP_COLUMNS], sort=False)}
    for way in ways.itertuples(index=False, name=None):
        group = groups.get(way[: len(GROUP_COLUMNS)])
        if group is not None:
            found += [(*way, *measure) for measure in _trends(group, way[len(GROUP_COLUMNS) :])]
    trends: Frame = pd.DataFrame(found, columns=[*_KEYS, "num_runs", "tau", "p"])
    return trends.assign(p_holm=holm(trends["p"].tolist()))


def _trends(values: Frame, penalty: tuple[str, ...]) -> list[tuple[object, ...]]:
    """Return measure, number of runs, tau and p where there is a test of a penalty."""
    penalised = (values[[*PENALTY_COLUMNS]] == list(penalty)).all(axis=1)
    found = []
    for measure, part in values[(values["lam"] == 0) | penalised].groupby([*MEASURE_COLUMNS], sort=True):
        result = trend(part["lam"].tolist(), part["accuracy"].tolist())
        if result is not None:
            found.append((*measure, *result))
    return found
