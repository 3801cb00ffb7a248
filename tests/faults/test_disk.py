"""A full disk, a folder that goes or turns read-only in mid-run: one clear error, nothing lost, the same bits."""

import os
import shutil
import subprocess

import pytest
from leftovers import leftovers
from quick import quick_config, run_jl1

from jl1.cli import main
from jl1.errors import UserError
from jl1.experiment import train_and_evaluate
from jl1.runs.reporting import Reporter

EVALUATE = ("--epsilons=0.1", "--attacks=fgsm", "--max_points=40", "--batch_size=20")
AUDIT = ("--epsilon=0.1", "--max_points=40", "--num_examined=20", "--batch_size=20")


SWEEP = """\
from jl1.configuration.files import load_config

def get_config():
    config = load_config("quickstart:plain")
    config.training.batch_size, config.training.num_epochs = 400, 3
    config.evaluation.epsilons, config.evaluation.pgd_steps = (0.1,), 2
    return config

def sweep(add):
    add(seed=0)
"""


def with_files_up_to(num_bytes):
    """A command that starts another one which cannot write larger files: what a full disk is where none can be made."""
    return ("sh", "-c", f'ulimit -f {num_bytes // 512} && exec "$@"', "sh")


@pytest.fixture
def disk(tmp_path):
    """A disk of 15 MB of its own, with room for two checkpoints of model C."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if not shutil.which("mount") or _mount("-t", "tmpfs", "-o", "size=15m", "tmpfs", str(folder)) != 0:
        pytest.skip("needs the right to mount a small disk")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def _mount(*arguments):
    return subprocess.run(["mount", *arguments], capture_output=True, check=False).returncode


def check_goes_on(workdir, straight):
    """Give the same command again, and compare with what nothing has disturbed."""
    train_and_evaluate(quick_config(), workdir)
    assert leftovers(workdir) == leftovers(straight)


def test_a_checkpoint_that_cannot_be_written_is_one_clear_error_and_the_run_goes_on_later(begun, straight):
    status, output = run_jl1("train", "--workdir=run", cwd=begun.parent, under=with_files_up_to(500_000))
    assert status == 2, output
    assert "error: cannot write the checkpoint of epoch 2 in " in output  # asyncio may complain before and after it
    assert "File too large" in output
    assert "give the same command again" in output
    assert sorted(path.name for path in (begun / "checkpoints").glob("?")) == ["1"]
    check_goes_on(begun, straight)


@pytest.mark.parametrize(("command", "flags"), [("evaluate", EVALUATE), ("audit", AUDIT)])
def test_verdicts_that_cannot_be_written_are_one_clear_error(command, flags, straight, tmp_path):
    copy = shutil.copytree(straight, tmp_path / "run")
    before = leftovers(copy)
    status, output = run_jl1(command, "--workdir=run", *flags, cwd=tmp_path, under=with_files_up_to(512))
    assert status == 2, output
    assert "error: cannot go on in run: File too large" in output
    assert "Traceback" not in output
    assert leftovers(copy) == before


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
@pytest.mark.parametrize("name", ["holder.json", "result.json"])
def test_a_file_that_meets_a_full_disk_is_one_clear_error(name, begun, straight):
    (begun / f"{name}.tmp").symlink_to("/dev/full")
    with pytest.raises(UserError, match=r"cannot go on in .*: No space left on device .*give the same command again"):
        train_and_evaluate(quick_config(), begun)
    (begun / f"{name}.tmp").unlink()
    check_goes_on(begun, straight)


def test_a_disk_that_fills_up_in_training_costs_the_epoch_in_flight(disk, straight, monkeypatch, capsys):
    monkeypatch.chdir(disk)
    fields = {"training.batch_size": 400, "training.num_epochs": 3, "evaluation.pgd_steps": 2}
    flags = [*(f"--config.{name}={value}" for name, value in fields.items()), "--config.evaluation.epsilons=0.1,"]
    assert main(["train", "--config=quickstart:plain", *flags, "--workdir=run"]) == 2
    error = capsys.readouterr().err.replace("\n", " ")
    assert "cannot write the checkpoint of epoch 3" in error
    assert "no space left on the disk" in error
    assert sorted(path.name for path in (disk / "run" / "checkpoints").iterdir()) == ["1", "2"]
    (disk / "filler").write_bytes(bytes(shutil.disk_usage(disk).free))
    for command, more in (("train", ()), ("evaluate", EVALUATE), ("audit", AUDIT)):
        assert main([command, "--workdir=run", *more]) == 2
        assert "No space left on device" in capsys.readouterr().err.replace("\n", " ")
    assert _mount("-o", "remount,size=99m", str(disk)) == 0
    check_goes_on(disk / "run", straight)


@pytest.mark.slow
def test_a_sweep_on_a_full_disk_fails_its_runs_and_goes_on_with_them_later(straight, tmp_path):
    (tmp_path / "few.py").write_text(SWEEP)
    flags = ("sweep", "--config=few.py", "--workdir=out", "--workers=1")
    status, output = run_jl1(*flags, cwd=tmp_path, under=with_files_up_to(500_000))
    assert status == 1, output
    assert "1 failed" in output
    (failure,) = (tmp_path / "out").glob("*/failed.json")
    assert "cannot write the checkpoint of epoch 1" in failure.read_text()
    status, output = run_jl1(*flags, "--retry_failed", cwd=tmp_path)
    assert status == 0, output
    assert leftovers(failure.parent) == leftovers(straight)


class AfterFirstEpoch(Reporter):
    """Does something to the run when its first epoch is recorded."""

    def __init__(self, action):
        self._action = action

    def finished_epoch(self, row):
        if row["epoch"] == 1:
            self._action()


def test_a_folder_that_is_taken_away_in_mid_run_is_one_clear_error(straight, tmp_path):
    workdir, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    with pytest.raises(UserError, match=r"cannot go on in .*run: No such file or directory \(.*metrics\.jsonl\)"):
        train_and_evaluate(quick_config(), workdir, reporter=AfterFirstEpoch(lambda: workdir.rename(elsewhere)))
    assert not workdir.exists()
    check_goes_on(elsewhere, straight)


def set_mode(workdir, mode):
    """Change the permissions of all folders of a run."""
    for folder in [workdir, *(path for path in workdir.rglob("*") if path.is_dir())]:
        folder.chmod(mode)


def test_a_folder_that_turns_read_only_in_mid_run_is_one_clear_error(straight, tmp_path, capsys):
    (tmp_path / "read only").mkdir(mode=0o500)
    if os.access(tmp_path / "read only", os.W_OK):
        pytest.skip("root may write anywhere")
    workdir = tmp_path / "run"
    with pytest.raises(UserError, match=r"cannot write the checkpoint of epoch 2 in .*Permission denied"):
        train_and_evaluate(quick_config(), workdir, reporter=AfterFirstEpoch(lambda: set_mode(workdir, 0o500)))
    for command, flags in (("train", ()), ("evaluate", EVALUATE), ("audit", AUDIT)):
        assert main([command, f"--workdir={workdir}", *flags]) == 2
        assert "Permission denied" in capsys.readouterr().err.replace("\n", " ")
    set_mode(workdir, 0o700)
    check_goes_on(workdir, straight)
