"""The folder of a run: config.json, metrics.jsonl, trace.jsonl, result.json. docs/run_folder.md is their schema."""

import importlib.util
import platform
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from jl1.atomic_files import remove_halves
from jl1.errors import UserError, cannot_read
from jl1.json_files import append_line, keep_lines, read_json, read_lines, write_json, write_text

SCHEMA = "jl1.result/1"
"""Changes when a field of result.json changes its meaning or goes."""

EVALUATION_SCHEMA = "jl1.evaluation/1"
"""The same for evaluation.json."""

AUDIT_SCHEMA = "jl1.audit/1"
"""The same for audit.json."""

SWEEP_SCHEMA = "jl1.sweep/1"
"""The same for sweep.json, the list of the runs of a sweep."""

INTERRUPTED = "interrupted"
"""`stopped_because` of a run that can be resumed although it has a result."""

CONFIG, _METRICS, _TRACE = "config.json", "metrics.jsonl", "trace.jsonl"
RESULT, _EVALUATION = "result.json", "evaluation.json"
_ON_THE_WAY = "at_epochs.json"
SWEEP = "sweep.json"

_NUMBER = int | float
_RESULT_FORM = {
    "schema": str,
    "config": dict,
    "num_epochs": int,
    "stopped_because": str,
    "accuracies": [dict],
    "seconds": {"compile": _NUMBER, "evaluate": _NUMBER},
}
_SWEEP_FORM = {"schema": str, "runs": [{"name": str, "overrides": dict}]}
_EVALUATION_FORM = {"schema": str, "accuracies": [dict]}


def is_run(workdir: Path) -> bool:
    """Say whether there is a run in a folder, begun or finished.

    Raises:
        UserError: The folder may not be looked into.
    """
    try:
        return (workdir / CONFIG).is_file() or (workdir / RESULT).is_file()
    except OSError as error:
        raise cannot_read(workdir, error) from error


def is_finished(workdir: Path) -> bool:
    """Say whether the run in a folder has come to its end.

    Raises:
        UserError: As `read_result`.
    """
    result = read_result(workdir)
    return result is not None and result["stopped_because"] != INTERRUPTED


def read_config(workdir: Path) -> dict[str, Any]:
    """Read the config of a run.

    Raises:
        UserError: The folder is not that of a run, or the file is damaged.
    """
    config = read_json(workdir / CONFIG, dict)
    if config is None:
        raise UserError(f"{workdir} is not the folder of a jl1 run: it has no {CONFIG}")
    return config


def read_result(workdir: Path) -> dict[str, Any] | None:
    """Read the result of a run, or None if there is none yet.

    Raises:
        UserError: It cannot be read, is damaged, or of another schema.
    """
    return read_json(workdir / RESULT, _RESULT_FORM, schema=SCHEMA)


def write_result(workdir: Path, result: dict[str, Any]) -> Path:
    """Write the result of a run and return its path."""
    return write_json(workdir / RESULT, result)


def read_evaluation(workdir: Path) -> list[dict[str, Any]]:
    """Read the rows that `jl1 evaluate` has added to a run.

    Raises:
        UserError: They cannot be read, are damaged, or of another schema.
    """
    content = read_json(workdir / _EVALUATION, _EVALUATION_FORM, schema=EVALUATION_SCHEMA)
    return content["accuracies"] if content else []


def write_evaluation(workdir: Path, rows: list[dict[str, Any]]) -> Path:
    """Write all rows of `jl1 evaluate`."""
    return write_json(workdir / _EVALUATION, {"schema": EVALUATION_SCHEMA, "accuracies": rows})


def read_at_epochs(workdir: Path) -> list[dict[str, Any]]:
    """Read the figures that were taken on the way, a row an epoch."""
    return read_json(workdir / _ON_THE_WAY, [{"epoch": int}]) or []


def write_at_epochs(workdir: Path, rows: list[dict[str, Any]]) -> None:
    """Write all figures taken on the way."""
    write_json(workdir / _ON_THE_WAY, rows)


def read_sweep(folder: Path) -> list[dict[str, Any]]:
    """Read the list of the runs of a sweep, each with its name and overrides; empty if there is none.

    Raises:
        UserError: It cannot be read, is damaged, or of another schema.
    """
    content = read_json(folder / SWEEP, _SWEEP_FORM, schema=SWEEP_SCHEMA)
    return content["runs"] if content else []


def audit_folder(workdir: Path) -> Path:
    """Return the folder of a run's audit, made if it is not there, without what a kill has left of files in it."""
    folder = workdir / "audit"
    folder.mkdir(exist_ok=True)
    remove_halves(folder)
    return folder


def write_audit(workdir: Path, content: dict[str, Any]) -> Path:
    """Write what an audit has found and return its path."""
    return write_json(audit_folder(workdir) / "audit.json", content)


def append_metrics(workdir: Path, row: dict[str, Any]) -> None:
    """Add the line of one epoch to metrics.jsonl."""
    append_line(workdir / _METRICS, row)


def append_trace(workdir: Path, row: dict[str, Any]) -> None:
    """Add the line of one epoch to trace.jsonl."""
    append_line(workdir / _TRACE, row)


def keep_epochs(workdir: Path, num_epochs: int) -> None:
    """Cut metrics.jsonl and trace.jsonl back to their first epochs: those that the restored checkpoint knows of.

    Raises:
        UserError: A file cannot be read or is damaged.
    """
    for path in (workdir / _METRICS, workdir / _TRACE):
        keep_lines(path, num_epochs)


def copy_epochs(source: Path, workdir: Path) -> None:
    """Copy metrics.jsonl and trace.jsonl, where they are, from the folder of one run into that of another."""
    for name in (_METRICS, _TRACE):
        if (source / name).is_file():
            write_text(workdir / name, (source / name).read_text(encoding="utf-8"))


def read_metrics(workdir: Path) -> list[dict[str, Any]]:
    """Read the epochs of metrics.jsonl; a line that is being written, or was when its process died, is left out.

    Raises:
        UserError: The file cannot be read or is damaged.
    """
    return read_lines(workdir / _METRICS)


def read_trace(workdir: Path) -> list[dict[str, Any]]:
    """Read the epochs of trace.jsonl, as `read_metrics` does."""
    return read_lines(workdir / _TRACE)


def require_tensorboard() -> None:
    """Refuse to start a run that could not write its event files.

    Raises:
        UserError: tensorboardX is not installed.
    """
    if importlib.util.find_spec("tensorboardX") is None:
        raise UserError("config.log.tensorboard needs tensorboardX: pip install '.[tensorboard]' in jl1's checkout")


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


@cache
def _versions_at_start() -> Mapping[str, str | None]:
    """Look once: a checkout may change under a process, but not the code that it runs."""
    packages = ("jl1", "jax", "jaxlib", "flax", "optax", "numpy")
    return {name: metadata.version(name) for name in packages} | {"git_commit": _git_commit()}


def versions() -> dict[str, str | None]:
    """Return the versions of all that can change a figure, and the git commit of a checkout, at the first call."""
    return dict(_versions_at_start())


def processor() -> str:
    """Return the name of this machine's processor."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


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
