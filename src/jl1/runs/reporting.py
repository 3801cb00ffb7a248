"""What a run tells whoever watches it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from jl1.config import Config
from jl1.data import Dataset
from jl1.errors import InterruptedEarlyError


class Reporter:
    """Told what a run does; this one is silent. `display.reporters` has those for a terminal."""

    def started(self, config: Config, data: Dataset, workdir: Path, num_epochs: int) -> None:
        """Training starts, or goes on after `num_epochs` epochs."""

    def trained(self, epoch: int, done: int, total: int, row: dict[str, Any]) -> None:
        """So many of an epoch's examples are done; `row` has the means so far."""

    def finished_epoch(self, row: dict[str, Any]) -> None:
        """An epoch is over and its checkpoint written; `row` is its line in metrics.jsonl."""

    def measured(self, what: str, done: int, total: int) -> None:
        """So many examples of a final figure are done."""

    def kept(self, what: str) -> None:
        """A figure is there from an earlier time, all of it."""

    def examined(self, what: str) -> None:
        """A measure of an audit begins that has no number of examples."""

    def notice(self, text: str) -> None:
        """Something that the user should know."""


class StoppableReporter(Reporter):
    """Passes on the figures of a complete training, and ends them at the next batch when that is asked for."""

    def __init__(self, reporter: Reporter, should_stop: Callable[[], bool]) -> None:
        """Take who is told, and who is asked."""
        self._reporter, self._should_stop = reporter, should_stop

    def measured(self, what: str, done: int, total: int) -> None:
        """Pass it on, unless the run is to stop; batches of attacks that are finished are kept."""
        if self._should_stop():
            raise InterruptedEarlyError(
                f"training is complete; stopped before its figures were ({what}): the same command goes on with them"
            )
        self._reporter.measured(what, done, total)

    def kept(self, what: str) -> None:
        """Pass it on."""
        self._reporter.kept(what)

    def notice(self, text: str) -> None:
        """Pass it on."""
        self._reporter.notice(text)
