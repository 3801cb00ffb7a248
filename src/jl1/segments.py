"""Eq. 2 with the supremum it asks for: the gradients' L1 norms everywhere on a segment, not only at its ends.

    |f_i(x + eps v) - f_i(x)| <= eps sup_{t in [0, eps]} ||grad f_i(x + t v)||_1     for |v|_inf <= 1        (2)

On a segment a network with ReLU or leaky ReLU is linear between breakpoints, where a pre-activation changes its sign,
so its gradients take finitely many values. They are walked through one after the other.

**The walk.** It carries the pattern: which activations are on. With the pattern held fixed the network is affine, so
one pass gives every pre-activation z and its speed z' along the segment. An activation that is on with z' < 0, or off
with z' > 0, arrives at zero after -z / z'; the first to arrive ends the piece, and it is switched. All that arrive
together are switched together; if that turns another one around, it is switched back in a piece of no length.

**It cannot stall.** After the start no sign of a rounded z is asked for. A speed depends on the pattern of the layers
before it alone, so while those stay an activation switches at most once: in the first layer, once on the whole segment.

**Rounding.** Breakpoints closer to each other than `RESOLUTION` roundings of the segment's length may come in the wrong
order, so the pieces between them do not count; what they add to the change is kept in `uncounted`. The walk checks
itself: its `integral` over all pieces must be the network's change.
"""

from collections.abc import Callable
from functools import partial, reduce
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jl1.array_types import Inputs, Labels, Logits, Mask, Outputs, Params, PerExample
from jl1.inputs import check_floating
from jl1.jacobian import entrywise_l1
from jl1.labels import check_labels, one_hot
from jl1.models import SequentialNet
from jl1.per_example import spread
from jl1.piecewise_linear.kinks import KINKS
from jl1.precision import in_one_precise_type

RESOLUTION = 16
"""Shortest piece that counts, in units of the rounding of 1 on a segment of length 1."""

Pattern = tuple[Bool[Array, " batch ..."], ...]
"""Which activations are on, layer by layer."""

_OutputWeights = Float[Array, " outputs batch classes"]
"""Every output as a linear function of the example's logits."""

_Values = tuple[Logits, tuple[Float[Array, " batch ..."], ...]]
"""Logits, and what enters the activations of each layer."""

_NetFn = Callable[..., _Values]
"""Inputs and a pattern, or None, to what they lead to."""


class SegmentNorms(NamedTuple):
    """What happens to the outputs f_i on the segment from x to x'.

    Attributes:
        supremum: sup ||grad f_i||_1 on the segment, in units of output per unit of input, but for pieces too short to
            count; if the walk is not complete, on the part that was walked and at the end. Never below `at_start` and
            `at_end`.
        at_start: ||grad f_i(x)||_1, with the slope at 0 that JAX takes: 0 for relu, 1 for leaky_relu.
        at_end: ||grad f_i(x')||_1.
        change: f_i(x') - f_i(x).
        integral: The sum over the pieces of length times slope along the segment: `change`, to rounding, if the walk
            is complete and missed nothing.
        num_pieces: How many linear pieces the segment has, or the walk has seen.
        is_complete: False where `max_pieces` ended the walk before x'.
        uncounted: How much of |change|, at most, pieces too short to count have brought: `supremum` does not know them.
        logit_size: The largest absolute logit at both ends, which rounding is relative to.
    """

    supremum: Outputs
    at_start: Outputs
    at_end: Outputs
    change: Outputs
    integral: Outputs
    num_pieces: Int[Array, " batch"]
    is_complete: Mask
    uncounted: Outputs
    logit_size: PerExample


class _Walk(NamedTuple):
    """Where every example stands, from 0 at x to 1 at x', and what it has met on its way."""

    position: PerExample
    pattern: Pattern
    supremum: Outputs
    integral: Outputs
    uncounted: Outputs
    num_pieces: Int[Array, " batch"]
    num_steps: Int[Array, ""]


