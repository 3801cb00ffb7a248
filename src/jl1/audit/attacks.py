"""The attacks of an audit, by name: a ladder from noise to the ensemble, and two that see other things."""

import inspect
from functools import partial
from typing import Any

from jl1.array_types import Inputs, LogitsFn
from jl1.attacks.ascent import pgd_last_point
from jl1.attacks.ensemble import BUDGETS, Stage
from jl1.attacks.noise import random_noise
from jl1.attacks.norms import NormName
from jl1.attacks.objectives import targeted_dlr
from jl1.attacks.suite import Suite, attack_by_fgsm, attack_by_pgd
from jl1.attacks.transfer import transfer


def make_audit_suite(budget: str, *, source_logits_fn: LogitsFn | None = None) -> Suite:
    """Make the attacks that `order.order_checks` compares, in L-infinity.

    Args:
        budget: Of the ensemble, a name in `attacks.ensemble.BUDGETS`; Square alone has as many queries.
        source_logits_fn: Another network, for `transfer`; without it there is none.

    Returns:
        Stages by name, the weakest first; none for `clean`. Keep the object: equal ones compile anew.

    Raises:
        KeyError: An unknown budget.

    Example:
        >>> list(make_audit_suite("fast"))
        ['clean', 'noise', 'fgsm', 'pgd', 'pgd_long', 'square', 'standard']
    """
    single = {
        "noise": Stage(partial(random_noise, num_draws=100)),
        "fgsm": Stage(attack_by_fgsm),
        "pgd": Stage(partial(attack_by_pgd, num_steps=40), num_restarts=1),
        "pgd_long": Stage(partial(attack_by_pgd, num_steps=100), num_restarts=10),
        "square": BUDGETS[budget]["square"],
    }
    if source_logits_fn is not None:
        single["transfer"] = Stage(transfer(_attack_by_last_point, source_logits_fn))
    return {"clean": {}} | {name: {name: stage} for name, stage in single.items()} | {"standard": BUDGETS[budget]}


def uses_targeted_dlr(suite: Suite) -> bool:
    """Tell whether an attack of a suite raises the targeted DLR, which not every number of classes allows.

    Example:
        >>> uses_targeted_dlr(make_audit_suite("fast")), uses_targeted_dlr(make_audit_suite("few_classes"))
        (True, False)
    """
    attacks = [stage.attack_fn for stages in suite.values() for stage in stages.values()]
    losses = [inspect.signature(attack_fn).parameters.get("loss_fn") for attack_fn in attacks]
    return any(loss is not None and loss.default is targeted_dlr for loss in losses)


def _attack_by_last_point(logits_fn: LogitsFn, inputs: Inputs, *, norm: NormName = "linf", **options: Any) -> Inputs:
    """Attack by 40 steps of PGD to the end: what only just deceives one network does not deceive another."""
    del norm  # L-infinity only
    return pgd_last_point(logits_fn, inputs, num_steps=40, **options)
