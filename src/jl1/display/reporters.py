"""What a terminal is told while a run goes on: plain lines, and a bar that moves where there is a live terminal."""

import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from jl1.config import Config
from jl1.configuration.loss_in_words import describe_loss
from jl1.data import Dataset
from jl1.display.terminal import duration, say
from jl1.runs.reporting import Reporter

_SECONDS_BETWEEN_LINES = 30
_EPOCHS_OF_A_PACE = 5


class _Pace(NamedTuple):
    """How fast a figure has come along: what it is, when it began and was last spoken of, and with how many points."""

    what: str
    start: float
    said: float
    began_with: int


class PlainReporter(Reporter):
    """One line an epoch, for logs and pipes."""

    def __init__(self, console: Console) -> None:
        """Write to a console."""
        self._console = console
        self._max_epochs = 0
        self._epochs_before = 0
        self._ends = deque[float](maxlen=_EPOCHS_OF_A_PACE + 1)
        self._pace = _Pace("", 0.0, 0.0, 0)

    def started(self, config: Config, data: Dataset, workdir: Path, num_epochs: int) -> None:
        """Say what is trained, on what, and where."""
        self._max_epochs, self._epochs_before = config.training.num_epochs, num_epochs
        self._say(f"model {config.model.name} on {data.name}: {_sizes(data)}; {data.source}")
        self._say(describe_loss(config))
        self._say(f"folder {workdir}" + (f", resumed after epoch {num_epochs}" if num_epochs else ""))

    def finished_epoch(self, row: dict[str, Any]) -> None:
        """Write the line of an epoch, with the time left at the pace of the last ones."""
        self._ends.append(time.perf_counter())
        # the first began with compilation: all that is known of the next ones is how long its steps took
        whole = median(end - start for start, end in pairwise(self._ends)) if len(self._ends) > 1 else row["seconds"]
        left = whole * (self._max_epochs - row["epoch"])
        self._say(
            f"epoch {row['epoch']:>3}/{self._max_epochs}  {_losses(row)}  "
            f"validation {row['validation_accuracy']:.2%}  {row['examples_per_second']:.0f} examples/s  "
            f"{duration(left)} left"
        )

    def measured(self, what: str, done: int, total: int) -> None:
        """Say when a figure is done, and on the way to a slow one now and then how long it will take."""
        now = time.perf_counter()
        if what != self._pace.what:
            self._pace = _Pace(what, now, now, done)
        if done == total:
            self._say(f"measured: {what}")
        elif now - self._pace.said >= _SECONDS_BETWEEN_LINES and done > self._pace.began_with:
            left = (now - self._pace.start) / (done - self._pace.began_with) * (total - done)
            self._say(f"{what}: {done:,}/{total:,} points, {duration(left)} left")
            self._pace = self._pace._replace(said=now)

    def kept(self, what: str) -> None:
        """Say it."""
        self._say(f"kept: {what}")

    def examined(self, what: str) -> None:
        """Say it."""
        self._say(f"examined: {what}")

    def notice(self, text: str) -> None:
        """Say it."""
        self._say(f"note: {text}")

    def _say(self, text: str) -> None:
        say(self._console, text)


class LiveReporter(PlainReporter):
    """The same lines, and below them a bar that moves."""

    def __init__(self, console: Console) -> None:
        """Show a bar on a terminal."""
        super().__init__(console)
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[facts]}", markup=False),
        )
        self._progress = Progress(*columns, TextColumn("left"), TimeRemainingColumn(), console=console, transient=True)
        self._task: TaskID | None = None
        self._validation = "-"

    def __enter__(self) -> "LiveReporter":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def trained(self, epoch: int, done: int, total: int, row: dict[str, Any]) -> None:
        """Move the bar of the whole training."""
        facts = f"{_losses(row)}  validation {self._validation}  {row['examples_per_second']:.0f} examples/s"
        everything = total * (self._max_epochs - self._epochs_before)
        done_here = total * (epoch - 1 - self._epochs_before) + done
        self._move(f"epoch {epoch}/{self._max_epochs}", done_here, everything, facts)

    def finished_epoch(self, row: dict[str, Any]) -> None:
        """Write the line of an epoch above the bar."""
        self._validation = f"{row['validation_accuracy']:.2%}"
        super().finished_epoch(row)

    def measured(self, what: str, done: int, total: int) -> None:
        """Move the bar of one figure."""
        self._move(what, done, total, f"{done}/{total} points")

    def _move(self, description: str, done: int, total: int, facts: str) -> None:
        """Move the bar, or begin a new one when another thing is measured."""
        training = description.startswith("epoch")
        if self._task is None or (done == 0 and not training):
            if self._task is not None:
                self._progress.remove_task(self._task)
            self._task = self._progress.add_task(description, total=total, facts=facts)
        self._progress.update(self._task, description=description, completed=done, total=total, facts=facts)


@contextmanager
def open_reporter(console: Console) -> Iterator[PlainReporter]:
    """Give the reporter that fits the terminal."""
    reporter = LiveReporter(console) if console.is_terminal else PlainReporter(console)
    with reporter if isinstance(reporter, LiveReporter) else nullcontext():
        yield reporter


def _sizes(data: Dataset) -> str:
    """Say how many points there are of each kind."""
    parts = (("training", data.train), ("validation", data.validation), ("test", data.test))
    return " / ".join(f"{len(split.labels):,} {name}" for name, split in parts)


def _losses(row: dict[str, Any]) -> str:
    """Write the loss and its parts."""
    return f"loss {row['loss']:.4f}  cross-entropy {row['cross_entropy']:.4f}  penalty {row['penalty']:.3g}"
