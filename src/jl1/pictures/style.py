"""What all pictures share: colours that stay apart for everyone, sizes that can be read at half a page's width."""

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jl1.atomic_files import write_atomically
from jl1.errors import UserError

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
"""Okabe and Ito's, which the colour-blind can tell apart."""

MARKERS = ("o", "s", "^", "D", "v", "P", "X")
"""Beside the colours, for a print in grey."""

MAP = "cividis"
"""From low to high, as light to everyone."""

HALF_PAGE = 3.5
"""Inches."""

_DPI = 220
_RC: dict[Any, Any] = {  # a type checker knows the names of the installed version alone
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.titlelocation": "left",
    "axes.labelsize": 8,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.5,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "lines.linewidth": 1.3,
    "lines.markersize": 3.5,
    "savefig.facecolor": "white",
}


NO_PICTURES = "no pictures: they need matplotlib (pip install '.[plots]' in jl1's checkout)"
"""What is said where `have_matplotlib` says no."""


def have_matplotlib() -> bool:
    """Say whether pictures can be drawn."""
    return importlib.util.find_spec("matplotlib") is not None


def require_matplotlib() -> None:
    """Refuse to begin what ends in pictures.

    Raises:
        UserError: matplotlib is not installed.
    """
    if not have_matplotlib():
        raise UserError(NO_PICTURES)


@contextmanager
def drawing(path: Path, *, width: float, height: float) -> Iterator[Any]:
    """Open a figure of a size in inches, and write it as a PNG when the block ends; nobody else's style changes.

    Yields:
        A matplotlib Figure that lays itself out.
    """
    require_matplotlib()
    import matplotlib as mpl  # optional, and slow to import
    from matplotlib.figure import Figure

    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_RC)
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure
        write_atomically(path, lambda file: figure.savefig(file, format="png", dpi=_DPI))


def percent(axis: Any) -> None:
    """Write the fractions of an axis as percentages."""
    axis.set_major_formatter(lambda value, _: f"{100 * value:g} %")


def plain_log(axis: Any, values: Any) -> None:
    """Write a logarithmic axis in plain numbers, with some between the powers of ten where those are few."""
    from matplotlib.ticker import LogLocator, NullFormatter

    positive = [value for value in values if value > 0]
    is_short = bool(positive) and max(positive) / min(positive) < 100
    axis.set_major_formatter(_plain_number)
    axis.set_minor_locator(LogLocator(subs=(2, 5)))
    axis.set_minor_formatter(_plain_number if is_short else NullFormatter())


def _plain_number(value: float, _: int) -> str:
    """Write a tick of a logarithmic axis."""
    return f"{value:g}"
