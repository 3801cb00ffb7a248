"""Files of JSON: read with words for people, written whole or not at all.

A .json file is written under a temporary name and then renamed, so it is there whole or not at all, whenever the
process is killed. To a .jsonl file a line is added at a time: a kill may leave half of one, which is not read.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jl1.errors import UserError

TEMPORARY = ".tmp"
"""End of the name of a file that is being written."""

_REMEDY = "Put a copy of it back, or move it away, and give the command again"


def read_json(path: Path, form: Any, *, schema: str | None = None) -> Any:
    """Read a JSON file, or return None if there is none.

    Args:
        path: The file.
        form: Of what is in it: a type, a list with the form of each entry, or an object with the forms of some fields.
        schema: What its field `schema` has to be, if it has one.

    Raises:
        UserError: The file cannot be read, is damaged, or of another schema or form.
    """
    text = _read_text(path)
    if text is None:
        return None
    try:
        content = json.loads(text)
    except ValueError as error:
        raise UserError(f"{path} is damaged: {error}. {_REMEDY}") from error
    if schema is not None and isinstance(content, dict) and content.get("schema", schema) != schema:
        raise UserError(
            f"{path} is left as it is: its schema is {content['schema']}, and this version reads {schema}; use the "
            "version of jl1 that wrote it, or another folder"
        )
    if wrong := misfit(content, form):
        raise UserError(f"{path} is damaged: {wrong}. {_REMEDY}")
    return content


def write_json(path: Path, value: Any) -> Path:
    """Write a JSON file, whole or not at all."""
    return write_text(path, json.dumps(value, indent=2) + "\n")


def write_text(path: Path, text: str) -> Path:
    """Write a file under a temporary name, then rename it."""
    temporary = path.with_name(path.name + TEMPORARY)
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    return path


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Read the whole lines of a file of JSON lines, each an object; without a file there are none.

    Raises:
        UserError: The file cannot be read or is damaged.
    """
    whole, _, _ = (_read_text(path) or "").rpartition("\n")
    try:
        rows = [json.loads(line) for line in whole.splitlines()]
    except ValueError as error:
        raise UserError(f"{path} is damaged: {error}. {_REMEDY}") from error
    if wrong := misfit(rows, [dict]):
        raise UserError(f"{path} is damaged: {wrong}. {_REMEDY}")
    return rows


def keep_lines(path: Path, num_lines: int) -> None:
    """Cut a file of JSON lines back to its first lines.

    Raises:
        UserError: The file cannot be read or is damaged.
    """
    lines = (_read_text(path) or "").splitlines(keepends=True)
    if len(lines) > num_lines:
        write_text(path, "".join(lines[:num_lines]))


def append_line(path: Path, row: dict[str, Any]) -> None:
    """Add a line of JSON to a file."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
        file.flush()
        os.fsync(file.fileno())


def misfit(value: Any, form: Any, name: str = "its content") -> str | None:
    """Say what in a JSON value has not the form that it should have, as for `read_json`, or None."""
    parts: Iterator[str | None] = iter(())
    if isinstance(form, dict) and isinstance(value, dict):
        if lacking := [key for key in form if key not in value]:
            return f"it has no {lacking[0]!r}"
        parts = (misfit(value[key], part, f"its {key!r}") for key, part in form.items())
    elif isinstance(form, list) and isinstance(value, list):
        parts = (misfit(each, form[0], f"an entry of {name}") for each in value)
    elif not isinstance(value, type(form) if isinstance(form, dict | list) else form):
        return f"{name} has another form"
    return next(filter(None, parts), None)


def _read_text(path: Path) -> str | None:
    """Read a file, or return None if there is none."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except NotADirectoryError as error:
        raise UserError(f"{path.parent} is not a folder") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is damaged: {error}. {_REMEDY}") from error
