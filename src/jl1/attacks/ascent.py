"""Steepest ascent inside the ball whose last point counts: the attack of adversarial training.

An evaluation wants the strongest point met on the way, `pgd.pgd`; training takes the point where the ascent ends,
as published, and saves the comparisons.

References:
    Madry, Makelov, Schmidt, Tsipras, Vladu 2018, "Towards deep learning models resistant to
    adversarial attacks", arXiv:1706.06083.
"""

from collections.abc import Callable

import jax
import optax

from jl1.array_types import ExampleLossFn, Inputs, Labels, LogitsFn, NormName, PerExample, PRNGKey, Scalar
from jl1.attacks.ball import default_step, typed_as
from jl1.attacks.norms import check_task, find_norm, random_start
from jl1.inputs import check_floating
from jl1.jacobian import input_gradient


def steepest_ascent(
    objective_fn: Callable[[Inputs], PerExample],
    start: Inputs,
    *,
    centre: Inputs,
    epsilon: Scalar,
    num_steps: int,
    step_size: Scalar | None = None,
    norm: NormName = "linf",
    lower: float = 0.0,
    upper: float = 1.0,
) -> Inputs:
    """Raise an objective by x' <- project(x' + step_size * v), `num_steps` times.

    v is the sign of the objective's gradient g at x', in L2 g / ||g||_2.

    Args:
        objective_fn: Batch of points to one value an example, which is raised.
        start: Where the ascent begins; it may lie outside the ball.
        centre: Centre of the ball, in [lower, upper].
        epsilon: Radius, at least 0; may be traced.
        num_steps: Number of steps, at least 1.
        step_size: Length of one step; 2.5 epsilon / num_steps unless given.
        norm: "linf" or "l2".
        lower: Lowest value an input may have.
        upper: Highest value an input may have.

    Returns:
        The last point of every example, within `epsilon` of `centre` and in [lower, upper], detached.

    Raises:
        ValueError: `num_steps` below 1, a centre that is not floating, an unknown norm, or a number for epsilon that is
            negative or (in L-infinity) above upper - lower.

    Example:
        >>> import jax.numpy as jnp
        >>> hill = lambda points: -jnp.sum((points - 0.6) ** 2, axis=1)
        >>> start = jnp.full((1, 2), 0.5)
        >>> steepest_ascent(hill, start, centre=start, epsilon=0.25, num_steps=1, step_size=0.125).tolist()
        [[0.625, 0.625]]
    """
    check_floating(centre)
    geometry = find_norm(norm)
    geometry.check(epsilon, lower, upper)
    if num_steps < 1:
        raise ValueError(f"num_steps={num_steps}: must be at least 1")
    step_size = typed_as(centre, default_step(epsilon, num_steps) if step_size is None else step_size)
    epsilon = typed_as(centre, epsilon)

    def step(_: Scalar, points: Inputs) -> Inputs:
        stepped = points + step_size * geometry.ascent(input_gradient(objective_fn, points))
        return geometry.project(stepped, centre, epsilon=epsilon, lower=lower, upper=upper)

    return jax.lax.stop_gradient(jax.lax.fori_loop(0, num_steps, step, start))


def pgd_last_point(
    logits_fn: LogitsFn,
    inputs: Inputs,
    *,
    labels: Labels,
    epsilon: Scalar,
    key: PRNGKey,
    num_steps: int = 10,
    step_size: Scalar | None = None,
    loss_fn: ExampleLossFn = optax.softmax_cross_entropy_with_integer_labels,
    norm: NormName = "linf",
    lower: float = 0.0,
    upper: float = 1.0,
) -> Inputs:
    """Attack by steepest ascent on the loss from a uniformly random point of the ball; the last point counts.

    One step of 1.25 epsilon is `fgsm_random_start`. To measure robustness take `pgd`, which keeps the best point.

    Args:
        logits_fn: Network with its parameters bound, a batch to LOGITS.
        inputs: Batch in [lower, upper].
        labels: Labels whose loss is raised.
        epsilon: Radius in the units of the inputs, at least 0; may be traced.
        key: Fixes the random start.
        num_steps: Number of steps, at least 1.
        step_size: Length of one step; 2.5 epsilon / num_steps unless given.
        loss_fn: What is raised; cross-entropy without smoothing.
        norm: "linf" or "l2".
        lower: Lowest value an input may have.
        upper: Highest value an input may have.

    Returns:
        Adversarial inputs, within `epsilon` of `inputs` and in [lower, upper], detached.

    Raises:
        ValueError: `num_steps` below 1, inputs that are not floating, labels that are not one integer an example, an
            unknown norm, or a number for epsilon that is negative or (in L-infinity) above upper - lower.
    """
    space = {"lower": lower, "upper": upper}
    geometry = check_task(norm, inputs, labels, epsilon=epsilon, **space)
    start = random_start(key, inputs, norm=geometry, epsilon=typed_as(inputs, epsilon), **space)
    options = {"epsilon": epsilon, "num_steps": num_steps, "step_size": step_size, "norm": norm, **space}
    return steepest_ascent(lambda points: loss_fn(logits_fn(points), labels), start, centre=inputs, **options)
