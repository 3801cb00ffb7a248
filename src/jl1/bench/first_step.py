"""From the start of a process to the end of the first training step of `jl1 train`: a command for the bench."""

import jax
import jax.numpy as jnp
import numpy as np

from jl1.configuration.files import load_config
from jl1.runs.problems import create_problem, load_data
from jl1.training import make_train_step


def main() -> None:
    """Take the first step of the quickstart."""
    config = load_config("quickstart")
    data = load_data(config)
    problem = create_problem(config, data)
    rows = np.arange(config.training.batch_size)
    batch = (jnp.asarray(data.train.inputs[rows]), jnp.asarray(data.train.labels[rows]), jnp.ones(len(rows), bool))
    step = make_train_step(problem.gradient_fn, problem.optimizer)
    jax.block_until_ready(step(problem.state, *batch, problem.hyperparameters))


if __name__ == "__main__":
    main()
