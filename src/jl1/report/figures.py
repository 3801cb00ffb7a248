"""Pictures of many runs: accuracy over lambda, training curves, cost against accuracy. They need matplotlib."""

from pathlib import Path
from typing import Any

from jl1.datasets.sources import IMAGE_SHAPES
from jl1.datasets.tiles import MOST_TILES, tiled_name
from jl1.report.cells import Cells
from jl1.report.choices import choose_for_cost
from jl1.report.cost_figure import draw_cost
from jl1.report.curve_figure import draw_curves, read_curves
from jl1.report.lambda_figure import draw_lambdas, lambda_panels
from jl1.report.results import Results
from jl1.report.run_settings import GROUP_COLUMNS

_DATASETS = [tiled_name(name, tiles) for name in IMAGE_SHAPES for tiles in range(1, MOST_TILES + 1)]

PICTURES = ("lambda.png", "curves.png", *(f"cost-{name}.png" for name in _DATASETS))
"""Names of what `draw_all` writes."""


def draw_all(cells: Cells, results: Results, folder: Path) -> tuple[list[Path], list[str]]:
    """Draw every picture that there are figures for.

    Args:
        cells: The table.
        results: What it was made from; curves come from the runs that have a folder here alone.
        folder: For the pictures.

    Returns:
        The files: lambda.png, curves.png, cost-DATASET.png; and what was left out of them.
    """
    made: dict[str, Any] = {}
    panels = lambda_panels(cells)
    if panels:
        made["lambda.png"] = draw_lambdas(panels)
    curves, notes = read_curves(results)
    if len(curves):
        made["curves.png"] = draw_curves([part for _, part in curves.groupby([*GROUP_COLUMNS], sort=True)])
    for dataset, part in cells.cells.groupby("dataset"):
        if part.loc[part["n"] > 0, "train_seconds"].gt(0).any() and choose_for_cost(part):
            made[f"cost-{dataset}.png"] = draw_cost(part, cells.values[cells.values["dataset"] == dataset])
    for name, figure in made.items():
        figure.savefig(folder / name, dpi=150)
    return [folder / name for name in made], notes
