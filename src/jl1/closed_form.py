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

Equal to the automatic form to rounding (tests/test_closed_form.py); examples must not interact, which a sequence of
these layers cannot make them do.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from jl1.array_types import ExampleLossFn, Inputs, Labels, Logits, Mask, Params, PerExample, PRNGKey, Scalar
from jl1.attacks.fgsm import sign_step
from jl1.chunks import CPU_CHUNK_BYTES, chunk_size, in_chunks
from jl1.heads import HEADS, HeadFn, LogitsJacobian, penalty_and_slopes
from jl1.linear_ops import CONVOLUTIONS, LinearOps, make_linear_ops
from jl1.losses import LossTerms
from jl1.models import Dense, Layer, SequentialNet
from jl1.penalties import SCALES
from jl1.training import GradientFn

Rows = Float[Array, " rows *shape"]
"""Rows or tangents of a chunk: one for each output and example, outputs first."""


class _Network(NamedTuple):
    """The affine layers with their parameters, and the slope of the activation on the negative side."""

    ops: list[LinearOps]
    kernels: list[Array]
    biases: list[Array]
    slope: float


class _Pass(NamedTuple):
    """What the forward pass and the rows down leave behind at some points."""

    logits: Logits
    slopes: list[Array]
    rows: list[Rows]
    jacobian: LogitsJacobian


_SLOPES: Mapping[Callable, float] = {nn.relu: 0.0, nn.leaky_relu: 0.01}
"""Slope on the negative side of the activations that are piecewise linear."""


def has_closed_form(module: nn.Module) -> bool:
    """Say whether `make_closed_form_gradient` can differentiate a network.

    Args:
        module: Any flax.linen module.

    Returns:
        True for a `SequentialNet` with relu or leaky_relu.
    """
    return isinstance(module, SequentialNet) and module.activation in _SLOPES


