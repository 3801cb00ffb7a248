"""The cores that this process may use, and how they are given to others."""

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout


def usable_cores() -> list[int]:
    """List the cores that this process may use."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))


def share_cores(cores: Sequence[int], num_workers: int) -> list[list[int]]:
    """Give each worker its cores.

    Example:
        >>> share_cores([0, 1, 2, 3, 4], 2), share_cores([0, 1], 3)
        ([[0, 2, 4], [1, 3]], [[0], [1], [0]])
    """
    if num_workers > len(cores):
        return [[cores[worker % len(cores)]] for worker in range(num_workers)]
    return [list(cores[worker::num_workers]) for worker in range(num_workers)]


@contextmanager
def pinned(cores: Sequence[int]) -> Iterator[None]:
    """Pin this thread, where the system can; its children inherit that from their first moment."""
    if not cores or not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def claimed_cores(number: int) -> Iterator[list[int]]:
    """Take cores that nobody who asks in this way has, and where too few are free, others as well.

    Yields:
        The cores; none where the system cannot pin.
    """
    if not hasattr(os, "sched_setaffinity"):
        yield []
        return
    usable, free = usable_cores(), list[int]()
    folder = Path(tempfile.gettempdir()) / f"jl1-cores-{os.getuid()}"
    folder.mkdir(exist_ok=True)
    with ExitStack() as held:
        for core in usable:
            with suppress(Timeout):
                if len(free) < number:
                    held.enter_context(FileLock(folder / f"{core}.lock").acquire(timeout=0.0))
                    free.append(core)
        yield [*free, *(core for core in usable if core not in free)][:number]
