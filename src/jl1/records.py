"""The folder of a run: config.json, metrics.jsonl, result.json. docs/run_folder.md is their schema.

A file is written under a temporary name and then renamed, so it is there whole or not at all, whenever the
process is killed.
"""

import importlib.util
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

from jl1.config_files import run_differences
from jl1.errors import UserError

SCHEMA = "jl1.result/1"
"""Changes when a field of result.json changes its meaning or goes."""

EVALUATION_SCHEMA = "jl1.evaluation/1"
"""The same for evaluation.json."""

INTERRUPTED = "interrupted"
"""`stopped_because` of a run that can be resumed although it has a result."""

_CONFIG, _METRICS, _RESULT, _EVALUATION = "config.json", "metrics.jsonl", "result.json", "evaluation.json"
_ON_THE_WAY = "at_epochs.json"
_TEMPORARY = ".tmp"
LOCK, HOLDER = "lock", "holder.json"
"""Files of `run_lock`, which are there before the config."""


def check_workdir(workdir: Path, config: dict[str, Any]) -> None:
    """Refuse a folder that the run of a config cannot start or go on in; nothing is written.

    Args:
        workdir: The folder; it need not exist.
        config: The resolved config, as plain types.

    Raises:
        UserError: The folder holds other files, another config or a finished run.
    """
    paths = workdir.iterdir() if workdir.is_dir() else ()
    names = {path.name for path in paths if path.suffix != _TEMPORARY} - {LOCK, HOLDER}
    if _CONFIG in names:
        _refuse_another_run(workdir, config)
    elif names:
        raise UserError(
            f"{workdir} is not the folder of a jl1 run (it has {', '.join(sorted(names)[:5])} but no {_CONFIG}): "
            "choose an empty or a new folder with --workdir"
        )


def open_run(workdir: Path, config: dict[str, Any]) -> Path:
    """Make the folder of a run, or find the unfinished run of the same config in it.

    A config differs by no field that an older version did not know and that has its default, and not by where the
    data lie: `data.dir` becomes the given one.

    Args:
        workdir: The folder; it may exist.
        config: The resolved config, as plain types.

    Returns:
        The folder, with config.json in it.

    Raises:
        UserError: The folder holds other files, another config or a finished run, or cannot be written.
    """
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        check_workdir(workdir, config)
        write_json(workdir / _CONFIG, config)
    except OSError as error:
        raise UserError(
            f"cannot write to {workdir}: {error.strerror or error}; choose another folder with --workdir"
        ) from error
    return workdir


def is_run(workdir: Path) -> bool:
    """Say whether there is a run in a folder."""
    return (workdir / _CONFIG).is_file()


def is_finished(workdir: Path) -> bool:
    """Say whether the run in a folder has come to its end."""
    result = read_result(workdir)
    return result is not None and result["stopped_because"] != INTERRUPTED


def _refuse_another_run(workdir: Path, config: dict[str, Any]) -> None:
    """Raise unless the folder's run is unfinished and has this config."""
    different = run_differences(read_config(workdir), config)
    if different:
        raise UserError(
            f"{workdir} holds a run of another config, which is left as it is:\n  "
            + "\n  ".join(different)
            + "\nchoose another folder with --workdir, or give the same config to resume it"
        )
    if is_finished(workdir):
        raise UserError(
            f"{workdir} holds the finished run of this config, which is left as it is. To repeat it, choose "
            "another --workdir or --config.seed; to attack it again, `jl1 evaluate --workdir`; its figures are in "
            f"{workdir / _RESULT}"
        )


def read_config(workdir: Path) -> dict[str, Any]:
    """Read the config of a run.

    Raises:
        UserError: The folder is not that of a run, or the file is damaged.
    """
    config = _read_json(workdir / _CONFIG)
    if config is None:
        raise UserError(f"{workdir} is not the folder of a jl1 run: it has no {_CONFIG}")
    return config


def read_result(workdir: Path) -> dict[str, Any] | None:
    """Read the result of a run, or None if there is none yet."""
    return _read_json(workdir / _RESULT)


def write_result(workdir: Path, result: dict[str, Any]) -> Path:
    """Write the result of a run and return its path."""
    return write_json(workdir / _RESULT, result)


