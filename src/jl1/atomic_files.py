"""Files that are there whole or not at all, also where several processes write them."""

import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

_HALF = ".half"


def write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write a file beside its place and move it there whole: a reader or a kill never meets half of one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # not from tempfile, whose files their owner alone may read
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}{_HALF}")
    try:
        with temporary.open("xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def remove_halves(folder: Path) -> None:
    """Remove what a kill has left of files in a folder that nobody else writes to now."""
    for half in folder.glob(f".*{_HALF}"):
        half.unlink()
