"""Cross-entropy by hand, Eq. 3 and its coupling against an oracle, and what may neither flow nor compile."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from networks import NETS, as_tree

from jl1.attacks.fgsm import fgsm, fgsm_random_start
from jl1.change_loss import output_change_loss
from jl1.losses import (
    LossTerms,
    cross_entropy,
    cross_entropy_off_label,
    defended_loss,
    penalised_loss,
    summed_defended_loss,
)
from jl1.mean_loss import make_loss
from jl1.penalties import ESTIMATORS, OUTPUT_CHANGE, OUTPUTS, PENALTIES, make_change_penalty, make_penalty

pytestmark = pytest.mark.usefixtures("strict_dtypes", "quick_compile")

NET = NETS["dense_tanh"]
INPUTS, LABELS = NET.inputs(5), NET.labels(5)
PARAMS = NET.params()
KEY = jax.random.key(0)


@pytest.mark.parametrize(
    ("loss_fn", "on_label", "elsewhere"), [(cross_entropy, 0.91, 0.01), (cross_entropy_off_label, 0.9, 0.1 / 9)]
)
def test_smoothing_by_hand(loss_fn, on_label, elsewhere):
    # ten classes, half of the probability on class 3 and a ninth of the rest on each other one
    probs = np.full(10, 0.5 / 9)
    probs[3] = 0.5
    right, wrong = (loss_fn(jnp.log(probs)[None] + 2, jnp.array([label]), smoothing=0.1)[0] for label in (3, 7))
    np.testing.assert_allclose(right, on_label * np.log(2) + 9 * elsewhere * np.log(18), rtol=1e-6)
    on_both = elsewhere * np.log(2) + (on_label + 8 * elsewhere) * np.log(18)
    np.testing.assert_allclose(wrong, on_both, rtol=1e-6)


@pytest.mark.parametrize("loss_fn", [cross_entropy, cross_entropy_off_label])
def test_without_smoothing_it_is_minus_the_log_of_the_labels_probability(loss_fn):
    logits = jnp.array([[1.0, -2.0, 0.5], [300.0, -300.0, 0.0]])  # no overflow either
    expected = [-np.log(np.exp(0.5) / np.exp([1.0, -2.0, 0.5]).sum()), 600.0]
    np.testing.assert_allclose(loss_fn(logits, jnp.array([2, 1])), expected, rtol=1e-6)


def test_a_label_smoothed_to_the_same_on_each_class_is_forgotten():
    logits = jnp.array([[1.0, -2.0, 0.5, 3.0]] * 4)
    values = cross_entropy_off_label(logits, jnp.arange(4), smoothing=0.75)  # (c - 1)/c off the label is 1/c on each
    np.testing.assert_allclose(values, values[:1].repeat(4), rtol=1e-6)


def test_off_the_label_nearly_all_may_go():
    losses = cross_entropy_off_label(jnp.log(jnp.array([[0.5, 0.3, 0.2]])), jnp.array([0]), smoothing=0.99)
    np.testing.assert_allclose(losses, -(0.01 * np.log(0.5) + 0.495 * np.log(0.06)), rtol=1e-5)


@pytest.mark.parametrize("loss_fn", [cross_entropy, cross_entropy_off_label])
@pytest.mark.parametrize("smoothing", [-0.1, 1.0, 1.5, float("nan")])
def test_a_smoothing_that_is_no_share_is_refused(loss_fn, smoothing):
    with pytest.raises(ValueError, match=f"smoothing={smoothing}: must be at least 0 and below 1"):
        loss_fn(jnp.zeros((1, 3)), jnp.array([0]), smoothing=smoothing)


@pytest.mark.parametrize("number_type", [np.float32, np.float16, jnp.float32, jnp.bfloat16, np.int32])
def test_so_it_is_as_a_number_of_any_type(number_type):
    with pytest.raises(ValueError, match=r"smoothing=\S+: must be at least 0 and below 1"):
        cross_entropy(jnp.zeros((1, 3)), jnp.array([0]), smoothing=number_type(2))


@pytest.mark.parametrize("lam", [-1, float("nan"), jnp.float32(-0.5)])
@pytest.mark.parametrize(
    "loss_fn",
    [
        partial(penalised_loss, penalty_fn=None),
        partial(defended_loss, penalty_fn=None, epsilon=0.1),
        partial(output_change_loss, penalty_fn=make_change_penalty(), epsilon=0.1),
    ],
)
def test_a_negative_lambda_is_refused(loss_fn, lam):
    with pytest.raises(ValueError, match=r"lam=\S+: must be at least 0"):
        loss_fn(lambda inputs: 2 * inputs, jnp.full((2, 3), 0.5), labels=jnp.array([0, 1]), lam=lam)


def test_one_class_has_no_other_to_smooth_to():
    with pytest.raises(ValueError, match=r"shape \(1, 1\): smoothing off the label needs at least two classes"):
        cross_entropy_off_label(jnp.zeros((1, 1)), jnp.array([0]), smoothing=0.1)


@pytest.mark.parametrize(
    ("loss_fn", "on_label", "elsewhere"),
    [(cross_entropy, 0.9 + 0.1 / 3, 0.1 / 3), (cross_entropy_off_label, 0.9, 0.05)],
)
def test_the_slope_of_cross_entropy_is_probability_minus_target(loss_fn, on_label, elsewhere, x64):
    logits = jnp.array([[0.3, -1.0, 2.0]])
    slope = jax.grad(lambda logits: loss_fn(logits, jnp.array([1]), smoothing=0.1)[0])(logits)
    target = np.array([[elsewhere, on_label, elsewhere]])
    np.testing.assert_allclose(slope, reference.softmax(np.asarray(logits)) - target, rtol=1e-12)


def oracle_terms(params, *, lam, epsilon, smoothing):
    """Compute Eq. 3 on the points and on their FGSM twins, in NumPy: cross-entropy and penalty of each point."""
    targets = (1 - smoothing) * np.eye(3)[LABELS] + smoothing / 3
    logits, jacobian = NET.reference(params, INPUTS)
    gradient = ((reference.softmax(logits) - np.eye(3)[LABELS])[:, :, None] * jacobian).sum(axis=1)
    twins = np.clip(INPUTS + epsilon * np.sign(gradient), 0.0, 1.0)
    crosses, penalties = [], []
    for points in (INPUTS, twins):
        logits, jacobian = NET.reference(params, points)
        crosses.append(reference.cross_entropy(logits, targets))
        penalties.append(reference.penalty("jacobian_l1", "probs", logits, jacobian, LABELS))
    cross, penalty = np.mean(crosses, axis=0), np.mean(penalties, axis=0)
    return cross + lam * penalty, cross, penalty


LOSS_AND_SLOPE = jax.jit(jax.value_and_grad(make_loss(NET.apply_fn, outputs="probs", smoothing=0.1), has_aux=True))


@pytest.fixture(scope="module", params=[(0.7, 0.2), (0.7, 0.0), (0.0, 0.2)], ids=["both", "no twins", "no penalty"])
def coupled(request):
    """Return lambda and epsilon, and jl1's mean loss, terms and gradient there, in float64."""
    lam, epsilon = request.param
    with jax.enable_x64(True), jax.numpy_dtype_promotion("strict"):
        (value, terms), slope = LOSS_AND_SLOPE(
            as_tree(PARAMS), jnp.asarray(INPUTS), jnp.asarray(LABELS), lam=lam, epsilon=epsilon
        )
    return {"lam": lam, "epsilon": epsilon, "smoothing": 0.1}, value, terms, slope


