"""The settings of a run as the columns of a table, and what is left of its config as one digest."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jl1.configuration.stored import json_digest
from jl1.datasets.tiles import tiled_name

GROUP_COLUMNS = ("dataset", "model", "method", "train_epsilon", "warmup_epochs", "settings")
"""What networks have in common that are set side by side: all but the penalty and the seed."""

PENALTY_COLUMNS = ("penalty", "outputs", "scale")
"""What a penalty is told from another by, but for lambda."""

NETWORK_COLUMNS = (*PENALTY_COLUMNS, "lam")
"""What is compared within a group."""

SETTING_COLUMNS = (*GROUP_COLUMNS, *NETWORK_COLUMNS)
"""What one network is told from another by, but for the seed."""

_SHOWN = {
    *("data.name", "data.tiles", "data.dir", "model.name", "seed", "seeds", "log", "evaluation", "penalty"),
    *("adversarial.method", "adversarial.epsilon", "adversarial.warmup_epochs", "adversarial.num_steps"),
    *("model.convolution",),  # the same numbers up to rounding
}
"""Fields, or topics, that have columns of their own or change no figure."""


def run_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the columns of a stored config; without a penalty or an attack what would set it is empty.

    Args:
        config: As in result.json; fields of later versions may be missing.

    Returns:
        `SETTING_COLUMNS` without `settings`, and `seed` with the seeds that are set by themselves.

    Raises:
        KeyError: A field that every version has is missing.

    Example:
        >>> run_settings({
        ...     "seed": 3, "data": {"name": "mnist"}, "model": {"name": "C"}, "adversarial": {"epsilon": 0.0},
        ...     "penalty": {"name": "jacobian_l1", "outputs": "probs", "scale": "mean", "lam": 50.0}})["penalty"]
        'jacobian_l1'
    """
    penalty, attack = config["penalty"], config["adversarial"]
    penalised = penalty["lam"] > 0 and penalty["name"] != "none"
    attacked = attack["epsilon"] > 0
    seeds = [f"{name} {seed}" for name, seed in config.get("seeds", {}).items() if seed is not None]
    return {
        "dataset": tiled_name(config["data"]["name"], config["data"].get("tiles", 1)),
        "model": config["model"]["name"],
        "method": _method(attack) if attacked else "",
        "train_epsilon": attack["epsilon"],
        "warmup_epochs": float(attack.get("warmup_epochs", 0)) if attacked else 0.0,
        "penalty": _penalty(penalty) if penalised else "none",
        "outputs": penalty["outputs"] if penalised else "",
        "scale": penalty["scale"] if penalised else "",
        "lam": penalty["lam"] if penalised else 0.0,
        "seed": ", ".join([str(config["seed"]), *seeds]),
    }


def settings_digests(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Hash of each config what has no column, so that runs are taken together only if no setting tells them apart.

    A field that an older version did not have is taken as the others', if they agree on it. Whether the older run was
    made that way its config does not say: `filled_fields` names such fields.

    Args:
        configs: Stored configs of all runs of a table.

    Returns:
        Eight hexadecimal digits a config.
    """
    flat = [dict(_rest(config)) for config in configs]
    agreed = _agreed(flat)
    return [json_digest(agreed | fields)[:8] for fields in flat]


def filled_fields(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Say what `settings_digests` takes some configs to have that lack it, as `field = value (1 of 2 runs)`."""
    flat = [dict(_rest(config)) for config in configs]
    filled = [(name, value, sum(name not in fields for fields in flat)) for name, value in _agreed(flat).items()]
    return [f"{name} = {value} ({number} of {len(flat)} runs)" for name, value, number in sorted(filled) if number]


def _agreed(configs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the fields that have one value in all the configs that have them."""
    values: dict[str, list[Any]] = {}
    for fields in configs:
        for name, value in fields.items():
            if value not in values.setdefault(name, []):
                values[name].append(value)
    return {name: found[0] for name, found in values.items() if len(found) == 1}


def differing_fields(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Say in which fields without a column two configs differ, as `field: one -> other`."""
    mine, theirs = dict(_rest(one)), dict(_rest(other))
    names = [name for name in sorted({*mine, *theirs}) if mine.get(name) != theirs.get(name)]
    return [f"{name}: {mine.get(name)} -> {theirs.get(name)}" for name in names]


def _rest(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the fields without a column under their dotted names."""
    for key, value in config.items():
        name = prefix + key
        if name in _SHOWN:
            continue
        if isinstance(value, Mapping):
            yield from _rest(value, f"{name}.")
        else:
            yield name, value


def _method(attack: Mapping[str, Any]) -> str:
    """Name the way of robust training with its steps; the oldest runs know the twins only."""
    method = attack.get("method", "twins")
    return method if method == "twins" else f"{method}-{attack['num_steps']}"


def _penalty(penalty: Mapping[str, Any]) -> str:
    """Name a penalty, with what it is estimated from."""
    draws, every = penalty.get("num_draws", 1), penalty.get("every", 1)
    return penalty["name"] + (f" x {draws}" if draws > 1 else "") + (f" every {every}" if every > 1 else "")
