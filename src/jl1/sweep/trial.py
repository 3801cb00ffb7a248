"""A few timed steps of a run, to know its pace before it is started."""

import time

import jax
import jax.numpy as jnp

from jl1.config import Config
from jl1.data import Dataset, epoch_indices
from jl1.runs.problems import create_problem
from jl1.sweep.pace import Pace
from jl1.training import Examples, make_epoch, zero_totals

_SECONDS = 1.0


def time_steps(config: Config, data: Dataset) -> tuple[Pace, float]:
    """Run the first steps of a config for about a second.

    Args:
        config: Settings of a run.
        data: Its data.

    Returns:
        The pace, from the steps alone, and the seconds of compilation before them.
    """
    problem = create_problem(config, data)
    epoch_fn = make_epoch(problem.gradient_fn, problem.optimizer)
    examples = Examples(*(jnp.asarray(part) for part in data.train))
    batches = epoch_indices(len(data.train.labels), config.training.batch_size, seed=0, epoch=1)

    def seconds(start: int, stop: int) -> float:
        state, begin = jax.tree.map(jnp.copy, problem.state), time.perf_counter()  # an epoch donates its state
        jax.block_until_ready(epoch_fn(state, zero_totals(), examples, batches, start, stop, problem.hyperparameters))
        return time.perf_counter() - begin

    compilation = seconds(0, 1)
    one = seconds(0, 1)
    num_steps = min(max(int(_SECONDS / one), 1), len(batches))
    return Pace(seconds(0, num_steps) / num_steps * len(batches)), compilation - one