def read_evaluation(workdir: Path) -> list[dict[str, Any]]:
    """Read the rows that `jl1 evaluate` has added to a run."""
    return (_read_json(workdir / _EVALUATION) or {"accuracies": []})["accuracies"]


def write_evaluation(workdir: Path, rows: list[dict[str, Any]]) -> Path:
    """Write all rows of `jl1 evaluate`."""
    return write_json(workdir / _EVALUATION, {"schema": EVALUATION_SCHEMA, "accuracies": rows})


def read_at_epochs(workdir: Path) -> list[dict[str, Any]]:
    """Read the figures that were taken on the way, a row an epoch."""
    return _read_json(workdir / _ON_THE_WAY) or []


def write_at_epochs(workdir: Path, rows: list[dict[str, Any]]) -> None:
    """Write all figures taken on the way."""
    write_json(workdir / _ON_THE_WAY, rows)


def append_metrics(workdir: Path, row: dict[str, Any]) -> None:
    """Add the line of one epoch to metrics.jsonl."""
    with (workdir / _METRICS).open("a") as file:
        file.write(json.dumps(row) + "\n")
        file.flush()
        os.fsync(file.fileno())


def keep_metrics(workdir: Path, num_epochs: int) -> None:
    """Cut metrics.jsonl back to its first epochs: those that the restored checkpoint knows of."""
    path = workdir / _METRICS
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    if len(lines) > num_epochs:
        _write_text(path, "".join(lines[:num_epochs]))


def read_metrics(workdir: Path) -> list[dict[str, Any]]:
    """Read the epochs of metrics.jsonl; a line that is being written, or was when its process died, is left out."""
    path = workdir / _METRICS
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text.rpartition("\n")[0].splitlines()]


def require_tensorboard() -> None:
    """Refuse to start a run that could not write its event files.

    Raises:
        UserError: tensorboardX is not installed.
    """
    if importlib.util.find_spec("tensorboardX") is None:
        raise UserError("config.log.tensorboard needs the package tensorboardX: pip install 'jl1[tensorboard]'")


@contextmanager
def event_writer(workdir: Path, num_epochs: int, *, wanted: bool) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Open the TensorBoard files of a run; events after `num_epochs` of an earlier try are superseded.

    Yields:
        Function that adds one line of metrics; it does nothing if no event files are wanted.
    """
    if not wanted:
        yield lambda row: None
        return
    from tensorboardX import SummaryWriter  # optional, and slow to import

    with SummaryWriter(str(workdir / "tensorboard"), purge_step=num_epochs + 1) as writer:

        def add(row: dict[str, Any]) -> None:
            for name in row.keys() - {"epoch"}:
                writer.add_scalar(name, row[name], row["epoch"])

        yield add


def versions() -> dict[str, str | None]:
    """Return the versions of all that can change a figure, and the git commit of a checkout."""
    packages = ("jl1", "jax", "jaxlib", "flax", "optax", "numpy")
    return {name: metadata.version(name) for name in packages} | {"git_commit": _git_commit()}


def _git_commit() -> str | None:
    """Return the commit of the checkout that this file lies in, with `+changes` if it was edited."""
    checkout = Path(__file__).parents[2]
    if not (checkout / ".git").exists():
        return None
    try:
        commit, changes = (
            subprocess.run(["git", *command], cwd=checkout, capture_output=True, text=True, check=True).stdout.strip()
            for command in (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit + ("+changes" if changes else "")


def _read_json(path: Path) -> Any:
    """Read a JSON file, or return None if there is none."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except NotADirectoryError as error:
        raise UserError(f"{path.parent} is not a folder") from error
    except ValueError as error:
        raise UserError(f"{path} is damaged: {error}") from error


def write_json(path: Path, value: Any) -> Path:
    """Write a JSON file, whole or not at all."""
    return _write_text(path, json.dumps(value, indent=2) + "\n")


def _write_text(path: Path, text: str) -> Path:
    """Write a file under a temporary name, then rename it."""
    temporary = path.with_name(path.name + _TEMPORARY)
    with temporary.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    return path
