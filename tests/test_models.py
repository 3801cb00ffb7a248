"""Table 1: counts, shapes, numbers equal to NumPy's, initialisation, and the gauge of the last layer."""

import json
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from networks import NETS, as_tree

from jl1.gauge import centre_output_layer
from jl1.models import ACTIVATIONS, INITIALISERS, MODELS, AveragePool, SequentialNet, create_model
from jl1.penalties import make_penalty

pytestmark = pytest.mark.usefixtures("quick_compile")

MNIST = (28, 28, 1)


def shapes_of(module, features):
    """Return the shapes of the parameters, without computing any."""
    init = partial(module.init, jax.random.key(0))
    return jax.eval_shape(init, jax.ShapeDtypeStruct((1, *features), jnp.float32))["params"]


def num_params(module, features=MNIST):
    return sum(leaf.size for leaf in jax.tree.leaves(shapes_of(module, features)))


@pytest.mark.parametrize(
    ("name", "padding", "expected"),
    [
        ("A", None, 710_218),
        ("A", ("SAME", "VALID", "VALID"), 710_218),
        ("B", None, 1_460_938),
        ("B", ("SAME", "VALID"), 1_460_938),
        ("B", ("VALID", "SAME"), 1_460_938),
        ("C", None, 567_434),
    ],
)
def test_parameters_are_those_of_table_1(name, padding, expected):
    assert num_params(create_model(name, padding=padding)) == expected


@pytest.mark.parametrize("padding", [("SAME", "SAME"), ("VALID", "VALID")])
def test_no_other_padding_of_b_fits_table_1(padding):
    assert num_params(create_model("B", padding=padding)) != 1_460_938


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(("features", "num_classes"), [(MNIST, 10), ((32, 32, 3), 100), ((40, 36, 2), 2)])
def test_any_image_and_number_of_classes_will_do(name, features, num_classes):
    module = create_model(name, num_classes=num_classes)
    params = shapes_of(module, features)
    assert params["output"]["kernel"].shape[1] == num_classes
    inputs = jax.ShapeDtypeStruct((3, *features), jnp.float32)
    logits = jax.eval_shape(lambda params, inputs: module.apply({"params": params}, inputs), params, inputs)
    assert logits.shape == (3, num_classes)


def test_c_takes_inputs_that_are_no_images():
    assert num_params(create_model("C", num_classes=3), (5,)) == 5 * 512 + 512 + 131_328 + 32_896 + 128 * 3 + 3


@pytest.mark.parametrize("name", NETS)
def test_logits_are_those_of_numpy(name, x64):
    net = NETS[name]
    expected = reference.network(net.layers, net.params(), net.inputs(), net.activation)
    np.testing.assert_allclose(jax.jit(net.logits_fn())(net.inputs()), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "at_minus_one", "at_one"),
    [
        ("relu", 0.0, 1.0),
        ("leaky_relu", -0.01, 1.0),
        ("gelu", -0.158808, 0.841192),  # the tanh form
        ("silu", -0.268941, 0.731059),
        ("softplus", 0.313262, 1.313262),
        ("tanh", -0.761594, 0.761594),
    ],
)
def test_activations_by_their_names(name, at_minus_one, at_one):
    assert create_model("C", activation=name).activation is ACTIVATIONS[name]
    np.testing.assert_allclose(ACTIVATIONS[name](jnp.array([-1.0, 1.0])), [at_minus_one, at_one], rtol=1e-5)


def test_there_is_no_activation_without_a_test():
    tested = test_activations_by_their_names.pytestmark[0].args[1]
    assert {name for name, *_ in tested} == set(ACTIVATIONS)


def test_an_activation_follows_every_layer_but_the_last():
    calls = []

    def activation(values):
        calls.append(values.shape)
        return values

    module = create_model("A").clone(activation=activation)
    jax.eval_shape(partial(module.init, jax.random.key(0)), jnp.zeros((1, *MNIST)))
    assert calls == [(1, 14, 14, 64), (1, 5, 5, 128), (1, 1, 1, 128)]


@pytest.fixture(scope="module", params=INITIALISERS)
def initialised(request):
    return request.param, jax.jit(create_model("C", init=request.param).init)(jax.random.key(0), jnp.zeros((1, *MNIST)))


def test_kernels_start_as_their_initialiser_says_and_biases_at_zero(initialised):
    name, variables = initialised
    for layer in variables["params"].values():
        fan_in, fan_out = layer["kernel"].shape
        variance = {"glorot_uniform": 2 / (fan_in + fan_out), "fan_in_normal": 1 / fan_in}[name]
        # a sample variance of n values strays by sqrt(2/n) for a normal, less for a uniform
        np.testing.assert_allclose(np.var(layer["kernel"]), variance, rtol=5 * np.sqrt(2 / (fan_in * fan_out)))
        if name == "glorot_uniform":
            border = np.sqrt(6 / (fan_in + fan_out))
            assert 0.98 * border < np.abs(layer["kernel"]).max() <= border * (1 + 1e-6)
        assert not layer["bias"].any()


