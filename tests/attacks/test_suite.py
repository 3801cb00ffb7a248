"""Attacks by name: what they are set by, that each runs in an ensemble, and the order of their accuracies."""

import jax
import numpy as np
import pytest

from jl1.attacks.budgets import BUDGETS, find_budget
from jl1.attacks.ensemble import standard_attack
from jl1.attacks.suite import ATTACKS, make_suite, order_violations, strength
from jl1.audit.attacks import make_audit_suite

pytestmark = pytest.mark.usefixtures("quick_compile")


def linear(params, inputs):
    return inputs @ params


@pytest.mark.parametrize("name", [name for name in ATTACKS if name not in ("clean", "standard")])
def test_every_attack_runs_under_its_name_and_never_mends_a_point(name):
    inputs = np.asarray(jax.random.uniform(jax.random.key(0), (12, 5)))
    params = jax.random.normal(jax.random.key(1), (5, 6))
    labels = np.array(np.argmax(inputs @ params, axis=1))
    labels[0] = (labels[0] + 1) % 6  # wrong from the start
    suite = make_suite(pgd_steps=3)
    attacked = standard_attack(
        linear, params, inputs=inputs, labels=labels, epsilon=0.3, key=jax.random.key(2), budget=suite[name]
    )
    assert attacked.broken_by[0] == "clean"
    assert set(attacked.broken_by[1:]) <= {"", name}
    assert name in attacked.broken_by
    assert np.max(np.abs(attacked.inputs - inputs)) <= 0.3 + 1e-6


def test_the_budget_and_the_steps_set_the_strength():
    fast, full = make_suite(budget="fast", pgd_steps=7, pgd_restarts=3), make_suite(budget="full")
    assert strength(fast["pgd"]["pgd"]) == {"num_steps": 7, "num_restarts": 3}
    assert strength(fast["apgd_dlr"]["apgd_dlr"]) == {"num_steps": 40, "loss_fn": "dlr"}
    assert strength(full["apgd_t"]["apgd_t"]) == {"num_steps": 100, "num_targets": 9}
    assert strength(full["square"]["square"]) == {"num_queries": 5000, "schedule_queries": 10_000}
    assert full["standard"] is BUDGETS["full"]
    assert fast["fab_t"]["fab_t"] is BUDGETS["full"]["fab_t"]  # the fast budget has none of its own
    assert (ATTACKS[0], ATTACKS[-1]) == ("clean", "standard")


def test_the_order_allows_equal_figures_and_a_little_luck():
    ordered = {"clean": 0.9, "noise": 0.9, "fgsm": 0.5, "pgd": 0.4, "apgd_ce": 0.45, "square": 0.8, "standard": 0.4019}
    assert order_violations(ordered, num_examples=5000) == []
    assert order_violations(ordered | {"standard": 0.44}, num_examples=5000) == [("pgd", "standard")]
    assert order_violations(ordered | {"standard": 0.44}, num_examples=30) == []  # one and a half examples
    assert order_violations({"standard": 0.6, "noise": 0.5, "fgsm": 0.51}, num_examples=5000) == [
        ("noise", "standard"),
        ("noise", "fgsm"),
        ("fgsm", "standard"),
    ]


@pytest.mark.parametrize("make", [lambda name: make_suite(budget=name), make_audit_suite, find_budget])
def test_an_unknown_budget_is_refused_with_the_known_ones(make):
    with pytest.raises(ValueError, match="unknown budget 'ful'; known are full, few_classes, fast"):
        make("ful")
