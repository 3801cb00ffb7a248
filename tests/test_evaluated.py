"""One pass over the network for all terms of a loss: the values and gradients of one pass a term, for less."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from networks import NETS, as_tree

from jl1.evaluated import Evaluated, Sharing, compose, evaluate_once, value_and_pullback
from jl1.losses import penalised_loss
from jl1.penalties import ESTIMATORS, JACOBIAN_PENALTIES, LOSS_GRADIENT_PENALTIES, OUTPUTS, make_penalty

NET = NETS["conv_softplus"]
COMBINATIONS = [(name, outputs) for name in (*JACOBIAN_PENALTIES, "jacobian_l1_sampled_classes") for outputs in OUTPUTS]
COMBINATIONS += [(name, "probs") for name in (*LOSS_GRADIENT_PENALTIES, *ESTIMATORS)]
LOSS = optax.softmax_cross_entropy_with_integer_labels


def problem(name, outputs):
    """Return parameters, inputs, and what a loss with this penalty is called with."""
    penalty = {"lam": 0.3, "penalty_fn": make_penalty(name, outputs=outputs), "key": jax.random.key(0)}
    return as_tree(NET.params()), jnp.asarray(NET.inputs(4)), {"labels": jnp.asarray(NET.labels(4)), **penalty}


def term_by_term(logits_fn, inputs, *, labels, lam, penalty_fn, key):
    """Compute Eq. 3 as two losses that know nothing of each other."""
    return LOSS(logits_fn(inputs), labels) + lam * penalty_fn(logits_fn, inputs, labels=labels, key=key)


@pytest.mark.parametrize(("name", "outputs"), sorted(set(COMBINATIONS)))
def test_a_loss_and_its_gradient_are_those_of_separate_terms(name, outputs, x64):
    params, inputs, options = problem(name, outputs)

    def together(params):
        return jnp.sum(penalised_loss(partial(NET.apply_fn, params), inputs, loss_fn=LOSS, **options).total)

    def apart(params):
        return jnp.sum(term_by_term(partial(NET.apply_fn, params), inputs, **options))

    found, expected = (jax.jit(jax.value_and_grad(loss))(params) for loss in (together, apart))
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-12), found, expected)


@pytest.mark.parametrize(
    ("name", "outputs"),
    [
        ("jacobian_l1_sampled_classes", "probs"),
        ("class_sum_l1", "log_probs"),
        ("loss_gradient_l2", "logits"),
    ],
)
def test_where_the_outputs_bend_a_backward_pass_is_saved(name, outputs):
    params, inputs, options = problem(name, outputs)

    def cost_of(loss_fn):
        def mean_loss(params):
            return jnp.mean(loss_fn(partial(NET.apply_fn, params), inputs, **options))

        return flops(jax.grad(mean_loss), params)

    plain = flops(jax.grad(lambda params: jnp.mean(LOSS(NET.apply_fn(params, inputs), options["labels"]))), params)
    together = cost_of(lambda *given, **more: penalised_loss(*given, **more, loss_fn=LOSS).total)
    assert together < cost_of(term_by_term) - plain / 3  # a third of a plain step is its backward pass to the inputs


def flops(function, *arguments):
    """Count the operations that a function compiles to."""
    return jax.jit(function).lower(*arguments).compile().cost_analysis()["flops"]


def test_at_its_own_inputs_nothing_is_evaluated_again_and_elsewhere_everything_is():
    calls = []

    def squares(inputs):
        calls.append(inputs)
        return inputs**2

    inputs = jnp.array([[1.0, 2.0], [3.0, 4.0]])
    network = evaluate_once(squares, inputs)
    halves = compose(lambda values: values / 2, network)
    assert len(calls) == 1
    assert network(inputs) is network.values
    values, pullback = value_and_pullback(halves, inputs)
    assert values.tolist() == [[0.5, 2.0], [4.5, 8.0]]
    assert pullback(jnp.ones_like(values))[0].tolist() == inputs.tolist()
    assert len(calls) == 1
    elsewhere = jnp.array([[5.0, 6.0]])
    values, pullback = value_and_pullback(halves, elsewhere)
    assert values.tolist() == [[12.5, 18.0]]
    assert pullback(jnp.ones_like(values))[0].tolist() == elsewhere.tolist()
    assert len(calls) == 2


def test_it_is_differentiated_like_the_function_that_it_is():
    inputs = jnp.array([[1.0, 2.0]])

    def through(points):
        network = evaluate_once(lambda x: x**3, points)
        assert isinstance(network, Evaluated)
        return jnp.sum(network(points) + value_and_pullback(network, points)[1](jnp.ones_like(points))[0])

    assert jax.grad(through)(inputs).tolist() == (3 * inputs**2 + 6 * inputs).tolist()
    network = evaluate_once(lambda x: x**3, inputs)
    assert jax.grad(lambda points: jnp.sum(network(points)))(inputs).tolist() == (3 * inputs**2).tolist()
    assert jax.vmap(network)(jnp.ones((2, 1, 2))).shape == (2, 1, 2)


@pytest.mark.parametrize("outputs", ["logits", "centred_logits"])
def test_a_penalty_of_straight_outputs_has_passes_of_its_own(outputs):
    # nothing would be saved, and a convolution in patches would keep twice as much
    assert not isinstance(make_penalty("jacobian_l1_sampled_classes", outputs=outputs), Sharing)
    assert not isinstance(make_penalty("class_sum_l1", outputs=outputs), Sharing)


def test_a_penalty_of_ones_own_takes_it_for_the_network(x64):
    params, inputs, labels = as_tree(NET.params()), jnp.asarray(NET.inputs(2)), jnp.asarray(NET.labels(2))

    def own(logits_fn, inputs, *, labels):
        del labels
        network = jax.jit(jax.checkpoint(logits_fn))
        rows = jax.vmap(jax.jacrev(lambda point: network(point[None])[0]))(inputs)
        return jnp.sum(jnp.abs(rows), axis=tuple(range(1, rows.ndim)))

    def value(penalty_fn):
        logits_fn = partial(NET.apply_fn, params)
        return penalised_loss(logits_fn, inputs, labels=labels, lam=1.0, penalty_fn=penalty_fn).penalty

    for shared in (own, Sharing(lambda *given, key, **rest: own(*given, **rest))):
        np.testing.assert_allclose(value(shared), value(make_penalty("jacobian_l1")), rtol=1e-9)
