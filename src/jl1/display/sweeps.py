"""What a sweep shows: what happens as lines, and where its runs are as a table that moves or a line now and then."""

import time
from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from jl1.display.terminal import duration, say
from jl1.sweep.children import train_command
from jl1.sweep.expansion import SweepRun
from jl1.sweep.folder import LOG, last_lines, read_epochs, read_failure
from jl1.sweep.pace import Forecast, forecast, kind_of, measure_paces, read_finished, seconds_left
from jl1.sweep.scheduler import State


class PlainView:
    """Lines, for logs and pipes. What it knows of the runs it reads from their folders."""

    _seconds_between_looks = 60.0

    def __init__(self, console: Console, folder: Path) -> None:
        """Write to a console."""
        self._console, self._folder = console, folder
        self._next_look = time.monotonic() + self._seconds_between_looks

    def __enter__(self) -> "PlainView":
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the lines."""

    def say(self, text: str) -> None:
        """Write a line with the time."""
        say(self._console, f"{datetime.now():%H:%M:%S} {text}")

    def look(self, state: State, num_workers: int) -> None:
        """Show where the runs are, if it is time."""
        if time.monotonic() >= self._next_look:
            self._next_look = time.monotonic() + self._seconds_between_looks
            self._show(state, self._summary(state, num_workers))

    def _show(self, state: State, summary: str) -> None:
        """Write a line for each run in progress, and one on all."""
        for run in state.running:
            self.say(f"{run.name}: {_epoch(run, self._folder)}  {'  '.join(_facts(run, self._folder))}")
        self.say(summary)

    def _summary(self, state: State, num_workers: int) -> str:
        """Count the runs, and say when they will be over."""
        text = ", ".join(f"{len(runs)} {name}" for name, runs in _places(state).items() if runs or name != "failed")
        held = [run for run in state.elsewhere if read_finished(self._folder / run.name) is None]
        unfinished = [*state.running, *held, *state.waiting]
        paces = measure_paces([*unfinished, *state.finished], self._folder)
        # Who holds a run is taken for another sweep on this folder, which takes of the waiting runs as well.
        predicted = forecast(unfinished, self._folder, paces, num_workers=max(num_workers, 1) + len(held))
        return f"{text}; {describe_forecast(predicted)}" if unfinished else text


class LiveView(PlainView):
    """The same lines, and below them a table that moves."""

    _seconds_between_looks = 1.0

    def __init__(self, console: Console, folder: Path) -> None:
        """Show a table on a terminal."""
        super().__init__(console, folder)
        self._next_look = time.monotonic()
        self._live = Live(console=console, auto_refresh=False, transient=True)

    def __enter__(self) -> "LiveView":
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def _show(self, state: State, summary: str) -> None:
        """Draw the table."""
        table = Table("run", "epoch", "examples/s", "validation", "left", "last line of its log")
        paces = measure_paces([*state.running, *state.finished], self._folder)
        for run in state.running:
            pace = paces.get(kind_of(run.config))
            left = duration(seconds_left(run, self._folder, pace)) if pace else "-"
            log = Text(" ".join(last_lines(self._folder / run.name, 1)), overflow="ellipsis", no_wrap=True)
            name = Text(run.name, overflow="fold")
            table.add_row(name, _epoch(run, self._folder), *_facts(run, self._folder), left, log)
        self._live.update(Group(table, Text(summary)), refresh=True)


def open_view(console: Console, folder: Path) -> PlainView:
    """Give the view that fits the terminal; use it in a `with` statement."""
    return (LiveView if console.is_terminal else PlainView)(console, folder)


def describe_forecast(predicted: Forecast | None) -> str:
    """Say how long it will take, until when, and what that leaves out."""
    if predicted is None:
        return "no pace is known yet"
    until = datetime.now() + timedelta(seconds=predicted.seconds)
    text = f"{'at most ' if predicted.is_bound else 'about '}{duration(predicted.seconds)}, until {until:%a %H:%M}"
    notes = []
    if predicted.is_bound:
        notes.append("the stopping rule may end runs before their largest number of epochs")
    if predicted.lacks_attacks:
        notes.append("without compilation, attacks and figures")
    return text + (f" ({'; '.join(notes)})" if notes else "")


def show_runs(console: Console, runs: Sequence[SweepRun], state: State) -> None:
    """List the runs with what each sets, and where it is."""
    table = Table("run", "where", "sets")
    where = {run.name: name for name, those in _places(state).items() for run in those}
    for run in runs:
        sets = " ".join(f"{field}={value}" for field, value in run.overrides.items())
        table.add_row(Text(run.name, overflow="fold"), where[run.name], Text(sets))
    console.print(table)


def show_end(console: Console, state: State, folder: Path, command: str, failed_before: Collection[str] = ()) -> None:
    """Say what came of all runs: the failed ones with their log and what tries them again, and what is left.

    Args:
        console: Where it is said.
        state: Where the runs are.
        folder: Of the sweep.
        command: What goes on with it.
        failed_before: Names of runs that had failed before this command, which did not try them again.
    """
    say(console, f"\n{len(state.finished)} finished, {len(state.failed)} failed, in {folder}")
    for run in state.failed:
        workdir = folder / run.name
        failure = read_failure(workdir)
        when = "failed earlier, and not tried again" if run.name in failed_before else "failed"
        if failure is None:  # it could not be opened, and so nothing was written into its folder
            say(console, f"{when}: {run.name}: {state.reasons.get(run.name, 'its failed.json is gone')}")
            continue
        how = f"killed by {failure['killed_by']}" if failure["killed_by"] else f"exit status {failure['exit_status']}"
        say(console, f"{when}: {run.name} ({how}), log {workdir / LOG}")
        say(console, "\n".join(f"    {line}" for line in failure["last_lines"][-3:]))
        say(console, f"  to try it again: {train_command(workdir)}")
    if state.failed:
        say(console, f"to try all of them again: {command} --retry_failed")
    if left := len(state.waiting) + len(state.elsewhere):
        say(console, f"{left} left; the same command goes on with them: {command}")


def _places(state: State) -> dict[str, list[SweepRun]]:
    """Return the runs by the word for where they are."""
    return {
        "finished": state.finished,
        "running": state.running,
        "elsewhere": state.elsewhere,
        "left": state.waiting,
        "failed": state.failed,
    }


def _epoch(run: SweepRun, folder: Path) -> str:
    """Say how far a run is."""
    return f"epoch {len(read_epochs(folder / run.name))} of {run.config.training.num_epochs}"


def _facts(run: SweepRun, folder: Path) -> tuple[str, str]:
    """Return the speed and the validation accuracy of the last epoch."""
    rows = read_epochs(folder / run.name)
    if not rows:
        return "-", "-"
    return f"{rows[-1]['examples_per_second']:,.0f}", f"{rows[-1]['validation_accuracy']:.2%}"
