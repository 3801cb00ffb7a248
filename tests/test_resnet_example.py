"""examples/resnet_groupnorm.py: the penalty of a residual network is the textbook's, and its loop trains."""

import importlib.util
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jl1 import make_loss, patch_convolution

pytestmark = pytest.mark.usefixtures("quick_compile")

NUM_CLASSES = 3


@pytest.fixture(scope="module")
def example():
    path = Path(__file__).parents[1] / "examples" / "resnet_groupnorm.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("convolve", "penalty", "num_draws"),
    [(jax.lax.conv_general_dilated, "jacobian_l1", 1), (patch_convolution, "jacobian_l1_sampled_classes", NUM_CLASSES)],
)
def test_the_gradient_is_that_of_a_textbook_loss(convolve, penalty, num_draws, example, x64):
    net = example.ResNet(NUM_CLASSES, widths=(8, 16), convolve=convolve)
    inputs, labels = jax.random.uniform(jax.random.key(0), (3, 8, 8, 3), float), jnp.array([0, 2, 1])
    params = jax.tree.map(jnp.float64, net.init(jax.random.key(1), inputs)["params"])

    def apply_fn(params, inputs):
        return net.apply({"params": params}, inputs)

    def textbook(params):
        logits = apply_fn(params, inputs)
        jacobian = jax.vmap(jax.jacrev(lambda image: apply_fn(params, image[None])[0]))(inputs)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return jnp.mean(losses + 0.1 * jnp.sum(jnp.abs(jacobian), axis=(1, 2, 3, 4)))

    loss = make_loss(apply_fn, penalty=penalty, num_draws=num_draws)
    given = {"lam": 0.1, "key": jax.random.key(2)}
    (value, _), gradient = jax.jit(jax.value_and_grad(partial(loss, **given), has_aux=True))(params, inputs, labels)
    true_value, true_gradient = jax.jit(jax.value_and_grad(textbook))(params)
    np.testing.assert_allclose(value, true_value, rtol=1e-10)
    for one, other in zip(*map(jax.tree.leaves, (gradient, true_gradient)), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-8, atol=1e-10 * np.abs(other).max() + 1e-12)


def test_its_loop_trains_on_digits_of_cifars_shape(example, capsys):
    train_data, test_data = example.load_images(None, num_train=64, num_test=20)
    assert (train_data[0].shape, test_data[0].shape) == ((64, 32, 32, 3), (20, 32, 32, 3))
    net = example.ResNet(widths=(8,))
    params = example.train(net, train_data, lam=10.0, num_epochs=2, batch_size=16)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines] == ["1/2", "2/2"]
    assert all(float(line.split()[5]) > 0 for line in lines)  # the penalty
    found = example.accuracies(net, params, test_data, epsilon=0.01)
    assert 0 <= found["PGD-20 at 0.01"] <= found["clean"] <= 1
