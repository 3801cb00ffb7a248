"""Adversarial inputs made on another network: a white-box attack that they outdo was stopped by its gradients."""

from jl1.array_types import AttackFn, Inputs, Labels, LogitsFn, NormAttackFn, PRNGKey, Scalar


def transfer(attack_fn: AttackFn, source_logits_fn: LogitsFn) -> NormAttackFn:
    """Make an attack that looks at another network than the one it is used on.

    Args:
        attack_fn: What makes the adversarial inputs; it is passed whatever the new attack is called with.
        source_logits_fn: The network they are made on, a batch of inputs to logits.

    Returns:
        The attack; the network that it is given is not evaluated, so a point that only that network has wrong
        is moved all the same.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from jl1.attacks.fgsm import fgsm
        >>> attack_fn = transfer(fgsm, lambda x: x * 2)
        >>> options = {"labels": jnp.array([0]), "epsilon": 0.25, "key": jax.random.key(0)}
        >>> attack_fn(lambda x: -x, jnp.full((1, 2), 0.5), **options).tolist()
        [[0.25, 0.75]]
    """

    def attack(
        logits_fn: LogitsFn, inputs: Inputs, *, labels: Labels, epsilon: Scalar, key: PRNGKey, **options: object
    ) -> Inputs:
        del logits_fn
        return attack_fn(source_logits_fn, inputs, labels=labels, epsilon=epsilon, key=key, **options)

    return attack
