"""The activations that are linear on both sides of 0, with the slope that JAX gives them at 0 itself.

That slope is a convention, but not a rare case: where an image is blank and the biases are 0, whole layers stand at 0.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


class Kink(NamedTuple):
    """An activation with slope 1 where it is on, and another where it is off.

    Attributes:
        below: The slope where it is off.
        is_on: Which of the values that enter have slope 1.
    """

    below: float
    is_on: Callable[[Float[Array, "..."]], Bool[Array, "..."]]

    def slopes(self, entering: Float[Array, "..."]) -> Float[Array, "..."]:
        """Return the slope at each value; it never falls from left to right."""
        return jnp.where(self.is_on(entering), 1.0, self.below).astype(entering.dtype)


KINKS: Mapping[Any, Kink] = {
    nn.relu: Kink(0.0, lambda entering: entering > 0),
    nn.leaky_relu: Kink(0.01, lambda entering: entering >= 0),
}
"""By the activation. `jax.nn.relu` has slope 0 at 0, `jax.nn.leaky_relu` has slope 1."""
