"""What no attack inside the ball can do: lower bounds on the margins z_y - z_j, from two bounds that hold.

The ball is the box B of all x' in [0, 1] with |x'_k - x_k| <= epsilon. Both bounds start from intervals of what enters
every activation, from layer to layer: an affine layer maps the interval with centre c and radius r to the one with
centre W c + b and radius |W| r, and a monotone activation maps ends to ends.

**Intervals.** The last layer and the difference of two logits are one linear map, whose interval ends at the bound.

**Eq. 2.** |g(x') - g(x)| <= epsilon sup_B ||grad g||_1 for a margin g. The intervals give every activation an interval
of slopes: {1} or {0} for a ReLU that is on or off in the whole ball, [0, 1] for one that may change. Pulled down
through the slopes and the transposed layers, the row of g becomes an interval of grad g, whose largest norm bounds the
supremum. In a ball that [0, 1] cuts, each coordinate counts with as far as it may go to the side that lowers g.

Where no ReLU can change, the network is affine in the ball and Eq. 2 is exact; elsewhere neither bound is always the
better one, so `certified_margins` takes the larger. Both are loose on networks that were not trained for them: what is
not certified may still be robust. They hold up to the rounding of the arithmetic, as all such bounds in floating
point do: a margin below some 1e-5 of the logits certifies nothing in float32.

References:
    Gowal et al. 2018, "On the effectiveness of interval bound propagation for training verifiably robust models",
    arXiv:1810.12715. Weng et al. 2018, "Towards fast computation of certified robustness for ReLU networks",
    arXiv:1804.09699 (Fast-Lip: the largest gradient in the ball). Hein, Andriushchenko 2017, arXiv:1705.08475.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jl1.array_types import Inputs, Labels, Mask, Outputs, Params, Scalar
from jl1.attacks.ball import check_radius
from jl1.evaluation import over_batches
from jl1.intervals import SLOPES, Interval, affine, times
from jl1.models import Dense, SequentialNet, convolution_form, make_apply_fn
from jl1.passes import Network, bind


def certified_margins(
    module: SequentialNet, params: Params, *, inputs: Inputs, labels: Labels, epsilon: Scalar
) -> Outputs:
    """Bound every margin z_y - z_j from below over the ball: the larger of the two bounds of this file.

    Two forward passes, and about four reverse passes a class: one class after the other, so that memory is that of
    one. Not jitted: `make_certificate_step` is.

    Args:
        module: Network with relu, leaky_relu, softplus or tanh, whatever its layers.
        params: Its parameters.
        inputs: The points x, in [0, 1].
        labels: True classes y.
        epsilon: L-infinity radius, at least 0; may be traced.

    Returns:
        One row an example and one column a class j, 0 for y itself. Where all others are above 0, no point of the
        ball is misclassified, up to rounding.

    Raises:
        ValueError: Another activation, or a number for epsilon outside [0, 1].

    Example:
        A linear network, for which both bounds are exact: z_0 - z_1 falls by 2 * 0.125 from 0.5.

        >>> params = {"output": {"kernel": jnp.array([[1.0, 0.0], [0.0, 1.0]]), "bias": jnp.zeros(2)}}
        >>> bounds = certified_margins(SequentialNet((), num_classes=2), params, inputs=jnp.array([[0.75, 0.25]]),
        ...                            labels=jnp.array([0]), epsilon=0.125)
        >>> bounds.tolist()
        [[0.0, 0.25]]
    """
    by_intervals, (lowered, _) = _bounds(module, params, inputs, labels, epsilon)
    return jnp.maximum(by_intervals, lowered)


def gradient_norm_bounds(
    module: SequentialNet, params: Params, *, inputs: Inputs, labels: Labels, epsilon: Scalar
) -> Outputs:
    """Bound sup_{x' in B} ||grad (z_y - z_j)(x')||_1, the supremum of Eq. 2 for every margin, from above.

    `segments.segment_gradient_norms` computes it exactly, but on one segment.

    Args:
        module: As for `certified_margins`.
        params: Its parameters.
        inputs: The points x, in [0, 1].
        labels: True classes y.
        epsilon: L-infinity radius, at least 0; may be traced.

    Returns:
        One row an example and one column a class j, 0 for y itself.

    Raises:
        ValueError: Another activation, or a number for epsilon outside [0, 1].
    """
    _, (_, norms) = _bounds(module, params, inputs, labels, epsilon)
    return norms


def make_certificate_step(module: SequentialNet) -> Callable[..., Mask]:
    """Make the jitted `step(params, inputs, labels, epsilon)`: of which points no point of the ball is misclassified.

    Args:
        module: As for `certified_margins`.

    Returns:
        The step, with epsilon traced: one compilation serves every radius.
    """

    def step(params: Params, inputs: Inputs, labels: Labels, epsilon: Scalar) -> Mask:
        margins = certified_margins(module, params, inputs=inputs, labels=labels, epsilon=epsilon)
        is_label = jax.nn.one_hot(labels, module.num_classes, dtype=bool)
        return jnp.all((margins > 0) | is_label, axis=1)

    return jax.jit(step)


def certified_accuracy(
    module: SequentialNet,
    params: Params,
    *,
    inputs: Float[np.ndarray | Array, " num_examples *features"],
    labels: Int[np.ndarray | Array, " num_examples"],
    epsilon: float,
    batch_size: int = 100,
) -> float:
    """Compute the share of points that no attack of this radius can break: at most the accuracy under any attack.

    Args:
        module: As for `certified_margins`.
        params: Its parameters.
        inputs: All points, in [0, 1].
        labels: Their true classes.
        epsilon: L-infinity radius in [0, 1].
        batch_size: Examples at a time.

    Returns:
        A fraction.

    Raises:
        ValueError: Another activation, no points, or a radius outside [0, 1].
    """
    check_radius(epsilon, 0.0, 1.0)
    batches = over_batches(
        make_certificate_step(module), params, inputs=inputs, labels=labels, batch_size=batch_size, epsilon=epsilon
    )
    return float(np.mean(np.concatenate(list(batches))))


def _bounds(
    module: SequentialNet, params: Params, inputs: Inputs, labels: Labels, epsilon: Scalar
) -> tuple[Outputs, tuple[Outputs, Outputs]]:
    """Return the margins' bounds by intervals and by Eq. 2, and the bounds of the gradients' norms."""
    if module.activation not in SLOPES:
        names = ", ".join(getattr(known, "__name__", str(known)) for known in SLOPES)
        raise ValueError(f"bounds need an activation that never falls: {names}")
    check_radius(epsilon, 0.0, 1.0)
    with jax.default_matmul_precision("float32"):  # accelerators round products to three digits otherwise
        return _bounds_of(module, params, inputs, labels, epsilon)


def _bounds_of(
    module: SequentialNet, params: Params, inputs: Inputs, labels: Labels, epsilon: Scalar
) -> tuple[Outputs, tuple[Outputs, Outputs]]:
    """Compute them one class after the other."""
    layers = (*module.hidden, Dense(module.num_classes))
    net = bind(layers, module.layer_names, params, inputs, convolution=convolution_form(module.convolution))
    box = Interval(jnp.maximum(inputs - epsilon, 0), jnp.minimum(inputs + epsilon, 1))
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
        shift = bias.reshape(*[1] * (entering.low.ndim - 1), -1)
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
