"""One device, two, four and eight do the same. `test_devices.py` runs this where a CPU is taken for eight devices."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh, PartitionSpec
from networks import NETS, as_tree
from quick import quick_config

from jl1.attacks.apgd import apgd, apgd_targeted
from jl1.attacks.ascent import pgd_last_point
from jl1.attacks.budgets import Stage
from jl1.attacks.divergence import kl_ascent
from jl1.attacks.ensemble import standard_attack
from jl1.attacks.fab import fab
from jl1.attacks.fgsm import fgsm, fgsm_random_start
from jl1.attacks.noise import random_noise
from jl1.attacks.objectives import targeted_margin
from jl1.attacks.pgd import pgd
from jl1.attacks.square import square
from jl1.batches import over_batches
from jl1.closed_form import make_closed_form_gradient
from jl1.data import epoch_indices
from jl1.devices import Devices
from jl1.evaluation import make_penalty_step
from jl1.experiment import train_and_evaluate
from jl1.gradients import make_gradient
from jl1.hyperparameters import Hyperparameters
from jl1.losses import cross_entropy, defended_loss, penalised_loss
from jl1.mean_loss import make_loss
from jl1.models import Conv, Dense, SequentialNet, create_model, make_apply_fn
from jl1.penalties import ESTIMATORS, make_penalty
from jl1.records import read_metrics
from jl1.robust_losses import adversarial_loss, trades_loss
from jl1.runs.checkpoints import Checkpoints, Snapshot
from jl1.runs.problems import create_problem, load_data
from jl1.training import Examples, TrainState, make_epoch, zero_totals

KEY = jax.random.key(3)
BATCH_SIZE = 11  # two, four and eight devices fill it up


def slow(names):
    """Leave some cases to the slow tests."""
    return [pytest.param(name, marks=pytest.mark.slow) for name in names]


def some(count):
    return Devices(jax.devices()[:count])


def example_of(net, num_examples):
    return jnp.asarray(net.inputs(num_examples)), jnp.asarray(net.labels(num_examples))


def sampled(name, num_draws, loss_fn=defended_loss, **options):
    """A loss with an estimator, whose draws are for the points and for their twins."""
    penalty_fn = make_penalty(name, num_draws=num_draws)

    return partial(loss_fn, penalty_fn=penalty_fn, **options)


def attacked(loss_fn, **options):
    """A loss without a penalty whose attack draws at random."""
    return partial(loss_fn, penalty_fn=None, **options)


def plain(logits_fn, inputs, *, key, epsilon, **rest):
    return penalised_loss(logits_fn, inputs, penalty_fn=None, **rest)


def defended(logits_fn, inputs, *, key, **rest):
    return defended_loss(logits_fn, inputs, penalty_fn=make_penalty("jacobian_l1", outputs="probs"), **rest)


@pytest.mark.parametrize("penalty", ["none", "jacobian_l1", "class_sum_l1"])
@pytest.mark.parametrize("layers", [(Conv(3, 3, 1, "SAME"), Dense(5)), (Dense(6),)])
def test_a_step_of_ones_own_in_a_shard_map_has_the_gradient_of_the_whole_batch(layers, penalty):
    """With JAX's default checks: an operation that hid what varies over the devices would have it summed wrongly."""
    module = SequentialNet(layers, 3)
    inputs, labels = jax.random.uniform(KEY, (6, 6, 6, 1)), jnp.arange(6) % 3
    params = module.init(jax.random.key(0), inputs)["params"]
    loss = make_loss(make_apply_fn(module), penalty=penalty)

    def mean_loss(params, inputs, labels):
        return loss(params, inputs, labels, lam=0.1, epsilon=0.1)[0]

    def shared(params, inputs, labels):
        return jax.grad(lambda params: jax.lax.pmean(mean_loss(params, inputs, labels), "data"))(params)

    whole, rows = PartitionSpec(), PartitionSpec("data")
    mesh = Mesh(np.array(jax.devices()[:2]), ("data",))
    on_two = jax.jit(jax.shard_map(shared, mesh=mesh, in_specs=(whole, rows, rows), out_specs=whole))
    expected = jax.jit(jax.grad(mean_loss))(params, inputs, labels)
    found = on_two(params, inputs, labels)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), found, expected)


