"""The gradient of the whole loss of Eq. 3 for ReLU networks, without differentiating a derivative.

A network of affine layers W_l, b_l (l = 1..L) with ReLU (or leaky ReLU) between them is piecewise linear: the slopes
D_l of its activations are constant around a point, and their derivatives vanish. So the loss

    w_b (CE(z, y) + lam P)

of one example, with weight w_b and the penalty P of `heads`, has its gradient in two passes over the layers.

**Rows down.** After a forward pass, r_{L-1,i} = D_{L-1} W_L[:, i], then r_{l-1,i} = D_{l-1} W_l^T r_{l,i}; the Jacobian
is J_i = W_1^T r_{1,i}. The cross-entropy's own backward row is sum_i a_i r_{l,i} with a = dCE/dz.

**Tangents up.** P acts on the parameters through J and, unless the outputs are the logits, through z: that part joins
a. Starting from

    t_{0,i} = w_b lam dP/dJ_i + a_i x,      t_{l,i} = D_l (W_l t_{l-1,i} + a_i b_l),

every gradient is an outer product of a tangent and a row: dW_l = sum t_{l-1,i} r_{l,i}^T, db_l = sum a_i r_{l,i},
dW_L[:, i] = sum t_{L-1,i}, db_L = sum a. The direction of FGSM, sign(sum_i a_i J_i), comes with the rows.

**One row less.** Where the outputs and the loss do not change when all logits move together, only differences matter:
the c - 1 rows of z_i - z_0 suffice, with a_1, ..., a_{c-1}, since a sums to zero.

Equal to the automatic form to rounding (tests/test_closed_form.py); examples must not interact, which a sequence of
these layers cannot make them do.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jl1.array_types import ExampleLossFn, Inputs, Labels, Logits, Params, PerExample, Scalar
from jl1.models import Layer
from jl1.per_example import check_losses, spread, spread_channels
from jl1.piecewise_linear.heads import HeadFn, LogitsJacobian, penalty_and_slopes
from jl1.piecewise_linear.kinks import Kink
from jl1.piecewise_linear.linear_ops import LinearOps, Rows, make_linear_ops
from jl1.precision import with_precision


class Network(NamedTuple):
    """Affine layers with their parameters, and the precision of all products."""

    ops: list[LinearOps]
    kernels: list[Array]
    biases: list[Array]
    precision: str


class Pass(NamedTuple):
    """What the forward pass and the rows down leave behind at some points.

    `combinations` are the combinations of logits, one a line, that rows and Jacobian belong to.
    """

    logits: Logits
    combinations: Float[Array, "rows outputs"]
    slopes: list[Array]
    rows: list[Rows]
    jacobian: LogitsJacobian


Sums = tuple[tuple[list[Array], list[Array]], Array, Array]
"""Gradients by the kernels (in the layouts of `LinearOps.outer`) and the biases, the loss and the penalty, each summed
with the examples' weights."""


def bind(
    layers: tuple[Layer, ...],
    names: tuple[str, ...],
    params: Params,
    inputs: Inputs,
    *,
    convolution: str,
    precision: str = "float32",
) -> Network:
    """Put the layers and their parameters together."""
    if set(params) != set(names) or not all({"kernel"} <= set(params[name]) <= {"kernel", "bias"} for name in names):
        found = ", ".join(f"{name} ({' and '.join(params[name])})" for name in params)
        raise ValueError(f"the layers {', '.join(names)} need a kernel each, and perhaps a bias; params have {found}")
    ops = make_linear_ops(layers, inputs.shape[1:], convolution=convolution, precision=precision)
    biases = [
        params[name].get("bias", jnp.zeros(op.output_shape[-1], inputs.dtype))
        for name, op in zip(names, ops, strict=True)
    ]
    return Network(ops, [params[name]["kernel"] for name in names], biases, precision)


