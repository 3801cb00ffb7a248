"""The Jacobian of a network's outputs with respect to its inputs, and its entrywise L1 norm.

Two exact forms that give the same numbers:

* by definition, `input_jacobian` and `l1_jacobian_norm`: `vmap(jacrev)` of a function of ONE
  example. Nothing can go wrong with it, and it is the reference for everything faster;
* `sum_over_jacobian_rows`: one forward pass of a whole batch and one reverse pass for each output,
  a few outputs at a time, so that memory stays bounded when it is differentiated again for training.
"""

from collections.abc import Callable
from functools import partial

import chex
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jl1.array_types import BatchedFn, Inputs, Jacobian, OutputsFn, PerExample
from jl1.evaluated import as_varying, value_and_pullback
from jl1.inputs import check_floating


def input_jacobian(outputs_fn: OutputsFn, inputs: Inputs) -> Jacobian:
    """Compute the exact Jacobian J_ij = df_i(x)/dx_j of every example.

    The definition, `vmap(jacrev(outputs_fn))`. It is not jitted: `jax.jit(input_jacobian,
    static_argnums=0)`, or call it inside a jitted function.

    Args:
        outputs_fn: Function of ONE example, features to a vector of outputs.
        inputs: Batch of examples.

    Returns:
        The Jacobian of each example, outputs first, then the features.

    Example:
        >>> import jax.numpy as jnp
        >>> weights = jnp.array([[1.0, -2.0], [3.0, 0.5]])
        >>> input_jacobian(lambda x: weights @ x, jnp.zeros((1, 2))).tolist()
        [[[1.0, -2.0], [3.0, 0.5]]]
    """
    check_floating(inputs)
    chex.assert_rank(jax.eval_shape(outputs_fn, jax.ShapeDtypeStruct(inputs.shape[1:], inputs.dtype)), 1)
    return jax.vmap(jax.jacrev(outputs_fn))(inputs)


def l1_jacobian_norm(outputs_fn: OutputsFn, inputs: Inputs) -> PerExample:
    """Compute ||J||_{1,1} = sum_i sum_j |df_i(x)/dx_j| of every example (Eq. 3), by definition.

    No averaging over the batch. Its subgradient at an entry that is exactly 0 is 0.

    Args:
        outputs_fn: Function of ONE example, features to a vector of outputs.
        inputs: Batch of examples.

    Returns:
        One norm an example, in units of output per unit of input.

    Example:
        >>> import jax.numpy as jnp
        >>> weights = jnp.array([[1.0, -2.0], [3.0, 0.5]])
        >>> l1_jacobian_norm(lambda x: weights @ x, jnp.zeros((1, 2))).tolist()
        [6.5]
    """
    return entrywise_l1(input_jacobian(outputs_fn, inputs))


def entrywise_l1(values: Float[Array, " batch *entries"]) -> PerExample:
    """Sum |v| over all but the first axis, with subgradient 0 where v is exactly 0.

    JAX's own derivative of |v| at 0 is +1, which would push parameters in one direction wherever a
    dead region of the image makes an entry exactly 0 (blank MNIST borders do).

    Args:
        values: One array of entries an example, such as a Jacobian.

    Returns:
        One sum an example.
    """
    return _inner_product(values, jax.lax.stop_gradient(jnp.sign(values)))


def squared_l2(values: Float[Array, " batch *entries"]) -> PerExample:
    """Sum v^2 over all but the first axis."""
    return _inner_product(values, values)


def input_gradient(per_example_fn: Callable[[Inputs], PerExample], inputs: Inputs) -> Inputs:
    """Compute the gradient of a per-example scalar, such as a loss, by one reverse pass.

    Args:
        per_example_fn: Batch of inputs to one value an example; examples must not interact.
        inputs: Batch of examples.

    Returns:
        The gradient of each example's value with respect to that example.
    """
    check_floating(inputs)
    values, pullback = value_and_pullback(per_example_fn, inputs)
    return pullback(jnp.ones_like(values))[0]


