"""Runs spread over the processes of an engine: each run once, whoever else works on its folder, and none lost."""

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple, Protocol, runtime_checkable

from jl1 import records
from jl1.configuration.files import config_to_dict
from jl1.errors import EXIT_HELD, EXIT_INTERRUPTED, RunHeldError, UserError
from jl1.runs.folder import open_run
from jl1.runs.lock import hold_run, holder
from jl1.sweep.engine import Attempt, Engine
from jl1.sweep.expansion import SweepRun
from jl1.sweep.folder import forget_failure, read_epochs, read_failure, write_failure, write_log

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
        reasons: Why those failed that failed in this sweep, by name.
    """

    running: list[SweepRun]
    waiting: list[SweepRun]
    elsewhere: list[SweepRun]
    finished: list[SweepRun]
    failed: list[SweepRun]
    reasons: Mapping[str, str] = MappingProxyType({})


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

    def look(self, state: State, num_workers: int) -> None:
        """Where the runs are now, and how many there is room for at once; several times a second."""


def run_sweep(
    runs: Sequence[SweepRun],
    folder: Path,
    *,
    engine: Engine,
    retry_failed: bool,
    max_retries: int,
    watcher: Watcher,
    should_stop: Callable[[], bool],
) -> State:
    """Run what is not finished, a process a run, some at once, until all are finished or failed.

    A run that another process holds is passed over, and taken over if that process ends without finishing it. At
    `should_stop` the processes end at their last whole epoch.

    Args:
        runs: The runs.
        folder: Of the sweep; each run has its own in it.
        engine: Starts their processes.
        retry_failed: Try the runs again that failed before.
        max_retries: How often in a row a run is gone on with whose process was lost before it had a new epoch.
        watcher: Told what happens.
        should_stop: Asked several times a second.

    Returns:
        Where the runs are in the end.
    """
    if retry_failed:
        for run in runs:
            forget_failure(folder / run.name)
    sweep = _Sweep(runs, folder, engine, watcher, max_retries)
    try:
        while not sweep.is_over():
            if should_stop():
                sweep.stop()
            sweep.step()
            watcher.look(sweep.state(), engine.num_workers)
            time.sleep(_SECONDS_A_LOOK)
    finally:
        sweep.kill()
    return sweep.state()


class _Sweep:
    """The runs of a sweep, and the processes of those that run."""

    def __init__(
        self, runs: Sequence[SweepRun], folder: Path, engine: Engine, watcher: Watcher, max_retries: int
    ) -> None:
        self._folder, self._engine, self._watcher, self._max_retries = folder, engine, watcher, max_retries
        found = find_state(runs, folder)
        self._finished, self._failed = found.finished, found.failed
        self._waiting, self._elsewhere = deque(found.waiting), deque[SweepRun]()
        self._busy: list[tuple[SweepRun, Attempt]] = []
        self._losses: dict[str, tuple[int, int]] = {}
        self._reasons: dict[str, str] = {}
        self._stopping, self._next_try, self._told_of = False, 0.0, set[str]()

    def state(self) -> State:
        """Say where the runs are."""
        running = [run for run, _ in self._busy]
        return State(running, [*self._waiting], [*self._elsewhere], self._finished, self._failed, self._reasons)

    def is_over(self) -> bool:
        """Say whether there is nothing left to do, or nothing left to wait for."""
        return not self._busy and (self._stopping or not (self._waiting or self._elsewhere))

    def step(self) -> None:
        """Collect what has ended, and start what there is room for."""
        for entry in [entry for entry in self._busy if entry[1].status is not None]:
            self._busy.remove(entry)
            entry[1].close()
            self._collect(*entry)
        if self._stopping:
            return
        while self._waiting and self._num_idle() > 0:
            self._start(self._waiting.popleft())
        if self._elsewhere and self._num_idle() > 0 and time.monotonic() >= self._next_try:
            self._next_try = time.monotonic() + _SECONDS_BETWEEN_TRIES
            for _ in range(min(len(self._elsewhere), self._num_idle())):
                self._start(self._elsewhere.popleft())

    def stop(self) -> None:
        """Ask all processes, once, to end at their last whole epoch."""
        if not self._stopping:
            self._stopping = True
            for _, attempt in self._busy:
                attempt.stop()

    def kill(self) -> None:
        """End what still runs at once."""
        for _, attempt in self._busy:
            attempt.kill()
        for run, attempt in self._busy:
            attempt.close()
            self._waiting.appendleft(run)
        self._busy = []

    def _num_idle(self) -> int:
        """Say for how many more runs there is room."""
        return self._engine.num_workers - len(self._busy)

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
            attempt = self._engine.start(workdir)
        except RunHeldError:
            if run.name not in self._told_of:
                self._watcher.say(f"elsewhere: {run.name}, {holder(workdir)}")
            self._told_of.add(run.name)
            self._elsewhere.append(run)
        except (UserError, OSError) as error:
            self._fail(run, str(error))
        else:
            self._busy.append((run, attempt))
            self._watcher.say(f"started {run.name}")

    def _collect(self, run: SweepRun, attempt: Attempt) -> None:
        """Put a run whose process has ended where it belongs."""
        workdir, status, lost = self._folder / run.name, attempt.status or 0, attempt.lost
        if _has_ended(workdir):
            self._finish(run)
        elif status == EXIT_HELD:
            self._elsewhere.append(run)
        elif self._stopping and (status in _STOPPED or lost):
            self._waiting.appendleft(run)
        elif lost and self._may_go_on(run, lost):
            self._watcher.say(f"lost {run.name}: {lost}; going on with it")
            self._waiting.appendleft(run)
        else:
            write_failure(workdir, status)
            self._fail(run, lost or f"exit status {status}")

    def _may_go_on(self, run: SweepRun, lost: str) -> bool:
        """Count the loss of a run's process; say whether the run may have another, as any may that gets forward."""
        workdir = self._folder / run.name
        with suppress(OSError):  # a full disk shows in the run itself
            write_log(workdir, f"lost: {lost}")
        num_epochs = len(read_epochs(workdir))
        before, losses = self._losses.get(run.name, (num_epochs, 0))
        losses = 1 if num_epochs > before else losses + 1
        self._losses[run.name] = num_epochs, losses
        return losses <= self._max_retries

    def _finish(self, run: SweepRun) -> None:
        """Count a run as finished."""
        self._finished.append(run)
        self._watcher.say(f"finished {run.name}")

    def _fail(self, run: SweepRun, why: str) -> None:
        """Count a run as failed."""
        self._failed.append(run)
        self._reasons[run.name] = why
        self._watcher.say(f"failed {run.name}: {why}")


def _has_ended(workdir: Path) -> bool:
    """Say whether a run that another host may have worked on has its result.

    NFS may still say that there was none when the view last looked, until something is written into the folder.
    """
    if workdir.is_dir():  # the lock would make one that has been moved away
        with suppress(UserError), hold_run(workdir, patience=0.0):
            pass
    return _is_finished(workdir)


def _is_finished(workdir: Path) -> bool:
    """Say whether a run has its result; one that cannot be read is looked at again when the run is opened."""
    try:
        return records.is_finished(workdir)
    except UserError:
        return False
