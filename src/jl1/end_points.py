"""Fig. 1 in numbers: how far the outputs move from a point x to its FGSM twin x', and how steep they are at both.

    Delta_i = f_i(x') - f_i(x),      ||grad f_i||_1 and ||J||_{1,1} at x and at x'

The paper draws their ideal course during training: Delta and both gradients go to zero together.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jl1.array_types import ApplyFn, BatchedFn, Inputs, Labels, LogitsFn, Outputs, Params, PerExample, Scalar
from jl1.attacks.fgsm import fgsm
from jl1.inputs import check_floating
from jl1.jacobian import entrywise_l1
from jl1.labels import check_labels
from jl1.penalties import OUTPUTS

TRACED_OUTPUTS = ("logits", "probs")
"""The f that `make_trace_step` measures, names of `penalties.OUTPUTS`."""


class EndPoints(NamedTuple):
    """What the outputs f do at x and at x', one row an example; y is its true class.

    Attributes:
        outputs: f(x).
        twin_outputs: f(x').
        change: Delta_y = f_y(x') - f_y(x).
        largest_change: max_i |Delta_i|.
        gradient_norm: ||grad f_y(x)||_1.
        twin_gradient_norm: ||grad f_y(x')||_1.
        jacobian_norm: ||J(x)||_{1,1}.
        twin_jacobian_norm: ||J(x')||_{1,1}.
    """

    outputs: Outputs
    twin_outputs: Outputs
    change: PerExample
    largest_change: PerExample
    gradient_norm: PerExample
    twin_gradient_norm: PerExample
    jacobian_norm: PerExample
    twin_jacobian_norm: PerExample


def end_point_norms(batched_fn: BatchedFn, inputs: Inputs, *, twins: Inputs, labels: Labels) -> EndPoints:
    """Measure the outputs and their gradients at both ends of the segment from x to x' (Fig. 1).

    One forward pass, and one reverse pass for each output. What happens between the ends is
    `segments.segment_gradient_norms`. Not jitted.

    Args:
        batched_fn: Batch of inputs to a batch of output vectors; examples must not interact.
        inputs: The points x.
        twins: The points x'.
        labels: True classes y.

    Returns:
        One value an example, in units of the outputs (norms: per unit of input).

    Raises:
        ValueError: Inputs that are not floating, or labels that are not one integer an example.

    Example:
        >>> weights = jnp.array([[1.0, -2.0], [3.0, 0.5]])
        >>> inputs, twins, labels = jnp.zeros((1, 2)), jnp.ones((1, 2)), jnp.array([0])
        >>> there = end_point_norms(lambda x: x @ weights.T, inputs, twins=twins, labels=labels)
        >>> there.change.item(), there.largest_change.item(), there.gradient_norm.item(), there.jacobian_norm.item()
        (-1.0, 3.5, 3.0, 6.5)
    """
    chex.assert_equal_shape([inputs, twins])
    check_floating(inputs)
    check_labels(labels, inputs, what="inputs")
    values, norms = _outputs_and_norms(batched_fn, jnp.concatenate([inputs, twins]))  # both at once compile faster
    (outputs, twin_outputs), (norms, twin_norms) = jnp.split(values, 2), jnp.split(norms, 2)
    rows, changes = jnp.arange(len(labels)), twin_outputs - outputs
    labels = labels.astype(jnp.int32)  # a small type does not hold the number of many classes
    return EndPoints(
        outputs,
        twin_outputs,
        change=changes[rows, labels],
        largest_change=jnp.max(jnp.abs(changes), axis=1),
        gradient_norm=norms[rows, labels],
        twin_gradient_norm=twin_norms[rows, labels],
        jacobian_norm=jnp.sum(norms, axis=1),
        twin_jacobian_norm=jnp.sum(twin_norms, axis=1),
    )


def make_trace_step(apply_fn: ApplyFn) -> Callable[..., dict[str, EndPoints]]:
    """Make the jitted `step(params, inputs, labels, epsilon)`: the end points of FGSM for the true labels.

    Args:
        apply_fn: Function of params and inputs to logits.

    Returns:
        The step. It returns the `EndPoints` of each of `TRACED_OUTPUTS`, by name.
    """

    def step(params: Params, inputs: Inputs, labels: Labels, epsilon: Scalar) -> dict[str, EndPoints]:
        logits_fn: LogitsFn = partial(apply_fn, params)
        with jax.default_matmul_precision("float32"):  # accelerators round products to three digits otherwise
            twins = fgsm(logits_fn, inputs, labels=labels, epsilon=epsilon)
            return {
                name: end_point_norms(
                    lambda points, fn=OUTPUTS[name]: fn(logits_fn(points)), inputs, twins=twins, labels=labels
                )
                for name in TRACED_OUTPUTS
            }

    return jax.jit(step)


def _outputs_and_norms(batched_fn: BatchedFn, inputs: Inputs) -> tuple[Outputs, Outputs]:
    """Compute every output f_i and its ||grad f_i||_1, by one reverse pass after the other."""
    outputs, pullback = jax.vjp(batched_fn, inputs)
    chex.assert_rank(outputs, 2)

    def norm(unit: Float[Array, " outputs"]) -> PerExample:
        return entrywise_l1(pullback(jnp.broadcast_to(unit, outputs.shape))[0])

    return outputs, jax.lax.map(norm, jnp.eye(outputs.shape[1], dtype=outputs.dtype)).T
