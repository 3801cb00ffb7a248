"""The random draws of the estimators, and the mean over several."""

from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jl1.array_types import Outputs, PerExample, PRNGKey
from jl1.shares import draw_rows


def draw_classes(key: PRNGKey, outputs: Outputs, *, num_draws: int) -> Int[Array, " draws batch"]:
    """Draw different outputs for every example, each output equally often in the batch, up to one.

    As many examples as there are outputs are dealt the outputs in turn, from a random one on; the next ones from
    another. Uniform for every example, cheaper than a permutation, and not in step with labels that come in turn.
    """
    num_examples, num_outputs = outputs.shape
    if not 1 <= num_draws <= num_outputs:
        raise ValueError(f"num_draws={num_draws}: must be 1 to {num_outputs}, the number of outputs")

    def deal(num_rows: int) -> Int[Array, " draws rows"]:
        starts = jax.random.randint(key, (-(-num_rows // num_outputs), 1), 0, num_outputs)
        dealt = (starts + jnp.arange(num_outputs * num_draws)[None]) % num_outputs
        return dealt.reshape(-1, num_draws)[:num_rows].T

    return draw_rows(deal, num_examples, axis=1)


def draw_vectors(
    sample_fn: Callable[..., Array], key: PRNGKey, num_draws: int, outputs: Outputs
) -> Float[Array, " draws batch outputs"]:
    """Draw one random vector a draw and example."""
    chex.assert_rank(outputs, 2)
    if num_draws < 1:
        raise ValueError(f"num_draws={num_draws}: must be at least 1")
    num_rows, num_outputs = outputs.shape
    return draw_rows(lambda rows: sample_fn(key, (num_draws, rows, num_outputs), outputs.dtype), num_rows, axis=1)


def mean_over_draws(
    draw_fn: Callable[[Array], PerExample], draws: Float[Array, " draws batch *rest"] | Int[Array, " draws batch"]
) -> PerExample:
    """Average one value an example over the draws.

    Several run in a loop that recomputes them when it is differentiated, so that memory does not grow with their
    number; for a single one, recomputing would cost another pass and save nothing.
    """
    if len(draws) == 1:
        return draw_fn(draws[0])
    return jnp.mean(jax.lax.map(jax.checkpoint(draw_fn), draws), axis=0)
