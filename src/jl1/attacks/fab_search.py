"""One restart of the Fast Adaptive Boundary attack, the decision planes it steps to, and its final search.

References:
    Croce, Hein 2020, "Minimally distorted adversarial examples with a fast adaptive boundary attack",
    arXiv:1907.02044, Algorithm 1; the targeted form is from arXiv:2003.01690.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from jl1.array_types import Inputs, Labels, Logits, LogitsFn, Mask, PerExample, Scalar
from jl1.attacks.fgsm import predicted_labels
from jl1.attacks.norms import Norm
from jl1.attacks.objectives import margin, targeted_margin
from jl1.attacks.planes import step_to_plane
from jl1.labels import decisions, one_hot
from jl1.per_example import choose, spread, tiny

_OVERSHOOT = 1.05  # eta: how far a step goes past the plane
_BACKWARD = 0.9  # beta: the share of its perturbation that a misclassified point keeps
_MOST_BIAS = 0.1  # alpha_max: the largest weight of the step that begins at the input
_FINAL_STEPS = 3
_HAIR = 1e-4  # of the distance: past the zero of a linear margin, so that rounding leaves it on the wrong side

PlaneFn = Callable[[Inputs], tuple[PerExample, Inputs]]
"""Points to gap and normal: the network, linear at the points, changes class where <normal, step> = gap."""


class MinimalPerturbation(NamedTuple):
    """The nearest misclassified point that was found.

    Attributes:
        inputs: The point; the input itself where none was found.
        distance: Its distance; 0 for an input that is misclassified, infinite where none was found.
    """

    inputs: Inputs
    distance: PerExample


class Search(NamedTuple):
    """What is looked for, and where.

    Attributes:
        logits_fn: The network.
        labels: True labels.
        norm: Which distance is least.
        lower: Lowest value an input may have.
        upper: Highest value an input may have.
        enough: An example is done when its distance is at most this.
    """

    logits_fn: LogitsFn
    labels: Labels
    norm: Norm
    lower: float
    upper: float
    enough: Scalar


def target_plane(search: Search, targets: Labels, points: Inputs) -> tuple[PerExample, Inputs]:
    """Return the plane on which the target's logit equals the label's."""

    def total(points: Inputs) -> tuple[Array, PerExample]:
        ahead = targeted_margin(search.logits_fn(points), search.labels, targets=targets)
        return jnp.sum(ahead), ahead

    normal, ahead = jax.grad(total, has_aux=True)(points)
    return -ahead.astype(points.dtype), normal


def nearest_plane(search: Search, points: Inputs) -> tuple[PerExample, Inputs]:
    """Return, of the planes between the label and every other class, the one nearest to each point."""
    logits, pullback = jax.vjp(search.logits_fn, points)
    num_classes, labels = logits.shape[1], search.labels

    def one_class(index: Int[Array, ""], nearest: _Plane) -> _Plane:
        others = jnp.full_like(labels, index, jnp.int32)  # a small type may not hold the last class
        gap = -targeted_margin(logits, labels, targets=others).astype(points.dtype)
        normal = pullback(_difference(logits, labels, others))[0]
        distance = jnp.where(others == labels, jnp.inf, jnp.abs(gap) / (search.norm.dual_length(normal) + tiny(normal)))
        closer = distance < nearest.distance
        return _Plane(
            jnp.where(closer, distance, nearest.distance),
            jnp.where(closer, gap, nearest.gap),
            choose(closer, normal, nearest.normal),
        )

    none = jnp.zeros_like(logits[:, 0], points.dtype)
    nearest = _Plane(none + jnp.inf, none, jnp.zeros_like(points))
    nearest = jax.lax.fori_loop(0, num_classes, one_class, nearest)
    return nearest.gap, nearest.normal


def descend(
    search: Search, plane_fn: PlaneFn, num_steps: int, inputs: Inputs, starts: Inputs, best: MinimalPerturbation
) -> MinimalPerturbation:
    """Run Algorithm 1 from the given starts until every example is done or the steps are used up."""

    def step(carry: tuple[Int[Array, ""], Inputs, MinimalPerturbation]) -> tuple[Array, Inputs, MinimalPerturbation]:
        count, points, best = carry
        points = _approach(search, plane_fn(points), points, inputs)
        wrong = predicted_labels(search.logits_fn, points) != search.labels
        best = _nearer(search, best, points, wrong, inputs)
        return count + 1, choose(wrong, inputs + _BACKWARD * (points - inputs), points), best

    def unfinished(carry: tuple[Int[Array, ""], Inputs, MinimalPerturbation]) -> Array:
        return (carry[0] < num_steps) & jnp.any(carry[2].distance > search.enough)

    return jax.lax.while_loop(unfinished, step, (jnp.asarray(0), starts, best))[2]


def final_search(search: Search, inputs: Inputs, best: MinimalPerturbation) -> MinimalPerturbation:
    """Come nearer along the line to the input: three times to where a linear margin would be zero.

    The line from a right point (at first the input) to a misclassified one crosses the boundary; the new point
    replaces the end whose verdict it shares.
    """

    def end_at(points: Inputs) -> tuple[_End, Logits]:
        logits = search.logits_fn(points)
        return _End(points, margin(logits, search.labels).astype(points.dtype)), logits

    def halve(
        _: Int[Array, ""], carry: tuple[_End, _End, MinimalPerturbation]
    ) -> tuple[_End, _End, MinimalPerturbation]:
        right, wrong, best = carry
        span = wrong.margin - right.margin
        share = jnp.where(span > 0, -right.margin / jnp.where(span > 0, span, 1.0), 0.5)
        whole, part = (search.norm.length(wrong.inputs - end) for end in (inputs, right.inputs))
        share = jnp.clip(share + _HAIR * whole / jnp.where(part > 0, part, 1.0), 0.0, 1.0)
        points = right.inputs + spread(share, inputs) * (wrong.inputs - right.inputs)
        middle, logits = end_at(points)
        is_wrong = _wrong(logits, search.labels)
        best = _nearer(search, best, points, is_wrong, inputs)
        return _take(is_wrong, right, middle), _take(is_wrong, middle, wrong), best

    ends = end_at(inputs)[0], end_at(best.inputs)[0]
    return jax.lax.fori_loop(0, _FINAL_STEPS, halve, (*ends, best))[2]


class _Plane(NamedTuple):
    """The nearest plane so far: distance, gap and normal."""

    distance: PerExample
    gap: PerExample
    normal: Inputs


class _End(NamedTuple):
    """One end of a line through the boundary."""

    inputs: Inputs
    margin: PerExample


def _take(mask: Mask, one: _End, other: _End) -> _End:
    return _End(choose(mask, one.inputs, other.inputs), jnp.where(mask, one.margin, other.margin))


def _wrong(logits: Logits, labels: Labels) -> Mask:
    return decisions(logits) != labels


def _difference(logits: Logits, labels: Labels, others: Labels) -> Logits:
    """Return the cotangent of z_other - z_label."""
    ahead, behind = (one_hot(classes, logits.shape[1], logits.dtype) for classes in (others, labels))
    return ahead - behind


def _approach(search: Search, plane: tuple[PerExample, Inputs], points: Inputs, inputs: Inputs) -> Inputs:
    """Step past the plane from the points and from the inputs, and mix: the nearer the points' plane, the less bias."""
    gap, normal = plane
    back = jnp.sum((normal * (points - inputs)).reshape(len(points), -1), axis=1)
    both = [jnp.concatenate(pair) for pair in ((points, inputs), (normal, normal), (gap, gap + back))]
    steps = step_to_plane(*both, norm=search.norm, lower=search.lower, upper=search.upper)
    lengths = jnp.maximum(search.norm.length(steps), max(1e-8, tiny(steps)))
    (step, step_from_inputs), (length, length_from_inputs) = (jnp.split(values, 2) for values in (steps, lengths))
    bias = spread(jnp.minimum(length / (length + length_from_inputs), _MOST_BIAS), points)
    mixed = (1 - bias) * (points + _OVERSHOOT * step) + bias * (inputs + _OVERSHOOT * step_from_inputs)
    return jnp.clip(mixed, search.lower, search.upper)


def _nearer(
    search: Search, best: MinimalPerturbation, points: Inputs, wrong: Mask, inputs: Inputs
) -> MinimalPerturbation:
    """Take a misclassified point that is nearer; an example that is done keeps its own."""
    distance = search.norm.length(points - inputs)
    nearer = wrong & (distance < best.distance) & (best.distance > search.enough)
    return MinimalPerturbation(choose(nearer, points, best.inputs), jnp.where(nearer, distance, best.distance))
