"""Cells laid out as tables: accuracies over lambda, the statistics behind each of them, the trends over lambda."""

from collections.abc import Iterator, Sequence
from typing import Any

from jl1.display.text_tables import Layout
from jl1.report.cells import TRUE_LABELS, Cells
from jl1.report.frames import Frame, as_mappings
from jl1.report.names import (
    group_name,
    has_several_points,
    measure_name,
    measure_place,
    measures_of,
    network_name,
    penalties_of,
    penalty_name,
    varying_penalty,
)
from jl1.report.notes import p_text
from jl1.report.run_settings import GROUP_COLUMNS, NETWORK_COLUMNS, PENALTY_COLUMNS

_STATISTICS = (
    *("accuracy in %", "network", "n", "mean +- std", "95 %", "minus lambda 0", "p", "paper", "minus paper", "SE"),
)
_ORDER = ["lam", *PENALTY_COLUMNS]


def lay_out(cells: Cells, trends: Frame) -> list[Layout]:
    """Write up to three tables a group of networks: the accuracies over lambda, their statistics, and the trends.

    Args:
        cells: Of `cells.make_cells`.
        trends: Of `trends.make_trends`.

    Returns:
        The tables, without FGSM on predicted labels. Without a second seed or a number of the paper there are no
        statistics, without three lambdas and a second seed no trends.
    """
    layouts, several = [], cells.cells["settings"].nunique() > 1
    of_group = {key: part for key, part in trends.groupby([*GROUP_COLUMNS])}
    shown = cells.cells[cells.cells["labels"] == TRUE_LABELS]
    for key, group in shown.groupby([*GROUP_COLUMNS], sort=True):
        name = group_name(group, with_settings=several)
        layouts.append(Layout(name, *_accuracies(group)))
        if group[["std", "paper_mean"]].notna().any(axis=None):
            layouts.append(Layout(f"{name}: statistics", *_statistics(group)))
        if key in of_group:
            layouts.append(Layout(f"{name}: trends over lambda", *_trends(group, of_group[key])))
    return layouts


def _accuracies(group: Frame) -> tuple[list[str], list[list[str]]]:
    """Write a line a measure and a column a network, the paper's numbers below jl1's."""
    networks = group.drop_duplicates([*NETWORK_COLUMNS]).sort_values(_ORDER)
    names = _network_names(networks)
    lines = [line for name, measure in measures_of(group) for line in _measure_lines(name, measure)]
    seconds = [f"{value:,.0f}" if value == value else "" for value in networks["train_seconds"]]  # NaN of no run
    return ["accuracy in %", *names], lines + ([["seconds of training", *seconds]] if any(seconds) else [])


def _measure_lines(name: str, measure: Frame) -> Iterator[list[str]]:
    """Yield jl1's line, and the paper's if it has a number."""
    yield [name, *map(_mean, as_mappings(measure))]
    if measure["paper_mean"].notna().any():
        tables = sorted({*measure["paper_table"]} - {""})
        yield [f"  paper, {' and '.join(tables)}", *(_paper(cell) or "-" for cell in as_mappings(measure))]


def _statistics(group: Frame) -> tuple[list[str], list[list[str]]]:
    """Write a line a cell; columns without a figure are left out."""
    lines = []
    for name, measure in measures_of(group):
        names = [name, *[""] * (len(measure) - 1)]
        for title, network, cell in zip(names, _network_names(measure), as_mappings(measure), strict=True):
            lines.append([title, network, *_figures(cell)])
    filled = [index for index in range(len(_STATISTICS)) if any(line[index] for line in lines)]
    return [_STATISTICS[index] for index in filled], [[line[index] for index in filled] for line in lines]


def _trends(group: Frame, trends: Frame) -> tuple[list[str], list[list[str]]]:
    """Write a line a measure, and penalty if there are several, the weakest attack first."""
    with_points, several = has_several_points(group), len(penalties_of(group)) > 1
    lines = []
    for found in sorted(as_mappings(trends), key=measure_place):
        penalty = [penalty_name((found["penalty"], found["outputs"], found["scale"]))] if several else []
        figures = [_signed(found["tau"]), p_text(found["p_holm"]), f"{found['num_runs']}"]
        name = measure_name(found, with_points=with_points, strengths=group["strength"].unique())
        lines.append([name, *penalty, *figures])
    return ["accuracy in %", *(["penalty"] if several else []), "tau", "p", "runs"], lines


def _network_names(networks: Frame) -> list[str]:
    """Name the networks of a group."""
    details = varying_penalty(networks)
    return [network_name(network, details=details) for network in as_mappings(networks)]


def _figures(cell: dict[str, Any]) -> Sequence[str]:
    """Write all that is known of a cell."""
    return (
        _number(cell),
        _spread(cell["mean"], cell["std"]) if cell["n"] else "missing",
        f"{100 * max(cell['low'], 0):.2f} to {100 * min(cell['high'], 1):.2f}" if cell["n"] > 1 else "",
        _signed(100 * cell["minus_baseline"]),
        p_text(cell["p_holm"]) if cell["p_holm"] == cell["p_holm"] else "",
        _paper(cell),
        _signed(100 * cell["minus_paper"]),
        _signed(cell["in_standard_errors"], digits=1),
    )


def _mean(cell: dict[str, Any]) -> str:
    """Write mean +- standard deviation with the number of seeds."""
    if not cell["n"]:
        return f"missing ({_number(cell)})"
    return f"{_spread(cell['mean'], cell['std'])} ({_number(cell)})"


def _paper(cell: dict[str, Any]) -> str:
    """Write the paper's mean +- standard deviation, or nothing."""
    return _spread(cell["paper_mean"], cell["paper_std"]) if cell["paper_mean"] == cell["paper_mean"] else ""


def _number(cell: dict[str, Any]) -> str:
    """Write how many seeds there are, and of how many if some are missing."""
    there, expected = cell["n"], cell["num_expected"]
    return f"n={there:.0f}" if there == expected else f"{there:.0f}/{expected:.0f}"


def _spread(mean: float, std: float) -> str:
    """Write a mean in percent, and its standard deviation, which one seed does not have."""
    return f"{100 * mean:.2f}" + (f" +- {100 * std:.2f}" if std == std else "")


def _signed(value: float, *, digits: int = 2) -> str:
    """Write a number with its sign, or nothing for NaN."""
    return f"{value:+.{digits}f}" if value == value else ""
