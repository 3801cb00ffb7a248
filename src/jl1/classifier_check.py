"""What every loss and attack of jl1 relies on, checked on real inputs."""

import jax.numpy as jnp
import numpy as np

from jl1.array_types import Inputs, LogitsFn


def check_classifier(logits_fn: LogitsFn, inputs: Inputs) -> None:
    """Check on real inputs what every loss and attack of jl1 relies on.

    Args:
        logits_fn: Network with its parameters bound.
        inputs: At least two examples, each of which is also evaluated alone; the values matter, so not inside jit.

    Raises:
        ValueError: Fewer than two examples, inputs outside [0, 1], outputs that are not finite, that are not one row
            of scores an example, or that are probabilities; examples that interact, as with batch statistics.
    """
    if len(inputs) < 2:
        raise ValueError(f"{len(inputs)} examples: at least two are needed to see whether they interact")
    if not bool(jnp.all((inputs >= 0) & (inputs <= 1))):
        raise ValueError(
            f"inputs lie in [{float(jnp.min(inputs)):g}, {float(jnp.max(inputs)):g}]: they must lie in [0, 1]; "
            "divide bytes by 255 and put any other normalisation into the network"
        )
    logits = logits_fn(inputs)
    if logits.ndim != 2 or logits.shape[0] != inputs.shape[0]:
        raise ValueError(f"the network maps {inputs.shape} to {logits.shape}: one row of logits an example is needed")
    if not bool(jnp.all(jnp.isfinite(logits))):
        raise ValueError("the network's logits are not finite on the given inputs")
    if bool(jnp.all(logits >= 0)) and bool(jnp.all(jnp.abs(jnp.sum(logits, axis=1) - 1) < 1e-3)):
        raise ValueError(
            "the network returns probabilities (rows of non-negative numbers that sum to 1) where logits are "
            "needed: leave out its softmax, or attacks fail for lack of a gradient"
        )
    alone = np.concatenate([logits_fn(example[None]) for example in inputs])  # one shape: nothing compiles anew
    scale = 1 + jnp.max(jnp.abs(logits))
    if bool(jnp.max(jnp.abs(alone - logits)) > 1e-3 * scale):
        raise ValueError(
            "an example's logits depend on the other examples of its batch (batch statistics?): its Jacobian is "
            "not defined; use running averages, GroupNorm or LayerNorm"
        )
