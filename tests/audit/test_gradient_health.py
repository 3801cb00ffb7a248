"""Gradients of attack losses, known in closed form: linear networks, constant ones, the smallest numbers."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jl1.attacks.objectives import OBJECTIVES, margin
from jl1.audit.gradient_health import gradient_alignment, gradient_health, make_alignment_step, make_gradient_step
from jl1.batches import measure

pytestmark = pytest.mark.usefixtures("quick_compile")

WEIGHTS = jnp.array([[1.0, -2.0, 0.5], [3.0, 0.5, 0.0], [0.25, 0.25, 0.25], [-1.0, 1.0, 2.0]])
POINTS = np.random.default_rng(0).uniform(0.2, 0.8, (7, 4)).astype(np.float32)
LABELS = np.arange(7, dtype=np.int32) % 3
KEY = jax.random.key(0)


def linear(inputs):
    return inputs @ WEIGHTS


def health_of(logits_fn, loss_fn=margin, points=POINTS):
    return jax.jit(partial(gradient_health, logits_fn, loss_fn=loss_fn))(points, labels=LABELS[: len(points)])


def alignment_of(logits_fn, loss_fn=margin, epsilon=0.1):
    fn = jax.jit(partial(gradient_alignment, logits_fn, loss_fn=loss_fn))
    return fn(POINTS, labels=LABELS, epsilon=epsilon, key=KEY)


def test_a_linear_network_has_the_gradient_of_its_weights():
    health = health_of(linear)
    logits = np.array(linear(POINTS))
    logits[np.arange(7), LABELS] = -np.inf
    expected = np.array(WEIGHTS)[:, logits.argmax(1)] - np.array(WEIGHTS)[:, LABELS]
    np.testing.assert_allclose(health.l1_norm, np.abs(expected).sum(0), rtol=1e-6)
    np.testing.assert_allclose(health.zero_share, (expected == 0).mean(0))  # the third feature moves no logit
    assert health.zero_share.tolist() == [0.25] * 7
    assert not (health.is_zero | health.is_subnormal | ~health.is_finite).any()


@pytest.mark.parametrize("loss", OBJECTIVES)
@pytest.mark.parametrize("change", [jnp.zeros_like, jnp.round, jnp.sign, jax.lax.stop_gradient])
def test_a_network_without_slopes_has_no_gradient(loss, change):
    health = health_of(lambda inputs: linear(change(inputs)), OBJECTIVES[loss])
    assert health.is_zero.all()
    assert health.is_finite.all()
    np.testing.assert_array_equal(health.zero_share, 1)
    np.testing.assert_array_equal(health.l1_norm, 0)
    cosines = alignment_of(lambda inputs: linear(change(inputs)), OBJECTIVES[loss])
    np.testing.assert_array_equal(cosines, 0)  # and not NaN


def test_a_gradient_too_small_for_its_digits_is_told_from_a_sound_one():
    tiny = float(jnp.finfo(jnp.float32).tiny)
    for factor, is_lost in ((2.0, False), (0.01, True)):
        health = health_of(lambda inputs, factor=factor: linear(inputs) * jnp.float32(factor * tiny))
        assert (health.is_zero | health.is_subnormal).tolist() == [is_lost] * 7


def test_small_gradients_of_float16_have_a_direction():
    inputs, slope = jnp.full((3, 4), 0.5, jnp.float16), 1e-6 * jnp.array([[1.0, -1.0]] * 4)
    given = {"labels": jnp.zeros(3, int), "epsilon": 0.1, "key": jax.random.key(0), "loss_fn": margin}
    cosine = gradient_alignment(lambda x: x.astype(jnp.float32) @ slope, inputs, **given)
    np.testing.assert_allclose(cosine, 1.0, rtol=1e-3)


def test_infinite_and_undefined_gradients_are_told():
    points = np.array([[0.0, 0.5], [0.25, 0.5]], np.float32)
    health = health_of(jnp.sqrt, points=points)
    assert health.is_finite.tolist() == [False, True]
    assert not health.is_zero.any()


@pytest.mark.parametrize("scale", [1.0, 1e-30, 1e30])
def test_a_linear_network_has_cosine_1_on_any_scale(scale):
    two_classes = lambda inputs: scale * inputs @ WEIGHTS[:, :2]  # noqa: E731
    options = {"labels": jnp.arange(7) % 2, "epsilon": 0.1, "key": KEY, "loss_fn": margin}
    np.testing.assert_allclose(gradient_alignment(two_classes, jnp.asarray(POINTS), **options), 1, rtol=1e-6)


def test_the_cosine_is_that_of_the_two_gradients():
    def quadratic(inputs):
        return jnp.stack([jnp.zeros(len(inputs)), jnp.sum((inputs - 0.5) ** 2, axis=1)], axis=1)

    labels = jnp.zeros(7, int)
    cosines = gradient_alignment(quadratic, jnp.asarray(POINTS), labels=labels, epsilon=0.3, key=KEY, loss_fn=margin)
    inside = np.clip(POINTS + 0.3 * np.asarray(jax.random.uniform(KEY, POINTS.shape, minval=-1, maxval=1)), 0, 1)
    here, there = POINTS - 0.5, inside - 0.5
    expected = (here * there).sum(1) / np.linalg.norm(here, axis=1) / np.linalg.norm(there, axis=1)
    np.testing.assert_allclose(cosines, expected, atol=1e-5)
    assert cosines.min() < 0.9


def test_no_radius_is_cosine_1_and_a_gradient_that_turns_is_minus_1():
    np.testing.assert_allclose(alignment_of(lambda inputs: jnp.sin(20 * linear(inputs)), epsilon=0.0), 1, rtol=1e-6)
    peak = lambda inputs: jnp.stack([-jnp.abs(inputs[:, 0] - 0.5), jnp.zeros(len(inputs))], axis=1)  # noqa: E731
    points, labels = jnp.full((64, 1), 0.501), jnp.zeros(64, int)
    cosines = gradient_alignment(peak, points, labels=labels, epsilon=0.2, key=KEY, loss_fn=margin)
    assert set(np.round(np.asarray(cosines)).tolist()) == {-1.0, 1.0}


def test_over_all_examples_with_one_trace_and_a_key_a_batch():
    traces = []

    def apply_fn(params, inputs):
        traces.append(inputs.shape)
        return jnp.sin(3 * inputs @ params)

    options = {"params": WEIGHTS, "inputs": POINTS, "labels": LABELS, "batch_size": 3}
    health = measure(make_gradient_step(apply_fn, loss_fn=margin), **options)
    num_traces = len(traces)
    assert {len(values) for values in health} == {7}
    whole = health_of(lambda inputs: jnp.sin(3 * linear(inputs)))
    for one, other in zip(health, whole, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5)
    step = make_alignment_step(apply_fn, loss_fn=margin)
    cosines = [measure(step, epsilon=epsilon, key=KEY, **options) for epsilon in (0.1, 0.3)]
    assert cosines[0].mean() > cosines[1].mean()
    assert len(traces) == num_traces + 2  # two gradients in one program, for every batch and radius
