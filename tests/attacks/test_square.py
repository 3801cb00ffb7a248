"""The Square attack: its schedule and patterns by hand, optima without a gradient, proposals of full length."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jl1.attacks.apgd import apgd
from jl1.attacks.square import square
from jl1.attacks.square_patches import _odd_size, _patch_size, _pattern, image_shape, l2_patches, linf_patches, schedule

pytestmark = pytest.mark.usefixtures("strict_dtypes", "quick_compile")

KEY = jax.random.key(5)
IMAGES = jnp.full((40, 6, 5, 2), 0.5)


def test_the_schedule_of_10000_queries_is_the_published_one():
    shares = schedule(10_000, 0.8, 10_000)
    for query, halvings in {
        0: 0,
        10: 0,
        11: 1,
        50: 1,
        51: 2,
        200: 2,
        201: 3,
        1000: 4,
        2001: 6,
        8000: 8,
        8001: 9,
    }.items():
        assert shares[query] == 0.8 / 2**halvings
    np.testing.assert_array_equal(schedule(5000, 0.8, 5000), shares[::2])  # rescaled
    np.testing.assert_array_equal(schedule(5000, 0.8, 10_000), shares[:5000])  # as in AutoAttack


def test_the_pattern_of_three_by_three_worked_out_by_hand():
    # one row of one bump (frames 1 + 1/4 in the middle, 1/4 beside it) over two rows of the other, each of length 1
    one = np.array([[0.25, 1.25, 0.25]])
    other = np.array([[0.25, 0.25, 0.25], [0.25, 1.25, 0.25]])
    expected = np.concatenate([one / np.linalg.norm(one), -other / np.linalg.norm(other)]) / np.sqrt(2)
    np.testing.assert_allclose(_pattern(3, 3), expected, rtol=1e-12)


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (3, 3), (5, 5), (7, 3)])
def test_patterns_have_length_1(size):
    np.testing.assert_allclose(np.linalg.norm(_pattern(*size)), 1.0)


def test_sizes_of_patches():
    assert _patch_size(0.8, 28, 28) == (25, 25)
    assert _patch_size(0.8 / 512, 28, 28) == (1, 1)
    assert _patch_size(0.1, 1, 784) == (1, 78)  # a strip of the same area
    assert _odd_size(0.8, 28, 28) == (25, 25)
    assert _odd_size(0.8, 32, 32) == (29, 29)
    assert _odd_size(0.8 / 512, 28, 28) == (3, 3)
    assert _odd_size(0.5, 2, 2) == (1, 1)


def test_what_counts_as_an_image():
    assert image_shape((7, 4, 5, 3)) == (7, 4, 5, 3)
    assert image_shape((7, 12)) == (7, 1, 12, 1)
    assert image_shape((7, 3, 4)) == (7, 1, 12, 1)


def test_it_starts_with_vertical_stripes_at_the_border():
    start = (np.asarray(linf_patches((6, 5, 2), schedule(10, 0.8, 10)).start(KEY, IMAGES, 0.1)) - 0.5) / 0.1
    np.testing.assert_allclose(np.abs(start), 1.0, rtol=1e-5)
    assert (start == start[:, :1]).all()
    assert abs(np.sign(start[:, 0]).mean()) < 0.25  # both signs
    assert (start[:, 0] != start[:1, 0]).any()  # each example has its own


def test_linf_proposals_change_one_window_to_one_sign_a_channel():
    patches, points = linf_patches((6, 5, 2), schedule(10, 0.3, 10)), IMAGES + 0.0
    changed = np.asarray(patches.propose(KEY, jnp.asarray(0), points, IMAGES, 0.1)) != 0.5
    assert (changed.sum(axis=(1, 2)) == 9).all()  # round(sqrt(0.3 * 30)) = 3
    rows, columns = (changed.any(axis=axis).any(axis=-1) for axis in (2, 1))
    assert rows.sum(axis=1).tolist() == columns.sum(axis=1).tolist() == [3] * 40
    assert rows[:, 0].any() and rows[:, -1].any() and columns[:, 0].any() and columns[:, -1].any()  # noqa: PT018
    assert len({tuple(row) for row in rows}) == 4  # all four places


@pytest.mark.parametrize("shape", [(6, 5, 2), (7, 7, 1), (1, 12, 1), (2, 2, 3)])
def test_l2_starts_and_proposals_have_the_full_length(shape):
    images = jnp.full((15, *shape), 0.5)
    patches = l2_patches(shape, schedule(10, 0.8, 10))
    points, propose = jax.jit(patches.start)(KEY, images, 0.3), jax.jit(patches.propose)
    for query in range(4):
        np.testing.assert_allclose(np.linalg.norm((points - images).reshape(15, -1), axis=1), 0.3, rtol=1e-4)
        points = propose(jax.random.fold_in(KEY, query), jnp.asarray(query), points, images, 0.3)


@pytest.mark.parametrize("length", [0.3, 0.1])  # a perturbation that the range cut short gives the window the rest
def test_l2_proposals_keep_what_lies_outside_both_windows(length):
    images = jnp.full((30, 9, 9, 1), 0.5)
    patches = l2_patches((9, 9, 1), schedule(10_000, 0.1, 10_000))
    points = jax.jit(patches.start)(KEY, images, length)
    changed = np.abs(jax.jit(patches.propose)(KEY, jnp.asarray(9000), points, images, 0.3) - points) > 1e-6
    assert (changed.sum(axis=(1, 2, 3)) <= 18).all()  # two windows of three by three
    assert (changed.sum(axis=(1, 2, 3)) >= 9).any()


@pytest.mark.parametrize("shape", [(16,), (4, 4, 1)])
def test_it_reaches_the_corner_that_is_worst_for_a_linear_model(shape):
    weights = jnp.asarray(np.random.default_rng(0).normal(size=(16, 2)), jnp.float32)
    inputs = jnp.full((4, *shape), 0.5)
    logits_fn = lambda x: x.reshape(-1, 16) @ weights + jnp.array([[50.0, 0.0]])  # noqa: E731
    attack = jax.jit(partial(square, logits_fn, labels=jnp.zeros(4, int), num_queries=600))
    attacked = np.asarray(attack(inputs, epsilon=0.1, key=KEY)).reshape(4, 16)
    slope = np.asarray(weights)[:, 1] - np.asarray(weights)[:, 0]
    np.testing.assert_allclose((attacked - 0.5) @ slope, 0.1 * np.abs(slope).sum(), rtol=1e-4)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_it_needs_no_gradient(norm):
    # the network rounds what it sees: its gradient is zero everywhere and APGD has its start alone
    def logits_fn(inputs):
        score = jnp.round(8 * inputs.reshape(-1, 25)) @ jnp.ones((25, 1))
        return jnp.concatenate([jnp.zeros_like(score), score - 112.5], axis=1)

    inputs, labels = jnp.full((20, 5, 5, 1), 0.5), jnp.zeros(20, int)
    options = {"labels": labels, "epsilon": 0.2 if norm == "linf" else 1.0, "key": KEY}
    attack = jax.jit(partial(square, logits_fn, norm=norm, num_queries=500, **options))
    uphill = jax.jit(partial(apgd, logits_fn, norm=norm, num_steps=20, **options))
    found, lost = ((np.argmax(logits_fn(each(inputs)), axis=1) == 1).mean() for each in (attack, uphill))
    assert found > 0.9
    assert lost < 0.6


@pytest.mark.parametrize(
    "options", [{"num_queries": 0}, {"schedule_queries": 0}, {"first_share": 0.0}, {"first_share": 1.5}]
)
def test_senseless_work_is_refused(options):
    with pytest.raises(ValueError, match=r"at least 1; first_share=.*: in \(0, 1\]"):
        square(lambda x: x, jnp.array([[0.5, 0.4]]), labels=jnp.array([0]), epsilon=0.1, key=KEY, **options)
