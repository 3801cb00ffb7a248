"""Attacks by name, each as the stages of an ensemble, and the order that their accuracies must have."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from jl1.attacks.apgd import apgd
from jl1.attacks.budgets import BUDGETS, Stage, find_budget
from jl1.attacks.fab import fab
from jl1.attacks.fgsm import fgsm
from jl1.attacks.noise import random_noise
from jl1.attacks.objectives import dlr, margin
from jl1.attacks.pgd import pgd

Suite = Mapping[str, Mapping[str, Stage]]
"""Stages of each attack, by the attack's name."""

_RANKS = {"noise": 0, "fgsm": 1, "pgd": 2, "pgd_margin": 2, "apgd_ce": 2, "apgd_dlr": 2, "standard": 3}


def make_suite(*, budget: str = "fast", pgd_steps: int = 100, pgd_restarts: int = 1) -> Suite:
    """Make every named attack, the weakest first; `ensemble.standard_attack` runs them.

    Args:
        budget: Strength of `standard` and of the attacks in it: a name in `budgets.BUDGETS`. An attack that the
            budget leaves out has its full strength.
        pgd_steps: Steps of a PGD restart, at least 1.
        pgd_restarts: Random restarts of PGD, at least 1.

    Returns:
        Stages by name; none for `clean`. Keep the object: equal ones compile anew.

    Raises:
        ValueError: An unknown budget.
    """
    ensemble = find_budget(budget)
    part = {**BUDGETS["full"], **ensemble}
    pgd_fn = partial(pgd, num_steps=pgd_steps)
    num_steps = strength(part["apgd_ce"])["num_steps"]
    single = {
        "noise": Stage(partial(random_noise, num_draws=100)),
        "fgsm": Stage(fgsm),
        "pgd": Stage(pgd_fn, num_restarts=pgd_restarts),
        "pgd_margin": Stage(partial(pgd_fn, loss_fn=margin), num_restarts=pgd_restarts),
        "apgd_ce": part["apgd_ce"],
        "apgd_dlr": Stage(partial(apgd, num_steps=num_steps, loss_fn=dlr)),
        "apgd_t": part["apgd_t"],
        "fab": Stage(partial(fab, num_steps=num_steps)),
        "fab_t": part["fab_t"],
        "square": part["square"],
    }
    return as_suite(single, ensemble)


def as_suite(single: Mapping[str, Stage], ensemble: Mapping[str, Stage]) -> Suite:
    """Put attacks of one stage between `clean`, which has none, and the ensemble."""
    return {"clean": {}} | {name: {name: stage} for name, stage in single.items()} | {"standard": ensemble}


def strength(stage: Stage) -> dict[str, Any]:
    """Return what a stage's attack is set by, as plain types: its numbers and the names of its losses.

    Example:
        >>> strength(make_suite(pgd_steps=7)["pgd_margin"]["pgd_margin"])
        {'num_steps': 7, 'loss_fn': 'margin', 'num_restarts': 1}
    """
    settings = getattr(stage.attack_fn, "keywords", {})
    plain = {name: getattr(value, "__name__", value) for name, value in settings.items()}
    rounds = {"num_targets": stage.num_targets, "num_restarts": stage.num_restarts}
    return plain | {name: number for name, number in rounds.items() if number}


def settings_of(stages: Mapping[str, Stage]) -> dict[str, Any]:
    """Return what an attack of a suite is set by: the budget of the ensemble, or the strength of its one stage.

    Example:
        >>> settings_of(make_suite(budget="full")["standard"])
        {'budget': 'full'}
    """
    for name, budget in BUDGETS.items():
        if stages is budget:
            return {"budget": name}
    return strength(next(iter(stages.values()))) if stages else {}


ATTACKS = tuple(make_suite())
"""Names of all attacks."""


def luck(num_examples: int) -> float:
    """Return how much more accuracy a stronger attack may leave by the luck of its random starts.

    Example:
        >>> luck(10_000), luck(100)  # 0.2 points; on few examples three halves of one
        (0.002, 0.015)
    """
    return max(0.002, 1.5 / num_examples)


def order_violations(accuracies: Mapping[str, float], *, num_examples: int) -> Sequence[tuple[str, str]]:
    """List the pairs (weaker, stronger) of attacks in which the stronger one leaves more accuracy.

    noise >= FGSM >= PGD and APGD >= standard is expected, up to `luck`. Where it fails, gradients are masked or
    an attack does not work.

    Args:
        accuracies: Accuracy by attack, all at one radius.
        num_examples: Of how many examples.

    Returns:
        Names of the pairs, none if the order holds.

    Example:
        >>> order_violations({"clean": 0.9, "noise": 0.9, "fgsm": 0.3, "pgd": 0.31}, num_examples=1000)
        [('fgsm', 'pgd')]
    """
    ranked = [name for name in accuracies if name in _RANKS]
    return [
        (weak, strong)
        for weak in ranked
        for strong in ranked
        if _RANKS[weak] < _RANKS[strong] and accuracies[strong] > accuracies[weak] + luck(num_examples)
    ]
