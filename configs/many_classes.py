"""100 or 1,000 classes: two or three real digits side by side, read as one number; one class sampled an image.

Paper:    not in it. Model C and Eq. 3 on logits (mean), without any attack in training, estimated from one row of the
          Jacobian an image (docs/estimators.md): the exact penalty takes as many passes as there are classes.
Expected: 1000, seed 0: 70.5 clean, 43.3 under PGD-20 0.05, 15.5 under PGD-20 0.1; undefended 73.7, 0.2, 0.0 (one seed
          each, 1,000 test points; docs/estimators.md).
Time:     one to two minutes of processor time (AVX-512), compilation and evaluation included.
Command:  jl1 train --config=many_classes:1000
          (undefended: --config.penalty.lam=0; out of all of MNIST: --config.data.name=mnist --config.data.dir=DIR)
"""

from jl1.config import Config, default_config
from jl1.errors import UserError

_TILES = {"100": 2, "1000": 3}


def get_config(arg: str = "1000") -> Config:
    """Return the settings for 100 or 1,000 classes."""
    if arg not in _TILES:
        raise UserError(f"many_classes:{arg}: give many_classes:100 or many_classes:1000")
    config = default_config()
    config.data.name, config.data.tiles = "mnist_5k", _TILES[arg]
    config.penalty.name, config.penalty.outputs = "jacobian_l1_sampled_classes", "logits"
    config.training.stopping, config.training.num_epochs = "fixed", 10
    config.evaluation.epsilons = (0.05, 0.1)
    config.log.traced_points = 0  # a line of metrics would carry thousands of numbers
    return config