TERMS = {
    "plain": plain,
    "Eq. 3 and twins": defended,
    **{name: sampled(name, 2) for name in ESTIMATORS},
    "one draw, random start": sampled("jacobian_l1_random_sign", 1, attack_fn=fgsm_random_start),
    "pgd": attacked(adversarial_loss, attack_fn=partial(pgd_last_point, num_steps=2)),
    "trades": attacked(trades_loss, attack_fn=partial(kl_ascent, num_steps=2)),
}
NET = NETS["conv_relu"]
GRADIENTS = {
    **{name: make_gradient(NET.apply_fn, terms_fn=terms_fn) for name, terms_fn in TERMS.items()},
    "closed form, logits": make_closed_form_gradient(NET.module, twin_loss_fn=cross_entropy),
    "closed form, probs": make_closed_form_gradient(
        NET.module, outputs="probs", scale="mean", twin_loss_fn=cross_entropy
    ),
    "closed form, small chunks": make_closed_form_gradient(NET.module, outputs="probs", examples_per_pass=1),
}

QUICK = ("closed form, probs", "plain", "jacobian_frobenius_projected", "one draw, random start")
"""One of each kind."""


@pytest.mark.usefixtures("x64", "quick_compile")
@pytest.mark.parametrize("form", [*QUICK, *slow(name for name in GRADIENTS if name not in QUICK)])
def test_the_gradient_of_a_batch_is_that_of_one_device(form):
    inputs, labels = example_of(NET, BATCH_SIZE)
    mask = jnp.arange(BATCH_SIZE) != 2
    params, options = as_tree(NET.params()), {"lam": 0.3, "epsilon": 0.1}
    if not form.startswith("closed"):  # which draws nothing, and is called without a key by whoever draws none
        options["key"] = KEY

    def gradient(devices):
        rows = devices.fill(np.arange(BATCH_SIZE, dtype=np.int32)[None])[0]
        shared = jax.jit(devices.share_gradient(GRADIENTS[form], batch_size=BATCH_SIZE))
        counts = jnp.asarray(rows >= 0) & mask[rows]
        return shared(params, inputs[rows], labels=labels[rows], mask=counts, **options)

    expected = gradient(some(1))
    assert max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(expected[0])) > 1e-3
    for count in (2, 4, 8) if form in QUICK[:1] else (8,):
        for leaf, other in zip(jax.tree.leaves(gradient(some(count))), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(leaf, other, rtol=1e-9, atol=1e-11)


def train(devices, gradient_fn, params, examples, batch_size, num_epochs=2):
    """Train as the trainer does, and return the losses of the epochs and the compiled epoch."""
    optimizer = optax.adam(1e-2)
    params = jax.tree.map(jnp.copy, params)  # an epoch donates its state
    state = devices.replicate(TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params)))
    epoch_fn = make_epoch(devices.share_gradient(gradient_fn, batch_size=batch_size), optimizer)
    settings = Hyperparameters(jnp.asarray(0.3), jnp.asarray(0.1), KEY, jnp.int32(1), jnp.int32(0))
    examples, losses, compiled = devices.replicate(examples), [], None
    for epoch in range(num_epochs):
        batches = devices.fill(epoch_indices(len(examples.labels), batch_size, seed=0, epoch=epoch))
        arguments = (devices.replicate(zero_totals()), examples, batches, 0, len(batches), settings)
        compiled = epoch_fn.lower(state, *arguments).compile() if epoch == 0 else compiled
        state, totals = jax.block_until_ready(compiled(state, *arguments))
        assert int(totals.num_examples) == len(examples.labels)
        losses.append(float(totals.terms.total) / float(totals.num_examples))
    return losses, compiled.as_text()


