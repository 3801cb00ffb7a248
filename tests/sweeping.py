"""A sweep of four small runs, and how tests look on while it goes."""

import time
from pathlib import Path

TINY = """\
from jl1.config import default_config
from jl1.runs.folder import open_run

def get_config(arg="2000"):
    config = default_config()
    config.data.name = "mnist_5k"
    config.penalty.lam = 0.0
    config.training.num_epochs, config.training.batch_size, config.training.stopping = 1, int(arg), "fixed"
    config.evaluation.epsilons, config.evaluation.pgd_steps = (0.1,), 1
    return config

def sweep(add):
    for seed in range(3):
        add(**{"seed": seed})
    add(**{"seed": 9, "model.padding": "SAME"})  # valid, until the network is made: C has no convolution
"""


def tiny_sweep(folder):
    """Write the config file of four small runs, of which the last fails."""
    file = folder / "tiny.py"
    file.write_text(TINY)
    return f"--config={file}"


def log_of(workdir):
    """Read the log of a run."""
    return (workdir / "log.txt").read_text()


def wait_until(condition, process, seconds=120):
    """Wait until something is so, as long as a process runs."""
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < end
        time.sleep(0.05)


def is_alive(pid):
    """Ask Linux whether a process still runs."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
