"""The closed form against the automatic one: the same numbers wherever both apply."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jl1.attacks.fgsm import fgsm
from jl1.attacks.objectives import margin
from jl1.closed_form import _ignores_shifts, has_closed_form, make_closed_form_gradient
from jl1.gradients import make_gradient
from jl1.losses import cross_entropy, defended_loss, penalised_loss, summed_defended_loss
from jl1.models import CONVOLUTIONS, MODELS, AveragePool, Conv, Dense, SequentialNet, create_model, make_apply_fn
from jl1.penalties import OUTPUTS, make_penalty
from jl1.piecewise_linear.linear_ops import make_linear_ops

NETS = {
    "one hidden layer": (Dense(7),),
    "dense": (Dense(9), Dense(8)),
    "convolutions, then dense": (Conv(6, 3, 2, "SAME"), Conv(5, 3, 1, "VALID"), Dense(7)),
    "convolutions to the end": (Conv(4, 4, 2, "SAME"), Conv(5, 2, 2, "VALID")),
    "a stride that skips pixels": (Conv(3, 2, 3, "VALID"), Dense(6)),
    "few channels out": (Conv(2, 3, 1, "SAME"), Conv(1, 3, 1, "SAME")),
    "pools": (AveragePool(2, 1), Conv(4, 3, 1, "SAME"), AveragePool(3, 2), AveragePool(2, 1), Dense(7), Dense(6)),
    "a pool before the last layer": (Conv(4, 3, 1, "SAME"), AveragePool(2, 2)),
}
SMOOTHED = partial(cross_entropy, smoothing=0.1)


def problem(hidden, activation=jax.nn.relu, dtype=jnp.float64, batch_size=6):
    """A random network with biases, on inputs of unequal sides."""
    module = SequentialNet(hidden, num_classes=5, activation=activation)
    inputs = jax.random.uniform(jax.random.key(1), (batch_size, 9, 10, 2), dtype)
    shapes = jax.eval_shape(module.init, jax.random.key(0), inputs)["params"]
    params = jax.tree.map(lambda leaf: 0.5 * jax.random.normal(jax.random.key(leaf.size), leaf.shape, dtype), shapes)
    return module, params, inputs, jnp.arange(batch_size) % 5


def automatic(module, coupled=penalised_loss, outputs="logits", scale="sum", **twins):
    """The gradient that JAX finds by differentiating the definition."""
    penalty_fn = make_penalty("jacobian_l1", outputs=outputs, scale=scale)

    def terms_fn(logits_fn, inputs, *, labels, lam, epsilon, key):
        options = {"epsilon": epsilon} if coupled is not penalised_loss else {}
        return coupled(
            logits_fn, inputs, labels=labels, lam=lam, penalty_fn=penalty_fn, loss_fn=SMOOTHED, **options, **twins
        )

    return make_gradient(make_apply_fn(module), terms_fn=terms_fn)


def assert_same(one, other, rtol):
    """Compare two trees, each array by its largest entry."""
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=rtol * max(float(jnp.abs(b).max()), 1e-3))


def arguments(labels, mask=None, lam=0.3, epsilon=0.1):
    mask = jnp.ones(labels.shape, bool) if mask is None else mask
    return {"labels": labels, "mask": mask, "lam": lam, "epsilon": epsilon, "key": jax.random.key(0)}


@pytest.mark.usefixtures("x64", "quick_compile")
@pytest.mark.parametrize(
    ("net", "outputs", "convolution"),
    [
        *((net, "logits", "patches") for net in NETS),
        *(("convolutions, then dense", outputs, "patches") for outputs in OUTPUTS if outputs != "logits"),
        *(("convolutions, then dense", outputs, "library") for outputs in OUTPUTS),
    ],
)
def test_it_equals_the_automatic_form_to_1e_12(net, outputs, convolution):
    module, params, inputs, labels = problem(NETS[net])
    closed = make_closed_form_gradient(
        module.clone(convolution=convolution), outputs=outputs, scale="mean", loss_fn=SMOOTHED, examples_per_pass=2
    )
    expected = automatic(module, outputs=outputs, scale="mean")(params, inputs, **arguments(labels))
    assert_same(closed(params, inputs, **arguments(labels)), expected, rtol=1e-12)


@pytest.mark.usefixtures("x64", "quick_compile")
@pytest.mark.parametrize("activation", [jax.nn.relu, jax.nn.leaky_relu])
def test_where_an_image_is_blank_and_biases_are_0_the_slope_at_0_is_jaxs(activation):
    module, params, inputs, labels = problem(NETS["convolutions, then dense"], activation=activation)
    params = {name: {**layer, "bias": jnp.zeros_like(layer["bias"])} for name, layer in params.items()}
    inputs = inputs.at[:, :6].set(0.0)
    closed = make_closed_form_gradient(module, outputs="probs", loss_fn=SMOOTHED)
    expected = automatic(module, outputs="probs")(params, inputs, **arguments(labels))
    assert_same(closed(params, inputs, **arguments(labels)), expected, rtol=1e-12)


def test_a_row_that_does_not_count_may_have_no_label():
    module, params, inputs, labels = problem(NETS["dense"], dtype=jnp.float32)
    closed = make_closed_form_gradient(module, loss_fn=SMOOTHED)
    mask = jnp.arange(6) < 4
    expected = closed(params, inputs, **arguments(labels, mask))
    found = closed(params, inputs, **arguments(jnp.where(mask, labels, -1), mask))
    jax.tree.map(np.testing.assert_array_equal, found, expected)


@pytest.mark.parametrize("precision", ["float32", "tf32"])
def test_all_products_have_the_precision_that_is_asked_for(precision):
    module, params, inputs, labels = problem(NETS["convolutions, then dense"], dtype=jnp.float32)
    closed = make_closed_form_gradient(module, outputs="log_probs", twin_loss_fn=SMOOTHED, precision=precision)
    text = jax.jit(closed).lower(params, inputs, **arguments(labels)).as_text()
    products = [line for line in text.splitlines() if "stablehlo.dot_general" in line]
    wanted = {"float32": "precision = [HIGHEST, HIGHEST]", "tf32": "precision = [HIGH, HIGH]"}[precision]
    always = "precision = [HIGHEST, HIGHEST]"  # the mixing of the rows and the sums of the losses, which cost nothing
    assert sum(wanted in line for line in products) > 10
    assert all(wanted in line or always in line for line in products)


@pytest.mark.usefixtures("x64", "quick_compile")
def test_leaky_relu_has_one_too():
    module, params, inputs, labels = problem(NETS["convolutions, then dense"], activation=jax.nn.leaky_relu)
    expected = automatic(module)(params, inputs, **arguments(labels))
    assert_same(
        make_closed_form_gradient(module, loss_fn=SMOOTHED)(params, inputs, **arguments(labels)), expected, 1e-12
    )


@pytest.mark.usefixtures("x64", "quick_compile")
@pytest.mark.parametrize("outputs", ["logits", "probs"])
@pytest.mark.parametrize(("coupled", "weight"), [(defended_loss, 0.5), (summed_defended_loss, 1.0)])
def test_the_twins_come_from_the_rows_and_count_the_same(outputs, coupled, weight):
    module, params, inputs, labels = problem(NETS["convolutions, then dense"])
    closed = make_closed_form_gradient(
        module, outputs=outputs, loss_fn=SMOOTHED, twin_loss_fn=cross_entropy, twin_weight=weight, examples_per_pass=2
    )
    expected = automatic(module, coupled, outputs)(params, inputs, **arguments(labels, epsilon=0.05))
    assert_same(closed(params, inputs, **arguments(labels, epsilon=0.05)), expected, rtol=1e-12)


def squared(logits, labels):
    """Half the squared distance to the label is not the same after a shift, cross-entropy is."""
    return 0.5 * jnp.sum((logits - jax.nn.one_hot(labels, logits.shape[1])) ** 2, axis=1)


def clipped(logits, labels):
    return cross_entropy(jnp.clip(logits, -2, 2), labels)


def with_small_logits(logits, labels):
    return cross_entropy(logits, labels) + 0.1 * jnp.sum(jax.nn.relu(jnp.abs(logits) - 2) ** 2, axis=1)


@pytest.mark.usefixtures("x64", "quick_compile")
@pytest.mark.parametrize("num_classes", [2, 5, 300])
@pytest.mark.parametrize(
    "loss_fn",
    [
        cross_entropy,
        SMOOTHED,
        partial(cross_entropy, smoothing=0.5),
        lambda *given: 1e-3 * cross_entropy(*given),
        margin,
    ],
)
def test_losses_of_differences_of_logits_take_one_row_less(loss_fn, num_classes):
    assert _ignores_shifts(loss_fn, num_classes)


@pytest.mark.usefixtures("quick_compile")
@pytest.mark.parametrize("loss_fn", [cross_entropy, SMOOTHED])
def test_they_do_in_float32_too(loss_fn):
    assert _ignores_shifts(loss_fn, 10)


@pytest.mark.usefixtures("x64", "quick_compile")
@pytest.mark.parametrize("loss_fn", [squared, clipped, with_small_logits])
@pytest.mark.parametrize("outputs", OUTPUTS)
def test_a_loss_that_moves_with_all_logits_gets_every_row(loss_fn, outputs):
    module, params, inputs, labels = problem(NETS["dense"])
    assert jnp.abs(make_apply_fn(module)(params, inputs)).max() > 2.5  # where the clip and the charge are at work
    penalty_fn = make_penalty("jacobian_l1", outputs=outputs)

    def terms_fn(logits_fn, inputs, *, labels, lam, epsilon, key):
        return penalised_loss(logits_fn, inputs, labels=labels, lam=lam, penalty_fn=penalty_fn, loss_fn=loss_fn)

    expected = make_gradient(make_apply_fn(module), terms_fn=terms_fn)(params, inputs, **arguments(labels))
    closed = make_closed_form_gradient(module, outputs=outputs, loss_fn=loss_fn)
    assert_same(closed(params, inputs, **arguments(labels)), expected, rtol=1e-12)


@pytest.mark.usefixtures("x64", "quick_compile")
@pytest.mark.parametrize("examples_per_pass", [None, 1, 3, 7, 100])
def test_padding_and_the_size_of_chunks_change_nothing(examples_per_pass):
    module, params, inputs, labels = problem(NETS["dense"], batch_size=7)
    mask = jnp.array([True, True, False, True, True, True, False])
    closed = make_closed_form_gradient(module, loss_fn=SMOOTHED, examples_per_pass=examples_per_pass)
    expected = automatic(module)(params, inputs, **arguments(labels, mask))
    assert_same(closed(params, inputs.at[2].set(9.0), **arguments(labels, mask)), expected, rtol=1e-12)


@pytest.mark.parametrize("name", ["C", pytest.param("A", marks=pytest.mark.slow)])
@pytest.mark.parametrize("outputs", ["logits", "probs"])
def test_in_float32_it_is_as_exact_as_the_textbook_form(name, outputs):
    """Both against float64: 1e-5, or three times the textbook's own error, since sign(J) is ill-conditioned near 0."""
    module = create_model(name)
    inputs = jax.random.uniform(jax.random.key(1), (4, 28, 28, 1))
    labels = jnp.arange(4)
    params = jax.jit(module.init)(jax.random.key(0), inputs)["params"]
    closed = make_closed_form_gradient(module, outputs=outputs, loss_fn=SMOOTHED)
    textbook = automatic(module, outputs=outputs)
    (one, _), (other, _) = (jax.jit(f)(params, inputs, **arguments(labels)) for f in (closed, textbook))
    with jax.enable_x64(True):
        double = jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf), jnp.float64), params)
        exact, _ = jax.jit(textbook)(double, jnp.asarray(np.asarray(inputs), jnp.float64), **arguments(labels))
    for mine, theirs, truth in zip(*(jax.tree.leaves(tree) for tree in (one, other, exact)), strict=True):
        scale = np.linalg.norm(truth)
        errors = [np.linalg.norm(np.asarray(value, np.float64) - np.asarray(truth)) / scale for value in (mine, theirs)]
        assert errors[0] <= max(1e-5, 3 * errors[1])