def test_the_coupled_loss_is_the_oracles(coupled):
    options, value, terms, _ = coupled
    expected = [term.mean() for term in oracle_terms(PARAMS, **options)]
    np.testing.assert_allclose([float(term) for term in terms], expected, rtol=1e-10)
    assert value == terms.total


def test_the_coupled_gradient_is_the_oracles(coupled):
    options, _, _, slope = coupled
    for index, layer in enumerate(("layer_0", "layer_1", "output")):
        kernel, bias = PARAMS[index]

        def of_kernel(kernel, index=index, bias=bias):
            params = [*PARAMS[:index], (kernel, bias), *PARAMS[index + 1 :]]
            return oracle_terms(params, **options)[0].mean()

        # the twins' signs do not change within a step, so the differences hold the twins as still as jl1 must
        expected = reference.differences(of_kernel, kernel)
        np.testing.assert_allclose(slope[layer]["kernel"], expected, rtol=1e-6, atol=1e-8 * np.abs(expected).max())


def inputs_and_labels():
    return jnp.float32(INPUTS), jnp.int32(LABELS)


def terms_at(loss, params=PARAMS, **options):
    """Evaluate a loss of one example each at the module's points, in float32."""
    inputs, labels = inputs_and_labels()
    logits_fn = partial(NET.apply_fn, as_tree(params))
    return jax.jit(lambda inputs: loss(logits_fn, inputs, labels=labels, **options))(inputs)


