"""What a sweep varies without compiling anew, and what a step makes of it."""

from typing import NamedTuple

import jax.numpy as jnp

from jl1.array_types import PRNGKey, Scalar


class Hyperparameters(NamedTuple):
    """What a sweep varies without compiling anew.

    Attributes:
        lam: lambda of Eq. 3, at least 0.
        epsilon: Radius of the adversarial twins, in [0, 1].
        key: Root of the randomness of attacks and estimators; each step folds its number in.
        every: m, at least 1: lambda is m lambda in the steps 0, m, 2m, ... and 0 in the others. To gain time by
            it, take a gradient from `lazy.make_lazy_gradient`.
        warmup_steps: Steps over which the radius grows from 0 to epsilon, at least 0 (`radius_at`).
    """

    lam: Scalar
    epsilon: Scalar
    key: PRNGKey
    every: Scalar = 1
    warmup_steps: Scalar = 0


def radius_at(hyperparameters: Hyperparameters, step: Scalar) -> Scalar:
    """Return the radius of a step: epsilon * step / warmup_steps during the warm-up, exactly epsilon from its end on.

    It depends on the step's number alone, so a resumed run goes on where it was.

    Args:
        hyperparameters: The final radius and the length of the warm-up, both may be traced.
        step: Number of the step, from 0.

    Returns:
        The radius.

    Example:
        >>> import jax
        >>> given = Hyperparameters(lam=0.0, epsilon=0.5, key=jax.random.key(0), warmup_steps=4)
        >>> [float(radius_at(given, step)) for step in range(6)]
        [0.0, 0.125, 0.25, 0.375, 0.5, 0.5]
    """
    is_over = step >= hyperparameters.warmup_steps
    return hyperparameters.epsilon * jnp.where(is_over, 1.0, step / jnp.maximum(hyperparameters.warmup_steps, 1))
