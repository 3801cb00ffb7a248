"""Attacks on the penalty itself, in networks where the penalty's peak is known, and the gauge of the output layer."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks import NETS, as_tree

from jl1.attacks.pgd import pgd
from jl1.audit.defence import GAUGE_INVARIANT, make_gauge_step, penalty_peak, pgd_each_rival, pgd_from_peak
from jl1.batches import measure
from jl1.gauge import centre_output_layer
from jl1.penalties import make_penalty

pytestmark = pytest.mark.usefixtures("quick_compile")

KEY = jax.random.key(0)
NET = NETS["dense_relu"]
PARAMS = as_tree(NET.params())
INPUTS = jnp.asarray(NET.inputs(20), jnp.float32)
LABELS = jnp.argmax(NET.apply_fn(PARAMS, INPUTS), axis=1)


def test_a_smooth_penalty_is_climbed_to_the_corner_of_the_ball():
    points = jnp.full((4, 3), 0.5)
    peaks = penalty_peak(lambda x: jnp.sum(x * jnp.array([[1.0, -2.0, 3.0]]), axis=1), points, epsilon=0.2, key=KEY)
    np.testing.assert_allclose(peaks, jnp.broadcast_to(jnp.array([0.7, 0.3, 0.7]), (4, 3)), atol=1e-6)


def test_where_a_slope_is_no_number_the_climb_stays_in_the_ball():
    def penalty_fn(x):  # its slope at 0.5 is 0 / 0
        return jnp.sum(x, axis=1) + jnp.where(x[:, 0] == 0.5, 0.0, jnp.sqrt(jnp.abs(x[:, 0] - 0.5)))

    points = jnp.full((2, 4), 0.5)
    assert jnp.isnan(jax.grad(lambda x: penalty_fn(x).sum())(points)).any()
    peaks = penalty_peak(penalty_fn, points, epsilon=0.2, key=KEY, num_steps=4)
    assert (jnp.abs(peaks - points) <= 0.2 + 1e-6).all()


def test_a_penalty_without_slopes_is_climbed_all_the_same():
    penalty_fn = partial(make_penalty("jacobian_l1"), partial(NET.apply_fn, PARAMS), labels=LABELS)
    slopes = jax.grad(lambda points: penalty_fn(points).sum())(INPUTS)
    np.testing.assert_array_equal(slopes, 0)  # the Jacobian of a ReLU network is constant between kinks
    climb = jax.jit(partial(penalty_peak, penalty_fn))
    peaks = climb(INPUTS, epsilon=0.3, key=KEY)
    before, after = penalty_fn(INPUTS), penalty_fn(peaks)
    assert (after >= before).all()
    assert (after > 1.05 * before).any()
    assert (jnp.abs(peaks - INPUTS) <= 0.3 + 1e-6).all()
    np.testing.assert_allclose(climb(INPUTS, epsilon=0.0, key=KEY), INPUTS)


def test_pgd_from_the_peak_finds_what_a_flat_start_hides():
    # flat at the data and up to 0.6, steep beyond, where alone the rival gets ahead: a start below has no gradient
    def logits_fn(inputs):
        return jnp.stack([jnp.full(len(inputs), 0.5), 10 * jnp.sum(jax.nn.relu(inputs - 0.6), axis=1)], axis=1)

    points, labels = jnp.full((32, 1), 0.5), jnp.zeros(32, int)
    options = {"labels": labels, "epsilon": 0.2, "num_steps": 10}
    plain, from_peak = (
        jax.jit(partial(attack_fn, logits_fn, **options))(points, key=KEY) for attack_fn in (pgd, pgd_from_peak)
    )
    stands = [(logits_fn(adversarial).argmax(1) == labels).sum() for adversarial in (plain, from_peak)]
    assert stands[0] > 15  # the random starts below 0.6
    assert stands[1] < 5  # a plateau is left by chance
    assert (jnp.abs(from_peak - points) <= 0.2 + 1e-6).all()


def test_pgd_on_each_rival_breaks_at_least_what_pgd_on_the_margin_does():
    logits_fn, options = partial(NET.apply_fn, PARAMS), {"labels": LABELS, "epsilon": 0.2, "num_steps": 10}
    each = jax.jit(partial(pgd_each_rival, logits_fn, **options))(INPUTS, key=KEY)
    plain = jax.jit(partial(pgd, logits_fn, **options))(INPUTS, key=KEY)
    broken = [logits_fn(points).argmax(1) != LABELS for points in (each, plain)]
    assert broken[0].sum() >= broken[1].sum() > 0
    assert (jnp.abs(each - INPUTS) <= 0.2 + 1e-6).all()


def test_a_rival_that_the_closest_one_hides_is_found():
    # class 1 is closest and cannot win; class 2 is far behind and wins at the ball's edge, against the first's slope
    def logits_fn(inputs):
        x = inputs[:, 0] - 0.5
        return jnp.stack([jnp.ones(len(x)), 0.9 + 0 * x, 6 * x], axis=1)

    points, labels = jnp.full((3, 1), 0.5), jnp.zeros(3, int)
    each = pgd_each_rival(logits_fn, points, labels=labels, epsilon=0.2, key=KEY, num_steps=5)
    assert logits_fn(each).argmax(1).tolist() == [2, 2, 2]


def gauge_of(params, **options):
    step = make_gauge_step(NET.apply_fn, **options)
    return measure(step, params, inputs=INPUTS, labels=LABELS, batch_size=8)


def test_centring_changes_no_decision_and_the_norms_of_the_logits_alone():
    gauge = gauge_of(PARAMS)
    assert not gauge.changes_decision.any()
    assert gauge.gap.max() < 1e-5
    for name, before in gauge.before.items():
        changes = np.abs(gauge.after[name] - before)
        if name.endswith(GAUGE_INVARIANT):
            np.testing.assert_allclose(changes, 0, atol=1e-4)
        else:
            assert changes.max() > 0.1
    np.testing.assert_allclose(gauge.after["class_sum_l1 on logits"], 0, atol=1e-4)
    np.testing.assert_allclose(gauge.after["jacobian_l1 on logits"], gauge.after["jacobian_l1 on centred_logits"], 1e-4)


def test_a_change_that_is_no_gauge_is_seen():
    def wrong(params):
        centred = centre_output_layer(params)
        return centred | {"output": centred["output"] | {"bias": centred["output"]["bias"].at[0].add(5.0)}}

    gauge = gauge_of(PARAMS, penalties={}, centre_fn=wrong)
    assert gauge.gap.min() > 0.1
    np.testing.assert_array_equal(gauge.changes_decision, LABELS != 0)
    assert gauge.before == gauge.after == {}


def test_what_is_refused():
    with pytest.raises(ValueError, match="num_steps=0: must be at least 1"):
        penalty_peak(lambda x: x.sum(1), INPUTS, epsilon=0.1, key=KEY, num_steps=0)
    with pytest.raises(ValueError, match="epsilon=2"):
        penalty_peak(lambda x: x.sum(1), INPUTS, epsilon=2, key=KEY)


def test_the_way_to_the_peak_is_refused_in_another_norm():
    with pytest.raises(ValueError, match="norm='l2': the peak of the penalty is looked for in L-infinity balls only"):
        pgd_from_peak(lambda x: x, jnp.full((1, 2), 0.5), labels=jnp.array([0]), epsilon=0.1, key=KEY, norm="l2")
