"""Penalties in every m-th step only, with weight m."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from jl1.array_types import Inputs, Params, Scalar
from jl1.gradients import GradientFn
from jl1.losses import LossTerms


def make_lazy_gradient(gradient_fn: GradientFn, plain_gradient_fn: GradientFn) -> GradientFn:
    """Make the gradient that takes the penalised form where lambda is above 0, and the plain one elsewhere.

    With `Hyperparameters.every` = m the steps of `make_train_step` and `make_epoch` have lambda 0 but for every
    m-th one, which has m lambda: no Jacobian is computed in between, and the penalty costs an m-th. The gradient of a
    step has the same mean over m steps, but a larger variance; Adam, whose second moment sees both kinds of
    steps, does not make the same path of it.

    Both forms are compiled into one program, each once, and the device chooses (`lax.cond`; under `vmap` it computes
    both).

    Args:
        gradient_fn: Of the penalised loss: from `gradients.make_gradient` or `closed_form.make_closed_form_gradient`.
        plain_gradient_fn: Of the same loss without its penalty.

    Returns:
        Function with their signature.

    References:
        The idea: Karras et al. 2020, "Analyzing and improving the image quality of StyleGAN" (lazy
        regularization), arXiv:1912.04958, Sec. 3.2.
    """

    def lazy_gradient_fn(params: Params, inputs: Inputs, *, lam: Scalar, **options: Any) -> tuple[Params, LossTerms]:
        penalised, plain = (
            partial(form, params, inputs, lam=lam, **options) for form in (gradient_fn, plain_gradient_fn)
        )

        def plain_as_penalised() -> tuple[Params, LossTerms]:
            gradient, terms = plain()  # of logits in few bits: lambda lifts the terms of the other form to its own type
            return gradient, LossTerms(*(term.astype(jnp.result_type(term, lam)) for term in terms))

        return jax.lax.cond(lam > 0, penalised, plain_as_penalised)

    return lazy_gradient_fn
