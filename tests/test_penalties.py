"""Every penalty: numbers by hand, a float64 oracle of values and parameter gradients, invariances, names, keys."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from jax.test_util import check_grads
from networks import NETS, as_tree

from jl1.array_types import PenaltyFn
from jl1.jacobian import l1_jacobian_norm
from jl1.losses import cross_entropy
from jl1.norms import class_sum_l1, jacobian_frobenius, jacobian_l1, loss_gradient_l1, loss_gradient_l2
from jl1.penalties import (
    ESTIMATORS,
    JACOBIAN_PENALTIES,
    LOSS_GRADIENT_PENALTIES,
    OUTPUTS,
    PENALTIES,
    SCALES,
    make_change_penalty,
    make_penalty,
)

pytestmark = pytest.mark.usefixtures("strict_dtypes", "quick_compile")

QUICK_TO_COMPILE = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
COMBINATIONS = [(name, outputs) for name in JACOBIAN_PENALTIES for outputs in OUTPUTS]
COMBINATIONS += [(name, "logits") for name in LOSS_GRADIENT_PENALTIES]
EXACT = (*JACOBIAN_PENALTIES, *LOSS_GRADIENT_PENALTIES)


def test_the_names_are_those_of_the_configs():
    assert set(PENALTIES) == {
        *("none", "jacobian_l1", "class_sum_l1", "loss_gradient_l2", "loss_gradient_l1", "jacobian_frobenius"),
        *("jacobian_l1_sampled_classes", "jacobian_l1_finite_difference", "jacobian_l1_random_sign"),
        *("jacobian_l21_projected", "jacobian_frobenius_projected", "output_change"),
    }
    assert set(OUTPUTS) == {"logits", "centred_logits", "probs", "log_probs"}


@pytest.mark.parametrize(
    ("penalty_fn", "expected"),
    [(jacobian_l1, 8.0), (class_sum_l1, 3.0), (jacobian_frobenius, 23.5)],
)
def test_a_two_layer_relu_network_worked_out_by_hand(penalty_fn, expected):
    # the network of test_jacobian.py, whose Jacobian at (1, 2) is ((4, -1), (-2.5, -0.5)):
    # 4 + 1 + 2.5 + 0.5; |4 - 2.5| + |-1 - 0.5|; 16 + 1 + 6.25 + 0.25
    first, second = jnp.array([[1.0, 2.0, -1.0], [-1.0, 1.0, 1.0]]), jnp.array([[3.0, 0.0], [1.0, -1.0], [-2.0, 0.5]])
    assert penalty_fn(lambda x: jax.nn.relu(x @ first) @ second, jnp.array([[1.0, 2.0]])).tolist() == [expected]


@pytest.mark.parametrize(
    ("penalty_fn", "expected"), [(loss_gradient_l2, [52.0, 13.0]), (loss_gradient_l1, [10.0, 5.0])]
)
def test_loss_gradients_worked_out_by_hand(penalty_fn, expected):
    # L(x) = (2 x1 - 3 x2)^2 / 2 has the gradient (2 x1 - 3 x2) (2, -3): a factor of 2 at (1, 0), of -1 at (1, 1)
    values = penalty_fn(lambda x: (2 * x[:, 0] - 3 * x[:, 1]) ** 2 / 2, jnp.array([[1.0, 0.0], [1.0, 1.0]]))
    assert values.tolist() == expected


SLOW_NETS = ("dense_relu", "conv_softplus")


@pytest.fixture(
    scope="module", params=[pytest.param(n, marks=pytest.mark.slow if n in SLOW_NETS else ()) for n in NETS]
)
def both_ways(request):
    """Return every penalty's values and parameter gradients, by jl1 and by the oracle, in float64."""
    net = NETS[request.param]
    inputs, labels, params = net.inputs(), net.labels(), net.params()
    weights = np.array([1.0, -0.5, 2.0])  # an uneven sum: a gradient that mixes examples cannot pass
    with jax.enable_x64(True):
        found = _by_jl1(net, as_tree(params), jnp.asarray(inputs), jnp.asarray(labels), jnp.asarray(weights))
    values = [np.asarray(value) for value, _ in found]
    slopes = [
        [np.concatenate([slope[layer][part].ravel() for part in ("kernel", "bias")]) for layer in sorted(slope)]
        for _, slope in found
    ]
    return values, slopes, *_by_oracle(net, params, inputs, labels, weights)


@partial(jax.jit, static_argnums=0, compiler_options=QUICK_TO_COMPILE)
def _by_jl1(net, tree, inputs, labels, weights):
    def weighted(tree, name, outputs):
        penalty_fn = make_penalty(name, outputs=outputs, outputs_per_pass=2)
        values = penalty_fn(partial(net.apply_fn, tree), inputs, labels=labels)
        return values @ weights, values

    slopes_and_values = [jax.grad(weighted, has_aux=True)(tree, *names) for names in COMBINATIONS]
    return [(values, slope) for slope, values in slopes_and_values]


