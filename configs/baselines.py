"""The exact penalty beside PGD adversarial training, under AutoAttack: model C on MNIST.

Paper:    not in it. Eq. 3 on logits (mean), without any attack in training; Madry et al. 2018, arXiv:1706.06083, as in
          configs/robust.py: ten steps, the attacked points alone, no label smoothing. All train for 20 epochs. At 0.2
          epsilon grows to its value in the first five: without that the network learned to guess, on both of two seeds.
Expected: see docs/results.md.
Time:     50 minutes of training on two CPU cores (AVX-512), and the attacks; `--dry_run` measures it on your machine.
Command:  jl1 sweep --config=baselines --config.data.dir=DIR
          (eighteen runs; one seed: --only=seed=0)
"""

from collections.abc import Callable

from jl1.config import Config, default_config


def get_config() -> Config:
    """Return the settings of the penalty; the sweep sets those of adversarial training."""
    config = default_config()
    config.penalty.outputs = "logits"
    config.training.stopping, config.training.num_epochs = "fixed", 20
    config.evaluation.epsilons = (0.05, 0.1, 0.2)
    config.evaluation.attacks = ("standard",)
    config.evaluation.budget = "full"
    config.evaluation.max_points = 1000
    return config


def sweep(add: Callable[..., None]) -> None:
    """Add all defences with one seed, then with the next."""
    for seed in range(3):
        for lam in (0.0, 10.0, 25.0, 50.0):
            add(**{"seed": seed, "penalty.lam": lam})
        for epsilon, warmup_epochs in ((0.1, 0), (0.2, 5)):
            pgd = {"penalty.lam": 0.0, "adversarial.method": "pgd", "training.smoothing": 0.0}
            pgd |= {"adversarial.epsilon": epsilon, "adversarial.warmup_epochs": warmup_epochs}
            add(**{"seed": seed, **pgd})
