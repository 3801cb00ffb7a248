"""Random noise: the floor under every attack. One that does no better than noise has found nothing."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from jl1.array_types import Inputs, Labels, LogitsFn, Mask, NormName, PRNGKey, Scalar
from jl1.attacks.ball import typed_as
from jl1.attacks.fgsm import predicted_labels
from jl1.attacks.norms import check_task, random_start
from jl1.per_example import choose


def random_noise(
    logits_fn: LogitsFn,
    inputs: Inputs,
    *,
    labels: Labels,
    epsilon: Scalar,
    key: PRNGKey,
    num_draws: int = 100,
    norm: NormName = "linf",
    lower: float = 0.0,
    upper: float = 1.0,
) -> Inputs:
    """Attack by `num_draws` uniformly random points of the ball, clipped to the range.

    An example keeps the first misclassified point, the input itself included; one that stands returns its last
    draw. Not jitted; one compilation serves every epsilon.

    Args:
        logits_fn: Network with its parameters bound, a batch to logits.
        inputs: Batch in [lower, upper].
        labels: True labels.
        epsilon: Radius in the units of the inputs, at least 0; may be traced.
        key: Fixes the draws.
        num_draws: Points an example, at least 1.
        norm: "linf" or "l2".
        lower: Lowest value an input may have.
        upper: Highest value an input may have.

    Returns:
        Noisy inputs, within `epsilon` of `inputs` and in [lower, upper], detached.

    Raises:
        ValueError: `num_draws` below 1, inputs that are not floating, labels that are not one integer an example, an
            unknown norm, or a number for epsilon that is negative or (in L-infinity) above upper - lower.
    """
    geometry = check_task(norm, inputs, labels, epsilon=epsilon, lower=lower, upper=upper)
    if num_draws < 1:
        raise ValueError(f"num_draws={num_draws}: must be at least 1")
    inputs = jax.lax.stop_gradient(inputs)
    ball = {"epsilon": typed_as(inputs, epsilon), "lower": lower, "upper": upper}

    def draw(carry: tuple[Int[Array, ""], Inputs, Mask]) -> tuple[Int[Array, ""], Inputs, Mask]:
        count, kept, beaten = carry
        points = random_start(jax.random.fold_in(key, count), inputs, norm=geometry, **ball)
        wrong = predicted_labels(logits_fn, points) != labels
        return count + 1, choose(beaten, kept, points), beaten | wrong

    wrong = predicted_labels(logits_fn, inputs) != labels
    state = jax.lax.while_loop(
        lambda carry: (carry[0] < num_draws) & ~jnp.all(carry[2]), draw, (jnp.asarray(0), inputs, wrong)
    )
    return jax.lax.stop_gradient(state[1])
