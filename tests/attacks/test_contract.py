"""What an attack may be asked for: a key, a norm and a range by name, radii of any type, points of the inputs' type."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jl1.attacks.apgd import apgd, apgd_targeted
from jl1.attacks.ascent import pgd_last_point
from jl1.attacks.ball import check_radius
from jl1.attacks.budgets import Stage
from jl1.attacks.divergence import kl_ascent
from jl1.attacks.ensemble import standard_attack
from jl1.attacks.fab import fab
from jl1.attacks.fgsm import fgsm, fgsm_random_start
from jl1.attacks.noise import random_noise
from jl1.attacks.norms import NORMS
from jl1.attacks.objectives import targeted_margin
from jl1.attacks.pgd import pgd
from jl1.attacks.square import square
from jl1.attacks.targets import over_targets
from jl1.attacks.transfer import transfer
from jl1.audit.ascent_health import ascent_health
from jl1.audit.defence import penalty_peak
from jl1.evaluation import accuracy
from jl1.keys import needs_key

pytestmark = pytest.mark.usefixtures("quick_compile")

KEY = jax.random.key(2)
WEIGHTS = jax.random.normal(KEY, (5, 4))
INPUTS = jax.random.uniform(jax.random.key(1), (12, 5), minval=0.3, maxval=0.7)
LABELS = jnp.argmax(INPUTS @ WEIGHTS, axis=1)
GRADIENT_ATTACKS = {
    "fgsm": fgsm,
    "fgsm_random_start": fgsm_random_start,
    "pgd": partial(pgd, num_steps=3),
    "pgd_last_point": partial(pgd_last_point, num_steps=3),
    "kl_ascent": partial(kl_ascent, num_steps=3),
    "transfer": transfer(fgsm, lambda x: x @ WEIGHTS),
}
ATTACKS = GRADIENT_ATTACKS | {
    "pgd_from_a_start": lambda *given, key, **rest: pgd(*given, start=jnp.ones((12, 5)), num_steps=2, key=None, **rest),
    "apgd": partial(apgd, num_steps=5),
    "apgd_t": over_targets(partial(apgd_targeted, num_steps=5, loss_fn=targeted_margin), num_targets=2),
    "fab": partial(fab, num_steps=2, num_restarts=2),
    "fab_t": over_targets(partial(fab, num_steps=2), num_targets=2),
    "square": partial(square, num_queries=3),
    "random_noise": partial(random_noise, num_draws=2),
}


def linear(params, inputs):
    return inputs @ params


@pytest.mark.parametrize("name", GRADIENT_ATTACKS)
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_every_attack_is_a_stage_as_it_is_and_attacks_in_the_norm_that_is_asked_for(name, norm):
    given = {"inputs": np.asarray(INPUTS), "labels": np.asarray(LABELS), "epsilon": 0.25, "norm": norm}
    found = standard_attack(linear, WEIGHTS, key=KEY, budget={name: Stage(GRADIENT_ATTACKS[name])}, **given)
    assert name in found.broken_by
    steps = found.inputs - np.asarray(INPUTS)
    longest = np.abs(steps).max() if norm == "linf" else np.linalg.norm(steps, axis=1).max()
    assert 0.2 < longest <= 0.25 + 1e-6


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e25])
def test_an_l2_step_is_as_long_however_small_the_gradient(scale):
    ascent = NORMS["l2"].ascent(scale * jnp.array([[3.0, -4.0], [0.0, 0.0]]))
    np.testing.assert_allclose(ascent, [[0.6, -0.8], [0.0, 0.0]], rtol=1e-6)


def test_the_fast_gradient_method_by_hand():
    # the loss of class 1 rises with the logit of class 0, along (3, -4, 0) / 5
    def logits_fn(x):
        return jnp.stack([3 * x[:, 0] - 4 * x[:, 1], 0 * x[:, 0]], axis=1)

    inputs, labels = jnp.array([[0.5, 0.5, 0.5], [0.5, 0.1, 0.5]]), jnp.array([1, 1])
    attack = jax.jit(partial(fgsm, logits_fn, epsilon=0.25), static_argnames="norm")
    expected = [[0.65, 0.3, 0.5], [0.65, 0.0, 0.5]]  # the second one is clipped
    np.testing.assert_allclose(attack(inputs, labels=labels, norm="l2"), expected, rtol=1e-6)
    assert attack(inputs, labels=labels)[0].tolist() == [0.75, 0.25, 0.5]


@pytest.mark.parametrize("attack_fn", [fgsm, partial(pgd, key=None)])
@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize(("dtype", "rounding"), [("float32", 1e-7), ("float16", 1e-3)])
def test_where_there_is_no_gradient_nothing_moves(attack_fn, norm, dtype, rounding):
    inputs = INPUTS.astype(dtype)
    points = attack_fn(lambda x: 0 * x, inputs, labels=LABELS, epsilon=0.25, norm=norm)
    np.testing.assert_allclose(points, inputs, atol=0 if attack_fn is fgsm else rounding)


def typed_network(dtype):
    return lambda x: (jnp.sin(3 * x) @ WEIGHTS.astype(x.dtype)).astype(dtype)


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize(
    ("input_type", "logit_type", "epsilon_type"),
    [
        ("float32", "float32", np.float64),
        ("bfloat16", "float32", np.float32),
        ("float32", "bfloat16", float),
        ("bfloat16", "bfloat16", jnp.float32),
    ],
)
def test_the_points_keep_the_type_of_the_inputs(x64, name, norm, input_type, logit_type, epsilon_type):
    attack = partial(ATTACKS[name], typed_network(logit_type), labels=LABELS, epsilon=epsilon_type(0.25), key=KEY)
    points = jax.eval_shape(partial(attack, norm=norm), INPUTS.astype(input_type))
    assert (points.dtype, points.shape) == (input_type, INPUTS.shape)


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_rounding_carries_no_point_out_of_its_ball(name, norm, dtype):
    inputs = INPUTS.astype(dtype)
    attack = jax.jit(partial(ATTACKS[name], typed_network("float32"), labels=LABELS, key=KEY, norm=norm))
    for epsilon in (0.0013, 8 / 255, 0.2):
        points = attack(inputs, epsilon=jnp.float32(epsilon))
        moves = np.asarray(points, np.float64) - np.asarray(inputs, np.float64)
        lengths = np.abs(moves).max(axis=1) if norm == "linf" else np.linalg.norm(moves, axis=1)
        assert np.all(lengths <= epsilon * (1 + 1e-6)), lengths / epsilon


@pytest.mark.parametrize("scale", [1e-5, 1e-7, 1.0])
def test_small_gradients_of_float16_give_no_point_that_is_no_number(scale):
    inputs, labels = jnp.full((2, 3), 0.5, jnp.float16), jnp.array([0, 1])
    slope = scale * jnp.array([[1.0, -1.0], [-2.0, 2.0], [0.5, -0.5]])
    points = fgsm(lambda x: x.astype(jnp.float32) @ slope, inputs, labels=labels, epsilon=0.25, norm="l2")
    assert bool(jnp.all(jnp.isfinite(points)))
    lengths = np.linalg.norm(np.asarray(points, np.float64) - 0.5, axis=1)
    np.testing.assert_allclose(lengths, 0.25, rtol=0.01)


@pytest.mark.parametrize("name", ATTACKS)
def test_a_radius_of_a_wider_type_may_be_mapped_over(x64, name):
    attack = partial(ATTACKS[name], typed_network("float32"), INPUTS, labels=LABELS, key=KEY)
    points = jax.eval_shape(jax.vmap(lambda epsilon: attack(epsilon=epsilon)), jnp.linspace(0, 0.1, 3))
    assert (points.dtype, points.shape) == ("float32", (3, 12, 5))


def test_a_step_of_a_wider_type_and_the_audits_own_walks(x64):
    options = {"labels": LABELS, "epsilon": np.float64(0.1), "key": KEY}
    for attack_fn in (pgd, pgd_last_point, fgsm_random_start, kl_ascent):
        attack = partial(attack_fn, typed_network("float32"), step_size=jnp.float64(0.01), **options)
        assert jax.eval_shape(attack, INPUTS).dtype == "float32"
    loss_fn = lambda logits, labels: logits[:, 0]  # noqa: E731
    health = partial(ascent_health, typed_network("float32"), loss_fn=loss_fn, num_steps=3, **options)
    assert jax.eval_shape(health, INPUTS).late_rise.dtype == "float32"
    peak = partial(penalty_peak, lambda x: jnp.sum(x**2, axis=1), epsilon=np.float64(0.1), key=KEY)
    assert jax.eval_shape(peak, INPUTS).dtype == "float32"


@pytest.mark.parametrize("kind", [int, float, np.float32, np.int32, jnp.float32, jnp.bfloat16, jnp.int32])
def test_a_radius_in_grey_levels_is_refused_whatever_its_type(kind):
    with pytest.raises(ValueError, match=r"epsilon=8.*: must be in \[0, 1\].*8/255"):
        fgsm(lambda x: x, INPUTS, labels=LABELS, epsilon=kind(8))


@pytest.mark.parametrize("epsilon", [-0.5, np.float32(-0.5), jnp.float32(-0.5), float("nan"), np.float32("nan")])
def test_a_negative_radius_and_one_that_is_no_number_are_refused_in_both_norms(epsilon):
    with pytest.raises(ValueError, match=r"must be in \[0, 1\]"):
        fgsm(lambda x: x, INPUTS, labels=LABELS, epsilon=epsilon)
    with pytest.raises(ValueError, match="must be at least 0 and finite, a length"):
        apgd(lambda x: x, INPUTS, labels=LABELS, epsilon=epsilon, key=KEY, norm="l2")


def test_radii_up_to_the_whole_range_pass_rounded_or_not_and_in_l2_beyond():
    for kind in (float, np.float32, jnp.float32, jnp.bfloat16):
        check_radius(kind(0.5 - 0.2), 0.2, 0.5)
    check_radius(2, 0.0, 2.5)
    fgsm(lambda x: x, INPUTS, labels=LABELS, epsilon=8.0, norm="l2")


def test_a_given_start_outside_the_ball_is_moved_into_it():
    # the loss of class 0 falls with x: where the walk begins is the strongest point that it meets
    options = {"labels": jnp.array([0, 0]), "epsilon": 0.1, "key": None, "num_steps": 1, "start": jnp.zeros((2, 1))}
    inputs, logits_fn = jnp.array([[0.5], [0.05]]), lambda x: jnp.concatenate([x, -x], axis=1)
    np.testing.assert_allclose(pgd(logits_fn, inputs, **options), [[0.4], [0.0]], rtol=1e-6)


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize("kind", [np.uint8, bool])
def test_whole_numbers_are_no_inputs(name, kind):
    with pytest.raises(ValueError, match=r"inputs of type \w+: floating numbers are needed; divide bytes by 255"):
        ATTACKS[name](lambda x: x @ WEIGHTS, jnp.ones((12, 5), kind), labels=LABELS, epsilon=0.1, key=KEY)


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize("name", [name for name in ATTACKS if name != "kl_ascent"])  # which takes no labels
@pytest.mark.parametrize("labels", [LABELS[:, None], LABELS[:1], LABELS.astype(float)], ids=["column", "one", "float"])
def test_labels_are_one_integer_an_example(name, labels):
    with pytest.raises(ValueError, match=r"labels of (shape|type)"):
        ATTACKS[name](lambda x: x @ WEIGHTS, INPUTS, labels=labels, epsilon=0.1, key=KEY)


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_gradient_that_is_no_number_moves_nothing_and_beats_nothing(name, norm):
    def classify(_, points):  # class 0 wherever it is asked, without a derivative at 0
        return jnp.stack(
            [jnp.ones(len(points)), jax.nn.relu(jnp.sqrt(points[:, 0]) - 2), *2 * [-jnp.ones(len(points))]], 1
        )

    inputs, labels = jnp.zeros((12, 5)), jnp.zeros(12, int)
    points = ATTACKS[name](partial(classify, 0), inputs, labels=labels, epsilon=0.1, key=KEY, norm=norm)
    assert np.isfinite(points).all()
    assert accuracy(classify, 0, inputs=inputs, labels=labels, attack_fn=ATTACKS[name], epsilon=0.1, key=KEY) == 1


def test_points_that_are_no_numbers_beat_nothing():
    def nowhere(logits_fn, inputs, **_):
        return jnp.full_like(inputs, jnp.nan)

    given = {"inputs": INPUTS, "labels": LABELS, "epsilon": 0.1, "key": KEY}
    assert standard_attack(linear, WEIGHTS, budget={"nowhere": Stage(nowhere)}, **given).stands.all()
    assert accuracy(linear, WEIGHTS, attack_fn=nowhere, **given) == 1


@pytest.mark.parametrize("value", [-0.1, 1.5, float("nan")])
def test_the_ensemble_refuses_points_out_of_the_range(value):
    inputs = np.asarray(INPUTS).copy()
    inputs[3, 2] = value
    given = {"labels": LABELS, "epsilon": 0.0, "key": KEY, "budget": {"fgsm": Stage(fgsm)}}
    with pytest.raises(ValueError, match=r"1 of 12 points are not in \[0, 1\]"):
        standard_attack(linear, WEIGHTS, inputs=inputs, **given)
    if value == value:
        standard_attack(linear, WEIGHTS, inputs=inputs, lower=-1.0, upper=2.0, **given)


def test_the_ensemble_refuses_no_batch_sizes():
    with pytest.raises(ValueError, match=r"in batches of \(\)"):
        standard_attack(linear, WEIGHTS, inputs=INPUTS, labels=LABELS, epsilon=0.1, key=KEY, batch_sizes=())


@pytest.mark.parametrize("shape", [(28, 3, 1), (40, 5, 1), (3, 28, 1), (9, 9, 2)])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_square_attacks_images_of_any_sides(shape, norm):
    def classify(points):
        return jnp.stack([points.reshape(len(points), -1)[:, 0], 10 + points.sum((1, 2, 3))], axis=1)

    images = jax.random.uniform(KEY, (4, *shape))
    found = square(classify, images, labels=jnp.ones(4, int), epsilon=0.05, key=KEY, num_queries=3, norm=norm)
    moves = np.asarray(found - images).reshape(4, -1)
    longest = np.abs(moves).max(1) if norm == "linf" else np.linalg.norm(moves, axis=1)
    assert np.all((longest > 0.01) & (longest <= 0.05 + 1e-6))


@pytest.mark.parametrize("epsilon", [0.0005, 0.003])
def test_an_l2_ball_of_float16_has_its_border_where_it_should(epsilon):
    inputs, key = jnp.zeros((3, 784), jnp.float16), jax.random.key(0)
    weights = jax.random.normal(key, (784, 4), jnp.float16)
    options = {"labels": jnp.arange(3), "epsilon": epsilon, "key": key, "norm": "l2", "lower": -1.0}
    points = pgd_last_point(lambda x: x @ weights, inputs, num_steps=5, **options)
    lengths = jnp.linalg.norm(points.astype(jnp.float32), axis=1)
    assert jnp.all((lengths > 0.5 * epsilon) & (lengths <= 1.01 * epsilon)), lengths


def test_a_transferred_attack_needs_a_key_if_the_attack_does_and_passes_on_what_it_is_given():
    assert [needs_key(transfer(attack_fn, linear)) for attack_fn in (fgsm, pgd)] == [False, True]

    def own(logits_fn, inputs, *, labels, epsilon):  # takes no key
        return inputs + epsilon

    for attack_fn in (fgsm, own):
        transferred = transfer(attack_fn, partial(linear, -WEIGHTS))
        clean = accuracy(linear, WEIGHTS, inputs=INPUTS, labels=LABELS)
        assert accuracy(linear, WEIGHTS, inputs=INPUTS, labels=LABELS, attack_fn=transferred, epsilon=0.1) <= clean