def _by_oracle(net, params, inputs, labels, weights):
    def values(params):
        logits, jacobian = net.reference(params, inputs)
        return np.stack([reference.penalty(*names, logits, jacobian, labels) for names in COMBINATIONS])

    def slopes_of(index):
        def weighted(kernel_and_bias):
            kernel = params[index][0]
            moved = kernel_and_bias[: kernel.size].reshape(kernel.shape), kernel_and_bias[kernel.size :]
            return values([*params[:index], moved, *params[index + 1 :]]) @ weights

        return reference.differences(weighted, np.concatenate([part.ravel() for part in params[index]]))

    return values(params), [slopes_of(index) for index in range(len(params))]


@pytest.mark.parametrize(("name", "outputs"), COMBINATIONS)
def test_values_and_parameter_gradients_are_the_oracles_to_1e_6(both_ways, name, outputs):
    values, slopes, true_values, true_slopes = both_ways
    index = COMBINATIONS.index((name, outputs))
    scale = np.abs(true_values).max()
    np.testing.assert_allclose(values[index], true_values[index], rtol=1e-10, atol=1e-13 * scale)
    for slope, true_slope in zip(slopes[index], true_slopes, strict=True):
        scale = np.abs(true_slope).max()  # of all penalties: those that vanish have no scale of their own
        error = np.abs(slope - true_slope[index])
        assert error.max() <= 1e-6 * np.abs(true_slope[index]).max() + 1e-9 * scale


def test_the_vacuous_surrogates_vanish(both_ways):
    values = both_ways[0]
    for outputs, vacuous in [("probs", True), ("centred_logits", True), ("logits", False), ("log_probs", False)]:
        surrogate, exact = (values[COMBINATIONS.index((name, outputs))] for name in ("class_sum_l1", "jacobian_l1"))
        assert (surrogate < 1e-12 * exact).all() == vacuous
        assert (surrogate <= exact * (1 + 1e-12)).all()


@pytest.mark.parametrize(
    ("name", "entries"), [(name, 12) for name in JACOBIAN_PENALTIES] + [(name, 4) for name in LOSS_GRADIENT_PENALTIES]
)
def test_the_mean_divides_by_the_entries(name, entries):
    weights, inputs, labels = jnp.ones((4, 3)).at[0, 1].set(3.0), jnp.ones((2, 4)), jnp.array([0, 2])
    total, mean = (make_penalty(name, scale=scale)(lambda x: x @ weights, inputs, labels=labels) for scale in SCALES)
    np.testing.assert_allclose(total, entries * mean, rtol=1e-6)  # 3 x 4 in a Jacobian, 4 in a loss's gradient


def test_the_default_is_equation_3_by_its_definition():
    net = NETS["dense_relu"]
    inputs, logits_fn = jnp.float32(net.inputs()), net.logits_fn()

    @jax.jit
    def both(inputs):
        defined = l1_jacobian_norm(lambda example: logits_fn(example[None])[0], inputs)
        return make_penalty("jacobian_l1")(logits_fn, inputs, labels=jnp.zeros(3, int)), defined

    np.testing.assert_allclose(*both(inputs), rtol=1e-5)


def test_a_loss_penalty_takes_the_loss_it_is_given(x64):
    net = NETS["dense_relu"]
    inputs, labels = net.inputs(), net.labels()
    logits, jacobian = net.reference(net.params(), inputs)
    targets = 0.9 * np.eye(3)[labels] + 0.1 / 3
    gradient = ((reference.softmax(logits) - targets)[:, :, None] * jacobian).sum(axis=1)
    penalty_fn = make_penalty("loss_gradient_l1", loss_fn=partial(cross_entropy, smoothing=0.1))
    values = jax.jit(partial(penalty_fn, net.logits_fn()))(jnp.asarray(inputs), labels=jnp.asarray(labels))
    np.testing.assert_allclose(values, np.abs(gradient).sum(axis=1), rtol=1e-10)


@pytest.mark.parametrize("name", EXACT)
def test_examples_do_not_interact(name):
    net = NETS["dense_relu"]
    inputs, labels, logits_fn = jnp.float32(net.inputs(4)), jnp.int32(net.labels(4)), net.logits_fn()
    penalty_fn = make_penalty(name, outputs="log_probs")
    assert isinstance(penalty_fn, PenaltyFn)

    @jax.jit
    def penalty(inputs, labels):
        return penalty_fn(logits_fn, inputs, labels=labels)

    whole, order = penalty(inputs, labels), np.array([2, 0, 3, 1])
    np.testing.assert_allclose(penalty(inputs[order], labels[order]), whole[order], rtol=1e-5)
    np.testing.assert_allclose(penalty(inputs[1:2], labels[1:2]), whole[1:2], rtol=1e-5)


