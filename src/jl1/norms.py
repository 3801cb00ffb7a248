"""Exact norms of the derivatives of a network's outputs and of its loss, one function each.

All take a batched function and the inputs and return one value an example, neither averaged nor jitted;
`estimators` has cheaper estimates, `penalties.make_penalty` makes penalties of all of them.

| name | value at one example | reverse passes |
|---|---|---|
| `jacobian_l1` | sum_ij abs(df_i/dx_j), Eq. 3 | one an output |
| `class_sum_l1` | sum_j abs(sum_i df_i/dx_j), footnote 1 | one |
| `jacobian_frobenius` | sum_ij (df_i/dx_j)^2 | one an output |
| `loss_gradient_l2` | sum_j (dL/dx_j)^2, double backpropagation of the loss | one |
| `loss_gradient_l1` | sum_j abs(dL/dx_j) | one |
"""

from collections.abc import Callable
from functools import partial

import jax.numpy as jnp

from jl1.array_types import BatchedFn, Inputs, PerExample
from jl1.evaluated import compose
from jl1.jacobian import entrywise_l1, input_gradient, squared_l2, sum_over_jacobian_rows


def jacobian_l1(
    batched_fn: BatchedFn, inputs: Inputs, *, outputs_per_pass: int = 1, examples_per_pass: int | None = None
) -> PerExample:
    """Compute ||J||_{1,1} = sum_i sum_j |df_i(x)/dx_j|, the penalty of Eq. 3, exactly.

    Args:
        batched_fn: Batch of inputs to a batch of output vectors; examples must not interact.
        inputs: Batch of examples.
        outputs_per_pass: Outputs differentiated at a time: more is faster on an accelerator and takes
            proportionally more temporary memory.
        examples_per_pass: Examples at a time; None: the whole batch.

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
    chunks = {"outputs_per_pass": outputs_per_pass, "examples_per_pass": examples_per_pass}
    return sum_over_jacobian_rows(entrywise_l1, batched_fn, inputs=inputs, **chunks)


def class_sum_l1(batched_fn: BatchedFn, inputs: Inputs) -> PerExample:
    """Compute sum_j |sum_i df_i(x)/dx_j|, the surrogate of footnote 1, by one reverse pass.

    At most `jacobian_l1`, by the triangle inequality, and vacuous for the outputs that one would try first:
    identically zero on probabilities (they sum to one) and on centred logits (they sum to zero), and on
    logits the last layer can make it zero without changing a prediction (`gauge.centre_output_layer`).
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
    return entrywise_l1(input_gradient(compose(partial(jnp.sum, axis=-1), batched_fn), inputs))


def jacobian_frobenius(
    batched_fn: BatchedFn, inputs: Inputs, *, outputs_per_pass: int = 1, examples_per_pass: int | None = None
) -> PerExample:
    """Compute the SQUARED Frobenius norm sum_ij (df_i(x)/dx_j)^2, exactly.

    Args:
        batched_fn: Batch of inputs to a batch of output vectors; examples must not interact.
        inputs: Batch of examples.
        outputs_per_pass: Outputs differentiated at a time.
        examples_per_pass: Examples at a time; None: the whole batch.

    Returns:
        One squared norm an example.
    """
    chunks = {"outputs_per_pass": outputs_per_pass, "examples_per_pass": examples_per_pass}
    return sum_over_jacobian_rows(squared_l2, batched_fn, inputs=inputs, **chunks)


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
