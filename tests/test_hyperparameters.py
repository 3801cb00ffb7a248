"""The warm-up of epsilon: its values by step, in a step and an epoch, without a second trace."""

from fractions import Fraction
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from networks import NETS, as_tree

from jl1.closed_form import make_closed_form_gradient
from jl1.gradients import make_gradient
from jl1.hyperparameters import Hyperparameters, radius_at
from jl1.losses import LossTerms, cross_entropy
from jl1.training import Examples, TrainState, make_epoch, make_train_step, zero_totals

pytestmark = pytest.mark.usefixtures("quick_compile")

NET, SGD = NETS["dense_relu"], optax.sgd(0.0)
INPUTS, LABELS, MASK = jnp.float32(NET.inputs(6)), jnp.int32(NET.labels(6)), jnp.ones(6, bool)


def hyperparameters(epsilon=0.3, warmup_steps=0):
    return Hyperparameters(
        jnp.float32(0.0), jnp.float32(epsilon), jax.random.key(0), warmup_steps=jnp.int32(warmup_steps)
    )


def new_state(step=0):
    params = jax.tree.map(jnp.float32, as_tree(NET.params()))
    return TrainState(step=jnp.int32(step), params=params, opt_state=SGD.init(params))


@pytest.mark.parametrize("epsilon", [0.1, 0.3, 8 / 255])
@pytest.mark.parametrize("warmup_steps", [1, 3, 7, 430, 2150])
def test_the_radius_grows_in_equal_parts_from_exactly_0_to_exactly_epsilon(epsilon, warmup_steps):
    radius = jax.jit(partial(radius_at, hyperparameters(epsilon, warmup_steps)))
    assert radius(jnp.int32(0)) == 0
    for step in {1, warmup_steps // 2, warmup_steps - 1}:
        expected = epsilon * Fraction(min(step, warmup_steps), warmup_steps)
        np.testing.assert_allclose(radius(jnp.int32(step)), float(expected), rtol=1e-6)
    for step in (warmup_steps, warmup_steps + 1, 2**31 - 1):
        assert radius(jnp.int32(step)) == jnp.float32(epsilon)


def test_without_a_warmup_the_radius_is_epsilon_from_the_first_step_on():
    radius = jax.jit(partial(radius_at, hyperparameters(0.3)))
    assert {float(radius(jnp.int32(step))) for step in (0, 1, 100)} == {float(jnp.float32(0.3))}


def seen_radius(logits_fn, inputs, *, labels, lam, epsilon, key):
    """Return the radius as the loss, so that a step tells which it got."""
    values = 0 * jnp.sum(logits_fn(inputs), axis=1) + epsilon
    return LossTerms(values, values, values)


def test_every_step_gets_its_own_radius_and_one_trace_serves_them_and_other_warmups():
    traces = []

    def counted(*arguments, **options):
        traces.append(options.keys())
        return seen_radius(*arguments, **options)

    step = make_train_step(make_gradient(NET.apply_fn, terms_fn=counted), SGD)
    for given in (hyperparameters(0.4, 4), hyperparameters(0.2, 2), hyperparameters(0.1)):
        state, found = new_state(), []
        for _ in range(6):
            state, means = step(state, INPUTS, LABELS, MASK, given)
            found.append(float(means.total))
        np.testing.assert_allclose(found, [radius_at(given, number) for number in range(6)], rtol=1e-6)
    assert len(traces) == 1


def test_an_epoch_that_begins_within_the_warmup_goes_on_with_it():
    epoch = make_epoch(make_gradient(NET.apply_fn, terms_fn=seen_radius), SGD)
    batches, given = jnp.arange(6, dtype=jnp.int32).reshape(3, 2), hyperparameters(0.4, 8)
    arguments = Examples(INPUTS, LABELS), batches, jnp.int32(0), jnp.int32(3), given
    _, totals = epoch(new_state(step=4), zero_totals(), *arguments)
    np.testing.assert_allclose(totals.terms.total / totals.num_examples, 0.4 * np.mean([4, 5, 6]) / 8, rtol=1e-6)


def test_the_twins_of_the_closed_form_are_warmed_up_too():
    gradient_fn = make_closed_form_gradient(NET.module, twin_loss_fn=cross_entropy)
    step = make_train_step(gradient_fn, SGD)
    totals = [
        float(step(new_state(number), INPUTS, LABELS, MASK, given)[1].total)
        for number, given in ((1, hyperparameters(0.4, 4)), (0, hyperparameters(0.1)), (0, hyperparameters(0.4)))
    ]
    assert totals[0] == pytest.approx(totals[1], rel=1e-6)  # a quarter of the warm-up has a quarter of the radius
    assert totals[2] > totals[1] + 0.01
