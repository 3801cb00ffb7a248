"""Accuracies over all examples, their intervals, and penalties over a data set."""

from functools import partial
from statistics import NormalDist

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks import NETS, as_tree

from jl1.attacks.fgsm import fgsm
from jl1.attacks.pgd import pgd
from jl1.batches import over_batches
from jl1.evaluation import accuracy, accuracy_interval, make_eval_step, make_penalty_step
from jl1.penalties import make_penalty

pytestmark = pytest.mark.usefixtures("quick_compile")

NET = NETS["dense_relu"]
PARAMS = as_tree(NET.params())
INPUTS, LABELS = np.float32(NET.inputs(23)), np.int32(NET.labels(23))
KEY = jax.random.key(0)


def values_of(step, batch_size=23, **options):
    return np.concatenate(
        list(over_batches(step, PARAMS, inputs=INPUTS, labels=LABELS, batch_size=batch_size, **options))
    )


@pytest.mark.parametrize("batch_size", [1, 4, 23, 24, 500])
def test_no_example_is_dropped_counted_twice_or_moved(batch_size):
    shapes = []

    def batch_fn(params, inputs, labels):
        shapes.append(inputs.shape)
        return labels + 10 * np.round(inputs[:, 0], 3)

    np.testing.assert_allclose(values_of(batch_fn, batch_size), LABELS + 10 * np.round(INPUTS[:, 0], 3), rtol=1e-6)
    assert set(shapes) == {(min(batch_size, 23), 4)}  # one shape, so one compilation
    assert len(shapes) == -(-23 // batch_size)


def test_clean_accuracy_is_that_of_a_loop():
    step = make_eval_step(NET.apply_fn)
    logits = NET.reference(NET.params(), np.float64(INPUTS))[0]
    right = [np.argmax(row) == label for row, label in zip(logits, LABELS, strict=True)]
    assert 0 < sum(right) < 23
    np.testing.assert_array_equal(values_of(step, 5, epsilon=0.3, key=KEY), right)  # epsilon has nothing to move
    np.testing.assert_array_equal(step(PARAMS, INPUTS, LABELS), right)
    assert accuracy(NET.apply_fn, PARAMS, inputs=INPUTS, labels=LABELS, batch_size=5) == sum(right) / 23


@pytest.mark.parametrize(("right", "total"), [(0, 1), (1, 1), (0, 500), (500, 500), (461, 500), (9876, 10000)])
@pytest.mark.parametrize("level", [0.95, 0.5])
def test_the_ends_of_the_interval_are_the_shares_from_which_the_found_one_is_just_as_far(right, total, level):
    found, square = right / total, NormalDist().inv_cdf((1 + level) / 2) ** 2
    ends = np.roots([1 + square / total, -2 * found - square / total, found**2])  # (found - p)^2 = z^2 p (1 - p) / n
    assert accuracy_interval(right, total, level=level) == pytest.approx(sorted(ends.real), abs=1e-7)


@pytest.mark.parametrize(("right", "total"), [(-1, 4), (5, 4), (0, 0)])
def test_counts_that_are_no_share_are_refused(right, total):
    with pytest.raises(ValueError, match="not a share"):
        accuracy_interval(right, total)


@pytest.mark.parametrize("level", [-0.95, 0.0, 1.0, 95.0, float("nan")])
def test_a_level_that_is_none_is_refused(level):
    with pytest.raises(ValueError, match=f"level={level}: must be above 0 and below 1"):
        accuracy_interval(9, 10, level=level)


@pytest.fixture(scope="module")
def fgsm_step():
    return make_eval_step(NET.apply_fn, attack_fn=fgsm)


def test_accuracy_under_attack_is_that_of_the_attacked_points(fgsm_step):
    logits_fn = partial(NET.apply_fn, PARAMS)
    attacked = jax.jit(partial(fgsm, logits_fn))(INPUTS, labels=LABELS, epsilon=0.1)
    logits = NET.reference(NET.params(), np.float64(attacked))[0]
    np.testing.assert_array_equal(values_of(fgsm_step, 8, epsilon=0.1, key=KEY), logits.argmax(axis=1) == LABELS)


@pytest.mark.parametrize(("attack_predicted_labels", "right"), [(False, [False, False]), (True, [True, False])])
def test_an_attack_on_predicted_labels_is_judged_by_the_true_ones(attack_predicted_labels, right):
    # logits = inputs. The first point is taken for 0 and is 1: on the prediction the attack leaves 0 and so mends it,
    # on the true label it does not. The second is right before either attack and wrong after.
    step = make_eval_step(lambda _, inputs: inputs, attack_fn=fgsm, attack_predicted_labels=attack_predicted_labels)
    points = np.array([[0.6, 0.5], [0.5, 0.6]], np.float32)
    assert step(PARAMS, points, np.array([1, 1], np.int32), 0.2, KEY).tolist() == right


def test_one_trace_serves_every_epsilon_and_key():
    traces = []

    def apply_fn(params, inputs):
        traces.append(inputs.shape)
        return NET.apply_fn(params, inputs)

    step = make_eval_step(apply_fn, attack_fn=partial(pgd, num_steps=1))
    values_of(step, 8, epsilon=0.0, key=KEY)
    first = len(traces)
    for seed, epsilon in enumerate((0.1, 0.3)):
        values_of(step, 8, epsilon=epsilon, key=jax.random.key(seed))
    assert len(traces) == first


def test_accuracy_is_that_of_the_step_and_compiles_once(fgsm_step):
    traces = []

    def apply_fn(params, inputs):
        traces.append(inputs.shape)
        return NET.apply_fn(params, inputs)

    points = {"inputs": INPUTS, "labels": LABELS, "batch_size": 8}
    for attack_fn, keys in ((fgsm, {}), (partial(fgsm), {"key": KEY})):
        for epsilon in (0.1, 0.3):
            found = accuracy(apply_fn, PARAMS, **points, attack_fn=attack_fn, epsilon=epsilon, **keys)
            assert found == values_of(fgsm_step, 8, epsilon=epsilon, key=KEY).mean()
            first = traces[:]
            assert accuracy(apply_fn, PARAMS, **points, attack_fn=attack_fn, epsilon=epsilon / 2, **keys) >= found
            assert len(traces) == len(first) + 1  # the new radius is looked at, and nothing compiled


@pytest.mark.parametrize(
    ("attack_fn", "options", "message"),
    [
        (fgsm, {}, "an attack needs a radius: give epsilon"),
        (pgd, {"epsilon": 0.1}, "this attack draws at random: give key="),
        (fgsm, {"epsilon": -0.1}, "epsilon=-0.1: a radius is at least 0"),
        (fgsm, {"epsilon": float("nan")}, "epsilon=nan: a radius is at least 0"),
        (fgsm, {"epsilon": 8}, r"epsilon=8: must be in \[0, 1\], .* \(8 grey levels are 8/255"),
        (fgsm, {"epsilon": jnp.float32(1.5)}, r"epsilon=1.5: must be in \[0, 1\]"),
        (partial(pgd, num_steps=1), {"epsilon": 1.5, "key": KEY}, r"epsilon=1.5: must be in \[0, 1\]"),
    ],
)
def test_an_attack_without_what_it_needs_is_refused(attack_fn, options, message):
    with pytest.raises(ValueError, match=message):
        accuracy(NET.apply_fn, PARAMS, inputs=INPUTS, labels=LABELS, attack_fn=attack_fn, **options)


def test_accuracy_takes_a_radius_that_the_attack_takes():
    points = {"inputs": INPUTS, "labels": LABELS}
    for attack_fn, epsilon in ((partial(fgsm, norm="l2"), 1.5), (partial(fgsm, upper=2.0), np.float32(2.0))):
        assert 0 <= accuracy(NET.apply_fn, PARAMS, **points, attack_fn=attack_fn, epsilon=epsilon) < 1


def test_a_radius_is_looked_at_once():
    traces = []

    def apply_fn(params, inputs):
        traces.append(inputs.shape)
        return NET.apply_fn(params, inputs)

    for _ in range(2):
        accuracy(apply_fn, PARAMS, inputs=INPUTS, labels=LABELS, attack_fn=fgsm, epsilon=0.1)
    assert len(traces) == 1 + 2  # the radius; the attack and its verdict


def test_every_batch_has_a_key_of_its_own():
    keys = []

    def batch_fn(params, inputs, labels, *, key):
        keys.append(jax.random.key_data(key).tolist())
        return labels

    values_of(batch_fn, 8, key=KEY)
    assert keys == [jax.random.key_data(jax.random.fold_in(KEY, number)).tolist() for number in range(3)]


def test_penalties_over_a_data_set_are_those_of_the_points():
    penalty_fn = make_penalty("jacobian_l1")
    step = make_penalty_step(NET.apply_fn, penalty_fn=penalty_fn)
    jacobian = NET.reference(NET.params(), np.float64(INPUTS))[1]
    np.testing.assert_allclose(values_of(step, 7), np.abs(jacobian).sum(axis=(1, 2)), rtol=1e-4)


@pytest.mark.parametrize(("num_examples", "batch_size"), [(0, 5), (3, 0), (3, -1)])
def test_nothing_to_do_is_refused_at_the_call(num_examples, batch_size):
    points = {"inputs": INPUTS[:num_examples], "labels": LABELS[:num_examples]}
    with pytest.raises(ValueError, match=f"{num_examples} examples in batches of {batch_size}: both"):
        over_batches(lambda *_: pytest.fail("called"), PARAMS, **points, batch_size=batch_size)


def test_an_attack_that_returns_another_shape_is_refused():
    step = make_eval_step(NET.apply_fn, attack_fn=lambda _, x, **__: x[:, :2])
    with pytest.raises(AssertionError, match="shape"):
        step(PARAMS, INPUTS, LABELS, 0.1, KEY)
