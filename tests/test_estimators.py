"""Estimators: mean and gradient against the exact ones, bounds, variance, even draws, limits, cost by classes."""

import math
from functools import partial
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks import NETS, as_tree

from jl1.attacks.fgsm import fgsm
from jl1.change_loss import output_change_loss
from jl1.draws import draw_classes
from jl1.estimators import (
    jacobian_frobenius_projected,
    jacobian_l1_finite_difference,
    jacobian_l1_random_sign,
    jacobian_l1_sampled_classes,
    jacobian_l21_projected,
    output_change,
)
from jl1.jacobian import input_jacobian
from jl1.losses import cross_entropy, defended_loss
from jl1.models import Dense, SequentialNet, make_apply_fn
from jl1.norms import jacobian_l1
from jl1.penalties import DRAW_CLASSES, ESTIMATORS, make_change_penalty, make_penalty

pytestmark = pytest.mark.usefixtures("quick_compile")

QUICK_TO_COMPILE = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
WEIGHTS = jnp.array([1.0, -0.5, 2.0])
"""An uneven sum over three examples: a gradient that mixes them cannot pass."""


def rows_of(net, tree, inputs):
    """Return the Jacobians by definition, features flattened."""
    jacobian = input_jacobian(lambda example: net.apply_fn(tree, example[None])[0], inputs)
    return jacobian.reshape(*jacobian.shape[:2], -1)


def mean_over_all_signs(jacobian):
    """Compute sum_j E|s . J_:j| from all sign vectors."""
    signs = jnp.array(list(product([-1.0, 1.0], repeat=jacobian.shape[1])))
    return jnp.mean(jnp.sum(jnp.abs(jnp.einsum("sc,bcd->sbd", signs, jacobian)), axis=2), axis=0)


def l21(jacobian):
    """Compute sum_j ||J_:j||_2."""
    return jnp.sum(jnp.linalg.norm(jacobian, axis=1), axis=1)


def l1(jacobian):
    return jnp.sum(jnp.abs(jacobian), axis=(1, 2))


ESTIMATED = {
    jacobian_l1_sampled_classes: (l1, lambda c, k: c / k - 1),
    jacobian_l1_random_sign: (mean_over_all_signs, lambda c, k: 1 / k),
    jacobian_l21_projected: (l21, lambda c, k: (math.pi / 2 - 1) / k),
    jacobian_frobenius_projected: (lambda jacobian: jnp.sum(jacobian**2, axis=(1, 2)), lambda c, k: 2 / k),
}
"""What each estimates without bias, from the Jacobian, and the documented bound on its relative variance."""


ON_NETWORKS = [("conv_relu", jacobian_l1_sampled_classes), *(("dense_tanh", estimator) for estimator in ESTIMATED)]


@pytest.fixture(scope="module", params=ON_NETWORKS, ids=lambda param: f"{param[1].__name__}-{param[0]}")
def many_draws(request):
    """Return exact values and parameter gradient, and 2,000 estimates of both by one and by two draws."""
    name, estimator = request.param
    net = NETS[name]
    inputs, tree = jnp.float32(net.inputs()), jax.tree.map(jnp.float32, as_tree(net.params()))
    exact_fn, bound = ESTIMATED[estimator]

    def flat_gradient(value_fn, tree):
        values, pullback = jax.vjp(value_fn, tree)
        return values, jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(pullback(WEIGHTS)[0])])

    @partial(jax.jit, static_argnums=0, compiler_options=QUICK_TO_COMPILE)
    def estimates(num_draws):
        def one(key):
            estimate = partial(estimator, inputs=inputs, key=key, num_draws=num_draws)
            return flat_gradient(lambda tree: estimate(partial(net.apply_fn, tree)), tree)

        return jax.vmap(one)(jax.random.split(jax.random.key(11), 2000))

    exact_of = jax.jit(lambda: flat_gradient(lambda tree: exact_fn(rows_of(net, tree, inputs)), tree))
    return exact_of(), estimates(1), estimates(2), (bound(3, 1), bound(3, 2))


def test_the_mean_of_value_and_gradient_is_the_exact_one(many_draws):
    exact, *estimates, _ = many_draws
    for estimate in estimates:
        for found, true in zip(estimate, exact, strict=True):
            standard_error = np.std(found, axis=0) / np.sqrt(len(found)) + 1e-6 * np.abs(true).max()
            assert np.linalg.norm(standard_error) < 0.05 * np.linalg.norm(true)  # fine enough to see a wrong factor
            assert (np.abs(np.mean(found, axis=0, dtype=float) - true) < 4.5 * standard_error).all()


