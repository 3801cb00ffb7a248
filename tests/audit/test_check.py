"""What the checks say of figures, and of real networks: a masked one is caught every time, a plain one never.

| network | caught by |
|---|---|
| logits of a trained network, times 1e2 | gradient of ce, the same attack at a tenth of the logits, float64 |
| the same, times 1e3 | gradient of ce, the same attack at a tenth of the logits |
| the same, times 1e6 | gradient of ce |
| stopped gradient, sign in the first layer, quantised inputs | gradients of ce, margin and dlr, planted examples |
| shattered gradient | planted examples |
"""

from functools import partial

import jax
import masked
import numpy as np
import pytest

from jl1.attacks.fgsm import fgsm
from jl1.attacks.objectives import OBJECTIVES
from jl1.attacks.pgd import pgd
from jl1.audit import check
from jl1.audit.ascent_health import AscentHealth
from jl1.audit.defence import Gauge
from jl1.audit.double_precision import PrecisionVerdicts, precision_verdicts
from jl1.audit.gradient_health import GradientHealth, make_alignment_step, make_gradient_step
from jl1.audit.invariance import TRANSFORMS, Invariance, make_invariance_step
from jl1.audit.planted import Planted, make_planted_step
from jl1.batches import measure

pytestmark = pytest.mark.usefixtures("quick_compile")

EPSILON, NUM_STEPS = 0.1, 10
KEY = jax.random.key(0)
GRADIENTS = {f"gradient of {loss}" for loss in OBJECTIVES}
CAUGHT_BY = {
    "plain": set(),
    "saturated 1e2": {"gradient of ce", "same attack on transformed logits", "fgsm in float64"},
    "saturated 1e3": {"gradient of ce", "same attack on transformed logits"},
    "saturated 1e6": {"gradient of ce"},
    "stopped gradient": {*GRADIENTS, "planted adversarial examples"},
    "sign in the first layer": {*GRADIENTS, "planted adversarial examples"},
    "quantised inputs": {*GRADIENTS, "planted adversarial examples"},
    "shattered gradient": {"planted adversarial examples"},
}


def checks_of(name):
    """Run the checks that can show masking, and the alignment, on a network of `masked`."""
    net, params, points = masked.NETWORKS[name], masked.trained_params(), masked.right_points(name)
    of = partial(measure, params=params, **points)
    attack_fn = partial(pgd, num_steps=NUM_STEPS)
    attacked = {"epsilon": EPSILON, "key": KEY}
    planted_step = make_planted_step(net.features_fn, attack_fn=attack_fn, num_draws=NUM_STEPS + 2)
    verdicts = precision_verdicts(net.apply_fn, params, **points, epsilon=EPSILON, attack_fn=fgsm)
    loss_fn = OBJECTIVES["ce"]
    return [
        *(
            check.gradient_check(of(make_gradient_step(net.apply_fn, loss_fn=loss_fn)), loss=loss)
            for loss, loss_fn in OBJECTIVES.items()
        ),
        check.alignment_check(of(make_alignment_step(net.apply_fn, loss_fn=loss_fn), **attacked), loss="ce"),
        check.invariance_check(of(make_invariance_step(net.apply_fn, attack_fn=attack_fn), **attacked)),
        check.double_precision_check(verdicts, attack="fgsm"),
        check.planted_check(of(planted_step, **attacked)),
    ]


SLOW = ("saturated 1e3", "saturated 1e6", "stopped gradient", "sign in the first layer")  # like others, for the checks


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in CAUGHT_BY])
def test_masked_networks_are_caught_and_a_plain_one_is_not(name):
    checks = checks_of(name)
    caught_by = {line.name for line in checks if line.shows_masking and line.outcome == "FAIL"}
    assert caught_by >= CAUGHT_BY[name]
    assert caught_by or name == "plain"
    if name == "plain":
        assert {line.outcome for line in checks} == {"PASS"}


def health(**changes):
    sound = {"is_zero": False, "is_subnormal": False, "is_finite": True, "zero_share": 0.0, "l1_norm": 1.0}
    columns = {name: np.full(100, value) for name, value in sound.items()}
    for name, (count, value) in changes.items():
        columns[name][:count] = value
    return GradientHealth(**columns)


@pytest.mark.parametrize(
    ("changes", "outcome"),
    [
        ({}, "PASS"),
        ({"is_zero": (1, True)}, "WARN"),
        ({"is_subnormal": (5, True)}, "WARN"),
        ({"is_finite": (6, False)}, "FAIL"),
        ({"is_zero": (4, True), "is_finite": (8, False)}, "FAIL"),
        ({"zero_share": (100, 0.6)}, "WARN"),
    ],
)
def test_a_gradient_is_judged_by_the_share_that_cannot_be_used(changes, outcome):
    line = check.gradient_check(health(**changes), loss="ce")
    assert (line.outcome, line.name, line.topic, line.shows_masking) == (outcome, "gradient of ce", "gradients", True)
    assert line.values["zero"] == np.mean(health(**changes).is_zero)


def test_figures_carry_their_numbers():
    line = check.gradient_check(health(is_zero=(3, True), zero_share=(50, 0.5)), loss="dlr")
    assert line.figure == "3.0 % of the points have none that can be used; 25.0 % of their features have sign 0"


