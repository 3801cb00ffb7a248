"""Adversarial inputs made on another network: a white-box attack that they outdo was stopped by its gradients."""

from functools import wraps
from typing import Any

from jl1.array_types import AttackFn, Inputs, LogitsFn, NormAttackFn


def transfer(attack_fn: AttackFn, source_logits_fn: LogitsFn) -> NormAttackFn:
    """Make an attack that looks at another network than the one it is used on.

    Args:
        attack_fn: What makes the adversarial inputs; it is passed whatever the new attack is called with.
        source_logits_fn: The network they are made on, a batch of inputs to logits.

    Returns:
        The attack; the network that it is given is not evaluated, so a point that only that network has wrong
        is moved all the same.

    Example:
        >>> import jax.numpy as jnp
        >>> from jl1.attacks.fgsm import fgsm
        >>> attack_fn = transfer(fgsm, lambda x: x * 2)
        >>> attack_fn(lambda x: -x, jnp.full((1, 2), 0.5), labels=jnp.array([0]), epsilon=0.25).tolist()
        [[0.25, 0.75]]
    """

    @wraps(attack_fn)  # it draws at random if the attack does (`keys.needs_key`)
    def attack(logits_fn: LogitsFn, inputs: Inputs, **options: Any) -> Inputs:
        del logits_fn
        return attack_fn(source_logits_fn, inputs, **options)

    return attack
