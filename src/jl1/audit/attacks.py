"""The attacks of an audit, by name: a ladder from noise to the ensemble, and two that see other things."""

import inspect
from functools import partial

from jl1.array_types import LogitsFn
from jl1.attacks.ascent import pgd_last_point
from jl1.attacks.budgets import Stage, find_budget
from jl1.attacks.fgsm import fgsm
from jl1.attacks.noise import random_noise
from jl1.attacks.objectives import targeted_dlr
from jl1.attacks.pgd import pgd
from jl1.attacks.suite import Suite, as_suite
from jl1.attacks.transfer import transfer


def make_audit_suite(budget: str, *, source_logits_fn: LogitsFn | None = None) -> Suite:
    """Make the attacks that `order.order_checks` compares.

    Args:
        budget: Of the ensemble, a name in `attacks.budgets.BUDGETS`; Square alone has as many queries.
        source_logits_fn: Another network, for `transfer`; without it there is none.

    Returns:
        Stages by name, the weakest first; none for `clean`. Keep the object: equal ones compile anew.

    Raises:
        ValueError: An unknown budget.

    Example:
        >>> list(make_audit_suite("fast"))
        ['clean', 'noise', 'fgsm', 'pgd', 'pgd_long', 'square', 'standard']
    """
    ensemble = find_budget(budget)
    single = {
        "noise": Stage(partial(random_noise, num_draws=100)),
        "fgsm": Stage(fgsm),
        "pgd": Stage(partial(pgd, num_steps=40), num_restarts=1),
        "pgd_long": Stage(partial(pgd, num_steps=100), num_restarts=10),
        "square": ensemble["square"],
    }
    if source_logits_fn is not None:
        # 40 steps to the end: what only just deceives one network does not deceive another
        single["transfer"] = Stage(transfer(partial(pgd_last_point, num_steps=40), source_logits_fn))
    return as_suite(single, ensemble)


def uses_targeted_dlr(suite: Suite) -> bool:
    """Tell whether an attack of a suite raises the targeted DLR, which not every number of classes allows.

    Example:
        >>> uses_targeted_dlr(make_audit_suite("fast")), uses_targeted_dlr(make_audit_suite("few_classes"))
        (True, False)
    """
    attacks = [stage.attack_fn for stages in suite.values() for stage in stages.values()]
    losses = [inspect.signature(attack_fn).parameters.get("loss_fn") for attack_fn in attacks]
    return any(loss is not None and loss.default is targeted_dlr for loss in losses)
