"""Eq. 3 on 5,000 real digits that come with the installation: no network, no download.

Paper:    Sec. 3 and 4.2 (Eq. 3 on the training points and on their FGSM twins), at a fourteenth of the data.
Expected: seed 0, 500 test digits: 94.6 clean, 86.8 under FGSM 0.1, 85.8 under PGD-20 0.1, 53.8 under PGD-20 0.2;
          plain: 94.0, 19.2, 6.2, 0.0. docs/results.md says how outputs, lambda and epsilon were chosen.
Time:     half a minute to two minutes on two CPU cores, by the machine; plain: ten seconds.
Command:  jl1 train        (the undefended network: jl1 train --config=quickstart:plain)
"""

from jl1.config import Config, default_config
from jl1.errors import UserError


def get_config(arg: str = "defended") -> Config:
    """Return the settings; `defended` or `plain` (lambda 0 and no adversarial twins)."""
    if arg not in ("defended", "plain"):
        raise UserError(f"quickstart:{arg}: give quickstart, quickstart:defended or quickstart:plain")
    config = default_config()
    config.data.name = "mnist_5k"
    config.penalty.outputs = "logits"
    config.penalty.scale = "mean"
    config.penalty.lam = 50.0 if arg == "defended" else 0.0
    config.adversarial.epsilon = 0.1 if arg == "defended" else 0.0
    config.training.num_epochs = 30
    config.training.stopping = "fixed"
    return config
