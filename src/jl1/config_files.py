"""Config files by name or path, and configs as plain JSON types, as they are stored and compared."""

import difflib
import hashlib
import importlib.util
import json
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from jl1.config import Config, default_config
from jl1.config_folder import config_folder, config_names
from jl1.errors import UserError


def load_config(name: str) -> Config:
    """Load a config by name or file, as `--config` does. It runs the file.

    Args:
        name: A name in `config_folder.config_folder()` or the path of a .py file, each with an optional `:arg` that is
            passed to the file's `get_config`, such as `train:C`.

    Returns:
        The config, locked against new fields.

    Raises:
        UserError: No such name or file, or the file fails.

    Example:
        >>> load_config("train:B").model.name
        'B'
    """
    stem, _, arg = name.partition(":")
    path = _find_config_file(stem)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise UserError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        return module.get_config(*([arg] if arg else [])).lock()
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"the config file {path} fails with {type(error).__name__}: {error}") from error


def _find_config_file(stem: str) -> Path:
    """Find the file of a config, or say which there are."""
    path = Path(stem) if stem.endswith(".py") else config_folder() / f"{stem}.py"
    if path.is_file():
        return path
    known = config_names()
    near = difflib.get_close_matches(stem, known, n=1)
    hint = f" Did you mean {near[0]}?" if near else ""
    raise UserError(f"no config {stem!r}.{hint} Give the path of a .py file, or one of {', '.join(known)}")


def config_to_dict(config: Config) -> dict[str, Any]:
    """Return the config as plain JSON types, the form that is stored and compared."""
    return json.loads(json.dumps(config.to_dict()))


def config_from_dict(stored: dict[str, Any]) -> Config:
    """Return the config of a stored run, with the defaults of fields that did not exist then.

    Raises:
        UserError: A field that this version does not know, or one of another type.
    """
    config = default_config()
    try:
        with config.unlocked():
            config.update(_with_tuples(stored))
    except (TypeError, ValueError) as error:
        raise UserError(f"the stored config does not fit this version of jl1: {error}") from error
    return config.lock()


def field_names(config: Config) -> list[str]:
    """List the fields of a config by their dotted names, such as `penalty.lam`."""
    names = []
    for key, value in config.items():
        names += [f"{key}.{name}" for name in field_names(value)] if isinstance(value, ConfigDict) else [key]
    return names


def run_name(config: Config) -> str:
    """Return a readable name for the run of this config, different for every config.

    Example:
        >>> run_name(default_config())[:-7]
        'mnist-C-jacobian_l1-probs-mean-lam50-seed0'
    """
    parts = [config.data.name, config.model.name]
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
    return "-".join([*parts, f"seed{config.seed}", config_digest(config_to_dict(config))[:6]])


def config_digest(stored: dict[str, Any]) -> str:
    """Hash a config as it is stored, in hexadecimal."""
    return hashlib.sha256(json.dumps(stored, sort_keys=True).encode()).hexdigest()


def differences(one: dict[str, Any], other: dict[str, Any], prefix: str = "config") -> list[str]:
    """List the fields in which two stored configs differ, as `field: one -> other`."""
    found = []
    for key in sorted({*one, *other}):
        mine, theirs = one.get(key), other.get(key)
        if isinstance(mine, dict) and isinstance(theirs, dict):
            found += differences(mine, theirs, f"{prefix}.{key}")
        elif mine != theirs:
            found.append(f"{prefix}.{key}: {mine!r} -> {theirs!r}")
    return found


def _with_tuples(stored: Any) -> Any:
    """Turn the lists of JSON back into the tuples of the config."""
    if isinstance(stored, dict):
        return {key: _with_tuples(value) for key, value in stored.items()}
    return tuple(stored) if isinstance(stored, list) else stored
