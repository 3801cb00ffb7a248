"""Auto-PGD against a step-by-step NumPy oracle and closed forms; its checkpoints against the paper's."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from networks import NETS, as_tree

from jl1.attacks.apgd import apgd, apgd_targeted
from jl1.attacks.apgd_walk import checkpoints
from jl1.attacks.norms import find_norm
from jl1.attacks.objectives import dlr, margin, targeted_margin

pytestmark = pytest.mark.usefixtures("strict_dtypes", "quick_compile")

KEY = jax.random.key(5)


def paper_checkpoints(num_steps):
    """Return w_j = ceil(p_j N) of Section 3.2, in hundredths to keep clear of rounding."""
    shares = [0, 22]
    while shares[-1] < 100:
        shares.append(shares[-1] + max(shares[-1] - shares[-2] - 3, 6))
    return [math.ceil(share * num_steps / 100) for share in shares[1:] if share <= 100]


def test_checkpoints_of_100_steps_are_the_papers():
    assert list(checkpoints(100)) == paper_checkpoints(100)
    assert list(checkpoints(1000)) == paper_checkpoints(1000)


@pytest.mark.parametrize("num_steps", [1, 2, 5, 20, 37])
def test_checkpoints_of_few_steps_have_windows_of_whole_steps(num_steps):
    found = checkpoints(num_steps)
    assert np.diff([0, *found]).tolist() == list(found.values())
    assert all(1 <= step <= num_steps for step in found)


def projected(point, *, norm, centre, epsilon):
    """Move a point into the ball, then into [0, 1]."""
    if norm == "linf":
        return np.clip(np.clip(point, centre - epsilon, centre + epsilon), 0.0, 1.0)
    step = point - centre
    return np.clip(centre + step * min(1.0, epsilon / np.linalg.norm(step)), 0.0, 1.0)


ASCENT = {"linf": np.sign, "l2": lambda gradient: gradient / np.linalg.norm(gradient)}


def oracle(value_fn, start, centre, *, epsilon, num_steps, norm):
    """Run Auto-PGD on ONE example in NumPy; `value_fn` gives loss and gradient. Returns all points and halvings."""
    project, ascent = partial(projected, norm=norm, centre=centre, epsilon=epsilon), ASCENT[norm]
    window, last_check, step_size = max(int(0.22 * num_steps), 1), 0, 2 * epsilon
    (loss, gradient), points, losses, halvings = value_fn(start), [start], [], []
    losses.append(loss)
    best_loss, best_point, best_gradient = loss, start, gradient
    loss_at_check, halved = loss, True
    point, previous = start, start
    for step in range(1, num_steps + 1):
        target = project(point + step_size * ascent(gradient))
        if step > 1:
            target = project(point + 0.75 * (target - point) + 0.25 * (point - previous))
        previous, point = point, target
        loss, gradient = value_fn(point)
        points.append(point)
        losses.append(loss)
        if loss > best_loss:
            best_loss, best_point, best_gradient = loss, point, gradient
        if step == last_check + window:
            rises = sum(losses[i + 1] > losses[i] for i in range(last_check, step))
            halve = rises <= 0.75 * window or (not halved and loss_at_check >= best_loss)
            halved, loss_at_check, last_check = halve, best_loss, step
            window = max(window - max(int(0.03 * num_steps), 1), max(int(0.06 * num_steps), 1))
            if halve:
                step_size, point, gradient = step_size / 2, best_point, best_gradient
                halvings.append(step)
    return np.stack(points), halvings


@pytest.mark.parametrize(("norm", "epsilon"), [("linf", 0.15), ("l2", 0.3)])
def test_every_point_of_a_run_is_the_oracles(norm, epsilon, x64):
    net = NETS["dense_tanh"]
    params = [(6 * kernel, bias) for kernel, bias in net.params()]  # steep enough for steps that overshoot
    inputs = net.inputs(6)
    labels = net.reference(params, inputs)[0].argmax(axis=1)
    seen = []

    def logits_fn(points):
        jax.debug.callback(lambda values: seen.append(np.array(values)), points, ordered=True)
        return net.apply_fn(as_tree(params), points)

    attack = jax.jit(partial(apgd, logits_fn, norm=norm, num_steps=40))
    attacked = np.asarray(attack(jnp.asarray(inputs), labels=jnp.asarray(labels), epsilon=epsilon, key=KEY))
    jax.effects_barrier()
    path, all_halvings = np.stack(seen[1:], axis=1), []  # what comes first is the look at the inputs themselves
    assert path.shape[1] == 41

    def value_fn(label, point):
        logits, jacobian = net.reference(params, point[None])
        error = reference.softmax(logits) - np.eye(3)[[label]]
        return reference.cross_entropy(logits, np.eye(3)[[label]])[0], (error[:, :, None] * jacobian).sum(axis=1)[0]

    for index, label in enumerate(labels):
        options = {"epsilon": epsilon, "num_steps": 40, "norm": norm}
        points, halvings = oracle(partial(value_fn, label), path[index, 0], inputs[index], **options)
        np.testing.assert_allclose(path[index], points, atol=1e-7)
        all_halvings.append(tuple(halvings))
        logits = net.reference(params, points)[0]
        wrong = logits.argmax(axis=1) != label
        losses = reference.cross_entropy(logits, np.eye(3)[[label] * 41])
        kept = points[wrong.argmax() if wrong.any() else losses.argmax()]
        np.testing.assert_allclose(attacked[index], kept, atol=1e-7)
    assert len(set(all_halvings)) > 1  # examples differ in when they halve, so the rule is put to use


def linear_model(seed=3):
    weights = jnp.asarray(np.random.default_rng(seed).normal(size=(5, 4)), jnp.float32)
    inputs = np.float32(np.random.default_rng(1).uniform(0.4, 0.6, (20, 5)))
    logits = inputs @ np.asarray(weights)
    return weights, inputs, logits.argmax(axis=1), logits.argsort(axis=1)[:, -2]


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_it_finds_the_exact_optimum_of_a_linear_model(norm):
    weights, inputs, labels, targets = linear_model()
    bias = 10 * np.eye(4, dtype=np.float32)[labels]  # no point is ever beaten, so the highest loss comes back
    attack = jax.jit(partial(apgd_targeted, loss_fn=targeted_margin, norm=norm, num_steps=30), static_argnums=0)
    attacked = attack(
        lambda x: x @ weights + bias, jnp.asarray(inputs), labels=labels, targets=targets, epsilon=0.1, key=KEY
    )
    slope = np.asarray(weights).T[targets] - np.asarray(weights).T[labels]
    best = np.abs(slope).sum(axis=1) if norm == "linf" else np.linalg.norm(slope, axis=1)
    gained = (slope * (np.asarray(attacked) - inputs)).sum(axis=1)
    np.testing.assert_allclose(gained, 0.1 * best, rtol=2e-3 if norm == "l2" else 1e-5)


def test_a_beaten_example_keeps_its_first_wrong_point_and_one_wrong_from_the_start_its_input():
    def logits_fn(inputs):
        x = inputs[:, :1]
        return jnp.concatenate([jnp.where((x > 0.62) & (x < 0.64), -1.0, 0.0), x - 0.7, x - 9.0], axis=1)

    start = jnp.array([[0.5], [0.63]])
    options = {"labels": jnp.array([0, 0]), "key": KEY, "loss_fn": margin, "num_steps": 60}
    attacked = jax.jit(partial(apgd, logits_fn, **options))(start, epsilon=0.21)
    assert (np.asarray(logits_fn(attacked)).argmax(axis=1) != 0).all()
    assert attacked[1] == start[1]


def test_more_restarts_find_more():
    def wavy(inputs):
        waves = jnp.sin(jnp.array([[37.0, 53.0, 71.0]]) * inputs.sum(1, keepdims=True) + inputs[:, :1])
        return 3 * waves + jnp.array([[1.0, 0.0, 0.0]])

    inputs = jnp.asarray(np.random.default_rng(0).uniform(size=(60, 5)), jnp.float32)
    labels = jnp.argmax(wavy(inputs), axis=1)
    attack = jax.jit(partial(apgd, wavy, num_steps=4), static_argnames="num_restarts")
    few, many = (
        np.asarray(wavy(attack(inputs, labels=labels, epsilon=0.012, key=KEY, num_restarts=number))).argmax(axis=1)
        != np.asarray(labels)
        for number in (1, 5)
    )
    assert (many >= few).all()
    assert many.sum() > few.sum() > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_steps": 0}, "num_steps=0.*at least 1"),
        ({"num_restarts": 0}, "num_restarts=0.*at least 1"),
        ({"epsilon": -0.1}, r"epsilon=-0.1: must be in \[0, 1\]"),
        ({"epsilon": -0.1, "norm": "l2"}, "epsilon=-0.1"),
        ({"loss_fn": dlr}, "dlr needs at least 3 classes, the network has 2"),
    ],
)
def test_senseless_work_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        apgd(lambda x: x, jnp.array([[0.5, 0.4]]), labels=jnp.array([0]), **{"epsilon": 0.1, "key": KEY, **options})


def test_an_unknown_norm_is_refused():
    with pytest.raises(ValueError, match="unknown norm 'l7'; known are linf, l2"):
        find_norm("l7")
