"""From a config to the loss of a batch: each method is the library's loss with the config's settings and a key."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks import NETS, as_tree

from jl1.attacks.ascent import pgd_last_point
from jl1.attacks.divergence import kl_ascent
from jl1.attacks.fgsm import fgsm, fgsm_random_start, predicted_labels
from jl1.configuration.files import load_config
from jl1.configuration.loss_in_words import describe_loss
from jl1.losses import cross_entropy, defended_loss, penalised_loss
from jl1.penalties import make_penalty
from jl1.robust_losses import adversarial_loss, trades_loss
from jl1.runs import objective
from jl1.runs.objective import make_terms_fn

pytestmark = pytest.mark.usefixtures("quick_compile")

NET, KEY = NETS["dense_tanh"], jax.random.key(9)
INPUTS, LABELS = jnp.float32(NET.inputs(6)), jnp.int32(NET.labels(6))
SAMPLED = "jacobian_l1_sampled_classes"


def logits_fn(inputs):
    return NET.apply_fn(jax.tree.map(jnp.float32, as_tree(NET.params())), inputs)


def settings(name, **fields):
    config = load_config(name)
    config.update_from_flattened_dict({field.replace("__", "."): value for field, value in fields.items()})
    return config


def terms_of(config, *, penalised=False, epsilon=0.1, lam=0.0):
    """Evaluate the terms that a config names."""
    terms_fn = make_terms_fn(config, penalised=penalised)
    given = {"labels": LABELS, "lam": lam, "key": KEY}
    return jax.jit(lambda epsilon: terms_fn(logits_fn, INPUTS, epsilon=epsilon, **given))(epsilon)


def expected(loss, attack_fn, *, smoothing=0.0, epsilon=0.1, lam=0.0, penalty_fn=None, **options):
    """Evaluate a loss of the library with its own key."""
    given = {"labels": LABELS, "lam": lam, "penalty_fn": penalty_fn, "key": KEY} | options
    given["loss_fn"] = partial(cross_entropy, smoothing=smoothing)
    return jax.jit(lambda: loss(logits_fn, INPUTS, epsilon=epsilon, attack_fn=attack_fn, **given))()


def assert_equal_terms(one, other):
    for left, right in zip(one, other, strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-6, atol=1e-7)


def test_the_presets_are_the_losses_of_their_references():
    assert_equal_terms(terms_of(settings("robust:pgd")), expected(adversarial_loss, pgd_last_point))
    assert_equal_terms(terms_of(settings("robust:trades")), expected(trades_loss, kl_ascent))
    assert_equal_terms(terms_of(settings("robust:fgsm_rs")), expected(adversarial_loss, fgsm_random_start))


def test_a_given_step_keeps_its_proportion_to_the_radius_during_the_warmup():
    given = {"num_steps": 4, "step_size": 0.01}
    config = settings("robust:pgd", **{f"adversarial__{name}": value for name, value in given.items()})
    for epsilon, step_size in ((0.1, 0.01), (0.05, 0.005)):
        attack_fn = partial(pgd_last_point, num_steps=4, step_size=step_size)
        found = terms_of(config, epsilon=epsilon)
        assert_equal_terms(found, expected(adversarial_loss, attack_fn, epsilon=epsilon))
    found = terms_of(settings("robust:fgsm_rs"), epsilon=0.02)
    assert_equal_terms(found, expected(adversarial_loss, fgsm_random_start, epsilon=0.02))


@pytest.mark.parametrize("method", ["pgd", "trades"])
def test_every_setting_of_a_method_and_an_estimator_beside_it_arrive(method):
    ours = {"pgd": {"clean_weight": 0.25, "smoothing": 0.3}, "trades": {"beta": 2.0}}[method]
    config = settings(
        f"robust:{method}",
        training__smoothing=0.1,
        penalty__name=SAMPLED,
        penalty__outputs="logits",
        penalty__scale="sum",
        penalty__lam=0.5,
        adversarial__num_steps=3,
        **{f"adversarial__{name}": value for name, value in ours.items()},
    )
    attack_fn, loss = partial(kl_ascent, num_steps=3), partial(trades_loss, beta=2.0)
    if method == "pgd":
        attack_fn = partial(pgd_last_point, num_steps=3, loss_fn=partial(cross_entropy, smoothing=0.3))
        loss = partial(adversarial_loss, clean_weight=0.25)
    penalty_fn = make_penalty(SAMPLED, outputs="logits")
    given = {"smoothing": 0.1, "lam": 0.5, "penalty_fn": penalty_fn}
    assert_equal_terms(terms_of(config, penalised=True, lam=0.5), expected(loss, attack_fn, **given))


def test_predicted_labels_are_what_pgd_raises_where_they_are_asked_for():
    def attack_fn(logits_fn, inputs, *, labels, epsilon, key):
        return pgd_last_point(logits_fn, inputs, labels=predicted_labels(logits_fn, inputs), epsilon=epsilon, key=key)

    found = terms_of(settings("robust:pgd", adversarial__labels="predicted"))
    assert_equal_terms(found, expected(adversarial_loss, attack_fn))
    assert not np.allclose(found.total, terms_of(settings("robust:pgd")).total)


def test_the_default_method_is_the_papers_and_without_epsilon_there_is_no_attack(monkeypatch):
    config = settings("train", adversarial__epsilon=0.1)
    assert_equal_terms(terms_of(config), expected(defended_loss, fgsm, smoothing=0.1))
    monkeypatch.setattr(objective, "fgsm", None)
    without = penalised_loss(
        logits_fn, INPUTS, labels=LABELS, lam=0.0, penalty_fn=None, loss_fn=partial(cross_entropy, smoothing=0.1)
    )
    assert_equal_terms(terms_of(settings("train")), without)


@pytest.mark.parametrize(
    ("name", "fields", "text"),
    [
        ("train", {}, "(mean)"),
        (
            "robust:fgsm_rs",
            {"epsilon": 0.3},
            ", on the points that PGD-1 finds at 0.3 with steps of 0.125 (0.417 epsilon)",
        ),
        ("train", {"epsilon": 0.1}, ", on the points and their FGSM twins at 0.1"),
        (
            "robust:pgd",
            {"warmup_epochs": 2},
            "smoothing 0, on the points that PGD-10 finds at 0.1, reached after 2 epochs",
        ),
        (
            "robust:fgsm_rs",
            {"clean_weight": 0.5},
            ", on the points that PGD-1 finds at 0.1 with steps of 0.125 (1.25 epsilon), the clean ones "
            "with weight 0.5",
        ),
        ("robust:trades", {}, ", and 6 times the divergence (TRADES-10) at 0.1"),
    ],
)
def test_the_loss_is_described_as_it_is(name, fields, text):
    config = settings(name, **{f"adversarial__{field}": value for field, value in fields.items()})
    assert describe_loss(config).endswith(text)


@pytest.mark.parametrize(
    ("penalty", "text"),
    [("loss_gradient_l1", "loss_gradient_l1 (mean)"), ("jacobian_l1", "jacobian_l1 of the probs (mean)")],
)
def test_a_penalty_of_the_loss_is_of_no_outputs(penalty, text):
    assert describe_loss(settings("train", penalty__name=penalty)).endswith(f" + 50 * {text}")