def sum_over_jacobian_rows(
    row_fn: Callable[[Inputs], PerExample],
    batched_fn: BatchedFn,
    *,
    inputs: Inputs,
    outputs_per_pass: int = 1,
    examples_per_pass: int | None = None,
) -> PerExample:
    """Compute sum_i row_fn(df_i/dx) for every example without holding the whole Jacobian.

    One forward pass of the batch, then a reverse pass for each output. The reverse passes run in a
    loop, `outputs_per_pass` at a time; differentiating the result recomputes them instead of keeping
    them, so temporary memory grows with `outputs_per_pass` and not with the number of outputs. With
    `examples_per_pass` the batch is worked off in parts, one after the other, and memory does not grow with
    its size either; what a part's forward pass keeps is recomputed too.

    Args:
        row_fn: Maps df_i/dx, of the inputs' shape, to one value an example.
        batched_fn: Batch of inputs to a batch of output vectors. Examples must not interact: with
            batch statistics the rows of different examples mix and the result is wrong
            (`classifier_check.check_classifier` finds that out).
        inputs: Batch of examples.
        outputs_per_pass: How many outputs one pass of the loop handles, at least 1.
        examples_per_pass: How many examples, at least 1; None: the whole batch.

    Returns:
        One sum an example.

    Raises:
        ValueError: `outputs_per_pass` or `examples_per_pass` below 1, or inputs that are not floating.

    Example:
        >>> import jax.numpy as jnp
        >>> weights = jnp.array([[1.0, -2.0], [3.0, 0.5]])
        >>> batch = jnp.zeros((1, 2))
        >>> sum_over_jacobian_rows(entrywise_l1, lambda x: x @ weights.T, inputs=batch).tolist()
        [6.5]
    """
    if outputs_per_pass < 1 or (examples_per_pass is not None and examples_per_pass < 1):
        raise ValueError(f"{outputs_per_pass=}, {examples_per_pass=}: must be at least 1")
    check_floating(inputs)
    of_part = partial(_sum_over_rows, row_fn, batched_fn, outputs_per_pass)
    if examples_per_pass is None or examples_per_pass >= len(inputs):
        return of_part(inputs)
    # examples, not zeros, fill up the last part: a network may have no derivative at zero
    padded = jnp.concatenate([inputs, inputs[: -len(inputs) % examples_per_pass]])
    parts = padded.reshape(-1, examples_per_pass, *inputs.shape[1:])
    return jax.lax.map(jax.checkpoint(of_part), parts).reshape(-1)[: len(inputs)]


def _sum_over_rows(
    row_fn: Callable[[Inputs], PerExample], batched_fn: BatchedFn, outputs_per_pass: int, inputs: Inputs
) -> PerExample:
    """Run one forward pass, and a loop of reverse passes."""
    outputs, pullback = jax.vjp(batched_fn, inputs)
    chex.assert_rank(outputs, 2)
    num_outputs = outputs.shape[1]

    @jax.checkpoint
    def one_output(index: Int[Array, ""]) -> PerExample:
        cotangent = jnp.broadcast_to(jax.nn.one_hot(index, num_outputs, dtype=outputs.dtype), outputs.shape)
        return row_fn(pullback(as_varying(cotangent, outputs))[0])

    rows = jax.lax.map(one_output, jnp.arange(num_outputs), batch_size=min(outputs_per_pass, num_outputs))
    return jnp.sum(rows, axis=0)


def _inner_product(one: Float[Array, " batch *entries"], other: Float[Array, " batch *entries"]) -> PerExample:
    """Multiply and sum over all but the first axis.

    As a product of matrices: XLA's CPU reduction over image axes is so slow that it doubles the time of
    model C's penalty.
    """
    flat_one, flat_other = (values.reshape(values.shape[0], -1) for values in (one, other))
    return jnp.einsum("bf,bf->b", flat_one, flat_other, precision=jax.lax.Precision.HIGHEST)
