"""The budgets of the ensemble: which attacks it runs in which order, and their steps, targets and queries."""

from collections.abc import Mapping
from functools import partial
from typing import NamedTuple

from jl1.array_types import NormAttackFn
from jl1.attacks.apgd import apgd, apgd_targeted
from jl1.attacks.fab import fab
from jl1.attacks.objectives import targeted_margin
from jl1.attacks.square import square
from jl1.attacks.targets import TargetedAttackFn


class Stage(NamedTuple):
    """One attack of an ensemble.

    Attributes:
        attack_fn: The attack, called with `labels`, `epsilon`, `key`, `norm`, `lower` and `upper` by name, and with
            `targets` where there are any; bind the rest with `functools.partial`.
        num_targets: The closest rival classes that it tries one after another, each on the points still standing;
            0 for an untargeted attack.
        num_restarts: Random starts of an untargeted attack, one after another, each on the points still standing;
            0 where the attack has its own.
    """

    attack_fn: NormAttackFn | TargetedAttackFn
    num_targets: int = 0
    num_restarts: int = 0


_SQUARE = Stage(partial(square, num_queries=5000, schedule_queries=10_000))  # AutoAttack does not rescale the schedule

BUDGETS: Mapping[str, Mapping[str, Stage]] = {
    "full": {
        "apgd_ce": Stage(partial(apgd, num_steps=100)),
        "apgd_t": Stage(partial(apgd_targeted, num_steps=100), num_targets=9),
        "fab_t": Stage(partial(fab, num_steps=100), num_targets=9),
        "square": _SQUARE,
    },
    "few_classes": {
        "apgd_ce": Stage(partial(apgd, num_steps=100)),
        "apgd_t": Stage(partial(apgd_targeted, num_steps=100, loss_fn=targeted_margin), num_targets=9),
        "fab_t": Stage(partial(fab, num_steps=100), num_targets=9),
        "square": _SQUARE,
    },
    "fast": {
        "apgd_ce": Stage(partial(apgd, num_steps=40)),
        "apgd_t": Stage(partial(apgd_targeted, num_steps=40), num_targets=3),
        "square": Stage(partial(square, num_queries=200)),
    },
}
"""Stages by name. `full` is the published standard version; `few_classes` has the margin in place of the targeted DLR,
which needs four classes; `fast` is a first look with fewer steps, targets and queries and without FAB."""


def find_budget(name: str) -> Mapping[str, Stage]:
    """Look the stages of a budget up, or say which budgets there are."""
    if name not in BUDGETS:
        raise ValueError(f"unknown budget {name!r}; known are {', '.join(BUDGETS)}")
    return BUDGETS[name]
