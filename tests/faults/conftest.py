"""Runs that tests of faults start from."""

import pytest
from first_epoch import train_one_epoch
from quick import quick_config

from jl1.experiment import train_and_evaluate


@pytest.fixture(scope="package", autouse=True)
def _own_compiled_programs(tmp_path_factory):
    """Keep what the programs of these tests compile apart: a kill or a full disk cuts a file of it off."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path_factory.mktemp("xla")))
        yield


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
