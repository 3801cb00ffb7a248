"""What Eq. 3 may mean: its outputs and its scale, by lambda, on model C and MNIST; a pilot of one seed.

Paper:    Eq. 3 and Sec. 4.1 leave open what f is and whether the norm is a sum or a mean. None of this is in a table.
          The sum is 7,840 times the mean: its lambda 0.1 goes on where the mean's 50 ends, and at 10 it destroyed the
          classifier, so larger ones are left out.
Expected: see docs/results.md.
Time:     50 minutes of training on two CPU cores (AVX-512); `--dry_run` measures it on your machine.
Command:  jl1 sweep --config=readings --config.data.dir=DIR
          (25 runs; one reading: --only=penalty.outputs=logits --only=penalty.scale=mean)
"""

from collections.abc import Callable

from jl1.config import Config, default_config


def get_config() -> Config:
    """Return the settings."""
    config = default_config()
    config.training.stopping, config.training.num_epochs = "fixed", 12
    config.evaluation.attacks = ("standard",)
    config.evaluation.max_points = 1000
    return config


def sweep(add: Callable[..., None]) -> None:
    """Add the plain network, then every reading with its lambdas."""
    add(**{"penalty.lam": 0.0})
    for scale, lambdas in {"mean": (0.1, 1.0, 10.0, 50.0), "sum": (0.1, 1.0)}.items():
        for outputs in ("logits", "centred_logits", "probs", "log_probs"):
            for lam in lambdas:
                add(**{"penalty.outputs": outputs, "penalty.scale": scale, "penalty.lam": lam})
