"""Penalties in every m-th step: what each step does, what it computes, and what is compiled."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from networks import NETS, as_tree

from jl1.closed_form import make_closed_form_gradient
from jl1.gradients import make_gradient
from jl1.hyperparameters import Hyperparameters
from jl1.lazy import make_lazy_gradient
from jl1.losses import penalised_loss
from jl1.penalties import make_penalty
from jl1.training import Examples, TrainState, make_epoch, make_train_step, train_step, zero_totals

pytestmark = pytest.mark.usefixtures("quick_compile")

NET, SGD, LAM = NETS["dense_relu"], optax.sgd(1e-2), 0.1
INPUTS, LABELS, MASK = jnp.float32(NET.inputs(5)), jnp.int32(NET.labels(5)), jnp.ones(5, bool)


def terms_fn(penalty_fn):
    def terms(logits_fn, inputs, *, labels, lam, epsilon, key):
        return penalised_loss(logits_fn, inputs, labels=labels, lam=lam, penalty_fn=penalty_fn, key=key)

    return terms


def gradient_of(penalty_fn):
    return make_gradient(NET.apply_fn, terms_fn=terms_fn(penalty_fn))


PLAIN = gradient_of(None)
FORMS = {
    "automatic": gradient_of(make_penalty("jacobian_l1")),
    "sampled": gradient_of(make_penalty("jacobian_l1_sampled_classes")),
    "closed": make_closed_form_gradient(NET.module),
}


def new_state():
    params = jax.tree.map(jnp.float32, as_tree(NET.params()))
    return TrainState(step=jnp.int32(0), params=params, opt_state=SGD.init(params))


def hyperparameters(every, lam=LAM):
    return Hyperparameters(jnp.float32(lam), jnp.float32(0.0), jax.random.key(7), jnp.int32(every))


def assert_close(one, other):
    for left, right in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(left, right, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("lazy", [True, False], ids=["lazy", "eager"])
def test_every_third_step_has_three_times_the_penalty_and_the_others_none(form, lazy):
    gradient_fn = make_lazy_gradient(FORMS[form], PLAIN) if lazy else FORMS[form]
    step = make_train_step(gradient_fn, SGD)
    by_hand = jax.jit(partial(FORMS[form], epsilon=0.0, labels=LABELS, mask=MASK))
    state, params = new_state(), new_state().params
    for number in range(7):
        lam = 3 * LAM if number % 3 == 0 else 0.0
        key = jax.random.fold_in(jax.random.key(7), number)
        slope, expected = by_hand(params, INPUTS, lam=jnp.float32(lam), key=key)
        params = jax.tree.map(lambda leaf, down: leaf - 1e-2 * down, params, slope)
        state, means = step(state, INPUTS, LABELS, MASK, hyperparameters(3))
        assert_close(state.params, params)
        np.testing.assert_allclose(means.total, expected.total, rtol=1e-5)
        np.testing.assert_allclose(means.cross_entropy + LAM * means.penalty, means.total, rtol=1e-5)
        assert (means.penalty > 0) == (number % 3 == 0)


def test_an_epochs_mean_penalty_is_that_of_all_its_steps():
    # no learning: every step sees the same network, and the epoch's means must be those without laziness
    still = optax.sgd(0.0)
    batches = jnp.arange(5, dtype=jnp.int32)[None].repeat(4, axis=0)
    found = []
    for every in (1, 2, 4):
        gradient_fn = FORMS["automatic"] if every == 1 else make_lazy_gradient(FORMS["automatic"], PLAIN)
        state = TrainState(jnp.int32(0), new_state().params, still.init(new_state().params))
        arguments = Examples(INPUTS, LABELS), batches, jnp.int32(0), jnp.int32(4), hyperparameters(every)
        found.append(make_epoch(gradient_fn, still)(state, zero_totals(), *arguments)[1])
    for other in found[1:]:
        assert_close(other, found[0])


def test_the_jacobian_is_computed_in_the_penalised_steps_only():
    counted = []

    def counting(*arguments, **options):
        jax.debug.callback(lambda: counted.append(1))
        return FORMS["automatic"](*arguments, **options)

    step, state = make_train_step(make_lazy_gradient(counting, PLAIN), SGD), new_state()
    seen = []
    for _ in range(5):
        state, _ = step(state, INPUTS, LABELS, MASK, hyperparameters(2))
        jax.effects_barrier()
        seen.append(len(counted))
    assert seen == [1, 1, 2, 2, 3]
    step(state, INPUTS, LABELS, MASK, hyperparameters(1, lam=0.0))
    jax.effects_barrier()
    assert len(counted) == 3  # without lambda in no step


def test_both_forms_are_compiled_once_and_serve_every_m():
    def products(gradient_fn):
        step = partial(train_step, gradient_fn, SGD)
        batch = {"inputs": INPUTS, "labels": LABELS, "mask": MASK, "hyperparameters": hyperparameters(2)}
        return jax.jit(step).lower(state=new_state(), **batch).as_text().count("stablehlo.dot_general")

    assert products(make_lazy_gradient(FORMS["automatic"], PLAIN)) == products(FORMS["automatic"]) + products(PLAIN)
    traces = []

    def traced(*arguments, **options):
        traces.append(options.keys())
        return FORMS["automatic"](*arguments, **options)

    step, state = make_train_step(make_lazy_gradient(traced, PLAIN), SGD), new_state()
    for every in (1, 2, 5):
        state, _ = step(state, INPUTS, LABELS, MASK, hyperparameters(every))
    assert len(traces) == 1


def test_logits_in_few_bits_are_trained_on_too():
    def few_bits(params, inputs):
        return NET.apply_fn(params, inputs).astype(jnp.bfloat16)

    penalty_fn = make_penalty("jacobian_l1_sampled_classes")
    forms = (make_gradient(few_bits, terms_fn=terms_fn(form)) for form in (penalty_fn, None))
    state, totals = make_train_step(make_lazy_gradient(*forms), SGD)(
        new_state(), INPUTS, LABELS, MASK, hyperparameters(2)
    )
    assert int(state.step) == 1
    assert all(jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves((state.params, totals)))
