"""PGD on the margin beside PGD on the cross-entropy: does the loss that is attacked hide anything?

    python benchmarks/margin_pgd.py RUN_FOLDER...

Attacks the first 1,000 test points of finished runs at epsilon 0.1 with 100 steps and 3 random starts on each loss.
"""

import sys
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp

from jl1.attacks.fgsm import predicted_labels
from jl1.attacks.objectives import OBJECTIVES
from jl1.attacks.pgd import pgd
from jl1.configuration.files import config_from_dict
from jl1.records import read_config
from jl1.runs.checkpoints import Checkpoints
from jl1.runs.problems import create_problem, load_data
from jl1.runs.trainer import snapshot_template

LOSSES = {"cross-entropy": OBJECTIVES["ce"], "margin": OBJECTIVES["margin"]}


def main(folders: list[str]) -> None:
    """Print one line a run and loss."""
    for workdir in map(Path, folders):
        config = config_from_dict(read_config(workdir))
        data = load_data(config)
        problem = create_problem(config, data)
        with Checkpoints(workdir / "checkpoints") as checkpoints:
            restored = checkpoints.restore(snapshot_template(config, problem.state), print)
        assert restored is not None, f"{workdir} has no checkpoint"
        logits_fn = partial(problem.apply_fn, restored.snapshot.state.params)
        inputs, labels = jnp.asarray(data.test.inputs[:1000]), jnp.asarray(data.test.labels[:1000])
        options = {"labels": labels, "epsilon": 0.1, "key": jax.random.key(0), "num_steps": 100, "num_restarts": 3}
        for name, loss_fn in LOSSES.items():
            attacked = jax.jit(partial(pgd, logits_fn, loss_fn=loss_fn, **options))(inputs)
            accuracy = float(jnp.mean(predicted_labels(logits_fn, attacked) == labels))
            print(f"{workdir.name}: PGD on the {name}: {accuracy:.1%}")


if __name__ == "__main__":
    main(sys.argv[1:])
