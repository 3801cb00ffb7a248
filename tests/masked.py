"""A plainly trained network and what is done to it so that attacks by gradient fail, for the tests of the audit."""

from collections.abc import Callable
from functools import cache, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jl1.audit.planted import penultimate_features
from jl1.data import load_dataset
from jl1.models import Dense, SequentialNet, make_apply_fn

MODULE = SequentialNet((Dense(48), Dense(24)))
NUM_POINTS = 48


class Masked(NamedTuple):
    """A network: its logits, and what enters its last layer."""

    apply_fn: Callable
    features_fn: Callable


def _behind(change, module=MODULE, scale=1.0):
    """Put a change of the inputs before the network and a scale behind it."""
    apply_fn, features_fn = make_apply_fn(module), penultimate_features(module)
    return Masked(
        lambda params, inputs: scale * apply_fn(params, change(inputs)),
        lambda params, inputs: features_fn(params, change(inputs)),
    )


def _shatter(inputs):
    """Add waves too fine to see, whose slopes are hundreds of times those of the inputs."""
    return inputs + 0.02 * jnp.sin(2e4 * inputs)


NETWORKS = {
    "plain": _behind(lambda inputs: inputs),
    "saturated 1e2": _behind(lambda inputs: inputs, scale=1e2),
    "saturated 1e3": _behind(lambda inputs: inputs, scale=1e3),
    "saturated 1e6": _behind(lambda inputs: inputs, scale=1e6),
    "stopped gradient": _behind(jax.lax.stop_gradient),
    "sign in the first layer": _behind(lambda inputs: inputs, MODULE.clone(activation=jnp.sign)),
    "quantised inputs": _behind(lambda inputs: jnp.round(inputs * 8) / 8),
    "shattered gradient": _behind(_shatter),
}


@cache
def digits():
    """Return the inputs and labels of training and test images."""
    data = load_dataset("mnist_5k")
    as_floats = lambda split: (np.float32(split.inputs), np.int32(split.labels))  # noqa: E731
    return as_floats(data.train), as_floats(data.test)


@cache
def trained_params(num_epochs=4, batch_size=100):
    """Train the plain network."""
    (inputs, labels), _ = digits()
    inputs, labels = jnp.asarray(inputs), jnp.asarray(labels)
    params = MODULE.init(jax.random.key(0), inputs[:1])["params"]
    optimizer = optax.adam(3e-3)
    apply_fn = make_apply_fn(MODULE)

    def loss(params, rows):
        losses = optax.softmax_cross_entropy_with_integer_labels(apply_fn(params, inputs[rows]), labels[rows])
        return losses.mean()

    def step(carry, rows):
        params, state = carry
        updates, state = optimizer.update(jax.grad(loss)(params, rows), state)
        return (optax.apply_updates(params, updates), state), None

    order = np.concatenate([np.random.default_rng(epoch).permutation(len(labels)) for epoch in range(num_epochs)])
    batches = order[: len(order) // batch_size * batch_size].reshape(-1, batch_size)
    (params, _), _ = jax.jit(partial(jax.lax.scan, step))((params, optimizer.init(params)), batches)
    return params


@cache
def right_points(name="plain"):
    """Return test points that a network has right: an attack could only break these."""
    _, (inputs, labels) = digits()
    logits = NETWORKS[name].apply_fn(trained_params(), jnp.asarray(inputs))
    right = np.flatnonzero(np.argmax(logits, axis=1) == labels)[:NUM_POINTS]
    return {"inputs": inputs[right], "labels": labels[right]}
