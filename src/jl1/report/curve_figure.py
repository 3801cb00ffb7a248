"""Training curves from metrics.jsonl: validation accuracy and penalty by epoch, every seed and their mean."""

from typing import Any

import pandas as pd

from jl1 import records
from jl1.pictures.style import COLOURS
from jl1.report.columns import FINISHED
from jl1.report.drawing import LINES, dress, make_figure
from jl1.report.frames import Frame, as_mappings, first_row
from jl1.report.names import network_name, training_name, varying_penalty
from jl1.report.results import Results, reason
from jl1.report.run_settings import PENALTY_COLUMNS, SETTING_COLUMNS

_ACCURACY, _PENALTY = "validation_accuracy", "penalty_value"
_FIELDS = {"epoch": "epoch", "validation_accuracy": _ACCURACY, "penalty": _PENALTY}
"""Fields of metrics.jsonl and their columns here, where `penalty` is its name."""


def read_curves(results: Results) -> tuple[Frame, list[str]]:
    """Read the epochs of all finished runs that have a folder here.

    Args:
        results: Of the runs.

    Returns:
        A row an epoch: the settings, `seed`, `epoch`, `validation_accuracy`, `penalty_value`; and a note for each run
        that has none because its metrics.jsonl is damaged.
    """
    rows = results.rows[results.from_folder & (results.rows["status"] == FINISHED)]
    found, notes = [], []
    for run in as_mappings(rows.drop_duplicates("run")):
        try:
            metrics = records.read_metrics(results.workdirs[run["run"]])
            epochs = [{column: float(row[field]) for field, column in _FIELDS.items()} for row in metrics]
        except (ValueError, KeyError, TypeError, OSError) as error:
            file = results.workdirs[run["run"]] / "metrics.jsonl"
            notes.append(f"{file} is left out of curves.png: {reason(error).removeprefix(f'{file} is damaged: ')}")
            continue
        settings = {name: run[name] for name in (*SETTING_COLUMNS, "seed")}
        found += [settings | epoch for epoch in epochs]
    return pd.DataFrame(found, columns=[*SETTING_COLUMNS, "seed", *_FIELDS.values()]), notes


def draw_curves(groups: list[Frame]) -> Any:
    """Draw a row of two panels a group.

    Args:
        groups: Rows of `read_curves`, split by `run_settings.GROUP_COLUMNS`.
    """
    figure, grid = make_figure(len(groups), 2, (5.4, 3.6))
    for (left, right), group in zip(grid, groups, strict=True):
        first = first_row(group)
        title = f"{first['dataset']}, model {first['model']}, {training_name(first)}"
        _draw_group(left, group, _ACCURACY)
        dress(left, title=title, x="epoch", y="validation accuracy in %")
        left.legend(fontsize=7.5, loc="lower right", framealpha=0.9, edgecolor="none")
        penalised = group[group["lam"] > 0]
        right.set_visible(len(penalised) > 0)
        if len(penalised):
            _draw_group(right, group, _PENALTY)
            if (penalised[_PENALTY] > 0).all():
                right.set_yscale("log")
            dress(right, title="", x="epoch", y="penalty before lambda")
    return figure


def _draw_group(panel: Any, group: Frame, measure: str) -> None:
    """Draw the networks of a group, each in its colour, the penalty of those that have one."""
    panel.locator_params(axis="x", integer=True)
    details = varying_penalty(group)
    networks = [network for _, network in group.groupby(["lam", *PENALTY_COLUMNS], sort=True)]
    for index, network in enumerate(networks):
        if measure == _ACCURACY or network["lam"].iloc[0] > 0:
            name = network_name(first_row(network), details=details)
            style = {"color": COLOURS[index % len(COLOURS)], "linestyle": LINES[index // len(COLOURS) % len(LINES)]}
            _draw_network(panel, network, measure, name, style)


def _draw_network(panel: Any, network: Frame, measure: str, name: str, style: dict[str, str]) -> None:
    """Draw the seeds of a network thin, and their mean, as far as all of them go, thick."""
    curves = network.pivot_table(index="epoch", columns="seed", values=measure) * (100 if measure == _ACCURACY else 1)
    number = curves.shape[1]
    if number > 1:
        panel.plot(curves.index, curves.to_numpy(), linewidth=0.7, alpha=0.45, **style)
    mean = curves.dropna().mean(axis=1)
    panel.plot(mean.index, mean, linewidth=1.8, label=f"{name} ({number} run{'s' * (number > 1)})", **style)
