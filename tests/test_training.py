"""The step by hand, the loop over an epoch equal to single steps, padding, bad losses, compilations."""

import logging
from functools import partial
from itertools import pairwise

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import reference
from networks import NETS, as_tree

from jl1.attacks.fgsm import fgsm_random_start
from jl1.gradients import make_gradient, masked_mean
from jl1.losses import LossTerms, defended_loss, penalised_loss
from jl1.penalties import make_penalty
from jl1.training import (
    Examples,
    Hyperparameters,
    TrainState,
    create_train_state,
    make_epoch,
    make_train_step,
    train_step,
    zero_totals,
)

pytestmark = pytest.mark.usefixtures("quick_compile")

NET = NETS["dense_relu"]
ADAM = optax.adam(1e-2)


def plain_terms(logits_fn, inputs, *, labels, lam, epsilon, key):
    return penalised_loss(logits_fn, inputs, labels=labels, lam=lam, penalty_fn=None)


def defended_terms(logits_fn, inputs, *, labels, lam, epsilon, key):
    """Use everything that a step has: lambda, epsilon and the key."""
    return defended_loss(
        logits_fn,
        inputs,
        labels=labels,
        lam=lam,
        epsilon=epsilon,
        penalty_fn=make_penalty("class_sum_l1", outputs="log_probs"),
        attack_fn=partial(fgsm_random_start, key=key),
    )


def hyperparameters(lam=0.0, epsilon=0.0, seed=0):
    return Hyperparameters(jnp.float32(lam), jnp.float32(epsilon), jax.random.key(seed), jnp.int32(1), jnp.int32(0))


def new_state(step=0):
    params = jax.tree.map(jnp.float32, as_tree(NET.params()))
    return TrainState(step=jnp.int32(step), params=params, opt_state=ADAM.init(params))


def assert_equal_trees(one, other, **tolerance):
    for left, right in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        if tolerance:
            np.testing.assert_allclose(left, right, **tolerance)
        else:
            np.testing.assert_array_equal(left, right)


def test_a_step_of_gradient_descent_by_hand():
    # softmax regression: the slope of the mean loss is X^T (p - t) / n
    rng = np.random.default_rng(0)
    weights, inputs, labels = rng.normal(size=(4, 3)), rng.uniform(size=(5, 4)), np.array([0, 1, 2, 1, 0])
    sgd = optax.sgd(0.5)
    new, means = train_step(
        make_gradient(lambda weights, inputs: inputs @ weights, terms_fn=plain_terms),
        sgd,
        state=TrainState(step=jnp.int32(0), params=jnp.float32(weights), opt_state=sgd.init(weights)),
        inputs=jnp.float32(inputs),
        labels=jnp.int32(labels),
        mask=jnp.ones(5, bool),
        hyperparameters=hyperparameters(),
    )
    targets = np.eye(3)[labels]
    slope = inputs.T @ (reference.softmax(inputs @ weights) - targets) / 5
    np.testing.assert_allclose(new.params, weights - 0.5 * slope, rtol=1e-5)
    np.testing.assert_allclose(means.total, reference.cross_entropy(inputs @ weights, targets).mean(), rtol=1e-6)
    assert int(new.step) == 1


@pytest.mark.parametrize(("mask", "mean"), [([1, 1, 1], 2.0), ([1, 0, 1], 3.0), ([0, 1, 0], 0.0), ([0, 0, 0], 0.0)])
def test_the_masked_mean_counts_what_counts(mask, mean):
    terms = LossTerms(jnp.array([1.0, 0.0, 5.0]), jnp.array([2.0, 0.0, 10.0]), jnp.zeros(3))
    assert [float(term) for term in masked_mean(terms, jnp.array(mask, bool))] == [mean, 2 * mean, 0.0]


@pytest.fixture(scope="module")
def step():
    return make_train_step(make_gradient(NET.apply_fn, terms_fn=defended_terms), ADAM)


INPUTS, LABELS = np.float32(NET.inputs(13)), np.int32(NET.labels(13))


def test_what_pads_a_batch_does_not_matter(step):
    mask = np.arange(5) < 3
    given = hyperparameters(0.1, 0.2)
    one = step(new_state(), INPUTS[:5], LABELS[:5], mask, given)
    other_inputs, other_labels = INPUTS[:5].copy(), LABELS[:5].copy()
    other_inputs[3:], other_labels[3:] = 1 - other_inputs[3:], (other_labels[3:] + 1) % 3
    other = step(new_state(), other_inputs, other_labels, mask, given)
    assert_equal_trees(one, other)


