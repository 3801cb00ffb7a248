"""What went wrong in a config file: the file, its line, and the field that it was about."""

import linecache
import re
import traceback
from pathlib import Path

from jl1.config import default_config
from jl1.configuration.fields import field_names, read_field, require_field
from jl1.errors import UserError

_DOTTED = re.compile(r"\w+\.(\w+(?:\.\w+)*)")
_MISSING = re.compile(r'Key "(\w+)" does not exist')
_OF_ANOTHER_TYPE = re.compile(r"\. (.*) is of original type", re.DOTALL)


def explain_failure(path: Path, error: Exception) -> str:
    """Say where and why a config file failed.

    Args:
        path: The file.
        error: What it raised.

    Returns:
        The file, its line, and what is wrong there.
    """
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if Path(frame.filename) == path.absolute()]
    line = own[-1].lineno if own else getattr(error, "lineno", None)
    where = f"{path} line {line}" if line else f"the config file {path}"
    if own and "ml_collections" in Path(frames[-1].filename).parts:
        problem = _problem_of_a_field(_source(own[-1]), str(error))
        if problem is not None:
            return f"{where}: {problem}"
    return f"{where} fails with {type(error).__name__}: {error}"


def _source(frame: traceback.FrameSummary) -> str:
    """Return the expression that failed, such as `config.penalty.lamda`."""
    columns = slice(frame.colno, frame.end_colno)  # in bytes
    return linecache.getline(frame.filename, frame.lineno or 0).encode()[columns].decode(errors="replace")


def _problem_of_a_field(source: str, refusal: str) -> str | None:
    """Say what is wrong with the field of an expression, or with the one that ml_collections refuses, if it is one."""
    dotted, missing = _DOTTED.fullmatch(source), _MISSING.search(refusal)
    field = dotted[1] if dotted else missing[1] if missing else ""
    config, given = default_config(), _OF_ANOTHER_TYPE.search(refusal)
    if dotted and given and field in field_names(config):
        return f"config.{field}={given[1]}: must be of the type of its default, {read_field(config, field)!r}"
    try:
        require_field(config, field)
    except UserError as error:
        return str(error) if field else None
    return None