def test_the_variance_is_as_documented_and_falls_with_draws(many_draws):
    (values, _), (one, one_slope), (two, two_slope), bounds = many_draws
    for estimate, bound in ((one, bounds[0]), (two, bounds[1])):
        assert (np.var(estimate, axis=0) < 1.05 * bound * values**2).all()
    assert (np.var(two, axis=0) < 0.7 * np.var(one, axis=0)).all()
    assert np.var(two_slope, axis=0).sum() < 0.7 * np.var(one_slope, axis=0).sum()


@pytest.mark.parametrize("name", NETS)
def test_random_signs_lie_where_khintchines_inequality_puts_them(name, x64):
    net = NETS[name]
    jacobian = rows_of(net, as_tree(net.params()), jnp.asarray(net.inputs(5)))
    signs, both, entries = mean_over_all_signs(jacobian), l21(jacobian), l1(jacobian)
    assert (both / math.sqrt(2) <= signs).all()
    assert (signs <= both).all()
    assert (entries / math.sqrt(3) <= both).all()
    assert (both <= entries).all()


@pytest.mark.parametrize("estimator", [*ESTIMATED, jacobian_l1_finite_difference])
def test_each_example_has_its_own_draws_and_a_key_fixes_them(estimator):
    inputs = jnp.full((3, 3), 0.5)  # the same point three times, and rows of different norms
    weights = jnp.array([[1.0, 0.0, 0.5], [0.0, 2.0, 0.0], [0.0, 0.0, 4.0]])
    estimates, again, other = (estimator(lambda x: x @ weights, inputs, key=jax.random.key(seed)) for seed in (1, 1, 2))
    assert len(set(estimates.tolist())) >= 2
    np.testing.assert_array_equal(estimates, again)
    assert (estimates != other).any()


@pytest.mark.parametrize("estimator", ESTIMATORS.values())
def test_no_draw_is_refused(estimator):
    with pytest.raises(ValueError, match="num_draws=0: must be"):
        estimator(lambda x: x, jnp.ones((1, 2)), key=jax.random.key(0), num_draws=0)


@pytest.mark.parametrize("name", DRAW_CLASSES)
def test_more_classes_than_there_are_are_refused(name):
    with pytest.raises(ValueError, match="num_draws=3: must be 1 to 2, the number of outputs"):
        ESTIMATORS[name](lambda x: x, jnp.ones((1, 2)), key=jax.random.key(0), num_draws=3)


@pytest.mark.parametrize(("batch_size", "num_outputs", "num_draws"), [(128, 10, 1), (7, 10, 3), (5, 3, 3), (30, 10, 9)])
def test_every_class_is_drawn_equally_often_and_never_twice_for_an_example(batch_size, num_outputs, num_draws):
    outputs = jnp.zeros((batch_size, num_outputs))
    for seed in range(5):
        drawn = np.asarray(draw_classes(jax.random.key(seed), outputs, num_draws=num_draws))
        assert drawn.shape == (num_draws, batch_size)
        counts = np.bincount(drawn.ravel(), minlength=num_outputs)
        assert len(counts) == num_outputs
        assert counts.max() - counts.min() <= 1
        assert all(len(set(one)) == num_draws for one in drawn.T)


def test_the_draws_are_not_in_step_with_labels_that_come_in_turn():
    drawn = np.asarray(draw_classes(jax.random.key(0), jnp.zeros((200, 10)), num_draws=1))[0]
    for label in range(10):
        assert len(set(drawn[label::10])) > 5


def test_every_class_is_as_likely_for_each_example():
    draw = jax.vmap(lambda key: draw_classes(key, jnp.zeros((4, 10)), num_draws=2))
    drawn = np.asarray(draw(jax.random.split(jax.random.key(0), 4000)))
    for example in range(4):
        shares = np.bincount(drawn[:, :, example].ravel()) / 4000  # of 2 in 10: standard deviation 0.0063
        np.testing.assert_allclose(shares, 0.2, atol=0.025)


