"""A sheet of adversarial images: the point, what the attack made of it, and what it added."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jl1.pictures.style import COLOURS, HALF_PAGE, drawing

_ROWS = ("clean", "attacked", "difference")


def draw_adversarial_images(
    path: Path,
    *,
    clean: np.ndarray,
    adversarial: np.ndarray,
    labels: np.ndarray,
    predicted: np.ndarray,
    adversarial_predicted: np.ndarray,
    class_names: Sequence[str] | None = None,
) -> None:
    """Draw one column an example, with its decisions above the images: the wrong ones have another colour.

    Args:
        path: The PNG.
        clean: Points in [0, 1], `[n, height, width, channels]` with 1 or 3 channels; eight are readable.
        adversarial: What the attack made of them.
        labels: True classes.
        predicted: Decisions on the points.
        adversarial_predicted: Decisions on what the attack made of them.
        class_names: Names by class; None: numbers.

    Raises:
        UserError: matplotlib is not installed.
    """
    names = class_names or [
        str(number) for number in range(1 + max(map(np.max, (labels, predicted, adversarial_predicted))))
    ]
    scale = max(float(np.max(np.abs(adversarial - clean))), 1e-12)
    with drawing(path, width=max(HALF_PAGE, 0.6 + 0.62 * len(clean)), height=2.15) as figure:
        panels = figure.subplots(3, len(clean), squeeze=False)
        for column, points, attacked, *classes in zip(
            panels.T, clean, adversarial, labels, predicted, adversarial_predicted, strict=True
        ):
            label, *decisions = (int(each) for each in classes)
            for panel, image, decision in zip(column, (points, attacked), decisions, strict=False):
                _draw_image(panel, image, cmap="gray", vmin=0, vmax=1)
                _write_decision(panel, names[decision], is_right=decision == label)
            _draw_difference(column[2], attacked - points, scale)
        for panel, name in zip(panels[:, 0], _ROWS, strict=True):
            panel.set_ylabel(name)
        if clean.shape[-1] == 1:
            bar = figure.colorbar(panels[2, 0].images[0], ax=panels[2], aspect=8, ticks=[-scale, 0, scale])
            bar.ax.yaxis.set_major_formatter(lambda value, _: f"{value:.2g}")


def _draw_image(panel: Any, image: np.ndarray, **options: Any) -> None:
    """Draw one image, grey if it has one channel."""
    panel.set_xticks([])
    panel.set_yticks([])
    panel.spines[["top", "right"]].set_visible(True)
    panel.imshow(image.squeeze(-1) if image.shape[-1] == 1 else image, interpolation="nearest", **options)


def _draw_difference(panel: Any, difference: np.ndarray, scale: float) -> None:
    """Draw what was added: no change is white, or grey where there are colours."""
    if difference.shape[-1] == 1:
        _draw_image(panel, difference, cmap="PuOr", vmin=-scale, vmax=scale)
    else:
        _draw_image(panel, np.clip(0.5 + difference / (2 * scale), 0, 1))


def _write_decision(panel: Any, name: str, *, is_right: bool) -> None:
    """Write a decision above an image."""
    colour = COLOURS[0] if is_right else COLOURS[1]
    panel.set_title(name if is_right else f"{name} ✗", color=colour, loc="center", pad=2, fontsize=7)
