"""Decoded datasets on disk: a file of records each, named by its source's content, checked at every load."""

import hashlib
import logging
import os
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from jl1.atomic_files import write_atomically

_FORMAT = 1  # to be raised when the same source would decode to other records
_LOGGER = logging.getLogger(__name__)


def cache_folder() -> Path:
    """Give the folder of what can be made again: JL1_CACHE_DIR, $XDG_CACHE_HOME/jl1 or ~/.cache/jl1."""
    if own := os.environ.get("JL1_CACHE_DIR"):
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "jl1"


def content_key(files: Iterable[Path]) -> str:
    """Hash the content of files, in the order given."""
    total = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()


def load_or_decode(name: str, key: str, decode: Callable[[], np.ndarray]) -> tuple[np.ndarray, str]:
    """Give the records of a source and their SHA-256, decoding only where no sound copy is kept.

    Args:
        name: name of the dataset, for people who look into the folder.
        key: what the source holds, as from `content_key`.
        decode: makes the records; called at most once.
    """
    path = cache_folder() / f"{name}-v{_FORMAT}-{key[:32]}.npy"
    checksum = path.with_suffix(".sha256")
    try:
        records = np.load(path, mmap_mode="r", allow_pickle=False)
        if (digest := _digest(records)) == checksum.read_text():
            return records, digest
        _LOGGER.warning("The decoded copy %s is damaged; decoding again.", path)
    except FileNotFoundError:
        _LOGGER.info("Decoding %s, once.", name)
    except (OSError, ValueError, EOFError) as error:
        _LOGGER.warning("The decoded copy %s is damaged (%s); decoding again.", path, error)
    records = decode()
    digest = _digest(records)
    try:
        write_atomically(path, lambda file: np.save(file, records, allow_pickle=False))
        write_atomically(checksum, lambda file: file.write(digest.encode()))
    except OSError as error:  # a copy saves time; a full or read-only disk is no reason to stop
        _LOGGER.warning("Cannot keep the decoded copy %s: %s", path, error)
    return records, digest


def _digest(records: np.ndarray) -> str:
    """Hash the type and the bytes of records."""
    total = hashlib.sha256(repr(records.dtype.descr).encode())
    total.update(np.ascontiguousarray(records).view(np.uint8).data)
    return total.hexdigest()