@pytest.mark.parametrize("name", EXACT)
def test_derivatives_on_a_smooth_network(name, x64):
    inputs, labels = jnp.array([[0.2, 0.9], [0.5, 0.1]]), jnp.array([0, 1])
    penalty_fn = make_penalty(name, outputs="log_probs")
    rng = np.random.default_rng(5)
    params = [jnp.asarray(rng.normal(size=shape)) for shape in ((2, 3), (3, 2))]

    @jax.jit
    def penalty(params):
        return penalty_fn(lambda x: jnp.tanh(x @ params[0]) @ params[1], inputs, labels=labels)

    check_grads(penalty, (params,), order=1, modes=["rev"], atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("penalty_fn", [jacobian_frobenius, loss_gradient_l2])
def test_second_derivatives_where_there_are_any(penalty_fn, x64):
    def penalty(weights):
        outputs_fn = {jacobian_frobenius: jnp.tanh, loss_gradient_l2: lambda z: jnp.tanh(z[:, 0])}[penalty_fn]
        return penalty_fn(lambda x: outputs_fn(x @ weights), jnp.array([[0.2, 0.9]]))

    check_grads(jax.jit(penalty), (jnp.array([[0.3, -0.8], [0.5, 0.4]]),), order=2, modes=["rev"], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("choice", "named"),
    [
        ({"name": "jacobian_l2"}, "'jacobian_l2'"),
        ({"name": "none"}, "'none'"),
        ({"name": "output_change"}, "'output_change'"),
        ({"name": "jacobian_l1", "outputs": "margins"}, "'margins'"),
        ({"name": "jacobian_l1", "scale": "median"}, "'median'"),
    ],
)
def test_an_unknown_name_is_refused_with_the_known_ones(choice, named):
    with pytest.raises(ValueError, match=named) as refusal:
        make_penalty(**choice)
    for known in (*EXACT, *ESTIMATORS, *OUTPUTS, "sum", "mean"):
        assert known in str(refusal.value)


@pytest.mark.parametrize("name", ESTIMATORS)
@pytest.mark.parametrize(("outputs", "scale", "entries"), [("probs", "sum", 1), ("log_probs", "mean", 12)])
def test_an_estimator_by_name_is_the_function_on_the_outputs(name, outputs, scale, entries):
    net, key = NETS["dense_relu"], jax.random.key(3)
    inputs, labels, logits_fn = jnp.float32(net.inputs(4)), jnp.int32(net.labels(4)), net.logits_fn()

    @jax.jit
    def both(inputs):
        named = make_penalty(name, outputs=outputs, scale=scale, num_draws=2)(logits_fn, inputs, labels=labels, key=key)
        return named, ESTIMATORS[name](lambda x: OUTPUTS[outputs](logits_fn(x)), inputs, key=key, num_draws=2)

    named, called = both(inputs)
    np.testing.assert_allclose(named, called / entries, rtol=1e-5)
    assert (named > 0).all()


@pytest.mark.parametrize("name", ESTIMATORS)
def test_an_estimator_without_a_key_says_what_it_needs(name):
    with pytest.raises(ValueError, match=f"{name} draws at random: give it a key"):
        make_penalty(name)(lambda x: x, jnp.ones((2, 3)), labels=jnp.array([0, 1]))


@pytest.mark.parametrize("name", EXACT)
def test_what_draws_nothing_ignores_the_key(name):
    net = NETS["dense_relu"]
    inputs, labels, penalty_fn = jnp.float32(net.inputs()), jnp.int32(net.labels()), make_penalty(name)
    with_key = jax.jit(lambda key: penalty_fn(net.logits_fn(), inputs, labels=labels, key=key))
    np.testing.assert_array_equal(with_key(jax.random.key(0)), with_key(jax.random.key(1)))


@pytest.mark.parametrize(("scale", "value"), [("sum", 4.0), ("mean", 4 / 6)])
def test_the_change_of_the_outputs_that_are_chosen(scale, value):
    # two outputs, three inputs; the centred logits go from (0, 0) to (-1, 1) within a radius of 1/2
    options = {"inputs": jnp.zeros((1, 3)), "epsilon": 0.5}
    logits = jnp.array([[1.0, 1.0]]), jnp.array([[0.0, 2.0]])
    for moved in (logits, (logits[0], logits[1] + 5)):
        values = make_change_penalty(outputs="centred_logits", scale=scale)(*moved, **options)
        np.testing.assert_allclose(values, [value], rtol=1e-6)


@pytest.mark.parametrize("choice", [{"outputs": "margins"}, {"scale": "median"}])
def test_an_unknown_change_is_refused(choice):
    with pytest.raises(ValueError, match=r"margins|median"):
        make_change_penalty(**choice)
