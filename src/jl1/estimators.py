"""Estimates of the penalties by fewer reverse passes than the exact ones need; each takes a key."""

import chex
import jax
import jax.numpy as jnp

from jl1.array_types import BatchedFn, Inputs, PerExample, PRNGKey
from jl1.jacobian import squared_l2


def jacobian_frobenius_projected(
    batched_fn: BatchedFn, inputs: Inputs, *, key: PRNGKey, num_projections: int = 1
) -> PerExample:
    """Estimate the squared Frobenius norm by c/n sum_k ||v_k^T J||_2^2 with random unit vectors v_k.

    Unbiased, since E[v v^T] = I/c for v uniform on the sphere of c dimensions; every example has its own
    projections. The relative variance of one projection is at most 2 and falls as 1/num_projections.

    Args:
        batched_fn: Batch of inputs to a batch of output vectors; examples must not interact.
        inputs: Batch of examples.
        key: Fixes the projections.
        num_projections: Reverse passes, at least 1.

    Returns:
        One estimate an example.

    Raises:
        ValueError: `num_projections` below 1.

    References:
        Hoffman, Roberts, Yaida 2019, "Robust learning with Jacobian regularization", arXiv:1908.02729.
    """
    if num_projections < 1:
        raise ValueError(f"num_projections={num_projections}: must be at least 1")
    outputs, pullback = jax.vjp(batched_fn, inputs)
    chex.assert_rank(outputs, 2)
    normal = jax.random.normal(key, (num_projections, *outputs.shape), outputs.dtype)
    unit = normal / jnp.linalg.norm(normal, axis=-1, keepdims=True)
    squares = jax.lax.map(jax.checkpoint(lambda vector: squared_l2(pullback(vector)[0])), unit)
    return outputs.shape[1] * jnp.mean(squares, axis=0)
