"""What is checked before any attack counts."""

import jax
import jax.numpy as jnp
import numpy as np

from jl1.audit.hygiene import network_checks, points_checks

WEIGHTS = jnp.asarray(np.random.default_rng(0).normal(size=(6, 5)), jnp.float32)
INPUTS = jnp.asarray(np.random.default_rng(1).uniform(size=(8, 6)), jnp.float32)


def linear(inputs):
    return inputs @ WEIGHTS


def outcomes(logits_fn, inputs=INPUTS, *, targeted_dlr=True):
    return {check.name: check.outcome for check in network_checks(logits_fn, inputs, targeted_dlr=targeted_dlr)}


def test_a_plain_network_passes():
    assert set(outcomes(linear).values()) == {"PASS"}


def test_probabilities_are_found():
    assert outcomes(lambda x: jax.nn.softmax(linear(x)))["logits, inputs in range"] == "FAIL"


def test_inputs_out_of_range_are_found():
    (check, *_) = network_checks(linear, 255 * INPUTS, targeted_dlr=True)
    assert check.outcome == "FAIL"
    assert "divide bytes by 255" in check.advice


def test_a_random_network_is_found():
    generator = np.random.default_rng(2)
    assert (
        outcomes(lambda x: linear(x) + jnp.asarray(generator.normal(size=(len(x), 5)), jnp.float32))[
            "same answer twice"
        ]
        == "FAIL"
    )


def test_three_classes_are_too_few_for_the_targeted_dlr():
    assert outcomes(lambda x: linear(x)[:, :3])["enough classes"] == "WARN"
    assert outcomes(lambda x: linear(x)[:, :3], targeted_dlr=False)["enough classes"] == "PASS"


def test_a_mended_point_fails():
    clean = np.array([True, True, False, True])
    honest = {("clean", 0.0): clean, ("standard", 0.1): np.array([True, False, False, True])}
    mended = honest | {("standard", 0.1): np.array([True, False, True, True])}
    for standing, outcome in ((honest, "PASS"), (mended, "FAIL")):
        errors, _ = points_checks(standing, 0.1, num_points=4)
        assert errors.outcome == outcome
        assert errors.figure.startswith("1 of 4 points")


def test_the_interval_must_be_narrow_unless_all_points_count():
    for num, num_points, outcome in ((100, 100, "PASS"), (100, 10_000, "WARN"), (2000, 10_000, "PASS")):
        stands = np.arange(num) % 5 > 0
        _, enough = points_checks({("clean", 0.0): stands, ("standard", 0.1): stands}, 0.1, num_points=num_points)
        assert enough.outcome == outcome