@pytest.mark.parametrize("name", MODELS)
def test_on_a_cpu_it_compiles_without_a_convolution_into_little_memory(name):
    module = create_model(name, convolution="patches")
    params = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 28, 28, 1)))["params"]
    closed = make_closed_form_gradient(module, outputs="probs")
    shapes = jax.ShapeDtypeStruct((128, 28, 28, 1), jnp.float32)
    labels = jnp.zeros(128, int)
    compiled = jax.jit(partial(closed, **arguments(labels))).lower(params, shapes).compile()
    assert "convolution(" not in compiled.as_text()
    assert compiled.memory_analysis().temp_size_in_bytes <= {"A": 16e6, "B": 40e6, "C": 4e6}[name]


@pytest.mark.parametrize("layer", [Conv(4, 3, 2, "SAME"), Conv(4, 4, 3, "VALID"), Conv(2, 1, 1, "SAME")], ids=str)
def test_both_forms_of_a_convolution_are_transposes_of_each_other(layer):
    keys = jax.random.split(jax.random.key(0), 3)
    tangents = jax.random.normal(keys[0], (2, 3, 7, 8, 2))
    kernel = jax.random.normal(keys[1], (layer.kernel_size, layer.kernel_size, 2, layer.features))
    both = [make_linear_ops((layer,), (7, 8, 2), convolution=form)[0] for form in CONVOLUTIONS]
    assert both[0].output_shape == both[1].output_shape
    rows = jax.random.normal(keys[2], (2, 3, *both[0].output_shape))
    for op in both:
        inner = jnp.vdot(op.push(kernel, tangents), rows)
        np.testing.assert_allclose(
            jnp.vdot(tangents, op.pull(kernel, rows, lambda row: row)), inner, rtol=1e-4, atol=1e-4
        )
        np.testing.assert_allclose(
            jnp.vdot(kernel, op.to_kernel(op.outer(tangents, rows))), inner, rtol=1e-4, atol=1e-4
        )
    np.testing.assert_allclose(both[0].push(kernel, tangents), both[1].push(kernel, tangents), rtol=1e-4, atol=1e-5)


