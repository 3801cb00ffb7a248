"""The loss around a point, in the plane of the FGSM direction and a random one: what a first-order attack walks on.

    L(f(clip(x + a u + b v)), y)      for a, b in [-epsilon, epsilon],      u = sign(grad_x L), v a random sign vector

A surface that is flat or rugged along u, where v is smooth, is the mark of a masked gradient.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from jl1.array_types import ApplyFn, Inputs, Labels, LogitsFn, Params, PerExample, PRNGKey, Scalar
from jl1.attacks.objectives import margin
from jl1.jacobian import input_gradient

Grid = Float[Array, "batch along across"]
"""One value a point of the plane: along FGSM (a) first, then along the random signs (b)."""


class LossSurfaces(NamedTuple):
    """The planes of some examples.

    Attributes:
        offsets: The values of a and of b, from -epsilon to epsilon; the middle one is 0.
        losses: Cross-entropy of the true label.
        margins: max_{i != y} z_i - z_y: above 0 where the example is misclassified.
    """

    offsets: Float[Array, " offsets"]
    losses: Grid
    margins: Grid


def make_surface_step(apply_fn: ApplyFn, *, num_offsets: int = 41) -> Callable[..., LossSurfaces]:
    """Make the jitted `step(params, inputs, labels, epsilon, key)`: the loss in a plane around every example.

    Every point is clipped to [0, 1], as the attacks' are. One forward pass a point of the grid, for the whole batch.

    Args:
        apply_fn: Function of params and inputs to logits.
        num_offsets: Points along each direction, odd, at least 3.

    Returns:
        The step, which returns `LossSurfaces`; the key draws the random direction of each example.

    Raises:
        ValueError: `num_offsets` even or below 3.
    """
    if num_offsets < 3 or num_offsets % 2 == 0:
        raise ValueError(f"num_offsets={num_offsets}: must be odd, so that the point itself is one, and at least 3")

    def step(params: Params, inputs: Inputs, labels: Labels, epsilon: Scalar, key: PRNGKey) -> LossSurfaces:
        logits_fn: LogitsFn = partial(apply_fn, params)
        gradient = input_gradient(lambda points: _loss_and_margin(logits_fn, points, labels)[0], inputs)
        across = jax.random.rademacher(key, inputs.shape, inputs.dtype)
        offsets = jnp.linspace(-1, 1, num_offsets, dtype=inputs.dtype) * epsilon

        def at(along: Array) -> Array:
            moved = inputs + along[0] * jnp.sign(gradient) + along[1] * across
            return jnp.stack(_loss_and_margin(logits_fn, jnp.clip(moved, 0, 1), labels))

        plane = jnp.stack(jnp.meshgrid(offsets, offsets, indexing="ij"), axis=-1)
        values = jax.lax.map(partial(jax.lax.map, at), plane)
        losses, margins = jnp.moveaxis(values, (0, 1), (2, 3))
        return LossSurfaces(offsets, losses, margins)

    return jax.jit(step)


def _loss_and_margin(logits_fn: LogitsFn, points: Inputs, labels: Labels) -> tuple[PerExample, PerExample]:
    """Compute both at some points."""
    logits = logits_fn(points)
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels), margin(logits, labels)
