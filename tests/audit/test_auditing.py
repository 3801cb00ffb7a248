"""The whole audit of a network: a masked one is flagged each time, a plainly trained one is not."""

from functools import partial

import jax
import jax.numpy as jnp
import masked
import numpy as np
import pytest

from jl1.attacks.budgets import BUDGETS, Stage
from jl1.attacks.ensemble import Attacked
from jl1.attacks.fgsm import fgsm
from jl1.attacks.noise import random_noise
from jl1.attacks.pgd import pgd
from jl1.attacks.square import square
from jl1.audit import auditing
from jl1.audit.attacks import make_audit_suite
from jl1.audit.auditing import audit_network, audit_tasks

pytestmark = pytest.mark.usefixtures("quick_compile")

EPSILON = 0.1
KEY = jax.random.key(0)
SINGLE = {
    "noise": Stage(partial(random_noise, num_draws=20)),
    "fgsm": Stage(fgsm),
    "pgd": Stage(partial(pgd, num_steps=10)),
    "pgd_long": Stage(partial(pgd, num_steps=20, num_restarts=2)),
    "square": Stage(partial(square, num_queries=100)),
}
SUITE = {
    "clean": {},
    **{name: {name: stage} for name, stage in SINGLE.items()},
    "standard": {"pgd": SINGLE["pgd_long"], "square": SINGLE["square"]},
}
SLOW = set(masked.NETWORKS) - {"plain", "quantised inputs"}


def audit_of(name, **options):
    net = masked.NETWORKS[name]
    return audit_network(
        net.apply_fn,
        masked.trained_params(),
        **masked.right_points(name),
        epsilon=EPSILON,
        key=jax.random.key(0),
        suite=SUITE,
        batch_size=48,
        **{"features_fn": net.features_fn, **options},
    )


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in masked.NETWORKS]
)
def test_masked_networks_are_flagged_each_time_and_a_plain_one_is_not(name):
    audit = audit_of(name)
    assert audit.conclusion.is_masked == (name != "plain"), audit.conclusion
    assert {*audit.standing} == {*audit_tasks(SUITE, EPSILON)}
    assert not {check.outcome for check in audit.checks if check.topic == "hygiene"} & {"FAIL"}
    if name == "plain":
        assert not [check.name for check in audit.checks if check.outcome == "FAIL" and check.shows_masking]
        assert audit.segments is None  # no module was given
        assert audit.certified == {}


def test_a_plain_network_with_its_module_has_segments_certificates_and_the_gauge():
    told = []
    audit = audit_of("plain", module=masked.MODULE, features_fn=None, num_examined=16, progress=told.append)
    names = {check.name: check.outcome for check in audit.checks}
    assert names["Eq. 2 on segments"] == names["certificates hold"] == names["gauge of the output layer"] == "PASS"
    assert audit.segments is not None
    assert audit.segments.norms.supremum.shape == (16, 10)
    assert audit.segments.radii == pytest.approx(EPSILON)
    assert {radius for _, radius in audit.certified} == {radius for _, radius in audit.standing if radius}
    assert {len(norms) for norms in audit.gradient_norms.values()} == {16}
    assert told == [*dict.fromkeys(told)]
    assert "certificates" in told
    stands = np.all([stands for (_, radius), stands in audit.standing.items() if radius == EPSILON], axis=0)
    assert f"{np.mean(stands):.1%}" in audit.conclusion.sentence


def test_points_that_fall_to_an_attack_on_the_penalty_alone_are_not_said_to_stand(monkeypatch):
    def inverts(logits_fn, inputs, *, labels, epsilon, key, **options):
        del logits_fn, labels, epsilon, key, options
        return 1 - inputs

    monkeypatch.setattr("jl1.audit.examination.pgd_each_rival", inverts)
    audit = audit_of("plain")
    stands = np.all([stands for (_, radius), stands in audit.standing.items() if radius == EPSILON], axis=0)
    assert np.mean(stands) > 0.05
    assert "strong attacks leave 0.0%" in audit.conclusion.sentence


