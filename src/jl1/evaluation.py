"""Accuracies on clean and attacked points, their intervals, and norms over a data set."""

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import chex
import jax
import numpy as np
from jaxtyping import Array, Float, Int

from jl1.array_types import ApplyFn, Inputs, Labels, LogitsFn, Mask, Params, PenaltyFn, PerExample, PRNGKey, Scalar
from jl1.attacks.fgsm import predicted_labels
from jl1.batches import over_batches
from jl1.keys import needs_key
from jl1.labels import check_labels
from jl1.per_example import choose, is_finite


def make_eval_step(
    apply_fn: ApplyFn,
    *,
    attack_fn: Callable[..., Inputs] | None = None,
    attack_predicted_labels: bool = False,
) -> Callable[..., Mask]:
    """Make the jitted `step(params, inputs, labels, epsilon=None, key=None)`: which points are classified right.

    The verdict is taken from the points that the attack returned, by a forward pass of their own. A point that
    was wrong before the attack counts as it is found after it: `pgd` on the true labels never mends one, but on the
    predicted labels an attack may.

    Args:
        apply_fn: Function of params and inputs to LOGITS.
        attack_fn: The attack, such as `fgsm` or `partial(pgd, num_steps=40)`; None for the clean accuracy, which takes
            neither epsilon nor key.
        attack_predicted_labels: Attack the model's own decision instead of the true label.

    Returns:
        The step, with epsilon and key traced: one compilation serves all floats. It raises a ValueError for labels
        that are not one integer an example, and for an attack without the radius or the key that it needs.
    """

    def step(
        params: Params, inputs: Inputs, labels: Labels, epsilon: Scalar | None = None, key: PRNGKey | None = None
    ) -> Mask:
        check_labels(labels, inputs, what="inputs")
        logits_fn: LogitsFn = partial(apply_fn, params)
        points = inputs
        if attack_fn is not None:
            options = _attack_options(attack_fn, epsilon, key)
            attacked = predicted_labels(logits_fn, inputs) if attack_predicted_labels else labels
            points = attack_fn(logits_fn, inputs, labels=attacked, **options)
            chex.assert_equal_shape([inputs, points])
            points = choose(is_finite(points), points, inputs)  # what is no number is in no ball: it beats nothing
        return predicted_labels(logits_fn, points) == labels

    return jax.jit(step)


def make_penalty_step(apply_fn: ApplyFn, *, penalty_fn: PenaltyFn) -> Callable[..., PerExample]:
    """Make the jitted `step(params, inputs, labels, key)` of a penalty, such as ||J||_{1,1}, at every point.

    Args:
        apply_fn: Function of params and inputs to logits.
        penalty_fn: From `penalties.make_penalty`.

    Returns:
        The step. Only an estimator needs the key.
    """

    def step(params: Params, inputs: Inputs, labels: Labels, key: PRNGKey | None = None) -> PerExample:
        return penalty_fn(partial(apply_fn, params), inputs, labels=labels, key=key)

    return jax.jit(step)


