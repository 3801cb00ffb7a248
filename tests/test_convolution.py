"""The drop-in convolution against the library's: values, derivatives of all kinds, and what it leaves alone."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from jl1.convolution import patch_convolution
from jl1.models import SequentialNet, create_model, make_apply_fn

LAYOUT = jax.lax.ConvDimensionNumbers((0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2))


def problem(batch_size=5, window=3):
    keys = jax.random.split(jax.random.key(0), 2)
    return jax.random.normal(keys[0], (batch_size, 7, 6, 2)), jax.random.normal(keys[1], (window, window, 2, 4))


@pytest.mark.usefixtures("x64", "quick_compile")
@pytest.mark.parametrize(
    ("padding", "stride", "block_bytes"), [("SAME", 2, 5000), ("VALID", 1, 1), ("VALID", 2, 5000), ("SAME", 1, 1 << 30)]
)
def test_it_equals_the_librarys_and_so_do_its_derivatives(monkeypatch, padding, stride, block_bytes):
    monkeypatch.setattr("jl1.convolution._BLOCK_BYTES", block_bytes)
    images, kernel = (array.astype(jnp.float64) for array in problem())

    def apply(convolve, images, kernel):
        return jnp.sin(
            convolve(jnp.asarray(images), jnp.asarray(kernel), (stride, stride), padding, dimension_numbers=LAYOUT)
        )

    mine, library = (partial(apply, convolve) for convolve in (patch_convolution, jax.lax.conv_general_dilated))
    np.testing.assert_allclose(mine(images, kernel), library(images, kernel), rtol=1e-12, atol=1e-12)
    check_grads(mine, (images[:3], kernel), order=2 if padding == "SAME" else 1, modes=("fwd", "rev"))
    for derivative in (jax.jacrev, jax.jacfwd):
        one = derivative(lambda image: mine(image[None], kernel)[0])
        other = derivative(lambda image: library(image[None], kernel)[0])
        np.testing.assert_allclose(jax.vmap(one)(images), jax.vmap(other)(images), rtol=1e-12, atol=1e-12)


def test_what_it_does_not_do_goes_to_the_library():
    images, kernel = problem()
    for options in (
        {"padding": [(1, 0), (0, 2)]},
        {"padding": "VALID", "rhs_dilation": (2, 2)},
        {"padding": "SAME", "window_strides": (1, 2)},
    ):
        options = {"window_strides": (1, 1), "dimension_numbers": LAYOUT, **options}
        expected = jax.lax.conv_general_dilated(images, kernel, **options)
        np.testing.assert_array_equal(patch_convolution(images, kernel, **options), expected)
    for window in (7, 8, 9):  # larger than images of 7 x 6 by one or more in a direction: nothing comes out
        kernel_of_image = problem(window=window)[1]
        options = {"window_strides": (2, 2), "padding": "VALID", "dimension_numbers": LAYOUT}
        found, expected = (
            form(images, kernel_of_image, **options) for form in (patch_convolution, jax.lax.conv_general_dilated)
        )
        assert found.shape == expected.shape
        assert found.size == 0
    with pytest.raises(TypeError, match="dtypes"):
        patch_convolution(images, kernel.astype(jnp.bfloat16), (1, 1), "SAME", dimension_numbers=LAYOUT)
    rounded = images.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16), (1, 1), "SAME"
    sums = patch_convolution(*rounded, dimension_numbers=LAYOUT, preferred_element_type=jnp.float32)
    assert sums.dtype == jnp.float32
    with pytest.raises(TypeError, match="nonsense"):
        patch_convolution(images, kernel, (1, 1), "SAME", dimension_numbers=LAYOUT, nonsense=3)
    with pytest.raises(ValueError, match="feature_group_count must divide"):
        patch_convolution(images, kernel, (1, 1), "SAME", dimension_numbers=LAYOUT, feature_group_count=3)


def test_any_flax_convolution_takes_it():
    images, _ = problem()
    layers = [nn.Conv(3, (3, 3), strides=2, conv_general_dilated=form) for form in (None, patch_convolution)]
    params = layers[0].init(jax.random.key(1), images)
    np.testing.assert_allclose(layers[1].apply(params, images), layers[0].apply(params, images), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["A", "B"])
def test_networks_compile_to_the_form_that_is_asked_for_and_to_products_on_a_cpu(name):
    inputs = jax.ShapeDtypeStruct((4, 28, 28, 1), jnp.float32)
    has_convolution = {}
    for form in ("auto", "patches", "library"):
        module = create_model(name, convolution=form)
        params = jax.eval_shape(module.init, jax.random.key(0), inputs)["params"]
        apply_fn = make_apply_fn(module)
        lowered = jax.jit(jax.grad(lambda *args, fn=apply_fn: jnp.sum(fn(*args)))).lower(params, inputs)
        has_convolution[form] = "stablehlo.convolution" in lowered.as_text()
    assert has_convolution == {"patches": False, "library": True, "auto": jax.default_backend() != "cpu"}


def test_an_unknown_form_is_refused():
    with pytest.raises(ValueError, match="unknown convolution 'winograd'; known are library, patches"):
        create_model("A", convolution="winograd")
    assert SequentialNet(()).convolution == "auto"
