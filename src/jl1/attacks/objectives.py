"""What attacks raise: functions of logits and labels, one value an example, higher where the attack is stronger.

`OBJECTIVES` take (logits, labels) and push an example out of its class; the targeted ones take (logits, labels,
targets) and push it into one chosen class.

References:
    Croce, Hein 2020, "Reliable evaluation of adversarial robustness with an ensemble of diverse
    parameter-free attacks", arXiv:2003.01690: DLR, equations 6 and 7.
"""

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import optax

from jl1.array_types import ExampleLossFn, Inputs, Labels, Logits, LogitsFn, Mask, PerExample, Scalar
from jl1.labels import check_labels, decisions, one_hot
from jl1.per_example import tiny


@runtime_checkable
class TargetedLossFn(Protocol):
    """An objective with a class to reach."""

    def __call__(self, logits: Logits, labels: Labels, *, targets: Labels) -> PerExample:
        """Return one value an example."""
        ...


def margin(logits: Logits, labels: Labels) -> PerExample:
    """Compute max_{i != y} z_i - z_y: above 0 where the example is misclassified; no softmax that could saturate.

    Args:
        logits: Scores of at least two classes.
        labels: True labels y.

    Returns:
        One value an example, in the units of the logits.

    Example:
        >>> import jax.numpy as jnp
        >>> margin(jnp.array([[3.0, 1.0, 2.5]]), jnp.array([0])).tolist()
        [-0.5]
    """
    check_labels(labels, logits, what="logits")
    is_label = one_hot(labels, logits.shape[1], bool)
    return jnp.max(jnp.where(is_label, -jnp.inf, logits), axis=1) - _entry(logits, labels)


def dlr(logits: Logits, labels: Labels) -> PerExample:
    """Compute the difference of logits ratio, (max_{i != y} z_i - z_y) / (z_pi1 - z_pi3) (eq. 6).

    pi sorts the logits from high to low. Neither a shift nor a scale of the logits changes it while they are spread
    by more than some 1e-10, so a network cannot hide its gradient by growing its logits.

    Args:
        logits: Scores of at least three classes.
        labels: True labels y.

    Returns:
        One value an example; at most 1 where the label is among the three highest logits.

    Raises:
        ValueError: Fewer than three classes.

    Example:
        >>> import jax.numpy as jnp
        >>> dlr(jnp.array([[3.0, 1.0, 2.5]]), jnp.array([0])).tolist()
        [-0.25]
    """
    first, _, third = _highest(logits, 3, "dlr")
    return margin(logits, labels) / (first - third + tiny(logits))


def targeted_dlr(logits: Logits, labels: Labels, *, targets: Labels) -> PerExample:
    """Compute the targeted difference of logits ratio, (z_t - z_y) / (z_pi1 - (z_pi3 + z_pi4)/2) (eq. 7).

    Args:
        logits: Scores of at least four classes.
        labels: True labels y.
        targets: Classes t to reach.

    Returns:
        One value an example.

    Raises:
        ValueError: Fewer than four classes.
    """
    first, _, third, fourth = _highest(logits, 4, "targeted_dlr")
    return targeted_margin(logits, labels, targets=targets) / (first - (third + fourth) / 2 + tiny(logits))


def targeted_margin(logits: Logits, labels: Labels, *, targets: Labels) -> PerExample:
    """Compute z_t - z_y, above 0 where the target is ahead of the label.

    Args:
        logits: Scores of at least two classes.
        labels: True labels y.
        targets: Classes t to reach.

    Returns:
        One value an example, in the units of the logits.
    """
    check_labels(labels, logits, what="logits")
    check_labels(targets, logits, what="logits")
    return _entry(logits, targets) - _entry(logits, labels)


OBJECTIVES: Mapping[str, ExampleLossFn] = {
    "ce": optax.softmax_cross_entropy_with_integer_labels,
    "margin": margin,
    "dlr": dlr,
}
"""What an untargeted attack may raise, as `loss_fn` of `pgd` and `apgd`."""


def judge(logits_fn: LogitsFn, loss_fn: ExampleLossFn, labels: Labels, points: Inputs) -> tuple[PerExample, Mask]:
    """Evaluate by one forward pass what is raised, and which points are misclassified."""
    logits = logits_fn(points)
    return loss_fn(logits, labels), decisions(logits) != labels


def look(
    logits_fn: LogitsFn, loss_fn: ExampleLossFn, labels: Labels, points: Inputs
) -> tuple[Inputs, PerExample, Mask]:
    """Evaluate the gradient of what is raised too, and return it first."""

    def total(points: Inputs) -> tuple[Scalar, tuple[PerExample, Mask]]:
        losses, wrong = judge(logits_fn, loss_fn, labels, points)
        return jnp.sum(losses), (losses, wrong)

    gradient, (losses, wrong) = jax.grad(total, has_aux=True)(points)
    return gradient, losses, wrong


def _entry(logits: Logits, classes: Labels) -> PerExample:
    """Return the logit of one class an example."""
    chosen = one_hot(classes, logits.shape[1], bool)
    return jnp.sum(jnp.where(chosen, logits, 0.0), axis=1)


def _highest(logits: Logits, count: int, name: str) -> list[PerExample]:
    """Return the highest logits in order; the gradient goes to one entry each, as through a sort."""
    if logits.shape[1] < count:
        raise ValueError(
            f"{name} needs at least {count} classes, the network has {logits.shape[1]}: use margin or targeted_margin"
        )
    order = jax.lax.top_k(jax.lax.stop_gradient(logits), count)[1]
    return [_entry(logits, order[:, rank]) for rank in range(count)]
