"""Adversarial training and TRADES: what they are at their borders, on paper, and what may not flow."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from networks import NETS, as_tree

from jl1.attacks.ascent import pgd_last_point
from jl1.attacks.divergence import kl_ascent
from jl1.losses import cross_entropy, defended_loss, penalised_loss
from jl1.penalties import make_penalty
from jl1.robust_losses import adversarial_loss, trades_loss

pytestmark = pytest.mark.usefixtures("strict_dtypes", "quick_compile")

NET = NETS["dense_tanh"]
INPUTS, LABELS = jnp.float32(NET.inputs(5)), jnp.int32(NET.labels(5))
PARAMS = jax.tree.map(jnp.float32, as_tree(NET.params()))
TWINS = jnp.clip(INPUTS + 0.1 * jnp.sign(jax.random.normal(jax.random.key(1), INPUTS.shape)), 0.0, 1.0)
SMOOTH = partial(cross_entropy, smoothing=0.1)
PENALTY = make_penalty("jacobian_l1", outputs="probs")
LOSSES = {"pgd": adversarial_loss, "trades": trades_loss}
ATTACKS = {"pgd": pgd_last_point, "trades": kl_ascent}


def known_twins(*_, **__):
    return TWINS


def terms_at(loss, params=PARAMS, **options):
    """Evaluate a loss at the module's points, by default against known twins."""
    options = {"lam": 0.7, "epsilon": 0.1, "penalty_fn": PENALTY, "loss_fn": SMOOTH, "labels": LABELS} | options
    options.setdefault("attack_fn", known_twins)
    return jax.jit(lambda params: loss(partial(NET.apply_fn, params), INPUTS, **options))(params)


def assert_equal_terms(one, other, rtol=2e-6):
    for left, right in zip(one, other, strict=True):
        np.testing.assert_allclose(left, right, rtol=rtol)


def equation_3(inputs, penalty_fn=PENALTY):
    logits_fn, given = partial(NET.apply_fn, PARAMS), {"lam": 0.7, "penalty_fn": penalty_fn, "loss_fn": SMOOTH}
    return jax.jit(lambda inputs: penalised_loss(logits_fn, inputs, labels=LABELS, **given))(inputs)


@pytest.mark.parametrize(("weight", "points"), [(0.0, TWINS), (1.0, INPUTS)])
@pytest.mark.parametrize("penalty_fn", [PENALTY, None], ids=["penalty", "none"])
def test_adversarial_training_is_equation_3_at_the_points_that_have_the_weight(weight, points, penalty_fn):
    found = terms_at(adversarial_loss, clean_weight=weight, penalty_fn=penalty_fn)
    assert_equal_terms(found, equation_3(points, penalty_fn))


def test_with_half_of_the_weight_it_is_the_coupled_loss_of_the_paper():
    assert_equal_terms(terms_at(adversarial_loss, clean_weight=0.5), terms_at(defended_loss))


@pytest.mark.parametrize(
    ("loss_fn", "options", "message"),
    [
        (adversarial_loss, {"clean_weight": 2.0}, r"clean_weight=2.0: must be in \[0, 1\]"),
        (adversarial_loss, {"clean_weight": -0.5}, r"clean_weight=-0.5: must be in \[0, 1\]"),
        (adversarial_loss, {"clean_weight": float("nan")}, "clean_weight=nan"),
        (trades_loss, {"beta": -1}, "beta=-1: must be at least 0"),
        (trades_loss, {"lam": -1.0}, "lam=-1.0: must be at least 0"),
    ],
)
def test_a_weight_outside_its_range_is_refused(loss_fn, options, message):
    given = {"labels": LABELS, "lam": 0.5, "epsilon": 0.1, "penalty_fn": None, "attack_fn": known_twins} | options
    with pytest.raises(ValueError, match=message):
        loss_fn(partial(NET.apply_fn, PARAMS), INPUTS, **given)


def test_the_draws_at_the_twins_and_at_the_points_are_others():
    penalty_fn = make_penalty("jacobian_l1_sampled_classes")
    given = {"penalty_fn": penalty_fn, "attack_fn": lambda _, inputs, **__: inputs}  # the twins are the points

    def values(key):
        options = {"labels": LABELS, "lam": 0.7, "epsilon": 0.1, "key": key, **given}
        losses = [
            adversarial_loss(partial(NET.apply_fn, PARAMS), INPUTS, clean_weight=w, **options) for w in (0.0, 0.5)
        ]
        return jnp.stack([loss.penalty for loss in losses])

    alone, both = jax.jit(jax.vmap(values))(jax.random.split(jax.random.key(0), 400)).transpose(1, 0, 2)
    variances = both.var(axis=0).sum() / alone.var(axis=0).sum()
    assert 0.4 < variances < 0.6  # 1 with the same draws at both


def test_in_between_it_is_affine_in_the_weight():
    clean, attacked, found = (terms_at(adversarial_loss, clean_weight=weight) for weight in (1.0, 0.0, 0.25))
    assert_equal_terms(found, jax.tree.map(lambda here, there: 0.25 * here + 0.75 * there, clean, attacked))


def test_without_a_weight_no_pass_over_the_clean_points_is_compiled():
    def products(weight):
        def loss(params):
            given = {"labels": LABELS, "lam": 0.0, "epsilon": 0.1, "penalty_fn": None, "attack_fn": known_twins}
            return adversarial_loss(partial(NET.apply_fn, params), INPUTS, clean_weight=weight, **given).total

        return jax.jit(loss).lower(PARAMS).as_text().count("dot_general")

    assert (products(0.0), products(0.5)) == (3, 6)


