"""Fig. 1 of the paper drawn from trace.jsonl: Delta and the gradients at both ends, epoch by epoch."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jl1.pictures.style import COLOURS, HALF_PAGE, drawing, plain_log

_SIZES = {
    "abs(Delta) of the true class": (("change", "from x to x'", COLOURS[2], "-"),),
    "L1 norm of the gradient": (
        ("gradient_norm", "at x", COLOURS[0], "-"),
        ("twin_gradient_norm", "at x'", COLOURS[1], "--"),
    ),
}
"""Rows of the picture: title, and its fields of trace.jsonl with name, colour and style."""


def draw_trace(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Draw the traced points of a run: a thin line each, and their median as a thick one.

    Args:
        path: The PNG.
        rows: Lines of trace.jsonl, as `records.read_trace` returns them; at least one.

    Raises:
        UserError: matplotlib is not installed.
    """
    epochs = [row["epoch"] for row in rows]
    with drawing(path, width=1.5 * HALF_PAGE, height=3.6) as figure:
        panels = figure.subplots(2, 2, sharex=True)
        for column, outputs in zip(panels.T, ("logits", "probs"), strict=True):
            for panel, (title, fields) in zip(column, _SIZES.items(), strict=True):
                for field, name, colour, style in fields:
                    values = np.abs([row[outputs][field] for row in rows])
                    _draw_points(panel, epochs, values, label=name, color=colour, linestyle=style)
                panel.set_title(f"{title}, {outputs}")
                panel.set_yscale("log")
                shown = [row[outputs][field] for row in rows for field, *_ in fields]
                plain_log(panel.yaxis, np.abs(shown).ravel())
        handles = [handle for panel in panels[:, 0] for handle in panel.get_legend_handles_labels()[0]]
        figure.legend(handles, [handle.get_label() for handle in handles], loc="outside upper left", ncols=3)
        figure.supxlabel(
            f"epoch (median of {len(rows[0]['labels'])} points, and each; epsilon {rows[0]['epsilon']:g})", fontsize=8
        )
        panels[1, 0].xaxis.get_major_locator().set_params(integer=True)


def _draw_points(panel: Any, epochs: Sequence[int], values: np.ndarray, *, label: str, **style: Any) -> None:
    """Draw every point and the median, with dots where a line would have no length."""
    panel.plot(epochs, values, alpha=0.3, linewidth=0.6, **style)
    marker = "o" if len(epochs) == 1 else None
    panel.plot(epochs, np.median(values, axis=1), linewidth=1.6, label=label, marker=marker, **style)