@pytest.mark.usefixtures("x64", "quick_compile")
@pytest.mark.parametrize("batch_size", [BATCH_SIZE, *slow([3])])
def test_the_losses_of_epochs_with_a_remainder_are_those_of_one_device(batch_size):
    examples, params = Examples(*example_of(NET, 29)), as_tree(NET.params())
    gradient_fn = GRADIENTS["closed form, probs"]
    expected, _ = train(some(1), gradient_fn, params, examples, batch_size)
    assert expected[1] < expected[0]
    for count in (2, 4, 8):
        losses, _ = train(some(count), gradient_fn, params, examples, batch_size)
        np.testing.assert_allclose(losses, expected, rtol=1e-7)


@pytest.mark.usefixtures("quick_compile")
@pytest.mark.parametrize("form", ["closed form, probs", *slow(["jacobian_l1_sampled_classes", "pgd"])])
def test_a_step_sends_its_gradient_once_and_nothing_else(form):
    params, examples = as_tree(NET.params()), Examples(*example_of(NET, 29))
    _, text = train(some(4), GRADIENTS[form], params, examples, BATCH_SIZE, num_epochs=1)
    sent = re.findall(r"= (\w+)\[(\d*)\]\S* (all-\w+|collective-\w+|reduce-scatter)[-\w]*\(", text)
    assert len(re.findall(r" (?:all-|collective-|reduce-scatter)[-\w]*\(", text)) == len(sent)
    num_numbers = sum(leaf.size for leaf in jax.tree.leaves(params)) + 4  # three terms, and how many examples
    in_the_loop, once = ("f32", str(num_numbers), "all-reduce"), ("s32", "3", "all-reduce")  # examples of each batch
    assert sent.count(in_the_loop) == 1
    assert sent in ([in_the_loop], [in_the_loop, once], [once, in_the_loop])


@pytest.mark.slow
@pytest.mark.usefixtures("quick_compile")
def test_model_a_shares_its_convolutions():
    module = create_model("A", num_classes=10)
    inputs, labels = jax.random.uniform(KEY, (5, 28, 28, 1)), jnp.arange(5)
    params = module.init(KEY, inputs)["params"]
    options = {"labels": labels, "lam": 1.0, "epsilon": 0.1, "key": KEY, "mask": labels >= 0}

    def gradient(devices, gradient_fn):
        rows = devices.fill(np.arange(5, dtype=np.int32)[None])[0]
        options["mask"], options["labels"] = jnp.asarray(rows >= 0), labels[rows]
        return jax.jit(devices.share_gradient(gradient_fn, batch_size=5))(params, inputs[rows], **options)

    for gradient_fn in (make_gradient(make_apply_fn(module), terms_fn=plain), make_closed_form_gradient(module)):
        one, four = (gradient(some(count), gradient_fn) for count in (1, 4))
        for leaf, other in zip(jax.tree.leaves(four), jax.tree.leaves(one), strict=True):
            np.testing.assert_allclose(leaf, other, rtol=0, atol=2e-5 * float(jnp.abs(other).max()))


ATTACKS = {
    "noise": Stage(partial(random_noise, num_draws=3)),
    "fgsm": Stage(fgsm),
    "pgd": Stage(partial(pgd, num_steps=3), num_restarts=2),
    "apgd": Stage(partial(apgd, num_steps=6)),
    "apgd_t": Stage(partial(apgd_targeted, num_steps=4, loss_fn=targeted_margin), num_targets=2),
    "fab": Stage(partial(fab, num_steps=4, num_restarts=2)),
    "square": Stage(partial(square, num_queries=20)),
}


@pytest.mark.usefixtures("x64", "quick_compile")
@pytest.mark.parametrize("name", ["fgsm", "pgd", "apgd", *slow(["noise", "apgd_t", "fab", "square"])])
def test_an_attack_finds_the_same_points(name):
    inputs, labels = example_of(NET, 21)
    labels = jnp.argmax(NET.apply_fn(as_tree(NET.params()), inputs), axis=1).at[0].add(1) % 3
    options = {"inputs": inputs, "labels": labels, "epsilon": 0.15, "key": KEY, "budget": {name: ATTACKS[name]}}

    def attack(devices):
        params = devices.replicate(as_tree(NET.params()))
        return standard_attack(NET.apply_fn, params, batch_sizes=(13, 4), share_rows=devices.share_rows, **options)

    expected = attack(some(1))
    found = attack(some(8))
    np.testing.assert_allclose(found.inputs, expected.inputs, atol=1e-9)
    assert found.broken_by.tolist() == expected.broken_by.tolist()
    assert {"clean", ""} <= {*expected.broken_by}


