"""The exact Jacobian: closed forms, four independent implementations, the batched form equal to the definition."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from jax.test_util import check_grads
from networks import NETS, as_tree

from jl1.jacobian import (
    entrywise_l1,
    input_gradient,
    input_jacobian,
    l1_jacobian_norm,
    squared_l2,
    sum_over_jacobian_rows,
)

pytestmark = pytest.mark.usefixtures("strict_dtypes", "quick_compile")


ROW_FNS = (entrywise_l1, squared_l2)


def one_example(batched_fn):
    return lambda example: batched_fn(example[None])[0]


@pytest.mark.parametrize("features", [(), (4,), (2, 3), (3, 2, 1)])
@pytest.mark.parametrize("num_outputs", [1, 3])
def test_of_a_linear_model_it_is_the_weights(features, num_outputs):
    weights = jnp.asarray(np.random.default_rng(0).normal(size=(num_outputs, *features)), jnp.float32)
    inputs = jnp.ones((2, *features))

    def outputs_fn(example):
        return jnp.tensordot(weights, example, axes=len(features))

    expected = np.stack([weights, weights])
    np.testing.assert_array_equal(input_jacobian(outputs_fn, inputs), expected)
    np.testing.assert_allclose(l1_jacobian_norm(outputs_fn, inputs), np.abs(expected).reshape(2, -1).sum(1), rtol=1e-6)


def test_the_gradient_of_a_linear_models_norm_is_the_sign_of_its_weights():
    weights = jnp.array([[1.5, -2.0, 0.0], [-0.25, 0.0, 3.0]])  # at exactly 0 the subgradient is 0

    def norm(weights):
        return l1_jacobian_norm(lambda example: weights @ example, jnp.full((1, 3), 0.5))[0]

    np.testing.assert_array_equal(jax.grad(norm)(weights), [[1, -1, 0], [-1, 0, 1]])


def test_a_two_layer_relu_network_worked_out_by_hand():
    # hidden z = (x1 - x2, 2 x1 + x2, x2 - x1) at x = (1, 2): (-1, 4, 1), so the first unit is off.
    # f1 = 3 h1 + h2 - 2 h3: row (2, 1) - 2 (-1, 1) = (4, -1); f2 = -h2 + h3 / 2: (-2, -1) + (-1, 1) / 2
    first, second = jnp.array([[1.0, -1.0], [2.0, 1.0], [-1.0, 1.0]]), jnp.array([[3.0, 1.0, -2.0], [0.0, -1.0, 0.5]])
    inputs = jnp.array([[1.0, 2.0]])

    def outputs_fn(example):
        return second @ jax.nn.relu(first @ example)

    assert input_jacobian(outputs_fn, inputs).tolist() == [[[4.0, -1.0], [-2.5, -0.5]]]
    assert l1_jacobian_norm(outputs_fn, inputs).tolist() == [8.0]


@pytest.mark.parametrize("values", [[0.0, 0.0], [-0.0, 2.0], [1.0, -3.0]])
def test_the_subgradient_of_the_l1_norm_is_the_sign_and_0_at_0(values):
    values = jnp.array([values])
    np.testing.assert_array_equal(jax.grad(lambda v: entrywise_l1(v)[0])(values), np.sign(values))


def test_dead_units_give_parameters_a_zero_gradient():
    # all-zero inputs and biases, as in the blank border of a digit: every pre-activation is exactly 0
    inputs, second = jnp.zeros((1, 2)), jnp.ones((2, 3))

    def norm(first):
        return sum_over_jacobian_rows(entrywise_l1, lambda x: jax.nn.relu(x @ first) @ second, inputs=inputs)[0]

    value, gradient = jax.value_and_grad(norm)(jnp.ones((2, 2)))
    assert value == 0
    assert not gradient.any()


def test_norms_sum_over_all_axes_but_the_first():
    values = jnp.arange(-6.0, 6.0).reshape(2, 3, 1, 2)
    assert entrywise_l1(values).tolist() == [21.0, 15.0]
    assert squared_l2(values).tolist() == [91.0, 55.0]
    assert entrywise_l1(jnp.array([-2.0, 3.0])).tolist() == [2.0, 3.0]


@pytest.mark.parametrize("name", NETS)
def test_five_implementations_agree_in_float64(name, x64):
    net = NETS[name]
    inputs, logits_fn = net.inputs(), net.logits_fn()
    outputs_fn = one_example(logits_fn)
    jacobian = jax.jit(partial(input_jacobian, outputs_fn))(jnp.asarray(inputs))
    by_hand = net.reference(net.params(), inputs)[1].reshape(jacobian.shape)
    np.testing.assert_allclose(jacobian, by_hand, rtol=1e-10, atol=1e-13)
    by_differences = [
        reference.differences(
            lambda x: reference.network(net.layers, net.params(), x[None], net.activation)[0], example
        )
        for example in inputs
    ]
    np.testing.assert_allclose(jacobian, by_differences, rtol=1e-6, atol=1e-8)
    forward = jax.jit(jax.vmap(jax.jacfwd(outputs_fn)))(inputs)
    np.testing.assert_allclose(jacobian, forward, rtol=1e-10, atol=1e-13)
    row = jax.jit(jax.grad(lambda x, index: outputs_fn(x)[index]))
    loop = [[row(example, index) for index in range(net.num_classes)] for example in inputs]
    np.testing.assert_allclose(jacobian, loop, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize(
    ("outputs_per_pass", "examples_per_pass"), [(1, None), (2, 4), (3, None), (8, 9), (1, 1), (2, 3), (8, 2)]
)
def test_the_batched_form_is_the_definition_for_every_chunk(outputs_per_pass, examples_per_pass, x64):
    rng = np.random.default_rng(3)
    inputs = jnp.asarray(rng.normal(size=(4, 2, 3)))
    params = jnp.asarray(rng.normal(size=(6, 5)))  # five outputs: chunks of 2 and 3 leave a rest

    def outputs_fn(params, example):
        return jnp.tanh(example.reshape(-1) @ params)

    def defined(params):
        jacobian = input_jacobian(partial(outputs_fn, params), inputs)
        return jnp.stack([jnp.sum(jax.vmap(row_fn, in_axes=1)(jacobian), axis=0) for row_fn in ROW_FNS])

    def batched(params):
        chunks = {"outputs_per_pass": outputs_per_pass, "examples_per_pass": examples_per_pass}
        rows_of = partial(sum_over_jacobian_rows, inputs=inputs, **chunks)
        return jnp.stack([rows_of(row_fn, jax.vmap(partial(outputs_fn, params))) for row_fn in ROW_FNS])

    @jax.jit
    def values_and_slopes(params):
        return [(norms(params), jax.jacrev(norms)(params)) for norms in (batched, defined)]

    (values, slopes), (true_values, true_slopes) = values_and_slopes(params)
    np.testing.assert_allclose(values, true_values, rtol=1e-12)
    np.testing.assert_allclose(slopes, true_slopes, rtol=1e-10, atol=1e-13)


def test_one_output_is_enough():
    norms = sum_over_jacobian_rows(
        entrywise_l1, lambda x: 2 * x.sum(1, keepdims=True), inputs=jnp.ones((2, 3)), outputs_per_pass=4
    )
    assert norms.tolist() == [6.0, 6.0]


def test_the_input_gradient_is_that_of_each_example():
    weights = jnp.array([1.0, -2.0])
    gradient = input_gradient(lambda x: (x @ weights) ** 2, jnp.array([[1.0, 0.0], [0.0, 1.0]]))
    assert gradient.tolist() == [[2.0, -4.0], [-4.0, 8.0]]  # 2 (w.x) w at w.x = 1 and -2


def test_derivatives_of_the_norm_on_a_smooth_network(x64):
    net = NETS["dense_tanh"]
    inputs = jnp.asarray(net.inputs())

    @jax.jit
    def norms(params):
        return l1_jacobian_norm(one_example(partial(net.apply_fn, params)), inputs)

    check_grads(norms, (as_tree(net.params()),), order=1, modes=["rev"], atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("shape", [(), (2, 2)])
def test_outputs_that_are_no_vector_are_refused(shape):
    with pytest.raises(AssertionError, match="rank"):
        input_jacobian(lambda example: jnp.zeros(shape) + example.sum(), jnp.ones((2, 3)))
    with pytest.raises(AssertionError, match="rank"):
        sum_over_jacobian_rows(entrywise_l1, lambda x: jnp.zeros((2, *shape)) + x.sum(), inputs=jnp.ones((2, 3)))


@pytest.mark.parametrize("name", ["outputs_per_pass", "examples_per_pass"])
def test_nothing_a_pass_is_refused(name):
    with pytest.raises(ValueError, match=f"{name}=0.*: must be at least 1"):
        sum_over_jacobian_rows(entrywise_l1, lambda x: x, inputs=jnp.zeros((2, 3)), **{name: 0})
