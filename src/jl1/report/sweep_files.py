"""What a sweep lists in sweep.json, so that a table can say which of its runs are not there."""

import copy
from collections.abc import Mapping
from itertools import takewhile
from pathlib import Path
from typing import Any

from jl1 import records
from jl1.datasets.tiles import tiled_name


def expected_runs(folder: Path, configs: Mapping[str, dict[str, Any]]) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Return the configs of the runs that a sweep lists and that have no folder yet.

    Args:
        folder: Of the sweep; without sweep.json nothing is expected.
        configs: Of the runs that are there, by name. Of those that override no field that a missing run does not, the
            one with the most similar name stands in for what it does not override.

    Returns:
        Config by name, and the names of the runs that none can stand in for: none of the same data set
        and model that is set by no other fields.

    Raises:
        UserError: The file cannot be read, is damaged, or of another schema.
    """
    listed = {run["name"]: run["overrides"] for run in records.read_sweep(folder)}
    there = {name: configs[name] for name in listed if name in configs}
    missing = {name: _stand_in(name, listed, there) for name in listed if name not in configs}
    known = {name: config for name, config in missing.items() if config is not None}
    return known, [name for name in missing if name not in known]


def _stand_in(
    name: str, listed: Mapping[str, Mapping[str, Any]], there: Mapping[str, dict[str, Any]]
) -> dict[str, Any] | None:
    """Return the config of a missing run, made from that of the run with the most similar name."""
    fitting = [other for other in there if listed[other].keys() <= listed[name].keys()]
    similar = max(fitting, key=lambda other: _num_shared(name, other), default=None)
    if similar is None:
        return None
    config = _overridden(there[similar], listed[name])
    named = similar.startswith(_kind(there[similar]))  # as `jl1 sweep` names them: data set and model first
    return config if not named or name.startswith(_kind(config)) else None


def _num_shared(one: str, other: str) -> int:
    """Count the characters that two names begin with alike."""
    return len([*takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False))])


def _kind(config: Mapping[str, Any]) -> str:
    """Return how the names of runs of this data set and model begin."""
    data = config["data"]
    return f"{tiled_name(data['name'], data.get('tiles', 1))}-{config['model']['name']}-"


def _overridden(config: dict[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config with fields, by their dotted names, set to other values."""
    changed = copy.deepcopy(config)
    for name, value in overrides.items():
        *topics, field = name.split(".")
        topic = changed
        for part in topics:
            topic = topic[part]
        topic[field] = value
    return changed
