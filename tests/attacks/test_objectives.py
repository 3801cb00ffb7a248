"""The objectives against their formulas by hand and by NumPy, and what they refuse."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

from jl1.attacks.objectives import OBJECTIVES, dlr, margin, targeted_dlr, targeted_margin

pytestmark = pytest.mark.usefixtures("strict_dtypes", "quick_compile")

LOGITS = np.random.default_rng(0).normal(size=(30, 6))
LABELS, TARGETS = np.arange(30) % 6, (np.arange(30) + 1 + np.arange(30) % 4) % 6


def bound(objective, labels=LABELS, targets=TARGETS):
    """Return the objective as a function of the logits."""
    chosen = {"targets": jnp.asarray(targets)} if objective in (targeted_dlr, targeted_margin) else {}
    return lambda logits: objective(jnp.asarray(logits), jnp.asarray(labels), **chosen)


def ranked(row, rank):
    """Return the logit of a rank, 1 the highest."""
    return sorted(row, reverse=True)[rank - 1]


def test_the_margin_is_the_best_rival_less_the_label():
    expected = [max(np.delete(row, label)) - row[label] for row, label in zip(LOGITS, LABELS, strict=True)]
    np.testing.assert_allclose(margin(jnp.asarray(LOGITS), jnp.asarray(LABELS)), expected, rtol=1e-6)
    assert margin(jnp.array([[1.0, 3.0]]), jnp.array([1])).tolist() == [-2.0]


def test_dlr_is_equation_6():
    expected = [
        -(row[label] - max(np.delete(row, label))) / (ranked(row, 1) - ranked(row, 3))
        for row, label in zip(LOGITS, LABELS, strict=True)
    ]
    np.testing.assert_allclose(dlr(jnp.asarray(LOGITS), jnp.asarray(LABELS)), expected, rtol=1e-5)


def test_targeted_dlr_is_equation_7():
    expected = [
        -(row[label] - row[target]) / (ranked(row, 1) - (ranked(row, 3) + ranked(row, 4)) / 2)
        for row, label, target in zip(LOGITS, LABELS, TARGETS, strict=True)
    ]
    result = targeted_dlr(jnp.asarray(LOGITS), jnp.asarray(LABELS), targets=jnp.asarray(TARGETS))
    np.testing.assert_allclose(result, expected, rtol=1e-5)


@pytest.mark.parametrize("objective", [margin, dlr, targeted_dlr, targeted_margin])
def test_their_slopes_are_those_of_differences(objective, x64):
    values = bound(objective)
    slopes = jax.grad(lambda logits: values(logits).sum())(jnp.asarray(LOGITS))
    expected = reference.differences(jax.jit(lambda logits: values(logits).sum()), LOGITS)
    np.testing.assert_allclose(slopes, expected, atol=1e-8)


@pytest.mark.parametrize("objective", [dlr, targeted_dlr])
def test_the_ratios_see_neither_shift_nor_scale(objective):
    plain, moved = (bound(objective)(np.float32(logits)) for logits in (LOGITS, 100 * LOGITS + 50))
    np.testing.assert_allclose(moved, plain, rtol=2e-4, atol=1e-5)


def test_all_logits_equal_gives_a_number():
    logits, labels = jnp.zeros((1, 4)), jnp.array([0])
    assert [float(each(logits, labels)[0]) for each in (margin, dlr)] == [0.0, 0.0]
    assert float(targeted_dlr(logits, labels, targets=jnp.array([1]))[0]) == 0.0


@pytest.mark.parametrize(("objective", "num_classes"), [(dlr, 2), (targeted_dlr, 3)], ids=["dlr", "targeted_dlr"])
def test_too_few_classes_are_refused(objective, num_classes):
    values = bound(objective, [0], [0])
    with pytest.raises(ValueError, match=rf"at least {num_classes + 1} classes, the network has {num_classes}"):
        values(np.zeros((1, num_classes)))
    assert np.isfinite(values(np.zeros((1, num_classes + 1)))).all()


def test_they_go_by_name():
    assert OBJECTIVES["margin"] is margin
    assert OBJECTIVES["dlr"] is dlr
    expected = reference.cross_entropy(LOGITS, np.eye(6)[LABELS])
    np.testing.assert_allclose(OBJECTIVES["ce"](jnp.asarray(LOGITS), jnp.asarray(LABELS)), expected, rtol=1e-5)
