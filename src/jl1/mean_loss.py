"""The losses of `losses.py`, by name, jitted and averaged, for a training loop of one's own."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jl1.array_types import ApplyFn, Inputs, Labels, LogitsFn, Params, PRNGKey, Scalar
from jl1.losses import LossTerms, cross_entropy, defended_loss, output_change_loss, penalised_loss
from jl1.penalties import OUTPUT_CHANGE, make_change_penalty, make_penalty


def make_loss(
    apply_fn: ApplyFn,
    *,
    penalty: str = "jacobian_l1",
    outputs: str = "logits",
    scale: str = "sum",
    num_draws: int = 1,
    adversarial: bool = True,
    smoothing: float = 0.1,
) -> Callable[..., tuple[Float[Array, ""], LossTerms]]:
    """Make the jitted mean loss of a batch, for a training loop of your own.

    Args:
        apply_fn: Function of params and a batch of inputs to logits, in any framework or none.
        penalty: A name of `penalties.PENALTIES`; `none` compiles no Jacobian.
        outputs: What is penalised, a name of `penalties.OUTPUTS`.
        scale: `sum` (Eq. 3) or `mean` over the entries of the Jacobian.
        num_draws: Draws of a penalty that is an estimator.
        adversarial: With FGSM twins (`defended_loss`) or without (`penalised_loss`).
        smoothing: Label smoothing of the cross-entropy.

    Returns:
        `loss(params, inputs, labels, *, lam, epsilon=0.0, key=None)` that returns the mean loss and its mean
        terms; lam and epsilon are traced, so no value of them compiles anew. Differentiate it with
        `jax.value_and_grad(loss, has_aux=True)`. A penalty that is an estimator needs a new key in each step.

    Raises:
        ValueError: An unknown name, or `output_change` without adversarial twins.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> loss = make_loss(lambda weights, x: x @ weights, smoothing=0.0)
        >>> params, inputs, labels = jnp.eye(2), jnp.full((4, 2), 0.5), jnp.array([0, 1, 0, 1])
        >>> (value, terms), gradient = jax.value_and_grad(loss, has_aux=True)(
        ...     params, inputs, labels, lam=0.1, epsilon=0.0)
        >>> round(float(value), 4), float(terms.penalty), gradient.shape
        (0.8931, 2.0, (2, 2))
    """
    loss_fn = partial(cross_entropy, smoothing=smoothing)
    coupled, penalty_fn = defended_loss if adversarial else _on_the_points_only, None
    if penalty == OUTPUT_CHANGE:
        if not adversarial:
            raise ValueError(
                f"{OUTPUT_CHANGE} compares each point with its adversarial twin: it needs adversarial=True"
            )
        coupled, penalty_fn = output_change_loss, make_change_penalty(outputs=outputs, scale=scale)
    elif penalty != "none":
        penalty_fn = make_penalty(penalty, outputs=outputs, scale=scale, num_draws=num_draws, loss_fn=loss_fn)
    terms_fn = partial(coupled, penalty_fn=penalty_fn, loss_fn=loss_fn)

    @jax.jit
    def loss(
        params: Params,
        inputs: Inputs,
        labels: Labels,
        *,
        lam: Scalar,
        epsilon: Scalar = 0.0,
        key: PRNGKey | None = None,
    ) -> tuple[Float[Array, ""], LossTerms]:
        terms = terms_fn(partial(apply_fn, params), inputs, labels=labels, lam=lam, epsilon=epsilon, key=key)
        means = LossTerms(*(jnp.mean(term) for term in terms))
        return means.total, means

    return loss


def _on_the_points_only(logits_fn: LogitsFn, inputs: Inputs, *, epsilon: Scalar, **options: Any) -> LossTerms:
    """Give `penalised_loss` the signature of `defended_loss`; there is no attack for epsilon to matter to."""
    del epsilon
    return penalised_loss(logits_fn, inputs, **options)
