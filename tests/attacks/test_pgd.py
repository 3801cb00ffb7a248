"""PGD: finds what one step misses, keeps the best point, stays in the ball, and never gets weaker by more work."""

from functools import partial
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from networks import NETS, as_tree

from jl1.attacks.fgsm import fgsm
from jl1.attacks.objectives import margin
from jl1.attacks.pgd import pgd

pytestmark = pytest.mark.usefixtures("strict_dtypes", "quick_compile")

KEY = jax.random.key(5)


def wavy_model(inputs):
    """Return logits with many local maxima of the loss inside a ball."""
    waves = jnp.sin(jnp.array([[17.0, 23.0, 31.0]]) * inputs.sum(1, keepdims=True) + inputs[:, :1])
    return 3 * waves + jnp.array([[1.0, 0.0, 0.0]])


INPUTS = jnp.asarray(np.random.default_rng(0).uniform(size=(60, 5)), jnp.float32)
LABELS = np.array(jax.jit(wavy_model)(INPUTS)).argmax(axis=1)
LABELS[:6] = (LABELS[:6] + 1) % 3  # the first six are wrong from the start
LABELS = jnp.asarray(LABELS)


def strength(logits_fn, attacked, labels):
    """Return which examples are fooled, and their losses."""
    logits, labels = np.asarray(jax.jit(logits_fn)(attacked)), np.asarray(labels)
    return logits.argmax(axis=1) != labels, reference.cross_entropy(logits, np.eye(logits.shape[1])[labels])


def jitted_pgd(logits_fn, **options):
    return jax.jit(partial(pgd, logits_fn, **options))


def planted(inputs):
    """Return logits that are wrong only for x in (0.55, 0.6), a tent with its foot far from there."""
    tent = 1 - 40 * jnp.abs(inputs - 0.575)
    return jnp.concatenate([jnp.zeros_like(tent), tent], axis=1)


def test_it_finds_a_planted_point_that_fgsm_jumps_over():
    # from 0.5 uphill in steps of 2.5 * 0.3 / 20 = 0.0375: 0.5375, 0.575; one step of 0.3 ends at 0.8
    options = {"labels": jnp.array([0]), "epsilon": 0.3}
    point = jnp.array([[0.5]])
    missed, found = jax.jit(partial(fgsm, planted, **options))(point), jitted_pgd(planted, key=None, **options)(point)
    assert strength(planted, missed, options["labels"])[0].tolist() == [False]
    assert strength(planted, found, options["labels"])[0].tolist() == [True]
    np.testing.assert_allclose(found, [[0.575]], rtol=1e-6)


def test_a_wrong_point_of_lower_loss_is_kept_before_a_right_one_of_higher_loss():
    # Three classes, label 0. Uphill the loss rises from a point where class 1 leads narrowly (wrong) to one where
    # classes 1 and 2 together outweigh the label but neither leads it (right, with more loss).
    def logits_fn(inputs):
        x = inputs[:, :1]
        label = jnp.zeros_like(x)
        first = jnp.where(x < 0.6, 0.01, -0.1) + 0.001 * x
        second = jnp.where(x < 0.6, -5.0, -0.1) + 0.001 * x
        return jnp.concatenate([label, first, second], axis=1)

    options = {"labels": jnp.array([0]), "epsilon": 0.3, "key": None, "num_steps": 4, "step_size": 0.1}
    start = jnp.array([[0.5]])
    losses = [float(strength(logits_fn, jnp.array([[x]]), options["labels"])[1][0]) for x in (0.5, 0.8)]
    assert losses[1] > losses[0]  # so the loss alone would choose the harmless point
    found = jitted_pgd(logits_fn, **options)(start)
    assert strength(logits_fn, found, options["labels"])[0].tolist() == [True]
    assert found[0, 0] < 0.6


def test_one_full_step_without_a_key_is_fgsm_where_that_is_stronger():
    weights = jnp.asarray(np.random.default_rng(3).normal(size=(5, 3)), jnp.float32)
    options = {"labels": LABELS, "epsilon": 0.1}
    one_step = jitted_pgd(lambda x: x @ weights, key=None, num_steps=1, step_size=0.1, **options)(INPUTS)
    expected = jax.jit(partial(fgsm, lambda x: x @ weights, **options))(INPUTS)
    np.testing.assert_allclose(one_step, expected, atol=1e-6)


@pytest.mark.parametrize(("key", "lower", "upper"), [(None, 0.0, 1.0), (KEY, -1.0, 1.0), (KEY, 0.2, 0.7)])
def test_points_stay_in_the_ball_and_the_range(key, lower, upper):
    inputs = jnp.asarray(np.random.default_rng(1).uniform(lower, upper, (6, 2, 2, 1)), jnp.float32)
    weights = jnp.asarray(np.random.default_rng(2).normal(size=(4, 3)), jnp.float32)
    attack = jax.jit(
        partial(
            pgd,
            lambda x: x.reshape(-1, 4) @ weights,
            labels=jnp.arange(6) % 3,
            key=key,
            num_steps=5,
            lower=lower,
            upper=upper,
        )
    )
    for epsilon in (0.0, 0.03, 0.3, 1.0):
        attacked = np.asarray(attack(inputs, epsilon=epsilon))
        assert np.abs(attacked - inputs).max() <= epsilon + 1e-6
        assert attacked.min() >= lower
        assert attacked.max() <= upper
        assert np.abs(attacked - inputs).max() >= min(epsilon, (upper - lower) / 4) - 1e-6


