"""Steepest ascent on the divergence from the outputs at the inputs: the inner maximisation of TRADES.

References:
    Zhang, Yu, Jiao, Xing, El Ghaoui, Jordan 2019, "Theoretically principled trade-off between robustness and
    accuracy", arXiv:1901.08573.
"""

import jax
import jax.numpy as jnp

from jl1.array_types import Inputs, Labels, Logits, LogitsFn, NormName, PerExample, PRNGKey, Scalar
from jl1.attacks.ascent import steepest_ascent
from jl1.inputs import check_floating
from jl1.shares import draw_rows

_START_SCALE = 0.001
"""Standard deviation of the start's noise, from the reference's Algorithm 1 and code, whatever epsilon is."""


def kl_divergence(logits: Logits, other_logits: Logits) -> PerExample:
    """Compute KL(p || q) = sum_i p_i (log p_i - log q_i) of p = softmax(logits) and q = softmax(other_logits).

    Args:
        logits: Scores that give p, finite.
        other_logits: Scores that give q, finite.

    Returns:
        One value an example, in nats, at least 0 up to rounding.

    Example:
        >>> import jax.numpy as jnp
        >>> round(float(kl_divergence(jnp.zeros((1, 2)), jnp.log(jnp.array([[0.25, 0.75]])))[0]), 4)  # log(4/3) / 2
        0.1438
    """
    log_probs, other_log_probs = jax.nn.log_softmax(logits), jax.nn.log_softmax(other_logits)
    return jnp.sum(jnp.exp(log_probs) * (log_probs - other_log_probs), axis=-1)


def kl_ascent(
    logits_fn: LogitsFn,
    inputs: Inputs,
    *,
    labels: Labels | None = None,
    epsilon: Scalar,
    key: PRNGKey,
    num_steps: int = 10,
    step_size: Scalar | None = None,
    norm: NormName = "linf",
    lower: float = 0.0,
    upper: float = 1.0,
) -> Inputs:
    """Attack by steepest ascent on KL(f(x) || f(x')) from x + N(0, 0.001^2) (Algorithm 1 of the reference).

    At x itself the divergence has its minimum and no slope: without the noise the ascent would follow rounding errors.

    Args:
        logits_fn: Network with its parameters bound, a batch to LOGITS.
        inputs: Batch in [lower, upper].
        labels: Not used: the outputs at the inputs stand for them. It is there so that this is an attack like others.
        epsilon: Radius in the units of the inputs, at least 0; may be traced.
        key: Fixes the noise.
        num_steps: Number of steps, at least 1.
        step_size: Length of one step; 2.5 epsilon / num_steps unless given.
        norm: "linf" or "l2".
        lower: Lowest value an input may have.
        upper: Highest value an input may have.

    Returns:
        The last points, within `epsilon` of `inputs` and in [lower, upper], detached.

    Raises:
        ValueError: `num_steps` below 1, inputs that are not floating, an unknown norm, or a number for epsilon that is
            negative or (in L-infinity) above upper - lower.
    """
    del labels
    check_floating(inputs)
    logits, (num_rows, *features) = logits_fn(inputs), inputs.shape
    noise = draw_rows(lambda rows: jax.random.normal(key, (rows, *features), inputs.dtype), num_rows)
    return steepest_ascent(
        lambda points: kl_divergence(logits, logits_fn(points)),
        inputs + _START_SCALE * noise,
        centre=inputs,
        epsilon=epsilon,
        num_steps=num_steps,
        step_size=step_size,
        norm=norm,
        lower=lower,
        upper=upper,
    )
