"""Eq. 2 on segments: a network that is flat at both ends and steep between them, and trained-like random ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jl1.attacks.fgsm import fgsm
from jl1.audit.segment_check import segment_check, walk_segments
from jl1.models import Dense, SequentialNet, make_apply_fn
from jl1.segments import segment_gradient_norms

pytestmark = pytest.mark.usefixtures("quick_compile")

STEP = SequentialNet((Dense(2),), num_classes=2)
STEP_PARAMS = {  # z_0 rises from 0 to 1 between 0.25 and 0.5; z_1 is 0
    "layer_0": {"kernel": jnp.ones((1, 2)), "bias": jnp.array([-0.25, -0.5])},
    "output": {"kernel": jnp.array([[4.0, 0.0], [-4.0, 0.0]]), "bias": jnp.zeros(2)},
}


def test_flat_ends_bound_nothing_and_the_supremum_does():
    norms = walk_segments(STEP, STEP_PARAMS, starts=np.zeros((1, 1)), ends=np.ones((1, 1)), labels=np.zeros(1, int))
    check = segment_check(norms, np.ones(1))
    assert check.outcome == "PASS"
    assert (check.values["above_supremum"], check.values["above_ends"], check.values["cases"]) == (0, 1, 1)


def test_a_violated_eq_2_fails():
    norms = walk_segments(STEP, STEP_PARAMS, starts=np.zeros((1, 1)), ends=np.ones((1, 1)), labels=np.zeros(1, int))
    assert segment_check(norms._replace(supremum=norms.supremum / 8), np.ones(1)).outcome == "FAIL"


def test_a_walk_that_was_given_up_is_a_warning():
    norms = walk_segments(
        STEP, STEP_PARAMS, starts=np.zeros((1, 1)), ends=np.ones((1, 1)), labels=np.zeros(1, int), max_pieces=1
    )
    check = segment_check(norms, np.ones(1))
    assert check.outcome == "WARN"
    assert "1 walks were given up" in check.advice


def test_batches_give_the_same_as_one_call_and_eq_2_holds_on_a_random_network():
    module = SequentialNet((Dense(16), Dense(16)), num_classes=4)
    inputs = np.random.default_rng(0).uniform(size=(7, 12)).astype(np.float32)
    labels = np.arange(7) % 4
    params = module.init(jax.random.key(0), jnp.asarray(inputs))["params"]
    ends = np.asarray(
        fgsm(lambda x: make_apply_fn(module)(params, x), jnp.asarray(inputs), labels=jnp.asarray(labels), epsilon=0.3)
    )
    norms = walk_segments(module, params, starts=inputs, ends=ends, labels=labels, batch_size=3)
    at_once = segment_gradient_norms(
        module, params, starts=jnp.asarray(inputs), ends=jnp.asarray(ends), labels=jnp.asarray(labels)
    )
    np.testing.assert_allclose(norms.supremum, at_once.supremum, rtol=1e-5)
    radius = np.abs(ends - inputs).max(axis=1)
    check = segment_check(norms, radius)
    assert check.outcome == "PASS"
    assert check.values["cases"] == 7 * 3  # the margin to the class itself is constant


def walk_of_the_step(**changes):
    norms = walk_segments(STEP, STEP_PARAMS, starts=np.zeros((1, 1)), ends=np.ones((1, 1)), labels=np.zeros(1, int))
    return norms._replace(**changes)


def test_a_change_through_pieces_too_short_to_count_is_a_warning_and_no_violation():
    norms = walk_of_the_step(supremum=np.zeros((1, 2)), uncounted=np.array([[0.0, 1.0]]))
    check = segment_check(norms, np.ones(1))
    assert (check.outcome, check.values["above_supremum"]) == ("WARN", 0)


@pytest.mark.parametrize(("factor", "num_open"), [(0.5, 1), (0.0, 1), (np.nan, 2)])
def test_a_walk_whose_pieces_do_not_add_up_to_the_change_fails(factor, num_open):
    check = segment_check(walk_of_the_step(integral=factor * walk_of_the_step().integral), np.ones(1))
    assert (check.outcome, check.values["not_closed"], check.values["above_supremum"]) == ("FAIL", num_open, 0)
    assert "the pieces do not add up" in check.advice


def test_a_change_where_no_gradient_was_met_is_a_violation():
    check = segment_check(walk_of_the_step(supremum=np.zeros((1, 2))), np.ones(1))
    assert (check.outcome, check.values["above_supremum"]) == ("FAIL", 1)


def test_the_rounding_of_large_logits_is_no_violation():
    norms = walk_of_the_step()
    small = norms._replace(supremum=norms.supremum / 8, change=norms.change / 1e3, logit_size=np.array([1e6]))
    assert segment_check(small, np.full(1, 1e-3)).outcome == "PASS"
