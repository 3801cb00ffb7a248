"""The exact penalty on another data set: model C on Fashion-MNIST, by lambda.

Paper:    not in it: "in future work we will extend the experimental part to (...) other datasets" (Sec. 5). Eq. 3 on
          logits (mean), without any attack in training, for 20 epochs.
Expected: see docs/results.md.
Time:     15 minutes of training on two CPU cores (AVX-512); `--dry_run` measures it on your machine.
Command:  jl1 sweep --config=fashion --config.data.dir=DIR
          (six runs; DIR holds the four IDX files of Fashion-MNIST; without it, run
          `jl1 prepare --config.data.name=fashion_mnist` once, which downloads them)
"""

from collections.abc import Callable

from jl1.config import Config, default_config


def get_config() -> Config:
    """Return the settings."""
    config = default_config()
    config.data.name = "fashion_mnist"
    config.penalty.outputs = "logits"
    config.training.stopping, config.training.num_epochs = "fixed", 20
    config.evaluation.epsilons = (0.05, 0.1, 0.2)
    config.evaluation.attacks = ("standard",)
    config.evaluation.max_points = 1000
    return config


def sweep(add: Callable[..., None]) -> None:
    """Add every lambda with one seed, then with the other."""
    for seed in range(2):
        for lam in (0.0, 10.0, 50.0):
            add(**{"seed": seed, "penalty.lam": lam})
