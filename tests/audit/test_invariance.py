"""Attacks through transformed logits: the same where nothing saturates, stronger where a softmax does."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jl1.attacks.fgsm import fgsm
from jl1.attacks.pgd import pgd
from jl1.audit.invariance import TRANSFORMS, make_invariance_step, transformed
from jl1.batches import measure
from jl1.evaluation import make_eval_step

pytestmark = pytest.mark.usefixtures("quick_compile")

RNG = np.random.default_rng(0)
WEIGHTS = RNG.normal(size=(5, 4)).astype(np.float32)
INPUTS = RNG.uniform(0.3, 0.7, (30, 5)).astype(np.float32)
LABELS = np.int32((INPUTS @ WEIGHTS).argmax(1))
KEY = jax.random.key(0)


def stands(scale, attack_fn, epsilon=0.1):
    step = make_invariance_step(lambda params, inputs: scale * inputs @ params, attack_fn=attack_fn)
    options = {"inputs": INPUTS, "labels": LABELS, "batch_size": 16, "epsilon": epsilon, "key": KEY}
    return measure(step, jnp.asarray(WEIGHTS), **options).stands


@pytest.mark.parametrize("name", TRANSFORMS)
def test_no_transform_changes_a_decision(name):
    logits = transformed(jnp.asarray(INPUTS @ WEIGHTS), TRANSFORMS[name])
    np.testing.assert_array_equal(logits.argmax(1), LABELS)


def test_the_transforms_are_what_their_names_say():
    logits = jnp.array([[4.0, 2.0, 0.0]])
    values = {name: transformed(logits, transform)[0].tolist() for name, transform in TRANSFORMS.items()}
    assert values["plain"] == [4, 2, 0]
    assert values["shift 1e4"] == [10004, 10002, 10000]
    assert values["scale 0.1"] == pytest.approx([0.4, 0.2, 0])
    assert values["scale 10"] == [40, 20, 0]
    assert values["centred"] == [2, 0, -2]


def test_the_plain_column_is_the_plain_attack():
    attack_fn = partial(pgd, num_steps=5)
    step = make_eval_step(lambda params, inputs: inputs @ params, attack_fn=attack_fn)
    expected = measure(step, jnp.asarray(WEIGHTS), inputs=INPUTS, labels=LABELS, batch_size=16, epsilon=0.1, key=KEY)
    columns = stands(1.0, attack_fn)
    assert columns.shape == (30, len(TRANSFORMS))
    np.testing.assert_array_equal(columns[:, 0], expected)
    assert 0 < expected.sum() < 30


def test_a_saturated_softmax_is_broken_through_a_tenth_of_its_logits():
    # one step, two classes and no kink: an attack either has the whole gradient or none
    step = make_invariance_step(lambda params, inputs: 2e3 * inputs @ params, attack_fn=fgsm)
    weights = jnp.array([[1.0, 0.0], [0.0, 1.0]])
    points = np.array([[0.54, 0.46], [0.501, 0.499]], np.float32)  # gaps of 160 and 4, and exp(-160) is 0
    values = measure(step, weights, inputs=points, labels=np.zeros(2, np.int32), epsilon=0.1, key=KEY).stands
    columns = dict(zip(TRANSFORMS, values.T.tolist(), strict=True))
    assert columns["plain"] == [True, False]
    assert columns["scale 0.1"] == [False, False]
    assert columns["scale 10"] == [True, False]


def test_a_radius_of_zero_breaks_nothing():
    assert stands(1.0, partial(pgd, num_steps=2), epsilon=0.0).all()
