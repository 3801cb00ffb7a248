"""The gradient of the mean loss of a batch by automatic differentiation; `closed_form` is faster where there is one."""

from collections.abc import Callable
from functools import partial

import chex
import jax
import jax.numpy as jnp

from jl1.array_types import ApplyFn, Inputs, Labels, LogitsFn, Mask, Params, PRNGKey, Scalar
from jl1.losses import LossTerms

TermsFn = Callable[..., LossTerms]
"""Called as terms_fn(logits_fn, inputs, labels=..., lam=..., epsilon=..., key=...), one value an example."""


GradientFn = Callable[..., tuple[Params, LossTerms]]
"""Called as gradient_fn(params, inputs, labels=..., mask=..., lam=..., epsilon=..., key=...); it returns the gradient
of the mean loss over the examples that count, and its mean terms."""


def masked_mean(terms: LossTerms, mask: Mask) -> LossTerms:
    """Average each term over the examples that count."""
    num_examples = jnp.maximum(jnp.sum(mask), 1).astype(terms.total.dtype)
    return LossTerms(*(jnp.sum(jnp.where(mask, term, 0.0)) / num_examples for term in terms))


def make_gradient(apply_fn: ApplyFn, *, terms_fn: TermsFn) -> GradientFn:
    """Make the gradient of the mean loss of a batch by automatic differentiation, for any network and loss.

    Args:
        apply_fn: Function of params and inputs to logits.
        terms_fn: The loss of every example. `losses.defended_loss` and those of `robust_losses` fit with their
            options bound; Eq. 3 without twins has no radius, see the example.

    Returns:
        `gradient_fn(params, inputs, labels=..., mask=..., lam=..., epsilon=..., key=...)`, which returns the
        gradient and the mean terms. Not jitted; lam and epsilon may be traced.

    Example:
        >>> from jl1.losses import penalised_loss
        >>> from jl1.penalties import make_penalty
        >>> def on_the_points(logits_fn, inputs, *, labels, lam, epsilon, key):
        ...     return penalised_loss(logits_fn, inputs, labels=labels, lam=lam, penalty_fn=make_penalty("jacobian_l1"))
        >>> gradient_fn = make_gradient(lambda params, x: x @ params, terms_fn=on_the_points)
        >>> gradient, terms = gradient_fn(jnp.array([[1.0, -2.0]]), jnp.zeros((1, 1)), labels=jnp.array([0]),
        ...                               mask=jnp.array([True]), lam=0.5, epsilon=0.0)
        >>> gradient.tolist(), float(terms.penalty)  # lam sign(W), and sum |W|
        ([[0.5, -0.5]], 3.0)
    """

    def gradient_fn(
        params: Params,
        inputs: Inputs,
        *,
        labels: Labels,
        mask: Mask,
        lam: Scalar,
        epsilon: Scalar,
        key: PRNGKey | None = None,
    ) -> tuple[Params, LossTerms]:
        def mean_loss(params: Params) -> tuple[Scalar, LossTerms]:
            logits_fn: LogitsFn = partial(apply_fn, params)
            terms = terms_fn(logits_fn, inputs, labels=labels, lam=lam, epsilon=epsilon, key=key)
            chex.assert_equal_shape([terms.total, mask])
            means = masked_mean(terms, mask)
            return means.total, means

        return jax.grad(mean_loss, has_aux=True)(params)

    return gradient_fn
