"""The same attack in both precisions: what rounding hides is found, and the process's setting stays."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jl1.attacks.fgsm import fgsm
from jl1.attacks.pgd import pgd
from jl1.audit.double_precision import precision_verdicts

pytestmark = pytest.mark.usefixtures("quick_compile")

WEIGHTS = {"kernel": jnp.array([[1.0, 0.0], [0.0, 1.0]])}
POINTS = np.array([[0.54, 0.46], [0.501, 0.499], [0.9, 0.1]], np.float32)
LABELS = np.zeros(3, np.int32)
ATTACKS = {"fgsm": fgsm, "pgd": partial(pgd, key=None, num_steps=5)}


def verdicts(scale, attack, points=POINTS):
    apply_fn = lambda params, inputs: scale * inputs @ params["kernel"]  # noqa: E731
    return precision_verdicts(
        apply_fn, WEIGHTS, inputs=points, labels=LABELS, epsilon=0.1, attack_fn=ATTACKS[attack], batch_size=2
    )


@pytest.mark.parametrize("attack", ATTACKS)
def test_nothing_is_hidden_where_nothing_rounds_to_zero(attack):
    found = verdicts(10.0, attack)
    assert found.stands_single.tolist() == found.stands_double.tolist() == [False, False, True]


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_gradient_that_only_float32_rounds_to_zero_is_found(attack):
    found = verdicts(2e3, attack)  # a gap of 160: exp(-160) is 0 in float32, 3e-70 in float64
    assert found.stands_single.tolist() == [True, False, True]
    assert found.stands_double.tolist() == [False, False, True]


def test_the_process_computes_in_its_own_precision_afterwards():
    verdicts(10.0, "fgsm")
    assert not jax.config.jax_enable_x64
    assert jnp.ones(1).dtype == jnp.float32
    with jax.enable_x64(True):
        found = verdicts(2e3, "fgsm")
        assert jnp.ones(1).dtype == jnp.float64
    assert found.stands_single.tolist() == [True, False, True]  # float32 even in a process in float64
