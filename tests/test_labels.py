"""Labels that would be broadcast, clamped or rounded are refused wherever they come in, without annotations checked."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jl1.attacks.budgets import Stage
from jl1.attacks.ensemble import standard_attack
from jl1.attacks.fab import minimal_perturbation
from jl1.attacks.fgsm import fgsm
from jl1.attacks.noise import random_noise
from jl1.attacks.objectives import judge, margin, targeted_margin
from jl1.attacks.targets import ranked_targets
from jl1.audit.auditing import audit_network
from jl1.audit.gradient_health import gradient_health
from jl1.batches import over_batches
from jl1.certificates import certified_accuracy, certified_margins
from jl1.closed_form import make_closed_form_gradient
from jl1.end_points import end_point_norms
from jl1.evaluation import accuracy, make_eval_step, make_penalty_step
from jl1.labels import check_labels, decisions
from jl1.losses import cross_entropy, cross_entropy_off_label, defended_loss
from jl1.mean_loss import make_loss
from jl1.models import Dense, SequentialNet, make_apply_fn
from jl1.penalties import make_penalty
from jl1.segments import segment_gradient_norms

pytestmark = pytest.mark.usefixtures("quick_compile", "unchecked_shapes")

KEY = jax.random.key(0)
PARAMS = {"output": {"kernel": jnp.ones((3, 4)), "bias": jnp.zeros(4)}}
LINEAR = SequentialNet((), num_classes=4)


def apply_fn(params, inputs):
    return inputs @ params["output"]["kernel"]


def batches(step, inputs, labels):
    return list(over_batches(step, PARAMS, inputs=inputs, labels=labels, batch_size=4))


def eagerly(fn, inputs, labels):
    """Call a function of logits and labels."""
    return fn(apply_fn(PARAMS, inputs), labels)


def named(fn, inputs, labels, **options):
    return fn(PARAMS, inputs=inputs, labels=labels, **options)


def closed_form(inputs, labels):
    module = SequentialNet((Dense(2),), num_classes=4)
    given = {"labels": labels, "mask": jnp.ones(len(inputs), bool), "lam": 0.1, "epsilon": 0.1}
    return make_closed_form_gradient(module)(module.init(KEY, inputs)["params"], inputs, **given)


TAKE_LABELS = {
    "closed form": closed_form,
    "margin": partial(eagerly, margin),
    "targeted_margin": partial(eagerly, lambda logits, labels: targeted_margin(logits, labels, targets=labels)),
    "ranked_targets": partial(eagerly, partial(ranked_targets, rank=0)),
    "gradient_health": lambda inputs, labels: gradient_health(
        partial(apply_fn, PARAMS), inputs, labels=labels, loss_fn=margin
    ),
    "end_point_norms": lambda inputs, labels: end_point_norms(
        partial(apply_fn, PARAMS), inputs, twins=inputs, labels=labels
    ),
    "segment_gradient_norms": lambda inputs, labels: segment_gradient_norms(
        LINEAR, PARAMS, starts=inputs, ends=inputs, labels=labels
    ),
    "cross_entropy": partial(eagerly, cross_entropy),
    "cross_entropy, jitted": partial(eagerly, jax.jit(cross_entropy)),
    "cross_entropy_off_label": partial(eagerly, cross_entropy_off_label),
    "make_loss": partial(make_loss(apply_fn), PARAMS, lam=1.0),
    "defended_loss": lambda inputs, labels: defended_loss(
        partial(apply_fn, PARAMS),
        inputs,
        labels=labels,
        lam=1.0,
        epsilon=0.1,
        penalty_fn=None,
        attack_fn=lambda _, x, **__: x,
    ),
    "make_eval_step": partial(make_eval_step(apply_fn), PARAMS),
    "over_batches": partial(batches, lambda _, inputs, labels: labels),
    "make_penalty_step": partial(batches, make_penalty_step(apply_fn, penalty_fn=make_penalty("jacobian_l1"))),
    "accuracy": partial(named, partial(accuracy, apply_fn)),
    "standard_attack": partial(
        named, partial(standard_attack, apply_fn), epsilon=0.1, key=KEY, budget={"fgsm": Stage(fgsm)}
    ),
    "certified_margins": partial(named, partial(certified_margins, LINEAR), epsilon=0.1),
    "certified_accuracy": partial(named, partial(certified_accuracy, LINEAR), epsilon=0.1),
    "audit_network": partial(named, partial(audit_network, apply_fn), epsilon=0.1, key=KEY),
}
WRONG = {
    "a column": (
        jnp.zeros((8, 1), int),
        r"labels of shape \(8, 1\) with \w+ of shape \(8, \d\): .*give labels\[:, 0\]",
    ),
    "one-hot": (jnp.zeros((8, 4), int), r"\(8, 4\).* one-hot, give labels.argmax\(axis=1\)"),
    "too few": (jnp.zeros(4, int), r"labels of shape \(4,\) with \w+ of shape \(8, \d\): .*of shape \(8,\)(\n|$)"),
    "too many": (jnp.zeros(9, int), r"labels of shape \(9,\)"),
    "one for all": (jnp.zeros((), int), r"labels of shape \(\)"),
    "a row": (jnp.zeros((1, 8), int), r"labels of shape \(1, 8\)"),
    "not integers": (jnp.zeros(8), r"labels of type float32: .*labels.astype\('int32'\)"),
}


@pytest.mark.parametrize("kind", WRONG)
@pytest.mark.parametrize("name", TAKE_LABELS)
def test_labels_that_are_not_one_integer_an_example_are_refused(name, kind):
    labels, message = WRONG[kind]
    with pytest.raises(ValueError, match=message):
        TAKE_LABELS[name](jnp.full((8, 3), 0.5), labels)


@pytest.mark.parametrize("loss_fn", [cross_entropy, margin, partial(ranked_targets, rank=0)])
def test_small_types_hold_the_labels_of_many_classes(loss_fn):
    logits = jax.random.normal(KEY, (3, 300))
    labels = jnp.array([5, 200, 255])
    np.testing.assert_array_equal(loss_fn(logits, labels.astype("uint8")), loss_fn(logits, labels))


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
def test_small_types_serve_networks_of_more_classes_than_they_count(dtype):
    module = SequentialNet((Dense(4),), 300)
    inputs, labels = jax.random.uniform(KEY, (3, 5)), jnp.full(3, 127)
    params = module.init(KEY, inputs)["params"]

    def logits_fn(inputs):  # right about all three
        return 0.1 * make_apply_fn(module)(params, inputs) + 0.1 * jax.nn.one_hot(jnp.array([127]), 300)

    def figures(labels):
        options = {"key": KEY, "num_steps": 9, "norm": "l2", "lower": -9.0, "upper": 9.0}
        near = minimal_perturbation(logits_fn, inputs, labels=labels, **options)
        norms = end_point_norms(logits_fn, inputs, twins=inputs + 0.1, labels=labels)
        certified = certified_margins(module, params, inputs=inputs, labels=labels, epsilon=0.01)
        return near.distance, certified, norms.change

    distance = figures(labels)[0]
    assert jnp.all((distance > 0) & (distance < 9)), distance
    jax.tree.map(np.testing.assert_array_equal, figures(labels.astype(dtype)), figures(labels))


@pytest.mark.parametrize("name", ["standard_attack", "over_batches", "accuracy"])
def test_labels_in_numpy_too(name):
    with pytest.raises(ValueError, match=r"labels of shape \(4,\) with inputs of shape \(8, 3\)"):
        TAKE_LABELS[name](np.full((8, 3), 0.5), np.zeros(4, int))


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32"])
def test_any_integers_are_labels(dtype):
    check_labels(np.zeros(3, dtype), np.zeros((3, 28, 28, 1)), what="inputs")
    assert TAKE_LABELS["cross_entropy"](jnp.full((3, 3), 0.5), jnp.zeros(3, dtype)).shape == (3,)


@pytest.mark.parametrize("label", [0, 1])
def test_logits_that_are_no_numbers_are_right_for_no_label(label):
    def logits_fn(inputs):  # no number above 0.5
        return jnp.sqrt(0.5 - inputs)

    points, labels = jnp.full((1, 2), 0.45), jnp.array([label])
    assert decisions(logits_fn(points + 0.1)).tolist() == [-1]
    assert decisions(jnp.array([[0.0, jnp.inf], [-jnp.inf, -1.0]])).tolist() == [1, 1]
    assert bool(judge(logits_fn, margin, labels, points)[1][0]) == (label == 1)  # of equal logits the first counts
    stages = {"noise": Stage(partial(random_noise, num_draws=20))}
    attacked = standard_attack(
        lambda _, x: logits_fn(x), None, inputs=points, labels=labels, epsilon=0.1, key=jax.random.key(0), budget=stages
    )
    assert attacked.stands.tolist() == [False]
