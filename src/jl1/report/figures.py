"""Pictures of many runs: accuracy over lambda, training curves, cost against accuracy. They need matplotlib."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jl1.report.cells import Cells
from jl1.report.choices import choose_for_cost
from jl1.report.cost_figure import draw_cost
from jl1.report.curve_figure import draw_curves, read_curves
from jl1.report.frames import Frame
from jl1.report.lambda_figure import draw_lambdas, lambda_panels
from jl1.report.run_settings import GROUP_COLUMNS

PICTURES = ("lambda.png", "curves.png", "cost-*.png")
"""Names of what `draw_all` writes."""


def draw_all(cells: Cells, rows: Frame, workdirs: Mapping[str, Path], folder: Path) -> tuple[list[Path], list[str]]:
    """Draw every picture that there are figures for.

    Args:
        cells: The table.
        rows: Tidy rows.
        workdirs: Folders of the runs, by the column `run`; curves come from these alone.
        folder: For the pictures.

    Returns:
        The files: lambda.png, curves.png, cost-DATASET.png; and what was left out of them.
    """
    made: dict[str, Any] = {}
    panels = lambda_panels(cells)
    if panels:
        made["lambda.png"] = draw_lambdas(panels)
    curves, notes = read_curves(rows, workdirs)
    if len(curves):
        made["curves.png"] = draw_curves([part for _, part in curves.groupby([*GROUP_COLUMNS], sort=True)])
    for dataset, part in cells.cells.groupby("dataset"):
        if part.loc[part["n"] > 0, "train_seconds"].gt(0).any() and choose_for_cost(part):
            made[f"cost-{dataset}.png"] = draw_cost(part, cells.values[cells.values["dataset"] == dataset])
    for name, figure in made.items():
        figure.savefig(folder / name, dpi=150)
    return [folder / name for name in made], notes
