"""A step of one's own inside `jax.shard_map`, with JAX's default checks of what varies over the devices."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec

from jl1.attacks.apgd import apgd
from jl1.attacks.fab import fab
from jl1.attacks.fgsm import fgsm
from jl1.attacks.pgd import pgd
from jl1.attacks.square import square
from jl1.closed_form import make_closed_form_gradient
from jl1.losses import cross_entropy, penalised_loss
from jl1.mean_loss import make_loss
from jl1.models import Dense, SequentialNet, make_apply_fn
from jl1.penalties import PENALTIES

pytestmark = pytest.mark.usefixtures("quick_compile")

MODULE = SequentialNet((Dense(6),), 3)
APPLY_FN = make_apply_fn(MODULE)
KEY = jax.random.key(3)
ATTACKS = {
    "fgsm": fgsm,
    "pgd": partial(pgd, num_steps=3, key=KEY),
    "apgd": partial(apgd, num_steps=3, key=KEY),
    "fab": partial(fab, num_steps=3, key=KEY),
    "square": partial(square, num_queries=5, key=KEY),
}


def problem():
    inputs = jax.random.uniform(jax.random.key(1), (6, 5))
    return MODULE.init(jax.random.key(0), inputs)["params"], inputs, jnp.arange(6) % 3


def on_rows(fn, out_specs):
    """Run a function of parameters, inputs and labels on one device, as each of several would."""
    whole, rows = PartitionSpec(), PartitionSpec("data")
    mesh = Mesh(np.array(jax.devices()[:1]), ("data",))
    return jax.jit(jax.shard_map(fn, mesh=mesh, in_specs=(whole, rows, rows), out_specs=out_specs))


@pytest.mark.parametrize("penalty", PENALTIES)
def test_the_gradient_of_every_penalised_loss(penalty):
    outputs = None if penalty.startswith("loss_gradient") else "logits"
    loss = make_loss(APPLY_FN, penalty=penalty, **({} if outputs is None else {"outputs": outputs}))

    def mean_loss(params, inputs, labels):
        return loss(params, inputs, labels, lam=0.1, epsilon=0.1, key=KEY)[0]

    def shared(params, inputs, labels):
        return jax.grad(lambda params: jax.lax.pmean(mean_loss(params, inputs, labels), "data"))(params)

    found = on_rows(shared, PartitionSpec())(*problem())
    expected = jax.jit(jax.grad(mean_loss))(*problem())
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), found, expected)


def test_the_closed_form():
    gradient_fn = make_closed_form_gradient(MODULE, twin_loss_fn=cross_entropy, examples_per_pass=2)
    options = {"mask": jnp.ones(6, bool), "lam": 0.1, "epsilon": 0.1}

    def gradient(params, inputs, labels):
        return gradient_fn(params, inputs, labels=labels, **options)[0]

    def shared(params, inputs, labels):
        return jax.lax.pmean(gradient(jax.lax.pcast(params, "data", to="varying"), inputs, labels), "data")

    found, expected = on_rows(shared, PartitionSpec())(*problem()), gradient(*problem())
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), found, expected)


@pytest.mark.parametrize("name", ATTACKS)
def test_the_attacks(name):
    def attack(params, inputs, labels):
        return ATTACKS[name](partial(APPLY_FN, params), inputs, labels=labels, epsilon=0.2)

    found, expected = on_rows(attack, PartitionSpec("data"))(*problem()), jax.jit(attack)(*problem())
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_the_terms_of_every_example():
    def terms(params, inputs, labels):
        return penalised_loss(partial(APPLY_FN, params), inputs, labels=labels, lam=0.0, penalty_fn=None).total

    found, expected = on_rows(terms, PartitionSpec("data"))(*problem()), terms(*problem())
    np.testing.assert_allclose(found, expected, rtol=1e-6)
