"""Random noise: uniform in the ball, the first wrong draw kept; transfer: another network's points."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jl1.attacks.apgd import apgd
from jl1.attacks.noise import random_noise
from jl1.attacks.transfer import transfer

pytestmark = pytest.mark.usefixtures("strict_dtypes", "quick_compile")

KEY = jax.random.key(5)


def steady(inputs):
    """Return logits that no point changes."""
    return jnp.stack([jnp.ones(len(inputs)), jnp.zeros(len(inputs))], axis=1)


@pytest.mark.parametrize(("norm", "second_moment"), [("linf", 1 / 3), ("l2", 1 / 6)])
def test_a_draw_is_uniform_in_the_ball(norm, second_moment):
    # E x_i^2 is 1/3 on [-1, 1], and 1/(d + 2) in the ball of d = 4 dimensions
    inputs, options = jnp.full((4000, 4), 0.5), {"labels": jnp.zeros(4000, int), "num_draws": 1}
    noise = (np.asarray(random_noise(steady, inputs, epsilon=0.2, key=KEY, norm=norm, **options)) - 0.5) / 0.2
    np.testing.assert_allclose((noise**2).mean(axis=0), second_moment, rtol=0.08)
    np.testing.assert_allclose(noise.mean(axis=0), 0.0, atol=0.04)
    lengths = np.abs(noise).max(axis=1) if norm == "linf" else np.linalg.norm(noise, axis=1)
    assert lengths.max() <= 1 + 1e-5
    np.testing.assert_allclose((lengths < 0.5).mean(), 0.5**4, atol=0.02)  # so much of the volume


def test_the_first_wrong_point_is_kept_and_more_draws_find_more():
    def rare(inputs):
        return jnp.concatenate([jnp.full((len(inputs), 1), 0.59), inputs[:, :1]], axis=1)

    inputs, labels = jnp.full((300, 1), 0.5).at[0].set(0.6), jnp.zeros(300, int)
    attack = jax.jit(partial(random_noise, rare, labels=labels, epsilon=0.1, key=KEY), static_argnames="num_draws")
    beaten = [np.asarray(attack(inputs, num_draws=number))[:, 0] > 0.59 for number in (1, 20)]
    assert (beaten[1] >= beaten[0]).all()
    assert 1 < beaten[0].sum() < 50 < beaten[1].sum()  # one draw in twenty, then two thirds
    assert attack(inputs, num_draws=1)[0, 0] == inputs[0, 0]  # wrong from the start


def test_no_draws_are_refused():
    with pytest.raises(ValueError, match="num_draws=0"):
        random_noise(steady, jnp.full((1, 2), 0.5), labels=jnp.array([0]), epsilon=0.1, key=KEY, num_draws=0)


def test_transfer_looks_at_the_source_alone():
    source = lambda inputs: inputs @ jnp.array([[1.0, -1.0], [2.0, 0.0]])  # noqa: E731
    options = {"labels": jnp.array([0, 0]), "epsilon": 0.1, "key": KEY, "num_steps": 5}
    inputs = jnp.array([[0.5, 0.5], [0.4, 0.6]])
    moved = transfer(apgd, source)(steady, inputs, **options)
    np.testing.assert_array_equal(moved, apgd(source, inputs, **options))
    assert (moved != inputs).any()
