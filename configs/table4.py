"""Table 4: FGSM adversarial training of model C at epsilon 0.3, by lambda, on MNIST.

Paper:    Sec. 4.2, Table 4, 150 epochs by the text. Its cells of lambda 0 and 10 are those of Table 3 after 100 epochs,
          so the figures after 100 are taken too. Clean, and under FGSM 0.3, in percent:
          lambda  0              10             50             100            200            1000
          clean   98.48 +- 0.10  98.42 +- 0.08  98.49 +- 0.06  98.59 +- 0.10  98.60 +- 0.11  98.62 +- 0.07
          FGSM    95.52 +- 0.74  96.62 +- 0.51  97.25 +- 0.05  96.88 +- 0.51  96.71 +- 0.19  94.65 +- 0.79
Expected: see docs/results.md. The readings (class sum on logits, mean) are in docs/paper.md. Beyond the paper: PGD-20,
          and the standard ensemble (fast) on 1,000 points.
Time:     10 hours of training on two CPU cores (AVX-512), by the paces in docs/results.md; `--dry_run` measures it on
          your machine.
Command:  jl1 sweep --config=table4 --config.data.dir=DIR
          (sixty runs; three seeds: --only=seed=0,1,2)
"""

from collections.abc import Callable

from jl1.config import Config, default_config


def get_config() -> Config:
    """Return the settings."""
    config = default_config()
    config.penalty.name, config.penalty.outputs, config.penalty.scale = "class_sum_l1", "logits", "mean"
    config.adversarial.epsilon = 0.3
    config.training.stopping, config.training.num_epochs = "fixed", 150
    config.evaluation.epochs = (100,)
    config.evaluation.attacks = ("standard",)
    config.evaluation.max_points = 1000
    return config


def sweep(add: Callable[..., None]) -> None:
    """Add every lambda with one seed, then with the next."""
    for seed in range(10):
        for lam in (0.0, 10.0, 50.0, 100.0, 200.0, 1000.0):
            add(**{"seed": seed, "penalty.lam": lam})