def accuracy(
    apply_fn: ApplyFn,
    params: Params,
    *,
    inputs: Float[np.ndarray | Array, " num_examples *features"],
    labels: Int[np.ndarray | Array, " num_examples"],
    attack_fn: Callable[..., Inputs] | None = None,
    epsilon: Scalar | None = None,
    key: PRNGKey | None = None,
    batch_size: int = 500,
) -> float:
    """Compute the share of points that are classified right, after an attack if one is given.

    Compiled at the first call, and no more while `apply_fn` and `attack_fn` are the same objects: keep what
    `make_apply_fn` or `functools.partial` returned in a variable. Another epsilon of the same type, other params of
    the same shapes and another key compile nothing anew. It is an upper bound of the accuracy under any attack of the
    radius: `ensemble.standard_attack` gives a tighter one, `certified_accuracy` a lower one.

    Args:
        apply_fn: Function of params and inputs to LOGITS.
        params: Parameters.
        inputs: All inputs; in [0, 1], unless the attack is bound to another range.
        labels: All labels.
        attack_fn: Such as `fgsm`, or `functools.partial(pgd, num_steps=100)`; None for the clean accuracy.
        epsilon: Radius of the attack, at least 0.
        key: Fixes the draws of an attack that draws at random; each batch has its own.
        batch_size: Examples at a time, at least 1.

    Returns:
        A fraction.

    Raises:
        ValueError: No examples, labels that are not one integer an example, a radius that is negative or that the
            attack refuses, or an attack without the radius or the key that it needs.

    Example:
        >>> import jax.numpy as jnp
        >>> from jl1.attacks.fgsm import fgsm
        >>> points = {"inputs": jnp.array([[0.5, 0.4], [0.9, 0.1]]), "labels": jnp.array([0, 0])}
        >>> apply_fn = lambda scale, inputs: scale * inputs
        >>> accuracy(apply_fn, 2.0, **points), accuracy(apply_fn, 2.0, **points, attack_fn=fgsm, epsilon=0.1)
        (1.0, 0.5)
    """
    if epsilon is not None and not epsilon >= 0:
        raise ValueError(f"epsilon={epsilon}: a radius is at least 0")
    options = {} if epsilon is None else {"epsilon": epsilon}
    batches = over_batches(
        _eval_step(apply_fn, attack_fn), params, inputs=inputs, labels=labels, batch_size=batch_size, key=key, **options
    )
    if attack_fn is not None and epsilon is not None:
        radius = epsilon if isinstance(epsilon, int | float) else np.asarray(epsilon)[()]  # hashable, of its own type
        _radius_check(apply_fn, attack_fn)(params, inputs[:batch_size], labels[:batch_size], key, epsilon=radius)
    return float(np.mean(np.concatenate(list(batches))))


def accuracy_interval(num_right: int, num_examples: int, *, level: float = 0.95) -> tuple[float, float]:
    """Compute Wilson's interval of a share, (p + z^2/2n -+ z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n).

    It says how far the accuracy on all points of the same kind may lie from the one on these.

    Args:
        num_right: How many are right.
        num_examples: Out of how many, at least 1.
        level: How often such intervals are to hold the true share, in (0, 1).

    Returns:
        Lower and upper end, fractions in [0, 1].

    Raises:
        ValueError: Counts that do not fit, or a level outside (0, 1).

    Example:
        >>> [round(end, 3) for end in accuracy_interval(9, 10)]
        [0.596, 0.982]

    References:
        Wilson 1927, "Probable inference, the law of succession, and statistical inference", JASA 22.
    """
    if not 0 <= num_right <= num_examples or num_examples < 1:
        raise ValueError(f"{num_right} of {num_examples}: not a share")
    if not 0 < level < 1:
        raise ValueError(f"level={level}: must be above 0 and below 1, such as 0.95 for 95 %")
    from scipy.stats import binomtest  # slow to import

    interval = binomtest(num_right, num_examples).proportion_ci(level, method="wilson")
    return float(interval.low), float(interval.high)


@lru_cache(maxsize=32)
def _eval_step(apply_fn: ApplyFn, attack_fn: Callable[..., Inputs] | None) -> Callable[..., Mask]:
    """Keep the steps of `accuracy`, so that it compiles each once."""
    return make_eval_step(apply_fn, attack_fn=attack_fn)


@lru_cache(maxsize=32)
def _radius_check(apply_fn: ApplyFn, attack_fn: Callable[..., Inputs]) -> Callable[..., Any]:
    """Let an attack refuse a radius, which in the step it cannot look at: traced once a radius, never compiled."""

    @partial(jax.jit, static_argnames="epsilon")
    def attack(params: Params, inputs: Inputs, labels: Labels, key: PRNGKey | None, *, epsilon: Scalar) -> Inputs:
        options = _attack_options(attack_fn, epsilon, key)
        return attack_fn(partial(apply_fn, params), inputs, labels=labels, **options)

    return attack.eval_shape


def _attack_options(attack_fn: Callable[..., Inputs], epsilon: Scalar | None, key: PRNGKey | None) -> dict[str, Any]:
    """Return what an attack is called with, if it is all there."""
    if epsilon is None:
        raise ValueError("an attack needs a radius: give epsilon=..., in the units of the inputs")
    if key is None and needs_key(attack_fn):
        raise ValueError("this attack draws at random: give key=jax.random.key(0), or bind its key")
    return {"epsilon": epsilon} if key is None else {"epsilon": epsilon, "key": key}
