"""The losses of the paper. With the paper at hand, read this file first.

    L_gp(x, y) = L(f(x), y) + lambda * sum_i sum_j |df_i(x)/dx_j|                                 (Eq. 3)

`cross_entropy` is L, with the label smoothing of Sec. 4.1; `penalised_loss` is Eq. 3; `defended_loss` is
Eq. 3 on the training points and on their FGSM twins, as Sec. 3 and 4.2 couple them. All return one value
an example, so that the mean over a batch, or any other weighting, is the caller's. `mean_loss.make_loss`
packs them into one jitted, averaged loss for a training loop.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from jl1.array_types import Inputs, Labels, Logits, LogitsFn, PenaltyFn, PerExample, PRNGKey, Scalar
from jl1.attacks.fgsm import fgsm
from jl1.attacks.twins import split_key, twins_of
from jl1.evaluated import Sharing, evaluate_once
from jl1.labels import check_labels, one_hot
from jl1.per_example import check_losses
from jl1.ranges import check_number, check_weight


class LossTerms(NamedTuple):
    """A loss and its two parts: total = cross_entropy + lam * penalty.

    Attributes:
        total: What is minimised.
        cross_entropy: L(f(x), y).
        penalty: The penalty, before lambda.
    """

    total: Float[Array, " *batch"]
    cross_entropy: Float[Array, " *batch"]
    penalty: Float[Array, " *batch"]


def cross_entropy(logits: Logits, labels: Labels, *, smoothing: Scalar = 0.0) -> PerExample:
    """Compute -sum_i t_i log softmax(logits)_i against the smoothed label t.

    t = (1 - s) onehot(y) + s/c: with s = 0.1 and ten classes 0.91 on the label and 0.01 on each other.

    Args:
        logits: Scores before the softmax, finite. Probabilities would be accepted and give a wrong loss.
        labels: True classes. One outside 0 to c - 1 gives NaN, so that it cannot go unnoticed.
        smoothing: The s above, in [0, 1).

    Returns:
        One loss an example, in nats.

    Raises:
        ValueError: Labels that are not one integer an example, or a number for `smoothing` outside [0, 1).

    Example:
        >>> import jax.numpy as jnp
        >>> round(float(cross_entropy(jnp.zeros((1, 10)), jnp.array([3]), smoothing=0.1)[0]), 4)  # log 10
        2.3026

    References:
        Szegedy et al. 2016, arXiv:1512.00567, Sec. 7.
    """
    _check_smoothing(smoothing)
    return _smoothed_cross_entropy(logits, labels, smoothing)


def cross_entropy_off_label(logits: Logits, labels: Labels, *, smoothing: Scalar = 0.0) -> PerExample:
    """Compute the cross-entropy with the smoothing mass on the OTHER classes only.

    t = (1 - s) onehot(y) + s/(c - 1) (1 - onehot(y)): with s = 0.1 and ten classes 0.90 on the label and
    0.0111 on each other. Some tools of the paper's time smooth this way; it is `cross_entropy` with
    s c/(c - 1) in place of s.

    Args:
        logits: Scores before the softmax.
        labels: True classes.
        smoothing: The s above, in [0, 1).

    Returns:
        One loss an example, in nats.

    Raises:
        ValueError: As `cross_entropy`, and a single class: there is no other to smooth to.
    """
    _check_smoothing(smoothing)
    num_classes = logits.shape[-1]
    if num_classes < 2:
        raise ValueError(f"logits of shape {logits.shape}: smoothing off the label needs at least two classes")
    return _smoothed_cross_entropy(logits, labels, smoothing * num_classes / (num_classes - 1))


def penalised_loss(
    logits_fn: LogitsFn,
    inputs: Inputs,
    *,
    labels: Labels,
    lam: Scalar,
    penalty_fn: PenaltyFn | None,
    loss_fn: Callable[[Logits, Labels], PerExample] = cross_entropy,
    key: PRNGKey | None = None,
) -> LossTerms:
    """Compute L_gp(x, y) = L(f(x), y) + lambda * penalty(f, x) (Eq. 3) of every example.

    Args:
        logits_fn: Network with its parameters bound, a batch to logits.
        inputs: Batch in [0, 1].
        labels: True classes.
        lam: lambda, at least 0; may be traced, so that one compilation serves a sweep.
        penalty_fn: From `penalties.make_penalty`; None computes no derivative at all, whatever `lam` is.
        loss_fn: L; bind the smoothing with `functools.partial`.
        key: Passed to the penalty, if given: one that draws at random needs it.

    Returns:
        The terms of every example, not averaged.

    Raises:
        ValueError: Labels that are not one integer an example, a loss that is not one value an example, or a number for
            `lam` below 0.

    Example:
        >>> import jax.numpy as jnp
        >>> from jl1.penalties import make_penalty
        >>> weights = jnp.array([[1.0, -2.0], [3.0, 0.5]])
        >>> terms = penalised_loss(
        ...     lambda x: x @ weights.T, jnp.zeros((1, 2)), labels=jnp.array([0]), lam=0.5,
        ...     penalty_fn=make_penalty("jacobian_l1"))
        >>> [round(float(term[0]), 4) for term in terms]  # 0.6931 + 0.5 * 6.5
        [3.9431, 0.6931, 6.5]
    """
    check_labels(labels, inputs, what="inputs")
    check_weight("lam", lam)
    network = evaluate_once(logits_fn, inputs) if isinstance(penalty_fn, Sharing) else logits_fn
    logits = network(inputs)
    chex.assert_rank(logits, 2)
    losses = loss_fn(logits, labels)
    check_losses(losses, len(labels))
    if penalty_fn is None:
        return LossTerms(losses, losses, jnp.zeros_like(losses))
    keys = {} if key is None else {"key": key}  # a penalty of one's own need not take any
    penalties = penalty_fn(network, inputs, labels=labels, **keys)
    return LossTerms(losses + lam * penalties, losses, penalties)


def defended_loss(
    logits_fn: LogitsFn,
    inputs: Inputs,
    *,
    labels: Labels,
    lam: Scalar,
    epsilon: Scalar,
    penalty_fn: PenaltyFn | None,
    loss_fn: Callable[[Logits, Labels], PerExample] = cross_entropy,
    attack_fn: Callable[..., Inputs] = fgsm,
    key: PRNGKey | None = None,
) -> LossTerms:
    """Compute (L_gp(x, y) + L_gp(x', y)) / 2 with the adversarial twin x' of every example.

    Sec. 4.2: "for each image of a batch, an adversarial image is generated and added to the batch with the
    same target"; Sec. 3: the gradients are penalised "on both these points". The mean of the result over
    the batch is the mean of Eq. 3 over the doubled batch. The twins are constants: nothing is
    differentiated through the attack.

    Args:
        logits_fn: Network with its parameters bound, a batch to logits.
        inputs: Batch in [0, 1].
        labels: True classes, the target of both points.
        lam: lambda, at least 0; may be traced.
        epsilon: Radius of the attack, in [0, 1]; may be traced. At 0 this is `penalised_loss`, in expectation where
            the penalty draws at random.
        penalty_fn: From `penalties.make_penalty`; None for adversarial training alone.
        loss_fn: L; bind the smoothing with `functools.partial`.
        attack_fn: Called as attack_fn(logits_fn, inputs, labels=..., epsilon=...), with a key if there is one; bind the
            rest.
        key: Split in two, for the attack and the penalty; needed if one of them draws at random.

    Returns:
        The terms of every example, each the mean of its two points, not averaged over the batch.

    Raises:
        ValueError: Labels that are not one integer an example; a number for `lam` below 0; an attack or a penalty that
            needs a key, and no key.
    """
    attack_key, penalty_key = split_key(key)
    twins = twins_of(logits_fn, inputs, labels=labels, epsilon=epsilon, attack_fn=attack_fn, key=attack_key)
    points = jnp.concatenate([inputs, twins])
    terms = penalised_loss(
        logits_fn,
        points,
        labels=jnp.concatenate([labels, labels]),
        lam=lam,
        penalty_fn=penalty_fn,
        loss_fn=loss_fn,
        key=penalty_key,
    )
    return LossTerms(*(jnp.mean(term.reshape(2, -1), axis=0) for term in terms))


def summed_defended_loss(
    logits_fn: LogitsFn, inputs: Inputs, *, mean_loss_fn: Callable[..., LossTerms] = defended_loss, **options: Any
) -> LossTerms:
    """Compute L_gp(x, y) + L_gp(x', y): `defended_loss` without the 1/2, and with the same options.

    The other reading of Sec. 4.2. Adam divides a constant factor out again, up to its epsilon.

    Args:
        logits_fn: Network with its parameters bound, a batch to logits.
        inputs: Batch in [0, 1].
        mean_loss_fn: What is doubled: `defended_loss` or `output_change_loss`.
        **options: All keyword arguments of that loss.

    Returns:
        The terms of every example, each the sum of its two points.
    """
    return LossTerms(*(2 * term for term in mean_loss_fn(logits_fn, inputs, **options)))


def _check_smoothing(smoothing: Scalar) -> None:
    """Refuse a number outside [0, 1)."""
    allowed = "at least 0 and below 1, the share taken off the label"
    check_number("smoothing", smoothing, lambda share: (share >= 0) & (share < 1), allowed)


def _smoothed_cross_entropy(logits: Logits, labels: Labels, smoothing: Scalar) -> PerExample:
    """Compute the cross-entropy against (1 - s) onehot(y) + s/c."""
    check_labels(labels, logits, what="logits")
    targets = optax.smooth_labels(one_hot(labels, logits.shape[-1], logits.dtype), smoothing)
    is_class = (labels >= 0) & (labels.astype(jnp.int32) < logits.shape[-1])  # a small type cannot hold the number
    return jnp.where(is_class, optax.softmax_cross_entropy(logits, targets), jnp.nan)
