"""The count of temporary memory: by hand, in loops and calls, and beside what a compiler reserves."""

from functools import partial

import jax
import jax.numpy as jnp
import pytest

from jl1.memory import temporary_bytes
from jl1.models import Conv, Dense, SequentialNet, make_apply_fn
from jl1.penalties import make_penalty

VECTOR = jax.ShapeDtypeStruct((1000,), jnp.float32)
KB = 4000
"""One vector."""


def test_what_is_alive_at_the_same_time_counts_by_hand():
    assert temporary_bytes(lambda x: jnp.sin(x), VECTOR) == KB
    assert temporary_bytes(lambda x: jnp.sin(jnp.sin(jnp.sin(x))), VECTOR) == 2 * KB  # a step's input and its output
    assert temporary_bytes(lambda x: jnp.sin(x) + jnp.cos(x), VECTOR) == 3 * KB
    assert temporary_bytes(lambda x: (x, x), VECTOR) == 0


def test_bodies_of_loops_and_calls_count_once():
    body = lambda x: jnp.sin(jnp.sin(x))  # noqa: E731
    assert temporary_bytes(jax.jit(body), VECTOR) == KB + temporary_bytes(body, VECTOR)  # and the call's own result
    looped = lambda x: jax.lax.fori_loop(0, 1000, lambda _, value: body(value), x)  # noqa: E731
    assert temporary_bytes(looped, VECTOR) < 5 * KB
    stacked = lambda x: jax.lax.map(lambda factor: factor * x, jnp.ones(50))  # noqa: E731
    assert 50 * KB < temporary_bytes(stacked, VECTOR) < 54 * KB


NETS = {
    "dense": (SequentialNet((Dense(256), Dense(128)), 10), (28, 28, 1)),
    "convolutions": (SequentialNet((Conv(16, 5, 2, "SAME"), Conv(16, 3, 1, "VALID")), 10), (20, 20, 1)),
}


@pytest.mark.parametrize(
    ("name", "convolution", "outputs", "examples"),
    [
        ("dense", "auto", 1, 32),
        ("dense", "auto", 10, 8),
        ("convolutions", "library", 1, 32),
        ("convolutions", "patches", 10, 8),
    ],
)
def test_a_compiler_reserves_about_as_much_or_less(name, convolution, outputs, examples):
    module, shape = NETS[name]
    apply_fn = make_apply_fn(module.clone(convolution=convolution))
    penalty_fn = make_penalty("jacobian_l1", outputs_per_pass=outputs, examples_per_pass=examples)
    inputs, labels = jax.ShapeDtypeStruct((64, *shape), jnp.float32), jax.ShapeDtypeStruct((64,), jnp.int32)
    params = jax.eval_shape(module.init, jax.random.key(0), inputs)["params"]

    def penalty(params, inputs, labels):
        return jnp.mean(penalty_fn(partial(apply_fn, params), inputs, labels=labels))

    gradient = jax.grad(penalty)
    counted = temporary_bytes(gradient, params, inputs, labels)
    reserved = jax.jit(gradient).lower(params, inputs, labels).compile().memory_analysis().temp_size_in_bytes
    assert 0.15 * counted < reserved < 1.25 * counted
