"""Table 2: the penalty alone, by lambda, on MNIST.

Paper:    Sec. 4.1, Table 2, ten trainings a cell; lambda 0 is not in it. Clean, and under FGSM 0.3, in percent:
          lambda     50              25              10              1               0.1
          A clean    99.37 +- 0.04   99.36 +- 0.03   99.38 +- 0.04   99.35 +- 0.03   99.35 +- 0.06
          A FGSM     45.09 +- 5.36   44.96 +- 4.44   46 +- 10.16     28.83 +- 9.34   22.64 +- 5.02
          B clean    98.99 +- 0.05   98.99 +- 0.05   98.98 +- 0.07   98.94 +- 0.07   98.90 +- 0.05
          B FGSM     6.35 +- 3.258   4.69 +- 1.91    3.69 +- 0.73    3.00 +- 1.14    3.17 +- 0.82
          C clean    98.63 +- 0.11   98.67 +- 0.05   98.57 +- 0.06   98.55 +- 0.05   98.60 +- 0.08
          C FGSM     29.92 +- 14.24  25.76 +- 11.96  18.24 +- 9.97   19.99 +- 5.63   13.66 +- 6.64
Expected: see docs/results.md. The readings (Eq. 3 on probabilities, mean, patience) are in docs/paper.md. Beyond the
          paper: PGD-20, and the standard ensemble (fast) on 1,000 points.
Time:     C: 2.7 to 3.9 hours on two CPU cores (AVX-512), by the machine; on an H100 0.13 to 0.31 s an epoch of each of
          six runs at once, and minutes of compilation (docs/performance.md). `--dry_run` measures it on your machine.
Command:  jl1 sweep --config=table2:C --config.data.dir=DIR
          (sixty runs; three seeds of two lambdas: --only=seed=0,1,2 --only=penalty.lam=0,50)
"""

from collections.abc import Callable

from jl1.config import Config, default_config
from jl1.errors import UserError


def get_config(arg: str = "C") -> Config:
    """Return the settings for model A, B or C."""
    if arg not in ("A", "B", "C"):
        raise UserError(f"table2:{arg}: give table2:A, table2:B or table2:C")
    config = default_config()
    config.model.name = arg
    config.evaluation.attacks = ("standard",)
    config.evaluation.max_points = 1000
    return config


def sweep(add: Callable[..., None]) -> None:
    """Add every lambda with one seed, then with the next."""
    for seed in range(10):
        for lam in (0.0, 0.1, 1.0, 10.0, 25.0, 50.0):
            add(**{"seed": seed, "penalty.lam": lam})
