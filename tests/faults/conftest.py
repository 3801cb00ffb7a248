"""Runs that tests of faults start from."""

import pytest
from first_epoch import train_one_epoch
from quick import quick_config

from jl1.experiment import train_and_evaluate


@pytest.fixture(scope="package")
def straight(tmp_path_factory):
    """A run of `quick_config()` that nothing has disturbed."""
    workdir = tmp_path_factory.mktemp("straight") / "run"
    train_and_evaluate(quick_config(), workdir)
    return workdir


@pytest.fixture
def begun(tmp_path):
    """The same run, interrupted after its first epoch."""
    train_one_epoch(quick_config(), tmp_path / "run")
    return tmp_path / "run"
