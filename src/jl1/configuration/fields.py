"""The fields of a config by their dotted names, such as `penalty.lam`."""

import difflib
from functools import reduce
from typing import Any

from ml_collections import ConfigDict

from jl1.errors import UserError


def read_field(config: Any, field: str) -> Any:
    """Look up a field of a config."""
    return reduce(lambda value, part: value[part], field.split("."), config)


def field_names(config: Any) -> list[str]:
    """List the fields of a config."""
    names = []
    for key, value in config.items():
        names += [f"{key}.{name}" for name in field_names(value)] if isinstance(value, ConfigDict) else [key]
    return names


def require_field(config: Any, field: str) -> None:
    """Refuse the name of a field that does not exist, with the nearest that does.

    Raises:
        UserError: There is no such field.
    """
    known = field_names(config)
    if field not in known:
        near = " or ".join(f"config.{name}" for name in _nearest(field, known))
        hint = f"did you mean {near}?" if near else "docs/configs.md lists them"
        raise UserError(f"there is no field config.{field}; {hint}")


def _nearest(field: str, known: list[str]) -> list[str]:
    """Return the nearest field, or those whose last part is nearest: `lam` is short for `penalty.lam`."""
    last_parts = [name.rpartition(".")[2] for name in known]
    near = difflib.get_close_matches(field.rpartition(".")[2], last_parts, n=1)
    return difflib.get_close_matches(field, known, n=1) or [
        name for name, last in zip(known, last_parts, strict=True) if [last] == near
    ]
