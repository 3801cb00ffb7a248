"""Which of the measured accuracies a picture shows: clean, FGSM, and the strongest attack at a radius; no L2."""

from collections.abc import Sequence
from typing import NamedTuple

from jl1.report.cells import MEASURE_COLUMNS, TRUE_LABELS
from jl1.report.frames import Frame, first_row
from jl1.report.names import attack_rank, has_several_points, measure_name
from jl1.report.run_settings import SETTING_COLUMNS

_PAPER_EPSILON = 0.3  # Sec. 4.1
_RADII_OVER_COST = 3


class Choice(NamedTuple):
    """A measured accuracy.

    Attributes:
        name: As in the tables.
        role: `clean`, `fgsm`, or `strongest`.
        epsilon: Radius.
        cells: Those of all networks that have it.
    """

    name: str
    role: str
    epsilon: float
    cells: Frame


def choose_for_lambda(cells: Frame) -> list[Choice]:
    """Choose what is drawn over lambda: clean, FGSM and the strongest attack at one radius, the strongest at a smaller.

    The radius is that of the training, else the paper's 0.3, else the largest.

    Args:
        cells: Of one group.

    Returns:
        Up to four, none twice.
    """
    cells = _in_linf(cells)
    if not len(cells):
        return []
    epsilons = _epsilons(cells)
    preferred = [radius for radius in (cells["train_epsilon"].iloc[0], _PAPER_EPSILON) if radius in epsilons]
    radius = (preferred or epsilons[-1:] or [0.0])[0]
    fgsm = cells[(cells["attack"] == "fgsm") & (cells["labels"] == TRUE_LABELS) & (cells["epsilon"] == radius)]
    choices = [
        _best_covered(cells[cells["attack"] == "clean"], "clean"),
        _best_covered(fgsm, "fgsm"),
        *(strongest(cells, epsilon) for epsilon in dict.fromkeys((radius, *_widest_epsilons(cells)[:1]))),
    ]
    found = [choice for choice in choices if choice is not None]
    return list({choice.name: choice for choice in reversed(found)}.values())[::-1]


def choose_for_cost(cells: Frame) -> list[Choice]:
    """Choose what is drawn over cost: clean, and the strongest attack at up to three radii.

    Args:
        cells: Of one data set; the radii are the smallest of those that most networks were attacked at.
    """
    cells = _in_linf(cells)
    choices = [
        _best_covered(cells[cells["attack"] == "clean"], "clean"),
        *(strongest(cells, epsilon) for epsilon in sorted(_widest_epsilons(cells)[:_RADII_OVER_COST])),
    ]
    return [choice for choice in choices if choice is not None]


def strongest(cells: Frame, epsilon: float) -> Choice | None:
    """Return the attack at a radius that leaves the least accuracy, among those that most networks stood under.

    Args:
        cells: Of any networks.
        epsilon: The radius.
    """
    attacked = cells[(cells["epsilon"] == epsilon) & (cells["attack"] != "clean")]
    parts = _measured(attacked)
    if not parts:
        return None
    most = max(_coverage(part) for part in parts)
    widest = [part for part in parts if _coverage(part) == most]
    part = min(widest, key=lambda part: (part["mean"].mean(), -attack_rank(part["attack"].iloc[0])))
    return _choice(part, "strongest", cells)


def _in_linf(cells: Frame) -> Frame:
    """Leave the attacks in other norms out: the radii of two norms cannot share a scale."""
    return cells[cells["norm"] == "linf"]


def _attacked(cells: Frame) -> Frame:
    """Return the cells under attack, at a radius, that have a figure, taken at the end of the training."""
    return cells[(cells["attack"] != "clean") & (cells["epsilon"] > 0) & (cells["n"] > 0) & (cells["at_epoch"] == 0)]


def _epsilons(cells: Frame) -> list[float]:
    """List the radii that there are figures at, sorted."""
    return sorted(set(_attacked(cells)["epsilon"].astype(float)))


def _widest_epsilons(cells: Frame) -> list[float]:
    """List the radii that most networks were attacked at, sorted."""
    attacked = _attacked(cells)
    covered = {epsilon: _coverage(attacked[attacked["epsilon"] == epsilon]) for epsilon in _epsilons(cells)}
    return [epsilon for epsilon, coverage in covered.items() if coverage == max(covered.values())]


def _best_covered(cells: Frame, role: str) -> Choice | None:
    """Return the measure that most networks have, on the most points."""
    parts = _measured(cells)
    if not parts:
        return None
    return _choice(max(parts, key=lambda part: (_coverage(part), part["num_examples"].iloc[0])), role, cells)


def _measured(cells: Frame) -> Sequence[Frame]:
    """Split the cells that have a figure, taken at the end of the training, by measure."""
    final = cells[(cells["n"] > 0) & (cells["at_epoch"] == 0)]
    return [part for _, part in final.groupby([*MEASURE_COLUMNS], sort=True)]


def _coverage(cells: Frame) -> int:
    """Count the networks."""
    return len(cells[[*SETTING_COLUMNS]].drop_duplicates())


def _choice(part: Frame, role: str, cells: Frame) -> Choice:
    """Name a measure."""
    points = has_several_points(cells)
    name = measure_name(first_row(part), with_points=points, strengths=cells["strength"].unique())
    return Choice(name, role, float(part["epsilon"].iloc[0]), part)
