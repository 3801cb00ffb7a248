"""What no attack inside the ball can do: lower bounds on the margins z_y - z_j, from two bounds that hold.

The ball is the box B of all x' in the range of the inputs, [0, 1] unless another is given, with
|x'_k - x_k| <= epsilon. Intervals of all activations in B give one bound, Eq. 2 with the gradient's supremum over B
the other (`piecewise_linear.margin_bounds`, with the references).

Where no ReLU can change, the network is affine in the ball and Eq. 2 is exact; elsewhere neither bound is always the
better one, so `certified_margins` takes the larger. Both are loose on networks that were not trained for them: what is
not certified may still be robust. They are rounded outwards: what they say of the network holds for its logits in exact
arithmetic and in floating point (`piecewise_linear.intervals`, which says for which products).
"""

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jl1.array_types import Inputs, Labels, Mask, Outputs, Params, Scalar
from jl1.attacks.ball import check_radius
from jl1.batches import measure
from jl1.inputs import check_floating, check_range
from jl1.labels import check_labels, one_hot
from jl1.models import SequentialNet
from jl1.piecewise_linear.intervals import SLOPES, Interval, roundings
from jl1.piecewise_linear.margin_bounds import margin_bounds
from jl1.precision import in_one_precise_type


def certified_margins(
    module: SequentialNet,
    params: Params,
    *,
    inputs: Inputs,
    labels: Labels,
    epsilon: Scalar,
    lower: float = 0.0,
    upper: float = 1.0,
) -> Outputs:
    """Bound every margin z_y - z_j from below over the ball: the larger of the two bounds.

    Two forward passes, and about four reverse passes a class: one class after the other, so that memory is that of
    one. Not jitted: `make_certificate_step` is.

    Args:
        module: Network with relu, leaky_relu, softplus or tanh, whatever its layers.
        params: Its parameters.
        inputs: The points x, in [lower, upper].
        labels: True classes y.
        epsilon: L-infinity radius, at least 0; may be traced.
        lower: Lowest value an input may have.
        upper: Highest value an input may have.

    Returns:
        One row an example and one column a class j, 0 for y itself. Where all others are above 0, no point of the
        ball is misclassified. For an x out of the range nothing is promised: all others are -inf.

    Raises:
        ValueError: Another activation, inputs that are not floating, labels that are not one integer an example, or a
            number for epsilon outside [0, upper - lower]. A traced epsilon below 0 bounds nothing.

    Example:
        A linear network, for which both bounds are exact: z_0 - z_1 falls by 2 * 0.125 from 0.5.

        >>> params = {"output": {"kernel": jnp.array([[1.0, 0.0], [0.0, 1.0]]), "bias": jnp.zeros(2)}}
        >>> bounds = certified_margins(SequentialNet((), num_classes=2), params, inputs=jnp.array([[0.75, 0.25]]),
        ...                            labels=jnp.array([0]), epsilon=0.125)
        >>> jnp.round(bounds, 4).tolist()  # rounded outwards, 0.2499985
        [[0.0, 0.25]]
    """
    by_intervals, (lowered, _) = _bounds(module, params, inputs, labels, epsilon, _Range(lower, upper))
    margins = jnp.maximum(by_intervals, lowered)
    return _where_in_range(margins, -jnp.inf, inputs, labels, epsilon, _Range(lower, upper))


def gradient_norm_bounds(
    module: SequentialNet,
    params: Params,
    *,
    inputs: Inputs,
    labels: Labels,
    epsilon: Scalar,
    lower: float = 0.0,
    upper: float = 1.0,
) -> Outputs:
    """Bound sup_{x' in B} ||grad (z_y - z_j)(x')||_1, the supremum of Eq. 2 for every margin, from above.

    `segments.segment_gradient_norms` computes it exactly, but on one segment.

    Args:
        module: As for `certified_margins`.
        params: Its parameters.
        inputs: The points x, in [lower, upper].
        labels: True classes y.
        epsilon: L-infinity radius, at least 0; may be traced.
        lower: Lowest value an input may have.
        upper: Highest value an input may have.

    Returns:
        One row an example and one column a class j, 0 for y itself. For an x out of the range all others are inf.

    Raises:
        ValueError: As `certified_margins`.
    """
    _, (_, norms) = _bounds(module, params, inputs, labels, epsilon, _Range(lower, upper))
    return _where_in_range(norms, jnp.inf, inputs, labels, epsilon, _Range(lower, upper))


