"""Train a ResNet of your own with jl1's penalty, in your own loop: flax and optax, CIFAR-shaped images.

    python examples/resnet_groupnorm.py                  # two trainings, a minute or two on a free CPU core
    python examples/resnet_groupnorm.py --cifar10=DIR    # DIR holds the binary CIFAR-10
    python examples/resnet_groupnorm.py --cifar10=       # what `jl1 prepare --config.data.name=cifar10` has downloaded

Without CIFAR-10 it takes real digits, 32 x 32 x 3 like its images: jl1 comes with 5,000 of them. What is jl1's in the
training are two calls, of `make_loss` and of what it returns. The network is any function of parameters and inputs in
which examples do not interact: hence GroupNorm, not BatchNorm.
"""

import argparse
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from jl1 import check_classifier, make_loss, patch_convolution, pgd
from jl1.data import Dataset, load_dataset


class Block(nn.Module):
    """Two convolutions beside a shortcut."""

    width: int
    stride: int
    convolve: Any

    @nn.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Compute the features of a batch of images."""
        conv = partial(nn.Conv, self.width, use_bias=False, conv_general_dilated=self.convolve)
        values = nn.relu(nn.GroupNorm(num_groups=8)(conv((3, 3), self.stride)(inputs)))
        values = nn.GroupNorm(num_groups=8)(conv((3, 3))(values))
        if inputs.shape != values.shape:
            inputs = nn.GroupNorm(num_groups=8)(conv((1, 1), self.stride)(inputs))
        return nn.relu(inputs + values)


class ResNet(nn.Module):
    """A small residual network with GroupNorm.

    `patch_convolution` is flax's convolution in another form, several times faster on a CPU where it is differentiated
    twice; on an accelerator leave `convolve` at XLA's.
    """

    num_classes: int = 10
    widths: Sequence[int] = (16, 32, 64)
    convolve: Any = jax.lax.conv_general_dilated

    @nn.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Compute the logits of a batch of images."""
        stem = nn.Conv(self.widths[0], (3, 3), 2, use_bias=False, conv_general_dilated=self.convolve)
        values = nn.relu(nn.GroupNorm(num_groups=8)(stem(inputs)))
        for index, width in enumerate(self.widths):
            values = Block(width, 1 if index == 0 else 2, self.convolve)(values)
        return nn.Dense(self.num_classes)(values.mean(axis=(1, 2)))


def train(
    net: nn.Module, data: tuple[np.ndarray, np.ndarray], *, lam: float, num_epochs: int, batch_size: int = 64
) -> Any:
    """Train by Adam, with one class of the Jacobian sampled an image, and return the parameters."""
    inputs, labels = data
    params = jax.jit(net.init)(jax.random.key(0), inputs[:1])["params"]
    optimizer = optax.adam(1e-3)

    def apply_fn(params: Any, inputs: jax.Array) -> Any:
        return net.apply({"params": params}, inputs)

    check_classifier(partial(apply_fn, params), jnp.asarray(inputs[:4]))  # examples must not interact
    penalty = "jacobian_l1_sampled_classes" if lam > 0 else "none"
    loss = make_loss(apply_fn, penalty=penalty, outputs="logits", scale="mean", smoothing=0.1)

    @jax.jit
    def step(params: Any, state: Any, inputs: jax.Array, labels: jax.Array, key: jax.Array) -> Any:
        gradient, terms = jax.grad(loss, has_aux=True)(params, inputs, labels, lam=lam, key=key)
        updates, state = optimizer.update(gradient, state)
        return optax.apply_updates(params, updates), state, terms

    state, rng, start = optimizer.init(params), np.random.default_rng(0), time.perf_counter()
    for epoch in range(num_epochs):
        for rows in rng.permutation(len(labels))[: len(labels) // batch_size * batch_size].reshape(-1, batch_size):
            key = jax.random.fold_in(jax.random.key(1), state[0].count)  # another class of each image in every step
            params, state, terms = step(params, state, inputs[rows], labels[rows], key)
        print(
            f"epoch {epoch + 1}/{num_epochs}  cross-entropy {terms.cross_entropy:.3f}  penalty {terms.penalty:.2e}  "
            f"{time.perf_counter() - start:.0f} s"
        )
    return params


def accuracies(net: nn.Module, params: Any, data: tuple[np.ndarray, np.ndarray], *, epsilon: float) -> dict[str, float]:
    """Measure the accuracy without an attack and under PGD-20."""
    inputs, labels = (jnp.asarray(part) for part in data)

    @jax.jit
    def attacked(params: Any) -> Any:
        logits_fn = partial(net.apply, {"params": params})
        points = pgd(logits_fn, inputs, labels=labels, epsilon=epsilon, key=jax.random.key(2))
        return [jnp.mean(jnp.argmax(logits_fn(each), axis=1) == labels) for each in (inputs, points)]

    clean, robust = attacked(params)
    return {"clean": float(clean), f"PGD-20 at {epsilon:g}": float(robust)}


def load_images(cifar10: str | None, *, num_train: int, num_test: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Load images of 32 x 32 x 3: CIFAR-10's, or digits with a black rim, three times the same plane."""
    data: Dataset = load_dataset("mnist_5k") if cifar10 is None else load_dataset("cifar10", data_dir=cifar10)
    splits = []
    for split, size in ((data.train, num_train), (data.test, num_test)):
        images = split.inputs[:size]
        if images.shape[1:] == (28, 28, 1):
            images = np.pad(images, ((0, 0), (2, 2), (2, 2), (0, 0))).repeat(3, axis=3)
        splits.append((images, split.labels[:size]))
    return splits


def main() -> None:
    """Train without and with the penalty, and attack both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cifar10", help="folder with the binary version of CIFAR-10; empty: the prepared one")
    parser.add_argument("--lam", type=float, default=10.0)
    parser.add_argument("--epsilon", type=float, default=8 / 255)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--num_train", type=int, default=4000)
    options = parser.parse_args()
    net = ResNet(convolve=patch_convolution if jax.default_backend() == "cpu" else jax.lax.conv_general_dilated)
    train_data, test_data = load_images(options.cifar10, num_train=options.num_train, num_test=500)
    for lam in (0.0, options.lam):
        params = train(net, train_data, lam=lam, num_epochs=options.epochs)
        found = accuracies(net, params, test_data, epsilon=options.epsilon)
        print(f"lambda {lam:g}: " + ", ".join(f"{name} {accuracy:.1%}" for name, accuracy in found.items()))


if __name__ == "__main__":
    main()
