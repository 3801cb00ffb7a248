"""Projected gradient descent in the L-infinity ball: many small sign steps, restarts, best point kept.

References:
    Madry, Makelov, Schmidt, Tsipras, Vladu 2018, "Towards deep learning models resistant to
    adversarial attacks", arXiv:1706.06083.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from jl1.array_types import ExampleLossFn, Inputs, Labels, LogitsFn, Mask, PerExample, PRNGKey, Scalar
from jl1.attacks.ball import check_radius, project, random_start


class _Best(NamedTuple):
    """The strongest point met so far, for every example."""

    inputs: Inputs
    loss: PerExample
    fooled: Mask


def pgd(
    logits_fn: LogitsFn,
    inputs: Inputs,
    *,
    labels: Labels,
    epsilon: Scalar,
    key: PRNGKey | None,
    num_steps: int = 20,
    step_size: Scalar | None = None,
    num_restarts: int = 1,
    loss_fn: ExampleLossFn = optax.softmax_cross_entropy_with_integer_labels,
    start: Inputs | None = None,
    lower: float = 0.0,
    upper: float = 1.0,
) -> Inputs:
    """Attack by `num_steps` sign steps on the loss, each projected onto the ball and the range.

    Every restart begins at a uniformly random point of the ball (when `key` is None at `start`, or at the inputs
    themselves). Of all points met on the way, the inputs included, each example keeps its best: a
    misclassified point before any that is not, then the one of highest loss. So more
    restarts, or more steps of the same size, never make the result weaker (the default step size depends
    on their number), and a point that is wrong to begin with stays wrong.
    Not jitted; one compilation serves every epsilon and step size.

    Args:
        logits_fn: Network with its parameters bound, a batch to LOGITS.
        inputs: Batch in [lower, upper].
        labels: True labels.
        epsilon: L-infinity radius in the units of the inputs, at least 0; may be traced.
        key: Fixes the random starts; None for no random start.
        num_steps: Steps of one restart, at least 1.
        step_size: Length of one step; 2.5 epsilon / num_steps unless given, as in the reference's
            code, so that the ball's border can be reached from anywhere inside.
        num_restarts: Independent restarts, at least 1.
        loss_fn: What is raised; cross-entropy without smoothing.
        start: Where to begin, points of the ball and the range, when `key` is None; the inputs unless given.
        lower: Lowest value an input may have.
        upper: Highest value an input may have.

    Returns:
        Adversarial inputs, within `epsilon` of `inputs` and in [lower, upper], detached.

    Raises:
        ValueError: `num_steps` or `num_restarts` below 1, several restarts without a key (they would all
            be the same), both a key and a start, or a number for epsilon that is negative or above upper - lower.
    """
    check_radius(epsilon, lower, upper)
    if num_steps < 1 or num_restarts < 1:
        raise ValueError(f"num_steps={num_steps}, num_restarts={num_restarts}: both must be at least 1")
    if key is None and num_restarts > 1:
        raise ValueError(f"num_restarts={num_restarts} needs a key: without random starts all are the same")
    if key is not None and start is not None:
        raise ValueError("key and start are both given: the walk begins at a random point or at a given one")
    step_size = 2.5 * epsilon / num_steps if step_size is None else step_size

    ball = {"epsilon": epsilon, "lower": lower, "upper": upper}

    def loss_and_logits(points: Inputs) -> tuple[Scalar, tuple[PerExample, Mask]]:
        logits = logits_fn(points)
        losses = loss_fn(logits, labels)
        return jnp.sum(losses), (losses, jnp.argmax(logits, axis=-1) != labels)

    def step(_: Scalar, carry: tuple[Inputs, _Best]) -> tuple[Inputs, _Best]:
        points, best = carry
        gradient, (losses, fooled) = jax.grad(loss_and_logits, has_aux=True)(points)
        best = _keep_better(best, _Best(points, losses, fooled))
        return project(points + step_size * jnp.sign(gradient), inputs, **ball), best

    def restart(index: Scalar, best: _Best) -> _Best:
        first = fixed_start if key is None else random_start(jax.random.fold_in(key, index), inputs, **ball)
        points, best = jax.lax.fori_loop(0, num_steps, step, (first, best))
        return _keep_better(best, _Best(points, *loss_and_logits(points)[1]))

    inputs = jax.lax.stop_gradient(inputs)
    fixed_start = inputs if start is None else start
    at_inputs = _Best(inputs, *loss_and_logits(inputs)[1])
    return jax.lax.stop_gradient(jax.lax.fori_loop(0, num_restarts, restart, at_inputs).inputs)


def _keep_better(best: _Best, new: _Best) -> _Best:
    """Keep, for every example, the misclassified point before any other, then the higher loss."""
    better = jnp.where(new.fooled == best.fooled, new.loss > best.loss, new.fooled)
    pixelwise = better.reshape(-1, *[1] * (new.inputs.ndim - 1))
    return _Best(
        jnp.where(pixelwise, new.inputs, best.inputs),
        jnp.where(better, new.loss, best.loss),
        jnp.where(better, new.fooled, best.fooled),
    )