@pytest.mark.parametrize("lam", [0.0, 0.5, 10.0])
def test_the_loss_is_affine_in_lambda(lam):
    terms = terms_at(penalised_loss, lam=lam, penalty_fn=make_penalty("jacobian_l1"))
    np.testing.assert_allclose(terms.total, terms.cross_entropy + lam * terms.penalty, rtol=1e-6)
    np.testing.assert_array_equal(terms.cross_entropy, terms_at(penalised_loss, lam=3.0, penalty_fn=None).total)
    assert (terms.penalty > 0.1).all()
    assert terms.total.shape == (5,)


def test_epsilon_0_is_equation_3():
    options = {"lam": 0.5, "penalty_fn": make_penalty("class_sum_l1", outputs="log_probs")}
    for one, other in zip(
        terms_at(defended_loss, epsilon=0.0, **options), terms_at(penalised_loss, **options), strict=True
    ):
        np.testing.assert_allclose(one, other, rtol=1e-6)


def test_the_summed_loss_is_twice_the_mean_one():
    options = {"lam": 0.5, "epsilon": 0.1, "penalty_fn": make_penalty("class_sum_l1")}
    for one, other in zip(terms_at(summed_defended_loss, **options), terms_at(defended_loss, **options), strict=True):
        np.testing.assert_allclose(one, 2 * other, rtol=1e-6)


coupled_losses = pytest.mark.parametrize(
    "coupled",
    [partial(defended_loss, penalty_fn=None), partial(output_change_loss, penalty_fn=make_change_penalty())],
    ids=["plain", "change"],
)


@coupled_losses
def test_the_first_half_of_the_key_is_the_attacks(coupled):
    key, options = jax.random.key(4), {"lam": 0.5, "epsilon": 0.1}
    found = terms_at(partial(coupled, key=key), attack_fn=fgsm_random_start, **options)
    bound = partial(fgsm_random_start, key=jax.random.split(key)[0])
    for one, other in zip(found, terms_at(coupled, attack_fn=bound, **options), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)
    with pytest.raises(ValueError, match="the attack takes a key"):
        terms_at(coupled, attack_fn=fgsm_random_start, **options)