def test_a_padded_batch_is_the_smaller_batch():
    step = make_train_step(make_gradient(NET.apply_fn, terms_fn=plain_terms), ADAM)
    padded = step(new_state(), INPUTS[:5], LABELS[:5], np.arange(5) < 3, hyperparameters())
    smaller = step(new_state(), INPUTS[:3], LABELS[:3], np.ones(3, bool), hyperparameters())
    assert_equal_trees(padded, smaller, rtol=1e-4, atol=1e-7)


def test_a_second_step_and_other_hyperparameters_compile_nothing(caplog):
    traces = []

    def counted(*arguments, **options):
        traces.append(options.keys())
        return plain_terms(*arguments, **options)

    step = make_train_step(make_gradient(NET.apply_fn, terms_fn=counted), ADAM)
    state, _ = step(new_state(), INPUTS[:5], LABELS[:5], np.ones(5, bool), hyperparameters())
    first = len(traces)
    given = [hyperparameters(lam, epsilon) for lam in (0.0, 50.0) for epsilon in (0.1, 0.3)]
    with jax.log_compiles(), caplog.at_level(logging.DEBUG, logger="jax"):
        for each in given:
            state, _ = step(state, INPUTS[5:10], LABELS[5:10], np.ones(5, bool), each)
    assert len(traces) == first
    assert "Compiling" not in caplog.text
    assert int(state.step) == 5


def test_the_state_is_donated(step):
    state = new_state()
    after, _ = step(state, INPUTS[:5], LABELS[:5], np.ones(5, bool), hyperparameters())
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state))
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(after))


def test_each_step_has_its_own_randomness():
    def random_terms(logits_fn, inputs, *, labels, lam, epsilon, key):
        noise = jax.random.uniform(key, inputs.shape[:1])
        return LossTerms(noise, noise, noise)

    step = make_train_step(make_gradient(NET.apply_fn, terms_fn=random_terms), ADAM)
    found = set()
    for seed in (0, 1):
        state = new_state()
        for _ in range(3):
            state, means = step(state, INPUTS[:5], LABELS[:5], np.ones(5, bool), hyperparameters(seed=seed))
            found.add(float(means.total))
    assert len(found) == 6


# An epoch of 13 examples in a shuffled order, four batches of four, the last one padded by three.
BATCHES = np.append(np.random.default_rng(1).permutation(13), [-1, -1, -1]).astype(np.int32).reshape(4, 4)


@pytest.fixture(scope="module")
def epoch():
    return make_epoch(make_gradient(NET.apply_fn, terms_fn=defended_terms), ADAM)


def run(epoch, borders, *, state=None, inputs=INPUTS, given=None, batches=BATCHES):
    """Run an epoch in the pieces between some borders."""
    state, totals = new_state() if state is None else state, zero_totals()
    examples = Examples(jnp.asarray(inputs), jnp.asarray(LABELS))
    for start, stop in pairwise(borders):
        given_here = hyperparameters(0.1, 0.2) if given is None else given
        state, totals = epoch(
            state, totals, examples, jnp.asarray(batches), jnp.int32(start), jnp.int32(stop), given_here
        )
    return jax.device_get((state, totals))