class Borrowed(nn.Module):
    """A network of somebody else: other names, and one layer without a bias."""

    @nn.compact
    def __call__(self, inputs):
        hidden = nn.relu(nn.Conv(4, (3, 3), (2, 2), padding="VALID", use_bias=False, name="stem")(inputs))
        hidden = nn.avg_pool(hidden, (2, 2), (1, 1))
        hidden = nn.relu(nn.Dense(6)(hidden.reshape(len(hidden), -1)))
        return nn.Dense(5)(hidden)


@pytest.mark.usefixtures("x64", "quick_compile")
def test_it_differentiates_networks_with_other_names():
    described = SequentialNet((Conv(4, 3, 2, "VALID"), AveragePool(2, 1), Dense(6)), num_classes=5)
    _, _, inputs, labels = problem(())
    params = jax.tree.map(jnp.float64, Borrowed().init(jax.random.key(0), inputs)["params"])
    closed = make_closed_form_gradient(described, loss_fn=SMOOTHED, layer_names=("stem", "Dense_0", "Dense_1"))
    expected = automatic(Borrowed())(params, inputs, **arguments(labels))
    assert_same(closed(params, inputs, **arguments(labels)), expected, rtol=1e-12)
    with pytest.raises(ValueError, match=r"layers layer_0, layer_2, output need a kernel each.*params have Dense_0 \("):
        make_closed_form_gradient(described)(params, inputs, **arguments(labels))


