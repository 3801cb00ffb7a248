"""Penalties on how fast a network changes with its input, one function each.

All take a batched function and the inputs and return one value an example, neither averaged nor jitted. `make_penalty`
composes one of them with the outputs that are penalised and with the scale; `estimators` has cheaper estimates.

| name | value at one example | reverse passes |
|---|---|---|
| `jacobian_l1` | sum_ij abs(df_i/dx_j), Eq. 3 | one an output |
| `class_sum_l1` | sum_j abs(sum_i df_i/dx_j), footnote 1 | one |
| `jacobian_frobenius` | sum_ij (df_i/dx_j)^2 | one an output |
| `loss_gradient_l2` | sum_j (dL/dx_j)^2, double backpropagation of the loss | one |
| `loss_gradient_l1` | sum_j abs(dL/dx_j) | one |
"""

import math
from collections.abc import Callable, Mapping
from functools import partial

import jax
import jax.numpy as jnp
import optax

from jl1.array_types import (
    BatchedFn,
    ExampleLossFn,
    Inputs,
    Labels,
    Logits,
    LogitsFn,
    Outputs,
    PenaltyFn,
    PerExample,
)
from jl1.jacobian import entrywise_l1, input_gradient, squared_l2, sum_over_jacobian_rows


def jacobian_l1(batched_fn: BatchedFn, inputs: Inputs, *, outputs_per_pass: int = 1) -> PerExample:
    """Compute ||J||_{1,1} = sum_i sum_j |df_i(x)/dx_j|, the penalty of Eq. 3, exactly.

    Args:
        batched_fn: Batch of inputs to a batch of output vectors; examples must not interact.
        inputs: Batch of examples.
        outputs_per_pass: Outputs differentiated at a time: more is faster on an accelerator and takes
            proportionally more temporary memory.

    Returns:
        One norm an example.

    Example:
        >>> import jax.numpy as jnp
        >>> weights = jnp.array([[1.0, -2.0], [3.0, 0.5]])
        >>> jacobian_l1(lambda x: x @ weights.T, jnp.zeros((1, 2))).tolist()
        [6.5]

    References:
        Seck, Loosli, Canu 2019, arXiv:1903.01715, Eq. 3.
    """
    return sum_over_jacobian_rows(entrywise_l1, batched_fn, inputs=inputs, outputs_per_pass=outputs_per_pass)


def class_sum_l1(batched_fn: BatchedFn, inputs: Inputs) -> PerExample:
    """Compute sum_j |sum_i df_i(x)/dx_j|, the surrogate of footnote 1, by one reverse pass.

    At most `jacobian_l1`, by the triangle inequality, and vacuous for the outputs that one would try first:
    identically zero on probabilities (they sum to one) and on centred logits (they sum to zero), and on
    logits the last layer can make it zero without changing a prediction (`models.centre_output_layer`).
    On log-probabilities it is not vacuous.

    Args:
        batched_fn: Batch of inputs to a batch of output vectors; examples must not interact.
        inputs: Batch of examples.

    Returns:
        One norm an example.

    Example:
        >>> import jax.numpy as jnp
        >>> weights = jnp.array([[1.0, -2.0], [3.0, 0.5]])
        >>> class_sum_l1(lambda x: x @ weights.T, jnp.zeros((1, 2))).tolist()
        [5.5]
    """
    return entrywise_l1(input_gradient(lambda points: jnp.sum(batched_fn(points), axis=-1), inputs))


def jacobian_frobenius(batched_fn: BatchedFn, inputs: Inputs, *, outputs_per_pass: int = 1) -> PerExample:
    """Compute the SQUARED Frobenius norm sum_ij (df_i(x)/dx_j)^2, exactly.

    Args:
        batched_fn: Batch of inputs to a batch of output vectors; examples must not interact.
        inputs: Batch of examples.
        outputs_per_pass: Outputs differentiated at a time.

    Returns:
        One squared norm an example.
    """
    return sum_over_jacobian_rows(squared_l2, batched_fn, inputs=inputs, outputs_per_pass=outputs_per_pass)


def loss_gradient_l2(per_example_loss_fn: Callable[[Inputs], PerExample], inputs: Inputs) -> PerExample:
    """Compute sum_j (dL(x)/dx_j)^2, the double backpropagation of the LOSS.

    Drucker and Le Cun carry a factor 1/2 with it, which is left to lambda here.

    Args:
        per_example_loss_fn: Batch of inputs to one loss an example.
        inputs: Batch of examples.

    Returns:
        One squared norm an example.

    References:
        Drucker, Le Cun 1992, "Improving generalization performance using double backpropagation".
    """
    return squared_l2(input_gradient(per_example_loss_fn, inputs))


def loss_gradient_l1(per_example_loss_fn: Callable[[Inputs], PerExample], inputs: Inputs) -> PerExample:
    """Compute sum_j |dL(x)/dx_j|: to first order, epsilon times it is what FGSM adds to the loss.

    Args:
        per_example_loss_fn: Batch of inputs to one loss an example.
        inputs: Batch of examples.

    Returns:
        One norm an example.

    References:
        Simon-Gabriel, Ollivier, Bottou, Schoelkopf, Lopez-Paz 2018, arXiv:1802.01421.
    """
    return entrywise_l1(input_gradient(per_example_loss_fn, inputs))


