"""Several processes as one run: who they are, what they agree on, and `jl1 train` on two of them."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from quick import OVERRIDES, run_jl1

from jl1.errors import UserError
from jl1.records import read_metrics
from jl1.runs.processes import Meeting, find_meeting

NOTHING = Meeting(None, None, None)
BY_CLUSTER = NOTHING
"""`jax.distributed` asks the launcher itself."""

SLURM = {"SLURM_STEP_NUM_TASKS": "8", "SLURM_PROCID": "5"}


@pytest.mark.parametrize(
    ("given", "environ", "expected"),
    [
        (NOTHING, {}, None),
        (NOTHING, {"SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"}, None),
        (NOTHING, {"SLURM_NTASKS": "8", "SLURM_PROCID": "0"}, None),  # a batch script without srun
        (NOTHING, SLURM, BY_CLUSTER),
        (NOTHING, {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "1"}, BY_CLUSTER),
        (NOTHING, {"JAX_COORDINATOR_ADDRESS": "a:1"} | SLURM, Meeting("a:1", 8, 5)),
        (Meeting("a:1", None, None), {"PMI_SIZE": "2", "PMI_RANK": "1"}, Meeting("a:1", 2, 1)),
        (Meeting("a:1", 4, None), {"JOB_COMPLETION_INDEX": "3"}, Meeting("a:1", 4, 3)),
        (Meeting("a:1", 2, 0), SLURM, Meeting("a:1", 2, 0)),
    ],
)
def test_a_process_finds_out_whether_it_is_one_of_several(given, environ, expected):
    assert find_meeting(given, environ) == expected


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (Meeting(None, 2, None), "--num_processes and --process_id need --coordinator"),
        (Meeting("a:1", None, 1), "needs --num_processes too"),
        (Meeting("a:1", 2, None), "needs --process_id too"),
    ],
)
def test_what_is_missing_is_asked_for(given, said):
    with pytest.raises(UserError, match=said):
        find_meeting(given, {})


def free_port():
    """Ask the system for a port that nobody has."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def run_both(command_of, cwd, timeout):
    """Start two processes of two devices each and return what they wrote; stuck ones are killed."""
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=2", "JAX_PLATFORMS": "cpu", "COLUMNS": "200"}
    options = {"cwd": cwd, "env": os.environ | flags, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    both = [subprocess.Popen(command_of(number), text=True, **options) for number in range(2)]
    try:
        written = [process.communicate(timeout=timeout)[0] for process in both]
    finally:
        for process in both:
            process.kill()
            process.wait()
    assert [process.returncode for process in both] == [0, 0], "\n".join(written)
    return written


def test_processes_agree_on_everything(tmp_path):
    (tmp_path / "run" / "evaluation").mkdir(parents=True)
    (tmp_path / "run" / "config.json").write_text("{}")
    (tmp_path / "run" / "evaluation" / "some.npz").write_bytes(b"123")
    script, address = str(Path(__file__).parents[1] / "two_processes.py"), f"127.0.0.1:{free_port()}"
    command = [sys.executable, script, address]
    written = run_both(lambda number: [*command, str(number), str(tmp_path / "run")], tmp_path, timeout=240)
    assert all(text.endswith("agreed\n") for text in written)
    assert (tmp_path / "run" / "written").read_text() == "0"


@pytest.mark.slow
def test_two_processes_train_as_one(tmp_path):
    """Two epochs and the first one's continuation by one process: `jl1 train` with the flags of a user."""
    config = ["--config=quickstart:plain", *OVERRIDES, "--config.training.num_epochs=1"]
    status, text = run_jl1("train", *config, "--workdir=one", cwd=tmp_path)
    assert status == 0, text
    meeting = [f"--coordinator=127.0.0.1:{free_port()}", "--num_processes=2"]
    command = [sys.executable, "-m", "jl1", "train", *config, "--workdir=two", *meeting]
    first, second = run_both(lambda number: [*command, f"--process_id={number}"], tmp_path, timeout=600)
    assert "devices: 4 x cpu in 2 processes" in first
    assert "epoch" not in second
    one, two = (json.loads((tmp_path / name / "result.json").read_text()) for name in ("one", "two"))
    assert two["device"]["count"] == 4
    assert read_metrics(tmp_path / "two")[0]["loss"] == pytest.approx(
        read_metrics(tmp_path / "one")[0]["loss"], rel=1e-4
    )
    for row, other in zip(one["accuracies"], two["accuracies"], strict=True):
        assert row["accuracy"] == pytest.approx(other["accuracy"], abs=0.01)
    command = ["evaluate", "--workdir=two", "--attacks=clean", "--epsilons=0.1"]
    status, text = run_jl1(*command, cwd=tmp_path)  # what four devices wrote, one reads
    assert status == 0, text
    assert (
        json.loads((tmp_path / "two" / "evaluation.json").read_text())["accuracies"][0]["accuracy"]
        == (two["accuracies"][0]["accuracy"])
    )
