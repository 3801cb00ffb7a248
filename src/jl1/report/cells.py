"""From tidy rows to the cells of a table: statistics over seeds, tests against lambda 0, the paper's numbers."""

from collections.abc import Hashable
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from jl1.report.columns import FINISHED, ON_THE_WAY
from jl1.report.frames import Frame
from jl1.report.paper_numbers import NUM_EXAMPLES, NUM_REPEATS, PAPER_KEYS
from jl1.report.run_settings import GROUP_COLUMNS, NETWORK_COLUMNS, SETTING_COLUMNS
from jl1.report.summaries import holm, standard_error_of_difference, summarise, welch_p

MEASURE_COLUMNS = ("at_epoch", "epsilon", "norm", "attack", "strength", "labels", "points", "rule", "num_examples")
"""What tells one measured quantity of a network from another; `at_epoch` 0 is the end of the training."""

TRUE_LABELS = "true"
"""Of what is tested and laid out: FGSM on predicted labels differs from it by the points that are wrong without attack,
and a test of both would count one difference twice."""

_KEYS = [*GROUP_COLUMNS, *NETWORK_COLUMNS, *MEASURE_COLUMNS]
_LABELS = _KEYS.index("labels")


class Cells(NamedTuple):
    """A table before it is laid out.

    Attributes:
        cells: One a network and measure; accuracies are fractions.
        values: The rows that were counted, with `at_epoch`.
        notes: What was not counted, and why.
        num_tests: How many p-values Holm's correction is over.
    """

    cells: Frame
    values: Frame
    notes: list[str]
    num_tests: int


def make_cells(rows: Frame, paper: Frame) -> Cells:
    """Summarise tidy rows over seeds.

    Args:
        rows: As `results.read_results` returns them.
        paper: As `paper_numbers` returns them.

    Returns:
        The cells. `n` of `num_expected` seeds are there; `p` is Welch's test against lambda 0 of the same group and
        measure, `p_holm` corrected over all cells; `in_standard_errors` is the difference to the paper's mean over its
        standard error, both sides' spread in it. What cannot be computed is NaN.
    """
    values, notes = _counted(rows)
    expected = rows.groupby([*SETTING_COLUMNS], sort=False)["seed"].nunique().rename("num_expected")
    by_cell = {key: group["accuracy"].to_numpy() for key, group in values.groupby(_KEYS, sort=False)}
    keys = _all_keys(expected.reset_index(), values)
    cells = pd.DataFrame([_cell(key, by_cell) for key in keys.itertuples(index=False, name=None)], columns=_columns())
    cells["p_holm"] = holm(cells["p"].tolist())
    cells = cells.merge(expected.reset_index(), on=[*SETTING_COLUMNS], how="left")
    cells = cells.merge(_mean_seconds(values), on=[*SETTING_COLUMNS], how="left")
    notes += _without_figures(expected.reset_index(), values)
    cells = _beside_paper(cells, paper).sort_values(_KEYS, kind="stable", ignore_index=True)
    return Cells(cells, values, notes, int(cells["p"].notna().sum()))


def _counted(rows: Frame) -> tuple[Frame, list[str]]:
    """Return the rows that count, each seed once, and say what does not."""
    rows = rows.assign(at_epoch=rows["epoch"].where(rows["when"] == ON_THE_WAY, 0.0).fillna(0.0))
    measured = rows[rows["accuracy"].notna()]
    counted = measured[measured["status"] == FINISHED]
    notes = [f"interrupted, not in any mean: {name}" for name in _runs(measured[measured["status"] != FINISHED])]
    once = counted.sort_values("run", kind="stable").drop_duplicates([*_KEYS, "seed"]).sort_index()
    kept = once[[*_KEYS, "seed", "accuracy", "run"]]
    repeated = counted.drop(once.index).merge(kept, on=[*_KEYS, "seed"], suffixes=("", "_kept"))
    differs = repeated["accuracy"] != repeated["accuracy_kept"]
    copies, others = _runs(repeated[~differs & (repeated["run"] != repeated["run_kept"])]), _runs(repeated[differs])
    if copies:
        notes.append(f"the same settings, seed and accuracies as another run, counted once: {', '.join(copies)}")
    if others:
        notes.append(
            f"other accuracies of the same settings and seed, the first run by name counts: {', '.join(others)}"
        )
    return once, notes


