"""Seconds of training against accuracy, clean and under the strongest attacks, with the line that nothing beats."""

from typing import Any

from jl1.pictures.style import COLOURS, plain_log
from jl1.report.cells import MEASURE_COLUMNS
from jl1.report.choices import Choice, choose_for_cost
from jl1.report.drawing import MARKERS, dress, make_figure
from jl1.report.frames import Frame, as_mappings
from jl1.report.names import network_name, training_name, varying_penalty
from jl1.report.run_settings import SETTING_COLUMNS

_SIZE = (4.6, 3.8)
_LEGEND_LINE = 0.16  # inches


def draw_cost(cells: Frame, values: Frame) -> Any:
    """Draw a panel a measure: clean, and the strongest attack at some radii.

    Args:
        cells: Of all networks on one data set.
        values: The same, by seed.
    """
    choices = choose_for_cost(cells)
    networks = _networks(cells)
    figure, grid = make_figure(1, len(choices), (_SIZE[0], _SIZE[1] + _LEGEND_LINE * len(networks)))
    mixed = values.loc[values["machine"] != "", "machine"].nunique() > 1
    for panel, choice in zip(grid[0], choices, strict=True):
        _draw_choice(panel, choice, values, networks)
        x = "seconds of training" + (", on different machines" if mixed else "")
        dress(panel, title=f"{cells['dataset'].iloc[0]}: {choice.name}", x=x, y="accuracy in %")
    lines, names = grid[0][0].get_legend_handles_labels()
    figure.legend(lines, names, loc="outside lower left", fontsize=7.5, frameon=False, ncols=2)
    return figure


def pareto_front(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the points (cost, gain) that no other is both cheaper and better than, by cost.

    Example:
        >>> pareto_front([(3.0, 5.0), (1.0, 2.0), (2.0, 1.0), (4.0, 6.0)])
        [(1.0, 2.0), (3.0, 5.0), (4.0, 6.0)]
    """
    front: list[tuple[float, float]] = []
    for cost, gain in sorted(points, key=lambda point: (point[0], -point[1])):
        if not front or gain > front[-1][1]:
            front.append((cost, gain))
    return front


def _networks(cells: Frame) -> dict[tuple[Any, ...], str]:
    """Name every network that has a figure, by its settings."""
    there = cells[(cells["n"] > 0) & (cells["train_seconds"] > 0)].drop_duplicates([*SETTING_COLUMNS])
    details = varying_penalty(there)
    names = {}
    for network in as_mappings(there.sort_values(["model", "method", "train_epsilon", "lam", *SETTING_COLUMNS])):
        key = tuple(network[name] for name in SETTING_COLUMNS)
        names[key] = f"{network['model']}, {network_name(network, details=details)}, {training_name(network)}"
    return names


def _draw_choice(panel: Any, choice: Choice, values: Frame, networks: dict[tuple[Any, ...], str]) -> None:
    """Draw every network's mean and seeds under one measure, and the front."""
    seeds = values.merge(choice.cells[[*MEASURE_COLUMNS]].drop_duplicates(), on=[*MEASURE_COLUMNS])
    means = []
    for index, (key, name) in enumerate(networks.items()):
        own = seeds[(seeds[[*SETTING_COLUMNS]] == list(key)).all(axis=1) & (seeds["train_seconds"] > 0)]
        colour, marker = COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)]
        panel.scatter(own["train_seconds"], 100 * own["accuracy"], s=9, color=colour, alpha=0.45, linewidth=0)
        mean = (own["train_seconds"].mean(), 100 * own["accuracy"].mean())
        panel.plot(*mean, linestyle="", marker=marker, color=colour, label=name, markersize=7, markeredgecolor="white")
        if len(own):
            means.append(mean)
    panel.set_xscale("log")
    plain_log(panel.xaxis, seeds["train_seconds"])
    front = pareto_front(means)
    panel.plot(*zip(*front, strict=True), color="#999999", linewidth=1, drawstyle="steps-post", zorder=0)