def logits_output(logits: Logits) -> Outputs:
    """Penalise the logits as they are."""
    return logits


def centred_logits(logits: Logits) -> Outputs:
    """Subtract each example's mean logit: the part of the logits that decisions depend on.

    Args:
        logits: Scores before the softmax.

    Returns:
        Logits that sum to zero in every example.
    """
    return logits - jnp.mean(logits, axis=-1, keepdims=True)


OUTPUTS: Mapping[str, Callable[[Logits], Outputs]] = {
    "logits": logits_output,
    "centred_logits": centred_logits,
    "probs": jax.nn.softmax,
    "log_probs": jax.nn.log_softmax,
}
"""The f of Eq. 3, as a function of the logits; the paper does not say which it penalised."""

JACOBIAN_PENALTIES: Mapping[str, Callable[..., PerExample]] = {
    "jacobian_l1": jacobian_l1,
    "class_sum_l1": class_sum_l1,
    "jacobian_frobenius": jacobian_frobenius,
}
"""Penalties of the derivative of the outputs."""

LOSS_GRADIENT_PENALTIES: Mapping[str, Callable[[Callable[[Inputs], PerExample], Inputs], PerExample]] = {
    "loss_gradient_l2": loss_gradient_l2,
    "loss_gradient_l1": loss_gradient_l1,
}
"""Penalties of the derivative of the loss; which outputs are penalised does not matter to them."""

PENALTIES = ("none", *JACOBIAN_PENALTIES, *LOSS_GRADIENT_PENALTIES)
"""What `make_penalty` knows, and `none`."""

SCALES = ("sum", "mean")
"""`sum` is Eq. 3 to the letter; `mean` divides it by the number of entries of the Jacobian."""


def make_penalty(
    name: str,
    *,
    outputs: str = "logits",
    scale: str = "sum",
    outputs_per_pass: int = 1,
    loss_fn: ExampleLossFn = optax.softmax_cross_entropy_with_integer_labels,
) -> PenaltyFn:
    """Compose a penalty of a network from its name, the penalised outputs and the scale.

    Args:
        name: One of `PENALTIES` but `none`.
        outputs: One of `OUTPUTS`.
        scale: `sum`, or `mean` over the c x d entries of the Jacobian (the d entries of the gradient for
            a penalty of the loss). `class_sum_l1` is divided by c x d too: it stands where ||J||_{1,1}
            stands in Eq. 3, so both have the same factor and lambda means the same.
        outputs_per_pass: Outputs differentiated at a time by the penalties that need a reverse pass for
            each: the bound on memory.
        loss_fn: The loss whose gradient is penalised, for a penalty of the loss.

    Returns:
        Function of (logits_fn, inputs, labels=...) with one value an example.

    Raises:
        ValueError: An unknown name.

    Example:
        >>> import jax.numpy as jnp
        >>> weights = jnp.array([[1.0, -2.0], [3.0, 0.5]])
        >>> penalty_fn = make_penalty("jacobian_l1", scale="mean")
        >>> penalty_fn(lambda x: x @ weights.T, jnp.zeros((1, 2)), labels=jnp.array([0])).tolist()
        [1.625]
    """
    if name not in PENALTIES[1:] or outputs not in OUTPUTS or scale not in SCALES:
        raise ValueError(
            f"no penalty {name!r} on outputs {outputs!r} with scale {scale!r}; penalties are "
            f"{', '.join(PENALTIES[1:])}; outputs {', '.join(OUTPUTS)}; scales {', '.join(SCALES)}"
        )
    if name in LOSS_GRADIENT_PENALTIES:
        return partial(_loss_gradient_penalty, LOSS_GRADIENT_PENALTIES[name], loss_fn, scale)
    norm_fn = JACOBIAN_PENALTIES[name]
    if norm_fn is not class_sum_l1:
        norm_fn = partial(norm_fn, outputs_per_pass=outputs_per_pass)
    return partial(_jacobian_penalty, norm_fn, OUTPUTS[outputs], scale)


def _jacobian_penalty(
    norm_fn: Callable[[BatchedFn, Inputs], PerExample],
    output_fn: Callable[[Logits], Outputs],
    scale: str,
    logits_fn: LogitsFn,
    inputs: Inputs,
    *,
    labels: Labels,
) -> PerExample:
    """Penalise the Jacobian of output_fn(logits)."""
    del labels  # the Jacobian does not depend on them
    values = norm_fn(lambda points: output_fn(logits_fn(points)), inputs)
    return values / _num_entries(scale, jax.eval_shape(logits_fn, inputs).shape[1], inputs)


def _loss_gradient_penalty(
    norm_fn: Callable[[Callable[[Inputs], PerExample], Inputs], PerExample],
    loss_fn: ExampleLossFn,
    scale: str,
    logits_fn: LogitsFn,
    inputs: Inputs,
    *,
    labels: Labels,
) -> PerExample:
    """Penalise the gradient of the loss."""
    values = norm_fn(lambda points: loss_fn(logits_fn(points), labels), inputs)
    return values / _num_entries(scale, 1, inputs)


def _num_entries(scale: str, num_outputs: int, inputs: Inputs) -> int:
    """Return what the sum over entries is divided by."""
    return num_outputs * math.prod(inputs.shape[1:]) if scale == "mean" else 1