def make_closed_form_gradient(
    module: SequentialNet,
    *,
    outputs: str = "logits",
    scale: str = "sum",
    loss_fn: ExampleLossFn = optax.softmax_cross_entropy_with_integer_labels,
    twin_loss_fn: ExampleLossFn | None = None,
    twin_weight: float = 0.5,
    convolution: str | None = None,
    layer_names: tuple[str, ...] | None = None,
    chunk_bytes: int | None = None,
) -> GradientFn:
    """Make the function that computes the mean loss of Eq. 3 on a batch and its gradient, in closed form.

    Args:
        module: Network with `has_closed_form`; it fixes the layers and the names in the parameter tree.
        outputs: What is penalised, a name of `penalties.OUTPUTS`.
        scale: `sum` (Eq. 3), or `mean` over the c x d entries of the Jacobian.
        loss_fn: L of Eq. 3.
        twin_loss_fn: With a loss, the FGSM twins that raise it for the true label are trained on too; None: no twins.
        twin_weight: Weight of a point and of its twin: 1/2 for their mean, 1 for their sum.
        convolution: A name of `linear_ops.CONVOLUTIONS`; None: `patches` on a CPU, `library` elsewhere.
        chunk_bytes: The batch is worked off in chunks whose rows and tangents take about as much; None: what
            stays in the cache of a CPU core, and the whole batch elsewhere.

    Returns:
        `gradient_fn(params, inputs, labels=..., mask=..., lam=..., epsilon=..., key=...)`, which returns the gradient
        and the mean terms. Not jitted; lam and epsilon may be traced; the key is not used.

    Raises:
        ValueError: The network has no closed form, or a name is unknown.
    """
    on_cpu = jax.default_backend() == "cpu"
    convolution = convolution or ("patches" if on_cpu else "library")
    _check_choices(module, outputs, scale, convolution)
    chunk_bytes = chunk_bytes or (CPU_CHUNK_BYTES if on_cpu else 1 << 62)
    layers = (*module.hidden, Dense(module.num_classes))
    names = layer_names or module.layer_names
    slope, head = _SLOPES[module.activation], HEADS[outputs]

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
        del key  # nothing is random
        net = _bind(layers, names, params, inputs.shape[1:], slope, convolution)
        num_entries = module.num_classes * inputs[0].size if scale == "mean" else 1
        weights = mask / jnp.maximum(jnp.sum(mask), 1).astype(inputs.dtype)
        loss_at = partial(_loss_at, net, head=head, loss_fn=loss_fn, lam=lam / num_entries)

        def one_chunk(sums: tuple, chunk: tuple[Inputs, Labels, PerExample]) -> tuple[tuple, None]:
            points, targets, weight = chunk
            if twin_loss_fn is None:
                return jax.tree.map(jnp.add, sums, loss_at(points, targets, weight)[0]), None
            at_points, there = loss_at(points, targets, twin_weight * weight)
            ascent = jnp.einsum("bc,cbd->bd", _slope_of(twin_loss_fn, there.logits, targets), there.jacobian)
            twins = sign_step(points, ascent.reshape(points.shape), epsilon=epsilon)
            at_twins, _ = loss_at(twins, targets, twin_weight * weight)
            return jax.tree.map(lambda *parts: sum(parts), sums, at_points, at_twins), None

        chunks = in_chunks(chunk_size(net.ops, inputs, chunk_bytes), (inputs, labels, weights))
        sums = jax.eval_shape(lambda chunk: loss_at(*chunk)[0], jax.tree.map(lambda array: array[0], chunks))
        zeros = jax.tree.map(lambda shape: jnp.zeros(shape.shape, shape.dtype), sums)
        ((by_kernels, by_biases), losses, penalties), _ = jax.lax.scan(one_chunk, zeros, chunks)
        gradients = {
            name: {"kernel": op.to_kernel(by_kernel), "bias": by_bias}
            for name, op, by_kernel, by_bias in zip(names, net.ops, by_kernels, by_biases, strict=True)
        }
        penalties = penalties / num_entries
        return gradients, LossTerms(losses + lam * penalties, losses, penalties)

    return gradient_fn


def _check_choices(module: nn.Module, outputs: str, scale: str, convolution: str) -> None:
    """Refuse what has no closed form."""
    if not has_closed_form(module):
        raise ValueError(
            "the closed form needs a SequentialNet with relu or leaky_relu; differentiate other networks with "
            "training.make_gradient"
        )
    if outputs not in HEADS or scale not in SCALES or convolution not in CONVOLUTIONS:
        raise ValueError(f"no closed form for outputs={outputs!r}, scale={scale!r}, convolution={convolution!r}")


def _bind(
    layers: tuple[Layer, ...],
    names: tuple[str, ...],
    params: Params,
    input_shape: tuple[int, ...],
    slope: float,
    convolution: str,
) -> _Network:
    """Put the layers and their parameters together."""
    ops = make_linear_ops(layers, input_shape, convolution=convolution)
    return _Network(ops, [params[name]["kernel"] for name in names], [params[name]["bias"] for name in names], slope)


def _loss_at(
    net: _Network,
    inputs: Inputs,
    labels: Labels,
    weights: PerExample,
    *,
    head: HeadFn,
    loss_fn: ExampleLossFn,
    lam: Scalar,
) -> tuple[tuple[tuple[list[Array], list[Array]], Array, Array], _Pass]:
    """Return the weighted gradient, loss and penalty at some points, and what the passes left behind."""
    there = _rows_down(net, inputs)
    penalties, by_jacobian, through_head = penalty_and_slopes(head, there.logits, there.jacobian, lam * weights)
    ascent = weights[:, None] * _slope_of(loss_fn, there.logits, labels) + through_head
    tangents = net.ops[0].at_inputs(
        lambda by_row, a: by_row + _per_example(a, inputs) * inputs, by_jacobian.reshape(-1, *inputs.shape[1:]), ascent.T
    )
    gradients = _tangents_up(net, there, ascent, tangents)
    losses = loss_fn(there.logits, labels)
    return (gradients, jnp.dot(weights, losses), jnp.dot(weights, penalties)), there