def test_an_epoch_is_its_steps_one_after_another(epoch, step):
    state, sums = new_state(), np.zeros(3)
    for rows in BATCHES:
        mask = rows >= 0
        state, means = step(state, INPUTS[rows], LABELS[rows], mask, hyperparameters(0.1, 0.2))
        sums += np.array(means) * mask.sum()
    found, totals = run(epoch, [0, 4])
    assert int(found.step) == 4
    assert_equal_trees(found, state, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(totals.terms, sums, rtol=1e-5)
    assert totals.num_examples == 13
    assert totals.bad_step == -1


@pytest.mark.parametrize("borders", [[0, 1, 2, 3, 4], [0, 3, 4], [0, 0, 2, 2, 4]])
def test_an_epoch_in_pieces_is_the_same_to_the_last_bit(epoch, borders):
    assert_equal_trees(run(epoch, borders), run(epoch, [0, 4]))


def test_one_trace_serves_pieces_of_any_length_and_a_whole_sweep():
    traces = []

    def counted(*arguments, **options):
        traces.append(options.keys())
        return plain_terms(*arguments, **options)

    epoch = make_epoch(make_gradient(NET.apply_fn, terms_fn=counted), ADAM)
    run(epoch, [0, 4])
    first = len(traces)
    for lam in (0.0, 50.0):
        run(epoch, [0, 1, 4], given=hyperparameters(lam, 0.3, seed=int(lam)))
    assert len(traces) == first


@pytest.mark.parametrize("bad_batch", [0, 2, 3])
@pytest.mark.parametrize("borders", [[0, 4], [0, 1, 2, 3, 4]])
def test_the_first_bad_loss_is_found_and_ends_the_loop(epoch, bad_batch, borders):
    inputs = INPUTS.copy()
    inputs[BATCHES[bad_batch, 0]] = np.nan
    state, totals = run(epoch, borders, state=new_state(step=100), inputs=inputs)
    assert totals.bad_step == 100 + bad_batch
    assert state.step == 100 + bad_batch + 1
    assert totals.num_examples == 4 * bad_batch + (1 if bad_batch == 3 else 4)


def test_an_infinite_loss_is_bad_too():
    def infinite(logits_fn, inputs, *, labels, lam, epsilon, key):
        return LossTerms(*(jnp.where(lam > 0, jnp.inf, 0.0) * jnp.ones(len(inputs)) for _ in range(3)))

    epoch = make_epoch(make_gradient(NET.apply_fn, terms_fn=infinite), ADAM)
    assert run(epoch, [0, 4])[1].bad_step == 0
    assert run(epoch, [0, 4], given=hyperparameters(0.0))[1].bad_step == -1


def test_the_epochs_state_and_totals_are_donated(epoch):
    state, totals = new_state(), zero_totals()
    examples = Examples(jnp.asarray(INPUTS), jnp.asarray(LABELS))
    arguments = examples, jnp.asarray(BATCHES), jnp.int32(0), jnp.int32(4), hyperparameters()
    epoch(state, totals, *arguments)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves((state, totals)))
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(arguments))


def test_it_learns_what_can_be_learnt(epoch):
    labels = (INPUTS[:, 0] > 0.5).astype(np.int32)
    examples = Examples(jnp.asarray(INPUTS), jnp.asarray(labels))
    state, losses = new_state(), []
    arguments = examples, jnp.asarray(BATCHES), jnp.int32(0), jnp.int32(4), hyperparameters(1e-3, 0.01)
    for _ in range(60):
        state, totals = epoch(state, zero_totals(), *arguments)
        losses.append(float(totals.terms.cross_entropy / totals.num_examples))
    assert losses[-1] < 0.2 * losses[0]
    decisions = NET.apply_fn(state.params, jnp.asarray(INPUTS)).argmax(axis=1)
    np.testing.assert_array_equal(decisions, labels)


def test_the_state_starts_at_step_0_and_its_key_fixes_the_parameters():
    one, same, other = (
        create_train_state(nn.Dense(3), ADAM, key=jax.random.key(seed), inputs=jnp.zeros((2, 4))) for seed in (0, 0, 1)
    )
    assert int(one.step) == 0
    assert_equal_trees(one, same)
    assert (one.params["kernel"] != other.params["kernel"]).any()


def test_batch_statistics_are_refused_with_what_to_use_instead():
    class Normalised(nn.Module):
        @nn.compact
        def __call__(self, inputs):
            return nn.Dense(3)(nn.BatchNorm(use_running_average=False)(inputs))

    with pytest.raises(ValueError, match=r"Normalised has variables batch_stats .*use GroupNorm or LayerNorm"):
        create_train_state(Normalised(), ADAM, key=jax.random.key(0), inputs=jnp.ones((2, 4)))


def test_terms_that_are_already_averaged_are_refused():
    def averaged(logits_fn, inputs, *, labels, lam, epsilon, key):
        return LossTerms(*[jnp.mean(logits_fn(inputs))] * 3)

    gradient_fn = make_gradient(lambda weights, inputs: inputs @ weights, terms_fn=averaged)
    with pytest.raises(AssertionError, match="shape"):
        gradient_fn(
            jnp.ones((4, 3)),
            jnp.ones((5, 4)),
            labels=jnp.zeros(5, int),
            mask=jnp.ones(5, bool),
            lam=0.0,
            epsilon=0.0,
            key=jax.random.key(0),
        )