def segment_gradient_norms(
    module: SequentialNet,
    params: Params,
    *,
    starts: Inputs,
    ends: Inputs,
    labels: Labels | None = None,
    max_pieces: int = 10_000,
) -> SegmentNorms:
    """Compute the supremum of ||grad f_i||_1 over the segment from x to x' for every output (Eq. 2), exactly.

    With r = max_j |x'_j - x_j|, Eq. 2 says |change| <= r * supremum. With the larger of `at_start` and `at_end`, which
    is what the paper argues from, it need not hold. Each piece costs a forward pass, a tangent pass and a reverse pass
    an output, for the whole batch until its last example arrives. Memory is that of one such pass, and grows with the
    batch alone. Not jitted: `jax.jit(partial(segment_gradient_norms, module))`.

    Args:
        module: Network with relu or leaky_relu, whatever its layers.
        params: Its parameters.
        starts: The points x; float64 for more than six digits.
        ends: The points x', such as attacked ones.
        labels: With labels y, f_j is the margin z_y - z_j to every class j (0 for y itself); None: the logits z.
        max_pieces: Where to give up, at least 1; pieces too short to count are among them.

    Returns:
        The norms, one row an example and one column an output.

    Raises:
        ValueError: The network is not piecewise linear, `max_pieces` is below 1, points that are not floating, or
            labels that are not one integer an example.

    Example:
        A step from 0 to 1 that is flat at both ends:

        >>> from jl1.models import Dense
        >>> module = SequentialNet((Dense(2),), num_classes=1)
        >>> params = {"layer_0": {"kernel": jnp.ones((1, 2)), "bias": jnp.array([-0.25, -0.5])},
        ...           "output": {"kernel": jnp.array([[4.0], [-4.0]]), "bias": jnp.zeros(1)}}
        >>> norms = segment_gradient_norms(module, params, starts=jnp.zeros((1, 1)), ends=jnp.ones((1, 1)))
        >>> [value.item() for value in (norms.at_start, norms.supremum, norms.at_end, norms.change, norms.num_pieces)]
        [0.0, 4.0, 0.0, 1.0, 3]
    """
    if module.activation not in KINKS:
        raise ValueError("only a network with relu or leaky_relu is linear between breakpoints")
    if max_pieces < 1:
        raise ValueError(f"max_pieces={max_pieces}: must be at least 1")
    chex.assert_equal_shape([starts, ends])
    check_floating(starts)
    if labels is not None:
        check_labels(labels, starts, what="starts")
    starts, ends, params = in_one_precise_type(starts, ends, params)
    with jax.default_matmul_precision("float32"):  # accelerators round products to three digits otherwise
        net_fn, kink = partial(_network, module, params), KINKS[module.activation]
        weights = _output_weights(module.num_classes, labels, starts)

        def at_point(inputs: Inputs) -> tuple[Outputs, Outputs, PerExample, Pattern]:
            logits, entering = net_fn(inputs, None)
            norms, size = _gradient_norms(net_fn, weights, inputs, None), jnp.max(jnp.abs(logits), axis=1)
            return _outputs(weights, logits), norms, size, tuple(map(kink.is_on, entering))

        outputs, (at_start, at_end), sizes, patterns = jax.lax.map(at_point, jnp.stack([starts, ends]))
        walk = _Walk(
            position=jnp.zeros(len(starts), starts.dtype),
            pattern=tuple(layer[0] for layer in patterns),
            supremum=jnp.maximum(at_start, at_end),
            integral=jnp.zeros_like(at_start),
            uncounted=jnp.zeros_like(at_start),
            num_pieces=jnp.zeros(len(starts), jnp.int32),
            num_steps=jnp.zeros((), jnp.int32),
        )
        walk = jax.lax.while_loop(
            lambda walk: jnp.any(walk.position < 1) & (walk.num_steps < max_pieces),
            partial(_next_piece, net_fn, weights, starts, ends - starts),
            walk,
        )
    change, is_complete = outputs[1] - outputs[0], walk.position >= 1
    bounds, walked = (walk.supremum, at_start, at_end, change), (walk.integral, walk.num_pieces, is_complete)
    return SegmentNorms(*bounds, *walked, uncounted=walk.uncounted, logit_size=jnp.max(sizes, axis=0))


