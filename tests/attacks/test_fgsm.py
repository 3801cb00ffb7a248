"""FGSM: the step by hand, the ball and the range, nothing flows through it, and which labels it uses."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from networks import NETS, as_tree

from jl1.attacks.fgsm import fgsm, fgsm_random_start, predicted_labels
from jl1.losses import cross_entropy

pytestmark = pytest.mark.usefixtures("strict_dtypes", "quick_compile")

ATTACKS = {"fgsm": fgsm, "random_start": partial(fgsm_random_start, key=jax.random.key(3))}


def random_model(features, seed=0):
    """Return a linear model of flattened inputs with four classes."""
    size = int(np.prod(features))
    weights = jnp.asarray(np.random.default_rng(seed).normal(size=(size, 4)), jnp.float32)
    return lambda inputs: inputs.reshape(-1, size) @ weights


def test_the_step_worked_out_by_hand():
    # logits (x1 - x3, -x1 + 2 x3): the loss of class 0 falls with x1 and rises with x3; x2 has no say and stays
    weights = jnp.array([[1.0, -1.0], [0.0, 0.0], [-1.0, 2.0]])
    inputs = jnp.array([[0.5, 0.5, 0.5], [0.1, 0.0, 0.9]])
    attack = jax.jit(partial(fgsm, lambda x: x @ weights, epsilon=0.25))
    attacked = attack(inputs, labels=jnp.array([0, 0]))
    assert attacked.tolist() == [[0.25, 0.5, 0.75], [0.0, 0.0, 1.0]]  # the second one is clipped
    other = attack(inputs, labels=jnp.array([1, 1]))
    np.testing.assert_allclose(other, [[0.75, 0.5, 0.25], [0.35, 0.0, 0.65]], rtol=1e-6)


@pytest.mark.parametrize("name", ["dense_tanh", "conv_relu"])
def test_it_is_the_oracles(name, x64):
    net = NETS[name]
    inputs, labels = net.inputs(), net.labels()
    logits, jacobian = net.reference(net.params(), inputs)
    gradient = ((reference.softmax(logits) - np.eye(3)[labels])[:, :, None] * jacobian).sum(axis=1)
    expected = np.clip(inputs + 0.1 * np.sign(gradient).reshape(inputs.shape), 0.0, 1.0)
    attacked = jax.jit(partial(fgsm, net.logits_fn()))(jnp.asarray(inputs), labels=jnp.asarray(labels), epsilon=0.1)
    np.testing.assert_allclose(attacked, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("attack_fn", ATTACKS.values(), ids=ATTACKS)
@pytest.mark.parametrize(("features", "lower", "upper"), [((7,), 0.0, 1.0), ((3, 2, 2), -1.0, 1.0), ((2, 3), 0.2, 0.7)])
def test_points_stay_in_the_ball_and_the_range(attack_fn, features, lower, upper):
    inputs = jnp.asarray(np.random.default_rng(1).uniform(lower, upper, (6, *features)), jnp.float32)
    attack = jax.jit(partial(attack_fn, random_model(features), labels=jnp.arange(6) % 4, lower=lower, upper=upper))
    for epsilon in (0.0, 0.03, 0.3, 1.0):
        attacked = np.asarray(attack(inputs, epsilon=epsilon))
        assert np.abs(attacked - inputs).max() <= epsilon + 1e-6
        assert attacked.min() >= lower
        assert attacked.max() <= upper
        assert np.abs(attacked - inputs).max() >= min(epsilon, (upper - lower) / 4) - 1e-6  # and it does move


@pytest.mark.parametrize("attack_fn", ATTACKS.values(), ids=ATTACKS)
def test_no_gradient_flows_through_it(attack_fn):
    net = NETS["dense_tanh"]
    inputs, labels = jnp.float32(net.inputs()), jnp.int32(net.labels())

    def total(params, inputs, epsilon):
        # loss_fn's own dependence on the logits would carry a slope if the step were not detached
        return jnp.sum(attack_fn(partial(net.apply_fn, params), inputs, labels=labels, epsilon=epsilon) ** 2)

    slopes = jax.jit(jax.grad(total, argnums=(0, 1, 2)))(as_tree(net.params()), inputs, 0.1)
    assert all(not leaf.any() for leaf in jax.tree.leaves(slopes))


@pytest.mark.parametrize("attack_fn", ATTACKS.values(), ids=ATTACKS)
def test_jit_changes_nothing_and_one_trace_serves_every_epsilon(attack_fn):
    traces = []

    def logits_fn(inputs):
        traces.append(inputs.shape)
        return random_model((7,))(inputs)

    inputs, labels = jnp.full((3, 7), 0.5), jnp.array([0, 1, 2])
    jitted = jax.jit(partial(attack_fn, logits_fn))
    for epsilon in (0.1, 0.0, 0.3):
        plain = attack_fn(random_model((7,)), inputs, labels=labels, epsilon=epsilon)
        np.testing.assert_allclose(jitted(inputs, labels=labels, epsilon=epsilon), plain, rtol=1e-6)
    assert len(traces) == 1


def test_examples_do_not_interact():
    logits_fn, labels, order = random_model((7,)), jnp.array([0, 1, 2, 3]), np.array([3, 1, 0, 2])
    inputs = jnp.asarray(np.random.default_rng(1).uniform(size=(4, 7)), jnp.float32)
    attack = jax.jit(partial(fgsm, logits_fn, epsilon=0.1))
    whole = attack(inputs, labels=labels)
    np.testing.assert_array_equal(attack(inputs[order], labels=labels[order]), whole[order])
    np.testing.assert_array_equal(attack(inputs[1:2], labels=labels[1:2]), whole[1:2])


def test_another_loss_gives_another_step():
    weights = jnp.array([[1.0, 0.0, 3.0]])
    # nearly uniform targets: the slope is mean probability minus 1/3 per class, here toward the heaviest class
    smooth = partial(cross_entropy, smoothing=0.99)
    options = {"labels": jnp.array([2]), "epsilon": 0.1}
    attack = jax.jit(partial(fgsm, lambda x: x @ weights, **options), static_argnames="loss_fn")
    plain, smoothed = attack(jnp.array([[0.5]])), attack(jnp.array([[0.5]]), loss_fn=smooth)
    np.testing.assert_allclose([plain[0, 0], smoothed[0, 0]], [0.4, 0.6], rtol=1e-6)


@pytest.mark.parametrize("attack_fn", ATTACKS.values(), ids=ATTACKS)
@pytest.mark.parametrize(
    ("epsilon", "message"), [(-0.1, r"epsilon=-0.1: must be in \[0, 1\]"), (8.0, r"epsilon=8.0: .*8/255 = 0.0314")]
)
def test_a_radius_that_cannot_be_meant_is_refused(attack_fn, epsilon, message):
    with pytest.raises(ValueError, match=message):
        attack_fn(lambda x: x, jnp.array([[0.5, 0.5]]), labels=jnp.array([0]), epsilon=epsilon)


def test_predicted_labels_are_the_decision():
    assert predicted_labels(lambda x: x, jnp.array([[0.1, 0.9, 0.3], [2.0, 1.0, 0.0]])).tolist() == [1, 0]


def test_predicted_labels_matter_only_where_the_model_is_wrong():
    logits_fn, labels = random_model((7,)), jnp.array([0, 1, 2, 3] * 5)
    inputs = jnp.asarray(np.random.default_rng(2).uniform(size=(20, 7)), jnp.float32)
    decisions = predicted_labels(logits_fn, inputs)
    wrong = np.asarray(decisions != labels)
    assert 0 < wrong.sum() < 20
    fgsm_by = jax.jit(partial(fgsm, logits_fn, epsilon=0.1))
    with_true, with_predicted = (np.asarray(fgsm_by(inputs, labels=used)) for used in (labels, decisions))
    differs = (with_true != with_predicted).any(axis=1)
    np.testing.assert_array_equal(differs, wrong)


class TestRandomStart:
    """With a linear model the gradient is the same everywhere, so the start shows through."""

    inputs = np.full((200, 2), 0.5, np.float32)
    # logits (x1 - x2, x2 - x1): the loss of class 0 falls with x1 and rises with x2
    jitted = jax.jit(partial(fgsm_random_start, lambda x: x - x[:, ::-1]))

    def attack(self, seed=0, **options):
        chosen = {"labels": np.zeros(200, np.int32), "key": jax.random.key(seed), "epsilon": 0.2, **options}
        return np.asarray(self.__class__.jitted(self.inputs, **chosen))

    def test_the_start_is_uniform_in_the_ball(self):
        noise = (self.attack(step_size=0.0) - 0.5) / 0.2
        assert np.abs(noise).max() <= 1 + 1e-6
        assert np.abs(noise).max() > 0.98
        standard_error = 1 / np.sqrt(3 * noise.size)  # the variance of a uniform on [-1, 1] is 1/3
        assert abs(noise.mean()) < 4 * standard_error
        np.testing.assert_allclose(noise.var(), 1 / 3, rtol=0.15)

    def test_one_step_is_taken_from_it_and_projected(self):
        start = self.attack(step_size=0.0)
        expected = np.clip(start + 0.1 * np.array([-1, 1]), 0.3, 0.7)
        np.testing.assert_allclose(self.attack(step_size=0.1), expected, atol=1e-6)

    def test_the_default_step_is_five_quarters_of_the_radius(self):
        np.testing.assert_array_equal(self.attack(), self.attack(step_size=0.25))

    def test_the_key_fixes_the_start(self):
        np.testing.assert_array_equal(self.attack(seed=1), self.attack(seed=1))
        assert (self.attack(seed=1) != self.attack(seed=2)).any()

    def test_epsilon_0_is_the_inputs(self):
        np.testing.assert_array_equal(self.attack(epsilon=0.0), self.inputs)
