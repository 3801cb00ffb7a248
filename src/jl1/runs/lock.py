"""Who works on a run: a lock in its folder, held by one process at a time and released when that ends, however."""

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from jl1.errors import RunHeldError, UserError, cannot_write
from jl1.json_files import write_json

LOCK, HOLDER = "lock", "holder.json"
"""Their files."""

_PATIENCE = 0.5
"""Seconds to wait for a lock: a sweep takes it for a moment to see whether a run is free."""


@contextmanager
def hold_run(workdir: Path, *, patience: float = _PATIENCE) -> Iterator[None]:
    """Hold the lock of a run's folder, which is made if it is not there.

    The kernel releases it when the process ends, killed or not; over NFS between machines too. The same process may
    take it again while it has it. What cannot be written meanwhile is explained: a full disk is no reason for a
    traceback.

    Args:
        workdir: Folder of the run.
        patience: Seconds to wait for another process.

    Raises:
        RunHeldError: Another process has it; who.
        UserError: The folder cannot be written, now or while it is held.
    """
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        lock = FileLock(workdir.resolve() / LOCK, is_singleton=True).acquire(timeout=patience)
    except Timeout as error:
        raise RunHeldError(f"{workdir} is held by {holder(workdir)}, and left as it is") from error
    except OSError as error:
        raise cannot_write(workdir, error, "choose another folder with --workdir") from error
    with lock, _explained(workdir):
        write_json(workdir / HOLDER, _this_process())
        yield


@contextmanager
def _explained(workdir: Path) -> Iterator[None]:
    """Turn the refusal of a file into what a user can do about it."""
    try:
        yield
    except OSError as error:
        where = error.filename or workdir
        raise UserError(
            f"cannot go on in {workdir}: {error.strerror or error} ({where}). What is there is whole: see to the disk "
            "or the permissions, and give the same command again"
        ) from error


def holder(workdir: Path) -> str:
    """Say which process took the lock of a folder last: host, pid, since when."""
    try:
        held: dict[str, Any] = json.loads((workdir / HOLDER).read_text())
        return f"pid {held['pid']} on {held['host']} since {held['since']}"
    except (OSError, ValueError, KeyError, TypeError):  # damaged, or not there yet
        return "another process"


def _this_process() -> dict[str, Any]:
    """Describe this process for another one that finds the lock taken."""
    since = datetime.now(UTC).astimezone().isoformat(sep=" ", timespec="seconds")
    return {"host": socket.gethostname(), "pid": os.getpid(), "since": since}