def _runs(rows: Frame) -> list[str]:
    """List the runs of some rows."""
    return sorted(set(rows["run"]))


def _all_keys(settings: Frame, values: Frame) -> Frame:
    """Return every network of a group with every measure that one of them has."""
    measures = values[[*GROUP_COLUMNS, *MEASURE_COLUMNS]].drop_duplicates()
    return settings.drop(columns="num_expected").merge(measures, on=[*GROUP_COLUMNS], how="inner")[_KEYS]


def _without_figures(settings: Frame, values: Frame) -> list[str]:
    """Name the groups that have no figure at all."""
    names = [*GROUP_COLUMNS]
    bare = settings.groupby(names, sort=True)["num_expected"].sum().reset_index()
    bare = bare.merge(values[names].drop_duplicates(), on=names, how="left", indicator=True)
    bare = bare[bare["_merge"] == "left_only"]
    return [
        f"no figure yet of {group.dataset}, model {group.model}, "
        + (f"{group.method} at {group.train_epsilon:g}" if group.method else "no adversarial training")
        + f": 0/{group.num_expected} runs"
        for group in bare.itertuples(index=False)
    ]


def _mean_seconds(values: Frame) -> Frame:
    """Return the seconds of training of each network, mean over its runs."""
    runs = values.drop_duplicates([*SETTING_COLUMNS, "seed"])
    return runs.groupby([*SETTING_COLUMNS], sort=False)["train_seconds"].mean().reset_index()


def _columns() -> list[str]:
    """List what `_cell` computes."""
    return [*_KEYS, "n", "mean", "std", "low", "high", "minus_baseline", "p"]


def _cell(key: tuple[Any, ...], by_cell: dict[Hashable, np.ndarray]) -> tuple[Any, ...]:
    """Summarise one cell, and test it against the one of lambda 0."""
    values = by_cell.get(key, np.empty(0))
    summary = summarise(values.tolist())
    start, end = len(GROUP_COLUMNS), len(GROUP_COLUMNS) + len(NETWORK_COLUMNS)
    baseline = by_cell.get((*key[:start], "none", "", "", 0.0, *key[end:]))
    if key[end - 1] == 0 or baseline is None or not len(values):
        return (*key, *summary, np.nan, np.nan)
    p = welch_p(values.tolist(), baseline.tolist()) if key[_LABELS] == TRUE_LABELS else np.nan
    return (*key, *summary, summary.mean - float(baseline.mean()), p)


def _beside_paper(cells: Frame, paper: Frame) -> Frame:
    """Add the paper's numbers to the cells that measure the same."""
    cells = cells.merge(paper, on=[*PAPER_KEYS], how="left")
    same = (
        (cells["dataset"] == "mnist")
        & (cells["points"] == "test")
        & (cells["num_examples"] == NUM_EXAMPLES)
        & (cells["norm"] == "linf")
        & (cells["labels"] == TRUE_LABELS)
        & (cells["rule"] == "attacked")
        & (cells["warmup_epochs"] == 0)
    )
    cells[["paper_mean", "paper_std"]] = cells[["paper_mean", "paper_std"]].astype(float).where(same)
    cells["paper_table"] = cells["paper_table"].where(same).fillna("")
    cells["minus_paper"] = cells["mean"] - cells["paper_mean"]
    errors = [_standard_error(cell) for cell in cells.itertuples(index=False)]
    cells["in_standard_errors"] = cells["minus_paper"] / pd.Series(errors, dtype=float).where(lambda error: error > 0)
    return cells


def _standard_error(cell: Any) -> float:
    """Return the standard error of the difference to the paper; NaN with one seed."""
    if not cell.n:
        return np.nan
    return standard_error_of_difference((cell.std, cell.n), (cell.paper_std, NUM_REPEATS))