def test_a_layer_that_is_used_twice_is_refused():
    described = SequentialNet((Dense(4), Dense(4)), num_classes=3)
    with pytest.raises(ValueError, match="a layer that is used twice has no closed form"):
        make_closed_form_gradient(described, layer_names=("shared", "shared", "out"))


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize("kind", [bool, np.uint8])
def test_inputs_of_whole_numbers_are_refused(kind):
    module, params, inputs, labels = problem(NETS["dense"], dtype=jnp.float32)
    with pytest.raises(ValueError, match="floating numbers are needed"):
        make_closed_form_gradient(module)(params, inputs.astype(kind), **arguments(labels))


def test_smooth_networks_have_none_and_say_so():
    module = create_model("C", activation="gelu")
    assert has_closed_form(create_model("C"))
    assert not has_closed_form(module)
    assert not has_closed_form(SequentialNet((AveragePool(2, 2),)))
    with pytest.raises(ValueError, match=r"relu or leaky_relu; differentiate other networks with jl1\.make_gradient"):
        make_closed_form_gradient(module)
    with pytest.raises(ValueError, match="no closed form for outputs='margins'"):
        make_closed_form_gradient(create_model("C"), outputs="margins")


def test_bfloat16_products_are_an_option_and_float32_the_default():
    module, params, inputs, labels = problem(NETS["convolutions, then dense"], dtype=jnp.float32)
    exact, rounded, default = (
        make_closed_form_gradient(module, loss_fn=SMOOTHED, **options)(params, inputs, **arguments(labels))[0]
        for options in ({"precision": "float32"}, {"precision": "bfloat16"}, {})
    )
    for one, other, third in zip(*map(jax.tree.leaves, (exact, rounded, default)), strict=True):
        assert float(jnp.linalg.norm(one - third) / jnp.linalg.norm(one)) < 1e-6  # two programs on a GPU: not all bits
        error = float(jnp.linalg.norm(one - other) / jnp.linalg.norm(one))
        assert 1e-5 < error < 0.3
    forms = ("library", "patches")
    library, patches = (
        make_closed_form_gradient(module.clone(convolution=form), loss_fn=SMOOTHED, precision="bfloat16")(
            params, inputs, **arguments(labels)
        )[0]
        for form in forms
    )
    for one, other in zip(*map(jax.tree.leaves, (library, patches)), strict=True):  # both round the factors alone
        assert float(jnp.linalg.norm(one - other) / jnp.linalg.norm(one)) < 1e-3
    assert any((leaf != leaf.astype(jnp.bfloat16)).any() for leaf in jax.tree.leaves(library))
    with pytest.raises(ValueError, match="precision='half'"):
        make_closed_form_gradient(module, precision="half")


