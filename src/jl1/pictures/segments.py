"""Eq. 2 on real segments: the change of every output against the bound, and against what the two ends suggest."""

from pathlib import Path
from typing import Any

import numpy as np

from jl1.pictures.style import COLOURS, HALF_PAGE, drawing

_ROUNDING = 1e-4
_SMALLEST = 1e-6
"""Of the largest value: where the logarithmic axes end."""


def draw_segment_norms(
    path: Path,
    *,
    change: np.ndarray,
    supremum: np.ndarray,
    at_start: np.ndarray,
    at_end: np.ndarray,
    radii: np.ndarray,
) -> None:
    """Draw |change| against radius * supremum, which Eq. 2 bounds it by, and against radius * the larger of the ends.

    Args:
        path: The PNG.
        change: Of every output, `[examples, outputs]`, as the other fields of `segments.SegmentNorms`.
        supremum: sup ||grad f_i||_1 on the segment.
        at_start: ||grad f_i||_1 at x.
        at_end: ||grad f_i||_1 at x'.
        radii: max_j |x'_j - x_j| of each segment, `[examples]`.

    Raises:
        UserError: matplotlib is not installed.
    """
    changes = np.abs(change).ravel()
    bounds = {
        "radius x supremum (Eq. 2)": radii[:, None] * supremum,
        "radius x larger of the ends": radii[:, None] * np.maximum(at_start, at_end),
    }
    top = 2 * max(float(np.max(values)) for values in (changes, *bounds.values())) or 2.0
    low, left = (max(_SMALLEST * top, each / 2) for each in (_smallest(changes), min(map(_smallest, bounds.values()))))
    with drawing(path, width=1.6 * HALF_PAGE, height=2.7) as figure:
        panels = figure.subplots(1, 2, sharex=True, sharey=True)
        for panel, (name, bound), colour in zip(panels, bounds.items(), COLOURS, strict=False):
            is_above = changes > bound.ravel() * (1 + _ROUNDING)
            dots = np.maximum(bound.ravel(), left), np.maximum(changes, low)
            panel.plot((min(low, left), top), (min(low, left), top), color="black", linewidth=0.8)
            _draw_dots(panel, *dots, is_above, colour)
            panel.set(xscale="log", yscale="log", xlim=(left, top), ylim=(low, top))
            panel.set_title(f"{np.sum(is_above):,} of {len(changes):,} above the line")
            panel.set_xlabel(name)
        panels[0].set_ylabel("abs(change) of an output")


def _draw_dots(panel: Any, bounds: np.ndarray, changes: np.ndarray, is_above: np.ndarray, colour: str) -> None:
    """Draw one dot an example and output; a cross where the change is larger."""
    below = ~is_above
    panel.scatter(bounds[below], changes[below], s=4, color=colour, alpha=0.35, linewidth=0, rasterized=True)
    panel.scatter(bounds[is_above], changes[is_above], s=9, color="black", marker="x", linewidth=0.7, rasterized=True)


def _smallest(values: np.ndarray) -> float:
    """Return the smallest value above 0, or 1."""
    smallest = float(np.min(values, where=values > 0, initial=np.inf))
    return smallest if np.isfinite(smallest) else 1.0
