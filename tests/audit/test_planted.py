"""Planted adversarial examples: known to exist, out of the reach of noise, found by honest gradients alone."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks import NETS, as_tree

from jl1.attacks.fgsm import fgsm
from jl1.attacks.pgd import pgd
from jl1.audit.planted import make_planted_apply_fn, make_planted_step, penultimate_features, plant
from jl1.batches import measure

pytestmark = pytest.mark.usefixtures("quick_compile")

RNG = np.random.default_rng(0)
WEIGHTS = jnp.asarray(RNG.normal(size=(40, 12)), jnp.float32)
INPUTS = jnp.asarray(RNG.uniform(size=(16, 40)), jnp.float32)
KEY = jax.random.key(0)


def linear(params, inputs):
    return inputs @ params


def lazy(logits_fn, inputs, *, labels, epsilon, key):
    return inputs


def too_far(logits_fn, inputs, *, labels, epsilon, key):
    return fgsm(logits_fn, inputs, labels=labels, epsilon=1.001 * epsilon)


def planted_of(features_fn, attack_fn=fgsm, params=WEIGHTS, epsilon=0.1, num_draws=3):
    step = make_planted_step(features_fn, attack_fn=attack_fn, num_draws=num_draws)
    options = {"inputs": INPUTS, "labels": np.arange(16), "batch_size": 10, "epsilon": epsilon, "key": KEY}
    return measure(step, params, **options)


def test_the_planted_point_is_in_the_ball_breaks_its_network_and_the_input_and_other_corners_do_not():
    readouts = jax.jit(partial(plant, partial(linear, WEIGHTS)))(INPUTS, epsilon=0.1, key=KEY)
    apply_fn = make_planted_apply_fn(linear)
    broken = lambda points: apply_fn((WEIGHTS, readouts), points).argmax(1)  # noqa: E731
    assert readouts.is_planted.all()
    assert (jnp.abs(readouts.example - INPUTS) <= 0.1 + 1e-6).all()
    assert (readouts.example >= 0).all()
    assert (readouts.example <= 1).all()
    assert ((readouts.threshold > 0) & (readouts.threshold < 1)).all()
    assert broken(readouts.example).tolist() == [1] * 16
    assert broken(INPUTS).tolist() == [0] * 16
    in_order = (
        jax.random.rademacher(jax.random.fold_in(KEY, index), INPUTS.shape, INPUTS.dtype) for index in range(100)
    )
    times = sum(np.asarray(broken(jnp.clip(INPUTS + 0.1 * signs, 0, 1))) for signs in in_order)
    assert times.tolist() == [1] * 16  # the planted corner itself, and no other


@pytest.mark.parametrize("scale", [1.0, 1e-25, 1e25])
def test_one_step_finds_every_planted_example_of_a_linear_network_on_any_scale(scale):
    # by Hoelder's inequality the corner that w J points to raises h more than any other
    planted = planted_of(lambda params, inputs: scale * linear(params, inputs))
    assert planted.is_planted.all()
    assert planted.found.all()
    assert planted.found_by_noise.mean() < 0.5


@pytest.mark.parametrize("change", [jax.lax.stop_gradient, lambda inputs: jnp.round(inputs * 8) / 8])
def test_without_a_gradient_none_is_found(change):
    planted = planted_of(lambda params, inputs: linear(params, change(inputs)), partial(pgd, key=None, num_steps=5))
    assert planted.is_planted.all()
    assert not planted.found.any()


def test_features_that_do_not_move_have_nothing_planted_and_nothing_found():
    planted = planted_of(lambda params, inputs: linear(params, jnp.ones_like(inputs)))
    assert not planted.is_planted.any()
    assert not planted.found.any()
    assert not planted.found_by_noise.any()
    undefined = planted_of(lambda params, inputs: linear(params, jnp.sqrt(inputs - 2)))
    assert not (undefined.is_planted | undefined.found | undefined.found_by_noise).any()


@pytest.mark.parametrize("attack_fn", [lazy, too_far])
def test_an_attack_that_does_nothing_or_leaves_the_ball_finds_none(attack_fn):
    assert not planted_of(linear, attack_fn).found.any()


def test_more_noise_finds_more():
    few, many = (
        planted_of(linear, params=WEIGHTS[:, :2], num_draws=num_draws).found_by_noise for num_draws in (1, 300)
    )
    assert few.sum() < many.sum()


@pytest.mark.parametrize("name", ["dense_relu", "conv_relu"])
def test_the_penultimate_features_lead_to_the_logits(name):
    net = NETS[name]
    params, inputs = as_tree(net.params()), jnp.asarray(net.inputs(), jnp.float32)
    features = penultimate_features(net.module)(params, inputs)
    assert features.shape == (3, net.shapes[-1][0])
    logits = features @ params["output"]["kernel"] + params["output"]["bias"][None]
    np.testing.assert_allclose(logits, net.apply_fn(params, inputs), rtol=1e-5)


def test_what_is_refused():
    with pytest.raises(ValueError, match="num_corners=1: must be at least 2"):
        plant(partial(linear, WEIGHTS), INPUTS, epsilon=0.1, key=KEY, num_corners=1)
