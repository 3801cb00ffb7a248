"""Short runs of the real program on real digits, for the tests of the shell."""

import os
import subprocess
import sys

import jax
import numpy as np

from jl1.configuration.files import config_from_dict, load_config
from jl1.records import read_config
from jl1.runs.checkpoints import Checkpoints
from jl1.runs.problems import create_problem, load_data
from jl1.runs.trainer import snapshot_template

OVERRIDES = (
    "--config.training.batch_size=400",
    "--config.training.num_epochs=3",
    "--config.evaluation.epsilons=0.1,",
    "--config.evaluation.pgd_steps=2",
)


def quick_config(name="quickstart:plain", **fields):
    """Return a config of three epochs; `fields` are dotted names with __ for the dot."""
    config = load_config(name)
    config.training.batch_size, config.training.num_epochs = 400, 3
    config.evaluation.epsilons, config.evaluation.pgd_steps = (0.1,), 2
    config.update_from_flattened_dict({field.replace("__", "."): value for field, value in fields.items()})
    return config


def start_jl1(*arguments, cwd, under=(), **environment):
    """Start the command line in a process of its own, with the warnings and checks of a user.

    `under` is a command that starts the one behind it, as `nice` does; `environment` is added to that of the tests.
    """
    return subprocess.Popen(
        [*under, sys.executable, "-m", "jl1", *arguments],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "COLUMNS": "200", **environment},
    )


def run_jl1(*arguments, **options):
    """Run the command line and return its exit status and all it wrote; the options are those of `start_jl1`."""
    process = start_jl1(*arguments, **options)
    output, _ = process.communicate(timeout=300)
    return process.returncode, output


def final_params(workdir):
    """Read the parameters of a run's newest checkpoint as a list of arrays."""
    config = config_from_dict(read_config(workdir))
    template = snapshot_template(config, create_problem(config, load_data(config)).state)
    with Checkpoints(workdir / "checkpoints") as checkpoints:
        restored = checkpoints.restore(template, notice=print)
    return [np.asarray(leaf) for leaf in jax.tree.leaves(restored.snapshot.state)]


def same_bits(one, other):
    """Compare two lists of arrays to the last bit."""
    return len(one) == len(other) and all(np.array_equal(a, b, equal_nan=True) for a, b in zip(one, other, strict=True))
