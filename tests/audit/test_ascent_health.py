"""Walks whose course is known: over at once, rising to the end, past an adversarial point and beyond."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jl1.attacks.objectives import margin
from jl1.audit.ascent_health import ascent_health, make_ascent_step
from jl1.batches import measure

pytestmark = pytest.mark.usefixtures("quick_compile")

KEY = jax.random.key(1)


def against_zero(values):
    """Two logits, 0 for the label and a value for its rival."""
    return jnp.stack([jnp.zeros_like(values), values], axis=1)


def walk(logits_fn, points, epsilon=0.2, loss_fn=margin, **options):
    fn = jax.jit(partial(ascent_health, logits_fn, loss_fn=loss_fn, **options))
    return fn(points, labels=jnp.zeros(len(points), int), epsilon=epsilon, key=KEY)


def test_a_linear_network_is_climbed_before_the_last_steps():
    points = jnp.full((30, 4), 0.5)
    health = walk(lambda inputs: against_zero(inputs @ jnp.ones(4) - 2.5), points)
    np.testing.assert_array_equal(health.late_rise, 0)
    assert health.is_broken.all()  # 0.7 * 4 > 2.5
    assert health.was_broken.all()


def test_a_lowest_coordinate_that_moves_alone_still_rises_at_the_end():
    points = jnp.full((5, 100), 0.5)
    health = walk(lambda inputs: against_zero(jnp.min(inputs, axis=1) - 1), points, num_steps=100)
    assert (health.late_rise > 0.03).all()
    assert (health.late_rise < 0.1).all()  # it rises ever more slowly, as ever more coordinates are low
    assert not health.was_broken.any()


def test_a_constant_network_does_not_rise():
    health = walk(lambda inputs: against_zero(0 * inputs[:, 0] - 1), jnp.full((3, 2), 0.5))
    np.testing.assert_array_equal(health.late_rise, 0)
    assert not health.was_broken.any()


def test_an_adversarial_point_that_the_walk_passes_is_seen_and_lost():
    def logits_fn(inputs):
        bump = 0.01 - (inputs[:, 0] - 0.5) ** 2  # adversarial within 0.1 of 0.5; the walk goes on to 0.7
        return jnp.stack([jnp.zeros_like(bump), bump, inputs[:, 0] - 9], axis=1)

    points = jnp.full((40, 1), 0.5)
    health = walk(logits_fn, points, loss_fn=lambda logits, labels: logits[:, 2])
    starts = jax.random.uniform(KEY, points.shape, minval=-1, maxval=1)[:, 0] * 0.2 + 0.5
    assert not health.is_broken.any()
    np.testing.assert_array_equal(health.was_broken, starts < 0.6)
    assert 0 < health.was_broken.sum() < 40


def test_one_program_serves_every_radius_and_batch():
    weights = jnp.asarray(np.random.default_rng(0).normal(size=(6, 3)))
    inputs = np.random.default_rng(1).uniform(size=(20, 6)).astype(np.float32)
    labels = np.int32((inputs @ weights).argmax(1))
    traces = []

    def apply_fn(params, inputs):
        traces.append(1)
        return inputs @ params

    step = make_ascent_step(apply_fn, loss_fn=margin, num_steps=10)
    options = {"params": weights, "inputs": inputs, "labels": labels, "batch_size": 8}
    health = measure(step, epsilon=0.1, key=KEY, **options)
    num_traces = len(traces)
    assert measure(step, epsilon=0.3, key=KEY, **options).is_broken.mean() > health.is_broken.mean() > 0
    assert len(traces) == num_traces


def test_what_is_refused():
    with pytest.raises(ValueError, match="num_steps=1: must be at least 2"):
        walk(lambda inputs: inputs, jnp.ones((1, 2)), num_steps=1)
    with pytest.raises(ValueError, match="epsilon=-1"):
        ascent_health(lambda x: x, jnp.ones((1, 2)), labels=jnp.array([0]), epsilon=-1, key=KEY, loss_fn=margin)
