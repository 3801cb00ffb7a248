"""Accuracy over lambda: clean, FGSM and the strongest attack, every seed, the paper's numbers beside them."""

from typing import Any, NamedTuple

from jl1.report.cells import MEASURE_COLUMNS, Cells
from jl1.report.choices import Choice, choose_for_lambda
from jl1.report.drawing import ROLES, SECOND, dress, make_figure
from jl1.report.frames import Frame
from jl1.report.names import group_name, penalties_of
from jl1.report.run_settings import GROUP_COLUMNS, PENALTY_COLUMNS

_COLUMNS = 3
_NAME_WIDTH = 32  # characters of a name in a legend of two columns
_OFFSET = 0.022  # of the panel's width: the paper's numbers stand to the right of the means, the seeds to the left


class Panel(NamedTuple):
    """One penalty of one group.

    Attributes:
        title: The panel's.
        cells: Of the networks with this penalty, and without any.
        values: The same, by seed.
    """

    title: str
    cells: Frame
    values: Frame


def lambda_panels(cells: Cells) -> list[Panel]:
    """Return what there is to draw: each penalty of each group that has two lambdas or more, 0 among them."""
    values = {key: part for key, part in cells.values.groupby([*GROUP_COLUMNS])}
    panels, several = [], cells.cells["settings"].nunique() > 1
    for key, group in cells.cells.groupby([*GROUP_COLUMNS], sort=True):
        for penalty in penalties_of(group):
            chosen = _with_penalty(group, penalty)
            if chosen.loc[chosen["n"] > 0, "lam"].nunique() > 1 and choose_for_lambda(chosen):
                title = group_name(chosen, with_settings=several)
                panels.append(Panel(title, chosen, _with_penalty(values[key], penalty)))
    return panels


def draw_lambdas(panels: list[Panel]) -> Any:
    """Draw the panels in a grid."""
    num_columns = min(len(panels), _COLUMNS)
    figure, grid = make_figure(-(-len(panels) // num_columns), num_columns, (5.2, 4.4))
    for position, axes in enumerate(grid.flat):
        if position < len(panels):
            _draw_panel(axes, panels[position])
        else:
            axes.set_visible(False)
    return figure


def _with_penalty(frame: Frame, penalty: tuple[str, str, str]) -> Frame:
    """Return the rows with one penalty, and those without any."""
    same = (frame[[*PENALTY_COLUMNS]] == list(penalty)).all(axis=1)
    return frame[same | (frame["lam"] == 0)]


def _draw_panel(axes: Any, panel: Panel) -> None:
    """Draw one panel; the lambdas stand at equal steps."""
    lambdas = sorted(set(panel.cells["lam"]))
    place = {lam: float(index) for index, lam in enumerate(lambdas)}
    radii = []
    for choice in choose_for_lambda(panel.cells):
        style = ROLES[choice.role]
        if choice.role == "strongest":
            radii.append(choice.epsilon)
            style = SECOND if len(radii) > 1 else style
        _draw_choice(axes, choice, panel.values, place, style)
    axes.set_xticks(range(len(lambdas)), [f"{lam:g}" for lam in lambdas])
    axes.set_xlim(-0.5, len(lambdas) - 0.5)
    axes.set_ylim(-3, 103)
    dress(axes, title=panel.title, x="lambda", y="accuracy in %")
    names = axes.get_legend_handles_labels()[1]
    ncols = 2 if max(map(len, names), default=0) <= _NAME_WIDTH else 1  # two long ones are wider than the panel
    axes.legend(fontsize=7.5, ncols=ncols, loc="upper center", bbox_to_anchor=(0.5, -0.16), frameon=False)


def _draw_choice(axes: Any, choice: Choice, values: Frame, place: dict[float, float], style: tuple[str, str]) -> None:
    """Draw the means of one measure, its seeds, and the paper's numbers."""
    colour, marker = style
    cells, offset = choice.cells.sort_values("lam"), _OFFSET * len(place)
    axes.plot(
        cells["lam"].map(place), 100 * cells["mean"], marker=marker, color=colour, label=choice.name, markersize=5
    )
    seeds = values.merge(cells[[*MEASURE_COLUMNS]].drop_duplicates(), on=[*MEASURE_COLUMNS])
    where = seeds["lam"].map(place) - offset
    axes.scatter(where, 100 * seeds["accuracy"], s=10, color=colour, alpha=0.45, linewidth=0)
    paper = cells[cells["paper_mean"].notna()]
    if len(paper):
        axes.errorbar(
            paper["lam"].map(place) + offset,
            100 * paper["paper_mean"],
            yerr=100 * paper["paper_std"],
            fmt=marker,
            color=colour,
            markerfacecolor="white",
            markersize=5,
            elinewidth=1,
            capsize=2,
            label=f"{choice.name}, the paper's",
        )
