"""What lies in the folder of a sweep: sweep.json and its lock, a folder a run, and there failed.json and log.txt."""

import signal
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from filelock import FileLock

from jl1 import records
from jl1.errors import UserError, cannot_write
from jl1.json_files import misfit, read_json, write_json
from jl1.runs.folder import require_utf8
from jl1.runs.lock import LOCK
from jl1.sweep.expansion import SweepRun

LOG = "log.txt"
"""What the processes of a run wrote."""

_FAILED = "failed.json"
_NUM_LINES = 20
_FAILED_FORM = {"exit_status": int, "killed_by": str | None, "last_lines": [str]}
_EPOCH_FORM = dict.fromkeys(("seconds", "examples_per_second", "validation_accuracy"), int | float)


def write_sweep(folder: Path, *, config: str, command: str, runs: Sequence[SweepRun]) -> None:
    """Write the list of the runs, with those that an earlier command listed and this one leaves out.

    Raises:
        UserError: The folder is a run's, or cannot be written, or its list cannot be read and so not be kept.
    """
    require_utf8(folder)
    if records.is_run(folder):
        raise UserError(f"{folder} is the folder of one run: choose another with --workdir")
    listed = {run.name: {"name": run.name, "overrides": run.overrides} for run in runs}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.resolve() / LOCK):  # sweeps that start at once would each drop the other's runs
            before = {run["name"]: run for run in records.read_sweep(folder)}
            content = {
                "schema": records.SWEEP_SCHEMA,
                "config": config,
                "command": command,
                "runs": [*(before | listed).values()],
            }
            write_json(folder / records.SWEEP, content)
    except OSError as error:
        raise cannot_write(folder, error, "choose another folder with --workdir") from error


def write_failure(workdir: Path, status: int) -> None:
    """Record how a run failed: its exit status, or the signal that killed it, and the end of its log."""
    killed_by = signal.Signals(-status).name if status < 0 else None
    failure = {"exit_status": status, "killed_by": killed_by, "last_lines": last_lines(workdir, _NUM_LINES)}
    with suppress(OSError):  # on a full disk the failure is still reported
        write_json(workdir / _FAILED, failure)


def read_failure(workdir: Path) -> dict[str, Any] | None:
    """Read how a run failed, or None if it has not; of a damaged file it is known only that it has."""
    try:
        return read_json(workdir / _FAILED, _FAILED_FORM)
    except UserError as error:
        return {"exit_status": "unknown", "killed_by": None, "last_lines": [str(error)]}


def forget_failure(workdir: Path) -> None:
    """Let a failed run be tried again."""
    (workdir / _FAILED).unlink(missing_ok=True)


def read_epochs(workdir: Path) -> list[dict[str, Any]]:
    """Read the epochs of a run to show and to predict: none of one whose file is damaged, which ends no sweep."""
    try:
        rows = records.read_metrics(workdir)
    except UserError:
        return []
    return [] if misfit(rows, [_EPOCH_FORM]) else rows


def write_log(workdir: Path, text: str) -> None:
    """Add a line with the time to a run's log: a command that works on it, or what became of one."""
    with (workdir / LOG).open("a") as log:
        log.write(f"--- {datetime.now().isoformat(sep=' ', timespec='seconds')} {text}\n")


def last_lines(workdir: Path, number: int) -> list[str]:
    """Return the end of a run's log."""
    try:
        with (workdir / LOG).open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - 300 * number))
            return file.read().decode(errors="replace").splitlines()[-number:]
    except OSError:
        return []
