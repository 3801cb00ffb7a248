"""What the compiled programs cost: no Jacobian where none is asked for, and bounded memory where one is."""

from functools import partial

import jax
import jax.numpy as jnp
import optax
import pytest
from networks import NETS, as_tree

from jl1.gradients import make_gradient
from jl1.hyperparameters import Hyperparameters
from jl1.losses import penalised_loss
from jl1.mean_loss import make_loss
from jl1.models import Dense, SequentialNet, create_model, make_apply_fn
from jl1.penalties import make_penalty
from jl1.training import TrainState, make_train_step

NET = NETS["dense_relu"]
OPTIMIZER = optax.adam(1e-3)
SAMPLED, WIDTH = "jacobian_l1_sampled_classes", 32


def cost(function, *arguments):
    """Return how many matrix products a function lowers to and how many operations it compiles to."""
    lowered = jax.jit(function).lower(*arguments)
    return lowered.as_text().count("stablehlo.dot_general"), lowered.compile().cost_analysis()["flops"]


@pytest.fixture
def state():
    params = jax.tree.map(jnp.float32, as_tree(NET.params()))
    return TrainState(step=jnp.int32(0), params=params, opt_state=OPTIMIZER.init(params))


def plain_mean(params, inputs, labels):
    """Compute the mean cross-entropy as anyone would."""
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(NET.apply_fn(params, inputs), labels))


def test_a_loss_without_penalty_costs_what_plain_training_costs(state):
    arguments = state.params, jnp.float32(NET.inputs(8)), jnp.int32(NET.labels(8))

    def gradient_of(penalty):
        loss = make_loss(NET.apply_fn, penalty=penalty)
        return jax.grad(lambda *arguments: loss(*arguments, lam=0.0)[0])

    products, flops = cost(gradient_of("none"), *arguments)
    plain_products, plain_flops = cost(jax.grad(plain_mean), *arguments)
    assert products == plain_products == 3 + 2 + 3  # forward, back to the hidden layers, to the kernels
    assert flops < 1.1 * plain_flops  # the soft targets
    for penalty in ("jacobian_l1", "loss_gradient_l2"):
        assert cost(gradient_of(penalty), *arguments)[0] > plain_products


def test_a_training_step_without_penalty_costs_what_a_plain_step_costs(state):
    inputs, labels, mask = jnp.float32(NET.inputs(8)), jnp.int32(NET.labels(8)), jnp.ones(8, bool)
    hyperparameters = Hyperparameters(jnp.float32(0.0), jnp.float32(0.0), jax.random.key(0))

    def plain_step(state, inputs, labels):
        gradients = jax.grad(plain_mean)(state.params, inputs, labels)
        updates, opt_state = OPTIMIZER.update(gradients, state.opt_state)
        return optax.apply_updates(state.params, updates), opt_state

    def step(penalty_fn):
        def terms_fn(logits_fn, inputs, *, labels, lam, epsilon, key):
            return penalised_loss(logits_fn, inputs, labels=labels, lam=lam, penalty_fn=penalty_fn)

        return make_train_step(make_gradient(NET.apply_fn, terms_fn=terms_fn), OPTIMIZER)

    products, flops = cost(step(None), state, inputs, labels, mask, hyperparameters)
    plain_products, plain_flops = cost(plain_step, state, inputs, labels)
    assert products == plain_products
    assert flops < 1.1 * plain_flops
    assert cost(step(make_penalty("jacobian_l1")), state, inputs, labels, mask, hyperparameters)[0] > plain_products


def test_memory_of_model_bs_penalty_stays_under_400_mb():
    by_default, ten_at_once = (temporary_megabytes(options) for options in ({}, {"outputs_per_pass": 10}))
    assert by_default < 400
    assert ten_at_once > 2 * by_default  # what the default saves, and proof that this measures it


def temporary_megabytes(options):
    """Compile, without running it, the gradient of the exact penalty of model B at batch 128."""
    module = create_model("B")
    apply_fn, penalty_fn = make_apply_fn(module), make_penalty("jacobian_l1", **options)
    inputs = jax.ShapeDtypeStruct((128, 28, 28, 1), jnp.float32)
    labels = jax.ShapeDtypeStruct((128,), jnp.int32)
    params = jax.eval_shape(module.init, jax.random.key(0), inputs)["params"]

    def penalty(params, inputs, labels):
        return jnp.mean(penalty_fn(partial(apply_fn, params), inputs, labels=labels))

    compiled = jax.jit(jax.grad(penalty)).lower(params, inputs, labels).compile()
    return compiled.memory_analysis().temp_size_in_bytes / 1e6


def test_memory_of_one_sampled_class_grows_as_the_logits_and_the_last_layer_do():
    more = {num: sampled_bytes(num, "probs") - sampled_bytes(num, None) for num in (10, 1000)}
    logits, last_kernel = 4 * 64 * 990, 4 * WIDTH * 990
    assert more[1000] - more[10] < 6 * logits + last_kernel
    assert 6 * logits + last_kernel < 4 * 64 * 1000 * 196 / 10  # far from the Jacobian's own size


def sampled_bytes(num_classes, outputs):
    """Compile, without running it, the gradient with one sampled class, or without a penalty."""
    module = SequentialNet((Dense(WIDTH),), num_classes)
    inputs, labels = jax.ShapeDtypeStruct((64, 14, 14, 1), jnp.float32), jax.ShapeDtypeStruct((64,), jnp.int32)
    params = jax.eval_shape(module.init, jax.random.key(0), inputs)["params"]
    penalty = {"penalty": "none"} if outputs is None else {"penalty": SAMPLED, "outputs": outputs}
    loss = make_loss(make_apply_fn(module), **penalty)
    gradient = jax.grad(lambda *given, key: loss(*given, lam=1.0, key=key)[0])
    compiled = jax.jit(gradient).lower(params, inputs, labels, key=jax.random.key(0)).compile()
    return compiled.memory_analysis().temp_size_in_bytes
