"""What a sweep lists in sweep.json, so that a table can say which of its runs are not there."""

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

SCHEMA = "jl1.sweep/1"
"""Changes when a field of sweep.json changes its meaning or goes."""

_FILE = "sweep.json"


def expected_runs(folder: Path, configs: Mapping[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the configs of the runs that a sweep lists and that have no folder yet.

    Args:
        folder: Of the sweep; without sweep.json nothing is expected.
        configs: Of the runs that are there, by name. One of them stands in for what the sweep does not override.

    Returns:
        Config by name.

    Raises:
        ValueError: The file is damaged, of another schema, or no run of it is there.
        KeyError: It lacks a field.
    """
    path = folder / _FILE
    if not path.is_file():
        return {}
    sweep = json.loads(path.read_text())
    if sweep["schema"] != SCHEMA:
        raise ValueError(f"its schema is {sweep['schema']}, and this version reads {SCHEMA}")
    listed = {run["name"]: run["overrides"] for run in sweep["runs"]}
    template = next((configs[name] for name in listed if name in configs), None)
    if template is None:
        raise ValueError(f"none of its {len(listed)} runs is there")
    return {name: _overridden(template, fields) for name, fields in listed.items() if name not in configs}


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