def loss_and_gradient_at(
    net: Network,
    inputs: Inputs,
    labels: Labels,
    weights: PerExample,
    *,
    kink: Kink,
    head: HeadFn,
    loss_fn: ExampleLossFn,
    lam: Scalar,
    differences: bool,
) -> tuple[Sums, Pass]:
    """Return the weighted gradient, loss and penalty at some points, and what the passes left behind.

    `differences` takes one row less; the loss and the outputs must not change when all logits move together. A loss
    that is not a number counts only where its weight is above 0.
    """
    there = _rows_down(net, inputs, kink=kink, differences=differences)
    jacobian = jnp.pad(there.jacobian, ((int(differences), 0), (0, 0), (0, 0)))  # z_0 - z_0 has none
    penalties, by_jacobian, through_head = penalty_and_slopes(head, there.logits, jacobian, lam * weights)
    by_jacobian = by_jacobian[int(differences) :]
    ascent = weights[:, None] * loss_slope(loss_fn, there.logits, labels) + through_head
    tangents = net.ops[0].at_inputs(
        lambda by_rows, a: by_rows + spread(a, inputs) * inputs,
        by_jacobian.reshape(-1, *inputs.shape),
        _on_rows(ascent, there),
    )
    gradients = _tangents_up(net, there, ascent, tangents)
    losses = loss_fn(there.logits, labels)
    check_losses(losses, len(labels))
    return (gradients, _weighted_sum(weights, losses), _weighted_sum(weights, penalties)), there


def direction_of(net: Network, slope: Logits, there: Pass) -> Float[Array, "batch entries"]:
    """Return the inputs' gradient of a loss with this derivative by the logits."""
    product = with_precision(net.precision, partial(jnp.einsum, "cb,cbd->bd"))
    return product(_on_rows(slope, there), there.jacobian)


def _on_rows(slope: Logits, there: Pass) -> Float[Array, "rows batch"]:
    """Return how much of each row makes up a derivative by the logits."""
    return slope.T[slope.shape[1] - len(there.jacobian) :]


def _rows_down(net: Network, inputs: Inputs, *, kink: Kink, differences: bool) -> Pass:
    """Run the network forward, then pull one row an output back to the inputs."""
    ops, kernels, biases, _ = net
    values, slopes = inputs, []
    for op, kernel, bias in zip(ops[:-1], kernels[:-1], biases[:-1], strict=True):
        pushed = op.push(kernel, values[None])[0]
        before = pushed + spread_channels(bias, pushed)
        slopes.append(kink.slopes(before))
        values = before * slopes[-1]
    logits = ops[-1].push(kernels[-1], values[None])[0] + biases[-1][None]
    combinations = jnp.eye(logits.shape[1], dtype=logits.dtype)
    if differences:
        combinations = combinations[1:] - combinations[:1]
    rows = [ops[-1].pull(kernels[-1], combinations[:, None], lambda row: slopes[-1] * row)]
    for op, kernel, slopes_below in zip(ops[-2:0:-1], kernels[-2:0:-1], slopes[-2::-1], strict=True):
        rows.append(op.pull(kernel, rows[-1], lambda row, slopes=slopes_below: slopes * row))
    jacobian = ops[0].pull(kernels[0], rows[-1], lambda row: row)
    return Pass(logits, combinations, slopes, rows[::-1], jacobian.reshape(*jacobian.shape[:2], -1))


def _tangents_up(net: Network, there: Pass, ascent: Logits, tangents: Rows) -> tuple[list[Array], list[Array]]:
    """Push the tangents to the last layer and collect the gradient of every kernel and bias on the way."""
    by_kernels, by_biases, on_rows = [], [], _on_rows(ascent, there)
    product = with_precision(net.precision, jnp.matmul)
    layers = zip(net.ops[:-1], net.ops[1:], net.kernels[:-1], net.biases[:-1], there.slopes, there.rows, strict=True)
    for op, next_op, kernel, bias, slopes, rows in layers:
        by_kernels.append(op.outer(tangents, rows))
        by_pixel = product(on_rows.reshape(1, -1), rows.reshape(on_rows.size, -1))
        by_biases.append(jnp.sum(by_pixel.reshape(-1, bias.size), axis=0))

        def through_activation(pushed: Array, a: PerExample, slopes: Array = slopes, bias: Array = bias) -> Array:
            return slopes * (pushed + spread(a, pushed) * spread_channels(bias, pushed))

        tangents = next_op.at_inputs(through_activation, op.push(kernel, tangents), on_rows)
    summed = jnp.sum(tangents, axis=1, keepdims=True)
    by_kernels.append(net.ops[-1].outer(summed, there.combinations[:, None]))
    by_biases.append(jnp.sum(ascent, axis=0))
    return by_kernels, by_biases


def loss_slope(loss_fn: ExampleLossFn, logits: Logits, labels: Labels) -> Logits:
    """Return the derivative of each example's loss with respect to its logits."""
    return jax.grad(lambda values: jnp.sum(loss_fn(values, labels)))(logits)


def _weighted_sum(weights: PerExample, values: PerExample) -> Array:
    """Sum what counts: elsewhere a value may be no number."""
    return jnp.dot(weights, jnp.where(weights > 0, values, 0), precision=jax.lax.Precision.HIGHEST)
