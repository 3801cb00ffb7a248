"""What a table or a picture calls networks and measured accuracies."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from jl1.report.cells import MEASURE_COLUMNS
from jl1.report.frames import Frame, first_row
from jl1.report.run_settings import PENALTY_COLUMNS

Penalty = tuple[str, str, str]
"""Name, outputs and scale of a penalty."""

_ORDER = {"clean": 0, "noise": 1, "fgsm": 2, "pgd": 3, "pgd_margin": 4, "standard": 8, "worst_case": 9}
_OTHER_ATTACKS = 5
_OF_THE_LOSS = "loss_gradient_"
"""How the names of penalties begin that are of the loss, whatever the config says of outputs."""


def group_name(group: Frame, *, with_settings: bool = False) -> str:
    """Name what the networks of a group have in common.

    Args:
        group: Cells of one group.
        with_settings: Say which settings without a column they have, where there are several.
    """
    first = first_row(group)
    parts = [first["dataset"], f"model {first['model']}", training_name(first)]
    penalties = penalties_of(group)
    if len(penalties) == 1:
        parts.append(penalty_name(penalties[0]))
    elif penalties:
        common = [name for name in PENALTY_COLUMNS if name not in varying_penalty(group)]
        parts += [_first_penalised(group)[name] for name in common]
    if not has_several_points(group):
        parts.append(f"{first['num_examples']:,.0f} {first['points']} points")
    return ", ".join(parts) + (f", settings {first['settings'] or 'unknown'}" if with_settings else "")


def training_name(network: Mapping[str, Any]) -> str:
    """Name the adversarial training of a network."""
    if not network["method"]:
        return "no adversarial training"
    warmup = f" after a warm-up of {network['warmup_epochs']:g} epochs" if network["warmup_epochs"] else ""
    return f"{network['method']} at {network['train_epsilon']:g}{warmup}"


def measure_name(measure: Mapping[str, Any], *, with_points: bool = False, strengths: Iterable[str] = ()) -> str:
    """Name a measured accuracy.

    Args:
        measure: `cells.MEASURE_COLUMNS`.
        with_points: Say how many points of which kind it is on.
        strengths: Those of all that is named beside it: a worst case over many attacks names them all where another
            one is over as many.

    Example:
        >>> values = (0, 0.1, "linf", "pgd", "pgd-20", "true", "test", "standing", 1000)
        >>> measure_name(dict(zip(MEASURE_COLUMNS, values, strict=True)), with_points=True)
        'pgd-20 at 0.1 (standing) on 1,000 test points'
    """
    strength, others = measure["strength"], {*strengths} - {measure["strength"]}
    short = _short(strength)
    parts = [(strength if short in map(_short, others) else short) or measure["attack"]]
    if measure["attack"] != "clean":
        parts.append(f"at {measure['epsilon']:g}")
    if measure["labels"] != "true":
        parts.append(f"({measure['labels']} labels)")
    if measure["rule"] == "standing":
        parts.append("(standing)")
    if measure["at_epoch"]:
        parts.append(f"after epoch {measure['at_epoch']:g}")
    if with_points:
        parts.append(f"on {measure['num_examples']:,.0f} {measure['points']} points")
    return " ".join(parts)


def _short(strength: str) -> str:
    """Count the attacks of a worst case over more than two instead of naming them."""
    of, names = strength.partition(" of ")[0], strength.partition(" of ")[2].split(", ")
    return f"{of} of {len(names)} attacks" if len(names) > 2 else strength


def network_name(network: Mapping[str, Any], *, details: Sequence[str] = ()) -> str:
    """Name a network of a group by its lambda.

    Args:
        network: `run_settings.NETWORK_COLUMNS`.
        details: Columns of the penalty to name too, such as `varying_penalty` finds.

    Example:
        >>> network = {"penalty": "jacobian_l1", "outputs": "probs", "scale": "mean", "lam": 50.0}
        >>> network_name(network, details=["outputs"])
        'lambda 50, probs'
    """
    return ", ".join([f"lambda {network['lam']:g}", *(network[name] for name in details if network["lam"])])


def varying_penalty(networks: Frame) -> list[str]:
    """List the columns in which the penalties of some networks differ."""
    penalised = networks[networks["lam"] > 0]
    return [name for name in PENALTY_COLUMNS if penalised[name].nunique() > 1]


def penalty_name(penalty: Penalty) -> str:
    """Write a penalty with what it is of.

    Example:
        >>> penalty_name(("jacobian_l1", "probs", "mean")), penalty_name(("loss_gradient_l2", "probs", "sum"))
        ('jacobian_l1 of probs, mean', 'loss_gradient_l2, sum')
    """
    name, outputs, scale = penalty
    of = "" if name.startswith(_OF_THE_LOSS) else f" of {outputs}"
    return f"{name}{of}, {scale}"


def penalties_of(group: Frame) -> list[Penalty]:
    """List the penalties of a group, sorted."""
    return sorted(group.loc[group["lam"] > 0, [*PENALTY_COLUMNS]].drop_duplicates().itertuples(index=False, name=None))


def _first_penalised(group: Frame) -> Mapping[str, Any]:
    """Return a network with a penalty."""
    return first_row(group[group["lam"] > 0])


def has_several_points(group: Frame) -> bool:
    """Say whether the accuracies of a group are on different points, and must say so one by one."""
    return len(group[["points", "num_examples"]].drop_duplicates()) > 1


def measures_of(group: Frame) -> list[tuple[str, Frame]]:
    """Split a group by measure, the weakest attack first, and name each; the networks are sorted by lambda."""
    with_points = has_several_points(group)
    parts = [part for _, part in group.groupby([*MEASURE_COLUMNS], sort=True)]
    parts.sort(key=lambda part: measure_place(first_row(part)))
    order, strengths = ["lam", *PENALTY_COLUMNS], group["strength"].unique()
    return [
        (measure_name(first_row(part), with_points=with_points, strengths=strengths), part.sort_values(order))
        for part in parts
    ]


def measure_place(measure: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return what measures are sorted by: L-infinity first, the weakest attack first, by radius, true labels first."""
    rank = attack_rank(measure["attack"])
    return (measure["at_epoch"], measure["norm"] != "linf", rank, measure["epsilon"], measure["labels"] != "true")


def attack_rank(attack: str) -> int:
    """Return the place of an attack in a table, the weakest first."""
    return _ORDER.get(attack, _OTHER_ATTACKS)
