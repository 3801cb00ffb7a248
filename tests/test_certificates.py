"""Bounds that hold: closed forms, a second implementation, and attacks that never get below them."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from networks import NETS, as_tree

from jl1.attacks.ensemble import standard_attack
from jl1.attacks.fgsm import fgsm
from jl1.attacks.objectives import margin
from jl1.attacks.pgd import pgd
from jl1.certificates import certified_accuracy, certified_margins, gradient_norm_bounds, make_certificate_step
from jl1.data import load_dataset
from jl1.jacobian import entrywise_l1, input_jacobian
from jl1.models import ACTIVATIONS, AveragePool, Conv, Dense, SequentialNet, create_model, make_apply_fn
from jl1.segments import segment_gradient_norms

pytestmark = pytest.mark.usefixtures("quick_compile")

POOLS = SequentialNet((AveragePool(2, 1), Conv(3, 2, 1, "SAME"), AveragePool(2, 2), Dense(5)), num_classes=3)
MODULES = {
    **{name: SequentialNet((Conv(3, 3, 2, "SAME"), Dense(6)), 3, ACTIVATIONS[name]) for name in ("relu", "tanh")},
    "leaky_relu": SequentialNet((Dense(9), Dense(8)), 3, ACTIVATIONS["leaky_relu"]),
    "softplus": SequentialNet((Dense(9), Dense(8)), 3, ACTIVATIONS["softplus"]),
    "pools": POOLS,
    "library": POOLS.clone(convolution="library"),
    "linear": SequentialNet((), 3),
}
RADII = (0.0, 0.01, 0.1, 0.5)


def problem(module, num_examples=6, lowest=0.0):
    """A random network, points in [0, 1] and labels."""
    rng = np.random.default_rng(0)
    inputs = rng.uniform(lowest, 1 - lowest, size=(num_examples, 5, 6, 1))
    shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.asarray(inputs))["params"]
    params = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(0, 0.5, leaf.shape)), shapes)
    return params, jnp.asarray(inputs), jnp.asarray(rng.integers(0, 3, num_examples))


def bounds_of(module, params, inputs, labels, epsilon):
    points = {"inputs": inputs, "labels": labels, "epsilon": epsilon}
    return jax.jit(partial(certified_margins, module))(params, **points)


def norms_of(module, params, inputs, labels, epsilon):
    points = {"inputs": inputs, "labels": labels, "epsilon": epsilon}
    return jax.jit(partial(gradient_norm_bounds, module))(params, **points)


def margins_at(module, params, points, labels):
    logits = make_apply_fn(module)(params, points)
    return jnp.take_along_axis(logits, labels[:, None], axis=1) - logits


def dense_matrices(net, params):
    """Write every layer as a matrix and a bias, by what it does to the unit vectors."""
    shape, matrices = net.features, []
    for layer, (kernel, bias) in zip(net.layers, params, strict=True):
        units = np.eye(np.prod(shape, dtype=int)).reshape(-1, *shape)
        pushed = reference.linear_part(layer, kernel, units)
        shape = pushed.shape[1:]
        matrices.append((pushed.reshape(len(units), -1), np.broadcast_to(bias, shape).reshape(-1)))
    return matrices


def product(low, high, other_low, other_high):
    """Multiply two intervals by all four products of their ends."""
    ends = [low * other_low, low * other_high, high * other_low, high * other_high]
    return np.min(ends, axis=0), np.max(ends, axis=0)


def oracle(matrices, inputs, label, other, epsilon, activation):
    """Both bounds of one margin of one example, number by number; slopes from the ends (and 0, where tanh turns)."""
    function, slope = reference.ACTIVATIONS[activation], reference.SLOPES[activation]
    box_low, box_high = np.maximum(inputs - epsilon, 0), np.minimum(inputs + epsilon, 1)
    low, high, slopes = box_low, box_high, []
    for matrix, bias in matrices[:-1]:
        ends = product(low[:, None], high[:, None], matrix, matrix)
        low, high = ends[0].sum(0) + bias, ends[1].sum(0) + bias
        inside = np.clip(0, low, high)
        values = [slope(low), slope(high), slope(inside)]
        slopes.append((np.min(values, axis=0), np.max(values, axis=0)))
        low, high = function(low), function(high)
    row = matrices[-1][0][:, label] - matrices[-1][0][:, other]
    by_intervals = product(row, row, low, high)[0].sum() + matrices[-1][1][label] - matrices[-1][1][other]
    row_low = row_high = row
    for (matrix, _), masks in zip(matrices[-2::-1], slopes[::-1], strict=True):
        row_low, row_high = product(row_low, row_high, *masks)
        ends = product(row_low, row_high, matrix, matrix)
        row_low, row_high = ends[0].sum(1), ends[1].sum(1)
    fall = product(row_low, row_high, box_low - inputs, box_high - inputs)[0].sum()
    return by_intervals, fall, np.maximum(np.abs(row_low), np.abs(row_high)).sum()


@pytest.mark.usefixtures("x64", "strict_dtypes")
@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("epsilon", [0.02, 0.3])
def test_a_second_implementation_with_convolutions_as_matrices(name, epsilon):
    net = NETS[name]
    params, inputs, labels = net.params(), net.inputs(), net.labels()
    given = net.module, as_tree(params), jnp.asarray(inputs), jnp.asarray(labels), epsilon
    found, norms = bounds_of(*given), norms_of(*given)
    matrices, logits = dense_matrices(net, params), net.reference(params, inputs)[0]
    for example, label in enumerate(labels):
        for other in range(net.num_classes):
            by_intervals, fall, norm = oracle(
                matrices, inputs[example].reshape(-1), label, other, epsilon, net.activation
            )
            by_gradient = logits[example, label] - logits[example, other] + fall
            np.testing.assert_allclose(found[example, other], max(by_intervals, by_gradient), atol=1e-10)
            np.testing.assert_allclose(norms[example, other], norm, atol=1e-10)


@pytest.mark.parametrize(("activation", "norm"), [("relu", 0.0), ("leaky_relu", 2.0)])
def test_at_0_the_bound_holds_for_the_slope_that_jax_takes(activation, norm):
    module = SequentialNet((Dense(1),), 2, ACTIVATIONS[activation])
    params = {
        "layer_0": {"kernel": jnp.ones((1, 1)), "bias": jnp.zeros(1)},
        "output": {"kernel": jnp.array([[1.0, -1.0]]), "bias": jnp.zeros(2)},
    }
    inputs, labels = jnp.zeros((1, 1)), jnp.array([0])
    gradient = jax.grad(lambda x: margins_at(module, params, x, labels)[0, 1])(inputs)
    assert jnp.sum(jnp.abs(gradient)) == norm
    bounds = gradient_norm_bounds(module, params, inputs=inputs, labels=labels, epsilon=0.0)
    np.testing.assert_allclose(bounds, [[0.0, norm]], rtol=1e-5)


@pytest.mark.usefixtures("x64")
def test_a_linear_network_is_certified_exactly_and_its_worst_point_is_that_of_fgsm():
    module = MODULES["linear"]
    params, inputs, labels = problem(module)
    kernel, found = params["output"]["kernel"], bounds_of(module, params, inputs, labels, 0.2)
    for other in range(3):
        direction = (kernel.T[labels] - kernel.T[other][None]).reshape(inputs.shape)
        worst = jnp.clip(inputs - 0.2 * jnp.sign(direction), 0, 1)
        np.testing.assert_allclose(found[:, other], margins_at(module, params, worst, labels)[:, other], atol=1e-12)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", ["relu", "leaky_relu", "pools"])
def test_where_no_activation_can_change_the_bound_is_epsilon_times_the_gradients_norm(name):
    module = MODULES[name]
    params, inputs, labels = problem(module, lowest=0.01)
    epsilon = 1e-6
    jacobian = input_jacobian(lambda x: margins_at(module, params, x[None], labels[:1])[0], inputs[:1])
    norms = jax.vmap(entrywise_l1)(jacobian)
    given = module, params, inputs[:1], labels[:1], epsilon
    np.testing.assert_allclose(norms_of(*given), norms, rtol=1e-9, atol=1e-12)
    expected = margins_at(module, params, inputs[:1], labels[:1]) - epsilon * norms
    np.testing.assert_allclose(bounds_of(*given), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", MODULES)
def test_no_point_of_the_ball_is_below_and_a_larger_ball_is_never_better(name):
    module = MODULES[name]
    params, inputs, labels = problem(module)
    step, previous = jax.jit(partial(certified_margins, module)), np.inf
    for epsilon in RADII:
        found = step(params, inputs=inputs, labels=labels, epsilon=epsilon)
        assert np.all(found <= previous + 1e-12)
        previous = found
        np.testing.assert_array_equal(found[np.arange(len(labels)), labels], 0)
        at_corners = (
            jnp.clip(inputs + epsilon * jax.random.rademacher(jax.random.key(draw), inputs.shape, inputs.dtype), 0, 1)
            for draw in range(20)
        )
        twins = fgsm(partial(make_apply_fn(module), params), inputs, labels=labels, epsilon=epsilon, loss_fn=margin)
        for points in (inputs, twins, *at_corners):
            assert np.all(margins_at(module, params, points, labels) >= found - 1e-12)
    at_point = margins_at(module, params, inputs, labels)
    np.testing.assert_allclose(bounds_of(module, params, inputs, labels, 0.0), at_point, atol=1e-12)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", ["relu", "leaky_relu", "pools"])
def test_the_supremum_on_a_segment_is_never_above_that_of_the_ball(name):
    module = MODULES[name]
    params, inputs, labels = problem(module)
    twins = fgsm(partial(make_apply_fn(module), params), inputs, labels=labels, epsilon=0.2)
    norms = segment_gradient_norms(module, params, starts=inputs, ends=twins, labels=labels)
    bounds = norms_of(module, params, inputs, labels, 0.2)
    assert np.all(norms.supremum <= bounds + 1e-12)
    assert np.all(np.abs(norms.change) <= 0.2 * bounds + 1e-12)


@pytest.mark.usefixtures("x64")
def test_an_activation_that_can_only_be_zero_is_off():
    module = SequentialNet((Dense(2),), num_classes=2)
    params = as_tree([(np.array([[0.0, 1.0]]), np.zeros(2)), (np.array([[5.0, 0.0], [0.0, 1.0]]), np.zeros(2))])
    given = module, params, jnp.array([[0.5]]), jnp.array([1]), 0.25
    np.testing.assert_allclose(norms_of(*given), [[1, 0]])
    np.testing.assert_allclose(bounds_of(*given), [[0.25, 0]])


@pytest.fixture(scope="module")
def digits():
    """Digits and a small network that was trained on them with weight decay, so that there is something to certify."""
    data = load_dataset("mnist_5k")
    module = SequentialNet((Dense(32),), num_classes=10)
    inputs, labels = jnp.asarray(data.train.inputs), jnp.asarray(data.train.labels)
    params = module.init(jax.random.key(0), inputs[:1])["params"]

    def loss(params):
        logits = make_apply_fn(module)(params, inputs)
        decay = sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(params))
        return jnp.mean(-jax.nn.log_softmax(logits)[jnp.arange(len(labels)), labels]) + 3e-3 * decay

    def descend(_, params):
        return jax.tree.map(lambda leaf, slope: leaf - 0.3 * slope, params, jax.grad(loss)(params))

    params = jax.jit(lambda params: jax.lax.fori_loop(0, 80, descend, params))(params)
    return module, params, jnp.asarray(data.test.inputs[:100]), jnp.asarray(data.test.labels[:100])


def test_the_certified_accuracy_is_never_above_that_under_attack(digits):
    module, params, inputs, labels = digits
    apply_fn = make_apply_fn(module)
    step, certified, key = make_certificate_step(module), [], jax.random.key(0)
    for epsilon in (0.0, 0.01, 0.03, 0.1):
        is_certified = np.asarray(step(params, inputs, labels, epsilon))
        options = {"labels": labels, "epsilon": epsilon, "key": key}
        points = pgd(partial(apply_fn, params), inputs, num_steps=10, **options)
        stands = np.argmax(apply_fn(params, points), axis=1) == labels
        assert not np.any(is_certified & ~stands)
        certified.append(
            certified_accuracy(module, params, inputs=inputs, labels=labels, epsilon=epsilon, batch_size=40)
        )
        assert certified[-1] == is_certified.mean() <= stands.mean()
    assert certified[0] == np.mean(np.argmax(apply_fn(params, inputs), axis=1) == labels) > 0.8
    assert certified[0] > certified[2] > 0.3  # it says something
    assert step._cache_size() == 2  # batches of 100 and of 40, whatever the radius
    assert make_certificate_step(module) is step


def test_the_ensemble_breaks_no_certified_point(digits):
    module, params, inputs, labels = (*digits[:2], digits[2][:40], digits[3][:40])
    is_certified = np.asarray(make_certificate_step(module)(params, inputs, labels, 0.03))
    options = {"inputs": np.asarray(inputs), "labels": np.asarray(labels), "epsilon": 0.03, "key": jax.random.key(0)}
    attacked = standard_attack(make_apply_fn(module), params, budget="fast", **options)
    assert 0 < is_certified.mean() <= attacked.stands.mean() < 1
    assert not np.any(is_certified & ~attacked.stands)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", ["linear", "relu"])
def test_a_network_of_inputs_in_another_range_has_the_same_bounds(name):
    # the network f(a x + b) of x in [lower, upper] is f of points in [0, 1]
    module, lower, upper = MODULES[name], -10.0, 30.0
    params, inputs, labels = problem(module)
    first = params["layer_0"] if "layer_0" in params else params["output"]
    outer = dict(params)
    kernel = first["kernel"] / (upper - lower)
    if name == "linear":  # a bias can only take the shift where the layer has no padding
        outer["output"] = {"kernel": kernel, "bias": first["bias"] - lower * kernel.sum(axis=0)}
        points, limits = lower + (upper - lower) * inputs, {"lower": lower, "upper": upper}
    else:
        outer["layer_0"] = {"kernel": kernel, "bias": first["bias"]}
        points, limits = (upper - lower) * inputs, {"lower": 0.0, "upper": upper - lower}
    given = {"labels": labels, "epsilon": 0.1}
    radius = {"labels": labels, "epsilon": 0.1 * (upper - lower)}
    for bounds in (certified_margins, gradient_norm_bounds):
        expected = bounds(module, params, inputs=inputs, **given)
        scale = 1 if bounds is certified_margins else upper - lower
        found = scale * bounds(module, outer, inputs=points, **radius, **limits)
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)


def test_a_point_out_of_the_range_is_never_certified_and_is_refused_where_it_can_be():
    module = MODULES["linear"]
    params = {"output": {"kernel": jnp.zeros((30, 3)), "bias": jnp.array([1.0, 0.0, 0.0])}}  # class 0 everywhere
    inputs = jnp.full((5, 5, 6, 1), 0.5).at[1:4, 0, 0, 0].set(jnp.array([2.0, -0.1, jnp.nan]))
    labels, inside = jnp.zeros(5, int), [True, False, False, False, True]
    step = make_certificate_step(module)
    assert step(params, inputs, labels, 0.1).tolist() == step(params, inputs, labels, 0.0).tolist() == inside
    given = {"inputs": inputs, "labels": labels, "epsilon": 0.1}
    np.testing.assert_array_equal(certified_margins(module, params, **given)[1], [0, -np.inf, -np.inf])
    np.testing.assert_array_equal(gradient_norm_bounds(module, params, **given)[1], [0, np.inf, np.inf])
    with pytest.raises(ValueError, match=r"3 of 5 points are not in \[0, 1\]: .*give lower=... and upper="):
        certified_accuracy(module, params, **given)
    limits = {"lower": -1.0, "upper": 3.0}
    assert make_certificate_step(module, **limits)(params, inputs, labels, 0.1).sum() == 4
    assert certified_accuracy(module, params, **given | {"inputs": inputs[:3], "labels": labels[:3]}, **limits) == 1
    with pytest.raises(ValueError, match=r"epsilon=5.0: must be in \[0, 4\]"):
        certified_margins(module, params, **given | {"epsilon": 5.0}, **limits)


def test_a_traced_radius_below_0_certifies_nothing():
    module = MODULES["linear"]
    params, inputs, labels = problem(module)
    step = make_certificate_step(module)
    assert step(params, inputs, jnp.argmax(make_apply_fn(module)(params, inputs), axis=1), 0.0).all()
    assert not step(params, inputs, labels, -0.9).any()


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize("kind", ["uint8", "int32", bool])
def test_whole_numbers_are_refused(kind):
    """In uint8 the differences of two unit vectors wrapped, and wrong points were certified."""
    module = SequentialNet((), num_classes=2)
    params = {"output": {"kernel": jnp.array([[1.0, 2.0]]), "bias": jnp.zeros(2)}}
    given = {"inputs": np.ones((3, 1), kind), "labels": np.zeros(3, int), "epsilon": 0.1}
    for function in (certified_accuracy, certified_margins, gradient_norm_bounds):
        with pytest.raises(ValueError, match="floating numbers are needed"):
            function(module, params, **given)


@pytest.mark.parametrize("module_of", [np, jnp])
def test_no_points_are_refused(module_of):
    inputs, labels = module_of.zeros((0, 5, 6, 1)), module_of.zeros(0, int)
    with pytest.raises(ValueError, match="0 examples in batches of 100"):
        certified_accuracy(MODULES["linear"], {}, inputs=inputs, labels=labels, epsilon=0.1)


def test_certified_accuracy_compiles_once():
    module = SequentialNet((Dense(3),), num_classes=3)
    params, inputs, labels = problem(module)
    points = {"inputs": inputs, "labels": labels, "batch_size": 4}
    for epsilon in (0.0, 0.1):
        certified_accuracy(module.clone(), params, **points, epsilon=epsilon)
    assert make_certificate_step(module)._cache_size() == 1


def test_activations_that_fall_and_radii_that_are_none_are_refused():
    for name in ("gelu", "silu"):
        with pytest.raises(ValueError, match="an activation that never falls: relu, leaky_relu, softplus, tanh"):
            certified_accuracy(
                create_model("C", activation=name), {}, inputs=np.zeros((1, 2)), labels=np.zeros(1, int), epsilon=0.1
            )
    params, inputs, labels = problem(MODULES["linear"])
    with pytest.raises(ValueError, match=r"epsilon=-0.1: must be in \[0, 1\]"):
        certified_margins(MODULES["linear"], params, inputs=inputs, labels=labels, epsilon=-0.1)


def test_a_margin_below_the_rounding_of_the_logits_is_not_certified():
    module, points = SequentialNet((), 2), {"inputs": jnp.array([[0.5, 0.52]]), "labels": jnp.array([1])}
    for offset, certified in ((0.0, 1.0), (1e6, 0.0)):  # at 1e6 both logits are 1000000.5, and the decision is wrong
        params = {"output": {"kernel": jnp.eye(2), "bias": jnp.full(2, offset, jnp.float32)}}
        bounds = certified_margins(module, params, epsilon=0.005, **points)
        assert float(bounds[0, 0]) == pytest.approx(0.01, abs=1e-5 * max(offset, 1))
        assert certified_accuracy(module, params, epsilon=0.005, **points) == certified


@pytest.mark.parametrize("offset", [0.0, 4096.0, 2.0**20])
def test_what_cancels_before_the_logits_is_rounded_too(offset):
    # z_0 - z_1 = (x + offset) - offset - 0.55 >= 0.575 - 0.01 - 0.55 in exact arithmetic
    params = {
        "layer_0": {"kernel": jnp.array([[1.0, 0.0]]), "bias": jnp.full(2, offset)},
        "output": {"kernel": jnp.array([[1.0, 0.0], [-1.0, 0.0]]), "bias": jnp.array([0.0, 0.55])},
    }
    given = {"inputs": jnp.array([[0.575]]), "labels": jnp.array([0]), "epsilon": 0.01}
    assert certified_accuracy(SequentialNet((Dense(2),), 2), params, **given) == float(offset == 0)


@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "softplus", "tanh"])
def test_no_point_that_floating_point_misclassifies_is_certified(activation):
    """Networks whose large numbers cancel in the second layer."""
    module, epsilon, rng = (
        SequentialNet((Dense(6), Dense(5)), 2, ACTIVATIONS[activation]),
        1e-3,
        np.random.default_rng(0),
    )
    step, apply_fn = make_certificate_step(module), jax.jit(make_apply_fn(module))
    inputs, num_certified = jnp.asarray(rng.uniform(size=(200, 4)), jnp.float32), 0
    signs = jnp.asarray(rng.choice([-1, 1], (20, 200, 4)), jnp.float32)
    corners = [jnp.clip(inputs + epsilon * sign, 0, 1) for sign in signs]
    for size in (1.0, 1e2, 1e4, 1e6):
        shapes = jax.eval_shape(module.init, jax.random.key(0), inputs)["params"]
        params = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), leaf.dtype), shapes)
        params["layer_0"]["bias"] += size
        params["layer_1"]["kernel"] -= jnp.mean(
            params["layer_1"]["kernel"], axis=0, keepdims=True
        )  # the offset cancels here
        labels = jnp.argmax(apply_fn(params, inputs), axis=1)
        is_certified = step(params, inputs, labels, epsilon)
        for points in corners:
            assert not np.any(is_certified & (jnp.argmax(apply_fn(params, points), axis=1) != labels))
        num_certified += int(np.sum(is_certified))
    assert num_certified > 0


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_points_of_few_bits_are_certified_for_the_ball_of_all_numbers(dtype):
    # at 0.75 the next bfloat16 is 0.754, and the ball of radius 0.0015 would hold its centre alone
    params = {"output": {"kernel": jnp.array([[1.0, -1.0]]), "bias": jnp.array([0.0, 1.499])}}
    points = {"inputs": jnp.full((1, 1), 0.75, dtype), "labels": jnp.array([0])}
    accuracies = [
        certified_accuracy(SequentialNet((), 2), params, epsilon=radius, **points) for radius in (1e-4, 1.5e-3)
    ]
    assert accuracies == [1.0, 0.0]
