"""The penalised outputs in closed form: P = sum_i d_i ||J_i - sum_k v_k J_k||_1 of the logits' Jacobian J.

| outputs | d | v |
|---|---|---|
| logits | 1 | 0 |
| centred logits | 1 | 1/c |
| probabilities p | p | p |
| log-probabilities | 1 | p |

With K_i = J_i - sum_k v_k J_k, S = sign(K) and s = sum_i d_i S_i, the derivative of P with respect to J_k is
d_k S_k - v_k s; with respect to the logits it acts through d and v alone.
"""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jl1.array_types import Logits, PerExample

HeadFn = Callable[[Logits], tuple[Logits, Logits]]
"""Logits to d and v, of the same shape."""

LogitsJacobian = Float[Array, "outputs batch entries"]
"""Outputs first, the inputs' entries flat: XLA's CPU sums over image axes are slow enough to double a step."""


def _no_mixing(logits: Logits) -> tuple[Logits, Logits]:
    """Penalise the logits as they are."""
    return jnp.ones_like(logits), jnp.zeros_like(logits)


HEADS: Mapping[str, HeadFn] = {
    "logits": _no_mixing,
    "centred_logits": lambda logits: (jnp.ones_like(logits), jnp.full_like(logits, 1 / logits.shape[1])),
    "probs": lambda logits: (jax.nn.softmax(logits), jax.nn.softmax(logits)),
    "log_probs": lambda logits: (jnp.ones_like(logits), jax.nn.softmax(logits)),
}
"""d and v of the penalised outputs, by their names in `penalties.OUTPUTS`."""


def penalty_and_slopes(
    head: HeadFn, logits: Logits, jacobian: LogitsJacobian, weights: PerExample
) -> tuple[PerExample, LogitsJacobian, Logits]:
    """Return P of every example, and the derivatives of its weighted sum: by the Jacobian, and by the logits.

    Args:
        head: A value of `HEADS`.
        logits: Scores before the softmax.
        jacobian: Their derivative with respect to the inputs.
        weights: Weight of each example.

    Returns:
        P, not weighted, and the two derivatives.
    """
    if head is _no_mixing:  # d = 1 and v = 0 save the passes over the Jacobian that mix its rows
        penalties = jnp.sum(jnp.abs(jacobian), axis=(0, 2))
        return penalties, jnp.sign(jacobian) * weights[None, :, None], jnp.zeros_like(logits)
    (scales, mixture), to_logits = jax.vjp(head, logits)
    mixed = jacobian - _sum_over_outputs(mixture, jacobian)[None]
    signs = jnp.sign(mixed)
    total = _sum_over_outputs(scales, signs)
    norms = jnp.sum(jnp.abs(mixed), axis=2).T
    along = jnp.sum(jacobian * total[None], axis=2).T
    by_jacobian = _per_row(scales * weights[:, None]) * signs - _per_row(mixture * weights[:, None]) * total[None]
    return jnp.sum(scales * norms, axis=1), by_jacobian, weights[:, None] * to_logits((norms, -along))[0]


def _per_row(values: Logits) -> Float[Array, "outputs batch 1"]:
    """Lay one number for each example and output along the rows."""
    return values.T[:, :, None]


def _sum_over_outputs(weights: Logits, rows: LogitsJacobian) -> Float[Array, "batch entries"]:
    """Sum the rows of each example with one weight each, as a product: XLA's CPU is slow to sum over a first axis."""
    return jnp.einsum("bc,cbd->bd", weights, rows, precision=jax.lax.Precision.HIGHEST)