@pytest.mark.parametrize("penalty_fn", [PENALTY, None], ids=["penalty", "none"])
def test_trades_without_beta_is_equation_3(penalty_fn):
    found = terms_at(trades_loss, beta=0.0, penalty_fn=penalty_fn)
    assert_equal_terms(found, equation_3(INPUTS, penalty_fn))


def test_trades_with_epsilon_0_is_equation_3():
    attack_fn = partial(kl_ascent, key=jax.random.key(2))
    found = terms_at(trades_loss, epsilon=0.0, attack_fn=attack_fn)
    assert_equal_terms(found, equation_3(INPUTS), rtol=1e-5)


def oracle_trades(params, beta):
    """Compute the loss of every example in NumPy, without a penalty."""
    logits, others = (NET.reference(params, np.float64(points))[0] for points in (INPUTS, TWINS))
    probs, other_probs = reference.softmax(logits), reference.softmax(others)
    targets = 0.9 * np.eye(3)[LABELS] + 0.1 / 3
    return reference.cross_entropy(logits, targets) + beta * (probs * np.log(probs / other_probs)).sum(axis=1)


def test_trades_and_its_slope_are_the_oracles_so_the_divergence_is_differentiated_at_both_points(x64):
    params = NET.params()

    def mean_loss(tree):
        given = {"labels": LABELS, "lam": 0.0, "epsilon": 0.1, "penalty_fn": None, "beta": 6.0, "loss_fn": SMOOTH}
        inputs, attack_fn = INPUTS.astype(jnp.float64), lambda *_, **__: TWINS.astype(jnp.float64)
        terms = trades_loss(partial(NET.apply_fn, tree), inputs, attack_fn=attack_fn, **given)
        return jnp.mean(terms.total)

    value, slope = jax.jit(jax.value_and_grad(mean_loss))(as_tree(params))
    np.testing.assert_allclose(value, oracle_trades(params, 6.0).mean(), rtol=1e-7)
    kernel, bias = params[-1]
    of_kernel = reference.differences(lambda kernel: oracle_trades([*params[:-1], (kernel, bias)], 6.0).mean(), kernel)
    np.testing.assert_allclose(slope["output"]["kernel"], of_kernel, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("name", LOSSES)
def test_the_attacked_points_are_constants_even_of_an_attack_that_is_not(name):
    @partial(jax.jit, static_argnums=0)
    def slope_of(attack_fn):
        def mean_loss(params):
            given = {"labels": LABELS, "lam": 0.5, "epsilon": 0.1, "penalty_fn": PENALTY, "attack_fn": attack_fn}
            return jnp.mean(LOSSES[name](partial(NET.apply_fn, params), INPUTS, **given).total)

        return jax.grad(mean_loss)(PARAMS)

    def leaking(logits_fn, inputs, **_):
        return inputs + 0.01 * jnp.sum(logits_fn(inputs))

    for attack_fn in (leaking, partial(ATTACKS[name], key=jax.random.key(0), num_steps=3)):
        twins = jax.jit(partial(attack_fn, partial(NET.apply_fn, PARAMS), labels=LABELS, epsilon=0.1))(INPUTS)
        still = slope_of(lambda *_, twins=twins, **__: twins)
        for one, other in zip(jax.tree.leaves(slope_of(attack_fn)), jax.tree.leaves(still), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_both_are_affine_in_lambda_and_attacked_with_the_labels_and_epsilon_given(name):
    seen = {}

    def attack_fn(logits_fn, inputs, *, labels, epsilon):
        seen.update(labels=labels, epsilon=epsilon)
        return TWINS

    terms = terms_at(LOSSES[name], lam=3.0, attack_fn=attack_fn)
    np.testing.assert_allclose(terms.total, terms.cross_entropy + 3.0 * terms.penalty, rtol=1e-6)
    assert (terms.penalty > 0.01).all()
    assert seen["epsilon"] == 0.1
    assert seen["labels"] is LABELS


@pytest.mark.parametrize("name", LOSSES)
def test_as_it_is_called_the_key_is_split_for_the_attack_and_the_penalty(name):
    key, sampled = jax.random.key(3), make_penalty("jacobian_l1_sampled_classes", num_draws=1)
    for_attack, for_penalty = jax.random.split(key)
    found = terms_at(partial(LOSSES[name], key=key), attack_fn=ATTACKS[name], penalty_fn=sampled)
    bound = {"attack_fn": partial(ATTACKS[name], key=for_attack), "penalty_fn": partial(sampled, key=for_penalty)}
    assert_equal_terms(found, terms_at(LOSSES[name], **bound))
    given = {"labels": LABELS, "lam": 0.7, "epsilon": 0.1, "loss_fn": SMOOTH, "penalty_fn": sampled}
    by_default = jax.jit(lambda: LOSSES[name](partial(NET.apply_fn, PARAMS), INPUTS, key=key, **given))()
    assert_equal_terms(found, by_default)


@pytest.mark.parametrize("name", LOSSES)
def test_an_attack_that_draws_needs_a_key_and_one_of_ones_own_may_take_none(name):
    given = {"labels": LABELS, "lam": 0.0, "epsilon": 0.1, "penalty_fn": None}
    with pytest.raises(
        ValueError, match=r"the attack takes a key: .*loss\(\.\.\., key=.*partial\(attack_fn, key=\.\.\.\)"
    ):
        LOSSES[name](partial(NET.apply_fn, PARAMS), INPUTS, **given)
    terms_at(LOSSES[name], attack_fn=lambda logits_fn, inputs, *, labels, epsilon: inputs)


@pytest.mark.parametrize("name", LOSSES)
def test_twins_of_another_shape_are_refused(name):
    with pytest.raises(AssertionError, match="shape"):
        terms_at(LOSSES[name], attack_fn=lambda _, x, **__: x[:, :2])
