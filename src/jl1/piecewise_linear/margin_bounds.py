"""Bounds of the margins z_y - z_j of a network over a box B of inputs, by two arguments that hold.

Both start from intervals of what enters every activation, from layer to layer: an affine layer maps the interval with
centre c and radius r to the one with centre W c + b and radius |W| r, and a monotone activation maps ends to ends.
The intervals are rounded outwards (`intervals`), so that the bounds hold for the margins of the network in floating
point, and not only for those in exact arithmetic.

**Intervals.** The last layer and the difference of two logits are one linear map, whose interval ends at the bound.

**Eq. 2.** |g(x') - g(x)| <= epsilon sup_B ||grad g||_1 for a margin g. The intervals give every activation an interval
of slopes: {1} or {0} for a ReLU that is on or off in the whole box, [0, 1] for one that may change. Pulled down
through the slopes and the transposed layers, the row of g becomes an interval of grad g, whose largest norm bounds the
supremum. Each coordinate counts with as far as it may go, within the box, to the side that lowers g. Rounding moves
what leaves a layer; each such move counts with the row of g at that layer, as a coordinate of the input does.

References:
    Gowal et al. 2018, "On the effectiveness of interval bound propagation for training verifiably robust models",
    arXiv:1810.12715. Weng et al. 2018, "Towards fast computation of certified robustness for ReLU networks",
    arXiv:1804.09699 (Fast-Lip: the largest gradient in the ball). Hein, Andriushchenko 2017, arXiv:1705.08475.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jl1.array_types import Inputs, Labels, Outputs, Params
from jl1.models import SequentialNet, convolution_form, make_apply_fn
from jl1.piecewise_linear.intervals import SLOPES, Interval, pull, push, roundings, through, times
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
    labels = labels.astype(jnp.int32)  # XLA's indices: a small type does not hold the number of many classes
    net = bind(module.layers, module.layer_names, params, inputs, convolution=convolution_form(module.convolution))
    slopes, slacks, last = _forward(module, net, box)
    units = jnp.eye(module.num_classes, dtype=inputs.dtype)

    def one_class(unit: Float[Array, " classes"]) -> tuple[Array, tuple[Array, Array]]:
        margin = units[labels] - unit[None]
        return _margin_of_box(net, last, slacks, margin), _margin_by_gradient(net, box, slopes, slacks, inputs, margin)

    by_intervals, (changes, norms) = jax.lax.map(one_class, units)
    logits = make_apply_fn(module)(params, inputs)
    margins = jnp.take_along_axis(logits, labels[:, None], axis=1) - logits
    return by_intervals.T, (margins + changes.T, norms.T)


def _forward(module: SequentialNet, net: Network, box: Interval) -> tuple[list[Interval], list[Array], Interval]:
    """Return the slopes of every activation, what rounding can do to every layer, and what enters the last."""
    slopes, slacks = [], []
    for op, kernel, bias in zip(net.ops[:-1], net.kernels[:-1], net.biases[:-1], strict=True):
        entering, slack = push(op, kernel, bias, box)
        slopes.append(SLOPES[module.activation](entering))
        slacks.append(slack)
        box = through(module.activation, entering)
    _, slack = push(net.ops[-1], net.kernels[-1], net.biases[-1], box)
    return slopes, [*slacks, slack], box


def _margin_of_box(
    net: Network, last: Interval, slacks: list[Array], margin: Float[Array, "batch classes"]
) -> Float[Array, " batch"]:
    """Return the least value of one margin an example over what enters the last layer."""
    rows = pull(net.ops[-1], net.kernels[-1], Interval(margin, margin))
    products = [row * value for row in rows for value in last]
    least = _sum(jnp.minimum(jnp.minimum(*products[:2]), jnp.minimum(*products[2:])))
    # once for the sum above, which has the size of those of the last layer, and once for the network's own
    return least + margin @ net.biases[-1] - 2 * _sum(jnp.abs(margin) * slacks[-1])


def _margin_by_gradient(
    net: Network,
    box: Interval,
    slopes: list[Interval],
    slacks: list[Array],
    inputs: Inputs,
    margin: Float[Array, "batch classes"],
) -> tuple[Float[Array, " batch"], Float[Array, " batch"]]:
    """Return how far one margin an example can fall within the box (at most 0), and its gradient's largest norm."""
    rows, by_rounding = Interval(margin, margin), _sum(jnp.abs(margin) * slacks[-1])
    layers = zip(net.ops[:0:-1], net.kernels[:0:-1], slopes[::-1], slacks[-2::-1], strict=True)
    for op, kernel, slope, slack in layers:
        rows = times(pull(op, kernel, rows), slope)
        by_rounding += _sum(rows.largest * slack)
    rows = pull(net.ops[0], net.kernels[0], rows)
    falls = jnp.minimum(rows.high * (box.low - inputs), rows.low * (box.high - inputs))
    of_sums = 1 + roundings(inputs[0].size, inputs.dtype)
    return of_sums * _sum(falls) - by_rounding, of_sums * _sum(rows.largest)


def _sum(values: Float[Array, " batch *rest"]) -> Float[Array, " batch"]:
    """Sum the entries of each example."""
    return jnp.sum(values.reshape(len(values), -1), axis=1)
