"""SIGKILL at random moments, again and again, until the program has got to its end: the same bits, and no litter."""

import logging
import os
import random
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest
from leftovers import leftovers
from quick import run_jl1, start_jl1

from jl1 import records

LOGGER = logging.getLogger(__name__)  # --log-cli-level=INFO shows the moments of the kills
SEED = 6
FIELDS = {
    "training.num_epochs": 4,
    "training.weights": "best",
    "penalty.name": "class_sum_l1",
    "penalty.lam": 1.0,
    "adversarial.epsilon": 0.1,
    "evaluation.epochs": (2,),
    "evaluation.attacks": ("fgsm", "pgd"),
    "evaluation.max_points": 100,
    "evaluation.batch_size": 50,
}
"""A run with all there is to be lost: best weights, figures on the way, a trace, attacks after training."""

CONFIG = f"""\
from jl1.configuration.files import load_config

def get_config():
    config = load_config("quickstart")
    config.training.batch_size = 400
    config.evaluation.epsilons, config.evaluation.pgd_steps = (0.1,), 2
    config.update_from_flattened_dict({FIELDS!r})
    return config

def sweep(add):
    for seed in range(2):
        add(seed=seed)
"""

COMMANDS = {
    "train": ("train", "--config=few.py", "--workdir=run"),
    "evaluate": (
        *("evaluate", "--workdir=run", "--attacks=clean,noise,fgsm,pgd,apgd_ce", "--epsilons=0.1"),
        *("--max_points=200", "--batch_size=20", "--pgd_steps=10"),
    ),
    "audit": ("audit", "--workdir=run", "--epsilon=0.1", "--max_points=60", "--num_examined=20", "--batch_size=20"),
    "sweep": ("sweep", "--config=few.py", "--workdir=out", "--workers=2", "--retry_failed"),
}


class Undisturbed(NamedTuple):
    """A command that nobody disturbed.

    Attributes:
        folder: Where it ran.
        seconds: From its first write to its end.
    """

    folder: Path
    seconds: float


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A function that runs a command without kills, once for all tests."""

    @cache
    def run(name):
        for attempt in ("first", "second"):  # the first one compiles, as no later one will
            folder = prepare(name, tmp_path_factory.mktemp(attempt) / name, run)
            process = start(name, folder)
            began = time.monotonic()
            output, _ = process.communicate(timeout=900)
            assert process.returncode == 0, output
        return Undisturbed(folder, time.monotonic() - began)

    return run


def prepare(name, folder, undisturbed):
    """Make a folder in which a command can start: with the config file, or with a trained run."""
    if name in ("evaluate", "audit"):
        return shutil.copytree(undisturbed("train").folder, folder)
    folder.mkdir()
    (folder / "few.py").write_text(CONFIG)
    return folder


def start(name, folder):
    """Start a command, and wait until it begins to write: then it has taken the lock of a run, and said so."""
    before = holders(folder)
    process = start_jl1(*COMMANDS[name], cwd=folder)
    while process.poll() is None and holders(folder) == before:
        time.sleep(0.01)
    return process


def holders(folder):
    """Read who took the locks of the runs in a folder."""
    return {path: path.read_bytes() for path in folder.rglob("holder.json")}


def children(folder):
    """List the processes that a sweep has started in a folder."""
    pids = []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended meanwhile
            is_child = b"--until_stdin_closes" in (entry / "cmdline").read_bytes()
            pids += [int(entry.name)] if is_child and (entry / "cwd").readlink() == folder else []
    return pids


def kill_at_random(name, folder, seconds, rng):
    """Start a command and kill it after a random while, of a sweep at times a child alone; say if it was at work."""
    process = start(name, folder)
    delay, chance = rng.uniform(0, seconds), rng.random()
    with suppress(subprocess.TimeoutExpired):
        process.wait(delay)
    victim = ([process.pid] + (children(folder) if chance < 0.5 else []))[-1]
    was_running = process.poll() is None
    if was_running:
        with suppress(ProcessLookupError):
            os.kill(victim, signal.SIGKILL)
    output, _ = process.communicate(timeout=900)
    killed = process.returncode == -signal.SIGKILL or (victim != process.pid and process.returncode == 1)
    LOGGER.info("%s: %s", folder.name, f"killed {delay:.2f} s after its first write" if killed else "over")
    assert killed or process.returncode == 0, output
    return killed


def survive(name, undisturbed, tmp_path, num_kills):
    """Kill a command so many times, in a new folder whenever it has got to its end; return the folders."""
    rng = random.Random(SEED)
    kills, folders = 0, []
    while kills < num_kills:
        folders.append(prepare(name, tmp_path / f"{name}{len(folders)}", undisturbed))
        is_over = False
        while kills < num_kills and not is_over:
            killed = kill_at_random(name, folders[-1], undisturbed(name).seconds, rng)
            kills += killed
            is_over = not killed or (name == "train" and records.is_finished(folders[-1] / "run"))
    if not is_over:
        status, output = run_jl1(*COMMANDS[name], cwd=folders[-1])
        assert status == 0, output
    LOGGER.info("%s: %d kills, %d times to the end", name, kills, len(folders))
    return folders


def runs_in(folder):
    """List the folders of runs, by their place."""
    return {path.parent.relative_to(folder).as_posix(): path.parent for path in folder.rglob("config.json")}


def check_kills(name, undisturbed, tmp_path, num_kills):
    """Compare what is left after kills with what is left without."""
    expected = {place: leftovers(workdir) for place, workdir in runs_in(undisturbed(name).folder).items()}
    for folder in survive(name, undisturbed, tmp_path, num_kills):
        found = {place: leftovers(workdir) for place, workdir in runs_in(folder).items()}
        assert found.keys() == expected.keys()
        for place in expected:
            assert found[place].keys() == expected[place].keys()  # nothing lost, no litter
            assert [key for key in expected[place] if found[place][key] != expected[place][key]] == []


def test_ten_kills_of_a_training_change_no_bit(undisturbed, tmp_path):
    check_kills("train", undisturbed, tmp_path, 10)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/cwd").exists(), reason="finds the processes of a sweep in /proc")
@pytest.mark.parametrize(("name", "num_kills"), [("train", 50), ("evaluate", 20), ("audit", 10), ("sweep", 20)])
def test_a_hundred_kills_change_no_bit(name, num_kills, undisturbed, tmp_path):
    check_kills(name, undisturbed, tmp_path, num_kills)
