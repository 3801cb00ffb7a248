"""Both ends of a segment: a linear network by hand, the oracle's Jacobian, and the norms of whole segments."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks import NETS, as_tree

from jl1.attacks.fgsm import fgsm
from jl1.end_points import TRACED_OUTPUTS, end_point_norms, make_trace_step
from jl1.segments import segment_gradient_norms

pytestmark = pytest.mark.usefixtures("quick_compile")

EPSILON = 0.1


def traced(name):
    net = NETS[name]
    inputs, labels = jnp.asarray(net.inputs()), jnp.asarray(net.labels())
    params = as_tree(net.params())
    return net, inputs, labels, make_trace_step(net.apply_fn)(params, inputs, labels, EPSILON)


def test_a_linear_network_by_hand():
    weights = jnp.array([[1.0, -2.0], [3.0, 0.5], [0.0, 0.0]])
    inputs, twins = jnp.array([[0.0, 0.0], [0.5, 0.5]]), jnp.array([[1.0, 1.0], [0.5, 0.0]])
    there = end_point_norms(lambda x: x @ weights.T, inputs, twins=twins, labels=jnp.array([0, 1]))
    np.testing.assert_allclose(there.outputs, [[0, 0, 0], [-0.5, 1.75, 0]])
    np.testing.assert_allclose(there.twin_outputs, [[-1, 3.5, 0], [0.5, 1.5, 0]])
    np.testing.assert_allclose(there.change, [-1, -0.25])
    np.testing.assert_allclose(there.largest_change, [3.5, 1.0])
    for norm in (there.gradient_norm, there.twin_gradient_norm):
        np.testing.assert_allclose(norm, [3, 3.5])
    for norm in (there.jacobian_norm, there.twin_jacobian_norm):
        np.testing.assert_allclose(norm, [6.5, 6.5])


@pytest.mark.usefixtures("x64", "strict_dtypes")
@pytest.mark.parametrize("name", NETS)
def test_logits_and_probabilities_are_those_of_the_oracle_at_both_ends(name):
    net, inputs, labels, there = traced(name)
    twins = fgsm(net.logits_fn(), inputs, labels=labels, epsilon=EPSILON)
    assert set(there) == set(TRACED_OUTPUTS)
    values = {}
    for end, points in (("", inputs), ("twin_", twins)):
        logits, jacobian = net.reference(net.params(), np.asarray(points))
        probs = np.asarray(jax.nn.softmax(logits))
        mixed = np.einsum("bi,bi...->bi...", probs, jacobian - np.einsum("bk,bk...->b...", probs, jacobian)[:, None])
        for outputs, f, df in (("logits", logits, jacobian), ("probs", probs, mixed)):
            norms = np.abs(df).reshape(*f.shape, -1).sum(2)
            values[end, outputs] = f
            np.testing.assert_allclose(getattr(there[outputs], f"{end}outputs"), f, atol=1e-12)
            np.testing.assert_allclose(getattr(there[outputs], f"{end}jacobian_norm"), norms.sum(1), atol=1e-10)
            true_norms = norms[np.arange(len(labels)), labels]
            np.testing.assert_allclose(getattr(there[outputs], f"{end}gradient_norm"), true_norms, atol=1e-10)
    for outputs in TRACED_OUTPUTS:
        changes = values["twin_", outputs] - values["", outputs]
        np.testing.assert_allclose(there[outputs].change, changes[np.arange(len(labels)), labels], atol=1e-12)
        np.testing.assert_allclose(there[outputs].largest_change, np.abs(changes).max(1), atol=1e-12)


@pytest.mark.usefixtures("x64")
def test_the_ends_are_those_of_the_whole_segment():
    net, inputs, labels, there = traced("conv_relu")
    twins = fgsm(net.logits_fn(), inputs, labels=labels, epsilon=EPSILON)
    whole = segment_gradient_norms(net.module, as_tree(net.params()), starts=inputs, ends=twins)
    rows = np.arange(len(labels))
    np.testing.assert_allclose(there["logits"].gradient_norm, whole.at_start[rows, labels])
    np.testing.assert_allclose(there["logits"].twin_gradient_norm, whole.at_end[rows, labels])
    np.testing.assert_allclose(there["logits"].change, whole.change[rows, labels])


def test_one_compilation_serves_every_epoch():
    net = NETS["dense_relu"]
    step = make_trace_step(net.apply_fn)
    inputs, labels = jnp.asarray(net.inputs(), jnp.float32), jnp.asarray(net.labels())
    for seed in (0, 1, 2):
        params = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), as_tree(net.params(seed)))
        step(params, inputs, labels, EPSILON)
    assert step._cache_size() == 1