def make_certificate_step(module: SequentialNet, *, lower: float = 0.0, upper: float = 1.0) -> Callable[..., Mask]:
    """Make the jitted `step(params, inputs, labels, epsilon)`: of which points no point of the ball is misclassified.

    All bounds of `certified_margins` must be above 0.

    Args:
        module: As for `certified_margins`.
        lower: Lowest value an input may have.
        upper: Highest value an input may have.

    Returns:
        The step, with epsilon traced: one compilation serves every radius. The same module and range give the same
        step again. It certifies no point that is out of the range.
    """
    return _certificate_step(module, _Range(lower, upper))  # pyright: ignore[reportArgumentType]: flax makes the hash


def certified_accuracy(
    module: SequentialNet,
    params: Params,
    *,
    inputs: Float[np.ndarray | Array, " num_examples *features"],
    labels: Int[np.ndarray | Array, " num_examples"],
    epsilon: float,
    batch_size: int = 100,
    lower: float = 0.0,
    upper: float = 1.0,
) -> float:
    """Compute the share of points that no attack of this radius can break: at most the accuracy under any attack.

    Args:
        module: As for `certified_margins`.
        params: Its parameters.
        inputs: All points, in [lower, upper].
        labels: Their true classes.
        epsilon: L-infinity radius in [0, upper - lower].
        batch_size: Examples at a time.
        lower: Lowest value an input may have.
        upper: Highest value an input may have.

    Returns:
        A fraction.

    Raises:
        ValueError: Another activation, no points, points that are not floating or out of the range, labels that are not
            one integer an example, or such a radius.
    """
    check_radius(epsilon, lower, upper)
    check_range(inputs, lower, upper)
    step = make_certificate_step(module, lower=lower, upper=upper)
    points = {"inputs": inputs, "labels": labels, "batch_size": batch_size}
    return float(np.mean(measure(step, params, epsilon=epsilon, **points)))


class _Range(NamedTuple):
    """What values an input may have."""

    lower: float
    upper: float


@lru_cache(maxsize=32)
def _certificate_step(module: SequentialNet, limits: _Range) -> Callable[..., Mask]:
    """Keep the steps, so that `certified_accuracy` compiles each once."""

    def step(params: Params, inputs: Inputs, labels: Labels, epsilon: Scalar) -> Mask:
        points = {"inputs": inputs, "labels": labels, "epsilon": epsilon}
        margins = certified_margins(module, params, **points, **limits._asdict())
        return jnp.all((margins > 0) | one_hot(labels, module.num_classes, bool), axis=1)

    return jax.jit(step)


def _is_inside(
    inputs: Float[np.ndarray | Array, " batch *features"], limits: _Range
) -> Bool[np.ndarray | Array, " batch"]:
    """Return which points are in the range; not-a-number is in none."""
    is_inside = (inputs >= limits.lower) & (inputs <= limits.upper)
    return is_inside.reshape(len(inputs), -1).all(axis=1)  # pyright: ignore[reportReturnType]


def _where_in_range(
    bounds: Outputs, otherwise: float, inputs: Inputs, labels: Labels, epsilon: Scalar, limits: _Range
) -> Outputs:
    """Replace the bounds that mean nothing, of points out of the range or a negative radius, but leave the label 0."""
    is_label = one_hot(labels, bounds.shape[1], bool)
    is_meant = _is_inside(inputs, limits) & (epsilon >= 0)
    return jnp.where(is_meant[:, None] | is_label, bounds, otherwise)


def _bounds(
    module: SequentialNet, params: Params, inputs: Inputs, labels: Labels, epsilon: Scalar, limits: _Range
) -> tuple[Outputs, tuple[Outputs, Outputs]]:
    """Return the margins' bounds by intervals and by Eq. 2, and the bounds of the gradients' norms."""
    if module.activation not in SLOPES:
        names = ", ".join(getattr(known, "__name__", str(known)) for known in SLOPES)
        raise ValueError(f"bounds need an activation that never falls: {names}")
    check_radius(epsilon, *limits)
    check_floating(inputs)
    check_labels(labels, inputs, what="inputs")
    inputs, params = in_one_precise_type(inputs, params)
    with jax.default_matmul_precision("float32"):  # accelerators round products to three digits otherwise
        return margin_bounds(module, params, inputs, labels, _box(inputs, epsilon, limits))


def _box(inputs: Inputs, epsilon: Scalar, limits: _Range) -> Interval:
    """Return the ball as an interval of inputs, rounded outwards."""
    radius = epsilon + roundings(0, inputs.dtype) * (jnp.abs(inputs) + epsilon)
    return Interval(jnp.maximum(inputs - radius, limits.lower), jnp.minimum(inputs + radius, limits.upper))