@pytest.mark.parametrize(("mean", "outcome"), [(0.9, "PASS"), (0.19, "WARN"), (np.nan, "WARN")])
def test_alignment_warns_and_shows_no_masking(mean, outcome):
    line = check.alignment_check(np.full(5, mean), loss="ce")
    assert (line.outcome, line.shows_masking) == (outcome, False)


@pytest.mark.parametrize(("num_rising", "outcome"), [(1, "PASS"), (10, "WARN"), (30, "FAIL")])
def test_only_points_that_stand_must_have_converged(num_rising, outcome):
    rise, broken = np.zeros(100), np.arange(100) >= 50
    rise[50:], rise[:num_rising] = 0.5, 0.5
    line = check.convergence_check(AscentHealth(rise, broken, broken), loss="ce")
    assert (line.outcome, line.values["still rising"]) == (outcome, num_rising / 50)


def test_where_nothing_stands_nothing_is_rising():
    broken = np.ones(4, bool)
    assert check.convergence_check(AscentHealth(np.ones(4), broken, broken), loss="ce").outcome == "PASS"


@pytest.mark.parametrize(("num_lost", "outcome"), [(1, "PASS"), (3, "WARN"), (6, "FAIL")])
def test_lost_iterates_are_counted(num_lost, outcome):
    was, still = np.arange(100) < 50, np.arange(100) < 50 - num_lost
    line = check.lost_iterates_check(AscentHealth(np.zeros(100), was, still), loss="ce")
    assert (line.outcome, line.values["lost"]) == (outcome, num_lost / 100)


@pytest.mark.parametrize(("num_lucky", "outcome"), [(0, "FAIL"), (10, "PASS")])
def test_a_transform_must_do_better_than_two_plain_attacks(num_lucky, outcome):
    stands = np.ones((100, len(TRANSFORMS)), bool)
    stands[:10, 2] = False
    line = check.invariance_check(Invariance(stands, np.arange(100) >= num_lucky))
    assert line.outcome == outcome
    assert line.values["worst case"] == 0.9
    if outcome == "FAIL":
        assert line.figure == "10.0 % of the points fall to another one (scale 0.1) and not to two plain attacks"


def test_a_sharper_loss_that_finds_more_is_no_sign_of_masking():
    stands = np.ones((100, len(TRANSFORMS)), bool)
    stands[:10, list(TRANSFORMS).index("scale 10")] = False
    assert check.invariance_check(Invariance(stands, np.ones(100, bool))).outcome == "WARN"


def test_double_precision_counts_what_it_alone_breaks():
    single, double = np.arange(100) >= 20, np.arange(100)[::-1] >= 20
    line = check.double_precision_check(PrecisionVerdicts(single, double), attack="pgd")
    assert (line.outcome, line.figure) == ("FAIL", "20.0 % of the points fall in float64 only")


@pytest.mark.parametrize(
    ("num_found", "num_by_noise", "outcome"), [(95, 10, "PASS"), (94, 10, "FAIL"), (99, 60, "WARN"), (20, 60, "FAIL")]
)
def test_planted_examples_must_be_found_and_not_by_noise(num_found, num_by_noise, outcome):
    rows = np.arange(100)
    line = check.planted_check(Planted(rows < 100, rows < num_found, rows < num_by_noise))
    assert (line.outcome, line.topic) == (outcome, "unit test")
    assert line.figure == f"{num_found:.1f} % found by the attack, {num_by_noise:.1f} % by noise"


@pytest.mark.parametrize(("num_more", "outcome"), [(1, "PASS"), (3, "WARN"), (6, "FAIL")])
def test_an_adaptive_attack_is_judged_by_what_it_adds(num_more, outcome):
    plain, adaptive = np.arange(100) >= 20, np.arange(100) >= 20 + num_more
    line = check.adaptive_attack_check(plain, adaptive, attack="PGD from the penalty's peak")
    assert (line.outcome, line.topic, line.shows_masking) == (outcome, "defence", False)
    assert check.adaptive_attack_check(adaptive, plain, attack="weaker").outcome == "PASS"


def test_the_gauge_fails_where_decisions_or_gauge_free_norms_change():
    sound = Gauge(np.zeros(4, bool), np.zeros(4), {"jacobian_l1 on logits": np.ones(4)}, {})
    moved = sound._replace(after={"jacobian_l1 on logits": np.full(4, 0.75)})
    line = check.gauge_check(moved)
    assert line.outcome == "PASS"
    assert line.figure == "centring it changes 0.0 % of the decisions; it changes jacobian_l1 on logits by 25.0 %"
    assert check.gauge_check(moved._replace(changes_decision=np.arange(4) < 1)).outcome == "FAIL"
    assert check.gauge_check(moved._replace(gap=np.full(4, np.nan))).outcome == "FAIL"
    assert check.gauge_check(sound._replace(gap=np.full(4, np.nan), after=sound.before)).outcome == "FAIL"
    free, none = {"jacobian_l1 on probs": np.ones(4)}, {"jacobian_l1 on probs": np.zeros(4)}
    for before, after in ((free, {"jacobian_l1 on probs": np.full(4, np.nan)}), (none, free)):
        line = check.gauge_check(sound._replace(before=before, after=after))
        assert (line.outcome, "changes jacobian_l1 on probs by" in line.figure) == ("FAIL", True)
    assert check.gauge_check(sound._replace(before=free, after=free)).outcome == "PASS"
    assert check.gauge_check(sound._replace(before=free, after=none)).outcome == "FAIL"
