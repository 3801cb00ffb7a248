"""The step to a plane inside a box, against a linear program (L-infinity) and the conditions of the optimum (L2)."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import brentq, linprog

from jl1.attacks.norms import NORMS
from jl1.attacks.planes import step_to_plane

pytestmark = pytest.mark.usefixtures("strict_dtypes", "quick_compile", "x64")

LOWER, UPPER, SIZE, COUNT = -0.3, 0.8, 7, 150


@pytest.fixture(scope="module")
def planes():
    """Draw points (some at the border of the box), normals (some entries 0) and gaps of both signs."""
    rng = np.random.default_rng(0)
    points = rng.uniform(LOWER, UPPER, (COUNT, SIZE))
    points = np.where(rng.uniform(size=points.shape) < 0.15, LOWER, points)
    points = np.where(rng.uniform(size=points.shape) < 0.1, UPPER, points)
    normals = rng.normal(size=points.shape) * (rng.uniform(size=points.shape) > 0.2)
    return points, normals, rng.normal(size=COUNT) * rng.choice([1.0, 4.0], COUNT)


def steps_of(norm, planes):
    step = jax.jit(lambda *plane: step_to_plane(*plane, norm=NORMS[norm], lower=LOWER, upper=UPPER))
    return np.asarray(step(*(jnp.asarray(each) for each in planes)))


def reach(point, normal, sign):
    """Return how much of a gap of that sign the whole box closes."""
    return np.maximum(sign * normal * (UPPER - point), sign * normal * (LOWER - point)).sum()


def test_linf_is_the_optimum_of_a_linear_program(planes):
    steps, closed = steps_of("linf", planes), 0
    bound = np.block([[np.eye(SIZE), -np.ones((SIZE, 1))], [-np.eye(SIZE), -np.ones((SIZE, 1))]])
    for step, point, normal, gap in zip(steps, *planes, strict=True):
        limits = [(LOWER - value, UPPER - value) for value in point] + [(0, None)]
        best = linprog(np.eye(SIZE + 1)[-1], bound, np.zeros(2 * SIZE), np.append(normal, 0.0)[None], [gap], limits)
        assert (best.status == 0) == (reach(point, normal, np.sign(gap)) >= abs(gap))
        if best.status == 0:
            closed += 1
            np.testing.assert_allclose(normal @ step, gap, atol=1e-9)
            np.testing.assert_allclose(np.abs(step).max(), best.fun, atol=1e-9)
    assert 20 < closed < COUNT - 20  # both kinds occur


def along(t, point, normal):
    """Return the step to the clipped point t normals away."""
    return np.clip(point + t * normal, LOWER, UPPER) - point


def test_l2_is_the_clipped_line_that_meets_the_plane(planes):
    # the conditions of the optimum: step = clip(point + t normal) - point with one t for all entries
    for step, point, normal, gap in zip(steps_of("l2", planes), *planes, strict=True):
        if reach(point, normal, np.sign(gap)) > abs(gap) + 1e-6:
            missing = partial(lambda t, *line, gap: line[1] @ along(t, *line) - gap, gap=gap)
            t = brentq(missing, -1e4, 1e4, args=(point, normal), xtol=1e-14, rtol=1e-14)
            np.testing.assert_allclose(step, along(t, point, normal), atol=1e-9)


@pytest.mark.parametrize("norm", NORMS)
def test_where_the_box_is_too_small_everything_goes_as_far_as_it_can(norm, planes):
    tried = 0
    for step, point, normal, gap in zip(steps_of(norm, planes), *planes, strict=True):
        if reach(point, normal, np.sign(gap)) < abs(gap):
            tried += 1
            corner = np.where(normal * np.sign(gap) > 0, UPPER, LOWER) - point
            np.testing.assert_allclose(step, np.where(normal != 0, corner, 0.0), atol=1e-12)
    assert tried > 20


@pytest.mark.parametrize("norm", NORMS)
def test_no_gap_and_no_normal_need_no_step(norm):
    points = np.full((2, SIZE), 0.1)
    normals = np.stack([np.ones(SIZE), np.zeros(SIZE)])
    assert (steps_of(norm, (points, normals, np.array([0.0, 0.5]))) == 0).all()
