"""The loss around a few points: the plane of the FGSM direction and a random one, and its two axes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jl1.pictures.style import COLOURS, HALF_PAGE, MAP, drawing


def draw_loss_surfaces(
    path: Path, *, offsets: np.ndarray, losses: np.ndarray, margins: np.ndarray, titles: Sequence[str]
) -> None:
    """Draw `loss_surfaces.LossSurfaces`, one column an example; the white line is where the decision changes.

    Args:
        path: The PNG.
        offsets: Along both directions, `[n]`.
        losses: `[examples, n, n]`, the first of the two along FGSM.
        margins: The same; above 0 where the example is misclassified.
        titles: One an example, short.

    Raises:
        UserError: matplotlib is not installed.
    """
    num_examples = len(losses)
    with drawing(path, width=max(HALF_PAGE, 0.9 + 1.35 * num_examples), height=3.3) as figure:
        panels = figure.subplots(2, num_examples, squeeze=False, sharey="row", sharex=True)
        scale = {"vmin": 0.0, "vmax": max(float(np.max(losses)), 1e-12)}
        for index, (plane, profile) in enumerate(panels.T):
            _draw_plane(plane, offsets, losses[index], margins[index], scale)
            plane.set_title(titles[index])
            _draw_profiles(profile, offsets, losses[index])
        panels[0, 0].set_ylabel("along random signs")
        panels[1, 0].set_ylabel("loss")
        figure.supxlabel("offset from the point (upper row: along FGSM)", fontsize=8)
        figure.colorbar(panels[0, 0].collections[0], ax=panels, label="loss", shrink=0.4, aspect=10, anchor=(0.0, 1.0))
        lines, names = panels[1, 0].get_legend_handles_labels()
        figure.legend(lines, names, loc="outside upper left", ncols=3)


def _draw_plane(
    panel: Any, offsets: np.ndarray, losses: np.ndarray, margins: np.ndarray, scale: dict[str, float]
) -> None:
    """Draw one plane from above, with the border of the class."""
    panel.pcolormesh(offsets, offsets, losses.T, cmap=MAP, shading="nearest", rasterized=True, **scale)
    if np.min(margins) < 0 < np.max(margins):
        panel.contour(offsets, offsets, margins.T, levels=[0.0], colors="black", linewidths=2.0)
        panel.contour(offsets, offsets, margins.T, levels=[0.0], colors="white", linewidths=1.0)
    panel.plot(0, 0, marker="+", color="white", markersize=6, markeredgewidth=1.2)
    panel.set_box_aspect(1)
    panel.grid(visible=False)


def _draw_profiles(panel: Any, offsets: np.ndarray, losses: np.ndarray) -> None:
    """Draw the two lines through the point."""
    middle = len(offsets) // 2
    panel.plot(offsets, losses[:, middle], color=COLOURS[1], label="along FGSM")
    panel.plot(offsets, losses[middle], color=COLOURS[0], linestyle="--", label="along random signs")
    panel.axvline(0, color="#888888", linewidth=0.6)
    panel.set_box_aspect(1)
