"""The plane around a point: its middle, its axes and its corners are losses that can be computed alone."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from networks import NETS, as_tree

from jl1.attacks.fgsm import fgsm
from jl1.attacks.objectives import margin
from jl1.loss_surfaces import make_surface_step

pytestmark = pytest.mark.usefixtures("quick_compile", "x64")

EPSILON = 0.2


def surfaces(name="conv_relu", num_offsets=5):
    net = NETS[name]
    inputs, labels = jnp.asarray(net.inputs()), jnp.asarray(net.labels())
    step = make_surface_step(net.apply_fn, num_offsets=num_offsets)
    return net, inputs, labels, step(as_tree(net.params()), inputs, labels, EPSILON, jax.random.key(3))


def loss_at(net, points, labels):
    return optax.softmax_cross_entropy_with_integer_labels(net.logits_fn()(points), labels)


def test_the_middle_is_the_point_and_the_axis_ends_at_its_twin():
    net, inputs, labels, plane = surfaces()
    assert plane.losses.shape == plane.margins.shape == (3, 5, 5)
    np.testing.assert_allclose(plane.offsets, [-0.2, -0.1, 0, 0.1, 0.2], atol=1e-15)
    np.testing.assert_allclose(plane.losses[:, 2, 2], loss_at(net, inputs, labels))
    np.testing.assert_allclose(plane.margins[:, 2, 2], margin(net.logits_fn()(inputs), labels))
    twins = fgsm(net.logits_fn(), inputs, labels=labels, epsilon=EPSILON)
    np.testing.assert_allclose(plane.losses[:, 4, 2], loss_at(net, twins, labels))
    np.testing.assert_allclose(plane.margins[:, 4, 2], margin(net.logits_fn()(twins), labels))


def test_the_other_axis_is_of_random_signs_which_the_key_draws():
    net, inputs, labels, plane = surfaces()
    signs = jax.random.rademacher(jax.random.key(3), inputs.shape, inputs.dtype)
    for index, offset in enumerate(plane.offsets):
        points = jnp.clip(inputs + offset * signs, 0, 1)
        np.testing.assert_allclose(plane.losses[:, 2, index], loss_at(net, points, labels))
    other = make_surface_step(net.apply_fn, num_offsets=5)(
        as_tree(net.params()), inputs, labels, EPSILON, jax.random.key(4)
    )
    assert not np.allclose(plane.losses[:, 2], other.losses[:, 2])
    np.testing.assert_allclose(plane.losses[:, :, 2], other.losses[:, :, 2])


@pytest.mark.parametrize("num_offsets", [1, 4])
def test_a_grid_without_its_point_is_refused(num_offsets):
    with pytest.raises(ValueError, match="must be odd"):
        make_surface_step(NETS["dense_relu"].apply_fn, num_offsets=num_offsets)
