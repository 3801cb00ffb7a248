"""Runs spread over processes: each run once, whoever else works on the same folder, and none lost."""

import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

from jl1 import records
from jl1.config_files import config_to_dict
from jl1.errors import EXIT_HELD, EXIT_INTERRUPTED, RunHeldError, UserError
from jl1.run_folder import open_run
from jl1.run_lock import hold_run, holder
from jl1.sweep.children import Child
from jl1.sweep.expansion import SweepRun
from jl1.sweep.folder import forget_failure, read_failure, write_failure

_SECONDS_A_LOOK = 0.2
_SECONDS_BETWEEN_TRIES = 1.0
_STOPPED = (EXIT_INTERRUPTED, -15, -9)


class State(NamedTuple):
    """Where the runs of a sweep are.

    Attributes:
        running: In processes of this sweep.
        waiting: Not begun, or begun and to be gone on with.
        elsewhere: Held by another process.
        finished: With their result.
        failed: Ended without one; not tried again.
    """

    running: list[SweepRun]
    waiting: list[SweepRun]
    elsewhere: list[SweepRun]
    finished: list[SweepRun]
    failed: list[SweepRun]


def find_state(runs: Sequence[SweepRun], folder: Path) -> State:
    """Say where the runs are of which none is running here, by their folders."""
    state = State([], [], [], [], [])
    for run in runs:
        workdir = folder / run.name
        if _is_finished(workdir):
            state.finished.append(run)
        elif read_failure(workdir) is not None:
            state.failed.append(run)
        else:
            state.waiting.append(run)
    return state


@runtime_checkable
class Watcher(Protocol):
    """Told what a sweep does."""

    def say(self, text: str) -> None:
        """Something has happened."""

    def look(self, state: State) -> None:
        """Where the runs are now; several times a second."""


def run_sweep(
    runs: Sequence[SweepRun],
    folder: Path,
    *,
    workers: Sequence[Sequence[int]],
    retry_failed: bool,
    watcher: Watcher,
    should_stop: Callable[[], bool],
) -> State:
    """Run what is not finished, a process a run, some at once, until all are finished or failed.

    A run that another process holds is passed over, and taken over if that process ends without finishing it. At
    `should_stop` the processes end at their last whole epoch.

    Args:
        runs: The runs.
        folder: Of the sweep; each run has its own in it.
        workers: The cores of each worker; none: not pinned.
        retry_failed: Try the runs again that failed before.
        watcher: Told what happens.
        should_stop: Asked several times a second.

    Returns:
        Where the runs are in the end.
    """
    sweep = _Sweep(runs, folder, workers, watcher, retry_failed)
    try:
        while not sweep.is_over():
            if should_stop():
                sweep.stop()
            sweep.step()
            watcher.look(sweep.state())
            time.sleep(_SECONDS_A_LOOK)
    finally:
        sweep.kill()
    return sweep.state()


class _Sweep:
    """The runs of a sweep, and the processes of those that run."""

    def __init__(
        self,
        runs: Sequence[SweepRun],
        folder: Path,
        workers: Sequence[Sequence[int]],
        watcher: Watcher,
        retry_failed: bool,
    ) -> None:
        self._folder, self._watcher = folder, watcher
        if retry_failed:
            for run in runs:
                forget_failure(folder / run.name)
        found = find_state(runs, folder)
        self._finished, self._failed = found.finished, found.failed
        self._waiting, self._elsewhere = deque(found.waiting), deque[SweepRun]()
        self._idle = deque(workers)
        self._busy: list[tuple[SweepRun, Child, Sequence[int]]] = []
        self._stopping, self._next_try, self._told_of = False, 0.0, set[str]()

    def state(self) -> State:
        """Say where the runs are."""
        running = [run for run, _, _ in self._busy]
        return State(running, [*self._waiting], [*self._elsewhere], self._finished, self._failed)

    def is_over(self) -> bool:
        """Say whether there is nothing left to do, or nothing left to wait for."""
        return not self._busy and (self._stopping or not (self._waiting or self._elsewhere))

    def step(self) -> None:
        """Collect what has ended, and start what there is room for."""
        for entry in [entry for entry in self._busy if entry[1].status is not None]:
            self._busy.remove(entry)
            run, child, cores = entry
            self._idle.append(cores)
            child.close()
            self._collect(run, child.status or 0)
        while self._idle and self._waiting and not self._stopping:
            self._start(self._waiting.popleft())
        if self._idle and self._elsewhere and not self._stopping and time.monotonic() >= self._next_try:
            self._next_try = time.monotonic() + _SECONDS_BETWEEN_TRIES
            for _ in range(min(len(self._elsewhere), len(self._idle))):
                self._start(self._elsewhere.popleft())

    def stop(self) -> None:
        """Ask all processes, once, to end at their last whole epoch."""
        if not self._stopping:
            self._stopping = True
            for _, child, _ in self._busy:
                child.stop()

    def kill(self) -> None:
        """End what still runs at once."""
        for run, child, _ in self._busy:
            child.kill()
            self._waiting.appendleft(run)
        self._busy = []

    def _start(self, run: SweepRun) -> None:
        """Start a process for a run, unless it is finished, held, or cannot be."""
        workdir = self._folder / run.name
        try:
            with hold_run(workdir, patience=0.0):
                if _is_finished(workdir):
                    self._finish(run)
                    return
                if read_failure(workdir) is not None:
                    raise UserError("it failed in another sweep")
                open_run(workdir, config_to_dict(run.config))
            child = Child(workdir, self._idle[0])
        except RunHeldError:
            if run.name not in self._told_of:
                self._watcher.say(f"elsewhere: {run.name}, {holder(workdir)}")
            self._told_of.add(run.name)
            self._elsewhere.append(run)
        except (UserError, OSError) as error:
            self._fail(run, str(error))
        else:
            self._busy.append((run, child, self._idle.popleft()))
            self._watcher.say(f"started {run.name}")

    def _collect(self, run: SweepRun, status: int) -> None:
        """Put a run whose process has ended where it belongs."""
        workdir = self._folder / run.name
        if _is_finished(workdir):
            self._finish(run)
        elif status == EXIT_HELD:
            self._elsewhere.append(run)
        elif self._stopping and status in _STOPPED:
            self._waiting.appendleft(run)
        else:
            write_failure(workdir, status)
            self._fail(run, f"exit status {status}")

    def _finish(self, run: SweepRun) -> None:
        """Count a run as finished."""
        self._finished.append(run)
        self._watcher.say(f"finished {run.name}")

    def _fail(self, run: SweepRun, why: str) -> None:
        """Count a run as failed."""
        self._failed.append(run)
        self._watcher.say(f"failed {run.name}: {why}")


def _is_finished(workdir: Path) -> bool:
    """Say whether a run has its result; one that cannot be read is looked at again when the run is opened."""
    try:
        return records.is_finished(workdir)
    except UserError:
        return False
