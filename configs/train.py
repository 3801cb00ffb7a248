"""The paper's single run: one model of Table 1 on MNIST with the exact penalty, no adversarial twins.

Paper:    Sec. 4.1 and Table 2, lambda 50: A 99.37 clean, 45.09 under FGSM 0.3; B 98.99, 6.35; C 98.63, 29.92.
Expected: jl1, three seeds, 20 epochs: C 98.63 +- 0.17 clean, 59.60 +- 11.74 under FGSM 0.3, 27.48 +- 7.78 under
          PGD-20 0.3 (docs/results.md). Training stops by the paper's rule, after 14 to 51 epochs.
Time:     C 10 to 23 s an epoch on one CPU core, by the machine (docs/performance.md). A and B want an accelerator.
Command:  jl1 train --config=train:C --config.data.dir=DIR
          (DIR holds the four IDX files of MNIST; without it, run `jl1 prepare` once, which downloads them)
"""

from jl1.config import Config, default_config
from jl1.errors import UserError


def get_config(arg: str = "C") -> Config:
    """Return the settings for model A, B or C."""
    if arg not in ("A", "B", "C"):
        raise UserError(f"train:{arg}: give train:A, train:B or train:C")
    config = default_config()
    config.model.name = arg
    return config
