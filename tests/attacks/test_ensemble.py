"""The standard ensemble: who is attacked by whom, in which batches; the order of attacks; planted examples."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jl1.attacks.apgd import apgd_targeted
from jl1.attacks.budgets import BUDGETS, Stage
from jl1.attacks.ensemble import standard_attack
from jl1.attacks.fgsm import fgsm
from jl1.attacks.noise import random_noise
from jl1.attacks.objectives import targeted_margin
from jl1.attacks.pgd import pgd
from jl1.data import load_dataset
from jl1.models import Dense, SequentialNet, make_apply_fn

KEY = jax.random.key(5)
SIZES = {"batch_sizes": (8, 3)}


def shifted(shift, inputs):
    """Return logits that are the inputs, class 0 moved by the parameter."""
    return inputs + shift * jnp.array([[1.0, 0.0, 0.0]])


def move(amount):
    """Make an attack that moves class 1 up by an amount, whatever epsilon says."""

    def attack_fn(logits_fn, inputs, *, labels, epsilon, key, norm, lower, upper):
        return inputs + jnp.array([[0.0, amount, 0.0]])

    return attack_fn


INPUTS = np.float32([[0.5, 0.5 - 0.02 * gap, 0.0] for gap in range(1, 21)])
INPUTS[3, 1] = 0.9  # wrong from the start
LABELS = np.zeros(20, int)


def test_each_stage_has_the_points_that_stand_and_the_verdict_is_recomputed():
    told = []
    stages = {"weak": Stage(move(0.1)), "strong": Stage(move(0.3))}
    result = standard_attack(
        shifted,
        0.0,
        inputs=INPUTS,
        labels=LABELS,
        epsilon=0.3,
        key=KEY,
        budget=stages,
        progress=lambda *report: told.append(report),
        **SIZES,
    )
    # gaps of 0.02 to 0.1 (a tie goes to the label) fall to the first, of up to 0.3 to the second
    moved = INPUTS[:, 1] + np.float32([[0.1], [0.3]])
    expected = np.where(moved[0] > 0.5, "weak", np.where(moved[1] > 0.5, "strong", ""))
    expected[3] = "clean"
    assert result.broken_by.tolist() == expected.tolist()
    np.testing.assert_array_equal(result.stands, expected == "")
    np.testing.assert_array_equal(result.inputs[expected == ""], INPUTS[expected == ""])
    np.testing.assert_array_equal(result.inputs[3], INPUTS[3])
    np.testing.assert_array_equal(result.inputs[expected == "strong", 1], moved[1][expected == "strong"])
    # 19 = 8 + 8 + 3 stand at first, and then 8 + 3 + 3 + (1 of 3), each told once and the stage's end once more
    began = int(((expected != "clean") & (expected != "weak")).sum())
    assert [report for report in told if report[0] == "weak"] == [("weak", n, 19) for n in (8, 16, 19, 19)]
    assert {report[2] for report in told if report[0] == "strong"} == {began}
    assert told[-1] == ("strong", began, began)


def test_the_last_verdict_decides_who_stands_and_by_whom_the_others_fell():
    def influenced(_, inputs):
        """Let an example raise class 1 of the one behind it in its batch: an answer that depends on the batch."""
        before = jnp.concatenate([jnp.zeros(1), inputs[:-1, 2]])
        return inputs + before[:, None] * jnp.array([[0.0, 1.0, 0.0]])

    def attack_fn(logits_fn, inputs, *, labels, epsilon, key, norm, lower, upper):
        return jnp.where(inputs[:, 1:2] == 0.5, jnp.array([[0.0, 0.5, 1.0]]), inputs)

    inputs = np.float32([[0.2, 0.9, 0.0], [0.9, 0.1, 0.0], [0.9, 0.5, 0.0], [0.9, 0.1, 0.0]])
    result = standard_attack(
        influenced,
        None,
        inputs=inputs,
        labels=np.zeros(4, int),
        epsilon=1.0,
        key=KEY,
        budget={"weak": Stage(attack_fn)},
        batch_sizes=(2, 1),
    )
    # attacked in the batches (1, 2) and (3), judged in (0, 1) and (2, 3), where 2 has been moved in front of 3
    assert result.broken_by.tolist() == ["clean", "", "weak", "clean"]
    assert result.stands.tolist() == [False, True, False, False]


def test_every_target_is_tried_on_what_the_last_one_left():
    seen = []

    def attack_fn(logits_fn, inputs, *, labels, targets, epsilon, key, norm, lower, upper):
        jax.debug.callback(lambda values: seen.append(values.tolist()), targets, ordered=True)
        return jnp.where((targets == 2)[:, None], jnp.array([[0.0, 0.0, 1.0]]), inputs)

    inputs = np.float32([[0.9, 0.5, 0.2], [0.9, 0.2, 0.5], [0.9, 0.4, 0.1]])
    result = standard_attack(
        shifted,
        0.0,
        inputs=inputs,
        labels=np.zeros(3, int),
        epsilon=1.0,
        key=KEY,
        budget={"targeted": Stage(attack_fn, num_targets=9)},  # of which the network has two
        batch_sizes=(3, 1),
    )
    jax.effects_barrier()
    assert seen == [[1, 2, 1], [2], [2]]
    assert not result.stands.any()


def test_every_restart_has_its_own_key_and_what_the_last_one_left():
    seen = []

    def attack_fn(logits_fn, inputs, *, labels, epsilon, key, norm, lower, upper):
        jax.debug.callback(
            lambda values, key: seen.append((values[:, 1].tolist(), key.tolist())),
            inputs,
            jax.random.key_data(key),
            ordered=True,
        )
        return inputs.at[:, 1].add(jnp.where(inputs[:, 1] == jnp.max(inputs[:, 1]), 1.0, 0.0))  # breaks the closest

    inputs = np.float32([[0.9, 0.1, 0.0], [0.9, 0.3, 0.0], [0.9, 0.2, 0.0]])
    result = standard_attack(
        shifted,
        0.0,
        inputs=inputs,
        labels=np.zeros(3, int),
        epsilon=1.0,
        key=KEY,
        budget={"restarted": Stage(attack_fn, num_restarts=2)},
        batch_sizes=(3, 1),
        upper=2.0,
    )
    jax.effects_barrier()
    assert [values for values, _ in seen] == [
        pytest.approx([0.1, 0.3, 0.2]),
        pytest.approx([0.1]),
        pytest.approx([0.2]),
    ]
    assert len({str(key) for _, key in seen}) == 3
    assert not result.stands.any()
    assert set(result.broken_by) == {"restarted"}


def test_each_stage_compiles_once_a_batch_size_for_all_epsilons_params_and_keys():
    traces = []

    def apply_fn(shift, inputs):
        traces.append(inputs.shape[0])
        return shifted(shift, inputs)

    stages = {"apgd_t": Stage(partial(apgd_targeted, loss_fn=targeted_margin, num_steps=3), num_targets=2)}
    options = {"inputs": INPUTS, "labels": LABELS, "budget": stages, **SIZES}
    accuracies = [
        standard_attack(apply_fn, shift, epsilon=epsilon, key=jax.random.key(seed), **options).stands.mean()
        for shift, epsilon, seed in ((0.0, 0.025, 0), (0.1, 0.05, 1), (0.0, 0.0, 2), (0.0, 0.055, 3))
    ]
    # class 1 is 0.02 to 0.4 behind and gains two epsilons at most; the shift adds 0.1 to what it lacks
    assert accuracies == [0.85, 0.95, 0.95, 0.75]
    num_batches = len([size for size in traces if size != 1])
    standard_attack(apply_fn, 0.3, epsilon=0.11, key=jax.random.key(4), **options)
    assert len([size for size in traces if size != 1]) == num_batches  # of size 1 only the shape is looked at


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_sizes": (4, 0)}, r"batches of \(4, 0\)"),
        ({"inputs": INPUTS[:0], "labels": LABELS[:0]}, "0 examples"),
        ({"epsilon": -0.1}, "epsilon=-0.1"),
        ({"budget": "huge"}, "unknown budget 'huge'; known are full, few_classes, fast"),
        ({}, "targeted_dlr needs at least 4 classes, the network has 3"),
    ],
)
def test_senseless_work_is_refused(options, message):
    stages = {"apgd_t": BUDGETS["full"]["apgd_t"]}
    chosen = {"inputs": INPUTS, "labels": LABELS, "epsilon": 0.01, "key": KEY, "budget": stages, **SIZES, **options}
    with pytest.raises(ValueError, match=message):
        standard_attack(shifted, 0.0, **chosen)


def test_the_published_budgets():
    full = BUDGETS["full"]
    assert list(full) == ["apgd_ce", "apgd_t", "fab_t", "square"]
    assert [stage.num_targets for stage in full.values()] == [0, 9, 9, 0]
    square = {"num_queries": 5000, "schedule_queries": 10_000}
    assert [stage.attack_fn.keywords for stage in full.values()] == [{"num_steps": 100}] * 3 + [square]


def planted(targets, inputs):
    """Return logits that are right but for a small ball around each of the planted points, and rippled between."""
    squares = ((inputs[:, None, :] - targets[None]) ** 2).sum(axis=2)
    ripples = 0.0005 * jnp.sin(200 * inputs).sum(axis=1)
    score = 20 * (0.05**2 - squares.min(axis=1) + ripples)
    others = jnp.broadcast_to(jnp.array([[-5.0, -5.1, -5.2]]), (len(inputs), 3))
    return jnp.concatenate([jnp.zeros((len(inputs), 1)), score[:, None], others], axis=1)


def accuracy(apply_fn, params, attack_fn, **options):
    """Return the share of points that an attack leaves right."""
    inputs, labels = jnp.asarray(options.pop("inputs")), jnp.asarray(options.pop("labels"))
    logits_fn = partial(apply_fn, params)
    points = jax.jit(partial(attack_fn, logits_fn))(inputs, labels=labels, **options)
    return float((np.asarray(logits_fn(points)).argmax(axis=1) == np.asarray(labels)).mean())


def test_it_finds_a_planted_example_in_a_small_region_of_every_ball():
    rng = np.random.default_rng(0)
    inputs = np.float32(rng.uniform(0.2, 0.8, (60, 8)))
    targets = jnp.asarray(inputs + rng.uniform(-0.1, 0.1, inputs.shape), jnp.float32)
    options = {"inputs": inputs, "labels": np.zeros(60, np.int32), "epsilon": 0.1}
    result = standard_attack(planted, targets, key=KEY, budget="fast", batch_sizes=(60, 20), **options)
    assert (~result.stands).mean() >= 0.95
    assert np.abs(result.inputs - inputs).max() <= 0.1 + 1e-6
    assert accuracy(planted, targets, fgsm, **options) > 0.7  # and neither one step nor luck finds them
    assert accuracy(planted, targets, random_noise, key=KEY, **options) > 0.7


@pytest.fixture(scope="module")
def digits():
    """Train a small network on the embedded digits for a few epochs, and give 200 other digits."""
    data = load_dataset("mnist_5k")
    module, optimizer = SequentialNet((Dense(64),)), optax.adam(1e-3)
    apply_fn, inputs, labels = make_apply_fn(module), data.train.inputs, data.train.labels
    params = module.init(jax.random.key(0), jnp.asarray(inputs[:1]))["params"]

    def mean_loss(params, rows):
        losses = optax.softmax_cross_entropy_with_integer_labels(apply_fn(params, inputs[rows]), labels[rows])
        return losses.mean()

    def step(state, rows):
        params, moments = state
        updates, moments = optimizer.update(jax.grad(mean_loss)(params, rows), moments)
        return (optax.apply_updates(params, updates), moments), None

    inputs, labels = jnp.asarray(inputs), jnp.asarray(labels)
    batches = np.concatenate([np.random.default_rng(0).permutation(4000).reshape(40, 100) for _ in range(6)])
    (params, _), _ = jax.jit(partial(jax.lax.scan, step))((params, optimizer.init(params)), jnp.asarray(batches))
    return apply_fn, params, data.test.inputs[:200], data.test.labels[:200]


def test_noise_fgsm_pgd_and_the_ensemble_come_in_this_order(digits):
    apply_fn, params, inputs, labels = digits
    options = {"inputs": inputs, "labels": labels, "epsilon": 0.03}
    by_noise = accuracy(apply_fn, params, random_noise, key=KEY, **options)
    by_fgsm = accuracy(apply_fn, params, fgsm, **options)
    by_pgd = accuracy(apply_fn, params, pgd, key=KEY, **options)
    result = standard_attack(apply_fn, params, key=KEY, budget="fast", batch_sizes=(200, 50), **options)
    assert 1 > by_noise >= by_fgsm >= by_pgd >= result.stands.mean() > 0.1
    assert by_noise > result.stands.mean() + 0.1
    verdicts = np.asarray(apply_fn(params, jnp.asarray(result.inputs))).argmax(axis=1) == labels
    np.testing.assert_array_equal(verdicts, result.stands)
    np.testing.assert_array_equal(result.broken_by == "", result.stands)
    assert np.abs(result.inputs - inputs).max() <= 0.03 + 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_full_budget_finds_no_less_than_the_fast_one(digits, norm):
    apply_fn, params, inputs, labels = digits
    options = {"inputs": inputs, "labels": labels, "epsilon": 0.03 if norm == "linf" else 0.5, "norm": norm, "key": KEY}
    fast, full = (
        standard_attack(apply_fn, params, budget=name, batch_sizes=(200, 50), **options).stands.mean()
        for name in ("fast", "full")
    )
    assert 0.1 < full <= fast < 0.9