def test_the_same_seed_gives_the_same_weights_as_ever(initialised):
    name, variables = initialised
    golden = json.loads((Path(__file__).parent / "golden" / "model_c_init.json").read_text())["kernels"][name]
    for layer, first in golden.items():
        np.testing.assert_allclose(variables["params"][layer]["kernel"][0, :3], first, rtol=1e-5)


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"name": "D"}, "unknown model 'D'; known are A, B, C"),
        ({"name": "C", "activation": "swish"}, "unknown activation 'swish'; known are relu, leaky_relu, gelu, silu"),
        ({"name": "C", "init": "he"}, "unknown init 'he'; known are glorot_uniform, fan_in_normal"),
        (
            {"name": "A", "padding": ("SAME", "VALID")},
            r"\('SAME', 'VALID'\) for model A: needs 3 of SAME or VALID",
        ),
        ({"name": "C", "padding": ("SAME",)}, "model C has no convolution; leave the padding at its default"),
    ],
)
def test_an_unknown_choice_is_refused_with_the_known_ones(choice, message):
    with pytest.raises(ValueError, match=message):
        create_model(**choice)


NET = NETS["dense_relu"]
CENTRED = centre_output_layer(as_tree(NET.params()))


def both(function):
    """Return a function of logits_fn before and after centring, at the same points."""
    inputs = jnp.float32(NET.inputs(8))
    evaluate = jax.jit(lambda params: function(partial(NET.apply_fn, params), inputs))
    return np.asarray(evaluate(as_tree(NET.params()))), np.asarray(evaluate(CENTRED))


def test_centring_changes_no_probability_and_no_decision():
    before, after = both(lambda logits_fn, inputs: logits_fn(inputs))
    np.testing.assert_allclose(reference.softmax(after), reference.softmax(before), rtol=1e-5)
    np.testing.assert_array_equal(after.argmax(axis=1), before.argmax(axis=1))
    np.testing.assert_allclose(after.sum(axis=1), 0, atol=1e-6)
    assert (np.abs(before.sum(axis=1)) > 0.1).all()


def penalty(name, outputs):
    return both(
        lambda logits_fn, inputs: make_penalty(name, outputs=outputs)(logits_fn, inputs, labels=jnp.zeros(8, int))
    )


@pytest.mark.parametrize("outputs", ["probs", "log_probs", "centred_logits"])
def test_centring_leaves_the_exact_penalty_on_what_decides(outputs):
    before, after = penalty("jacobian_l1", outputs)
    np.testing.assert_allclose(after, before, rtol=1e-4)


def test_centring_changes_the_exact_penalty_on_logits():
    before, after = penalty("jacobian_l1", "logits")
    assert (np.abs(after - before) > 0.01 * before).all()


def test_centring_makes_the_surrogate_on_logits_vanish():
    before, after = penalty("class_sum_l1", "logits")
    assert (before > 0.1).all()
    assert (after < 1e-5).all()


def test_centring_returns_a_new_tree_and_touches_only_the_last_layer():
    tree = as_tree(NET.params())
    centred = centre_output_layer(tree)
    np.testing.assert_array_equal(tree["output"]["kernel"], as_tree(NET.params())["output"]["kernel"])
    assert list(centred) == list(tree)
    assert centred["layer_0"] is tree["layer_0"]


def test_centring_takes_another_layer_by_its_name():
    tree = {"head": {"kernel": jnp.array([[1.0, 3.0]]), "bias": jnp.array([0.0, 4.0])}}
    centred = centre_output_layer(tree, layer="head")["head"]
    assert centred["kernel"].tolist() == [[-1.0, 1.0]]
    assert centred["bias"].tolist() == [-2.0, 2.0]


def test_centring_takes_a_layer_without_a_bias():
    assert centre_output_layer({"output": {"kernel": jnp.array([[1.0, 3.0]])}})["output"]["kernel"].tolist() == [
        [-1.0, 1.0]
    ]


@pytest.mark.parametrize("convolution", ["patches", "library"])
def test_an_image_that_is_too_small_is_refused_with_the_layer_that_it_does_not_fit(convolution):
    module = create_model("A", convolution=convolution)
    with pytest.raises(ValueError, match="layer_1, 6 x 6 without padding, does not fit what enters it, 4 x 5"):
        jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 8, 10, 1)))


@pytest.mark.parametrize(("size", "stride"), [(4, 1), (5, 2)])
def test_so_is_one_that_a_pool_does_not_fit(size, stride):
    module = SequentialNet((AveragePool(2, 1), AveragePool(5, stride)))
    with pytest.raises(ValueError, match=f"layer_1, 5 x 5 without padding, does not fit what enters it, {size - 1} x"):
        jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, size, 6, 1)))


def test_an_unknown_form_of_convolution_is_refused_by_the_network_too():
    module = create_model("B").clone(convolution="patch")
    with pytest.raises(ValueError, match="unknown convolution 'patch'; known are library, patches"):
        jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 28, 28, 1)))


def test_centring_a_layer_that_is_not_there_says_which_are():
    with pytest.raises(ValueError, match="no layer 'head' in the parameters; there are layer_0, layer_1, output"):
        centre_output_layer(as_tree(NET.params()), layer="head")


def test_a_classifier_has_two_classes_at_least():
    with pytest.raises(ValueError, match="num_classes=1: must be at least 2"):
        create_model("C", num_classes=1)
