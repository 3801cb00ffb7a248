"""Config files by name or path, and configs as plain JSON types, as they are stored."""

import importlib.util
import inspect
import json
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from jl1.cli_flags import read_path
from jl1.config import Config, default_config
from jl1.configuration.failures import explain_failure
from jl1.configuration.fields import field_names, read_field, require_field
from jl1.configuration.folder import config_folder, config_names
from jl1.configuration.stored import differences, json_digest
from jl1.datasets.tiles import tiled_name
from jl1.errors import UserError, cannot_read, did_you_mean


def load_config(name: str) -> Config:
    """Load a config by name or file, as `--config` does. It runs the file.

    Args:
        name: A name in `folder.config_folder()` or the path of a .py file, each with an optional `:arg` that
            is passed to the file's `get_config`, such as `train:C`.

    Returns:
        The config, locked against new fields.

    Raises:
        UserError: No such name or file, or the file fails.

    Example:
        >>> load_config("train:B").model.name
        'B'
    """
    stem, _, arg = name.partition(":")
    with _explained(_find_config_file(stem)) as path:
        return _checked(path, _run_file(path).get_config(*([arg] if arg else [])))


def load_sweep(name: str) -> list[dict[str, Any]]:
    """Load what the file of a config sweeps over: the arguments of each `add` in its `sweep(add)`.

    Args:
        name: As for `load_config`; a `sweep(add, arg)` is given the `:arg` too.

    Returns:
        For each run the values of the fields that it sets, by their dotted names.

    Raises:
        UserError: No such name or file, the file fails, or it has no `sweep`.
    """
    stem, _, arg = name.partition(":")
    runs: list[dict[str, Any]] = []
    with _explained(_find_config_file(stem)) as path:
        sweep = getattr(_run_file(path), "sweep", None)
        if sweep is None:
            raise UserError(
                f"the config {stem} is one run: {path} has no sweep(add). Run it with `jl1 train --config={name}`, or "
                "write a sweep (docs/sweeps.md)"
            )
        takes_arg = len(inspect.signature(sweep).parameters) > 1
        sweep(lambda **fields: runs.append(fields), *([arg] if arg and takes_arg else []))
    return runs


def _checked(path: Path, config: Any) -> Config:
    """Refuse what is no config, or one of other fields than the defaults'."""
    if not isinstance(config, ConfigDict):
        raise UserError(
            f"{path}: get_config() returns {config!r:.60}, which is no config: start from "
            "jl1.config.default_config(), and return it (docs/configs.md)"
        )
    for name in field_names(config):
        try:
            require_field(default_config(), name)
        except UserError as error:
            raise UserError(f"{path}: {error}") from error
    missing = [name for name in field_names(default_config()) if name not in field_names(config)]
    if missing:
        raise UserError(f"{path}: the config lacks config.{missing[0]}: start from jl1.config.default_config()")
    return config.lock()


def _run_file(path: Path) -> Any:
    """Run a Python file and return it as a module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise UserError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not hasattr(module, "get_config"):
        raise UserError(f"{path} has no get_config(): docs/configs.md shows one")
    return module


@contextmanager
def _explained(path: Path) -> Iterator[Path]:
    """Say which config file failed, and how."""
    try:
        yield path
    except UserError:
        raise
    except Exception as error:
        raise UserError(explain_failure(path, error)) from error


def _find_config_file(stem: str) -> Path:
    """Find the file of a config, or say which there are."""
    path = read_path(stem) if stem.endswith(".py") else config_folder() / f"{stem}.py"
    try:
        if path.is_file():
            return path
    except OSError as error:
        raise cannot_read(f"--config={path}", error) from error
    known = config_names()
    hint = did_you_mean(stem, known)
    raise UserError(f"no config {stem!r}: give the path of a .py file, or one of {', '.join(known)}{hint}")


def config_to_dict(config: Config) -> dict[str, Any]:
    """Return the config as plain JSON types, the form that is stored and compared."""
    return json.loads(json.dumps(config.to_dict()))


def config_from_dict(stored: dict[str, Any]) -> Config:
    """Return the config of a stored run, with the defaults of fields that did not exist then.

    Raises:
        UserError: A field that this version does not know, or one of another type.
    """
    config = default_config()
    unknown = _unknown_fields(stored, config_to_dict(config))
    if unknown:
        raise UserError(
            f"the stored config has {', '.join(unknown)}, which this version of jl1 does not know: "
            "use the version that wrote it"
        )
    try:
        config.update(_with_tuples(stored))
    except (TypeError, ValueError, AttributeError) as error:
        raise UserError(f"the stored config does not fit this version of jl1: {error}") from error
    return config


def _unknown_fields(stored: dict[str, Any], known: dict[str, Any], prefix: str = "config") -> list[str]:
    """List the fields that are not known, by their dotted names."""
    found = []
    for key, value in stored.items():
        if key not in known:
            found.append(f"{prefix}.{key}")
        elif isinstance(value, dict) and isinstance(known[key], dict):
            found += _unknown_fields(value, known[key], f"{prefix}.{key}")
    return found


def with_whole_path(config: Config) -> Config:
    """Return the config with the path of its data whole, so that who reads it in another folder finds them too."""
    whole = deepcopy(config)
    if config.data.dir:
        whole.data.dir = str(read_path(config.data.dir).absolute())
    return whole


def run_name(config: Config) -> str:
    """Return a readable name for the run of this config, different for every config.

    The digest at its end covers the fields that differ from the defaults, so a later version's new fields change
    no name. It leaves out `data.dir`: where the data lie is no part of what a run is.

    Example:
        >>> run_name(default_config())[:-7]
        'mnist-C-jacobian_l1-probs-mean-lam50-seed0'
    """
    parts = [tiled_name(config.data.name, config.data.tiles), config.model.name]
    if config.penalty.lam > 0 and config.penalty.name != "none":
        parts += [
            config.penalty.name,
            config.penalty.outputs,
            config.penalty.scale,
            f"lam{config.penalty.lam:g}",
        ]
    else:
        parts.append("plain")
    if config.adversarial.epsilon > 0:
        method = {"twins": "fgsm"}.get(config.adversarial.method, config.adversarial.method)
        parts.append(f"{method}{config.adversarial.epsilon:g}")
    return "-".join([*parts, f"seed{config.seed}", json_digest(_changed(config))[:6]])


def _changed(config: Config) -> dict[str, Any]:
    """Return the fields that tell this run from that of the defaults, by their dotted names, as plain types."""
    defaults = default_config()
    names = [name for name in field_names(config) if name != "data.dir"]
    values = {name: read_field(config, name) for name in names}
    return {name: value for name, value in values.items() if value != read_field(defaults, name)}


def run_differences(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """List the fields in which the runs of two stored configs differ; one that is not stored has its default."""
    filled = [config_from_dict(stored) for stored in (one, other)]
    for config in filled:
        config.data.dir = None
    return differences(config_to_dict(filled[0]), config_to_dict(filled[1]))


def _with_tuples(stored: Any) -> Any:
    """Turn the lists of JSON back into the tuples of the config."""
    if isinstance(stored, dict):
        return {key: _with_tuples(value) for key, value in stored.items()}
    return tuple(stored) if isinstance(stored, list) else stored
