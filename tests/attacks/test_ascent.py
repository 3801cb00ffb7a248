"""The attacks of adversarial training: steps by hand, ball and range, the divergence and why its ascent needs noise."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from networks import NETS, as_tree

from jl1.attacks.ascent import pgd_last_point, steepest_ascent
from jl1.attacks.divergence import kl_ascent, kl_divergence
from jl1.attacks.fgsm import fgsm_random_start
from jl1.losses import cross_entropy

pytestmark = pytest.mark.usefixtures("strict_dtypes", "quick_compile")

KEY = jax.random.key(3)
NET = NETS["dense_tanh"]
INPUTS, LABELS = jnp.float32(NET.inputs(40)), jnp.int32(NET.labels(40))
ATTACKS = {"pgd": pgd_last_point, "kl": kl_ascent}


def logits_fn(inputs):
    return NET.apply_fn(jax.tree.map(jnp.float32, as_tree(NET.params())), inputs)


def test_steps_worked_out_by_hand():
    # uphill to 0.6 from 0.5 in steps of 2.5 * 0.2 / 2 = 0.25: 0.75 is cut to 0.7, then back to 0.45; x2 climbs to the
    # border of the range and stays
    def hill(points):
        return points[:, 1] - (points[:, 0] - 0.6) ** 2

    start = jnp.array([[0.5, 0.9]])
    given = {"centre": start, "epsilon": 0.2}
    np.testing.assert_allclose(steepest_ascent(hill, start, num_steps=1, **given), [[0.7, 1.0]], rtol=1e-6)
    np.testing.assert_allclose(steepest_ascent(hill, start, num_steps=2, **given), [[0.45, 1.0]], rtol=1e-6)
    found = steepest_ascent(hill, start, num_steps=3, step_size=0.04, **given)
    np.testing.assert_allclose(found, [[0.62, 1.0]], rtol=1e-6)


def test_one_step_of_5_4_epsilon_is_fgsm_with_a_random_start():
    given = {"labels": LABELS, "epsilon": 0.1, "key": KEY}
    one = jax.jit(partial(pgd_last_point, logits_fn, num_steps=1, step_size=0.125, **given))(INPUTS)
    np.testing.assert_allclose(one, jax.jit(partial(fgsm_random_start, logits_fn, **given))(INPUTS), atol=1e-7)


@pytest.mark.parametrize("attack_fn", ATTACKS.values(), ids=ATTACKS)
@pytest.mark.parametrize(("lower", "upper"), [(0.0, 1.0), (0.2, 0.7)])
def test_points_stay_in_the_ball_and_the_range(attack_fn, lower, upper):
    inputs = jnp.clip(INPUTS, lower, upper)
    attack = jax.jit(partial(attack_fn, logits_fn, labels=LABELS, key=KEY, num_steps=5, lower=lower, upper=upper))
    for epsilon in (0.0, 1e-4, 0.03, 0.3, 1.0):  # the start of kl_ascent is outside of the first two
        attacked = np.asarray(attack(inputs, epsilon=epsilon))
        assert np.abs(attacked - inputs).max() <= epsilon + 1e-6
        assert attacked.min() >= lower
        assert attacked.max() <= upper
        assert np.abs(attacked - inputs).max() >= min(epsilon, 0.2) - 1e-6  # and it does move


def test_the_loss_at_the_attacked_points_is_higher_and_grows_with_the_steps():
    def mean_loss(points):
        return float(jnp.mean(cross_entropy(logits_fn(points), LABELS)))

    def attacked(num_steps, epsilon=0.1):
        given = {"labels": LABELS, "epsilon": epsilon, "key": KEY, "step_size": 0.05}
        return jax.jit(partial(pgd_last_point, logits_fn, num_steps=num_steps, **given))(INPUTS)

    losses = [mean_loss(INPUTS), mean_loss(attacked(1)), mean_loss(attacked(5))]
    assert losses == sorted(losses)
    assert losses[2] > losses[0] + 0.02
    assert mean_loss(attacked(5, epsilon=0.2)) > losses[2]


def test_the_divergence_is_the_oracles():
    logits, others = (np.random.default_rng(seed).normal(0, 3, (6, 4)) for seed in (0, 1))
    probs, other_probs = reference.softmax(logits), reference.softmax(others)
    expected = [
        sum(p * np.log(p / q) for p, q in zip(*pair, strict=True)) for pair in zip(probs, other_probs, strict=True)
    ]
    np.testing.assert_allclose(kl_divergence(jnp.float32(logits), jnp.float32(others)), expected, rtol=1e-4)
    np.testing.assert_allclose(kl_divergence(jnp.float32(logits), jnp.float32(logits) + 7), 0.0, atol=1e-6)
    assert np.isfinite(kl_divergence(jnp.array([[200.0, -200.0]]), jnp.array([[-200.0, 200.0]]))).all()


def test_the_divergence_has_no_slope_at_the_inputs_which_is_why_the_ascent_starts_beside_them(x64):
    inputs = jnp.asarray(np.asarray(INPUTS), jnp.float64)
    fn = NET.logits_fn()
    slope_at = jax.jit(jax.grad(lambda points: jnp.sum(kl_divergence(fn(inputs), fn(points)))))
    beside = inputs + 1e-3 * jax.random.normal(KEY, inputs.shape)
    assert np.abs(slope_at(inputs)).max() < 1e-14
    assert np.median(np.abs(slope_at(beside))) > 1e-6


def test_the_ascent_on_the_divergence_finds_more_of_it_than_noise_or_one_step():
    def mean_divergence(points):
        return float(jnp.mean(kl_divergence(logits_fn(INPUTS), logits_fn(points))))

    def attacked(num_steps, **given):
        return jax.jit(partial(kl_ascent, logits_fn, epsilon=0.1, key=KEY, num_steps=num_steps, **given))(INPUTS)

    noise = INPUTS + 0.1 * jnp.sign(jax.random.normal(KEY, INPUTS.shape))
    assert mean_divergence(attacked(10)) > 2 * mean_divergence(noise)
    assert mean_divergence(attacked(10)) > mean_divergence(attacked(1, step_size=0.1))


@pytest.mark.parametrize("attack_fn", ATTACKS.values(), ids=ATTACKS)
def test_the_key_fixes_the_start_and_nothing_flows_through(attack_fn):
    def total(scale, key):
        given = {"labels": LABELS[:3], "epsilon": 0.1, "key": key, "num_steps": 2, "step_size": 0.01}
        return jnp.sum(attack_fn(lambda points: scale * logits_fn(points), scale * INPUTS[:3], **given) ** 2)

    value, slope = jax.jit(jax.value_and_grad(total))(1.0, KEY)
    assert slope == 0
    assert value == jax.jit(total)(1.0, KEY)
    assert value != jax.jit(total)(1.0, jax.random.key(4))


@pytest.mark.parametrize("attack_fn", ATTACKS.values(), ids=ATTACKS)
def test_what_cannot_be_meant_is_refused(attack_fn):
    attack = partial(attack_fn, logits_fn, INPUTS, labels=LABELS, key=KEY)
    with pytest.raises(ValueError, match="num_steps=0: must be at least 1"):
        attack(epsilon=0.1, num_steps=0)
    with pytest.raises(ValueError, match="epsilon=8"):
        attack(epsilon=8)
