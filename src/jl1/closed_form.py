"""The gradient of the whole loss of Eq. 3 for ReLU networks, without differentiating a derivative.

A network of affine layers W_l, b_l (l = 1..L) with ReLU (or leaky ReLU) between them is piecewise linear: the slopes
D_l of its activations are constant around a point, and their derivatives vanish. So the loss

    w_b (CE(z, y) + lam P),    P = sum_i d_i ||J_i - sum_k v_k J_k||_1

of one example, with weight w_b, has its gradient in two passes over the layers. The penalised outputs only choose d and
v: logits d = 1, v = 0; centred logits d = 1, v = 1/c; probabilities d = v = p; log-probabilities d = 1, v = p.

**Rows down.** After a forward pass, r_{L-1,i} = D_{L-1} W_L[:, i], then r_{l-1,i} = D_{l-1} W_l^T r_{l,i}; the Jacobian
is J_i = W_1^T r_{1,i}. The cross-entropy's own backward row is sum_i a_i r_{l,i} with a = dCE/dz.

**Tangents up.** With K_i = J_i - sum_k v_k J_k, S = sign(K), s = sum_i d_i S_i, the derivative of P with respect to J_k
is d_k S_k - v_k s; with respect to z it acts through d and v alone, and joins a. Starting from

    t_{0,i} = w_b lam (d_i S_i - v_i s) + a_i x,      t_{l,i} = D_l (W_l t_{l-1,i} + a_i b_l),

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
from jl1.linear_ops import CONVOLUTIONS, LinearOps, make_linear_ops
from jl1.losses import LossTerms
from jl1.models import OUTPUT_LAYER, Dense, SequentialNet
from jl1.penalties import SCALES
from jl1.training import GradientFn

Rows = Float[Array, " outputs batch *shape"]
"""One row (or tangent) for each output and example."""


class _Pass(NamedTuple):
    """What the forward pass and the rows down leave behind at some points."""

    logits: Logits
    slopes: list[Array]
    rows: list[Rows]
    jacobian: Float[Array, " outputs batch entries"]


HeadFn = Callable[[Logits], tuple[Array, Array]]
"""Logits to d and v, of the same shape."""


def _no_mixing(logits: Logits) -> tuple[Array, Array]:
    """Penalise the logits as they are."""
    return jnp.ones_like(logits), jnp.zeros_like(logits)


_HEADS: Mapping[str, HeadFn] = {
    "logits": _no_mixing,
    "centred_logits": lambda logits: (jnp.ones_like(logits), jnp.full_like(logits, 1 / logits.shape[1])),
    "probs": lambda logits: (jax.nn.softmax(logits), jax.nn.softmax(logits)),
    "log_probs": lambda logits: (jnp.ones_like(logits), jax.nn.softmax(logits)),
}
"""d and v of the penalised outputs, by their names in `penalties.OUTPUTS`."""

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
        convolution: A name of `linear_ops.CONVOLUTIONS`; None: `gather` on a CPU, `library` elsewhere.
        chunk_bytes: The batch is worked off in chunks whose rows and tangents take about as much; None: what
            stays in the cache of a CPU core, and the whole batch elsewhere.

    Returns:
        `gradient_fn(params, inputs, labels=..., mask=..., lam=..., epsilon=..., key=...)`, which returns the gradient
        and the mean terms. Not jitted; lam and epsilon may be traced; the key is not used.

    Raises:
        ValueError: The network has no closed form, or a name is unknown.
    """
    on_cpu = jax.default_backend() == "cpu"
    convolution = convolution or ("gather" if on_cpu else "library")
    _check_choices(module, outputs, scale, convolution)
    chunk_bytes = chunk_bytes or (CPU_CHUNK_BYTES if on_cpu else 1 << 62)
    layers = (*module.hidden, Dense(module.num_classes))
    names = (*(f"layer_{index}" for index in range(len(module.hidden))), OUTPUT_LAYER)
    slope, head = _SLOPES[module.activation], _HEADS[outputs]

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
        ops = make_linear_ops(layers, inputs.shape[1:], convolution=convolution)
        kernels = [params[name]["kernel"] for name in names]
        biases = [params[name]["bias"] for name in names]
        num_entries = module.num_classes * inputs[0].size if scale == "mean" else 1
        weights = mask / jnp.maximum(jnp.sum(mask), 1).astype(inputs.dtype)
        loss_at = partial(
            _loss_at, ops, kernels, biases, head=head, slope=slope, loss_fn=loss_fn, lam=lam / num_entries
        )

        def one_chunk(sums: tuple, chunk: tuple[Inputs, Labels, PerExample]) -> tuple[tuple, None]:
            points, targets, weight = chunk
            if twin_loss_fn is None:
                return jax.tree.map(jnp.add, sums, loss_at(points, targets, weight)[0]), None
            at_points, there = loss_at(points, targets, twin_weight * weight)
            ascent = jnp.einsum("bc,cbd->bd", _slope_of(twin_loss_fn, there.logits, targets), there.jacobian)
            twins = sign_step(points, ascent.reshape(points.shape), epsilon=epsilon)
            at_twins, _ = loss_at(twins, targets, twin_weight * weight)
            return jax.tree.map(lambda *parts: sum(parts), sums, at_points, at_twins), None

        zeros = jax.tree.map(jnp.zeros_like, (kernels, biases))
        nothing = jnp.zeros((), inputs.dtype)
        chunks = in_chunks(chunk_size(layers, ops, inputs, chunk_bytes), (inputs, labels, weights))
        ((kernel_sums, bias_sums), losses, penalties), _ = jax.lax.scan(one_chunk, (zeros, nothing, nothing), chunks)
        gradients = {
            name: {"kernel": kernel, "bias": bias}
            for name, kernel, bias in zip(names, kernel_sums, bias_sums, strict=True)
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
    if outputs not in _HEADS or scale not in SCALES or convolution not in CONVOLUTIONS:
        raise ValueError(f"no closed form for outputs={outputs!r}, scale={scale!r}, convolution={convolution!r}")


def _loss_at(
    ops: list[LinearOps],
    kernels: list[Array],
    biases: list[Array],
    inputs: Inputs,
    labels: Labels,
    weights: PerExample,
    *,
    head: HeadFn,
    slope: float,
    loss_fn: ExampleLossFn,
    lam: Scalar,
) -> tuple[tuple[tuple[list[Array], list[Array]], Array, Array], _Pass]:
    """Return the weighted gradient, loss and penalty at some points, and what the passes left behind."""
    there = _rows_down(ops, kernels, biases, inputs, slope)
    ascent = weights[:, None] * _slope_of(loss_fn, there.logits, labels)
    penalties, tangents, through_head = _penalty(head, there, lam * weights)
    ascent = ascent + through_head
    tangents = tangents + _per_row(ascent, tangents) * inputs.reshape(1, len(inputs), -1)
    tangents = tangents.reshape(-1, *inputs.shape)
    gradients = _tangents_up(ops, kernels, biases, there, ascent, tangents)
    losses = loss_fn(there.logits, labels)
    return (gradients, jnp.dot(weights, losses), jnp.dot(weights, penalties)), there


def _rows_down(ops: list[LinearOps], kernels: list[Array], biases: list[Array], inputs: Inputs, slope: float) -> _Pass:
    """Run the network forward, then pull one row an output back to the inputs."""
    values, slopes = inputs, []
    for op, kernel, bias in zip(ops[:-1], kernels[:-1], biases[:-1], strict=True):
        before = op.push(kernel, values) + bias.reshape(*[1] * len(op.output_shape), -1)
        slopes.append(jnp.where(before > 0, 1.0, slope).astype(before.dtype))
        values = before * slopes[-1]
    logits = ops[-1].push(kernels[-1], values) + biases[-1][None]
    num_outputs = logits.shape[1]
    rows = [slopes[-1][None] * kernels[-1].T.reshape(num_outputs, 1, *values.shape[1:])]
    for op, kernel, slopes_below in zip(ops[-2:0:-1], kernels[-2:0:-1], slopes[-2::-1], strict=True):
        rows.append(slopes_below[None] * _unfold(op.pull(kernel, _fold(rows[-1])), num_outputs))
    # flat: XLA's CPU sums over image axes are slow enough to double the time of everything else
    jacobian = ops[0].pull(kernels[0], _fold(rows[-1])).reshape(num_outputs, len(inputs), -1)
    return _Pass(logits, slopes, rows[::-1], jacobian)


def _penalty(head: HeadFn, there: _Pass, weights: PerExample) -> tuple[PerExample, Rows, Logits]:
    """Return P, and its weighted derivatives with respect to the Jacobian and, through d and v, the logits."""
    jacobian = there.jacobian
    if head is _no_mixing:  # d = 1 and v = 0 save the passes over the Jacobian that mix its rows
        signs = jnp.sign(jacobian)
        penalties = jnp.sum(jnp.abs(jacobian), axis=(0, 2))
        return penalties, signs * weights[None, :, None], jnp.zeros_like(there.logits)
    (scales, mixture), through_head = jax.vjp(head, there.logits)
    mixed = jacobian - jnp.sum(_per_row(mixture, jacobian) * jacobian, axis=0)[None]
    signs = jnp.sign(mixed)
    norms = jnp.sum(jnp.abs(mixed), axis=2).T
    total = jnp.sum(_per_row(scales, signs) * signs, axis=0)
    along = jnp.sum(jacobian * total[None], axis=2).T
    to_jacobian = _per_row(scales * weights[:, None], signs) * signs
    to_jacobian = to_jacobian - _per_row(mixture * weights[:, None], signs) * total[None]
    return jnp.sum(scales * norms, axis=1), to_jacobian, weights[:, None] * through_head((norms, -along))[0]


def _tangents_up(
    ops: list[LinearOps],
    kernels: list[Array],
    biases: list[Array],
    there: _Pass,
    ascent: Logits,
    tangents: Array,
) -> tuple[list[Array], list[Array]]:
    """Push the tangents to the last layer and collect the gradient of every kernel and bias on the way."""
    to_kernels, to_biases = [], []
    layers = zip(ops[:-1], kernels[:-1], biases[:-1], there.slopes, there.rows, strict=True)
    for op, kernel, bias, slopes, rows in layers:
        to_kernels.append(op.outer(_fold(tangents), _fold(rows)))
        weighted = ascent.T.reshape(1, -1) @ rows.reshape(rows.shape[0] * rows.shape[1], -1)
        to_biases.append(jnp.sum(weighted.reshape(-1, bias.size), axis=0))
        pushed = _unfold(op.push(kernel, _fold(tangents)), rows.shape[0])
        tangents = slopes[None] * (pushed + _per_row(ascent, pushed) * bias.reshape(*[1] * (pushed.ndim - 1), -1))
    last = jnp.sum(tangents, axis=1)
    to_kernels.append(last.reshape(last.shape[0], -1).T)
    to_biases.append(jnp.sum(ascent, axis=0))
    return to_kernels, to_biases


def _slope_of(loss_fn: ExampleLossFn, logits: Logits, labels: Labels) -> Logits:
    """Return the derivative of each example's loss with respect to its logits."""
    return jax.grad(lambda values: jnp.sum(loss_fn(values, labels)))(logits)


def _per_row(values: Float[Array, " batch outputs"], rows: Rows) -> Float[Array, " outputs batch *ones"]:
    """Lay one number for each example and output along the rows' leading axes."""
    return values.T.reshape(*values.T.shape, *[1] * (rows.ndim - 2))


def _fold(rows: Rows) -> Float[Array, " folded *shape"]:
    """Make outputs and examples one axis, outputs first."""
    return rows.reshape(-1, *rows.shape[2:])


def _unfold(rows: Float[Array, " folded *shape"], num_outputs: int) -> Rows:
    """Undo `_fold`."""
    return rows.reshape(num_outputs, -1, *rows.shape[1:])