@pytest.mark.parametrize("name", ["dense_relu", "conv_softplus"])
def test_all_classes_are_the_exact_norm(name, x64):
    net = NETS[name]
    inputs, tree = jnp.asarray(net.inputs()), as_tree(net.params())

    @partial(jax.jit, static_argnums=0)
    def both(norm_fn):
        def weighted(tree):
            values = norm_fn(partial(net.apply_fn, tree), inputs)
            return values @ WEIGHTS, values

        return jax.grad(weighted, has_aux=True)(tree)

    everything = both(partial(jacobian_l1_sampled_classes, key=jax.random.key(0), num_draws=3))
    for one, other in zip(jax.tree.leaves(everything), jax.tree.leaves(both(jacobian_l1)), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("num_draws", [1, 3])
def test_the_finite_difference_of_an_affine_network_is_exact_at_any_step(num_draws, x64):
    rng = np.random.default_rng(0)
    weights, inputs = jnp.asarray(rng.normal(size=(4, 3))), jnp.asarray(rng.uniform(size=(5, 4)))
    options = {"inputs": inputs, "key": jax.random.key(0), "num_draws": num_draws}
    network = lambda x: x @ weights + 0.3  # noqa: E731
    exact = jacobian_l1_sampled_classes(network, **options)
    for step_size in (1e-3, 1.0):
        difference = jacobian_l1_finite_difference(network, step_size=step_size, **options)
        np.testing.assert_allclose(difference, exact, rtol=1e-10)


@pytest.mark.parametrize(("name", "step_size", "error"), [("conv_relu", 1e-7, 1e-6), ("dense_tanh", 1e-7, 1e-5)])
def test_a_small_finite_difference_is_the_norm_and_its_gradient(name, step_size, error, x64):
    net = NETS[name]
    inputs, tree = jnp.asarray(net.inputs()), as_tree(net.params())

    @partial(jax.jit, static_argnums=0)
    def both(norm_fn):
        def weighted(tree):
            values = norm_fn(partial(net.apply_fn, tree), inputs, key=jax.random.key(0), num_draws=2)
            return values @ WEIGHTS, values

        return jax.grad(weighted, has_aux=True)(tree)

    one = both(partial(jacobian_l1_finite_difference, step_size=step_size))
    for found, true in zip(jax.tree.leaves(one), jax.tree.leaves(both(jacobian_l1_sampled_classes)), strict=True):
        np.testing.assert_allclose(found, true, rtol=error, atol=error)


def test_the_finite_difference_differentiates_nothing_twice():
    @jax.custom_jvp
    def derivative(z):
        return jnp.cos(z)

    derivative.defjvp(lambda primals, tangents: (derivative(*primals), jnp.nan * tangents[0]))

    @jax.custom_vjp
    def sine(z):
        return jnp.sin(z)

    sine.defvjp(lambda z: (jnp.sin(z), z), lambda z, cotangent: (cotangent * derivative(z),))

    def slope(estimator):
        penalty = lambda w: jnp.sum(estimator(lambda x: sine(x @ w), jnp.ones((2, 3)), key=jax.random.key(0)))  # noqa: E731
        return jax.grad(penalty)(jnp.ones((3, 2)))

    assert jnp.isnan(slope(jacobian_l1_sampled_classes)).all()
    assert jnp.isfinite(slope(jacobian_l1_finite_difference)).all()


@pytest.mark.parametrize("step_size", [0.0, -1e-3, float("nan"), float("inf")])
def test_a_step_that_is_none_is_refused(step_size):
    with pytest.raises(ValueError, match=r"step_size=.*: must be above 0 and finite"):
        jacobian_l1_finite_difference(lambda x: x, jnp.ones((1, 2)), key=jax.random.key(0), step_size=step_size)


@pytest.mark.parametrize("name", NETS)
def test_the_outputs_change_is_below_the_norms_supremum_on_the_segment(name, x64):
    net, epsilon = NETS[name], 0.3
    inputs, labels, logits_fn = jnp.asarray(net.inputs(4)), jnp.asarray(net.labels(4)), net.logits_fn()
    twins = fgsm(logits_fn, inputs, labels=labels, epsilon=epsilon)

    @jax.jit
    def both():
        change = output_change(logits_fn(inputs), logits_fn(twins), epsilon=epsilon)
        points = [inputs + share * (twins - inputs) for share in np.linspace(0, 1, 41)]
        return change, jacobian_l1(logits_fn, jnp.concatenate(points)).reshape(41, -1).max(axis=0)

    change, supremum = both()
    assert (change <= supremum).all()
    assert (change > 0.1 * supremum).all()


def test_the_change_of_one_affine_output_under_fgsm_is_its_norm():
    weights = jnp.array([[1.0, 0.0], [-2.0, 0.0], [0.5, 0.0]])  # the second logit stays
    inputs, labels = jnp.full((2, 3), 0.5), jnp.array([0, 1])
    twins = fgsm(lambda x: x @ weights, inputs, labels=labels, epsilon=0.25)
    np.testing.assert_allclose(output_change(inputs @ weights, twins @ weights, epsilon=0.25), 3.5, rtol=1e-6)


def test_without_a_radius_there_is_no_change_and_no_nan():
    outputs = jnp.array([[1.0, -2.0]])
    value_and_slope = jax.value_and_grad(lambda o, epsilon: jnp.sum(output_change(o, outputs, epsilon=epsilon)))
    for value, slope in (value_and_slope(outputs, 0.0), jax.jit(value_and_slope)(outputs, 0.0)):
        assert value == 0
        np.testing.assert_array_equal(slope, 0)
    assert output_change(outputs, outputs + 1, epsilon=0.0) == 0  # not what the outputs are apart


def test_the_outputs_change_is_free_in_adversarial_training():
    net = NETS["dense_relu"]
    inputs, labels, tree = jnp.float32(net.inputs(8)), jnp.int32(net.labels(8)), as_tree(net.params())

    def products_of(loss_fn, penalty_fn):
        def mean_loss(tree):
            options = {"labels": labels, "lam": 1.0, "epsilon": 0.1, "penalty_fn": penalty_fn}
            return jnp.mean(loss_fn(partial(net.apply_fn, tree), inputs, loss_fn=cross_entropy, **options).total)

        return jax.jit(jax.grad(mean_loss)).lower(tree).as_text().count("stablehlo.dot_general")

    change = make_change_penalty()
    alone = products_of(defended_loss, None)
    assert alone <= products_of(output_change_loss, change) <= alone + 1  # the sum of |change|, a product of matrices


WIDTH, BATCH = 256, 128


@pytest.fixture(scope="module")
def costs():
    """Compile, without running, plain and class-sampled gradients for more and more classes: flops, bytes."""
    return {num_classes: (cost(num_classes, None), cost(num_classes, 1)) for num_classes in (10, 100, 1000)}


def cost(num_classes, num_draws):
    module = SequentialNet((Dense(WIDTH),) * 4, num_classes)
    inputs, labels = (jax.ShapeDtypeStruct(shape, dtype) for shape, dtype in (((BATCH, WIDTH), "f4"), ((BATCH,), "i4")))
    params = jax.eval_shape(module.init, jax.random.key(0), inputs)["params"]

    def mean_loss(params, inputs, labels, key):
        logits_fn = partial(make_apply_fn(module), params)
        loss = jnp.mean(cross_entropy(logits_fn(inputs), labels))
        if num_draws is None:
            return loss
        return loss + jnp.mean(jacobian_l1_sampled_classes(logits_fn, inputs, key=key, num_draws=num_draws))

    lowered = jax.jit(jax.value_and_grad(mean_loss)).lower(params, inputs, labels, jax.random.key(0))
    compiled = lowered.compile()
    return compiled.cost_analysis()["flops"], compiled.memory_analysis().temp_size_in_bytes


def test_one_class_an_image_costs_little_more_than_twice_a_plain_step(costs):
    for (plain, _), (sampled, _) in costs.values():
        assert 1.5 * plain < sampled < 2.5 * plain


def test_its_cost_grows_with_the_classes_in_the_last_layer_only(costs):
    (plain, _), (sampled, _) = costs[1000]
    (plain_before, _), (sampled_before, _) = costs[100]
    growth = plain - plain_before  # three passes over the last layer
    assert sampled - sampled_before < 3 * growth
    assert costs[100][1][0] < 1.3 * costs[10][1][0]


def test_its_memory_grows_with_the_classes_as_the_logits_do(costs):
    logits = 4 * BATCH * (1000 - 100)
    last_kernel = 4 * WIDTH * (1000 - 100)
    assert costs[1000][1][1] - costs[100][1][1] < 6 * logits + 2 * last_kernel


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize("name", ESTIMATORS)
def test_bytes_are_refused_as_by_the_exact_penalties(name):
    with pytest.raises(ValueError, match="inputs of type uint8: floating numbers are needed; divide bytes by 255"):
        make_penalty(name, outputs="probs")(
            lambda x: x @ jnp.ones((4, 3)), jnp.ones((2, 4), jnp.uint8), labels=jnp.array([0, 1]), key=jax.random.key(0)
        )