@coupled_losses
def test_the_twins_are_constants_even_of_an_attack_that_is_not(coupled):
    inputs, labels = inputs_and_labels()
    params = as_tree(PARAMS)

    def leaking(logits_fn, inputs, **_):
        return inputs + 0.01 * jnp.sum(logits_fn(inputs))

    @partial(jax.jit, static_argnums=0)
    def slope_of(attack_fn):
        def mean_loss(params):
            options = {"labels": labels, "lam": 0.5, "epsilon": 0.1, "attack_fn": attack_fn}
            terms = coupled(partial(NET.apply_fn, params), inputs, **options)
            return jnp.mean(terms.total)

        return jax.grad(mean_loss)(params)

    for attack_fn in (leaking, fgsm):
        twins = attack_fn(partial(NET.apply_fn, params), inputs, labels=labels, epsilon=0.1)
        still = slope_of(lambda *_, twins=twins, **__: twins)
        for one, other in zip(jax.tree.leaves(slope_of(attack_fn)), jax.tree.leaves(still), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("penalty", [None, "loss_gradient_l1"])
def test_examples_do_not_interact(penalty):
    inputs, labels = inputs_and_labels()
    logits_fn, order = partial(NET.apply_fn, as_tree(PARAMS)), np.array([4, 2, 0, 1, 3])
    penalty_fn = penalty and make_penalty(penalty)

    @jax.jit
    def total(inputs, labels):
        return defended_loss(logits_fn, inputs, labels=labels, lam=0.5, epsilon=0.1, penalty_fn=penalty_fn).total

    whole = total(inputs, labels)
    np.testing.assert_allclose(total(inputs[order], labels[order]), whole[order], rtol=1e-5)
    parts = [total(inputs[rows], labels[rows]) for rows in (slice(0, 2), slice(2, 5))]
    np.testing.assert_allclose(np.concatenate(parts), whole, rtol=1e-5)


def test_jit_changes_nothing():
    inputs, labels = inputs_and_labels()
    options = {"lam": 0.5, "epsilon": 0.1, "penalty_fn": make_penalty("class_sum_l1")}
    plain = defended_loss(partial(NET.apply_fn, as_tree(PARAMS)), inputs, labels=labels, **options)
    for one, other in zip(plain, terms_at(defended_loss, **options), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5)


@pytest.mark.parametrize("radii", [[{"epsilon": 0.0}, {"epsilon": 0.3}], [{}, {}]])
def test_one_trace_serves_a_whole_sweep(radii):
    traces = []

    def apply_fn(weights, inputs):
        traces.append(inputs.shape)
        return inputs @ weights

    loss = make_loss(apply_fn)
    slope_fn = jax.jit(jax.grad(loss, has_aux=True))
    arguments = jnp.ones((4, 3)), *inputs_and_labels()
    values = set()
    for lam in (0.0, 0.1, 50.0):
        for radius in radii:
            values.add(float(loss(*arguments, lam=lam, **radius)[0]))
            slope_fn(*arguments, lam=lam, **radius)
            if len(values) == 1:
                first = len(traces)
    assert len(traces) == first
    assert len(values) == 3  # of equal columns the twins are the points, and lambda still counts


ONE_POINT = tuple(name for name in PENALTIES if name != OUTPUT_CHANGE)


@pytest.mark.parametrize(
    ("penalty", "adversarial"),
    [*((name, False) for name in ONE_POINT), ("none", True), ("class_sum_l1", True), ("jacobian_l1_random_sign", True)],
)
def test_make_loss_is_the_mean_of_the_terms_that_it_names(penalty, adversarial):
    inputs, labels = inputs_and_labels()
    loss_fn = partial(cross_entropy, smoothing=0.2)
    weights = jnp.asarray(np.random.default_rng(4).normal(size=(4, 3)), jnp.float32)
    options = {"outputs": "log_probs", "scale": "mean"}
    penalty_fn = None if penalty == "none" else make_penalty(penalty, loss_fn=loss_fn, num_draws=2, **options)
    keys = {"key": jax.random.key(0)} if penalty in ESTIMATORS else {}
    options_of_terms = {"lam": 2.0, "penalty_fn": penalty_fn, "loss_fn": loss_fn, **keys}
    coupled = partial(defended_loss, epsilon=0.1) if adversarial else penalised_loss
    terms = jax.jit(partial(coupled, lambda x: x @ weights, **options_of_terms))(inputs, labels=labels)
    options |= {"penalty": penalty, "num_draws": 2}
    loss = make_loss(lambda weights, x: x @ weights, smoothing=0.2, **options)
    radius = {"epsilon": 0.1} if adversarial else {}
    value, means = loss(weights, inputs, labels, lam=2.0, **radius, **keys)
    assert isinstance(means, LossTerms)
    np.testing.assert_allclose([value, *means], [np.mean(term) for term in (terms.total, *terms)], rtol=1e-5)


INPUTS_OF_LINEAR = jnp.eye(4), *(jnp.asarray(of) for of in (np.float32(INPUTS), LABELS))


def linear(weights, inputs):
    return inputs @ weights


@pytest.mark.parametrize("name", ["jacobian_l1", "jacobian_l1_sampled_classes"])
def test_make_loss_takes_a_penalty_that_is_ready(name):
    ready = make_penalty(name, outputs="probs", scale="mean", outputs_per_pass=2, examples_per_pass=3)
    options = {"lam": 2.0, "epsilon": 0.1, "key": jax.random.key(0)}
    found = make_loss(linear, penalty=ready)(*INPUTS_OF_LINEAR, **options)
    by_name = make_loss(linear, penalty=name, outputs="probs", scale="mean")(*INPUTS_OF_LINEAR, **options)
    np.testing.assert_allclose(found[1], by_name[1], rtol=1e-5)
    assert found[1].penalty > 0


@pytest.mark.parametrize("attack_fn", [fgsm_random_start, lambda _, x, *, labels, epsilon, key=None: x + epsilon])
def test_make_loss_takes_an_attack_and_shares_the_key_with_it(attack_fn):
    penalty_fn = make_penalty("jacobian_l1_sampled_classes")
    options = {"lam": 2.0, "epsilon": 0.1}
    loss = make_loss(linear, penalty=penalty_fn, attack_fn=attack_fn)
    weights, inputs, labels = INPUTS_OF_LINEAR
    options |= {"key": KEY}
    logits_fn, given = partial(linear, weights), {"penalty_fn": penalty_fn, "attack_fn": attack_fn}
    expected = defended_loss(logits_fn, inputs, labels=labels, **given, **options)
    found = loss(weights, inputs, labels, **options)[1]
    np.testing.assert_allclose(found, [term.mean() for term in expected], rtol=1e-5)


def test_without_a_radius_there_are_no_twins_and_half_of_the_work():
    shapes = []

    def apply_fn(weights, inputs):
        shapes.append(len(inputs))
        return linear(weights, inputs)

    loss = make_loss(apply_fn, penalty="none")
    without = loss(*INPUTS_OF_LINEAR, lam=1.0)[1]
    assert set(shapes) == {len(INPUTS)}
    np.testing.assert_allclose(without, loss(*INPUTS_OF_LINEAR, lam=1.0, epsilon=0.0)[1], rtol=1e-6)
    assert 2 * len(INPUTS) in shapes
    with pytest.raises(ValueError, match="output_change needs the radius of the twins"):
        make_loss(linear, penalty=OUTPUT_CHANGE)(*INPUTS_OF_LINEAR, lam=1.0)


def test_make_loss_refuses_an_unknown_penalty_with_the_known_ones():
    with pytest.raises(ValueError, match=r"'jacobean_l1'.*jacobian_l1, class_sum_l1"):
        make_loss(NET.apply_fn, penalty="jacobean_l1")


@pytest.mark.parametrize("penalty", ["none", "jacobian_l1", OUTPUT_CHANGE])
@pytest.mark.parametrize("name", [{"outputs": "bogus"}, {"scale": "bogus"}])
def test_make_loss_refuses_unknown_outputs_and_scales_whatever_the_penalty(penalty, name):
    with pytest.raises(ValueError, match=r"'bogus'.*centred_logits.*sum, mean"):
        make_loss(NET.apply_fn, penalty=penalty, **name)


def test_an_estimated_loss_needs_a_key():
    loss = make_loss(lambda weights, x: x @ weights, penalty="jacobian_l1_sampled_classes")
    with pytest.raises(ValueError, match="jacobian_l1_sampled_classes draws at random: give it a key"):
        loss(jnp.ones((4, 3)), *inputs_and_labels(), lam=1.0)


@pytest.mark.parametrize("adversarial", [True, False])
def test_a_penalty_of_ones_own_need_not_take_a_key(adversarial):
    def constant(logits_fn, inputs, *, labels):
        return jnp.full(len(inputs), 2.0)

    options = {"lam": 3.0, "penalty_fn": constant} | ({"epsilon": 0.1} if adversarial else {})
    terms = terms_at(defended_loss if adversarial else penalised_loss, **options)
    np.testing.assert_allclose(terms.total - terms.cross_entropy, 6.0, rtol=1e-5)


@pytest.mark.parametrize("outputs", OUTPUTS)
def test_the_change_of_the_outputs_is_that_between_the_points_and_their_twins(outputs):
    inputs, labels = inputs_and_labels()
    logits_fn, epsilon = partial(NET.apply_fn, as_tree(PARAMS)), 0.2
    terms = terms_at(
        output_change_loss, lam=0.7, epsilon=epsilon, penalty_fn=make_change_penalty(outputs=outputs, scale="mean")
    )
    twins = fgsm(logits_fn, inputs, labels=labels, epsilon=epsilon)
    there, here = (OUTPUTS[outputs](logits_fn(points)) for points in (twins, inputs))
    np.testing.assert_allclose(terms.penalty, np.abs(there - here).sum(axis=1) / epsilon / 12, rtol=1e-3)
    without = terms_at(defended_loss, lam=0.7, epsilon=epsilon, penalty_fn=None)
    np.testing.assert_allclose(terms.cross_entropy, without.total, rtol=1e-6)
    np.testing.assert_allclose(terms.total, terms.cross_entropy + 0.7 * terms.penalty, rtol=1e-6)
    options = {"lam": 0.7, "epsilon": epsilon, "penalty_fn": make_change_penalty(outputs=outputs, scale="mean")}
    doubled = terms_at(partial(summed_defended_loss, mean_loss_fn=output_change_loss), **options)
    for one, other in zip(doubled, terms, strict=True):
        np.testing.assert_allclose(one, 2 * other, rtol=1e-5)


def test_logits_of_one_example_are_refused():
    with pytest.raises(AssertionError, match="rank"):
        penalised_loss(lambda x: x[0], jnp.ones((2, 3)), labels=jnp.array([0, 1]), lam=0.0, penalty_fn=None)


def test_twins_of_another_shape_are_refused():
    with pytest.raises(AssertionError, match="shape"):
        terms_at(defended_loss, lam=0.0, epsilon=0.1, penalty_fn=None, attack_fn=lambda _, x, **__: x[:, :2])


@pytest.mark.parametrize("loss_fn", [cross_entropy, cross_entropy_off_label])
def test_a_label_outside_the_classes_cannot_go_unnoticed(loss_fn):
    losses = loss_fn(jnp.zeros((3, 4)), jnp.array([-1, 4, 3]), smoothing=0.1)
    assert jnp.isnan(losses).tolist() == [True, True, False]


@pytest.mark.parametrize("coupled", [penalised_loss, defended_loss])
def test_a_loss_that_is_averaged_already_is_refused(coupled):
    options = {"epsilon": 0.1} if coupled is defended_loss else {}
    with pytest.raises(ValueError, match=r"loss_fn returned shape \(\) for .* do not average"):
        coupled(
            lambda x: x,
            jnp.ones((2, 3)),
            labels=jnp.array([0, 1]),
            lam=0.0,
            penalty_fn=None,
            loss_fn=lambda logits, labels: jnp.mean(cross_entropy(logits, labels)),
            **options,
        )
