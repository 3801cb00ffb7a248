"""Table 3: FGSM adversarial training with and without the penalty, by epsilon, on MNIST.

Paper:    Sec. 4.2, Table 3, lambda 10, the class sum of footnote 1, 100 epochs; clean, and under FGSM at the epsilon
          of training, in percent:
          epsilon               0.05                  0.1                   0.2                   0.3
          A adv_train     99.36   98.57 +- .11   99.34   97.50 +- .26   99.27   96.39 +- .37   99.30   95.72 +- .19
          A adv_train_gp  99.38   98.73 +- .07   99.35   97.45 +- .30   99.25   96.63 +- .30   99.26   97.60 +- .34
          B adv_train     98.94   98.37 +- .48   99.07   98.22 +- .61   98.96   98.55 +- .26   98.85   98.67 +- .07
          B adv_train_gp  99.05   98.18 +- .15   99.06   97.64 +- 1.04  98.95   98.30 +- .49   98.84   97.80 +- 1.11
          C adv_train     98.98   96.26 +- .22   98.68   93.56 +- .47   98.59   93.24 +- .48   98.48   95.52 +- .74
          C adv_train_gp  98.79   96.36 +- .11   98.87   94.56 +- .16   98.69   93.73 +- .75   98.42   96.62 +- .51
Expected: see docs/results.md. The readings (class sum on logits, mean) are in docs/paper.md. Beyond the paper: PGD-20,
          and the standard ensemble (fast) on 1,000 points, both at all four radii.
Time:     C: 7 hours of training on two CPU cores (AVX-512), by the paces in docs/results.md; `--dry_run` measures it on
          your machine.
Command:  jl1 sweep --config=table3:C --config.data.dir=DIR
          (eighty runs; three seeds: --only=seed=0,1,2; one radius: --only=adversarial.epsilon=0.3)
"""

from collections.abc import Callable

from jl1.config import Config, default_config
from jl1.errors import UserError


def get_config(arg: str = "C") -> Config:
    """Return the settings for model A, B or C."""
    if arg not in ("A", "B", "C"):
        raise UserError(f"table3:{arg}: give table3:A, table3:B or table3:C")
    config = default_config()
    config.model.name = arg
    config.penalty.name, config.penalty.outputs, config.penalty.scale = "class_sum_l1", "logits", "mean"
    config.training.stopping, config.training.num_epochs = "fixed", 100
    config.evaluation.epsilons = (0.05, 0.1, 0.2, 0.3)
    config.evaluation.attacks = ("standard",)
    config.evaluation.max_points = 1000
    return config


def sweep(add: Callable[..., None]) -> None:
    """Add all cells with one seed, then with the next."""
    for seed in range(10):
        for epsilon in (0.05, 0.1, 0.2, 0.3):
            for lam in (0.0, 10.0):
                add(**{"seed": seed, "adversarial.epsilon": epsilon, "penalty.lam": lam})
