"""FAB on linear models, where the nearest boundary is known exactly, and on networks against other attacks."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks import NETS
from scipy.optimize import linprog

from jl1.attacks.apgd import apgd
from jl1.attacks.fab import fab, minimal_perturbation
from jl1.attacks.objectives import margin

pytestmark = pytest.mark.usefixtures("strict_dtypes", "quick_compile")

KEY = jax.random.key(5)
WEIGHTS = np.float32(np.random.default_rng(3).normal(size=(5, 4)))
INPUTS = np.float32(np.random.default_rng(1).uniform(0.0, 1.0, (24, 5)))
LABELS = (INPUTS @ WEIGHTS).argmax(axis=1)


def linear(inputs):
    return inputs @ jnp.asarray(WEIGHTS)


def nearest_wall(point, label, norm):
    """Return the distance to the nearest decision plane of the linear model, the range left out of account."""
    slopes = np.delete(WEIGHTS, label, axis=1) - WEIGHTS[:, [label]]
    lengths = np.abs(slopes).sum(axis=0) if norm == "linf" else np.linalg.norm(slopes, axis=0)
    return (-(point @ slopes) / lengths).min()


def nearest_wall_in_the_box(point, label, lower, upper):
    """Return the same in L-infinity within the range, by one linear program a rival class."""
    size, distances = len(point), []
    ball = np.block([[np.eye(size), -np.ones((size, 1))], [-np.eye(size), -np.ones((size, 1))]])
    for rival in set(range(4)) - {label}:
        slope = WEIGHTS[:, rival] - WEIGHTS[:, label]
        limits = [(lower - value, upper - value) for value in point] + [(0, None)]
        constraints = np.vstack([ball, np.append(-slope, 0.0)]), np.append(np.zeros(2 * size), slope @ point)
        distances.append(linprog(np.eye(size + 1)[-1], *constraints, bounds=limits).fun)
    return min(distance for distance in distances if distance is not None)


def search(**options):
    chosen = {"labels": jnp.asarray(LABELS), "key": KEY, **options}
    return jax.jit(partial(minimal_perturbation, linear, **chosen))(jnp.asarray(INPUTS))


@pytest.mark.parametrize("is_quick", [True, False])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_it_finds_the_nearest_wall_of_a_linear_model(norm, is_quick):
    jax.config.update("jax_disable_most_optimizations", is_quick)  # XLA rounds otherwise with them
    found = search(norm=norm, lower=-9.0, upper=9.0, num_steps=10)
    exact = [nearest_wall(point, label, norm) for point, label in zip(INPUTS, LABELS, strict=True)]
    np.testing.assert_allclose(found.distance, exact, rtol=3e-4)


def test_over_all_targets_it_finds_the_nearest_wall_inside_the_range():
    attack = jax.jit(partial(minimal_perturbation, linear, labels=jnp.asarray(LABELS), key=KEY, num_steps=20))
    by_target = [
        attack(jnp.asarray(INPUTS), targets=jnp.asarray((LABELS + turn) % 4, jnp.int32)).distance for turn in (1, 2, 3)
    ]
    exact = [nearest_wall_in_the_box(point, label, 0.0, 1.0) for point, label in zip(INPUTS, LABELS, strict=True)]
    free = [nearest_wall(point, label, "linf") for point, label in zip(INPUTS, LABELS, strict=True)]
    assert sum(np.array(exact) > np.array(free) + 1e-3) >= 3  # the range matters for some
    np.testing.assert_allclose(np.min(by_target, axis=0), exact, rtol=3e-3)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_points_and_distances_belong_together(norm):
    found = search(norm=norm, num_steps=10)
    perturbations = np.asarray(found.inputs) - INPUTS
    lengths = np.abs(perturbations).max(axis=1) if norm == "linf" else np.linalg.norm(perturbations, axis=1)
    np.testing.assert_allclose(found.distance, lengths, atol=1e-6)
    assert (np.asarray(linear(found.inputs)).argmax(axis=1) != LABELS).all()
    assert np.asarray(found.inputs).min() >= 0
    assert np.asarray(found.inputs).max() <= 1


def test_its_target_is_the_plane_it_steps_to():
    inputs = jnp.array([[0.6, 0.4, 0.4, 0.4]] * 3)  # the logits are the inputs
    options = {"labels": jnp.zeros(3, int), "targets": jnp.array([1, 2, 3]), "key": KEY, "num_steps": 3}
    found = jax.jit(partial(minimal_perturbation, lambda x: x, **options))(inputs)
    assert np.argmax(found.inputs, axis=1).tolist() == [1, 2, 3]
    np.testing.assert_allclose(found.distance, 0.1, rtol=1e-3)


def test_what_cannot_be_found_is_infinitely_far_and_what_is_wrong_is_here():
    labels = jnp.array([0, 1])
    constant = lambda inputs: jnp.stack([jnp.ones(len(inputs)), jnp.zeros(len(inputs))], axis=1)  # noqa: E731
    inputs = jnp.full((2, 3), 0.5)
    found = minimal_perturbation(constant, inputs, labels=labels, key=KEY, num_steps=2)
    assert found.distance.tolist() == [np.inf, 0.0]
    np.testing.assert_array_equal(found.inputs, inputs)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_budget_decides_who_is_moved(norm):
    exact = np.array([nearest_wall(point, label, norm) for point, label in zip(INPUTS, LABELS, strict=True)])
    options = {"labels": jnp.asarray(LABELS), "key": KEY, "norm": norm, "lower": -9.0, "upper": 9.0, "num_steps": 10}
    attack = jax.jit(partial(fab, linear, **options))
    for epsilon in (0.0, float(np.median(exact)), 5.0):
        attacked = np.asarray(attack(jnp.asarray(INPUTS), epsilon=epsilon))
        beaten = np.asarray(linear(attacked)).argmax(axis=1) != LABELS
        np.testing.assert_array_equal(beaten, exact <= epsilon)
        np.testing.assert_array_equal(attacked[~beaten], INPUTS[~beaten])


def test_on_a_network_it_agrees_with_gradient_ascent():
    net = NETS["dense_tanh"]
    inputs, logits_fn = jnp.float32(net.inputs(60)), net.logits_fn()
    labels = jnp.argmax(logits_fn(inputs), axis=1)
    options = {"labels": labels, "key": KEY}
    distance = jax.jit(partial(minimal_perturbation, logits_fn, num_restarts=3, num_steps=40, **options))(
        inputs
    ).distance
    attack = jax.jit(partial(apgd, logits_fn, loss_fn=margin, **options))
    for epsilon in (0.05, 0.15):
        beaten = np.asarray(jnp.argmax(logits_fn(attack(inputs, epsilon=epsilon)), axis=1) != labels)
        assert (beaten != np.asarray(distance <= epsilon)).sum() <= 3
        assert 3 < beaten.sum() < 57


def test_restarts_only_come_nearer():
    net = NETS["dense_tanh"]
    inputs, logits_fn = jnp.float32(net.inputs(40)), net.logits_fn()
    options = {"labels": jnp.argmax(logits_fn(inputs), axis=1), "key": KEY, "num_steps": 6}
    search = jax.jit(partial(minimal_perturbation, logits_fn, **options), static_argnames="num_restarts")
    one, many = (np.asarray(search(inputs, num_restarts=number).distance) for number in (1, 4))
    assert (many <= one * 1.001).all()
    assert (many < one * 0.9999).any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_steps": 0}, "num_steps=0.*at least 1"),
        ({"num_restarts": 0}, "num_restarts=0.*at least 1"),
        ({"epsilon": -0.1}, r"epsilon=-0.1: must be in \[0, 1\]"),
    ],
)
def test_senseless_work_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        fab(lambda x: x, jnp.array([[0.5, 0.4]]), labels=jnp.array([0]), **{"epsilon": 0.1, "key": KEY, **options})
