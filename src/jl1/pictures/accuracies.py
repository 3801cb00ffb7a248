"""Accuracy against the radius, one line an attack, with the band that the choice of the points leaves open."""

from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any, NamedTuple

from jl1.pictures.style import COLOURS, HALF_PAGE, MARKERS, drawing, percent


class AccuracyCurve(NamedTuple):
    """The accuracy under one attack, one entry a radius.

    Attributes:
        epsilons: Radii, ascending.
        accuracies: Fractions.
        intervals: Their 95 % intervals (low, high), as `evaluation.accuracy_interval` gives them.
    """

    epsilons: Sequence[float]
    accuracies: Sequence[float]
    intervals: Sequence[tuple[float, float]]


def draw_accuracies(
    path: Path, *, attacked: Mapping[str, AccuracyCurve], certified: AccuracyCurve | None = None
) -> None:
    """Draw accuracies against epsilon.

    Args:
        path: The PNG.
        attacked: By the name of the attack.
        certified: What no attack can get below, dashed; None: nothing is drawn.

    Raises:
        UserError: matplotlib is not installed.
    """
    num_lines = len(attacked) + (certified is not None)
    with drawing(path, width=HALF_PAGE, height=2.3 + 0.16 * ((num_lines + 2) // 3)) as figure:
        panel = figure.subplots()
        for (name, curve), colour, marker in zip(attacked.items(), cycle(COLOURS[:-1]), cycle(MARKERS)):
            _draw_curve(panel, curve, label=name, color=colour, marker=marker)
        if certified is not None:
            _draw_curve(panel, certified, label="certified", color=COLOURS[-1], linestyle="--")
        panel.set_ylim(-0.02, 1.02)
        panel.set_xlabel("radius epsilon (L-infinity, inputs in [0, 1])")
        panel.set_ylabel("accuracy")
        percent(panel.yaxis)
        figure.legend(loc="outside lower left", ncols=3)


def _draw_curve(panel: Any, curve: AccuracyCurve, **style: Any) -> None:
    """Draw a line and its band."""
    low, high = zip(*curve.intervals, strict=True)
    panel.fill_between(curve.epsilons, low, high, color=style["color"], alpha=0.18, linewidth=0)
    panel.plot(curve.epsilons, curve.accuracies, **style)
