"""Whether an attack's loss has a gradient to follow, and whether it points the same way inside the ball.

References:
    Athalye, Carlini, Wagner 2018, "Obfuscated gradients give a false sense of security", arXiv:1802.00420.
    Andriushchenko, Flammarion 2020, "Understanding and improving fast adversarial training", arXiv:2007.02617.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jl1.array_types import (
    ApplyFn,
    ExampleLossFn,
    Inputs,
    Labels,
    LogitsFn,
    Mask,
    Params,
    PerExample,
    PRNGKey,
    Scalar,
)
from jl1.attacks.ball import typed_as
from jl1.attacks.norms import LINF, random_start
from jl1.jacobian import entrywise_l1, input_gradient, squared_l2
from jl1.labels import check_labels
from jl1.per_example import spread
from jl1.precision import in_one_precise_type


class GradientHealth(NamedTuple):
    """The input gradient of a loss, one row an example.

    Attributes:
        is_zero: Whether every entry is exactly 0: a sign step does not move the example.
        is_subnormal: Whether it is not zero, but every entry is below the smallest normal number of its type, where
            digits are lost. Devices that flush such numbers have zeros in their place.
        is_finite: Whether no entry is infinite or NaN.
        zero_share: Share of the entries with sign 0, in [0, 1]: features that a sign step does not move.
        l1_norm: Sum of the entries' absolute values, in units of loss per unit of input.
    """

    is_zero: Mask
    is_subnormal: Mask
    is_finite: Mask
    zero_share: PerExample
    l1_norm: PerExample


def gradient_health(logits_fn: LogitsFn, inputs: Inputs, *, labels: Labels, loss_fn: ExampleLossFn) -> GradientHealth:
    """Look at grad_x L(f(x), y) of every example.

    Args:
        logits_fn: Network with its parameters bound, a batch to logits.
        inputs: Batch of examples.
        labels: True labels y.
        loss_fn: What an attack raises, one of `attacks.objectives.OBJECTIVES`.

    Returns:
        The figures; nothing is averaged.

    Raises:
        ValueError: Inputs that are not floating, or labels that are not one integer an example.

    Example:
        A linear network has the same gradient everywhere; rounding has none:

        >>> from jl1.attacks.objectives import margin
        >>> weights = jnp.array([[1.0, -1.0], [2.0, 0.0]])
        >>> points, options = jnp.full((1, 2), 0.5), {"labels": jnp.array([0]), "loss_fn": margin}
        >>> gradient_health(lambda x: x @ weights, points, **options).l1_norm.tolist()
        [4.0]
        >>> gradient_health(lambda x: jnp.round(x) @ weights, points, **options).is_zero.tolist()
        [True]
    """
    check_labels(labels, inputs, what="inputs")
    gradient = input_gradient(lambda points: loss_fn(logits_fn(points), labels), inputs)
    rows = gradient.reshape(len(gradient), -1)
    largest = jnp.max(jnp.abs(rows), axis=1)
    is_zero = jnp.all(rows == 0, axis=1)
    return GradientHealth(
        is_zero=is_zero,
        is_subnormal=~is_zero & (largest < jnp.finfo(rows.dtype).tiny),
        is_finite=jnp.all(jnp.isfinite(rows), axis=1),
        zero_share=jnp.mean(jnp.sign(rows) == 0, axis=1, dtype=rows.dtype),
        l1_norm=entrywise_l1(gradient),
    )


def make_gradient_step(apply_fn: ApplyFn, *, loss_fn: ExampleLossFn) -> Callable[..., GradientHealth]:
    """Make the jitted `step(params, inputs, labels)` of `gradient_health`, for `batches.measure`."""

    def step(params: Params, inputs: Inputs, labels: Labels) -> GradientHealth:
        return gradient_health(partial(apply_fn, params), inputs, labels=labels, loss_fn=loss_fn)

    return jax.jit(step)


def gradient_alignment(
    logits_fn: LogitsFn,
    inputs: Inputs,
    *,
    labels: Labels,
    epsilon: Scalar,
    key: PRNGKey,
    loss_fn: ExampleLossFn,
    lower: float = 0.0,
    upper: float = 1.0,
) -> PerExample:
    """Compute cos(grad L(x), grad L(x + u)) with u uniformly random in the ball, clipped to the range.

    Near 1 the loss is linear in the ball, so one step of FGSM finds what there is. Near 0 a single step says nothing:
    below 0.2 on average the network's robustness to FGSM is a catastrophic overfit (arXiv:2007.02617, figure 3).

    Args:
        logits_fn: Network with its parameters bound, a batch to logits.
        inputs: Batch in [lower, upper].
        labels: True labels.
        epsilon: L-infinity radius of the ball; may be traced.
        key: Fixes the random points.
        loss_fn: The loss L.
        lower: Lowest value an input may have.
        upper: Highest value an input may have.

    Returns:
        One cosine an example, in [-1, 1]; 0 where one of the gradients is zero or not finite.
    """
    inside = random_start(key, inputs, norm=LINF, epsilon=typed_as(inputs, epsilon), lower=lower, upper=upper)
    here, there = (
        _direction(input_gradient(lambda points: loss_fn(logits_fn(points), labels), points))
        for points in (inputs, inside)
    )
    lengths = jnp.sqrt(squared_l2(here) * squared_l2(there))
    product = jnp.sum((here * there).reshape(len(inputs), -1), axis=1)
    return jnp.clip(product / jnp.where(lengths > 0, lengths, 1), -1.0, 1.0)


def make_alignment_step(
    apply_fn: ApplyFn, *, loss_fn: ExampleLossFn, lower: float = 0.0, upper: float = 1.0
) -> Callable[..., PerExample]:
    """Make the jitted `step(params, inputs, labels, epsilon, key)` of `gradient_alignment`, for `batches.measure`."""

    def step(params: Params, inputs: Inputs, labels: Labels, epsilon: Scalar, key: PRNGKey) -> PerExample:
        ball = {"epsilon": epsilon, "lower": lower, "upper": upper}
        return gradient_alignment(partial(apply_fn, params), inputs, labels=labels, key=key, loss_fn=loss_fn, **ball)

    return jax.jit(step)


def _direction(gradient: Inputs) -> Inputs:
    """Divide by the largest entry, so that squares neither underflow nor overflow; zero where that cannot be done."""
    (gradient,) = in_one_precise_type(gradient)  # in float16 the inverse of a small number is infinite
    largest = jnp.max(jnp.abs(gradient.reshape(len(gradient), -1)), axis=1)
    usable = (largest >= jnp.finfo(gradient.dtype).tiny) & jnp.isfinite(largest)
    scaled = gradient / spread(jnp.where(usable, largest, 1), gradient)
    return jnp.where(spread(usable, gradient), scaled, 0)