@pytest.mark.slow
def test_a_network_of_two_classes_is_audited_without_the_dlr():
    weights = jnp.asarray(np.random.default_rng(0).normal(size=(784, 2)), jnp.float32)
    inputs = masked.right_points()["inputs"]
    labels = np.argmax(inputs.reshape(-1, 784) @ weights, axis=1)
    audit = audit_network(
        lambda params, inputs: inputs.reshape(-1, 784) @ params,
        weights,
        inputs=inputs,
        labels=np.int32(labels),
        epsilon=0.01,
        key=jax.random.key(0),
        suite=SUITE,
    )
    assert {"gradient of cross-entropy", "gradient of margin"} <= {check.name for check in audit.checks}
    assert "gradient of DLR" not in {check.name for check in audit.checks}
    assert not [check.name for check in audit.checks if check.topic == "hygiene" and check.outcome == "WARN"]


def test_a_constant_answer_on_labels_that_are_mostly_one_class_is_no_classifier():
    labels = np.int32(np.arange(40) % 10 == 0)  # a tenth
    audit = audit_network(
        lambda params, inputs: jnp.stack([params + 0 * inputs[:, 0], 0 * inputs[:, 0]], axis=1),
        jnp.float32(1.0),
        inputs=np.full((40, 3), 0.5, np.float32),
        labels=labels,
        epsilon=0.1,
        key=KEY,
        suite=SUITE,
        num_examined=4,
    )
    assert audit.conclusion.finding == "no classifier"
    assert "90.0% without attack, where chance is 90.0%" in audit.conclusion.sentence


@pytest.mark.parametrize(("num_classes", "budget"), [(2, "few_classes"), (3, "few_classes"), (4, "fast")])
def test_the_budget_follows_the_number_of_classes(monkeypatch, num_classes, budget):
    # the attacks themselves are left out: none of the points stands, so that the audit ends before the measures
    asked = []

    def standard(apply_fn, params, **options):
        asked.append(options["budget"])
        return Attacked(options["inputs"], None, np.zeros(3, bool))

    monkeypatch.setattr(auditing, "standard_attack", standard)
    points = {"inputs": np.zeros((3, 4), np.float32), "labels": np.zeros(3, int)}
    with pytest.raises(ValueError, match="no point right"):
        audit_network(lambda params, x: x @ params, jnp.ones((4, num_classes)), **points, epsilon=0.1, key=KEY)
    assert asked[0] == {}  # without attack
    assert asked[6] is BUDGETS[budget]


def test_a_suite_that_needs_more_classes_is_refused_before_anything_is_attacked(monkeypatch):
    monkeypatch.setattr(auditing, "standard_attack", lambda *_, **__: pytest.fail("attacked"))
    with pytest.raises(ValueError, match=r"3 classes, .* needs 4: give suite=make_audit_suite\('few_classes'\)"):
        audit_network(
            lambda params, inputs: inputs @ params,
            jnp.ones((4, 3)),
            inputs=np.zeros((3, 4), np.float32),
            labels=np.zeros(3, int),
            epsilon=0.1,
            key=KEY,
            suite=make_audit_suite("full"),
        )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epsilon": 0.0}, "above 0"),
        ({"epsilon": 1.5}, "at most 1"),
        ({"inputs": np.zeros((1, 4), np.float32), "labels": np.zeros(1, int)}, "at least two"),
        ({"labels": np.full(3, 1)}, "no point right"),
    ],
)
def test_what_cannot_be_audited_is_refused(changes, message):
    given = {"inputs": np.zeros((3, 4), np.float32), "labels": np.zeros(3, int), "epsilon": 0.1, "suite": SUITE}
    params = jnp.zeros((4, 2))
    with pytest.raises(ValueError, match=message):
        audit_network(lambda params, inputs: inputs @ params, params, key=jax.random.key(0), **(given | changes))
