"""The unit test of an attack: a network for every example with an adversarial example planted in its ball.

The features phi of the audited network get a new binary readout an example. Of K random corners of the ball the one
that moves the features most is the planted example x*, and with w = phi(x*) - phi(x)

    h(x') = w . (phi(x') - phi(x)) / ||w||^2,        the example is broken where h(x') > t.

h is 0 at x, 1 at x*, and by Cauchy and Schwarz at most 1 at the other corners, since none moves the features further.
t lies between the best of those, or 0, and 1: an adversarial example is known to exist, and the random search that
planted it has met no other. An attack follows the gradient of h through the audited network; where that is masked it
finds nothing.

The readout is new, so what is masked behind the features is not tested: see `invariance` for a saturated softmax.

References:
    Zimmermann, Brendel, Tramer, Carlini 2022, "Increasing confidence in adversarial robustness evaluations",
    arXiv:2206.13991. There the readout is trained; this one is in closed form.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jl1.array_types import AttackFn, Inputs, Labels, Logits, LogitsFn, Mask, Params, PerExample, PRNGKey, Scalar
from jl1.attacks.ball import project
from jl1.models import OUTPUT_LAYER, SequentialNet
from jl1.per_example import choose, spread

Features = Float[Array, " batch features"]

FeaturesFn = Callable[[Params, Inputs], Features]
"""Parameters and a batch to one row of features an example; logits will do."""

HARDNESS = 0.9
"""Where t lies between the best of the other corners, 0, and x*, 1."""

_SAME = 0.999
"""A corner that reaches this much of h(x*) is x* again, which happens in few dimensions."""


class Readouts(NamedTuple):
    """A binary readout for every example of a batch.

    Attributes:
        origin: phi(x).
        direction: w / ||w||^2; zero where no corner moves the features.
        threshold: t, in (0, 1).
        example: The planted x*, within epsilon of x and in the range.
        is_planted: Whether there is one: False where no corner moves the features, or they are not finite.
    """

    origin: Features
    direction: Features
    threshold: PerExample
    example: Inputs
    is_planted: Mask


class Planted(NamedTuple):
    """How attacks did on the planted networks, one row an example.

    Attributes:
        is_planted: Whether an adversarial example was planted. Where none was, nothing counts as found.
        found: Whether the attack found one.
        found_by_noise: Whether random corners of the ball found one.
    """

    is_planted: Mask
    found: Mask
    found_by_noise: Mask


def penultimate_features(module: SequentialNet) -> FeaturesFn:
    """Return the function of params and inputs to what enters the last layer.

    Args:
        module: The network.

    Returns:
        The features, after the last activation.
    """

    def features_fn(params: Params, inputs: Inputs) -> Features:
        size, dtype = params[OUTPUT_LAYER]["kernel"].shape[0], params[OUTPUT_LAYER]["kernel"].dtype
        identity = {"kernel": jnp.eye(size, dtype=dtype), "bias": jnp.zeros(size, dtype)}
        features = module.clone(num_classes=size).apply({"params": {**params, OUTPUT_LAYER: identity}}, inputs)
        return features  # pyright: ignore[reportReturnType]

    return features_fn


def plant(
    features_fn: Callable[[Inputs], Features],
    inputs: Inputs,
    *,
    epsilon: Scalar,
    key: PRNGKey,
    num_corners: int = 100,
    lower: float = 0.0,
    upper: float = 1.0,
) -> Readouts:
    """Plant an adversarial example for every example. Costs 2 `num_corners` forward passes, one at a time.

    Args:
        features_fn: Features of the audited network, its parameters bound.
        inputs: Batch in [lower, upper].
        epsilon: L-infinity radius; may be traced.
        key: Fixes the corners.
        num_corners: K, at least 2. The more, the further x* lies from what noise finds.
        lower: Lowest value an input may have.
        upper: Highest value an input may have.

    Returns:
        The readouts, detached.

    Raises:
        ValueError: `num_corners` below 2.
    """
    if num_corners < 2:
        raise ValueError(f"num_corners={num_corners}: must be at least 2, the planted one and another")
    corner = partial(_random_corner, key, inputs, epsilon=epsilon, lower=lower, upper=upper)
    origin = features_fn(inputs)

    def keep_furthest(index: Scalar, best: _Furthest) -> _Furthest:
        example = corner(index)
        moves = features_fn(example) - origin
        length = _length(moves)
        further = length > best.length
        return _Furthest(
            choose(further, example, best.example),
            choose(further, moves, best.moves),
            jnp.maximum(jnp.where(further, length, 0), best.length),
        )

    nothing = _Furthest(inputs, jnp.zeros_like(origin), jnp.zeros_like(origin[:, 0]))
    best = jax.lax.fori_loop(0, num_corners, keep_furthest, nothing)
    is_planted = (best.length > 0) & jnp.isfinite(best.length)
    lengths = spread(jnp.where(is_planted, best.length, 1), origin)
    direction = jnp.where(spread(is_planted, origin), best.moves / lengths / lengths, 0)

    def best_other(index: Scalar, highest: PerExample) -> PerExample:
        heights = jnp.sum(direction * (features_fn(corner(index)) - origin), axis=1)
        return jnp.maximum(highest, jnp.where(heights < _SAME, heights, 0))

    others = jax.lax.fori_loop(0, num_corners, best_other, jnp.zeros_like(best.length))
    threshold = others + HARDNESS * (1 - others)
    return jax.lax.stop_gradient(Readouts(origin, direction, threshold, best.example, is_planted))


def make_planted_apply_fn(features_fn: FeaturesFn) -> Callable[[tuple[Params, Readouts], Inputs], Logits]:
    """Make the network of ((params, readouts), inputs) to two logits, [0, h - t]: all labels are 0.

    Args:
        features_fn: Features of the audited network.

    Returns:
        The function. Row i of its inputs must be a point of the ball of the example that readout i is for.
    """

    def apply_fn(params: tuple[Params, Readouts], inputs: Inputs) -> Logits:
        network_params, readouts = params
        moves = features_fn(network_params, inputs) - readouts.origin
        heights = jnp.sum(readouts.direction * moves, axis=1) - readouts.threshold
        return jnp.stack([jnp.zeros_like(heights), heights], axis=1)

    return apply_fn


def make_planted_step(
    features_fn: FeaturesFn,
    *,
    attack_fn: AttackFn,
    num_draws: int,
    num_corners: int = 100,
    lower: float = 0.0,
    upper: float = 1.0,
) -> Callable[..., Planted]:
    """Make the jitted `step(params, inputs, labels, epsilon, key)` that plants, attacks and draws noise.

    Args:
        features_fn: Features of the audited network: `penultimate_features`, or its logits.
        attack_fn: The attack under test, untargeted, on two classes (so not on the DLR).
        num_draws: Random corners that the noise tries, at least 1: as many as the attack has forward passes.
        num_corners: K of `plant`.
        lower: Lowest value an input may have.
        upper: Highest value an input may have.

    Returns:
        The step, for `batches.measure`; the labels do not count. A point outside the ball or the range is not found.
    """
    ball = {"lower": lower, "upper": upper}
    apply_fn = make_planted_apply_fn(features_fn)

    def step(params: Params, inputs: Inputs, labels: Labels, epsilon: Scalar, key: PRNGKey) -> Planted:
        plant_key, attack_key, noise_key = jax.random.split(key, 3)
        readouts = plant(
            partial(features_fn, params), inputs, epsilon=epsilon, key=plant_key, num_corners=num_corners, **ball
        )
        logits_fn: LogitsFn = partial(apply_fn, (params, readouts))
        labels = jnp.zeros_like(labels)
        points = attack_fn(logits_fn, inputs, labels=labels, epsilon=epsilon, key=attack_key)
        allowed = project(points, inputs, epsilon=epsilon, **ball)
        is_inside = jnp.all(jnp.abs(points - allowed).reshape(len(points), -1) <= 1e-6, axis=1)

        def draw(index: Scalar, found: Mask) -> Mask:
            noisy = _random_corner(noise_key, inputs, index, epsilon=epsilon, **ball)
            return found | _is_broken(logits_fn(noisy))

        by_noise = jax.lax.fori_loop(0, num_draws, draw, jnp.zeros_like(is_inside))
        found = _is_broken(logits_fn(points)) & is_inside
        return Planted(readouts.is_planted, found & readouts.is_planted, by_noise & readouts.is_planted)

    return jax.jit(step)


class _Furthest(NamedTuple):
    """The corner that has moved the features most, and how."""

    example: Inputs
    moves: Features
    length: PerExample


def _random_corner(
    key: PRNGKey, inputs: Inputs, index: Scalar, *, epsilon: Scalar, lower: float, upper: float
) -> Inputs:
    """Draw a corner of the ball, clipped to the range."""
    signs = jax.random.rademacher(jax.random.fold_in(key, index), inputs.shape, inputs.dtype)
    return jnp.clip(inputs + epsilon * signs, lower, upper)


def _length(vectors: Features) -> PerExample:
    """Compute the Euclidean length without squares that underflow or overflow."""
    largest = jnp.max(jnp.abs(vectors), axis=1)
    scale = jnp.where(largest > 0, largest, 1)
    return scale * jnp.sqrt(jnp.sum((vectors / spread(scale, vectors)) ** 2, axis=1))


def _is_broken(logits: Logits) -> Mask:
    """Return whether h is above t."""
    return logits[:, 1] > logits[:, 0]
