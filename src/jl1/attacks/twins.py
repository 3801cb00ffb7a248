"""The adversarial twins that a loss of training asks an attack for, and the key that it shares with its penalty."""

from collections.abc import Callable

import chex
import jax

from jl1.array_types import Inputs, Labels, LogitsFn, PRNGKey, Scalar
from jl1.keys import needs_key
from jl1.labels import check_labels


def split_key(key: PRNGKey | None) -> tuple[PRNGKey, PRNGKey] | tuple[None, None]:
    """Return a key for the attack and one for the penalty; none of none."""
    if key is None:
        return None, None
    for_attack, for_penalty = jax.random.split(key)
    return for_attack, for_penalty


def twins_of(
    logits_fn: LogitsFn,
    inputs: Inputs,
    *,
    labels: Labels,
    epsilon: Scalar,
    attack_fn: Callable[..., Inputs],
    key: PRNGKey | None,
) -> Inputs:
    """Return the adversarial twins of the inputs as constants."""
    check_labels(labels, inputs, what="inputs")
    if key is None and needs_key(attack_fn):
        raise ValueError(
            "the attack takes a key: give the loss one, as in loss(..., key=jax.random.fold_in(key, step)), or bind "
            "one in the attack, as in partial(attack_fn, key=...)"
        )
    keys = {} if key is None else {"key": key}  # an attack of one's own need not take any
    twins = attack_fn(logits_fn, inputs, labels=labels, epsilon=epsilon, **keys)
    chex.assert_equal_shape([inputs, twins])
    return jax.lax.stop_gradient(twins)
