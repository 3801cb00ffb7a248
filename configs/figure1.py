"""Figure 1 of the paper for real points: outputs and gradients at x and at its FGSM twin, epoch by epoch, on MNIST.

Paper:    Fig. 1 draws the ideal: f(x') - f(x) and the gradients at both ends fall to zero during training. Sec. 4.2,
          FGSM twins at 0.3. Here model C, without and with Eq. 3 on probabilities (mean, lambda 10), 20 epochs, 50
          validation points.
Expected: see docs/results.md.
Time:     15 minutes of training on two CPU cores (AVX-512); `--dry_run` measures it on your machine.
Command:  jl1 sweep --config=figure1 --config.data.dir=DIR
          jl1 audit --workdir=sweeps/figure1/NAME     (draws audit/figure1.png from the run's trace.jsonl)
"""

from collections.abc import Callable

from jl1.config import Config, default_config


def get_config() -> Config:
    """Return the settings of the run with the penalty."""
    config = default_config()
    config.penalty.lam = 10.0
    config.adversarial.epsilon = 0.3
    config.training.stopping, config.training.num_epochs = "fixed", 20
    config.log.traced_points = 50
    return config


def sweep(add: Callable[..., None]) -> None:
    """Add the run without and the run with the penalty."""
    for lam in (0.0, 10.0):
        add(**{"penalty.lam": lam})
