"""Verdicts of an attack on disk: which points stand, and what broke the others; one small .npz each."""

import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jl1.atomic_files import write_atomically


class Verdicts(NamedTuple):
    """What an attack did to each point.

    Attributes:
        stands: Whether the attacked point is classified right, bool `[n]`.
        broken_by: What broke it, str `[n]`: the name of an attack, `clean` if it was wrong before any, or nothing.
    """

    stands: np.ndarray
    broken_by: np.ndarray


def write_verdicts(path: Path, verdicts: Verdicts, *, digest: str) -> None:
    """Write verdicts, whole or not at all, with the digest of all that decided them."""
    write_atomically(path, lambda file: np.savez(file, digest=np.array(digest), **verdicts._asdict()))


def read_verdicts(path: Path, *, digest: str, notice: Callable[[str], None] = lambda _: None) -> Verdicts | None:
    """Read verdicts.

    Args:
        path: The file.
        digest: What they must have been decided by.
        notice: Told of a damaged file.

    Returns:
        The verdicts, or None if the file is missing, damaged, or was decided by something else.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:  # np.load leaves a cut file open
            verdicts = Verdicts(stored["stands"], stored["broken_by"])
            return verdicts if str(stored["digest"]) == digest else None
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile) as error:
        notice(f"{path} is damaged, it is computed again ({type(error).__name__})")
        return None


def join(pieces: Sequence[Verdicts]) -> Verdicts:
    """Put the verdicts on consecutive points together."""
    return Verdicts(*(np.concatenate(part) for part in zip(*pieces, strict=True)))


def worst_case(attacks: Sequence[Verdicts]) -> Verdicts:
    """Take the verdicts of several attacks on the same points together: a point stands if it stands under all.

    Args:
        attacks: At least one; a point is put down to the first that broke it.

    Returns:
        One verdict a point.
    """
    broken_by = attacks[0].broken_by
    for attack in attacks[1:]:
        broken_by = np.where(broken_by == "", attack.broken_by, broken_by)
    return Verdicts(broken_by == "", broken_by)