@pytest.fixture(scope="module")
def by_work():
    """Attack the wavy model with more and more work: (steps, restarts), of one step size and one key."""
    attack = partial(jitted_pgd, wavy_model, labels=LABELS, epsilon=0.04, key=KEY, step_size=0.01)
    work = [(1, 1), (9, 1), (9, 5)]
    attacked = [attack(num_steps=steps, num_restarts=restarts)(INPUTS) for steps, restarts in work]
    return [strength(wavy_model, points, LABELS) for points in (INPUTS, *attacked)]


def test_more_steps_or_restarts_are_never_weaker(by_work):
    for (fooled, loss), (fooled_more, loss_more) in pairwise(by_work):
        assert (fooled_more >= fooled).all()
        assert (loss_more[fooled_more == fooled] >= loss[fooled_more == fooled] - 1e-5).all()
    num_fooled = [fooled.sum() for fooled, _ in by_work]
    assert num_fooled[0] == 6  # a point that is wrong to begin with stays wrong
    assert len(set(num_fooled)) == 4  # and the work pays here, so the claim is not empty


def test_the_key_fixes_the_starts_and_the_default_step_reaches_the_border_from_anywhere():
    attack = jitted_pgd(wavy_model, labels=LABELS, epsilon=0.1, num_steps=8)
    one, same, other, explicit = (
        attack(INPUTS, key=key, **step)
        for key, step in [(KEY, {}), (KEY, {}), (jax.random.key(6), {}), (KEY, {"step_size": 2.5 * 0.1 / 8})]
    )
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()
    np.testing.assert_allclose(one, explicit, atol=1e-6)


def test_no_gradient_flows_through_it():
    net = NETS["dense_tanh"]
    inputs, labels = jnp.float32(net.inputs()), jnp.int32(net.labels())

    def total(params, inputs, epsilon):
        logits_fn = partial(net.apply_fn, params)
        return jnp.sum(pgd(logits_fn, inputs, labels=labels, epsilon=epsilon, key=KEY, num_steps=1) ** 2)

    slopes = jax.jit(jax.grad(total, argnums=(0, 1, 2)))(as_tree(net.params()), inputs, 0.1)
    assert all(not leaf.any() for leaf in jax.tree.leaves(slopes))


def test_jit_changes_nothing_and_one_trace_serves_every_epsilon():
    traces = []

    def logits_fn(inputs):
        traces.append(inputs.shape)
        return planted(inputs)

    inputs, labels = jnp.linspace(0.0, 1.0, 9)[:, None], jnp.zeros(9, int)
    jitted = jax.jit(partial(pgd, logits_fn, num_steps=4))
    jitted(inputs, labels=labels, epsilon=0.1, key=KEY)
    first = len(traces)
    plain = pgd(planted, inputs, labels=labels, epsilon=0.3, key=KEY, num_steps=4)
    np.testing.assert_allclose(jitted(inputs, labels=labels, epsilon=0.3, key=KEY), plain, atol=1e-6)
    jitted(inputs, labels=labels, epsilon=0.0, key=jax.random.key(1))
    assert len(traces) == first


def test_a_given_start_is_where_the_walk_begins():
    # the margin falls from both sides towards 0.5, where the walk from the inputs has no slope to leave by
    valley = lambda inputs: jnp.concatenate([jnp.full_like(inputs, 0.1), jnp.abs(inputs - 0.5)], axis=1)  # noqa: E731
    inputs, labels = jnp.full((2, 1), 0.5), jnp.array([0, 0])
    attack = jitted_pgd(valley, labels=labels, epsilon=0.25, key=None, num_steps=10, loss_fn=margin)
    starts = jnp.array([[0.45], [0.55]])
    np.testing.assert_allclose(attack(inputs, start=starts), [[0.25], [0.75]], atol=1e-6)


def test_examples_do_not_interact():
    attack = jax.jit(partial(pgd, wavy_model, epsilon=0.04, key=None, num_steps=5))
    whole, order = attack(INPUTS, labels=LABELS), np.random.default_rng(0).permutation(60)
    np.testing.assert_allclose(attack(INPUTS[order], labels=LABELS[order]), whole[order], atol=1e-5)
    np.testing.assert_allclose(attack(INPUTS[7:9], labels=LABELS[7:9]), whole[7:9], atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_steps": 0}, "num_steps=0.*at least 1"),
        ({"num_restarts": 0}, "num_restarts=0.*at least 1"),
        ({"num_restarts": 2, "key": None}, "num_restarts=2 needs a key"),
        ({"start": jnp.array([[0.5]])}, "key and start are both given"),
        ({"epsilon": -0.1}, r"epsilon=-0.1: must be in \[0, 1\]"),
        ({"epsilon": 1.0, "lower": 0.2, "upper": 0.7}, r"epsilon=1.0: must be in \[0, 0.5\]"),
    ],
)
def test_senseless_work_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        pgd(planted, jnp.array([[0.5]]), labels=jnp.array([0]), **{"epsilon": 0.1, "key": KEY, **options})
