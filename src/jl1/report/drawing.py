"""What all pictures have in common: what is measured in what colour, and plain panels."""

import textwrap
from typing import Any

ROLES = {"clean": ("#000000", "o"), "fgsm": ("#E69F00", "s"), "strongest": ("#0072B2", "^")}
"""Colour and marker of what is measured."""

SECOND = ("#009E73", "v")
"""Of the strongest attack at a second radius."""

MARKERS = ("o", "s", "^", "v", "D", "<")
"""Of networks; one fewer than there are colours, so that forty-two can be told apart."""

LINES = ("-", "--", ":")
"""Of networks, where the colours are used up."""

_TITLE_WIDTH = 54  # characters of the title of a panel


def make_figure(num_rows: int, num_columns: int, size: tuple[float, float]) -> tuple[Any, Any]:
    """Make a figure with a grid of panels, each of a size in inches."""
    from matplotlib.figure import Figure  # optional, and slow to import

    figure = Figure(figsize=(size[0] * num_columns, size[1] * num_rows), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.08, h_pad=0.08, wspace=0.04, hspace=0.06)  # type: ignore[union-attr]
    return figure, figure.subplots(num_rows, num_columns, squeeze=False)


def dress(panel: Any, *, title: str, x: str, y: str) -> None:
    """Give a panel its words, and take what says nothing."""
    panel.set_title(textwrap.fill(title, _TITLE_WIDTH), loc="left", fontsize=9)
    panel.set_xlabel(x, fontsize=9)
    panel.set_ylabel(y, fontsize=9)
    panel.tick_params(labelsize=8, which="both")
    panel.grid(axis="y", color="#dddddd", linewidth=0.6)
    panel.set_axisbelow(True)
    panel.spines[["top", "right"]].set_visible(False)
