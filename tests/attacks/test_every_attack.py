"""What holds for every attack: the ball, the range, no gradient, one trace, jit or not, and points already wrong."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks import NETS, as_tree

from jl1.attacks.apgd import apgd, apgd_targeted
from jl1.attacks.fab import fab
from jl1.attacks.noise import random_noise
from jl1.attacks.norms import NORMS
from jl1.attacks.objectives import targeted_margin
from jl1.attacks.square import square
from jl1.attacks.targets import over_targets, ranked_targets

pytestmark = pytest.mark.usefixtures("strict_dtypes", "quick_compile")

KEY = jax.random.key(5)
ATTACKS = {
    "apgd": partial(apgd, num_steps=6, num_restarts=2),
    "apgd_t": over_targets(partial(apgd_targeted, num_steps=4, loss_fn=targeted_margin), num_targets=2),
    "fab": partial(fab, num_steps=4, num_restarts=2),
    "fab_t": over_targets(partial(fab, num_steps=4), num_targets=2),
    "square": partial(square, num_queries=20),
    "random_noise": partial(random_noise, num_draws=3),
}
every_attack = pytest.mark.parametrize(
    "attack_fn",
    [
        pytest.param(attack_fn, id=name, marks=pytest.mark.slow if name.endswith("_t") else ())
        for name, attack_fn in ATTACKS.items()
    ],
)


@every_attack
@pytest.mark.parametrize("norm", NORMS)
def test_points_stay_in_the_ball_and_the_range_and_wrong_ones_stay_put(attack_fn, norm):
    number = len(norm) + list(ATTACKS.values()).index(attack_fn)
    rng = np.random.default_rng(number)
    shape = [(7,), (3, 2), (5, 4, 2)][number % 3]  # flat, neither, images
    lower = float(rng.uniform(-2, 0.5))
    upper = lower + float(rng.uniform(0.5, 3))
    size = int(np.prod(shape))
    weights = jnp.asarray(rng.normal(size=(size, 3)), jnp.float32)
    inputs = jnp.asarray(rng.uniform(lower, upper, (12, *shape)), jnp.float32)
    inputs = inputs.at[0].set(lower).at[1].set(upper)
    logits_fn = lambda points: jnp.sin(points.reshape(-1, size) @ weights)  # noqa: E731
    labels = np.array(logits_fn(inputs).argmax(axis=1))
    labels[-3:] = (labels[-3:] + 1) % 3  # wrong from the start
    attack = jax.jit(partial(attack_fn, logits_fn, labels=jnp.asarray(labels), norm=norm, lower=lower, upper=upper))
    moved = []
    for epsilon in (0.0, *rng.uniform(0, upper - lower, 3)):
        points = np.asarray(attack(inputs, epsilon=float(epsilon), key=KEY))
        step = (points - np.asarray(inputs)).reshape(12, -1)
        lengths = np.abs(step).max(axis=1) if norm == "linf" else np.linalg.norm(step, axis=1)
        assert points.shape == inputs.shape
        assert lengths.max() <= epsilon + 1e-6
        assert points.min() >= np.float32(lower)
        assert points.max() <= np.float32(upper)
        np.testing.assert_array_equal(points[-3:], inputs[-3:])
        moved.append(lengths.max())
    assert moved[0] <= 1e-6
    assert max(moved) > 0


@every_attack
def test_no_gradient_flows_through_it(attack_fn):
    net = NETS["dense_tanh"]
    inputs, labels = jnp.float32(net.inputs()), jnp.int32(net.labels())

    def total(params, inputs, epsilon):
        logits_fn = partial(net.apply_fn, params)
        return jnp.sum(attack_fn(logits_fn, inputs, labels=labels, epsilon=epsilon, key=KEY) ** 2)

    slopes = jax.jit(jax.grad(total, argnums=(0, 1, 2)))(as_tree(net.params()), inputs, 0.1)
    assert all(not leaf.any() for leaf in jax.tree.leaves(slopes))


@every_attack
def test_jit_changes_nothing_and_one_trace_serves_every_epsilon_and_key(attack_fn):
    traces, net = [], NETS["dense_tanh"]

    def logits_fn(inputs):
        traces.append(inputs.shape)
        return net.logits_fn()(inputs)

    inputs = jnp.float32(net.inputs(5))
    labels = jnp.argmax(net.logits_fn()(inputs), axis=1)
    jitted = jax.jit(partial(attack_fn, logits_fn))
    jitted(inputs, labels=labels, epsilon=0.1, key=KEY)
    first = len(traces)
    result = jitted(inputs, labels=labels, epsilon=0.3, key=jax.random.key(1))
    assert len(traces) == first
    np.testing.assert_array_equal(result, jitted(inputs, labels=labels, epsilon=0.3, key=jax.random.key(1)))
    plain = attack_fn(net.logits_fn(), inputs, labels=labels, epsilon=0.3, key=jax.random.key(1))
    np.testing.assert_allclose(result, plain, atol=1e-5)


@every_attack
def test_what_a_beaten_example_keeps_does_not_depend_on_how_long_its_batch_goes_on(attack_fn):
    net = NETS["dense_tanh"]

    def logits_fn(inputs):  # the last example cannot be beaten if its label is 0, and is wrong if it is another
        return net.logits_fn()(inputs) + jnp.where(inputs[:, :1] > 0.75, jnp.array([[100.0, 0.0, 0.0]]), 0.0)

    inputs = jnp.float32(net.inputs(30)).at[:, 0].multiply(0.5).at[-1, 0].set(1.0)
    labels = jnp.argmax(logits_fn(inputs), axis=1)
    attack = jax.jit(partial(attack_fn, logits_fn, epsilon=0.2, key=KEY))
    short, long = (attack(inputs, labels=labels.at[-1].set(label)) for label in (1, 0))
    beaten = np.asarray(jnp.argmax(logits_fn(long), axis=1) != labels)
    assert 5 < beaten.sum() < 30
    np.testing.assert_array_equal(short[beaten], long[beaten])


def test_targets_come_from_the_highest_rival_down():
    logits, labels = jnp.array([[4.0, 1.0, 3.0, 2.0], [4.0, 1.0, 3.0, 2.0]]), jnp.array([0, 3])
    order = [ranked_targets(logits, labels, rank=rank).tolist() for rank in range(3)]
    assert order == [[2, 0], [3, 2], [1, 1]]


def test_over_targets_keeps_what_each_target_finds_and_tries_no_more_than_there_are():
    tried = []

    def attack_fn(logits_fn, inputs, *, labels, targets, epsilon, key):
        jax.debug.callback(lambda values: tried.append(values.tolist()), targets, ordered=True)
        return jnp.where((targets == 2)[:, None], inputs + jnp.eye(3)[targets] * epsilon, inputs)

    inputs = jnp.array([[0.9, 0.5, 0.2], [0.9, 0.2, 0.5], [0.9, 0.0, 0.05]])
    attack = over_targets(attack_fn, num_targets=9)
    points = attack(lambda x: x, inputs, labels=jnp.zeros(3, int), epsilon=0.8, key=KEY)
    jax.effects_barrier()
    assert tried == [[1, 2, 2], [2, 1, 1]]
    assert np.argmax(points, axis=1).tolist() == [2, 2, 0]
    np.testing.assert_array_equal(points[2], inputs[2])
    with pytest.raises(ValueError, match="num_targets=0"):
        over_targets(attack_fn, num_targets=0)
