"""Projected gradient descent in the ball of a norm: many small steps, restarts, best point kept.

References:
    Madry, Makelov, Schmidt, Tsipras, Vladu 2018, "Towards deep learning models resistant to
    adversarial attacks", arXiv:1706.06083.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from jl1.array_types import ExampleLossFn, Inputs, Labels, LogitsFn, Mask, NormName, PerExample, PRNGKey, Scalar
from jl1.attacks.ball import default_step, typed_as
from jl1.attacks.norms import check_task, random_start
from jl1.attacks.objectives import judge, look
from jl1.per_example import choose


class _Best(NamedTuple):
    """The strongest point met so far, for every example."""

    inputs: Inputs
    loss: PerExample
    beaten: Mask


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
    norm: NormName = "linf",
    lower: float = 0.0,
    upper: float = 1.0,
) -> Inputs:
    """Attack by `num_steps` steps on the loss, each projected onto the ball and the range.

    A step follows the gradient's sign, in L2 the gradient itself. Every restart begins at a uniformly random point of
    the ball (when `key` is None at `start`, or at the inputs themselves). Of all points met on the way, the inputs
    included, each example keeps its best: a misclassified point before any that is not, then the one of highest loss.
    So more restarts, or more steps of the same size, never make the result weaker (the default step size depends on
    their number), and a point that is wrong to begin with stays wrong.
    Not jitted; one compilation serves every epsilon and step size.

    Args:
        logits_fn: Network with its parameters bound, a batch to LOGITS.
        inputs: Batch in [lower, upper].
        labels: True labels.
        epsilon: Radius in the units of the inputs, at least 0; may be traced.
        key: Fixes the random starts; None for no random start.
        num_steps: Steps of one restart, at least 1.
        step_size: Length of one step; 2.5 epsilon / num_steps unless given, as in the reference's
            code, so that the ball's border can be reached from anywhere inside.
        num_restarts: Independent restarts, at least 1.
        loss_fn: What is raised; cross-entropy without smoothing.
        start: Where to begin when `key` is None, moved into the ball and the range; the inputs unless given.
        norm: "linf" or "l2".
        lower: Lowest value an input may have.
        upper: Highest value an input may have.

    Returns:
        Adversarial inputs, within `epsilon` of `inputs` and in [lower, upper], detached.

    Raises:
        ValueError: `num_steps` or `num_restarts` below 1, several restarts without a key (they would all be the same),
            both a key and a start, inputs that are not floating, labels that are not one integer an example, an unknown
            norm, or a number for epsilon that is negative or (in L-infinity) above upper - lower.
    """
    geometry = check_task(norm, inputs, labels, epsilon=epsilon, lower=lower, upper=upper)
    if num_steps < 1 or num_restarts < 1:
        raise ValueError(f"num_steps={num_steps}, num_restarts={num_restarts}: both must be at least 1")
    if key is None and num_restarts > 1:
        raise ValueError(f"num_restarts={num_restarts} needs a key: without random starts all are the same")
    if key is not None and start is not None:
        raise ValueError("key and start are both given: the walk begins at a random point or at a given one")
    step_size = typed_as(inputs, default_step(epsilon, num_steps) if step_size is None else step_size)
    ball = {"epsilon": typed_as(inputs, epsilon), "lower": lower, "upper": upper}

    of_network = (logits_fn, loss_fn, labels)

    def step(_: Scalar, carry: tuple[Inputs, _Best]) -> tuple[Inputs, _Best]:
        points, best = carry
        gradient, losses, wrong = look(*of_network, points)
        best = _keep_better(best, _Best(points, losses, wrong))
        return geometry.project(points + step_size * geometry.ascent(gradient), inputs, **ball), best

    def restart(index: Scalar, best: _Best) -> _Best:
        first = fixed_start if key is None else draw_start(jax.random.fold_in(key, index), inputs)
        points, best = jax.lax.fori_loop(0, num_steps, step, (first, best))
        return _keep_better(best, _Best(points, *judge(*of_network, points)))

    inputs = jax.lax.stop_gradient(inputs)
    draw_start = partial(random_start, norm=geometry, **ball)
    # as they came, points outside the ball would be scored and could be returned
    fixed_start = inputs if start is None else geometry.project(start.astype(inputs.dtype), inputs, **ball)
    at_inputs = _Best(inputs, *judge(*of_network, inputs))
    return jax.lax.stop_gradient(jax.lax.fori_loop(0, num_restarts, restart, at_inputs).inputs)


def _keep_better(best: _Best, new: _Best) -> _Best:
    """Keep, for every example, the misclassified point before any other, then the higher loss."""
    better = jnp.where(new.beaten == best.beaten, new.loss > best.loss, new.beaten)
    return _Best(
        choose(better, new.inputs, best.inputs),
        jnp.where(better, new.loss, best.loss),
        jnp.where(better, new.beaten, best.beaten),
    )
