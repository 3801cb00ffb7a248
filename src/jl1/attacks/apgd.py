"""Auto-PGD: gradient ascent with momentum whose step size halves by itself where progress stops.

`apgd_walk` has the algorithm; here are its restarts. They begin on the border of the ball, as in the code that the
paper's authors published.

References:
    Croce, Hein 2020, "Reliable evaluation of adversarial robustness with an ensemble of diverse
    parameter-free attacks", arXiv:2003.01690.
"""

from functools import partial

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int

from jl1.array_types import ExampleLossFn, Inputs, Labels, LogitsFn, NormName, PRNGKey, Scalar
from jl1.attacks.apgd_walk import Best, walk
from jl1.attacks.ball import typed_as
from jl1.attacks.norms import check_task, random_border_point
from jl1.attacks.objectives import TargetedLossFn, judge, look, targeted_dlr


def apgd(
    logits_fn: LogitsFn,
    inputs: Inputs,
    *,
    labels: Labels,
    epsilon: Scalar,
    key: PRNGKey,
    num_steps: int = 100,
    num_restarts: int = 1,
    loss_fn: ExampleLossFn = optax.softmax_cross_entropy_with_integer_labels,
    norm: NormName = "linf",
    lower: float = 0.0,
    upper: float = 1.0,
) -> Inputs:
    """Attack by Auto-PGD on a loss: APGD-CE by default, APGD-DLR with `loss_fn=objectives.dlr`.

    An example is beaten at the first misclassified point met, the input itself included, and keeps that point
    whatever comes after; the loop ends when all are beaten. An example that stands returns its point of highest
    loss over all restarts. Not jitted; one compilation serves every epsilon.

    Args:
        logits_fn: Network with its parameters bound, a batch to LOGITS; examples must not interact.
        inputs: Batch in [lower, upper].
        labels: True labels.
        epsilon: Radius in the units of the inputs, at least 0; may be traced.
        key: Fixes the random starts.
        num_steps: Steps of one restart, at least 1.
        num_restarts: Independent restarts, at least 1.
        loss_fn: What is raised.
        norm: "linf" or "l2".
        lower: Lowest value an input may have.
        upper: Highest value an input may have.

    Returns:
        Adversarial inputs, within `epsilon` of `inputs` and in [lower, upper], detached.

    Raises:
        ValueError: `num_steps` or `num_restarts` below 1, inputs that are not floating, labels that are not one integer
            an example, an unknown norm, or a number for epsilon that is negative or (in L-infinity) above upper -
            lower.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> weights = jnp.array([[1.0, -1.0], [2.0, 0.0]])
        >>> options = {"labels": jnp.array([0]), "epsilon": 0.25, "key": jax.random.key(0)}
        >>> apgd(lambda x: x @ weights, jnp.full((1, 2), 0.5), **options).tolist()
        [[0.25, 0.25]]
    """
    geometry = check_task(norm, inputs, labels, epsilon=epsilon, lower=lower, upper=upper)
    if num_steps < 1 or num_restarts < 1:
        raise ValueError(f"num_steps={num_steps}, num_restarts={num_restarts}: both must be at least 1")
    inputs, epsilon = jax.lax.stop_gradient(inputs), typed_as(inputs, epsilon)
    ball = {"epsilon": epsilon, "lower": lower, "upper": upper}
    walk_fn = partial(walk, partial(look, logits_fn, loss_fn, labels), geometry, ball, num_steps)

    def restart(carry: tuple[Int[Array, ""], Best]) -> tuple[Int[Array, ""], Best]:
        index, best = carry
        starts = random_border_point(
            jax.random.fold_in(key, index), inputs, norm=geometry, radius=epsilon, lower=lower, upper=upper
        )
        return index + 1, walk_fn(inputs, starts, best)

    losses, wrong = judge(logits_fn, loss_fn, labels, inputs)
    unbeaten = Best(inputs, jnp.full_like(losses, -jnp.inf), wrong)
    _, best = jax.lax.while_loop(
        lambda carry: (carry[0] < num_restarts) & ~jnp.all(carry[1].beaten), restart, (jnp.asarray(0), unbeaten)
    )
    return jax.lax.stop_gradient(best.inputs)


def apgd_targeted(
    logits_fn: LogitsFn,
    inputs: Inputs,
    *,
    labels: Labels,
    targets: Labels,
    epsilon: Scalar,
    key: PRNGKey,
    loss_fn: TargetedLossFn = targeted_dlr,
    num_steps: int = 100,
    num_restarts: int = 1,
    norm: NormName = "linf",
    lower: float = 0.0,
    upper: float = 1.0,
) -> Inputs:
    """Attack by Auto-PGD toward one class an example; `targets.over_targets` makes it one over several classes.

    Any misclassification beats an example, also one into another class than its target.

    Args:
        logits_fn: Network with its parameters bound, a batch to LOGITS.
        inputs: Batch in [lower, upper].
        labels: True labels.
        targets: Classes to reach.
        epsilon: Radius in the units of the inputs, at least 0; may be traced.
        key: Fixes the random starts.
        loss_fn: What is raised; the targeted DLR, which needs four classes.
        num_steps: Steps of one restart, at least 1.
        num_restarts: Independent restarts, at least 1.
        norm: "linf" or "l2".
        lower: Lowest value an input may have.
        upper: Highest value an input may have.

    Returns:
        Adversarial inputs, within `epsilon` of `inputs` and in [lower, upper], detached.

    Raises:
        ValueError: As `apgd`; fewer classes than the loss needs.
    """
    return apgd(
        logits_fn,
        inputs,
        labels=labels,
        epsilon=epsilon,
        key=key,
        num_steps=num_steps,
        num_restarts=num_restarts,
        loss_fn=partial(loss_fn, targets=targets),
        norm=norm,
        lower=lower,
        upper=upper,
    )
