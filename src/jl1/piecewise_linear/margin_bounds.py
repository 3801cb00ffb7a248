"""Bounds of the margins z_y - z_j of a network over a box B of inputs, by two arguments that hold.

Both start from intervals of what enters every activation, from layer to layer: an affine layer maps the interval with
centre c and radius r to the one with centre W c + b and radius |W| r, and a monotone activation maps ends to ends.

**Intervals.** The last layer and the difference of two logits are one linear map, whose interval ends at the bound.

**Eq. 2.** |g(x') - g(x)| <= epsilon sup_B ||grad g||_1 for a margin g. The intervals give every activation an interval
of slopes: {1} or {0} for a ReLU that is on or off in the whole box, [0, 1] for one that may change. Pulled down
through the slopes and the transposed layers, the row of g becomes an interval of grad g, whose largest norm bounds the
supremum. Each coordinate counts with as far as it may go, within the box, to the side that lowers g.

References:
    Gowal et al. 2018, "On the effectiveness of interval bound propagation for training verifiably robust models",
    arXiv:1810.12715. Weng et al. 2018, "Towards fast computation of certified robustness for ReLU networks",
    arXiv:1804.09699 (Fast-Lip: the largest gradient in the ball). Hein, Andriushchenko 2017, arXiv:1705.08475.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jl1.array_types import Inputs, Labels, Outputs, Params
from jl1.models import SequentialNet, convolution_form, make_apply_fn
from jl1.per_example import spread_channels
from jl1.piecewise_linear.intervals import SLOPES, Interval, affine, times
from jl1.piecewise_linear.passes import Network, bind


def margin_bounds(
    module: SequentialNet, params: Params, inputs: Inputs, labels: Labels, box: Interval
) -> tuple[Outputs, tuple[Outputs, Outputs]]:
    """Bound all margins over a box, one class after the other.

    Args:
        module: Network with an activation of `intervals.SLOPES`.
        params: Its parameters.
        inputs: The points x.
        labels: True classes y.
        box: All x' that count, x among them.

    Returns:
        Lower bounds of z_y - z_j by intervals; those by Eq. 2, and upper bounds of the gradient's L1 norm. A row an
        example and a column a class j each.
    """
    net = bind(module.layers, module.layer_names, params, inputs, convolution=convolution_form(module.convolution))
    slopes, last = _forward(module, net, box)
    units = jnp.eye(module.num_classes, dtype=inputs.dtype)

    def one_class(unit: Float[Array, " classes"]) -> tuple[Array, tuple[Array, Array]]:
        margin = units[labels] - unit[None]
        return _margin_of_box(net, last, margin), _margin_by_gradient(net, box, slopes, inputs, margin)

    by_intervals, (changes, norms) = jax.lax.map(one_class, units)
    logits = make_apply_fn(module)(params, inputs)
    margins = jnp.take_along_axis(logits, labels[:, None], axis=1) - logits
    return by_intervals.T, (margins + changes.T, norms.T)


def _forward(module: SequentialNet, net: Network, box: Interval) -> tuple[list[Interval], Interval]:
    """Return the slopes of every activation in the box, and what enters the last layer."""
    slopes = []
    for op, kernel, bias in zip(net.ops[:-1], net.kernels[:-1], net.biases[:-1], strict=True):
        entering = affine(op.push, kernel, box)
        shift = spread_channels(bias, entering.low)
        entering = Interval(entering.low + shift, entering.high + shift)
        slopes.append(SLOPES[module.activation](entering))
        box = Interval(module.activation(entering.low), module.activation(entering.high))
    return slopes, box


def _margin_of_box(net: Network, last: Interval, margin: Float[Array, "batch classes"]) -> Float[Array, " batch"]:
    """Return the least value of one margin an example over what enters the last layer."""
    rows = _through(net.ops[-1], net.kernels[-1], Interval(margin, margin))
    gain = jnp.minimum(rows.low * last.low, rows.low * last.high)
    return jnp.sum(gain.reshape(len(gain), -1), axis=1) + margin @ net.biases[-1]


def _margin_by_gradient(
    net: Network, box: Interval, slopes: list[Interval], inputs: Inputs, margin: Float[Array, "batch classes"]
) -> tuple[Float[Array, " batch"], Float[Array, " batch"]]:
    """Return how far one margin an example can fall within the box (at most 0), and its gradient's largest norm."""
    rows = Interval(margin, margin)
    for op, kernel, slope in zip(net.ops[:0:-1], net.kernels[:0:-1], slopes[::-1], strict=True):
        rows = times(_through(op, kernel, rows), slope)
    rows = _through(net.ops[0], net.kernels[0], rows)
    falls = jnp.minimum(rows.high * (box.low - inputs), rows.low * (box.high - inputs))
    norms = jnp.maximum(rows.high, -rows.low)
    return tuple(jnp.sum(values.reshape(len(values), -1), axis=1) for values in (falls, norms))  # pyright: ignore[reportReturnType]


def _through(op: Any, kernel: Array, rows: Interval) -> Interval:
    """Pull an interval of rows back through a layer; where it is one number, it stays one."""
    return affine(op.pull, kernel, rows, fn=lambda row: row)
