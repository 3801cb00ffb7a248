"""The lines below the tables: how they are read, what the runs were made with, what is not there."""

from collections.abc import Mapping
from typing import Any

from jl1.report.cells import Cells
from jl1.report.frames import Frame
from jl1.report.paper_numbers import NUM_REPEATS, paper_numbers
from jl1.report.run_settings import differing_fields

_SOURCES = {"machine": "machines", "jax": "versions of jax", "commit": "commits", "gradient_form": "gradient forms"}
_SAYS_NOTHING = ("", "plain")  # not recorded; without a penalty there is one form only


def legend(cells: Cells, trends: Frame) -> list[str]:
    """Say how the tables are read."""
    lines = [
        "Accuracy in %, mean +- standard deviation over seeds (n - 1); 95 %: t-interval of the mean; k/m: k of m runs."
    ]
    if cells.num_tests:
        lines.append(
            "p: Welch's t-test against lambda 0 of the same table and attack, corrected after Holm over the "
            f"{cells.num_tests} tests of all these tables."
        )
    if len(trends):
        lines.append(
            "tau: Kendall's, between lambda and accuracy over all runs of a penalty and of lambda 0; p: two-sided, "
            f"corrected after Holm over the trends of all these tables, {len(trends)}."
        )
    if cells.cells["paper_mean"].notna().any():
        lines.append(
            f"Paper: {NUM_REPEATS} repeats. SE: jl1's mean minus the paper's, in standard errors of the difference."
        )
    if (cells.cells["n"] == 1).any():
        lines.append("n = 1: one seed has no standard deviation, no interval and no test.")
    if (cells.cells["rule"] == "standing").any():
        lines.append("(standing): a point that is wrong without an attack counts as broken, as in `jl1 evaluate`.")
    return lines


def p_text(p: float) -> str:
    """Write a p-value.

    Example:
        >>> p_text(0.0312), p_text(2.5e-7)
        ('0.031', '<0.001')
    """
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def source_lines(rows: Frame, configs: Mapping[str, dict[str, Any]]) -> list[str]:
    """Say what the runs were made with, and in which settings without a column they differ.

    Args:
        rows: Tidy rows.
        configs: By the column `settings`, as far as they are known.
    """
    made = rows[rows["accuracy"].notna()]
    return [*_made_with(made), *_differing_settings(sorted(set(made["settings"]) & {*configs}), configs)]


def _made_with(rows: Frame) -> list[str]:
    """Write a line for each of machine, version, commit and form of the gradient."""
    lines = []
    for column, plural in _SOURCES.items():
        found = rows[~rows[column].isin(_SAYS_NOTHING)].groupby(column)["run"].nunique()
        if len(found) > 1:
            counts = ", ".join(f"{name} ({runs} run{'s' * (runs > 1)})" for name, runs in found.items())
            lines.append(f"mixed {plural}: {counts}")
        elif len(found):
            lines.append(f"{column.replace('_', ' ')}: {found.index[0]}")
    return lines


def _differing_settings(digests: list[str], configs: Mapping[str, dict[str, Any]]) -> list[str]:
    """Say in what the other settings differ from the first."""
    return [
        f"settings {digests[0]} -> {digest}: {'; '.join(differing_fields(configs[digests[0]], configs[digest]))}"
        for digest in digests[1:]
    ]


def absent_from_paper(cells: Frame, table: str) -> list[str]:
    """Name the networks of one of the paper's tables that no run belongs to."""
    keys = ["model", "penalty", "lam", "method", "train_epsilon"]
    there = cells.loc[cells["paper_mean"].notna() & (cells["n"] > 0), keys].drop_duplicates()
    wanted = paper_numbers((table,))[keys].drop_duplicates().merge(there, on=keys, how="left", indicator=True)
    absent = wanted[wanted["_merge"] == "left_only"]
    names = [
        f"{network.model} lambda {network.lam:g}" + (f" at {network.train_epsilon:g}" if network.train_epsilon else "")
        for network in absent.itertuples(index=False)
    ]
    return [f"no run for {len(names)} of {len(wanted)} networks of {table}: {', '.join(names)}"] if names else []
