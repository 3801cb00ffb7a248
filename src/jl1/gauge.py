"""What may change in the last layer of a classifier without changing a decision."""

import jax.numpy as jnp

from jl1.array_types import Params
from jl1.models import OUTPUT_LAYER


def centre_output_layer(params: Params, *, layer: str = OUTPUT_LAYER) -> Params:
    """Subtract from the last layer its mean column and its mean bias: the gauge of a classifier.

    All logits of an example move by the same amount, so probabilities, decisions and the exact
    penalty on probabilities, log-probabilities and centred logits stay as they are. The logits then
    sum to zero at every input, so the footnote's surrogate on logits becomes exactly zero: it restricts
    no classifier. The exact penalty on logits changes.

    Args:
        params: Parameter tree with a dense layer of that name, with or without a bias.
        layer: Name of the last layer.

    Returns:
        A new tree.

    Raises:
        ValueError: No such layer.
    """
    if layer not in params:
        raise ValueError(f"no layer {layer!r} in the parameters; there are {', '.join(params)}")
    centred = {name: values - jnp.mean(values, axis=-1, keepdims=True) for name, values in params[layer].items()}
    return {**params, layer: centred}