@pytest.mark.usefixtures("quick_compile")
def test_an_evaluation_covers_every_point_once():
    inputs, labels = (np.asarray(part) for part in example_of(NET, 23))
    step = make_penalty_step(NET.apply_fn, penalty_fn=make_penalty("jacobian_l1"))

    def norms(devices):
        params = devices.replicate(as_tree(NET.params()))
        options = {"inputs": np.float32(inputs), "labels": labels, "batch_size": 10}
        return np.concatenate(list(over_batches(devices.share_rows(step), params, **options)))

    assert len(norms(some(1))) == 23
    np.testing.assert_allclose(norms(some(4)), norms(some(1)), rtol=1e-5)


@pytest.mark.slow
@pytest.mark.usefixtures("quick_compile")
def test_a_run_begun_on_eight_devices_ends_on_three_as_on_one(tmp_path):
    config = quick_config(training__num_epochs=2, log__traced_points=2, training__weights="best")

    def run(name, count, epochs_here=3):
        folder = tmp_path / name
        stop = {"should_stop": lambda: len(read_metrics(folder)) >= epochs_here}
        return folder, train_and_evaluate(config, folder, devices=some(count), **stop)

    folder, result = run("one", 1)
    assert result["device"]["count"] == 1
    _, interrupted = run("several", 8, epochs_here=1)
    assert (interrupted["stopped_because"], interrupted["device"]["count"]) == ("interrupted", 8)
    again, resumed = run("several", 3)
    assert (resumed["num_epochs"], resumed["device"]["count"]) == (2, 3)
    for one, other in zip(read_metrics(folder), read_metrics(again), strict=True):
        for name in ("loss", "cross_entropy", "validation_accuracy"):
            assert one[name] == pytest.approx(other[name], abs=2e-3)
    for one, other in zip(result["accuracies"], resumed["accuracies"], strict=True):
        assert one["accuracy"] == pytest.approx(other["accuracy"], abs=0.01)


@pytest.mark.usefixtures("quick_compile")
def test_a_batch_that_is_smaller_than_the_devices_trains():
    data = load_data(config := quick_config(training__batch_size=3))
    problem, devices = create_problem(config, data), some(8)
    epoch_fn = make_epoch(devices.share_gradient(problem.gradient_fn, batch_size=3), problem.optimizer)
    examples = devices.replicate(Examples(*(jnp.asarray(part[:7]) for part in data.train)))
    batches = devices.fill(epoch_indices(7, 3, seed=0, epoch=1))
    start = devices.replicate((problem.state, zero_totals()))
    _, totals = epoch_fn(*start, examples, batches, 0, len(batches), problem.hyperparameters)
    assert int(totals.num_examples) == 7
    assert np.isfinite(float(totals.terms.total))


def test_what_eight_devices_wrote_three_and_one_read(tmp_path):
    params = as_tree(NET.params())
    state = TrainState(jnp.asarray(7), params, optax.adam(1e-2).init(params))
    eight = some(8)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, eight.fetch(Snapshot(eight.replicate(state), eight.replicate(params))), {"data": "these"})
    for count in (1, 3):
        with Checkpoints(tmp_path) as checkpoints:
            restored = checkpoints.restore(Snapshot(state, params), notice=print)
        assert (restored.epoch, restored.progress) == (1, {"data": "these"})
        placed = some(count).replicate(restored.snapshot)
        assert {len(leaf.sharding.device_set) for leaf in jax.tree.leaves(placed)} == {count}
        for leaf, expected in zip(jax.tree.leaves(placed), jax.tree.leaves(Snapshot(state, params)), strict=True):
            assert np.array_equal(leaf, expected)
