"""How large the inputs' gradients are, and how many vanish: an attack that follows a zero goes nowhere."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jl1.pictures.style import COLOURS, HALF_PAGE, drawing, percent

_BINS_A_DECADE = 8
_MOST_BINS = 60


def draw_gradient_norms(path: Path, *, norms: Mapping[str, np.ndarray], what: str) -> None:
    """Draw a histogram of norms on a logarithmic axis; exact zeros stand apart on the left.

    Args:
        path: The PNG.
        norms: One or a few series of norms, at least 0, by name.
        what: What they are norms of, for the axis.

    Raises:
        UserError: matplotlib is not installed.
    """
    edges = _edges(np.concatenate([np.asarray(values, np.float64) for values in norms.values()]))
    with drawing(path, width=HALF_PAGE, height=2.4) as figure:
        zeros, panel = figure.subplots(1, 2, sharey=True, width_ratios=(1.6, 6))
        for number, (name, values) in enumerate(norms.items()):
            _draw_series(zeros, panel, values, edges, number=number, total=len(norms), label=name)
        zeros.set_xticks([0.4], ["0"])
        zeros.set_xlim(-0.25, 1.05)
        zeros.grid(visible=False, axis="x")
        zeros.set_ylabel("share of the points")
        percent(zeros.yaxis)
        panel.set_xscale("log")
        panel.set_xlim(edges[0], edges[-1])
        panel.set_xlabel(what)
        if len(norms) > 1:
            figure.legend(*panel.get_legend_handles_labels(), loc="outside upper left", ncols=len(norms))


def _draw_series(
    zeros: Any, panel: Any, values: np.ndarray, edges: np.ndarray, *, number: int, total: int, label: str
) -> None:
    """Draw the bars of one series: its zeros, with their share, and the others."""
    colour, width = COLOURS[number % len(COLOURS)], 0.8 / total
    share = float(np.mean(values == 0))
    zeros.bar(number * width, share, width=0.9 * width, align="edge", color=colour)
    zeros.annotate(
        f"{100 * share:.3g} %",
        ((number + 0.45) * width, share),
        xytext=(0, 2),
        textcoords="offset points",
        ha="center",
        rotation="vertical" if total > 1 else "horizontal",  # side by side there is no room for them
        fontsize=6,
        color=colour,
    )
    shares = np.histogram(values[values > 0], edges)[0] / len(values)
    panel.stairs(shares, edges, color=colour, fill=True, alpha=0.25)
    panel.stairs(shares, edges, color=colour, linewidth=1.2, label=label)


def _edges(values: np.ndarray) -> np.ndarray:
    """Return bins of equal width on a logarithmic axis around all that is above 0."""
    positive = values[values > 0]
    if not len(positive):
        return np.array([0.1, 1.0, 10.0])
    low, high = np.floor(np.log10(positive.min()) * 2) / 2, np.ceil(np.log10(positive.max()) * 2 + 1e-9) / 2
    high = max(high, low + 0.5)
    return np.logspace(low, high, min(int((high - low) * _BINS_A_DECADE), _MOST_BINS) + 1)
