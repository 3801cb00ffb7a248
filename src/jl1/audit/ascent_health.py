"""Whether an ascent of the loss has ended where it stops, and whether it lost on the way what it had found.

References:
    Carlini et al. 2019, "On evaluating adversarial robustness", arXiv:1902.06705, Sec. 5 (convergence of attacks).
    Pintor et al. 2022, "Indicators of attack failure", arXiv:2106.09947 (non-converging attack, wrong point returned).
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jl1.array_types import ApplyFn, ExampleLossFn, Inputs, Labels, LogitsFn, Mask, Params, PerExample, PRNGKey, Scalar
from jl1.attacks.ball import check_radius, default_step, typed_as
from jl1.attacks.norms import LINF, random_start
from jl1.attacks.objectives import look


class AscentHealth(NamedTuple):
    """A walk of PGD, one row an example.

    Attributes:
        late_rise: Share of the whole rise of the loss that the last tenth of the steps brought, in [0, 1]: with l_k the
            best of the losses after k steps, (l_n - l_m) / (l_n - l_0) for m = n - max(n // 10, 1); 0 where nothing
            rose. A tenth if the loss rose steadily to the end, near 0 if the walk has converged.
        was_broken: Whether any point of the walk, its random start and its end included, is misclassified.
        is_broken: Whether the last point is.
    """

    late_rise: PerExample
    was_broken: Mask
    is_broken: Mask


class _Walk(NamedTuple):
    """Where the walk stands, and the best that it has met."""

    points: Inputs
    gradient: Inputs
    best_loss: PerExample
    was_broken: Mask
    is_broken: Mask


def ascent_health(
    logits_fn: LogitsFn,
    inputs: Inputs,
    *,
    labels: Labels,
    epsilon: Scalar,
    key: PRNGKey,
    loss_fn: ExampleLossFn,
    num_steps: int = 100,
    lower: float = 0.0,
    upper: float = 1.0,
) -> AscentHealth:
    """Walk as `attacks.pgd` does, from one random start with its default step size, and watch the loss.

    Not jitted; one compilation serves every epsilon.

    Args:
        logits_fn: Network with its parameters bound, a batch to logits.
        inputs: Batch in [lower, upper].
        labels: True labels.
        epsilon: L-infinity radius, at least 0; may be traced.
        key: Fixes the random start.
        loss_fn: What is raised.
        num_steps: Steps of the walk, at least 2.
        lower: Lowest value an input may have.
        upper: Highest value an input may have.

    Returns:
        The figures; nothing is averaged.

    Raises:
        ValueError: `num_steps` below 2, or a number for epsilon that is negative or above upper - lower.
    """
    check_radius(epsilon, lower, upper)
    if num_steps < 2:
        raise ValueError(f"num_steps={num_steps}: must be at least 2, to tell the last steps from those before")
    step_size = typed_as(inputs, default_step(epsilon, num_steps))
    ball = {"epsilon": typed_as(inputs, epsilon), "lower": lower, "upper": upper}

    of_network = (logits_fn, loss_fn, labels)

    def step(_: Scalar, walk: _Walk) -> _Walk:
        points = LINF.project(walk.points + step_size * LINF.ascent(walk.gradient), inputs, **ball)
        gradient, losses, broken = look(*of_network, points)
        return _Walk(points, gradient, jnp.maximum(walk.best_loss, losses), walk.was_broken | broken, broken)

    start = random_start(key, inputs, norm=LINF, **ball)
    gradient, first_losses, broken = look(*of_network, start)
    num_late = max(num_steps // 10, 1)
    early = jax.lax.fori_loop(0, num_steps - num_late, step, _Walk(start, gradient, first_losses, broken, broken))
    end = jax.lax.fori_loop(0, num_late, step, early)
    late, whole = end.best_loss - early.best_loss, end.best_loss - first_losses
    return AscentHealth(jnp.where(late > 0, late / whole, 0), end.was_broken, end.is_broken)


def make_ascent_step(apply_fn: ApplyFn, *, loss_fn: ExampleLossFn, **options: Any) -> Callable[..., AscentHealth]:
    """Make the jitted `step(params, inputs, labels, epsilon, key)` of `ascent_health`, for `batches.measure`.

    Args:
        apply_fn: Function of params and inputs to logits.
        loss_fn: What is raised.
        **options: Of `ascent_health`: `num_steps`, `lower`, `upper`.

    Returns:
        The step.
    """

    def step(params: Params, inputs: Inputs, labels: Labels, epsilon: Scalar, key: PRNGKey) -> AscentHealth:
        logits_fn = partial(apply_fn, params)
        return ascent_health(logits_fn, inputs, labels=labels, epsilon=epsilon, key=key, loss_fn=loss_fn, **options)

    return jax.jit(step)
