"""Runs that tests of faults start from."""

import pytest
from quick import quick_config

from jl1.experiment import train_and_evaluate
from jl1.reporting import Reporter


class StopAfter(Reporter):
    """Knows when a number of epochs is over, for `should_stop`, and keeps the notices."""

    def __init__(self, num_epochs):
        self.num_epochs, self.epochs, self.notices = num_epochs, [], []

    def finished_epoch(self, row):
        self.epochs.append(row["epoch"])

    def notice(self, text):
        self.notices.append(text)

    def should_stop(self):
        return len(self.epochs) == self.num_epochs


@pytest.fixture(scope="package")
def straight(tmp_path_factory):
    """A run of `quick_config()` that nothing has disturbed."""
    workdir = tmp_path_factory.mktemp("straight") / "run"
    train_and_evaluate(quick_config(), workdir)
    return workdir


@pytest.fixture
def begun(tmp_path):
    """The same run, interrupted after its first epoch."""
    stop = StopAfter(1)
    train_and_evaluate(quick_config(), tmp_path / "run", reporter=stop, should_stop=stop.should_stop)
    return tmp_path / "run"
