"""Small random networks, each as a flax module and as the layers and arrays that `reference.py` computes with."""

from functools import partial
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import reference

from jl1.models import ACTIVATIONS, Conv, Dense, SequentialNet, make_apply_fn


class Net(NamedTuple):
    """Two descriptions of one network."""

    hidden: tuple
    layers: tuple
    features: tuple[int, ...]
    shapes: tuple[tuple[int, ...], ...]
    activation: str

    @property
    def num_classes(self):
        return self.shapes[-1][-1]

    @property
    def module(self):
        return SequentialNet(self.hidden, self.num_classes, ACTIVATIONS[self.activation])

    @property
    def apply_fn(self):
        return make_apply_fn(self.module)

    def params(self, seed=0):
        """Draw (kernel, bias) of every layer."""
        rng = np.random.default_rng(seed)
        return [(rng.normal(0.0, 0.6, shape), rng.normal(0.0, 0.2, shape[-1])) for shape in self.shapes]

    def inputs(self, num_examples=3, seed=1):
        return np.random.default_rng(seed).uniform(0.0, 1.0, (num_examples, *self.features))

    def labels(self, num_examples=3, seed=2):
        return np.random.default_rng(seed).integers(0, self.num_classes, num_examples)

    def logits_fn(self, seed=0):
        return partial(self.apply_fn, as_tree(self.params(seed)))

    def reference(self, params, inputs):
        """Compute logits and their Jacobian by the oracle."""
        return (
            reference.network(self.layers, params, inputs, self.activation),
            reference.network_jacobian(self.layers, params, inputs, self.activation),
        )


def as_tree(params):
    """Turn a list of (kernel, bias) into the tree of a `SequentialNet`, in jax's present precision."""
    names = [f"layer_{index}" for index in range(len(params) - 1)] + ["output"]
    pairs = zip(names, params, strict=True)
    return {name: {"kernel": jnp.asarray(kernel), "bias": jnp.asarray(bias)} for name, (kernel, bias) in pairs}


def _dense(activation):
    return Net((Dense(6), Dense(5)), (None, None, None), (4,), ((4, 6), (6, 5), (5, 3)), activation)


def _conv(activation):
    # 5x6 -SAME, stride 2-> 3x3 -VALID-> 2x2x3 = 12 -> 4 -> 3, the kinds of layers of models A and B
    return Net(
        (Conv(2, 3, 2, "SAME"), Conv(3, 2, 1, "VALID"), Dense(4)),
        ((2, "SAME"), (1, "VALID"), None, None),
        (5, 6, 1),
        ((3, 3, 1, 2), (2, 2, 2, 3), (12, 4), (4, 3)),
        activation,
    )


NETS = {
    "dense_relu": _dense("relu"),
    "dense_tanh": _dense("tanh"),
    "conv_relu": _conv("relu"),
    "conv_softplus": _conv("softplus"),
}