def _rows_down(net: _Network, inputs: Inputs) -> _Pass:
    """Run the network forward, then pull one row an output back to the inputs."""
    ops, kernels, biases, slope = net
    values, slopes = inputs, []
    for op, kernel, bias in zip(ops[:-1], kernels[:-1], biases[:-1], strict=True):
        before = op.push(kernel, values) + _per_channel(bias, op)
        slopes.append(jnp.where(before > 0, 1.0, slope).astype(before.dtype))
        values = before * slopes[-1]
    logits = ops[-1].push(kernels[-1], values) + biases[-1][None]
    num_outputs = logits.shape[1]
    last = ops[-1].pull(kernels[-1], jnp.eye(num_outputs, dtype=logits.dtype))
    rows = [(last[:, None] * slopes[-1][None]).reshape(-1, *last.shape[1:])]
    for op, kernel, slopes_below in zip(ops[-2:0:-1], kernels[-2:0:-1], slopes[-2::-1], strict=True):
        pulled = op.pull(kernel, rows[-1])
        rows.append(op.at_inputs(lambda row, _, slopes=slopes_below: slopes * row, pulled, jnp.arange(num_outputs)))
    jacobian = ops[0].pull(kernels[0], rows[-1]).reshape(num_outputs, len(inputs), -1)
    return _Pass(logits, slopes, rows[::-1], jacobian)


def _tangents_up(
    net: _Network, there: _Pass, ascent: Logits, tangents: Rows
) -> tuple[list[Array], list[Array]]:
    """Push the tangents to the last layer and collect the gradient of every kernel and bias on the way."""
    by_kernels, by_biases = [], []
    layers = zip(net.ops[:-1], net.ops[1:], net.kernels, net.biases, there.slopes, there.rows, strict=False)
    for op, next_op, kernel, bias, slopes, rows in layers:
        by_kernels.append(op.outer(tangents, rows))
        weighted = ascent.T.reshape(1, -1) @ rows.reshape(len(rows), -1)
        by_biases.append(jnp.sum(weighted.reshape(-1, bias.size), axis=0))
        shift = _per_channel(bias, op)

        def through_activation(pushed: Rows, a: PerExample, slopes: Array = slopes, shift: Array = shift) -> Rows:
            return slopes * (pushed + _per_example(a, pushed) * shift)

        tangents = next_op.at_inputs(through_activation, op.push(kernel, tangents), ascent.T)
    summed = jnp.sum(tangents.reshape(ascent.shape[1], len(ascent), *tangents.shape[1:]), axis=1)
    by_kernels.append(net.ops[-1].outer(summed, jnp.eye(len(summed), dtype=summed.dtype)))
    by_biases.append(jnp.sum(ascent, axis=0))
    return by_kernels, by_biases


def _slope_of(loss_fn: ExampleLossFn, logits: Logits, labels: Labels) -> Logits:
    """Return the derivative of each example's loss with respect to its logits."""
    return jax.grad(lambda values: jnp.sum(loss_fn(values, labels)))(logits)


def _per_example(values: PerExample, rows: Rows) -> Array:
    """Lay one number an example along the first axis."""
    return values.reshape(-1, *[1] * (rows.ndim - 1))


def _per_channel(bias: Array, op: LinearOps) -> Array:
    """Lay a bias along the last axis of a batch of outputs."""
    return bias.reshape(*[1] * len(op.output_shape), -1)


def _for_each_output(slopes: Array, num_outputs: int) -> Rows:
    """Repeat what every example has once for each of its rows."""
    return jnp.broadcast_to(slopes[None], (num_outputs, *slopes.shape)).reshape(-1, *slopes.shape[1:])
