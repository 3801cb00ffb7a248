"""What a sweep asks of whatever starts its runs: a process a run, on this machine or on others."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable


@runtime_checkable
class Attempt(Protocol):
    """The process of one run, wherever it is."""

    @property
    def status(self) -> int | None:
        """Exit status, the negative number of the signal that killed it, or None while it runs or waits for room."""
        ...

    @property
    def lost(self) -> str | None:
        """Why the process is gone though the run did nothing wrong, or None; known once there is a status."""
        ...

    def stop(self) -> None:
        """Ask the process to end at its last whole epoch."""
        ...

    def kill(self) -> None:
        """End the process at once."""
        ...

    def close(self) -> None:
        """Wait for the end of a process that has been told to end, and let go of it."""
        ...


@runtime_checkable
class Engine(Protocol):
    """Starts the processes of runs.

    Attributes:
        place: Where, in words.
    """

    place: str

    @property
    def cores_of_a_run(self) -> Sequence[int]:
        """As many cores of this machine as a run gets, to time a few of its steps here; none: all."""
        ...

    @property
    def num_workers(self) -> int:
        """How many runs there is room for at once; it may change."""
        ...

    def require_folder(self, folder: Path) -> None:
        """Refuse to go on where the processes would not see the folder of the sweep."""
        ...

    def start(self, workdir: Path) -> Attempt:
        """Start the process of a run, whose folder has its config.json."""
        ...
