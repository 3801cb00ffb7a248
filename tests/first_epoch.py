"""Runs that are interrupted after their first epoch."""

from jl1.experiment import train_and_evaluate
from jl1.runs.reporting import Reporter


class _FirstEpoch(Reporter):
    """Knows when the first epoch is over."""

    is_over = False

    def finished_epoch(self, row):
        self.is_over = True


def train_one_epoch(config, workdir):
    """Train the first epoch of a run, and evaluate what is there."""
    reporter = _FirstEpoch()
    train_and_evaluate(config, workdir, reporter=reporter, should_stop=lambda: reporter.is_over)