def test_a_loss_that_is_averaged_already_is_refused():
    module, params, inputs, labels = problem(NETS["dense"], dtype=jnp.float32)
    gradient_fn = make_closed_form_gradient(module, loss_fn=lambda *given: jnp.mean(SMOOTHED(*given)))
    with pytest.raises(ValueError, match=r"loss_fn returned shape \(\) .* do not average"):
        gradient_fn(params, inputs, **arguments(labels))


def test_the_gradient_has_the_type_of_the_parameters():
    module, params, inputs, labels = problem(NETS["dense"], dtype=jnp.float32)
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), params)
    gradient, _ = make_closed_form_gradient(module, loss_fn=SMOOTHED)(params, inputs, **arguments(labels))
    assert {leaf.dtype for leaf in jax.tree.leaves(gradient)} == {jnp.dtype(jnp.bfloat16)}


def test_twins_stay_in_the_range_that_is_given():
    module, params, inputs, labels = problem(NETS["dense"], dtype=jnp.float32)
    inputs = 4 * inputs - 2
    limits = {"lower": -2.0, "upper": 2.0}
    options = {"twin_loss_fn": SMOOTHED, "loss_fn": SMOOTHED, "outputs": "probs"}
    found = make_closed_form_gradient(module, **options, **limits)(params, inputs, **arguments(labels))
    attack_fn = partial(fgsm, loss_fn=SMOOTHED, **limits)
    expected = automatic(module, defended_loss, "probs", attack_fn=attack_fn)(params, inputs, **arguments(labels))
    assert_same(found, expected, rtol=1e-4)
    clipped = make_closed_form_gradient(module, **options)(params, inputs, **arguments(labels))
    assert abs(float(clipped[1].total - expected[1].total)) > 0.1
