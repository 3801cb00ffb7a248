"""One process a run: who has it, and that it is free as soon as that one is gone."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from quick import quick_config

from jl1.configuration.files import config_to_dict
from jl1.errors import RunHeldError, UserError
from jl1.experiment import train_and_evaluate
from jl1.runs.folder import open_run
from jl1.runs.lock import hold_run, holder

HOLD = """\
import sys, time
from pathlib import Path
from jl1.runs.lock import hold_run
with hold_run(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def held(tmp_path):
    """The folder of a run that another process holds, and that process."""
    workdir = open_run(tmp_path / "run", config_to_dict(quick_config()))
    with subprocess.Popen([sys.executable, "-c", HOLD, str(workdir)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        yield workdir, process
        process.kill()


def test_a_run_that_another_process_has_is_refused_with_its_name_and_free_when_that_is_killed(held):
    workdir, process = held
    before = {path: path.read_bytes() for path in workdir.iterdir()}
    with pytest.raises(RunHeldError, match=rf"is held by pid {process.pid} on \S+ since \d{{4}}-\d\d-\d\d"):
        train_and_evaluate(quick_config(), workdir)
    assert {path: path.read_bytes() for path in workdir.iterdir()} == before
    process.send_signal(signal.SIGKILL)
    process.wait()
    with hold_run(workdir):
        assert f'"pid": {process.pid}' not in (workdir / "holder.json").read_text()


@pytest.mark.parametrize("content", ["[]", "3", "null", "{}", '{"pi', b"\xff"])
def test_a_damaged_name_of_the_holder_is_no_reason_for_a_traceback(content, tmp_path):
    (tmp_path / "holder.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    assert holder(tmp_path) == "another process"


def test_a_process_may_take_a_run_again_that_it_has(tmp_path):
    with hold_run(tmp_path / "run"), hold_run(tmp_path / "run"):
        assert Path(tmp_path / "run" / "lock").exists()


def test_a_folder_that_cannot_be_made_is_explained(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(UserError, match=r"cannot write to .*choose another folder with --workdir"),
        hold_run(tmp_path / "file" / "run"),
    ):
        pass