def _network(module: SequentialNet, params: Params, inputs: Inputs, pattern: Pattern | None) -> _Values:
    """Run the network with its activations as they are, or held in a pattern, which makes it affine."""
    kink, entering = KINKS[module.activation], []

    def activation(values: Array) -> Array:
        is_on = kink.is_on(values) if pattern is None else pattern[len(entering)]
        entering.append(values)
        return jnp.where(is_on, 1.0, kink.below).astype(values.dtype) * values

    logits = module.clone(activation=activation).apply({"params": params}, inputs)
    return logits, tuple(entering)  # pyright: ignore[reportReturnType]


def _next_piece(net_fn: _NetFn, weights: _OutputWeights, starts: Inputs, direction: Inputs, walk: _Walk) -> _Walk:
    """Measure the piece in which every example stands and move to its end; who has arrived stays, in no length."""
    points = starts + spread(walk.position, starts) * direction
    (_, entering), (slopes, speeds) = jax.jvp(partial(net_fn, pattern=walk.pattern), (points,), (direction,))
    arrivals = [_arrivals(*layer) for layer in zip(walk.pattern, entering, speeds, strict=True)]
    first = (jnp.min(layer.reshape(len(layer), -1), axis=1) for layer in arrivals)
    step = reduce(jnp.minimum, first, jnp.full_like(walk.position, jnp.inf))
    length = jnp.minimum(step, 1 - walk.position)
    counts = length > RESOLUTION * jnp.finfo(length.dtype).eps
    norms, part = _gradient_norms(net_fn, weights, points, walk.pattern), length[:, None] * _outputs(weights, slopes)
    return _Walk(
        position=jnp.where(step > length, jnp.ones_like(step), walk.position + length),
        pattern=tuple(
            is_on ^ (times <= spread(length, times)) for is_on, times in zip(walk.pattern, arrivals, strict=True)
        ),
        supremum=jnp.maximum(walk.supremum, jnp.where(counts[:, None], norms, 0)),
        integral=walk.integral + part,
        uncounted=walk.uncounted + jnp.where(counts[:, None], 0, jnp.abs(part)),
        num_pieces=walk.num_pieces + counts.astype(jnp.int32),
        num_steps=walk.num_steps + 1,
    )


def _arrivals(is_on: Array, entering: Array, speeds: Array) -> Array:
    """Return how far ahead each pre-activation meets zero against its activation's state, or infinity."""
    is_nearing = jnp.where(is_on, speeds < 0, speeds > 0)
    times = jnp.maximum(-entering / jnp.where(is_nearing, speeds, jnp.ones_like(speeds)), 0)
    return jnp.where(is_nearing, times, jnp.inf)


def _gradient_norms(net_fn: _NetFn, weights: _OutputWeights, inputs: Inputs, pattern: Pattern | None) -> Outputs:
    """Compute ||grad f_i||_1 of every output, one reverse pass at a time."""
    _, pullback = jax.vjp(lambda points: net_fn(points, pattern)[0], inputs)
    return jax.lax.map(lambda cotangent: entrywise_l1(pullback(cotangent)[0]), weights).T


def _output_weights(num_classes: int, labels: Labels | None, inputs: Inputs) -> _OutputWeights:
    """Return the logits' unit vectors, or the margins' differences of two."""
    units = jnp.broadcast_to(jnp.eye(num_classes, dtype=inputs.dtype)[:, None], (num_classes, len(inputs), num_classes))
    return units if labels is None else one_hot(labels, num_classes, inputs.dtype)[None] - units


def _outputs(weights: _OutputWeights, logits: Logits) -> Outputs:
    """Apply the linear functions to the logits."""
    return jnp.einsum("obc,bc->bo", weights, logits)
