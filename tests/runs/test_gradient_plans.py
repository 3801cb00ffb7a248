"""What is worked off at a time: chosen in a bound of memory that the compiled program keeps; the result is the same."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jl1.config import default_config
from jl1.errors import UserError
from jl1.models import Dense, SequentialNet, make_apply_fn
from jl1.piecewise_linear.chunks import Chunks, choose_chunks
from jl1.runs.gradient_plans import GradientPlan, closed_form_gradient, describe_plan, plan_gradient
from jl1.runs.objective import losses_of, make_penalty_fn

SHAPE = (14, 14, 1)


def small_net(num_classes):
    return SequentialNet((Dense(256), Dense(64)), num_classes)


def shapes_of(module, batch_size=32):
    """Return shapes of parameters, inputs and labels."""
    inputs = jax.ShapeDtypeStruct((batch_size, *SHAPE), jnp.float32)
    params = jax.eval_shape(module.init, jax.random.key(0), inputs)["params"]
    return params, inputs, jax.ShapeDtypeStruct((batch_size,), jnp.int32)


def settings(**fields):
    config = default_config()
    config.training.batch_size = 32
    config.update_from_flattened_dict({name.replace("__", "."): value for name, value in fields.items()})
    return config


def plan_for(config, num_classes):
    module = small_net(num_classes)
    return plan_gradient(config, module, params=shapes_of(module)[0], input_shape=SHAPE)


def gradient_of(config, plan, module):
    """Return the gradient of the penalty in the planned form, a function of params, inputs and labels."""
    loss_fn, _ = losses_of(config)
    if plan.form == "closed_form":
        gradient_fn = closed_form_gradient(config, module, plan.chunks.examples)
        options = {"mask": jnp.ones(32, bool), "lam": 1.0, "epsilon": 0.0}
        return lambda params, inputs, labels: gradient_fn(params, inputs, labels=labels, **options)[0]
    penalty_fn, apply_fn = make_penalty_fn(config, loss_fn, plan.chunks), make_apply_fn(module)
    return jax.grad(
        lambda params, inputs, labels: jnp.mean(penalty_fn(partial(apply_fn, params), inputs, labels=labels))
    )


@pytest.mark.parametrize("form", ["closed_form", "automatic"])
@pytest.mark.parametrize("num_classes", [10, 100, 1000])
def test_the_compiled_gradient_stays_in_the_bound_whatever_the_number_of_classes(num_classes, form):
    bound = 16
    config = settings(penalty__gradient=form, penalty__memory_mb=bound, penalty__outputs_per_pass=100)
    plan, module = plan_for(config, num_classes), small_net(num_classes)
    assert plan.form == form
    assert plan.chunks.num_bytes <= 1e6 * bound
    compiled = jax.jit(gradient_of(config, plan, module)).lower(*shapes_of(module)).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 1.25e6 * bound


@pytest.mark.parametrize("outputs", ["logits", "probs"])
def test_the_result_does_not_depend_on_the_chunks(outputs):
    module = small_net(10)
    inputs = jax.random.uniform(jax.random.key(1), (32, *SHAPE))
    given = module.init(jax.random.key(0), inputs)["params"], inputs, jnp.arange(32) % 10
    config, gradients = settings(penalty__outputs=outputs), []
    for chunks in (Chunks(32, 10, 0), Chunks(5, 3, 0)):
        gradient = gradient_of(config, GradientPlan("automatic", chunks), module)
        gradients.append(jax.jit(gradient)(*given))
    for one, other in zip(*map(jax.tree.leaves, gradients), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5 * np.abs(other).max())


def test_a_closed_form_that_does_not_fit_gives_way_or_is_refused():
    config = settings(penalty__memory_mb=10)
    plan = plan_for(config, 1000)
    assert (plan.form, *plan.chunks[:2]) == ("automatic", 32, 4)  # 128 rows; more than 160 would gain nothing
    config.penalty.gradient = "closed_form"
    with pytest.raises(
        UserError, match=r"the rows of one example take .* MB, and config.penalty.memory_mb allows 10 MB"
    ):
        plan_for(config, 1000)


@pytest.mark.parametrize(
    "fields",
    [
        {"penalty__lam": 0.0},
        {"penalty__name": "jacobian_l1_sampled_classes"},
        {"penalty__name": "class_sum_l1"},
        {"penalty__name": "loss_gradient_l2"},
    ],
)
def test_other_penalties_have_no_rows_to_go_through(fields):
    plan = plan_for(settings(**fields), 1000)
    assert (plan.chunks, describe_plan(plan)) == (None, [])


def test_a_run_is_told_what_is_worked_off_at_a_time():
    (line,) = describe_plan(plan_for(settings(), 10))
    assert line.startswith("exact penalty, closed form: 16 examples x 10 of 10 classes at a time, at most about ")
    line, advice = describe_plan(plan_for(settings(penalty__name="jacobian_frobenius"), 1000))
    assert line.startswith("exact penalty, automatic: 32 examples x 4 of 1,000 classes at a time, at most about ")
    assert "--config.penalty.name=jacobian_l1_sampled_classes" in advice


def test_where_nothing_fits_as_little_is_taken_as_saves_memory_and_it_is_said():
    taken = [
        choose_chunks(bytes_of, examples=8, outputs=4, fewest_outputs=2, max_bytes=1_000_000)
        for bytes_of in (lambda examples, _: 2_000_000 * examples, lambda examples, _: 3_000_000 + examples)
    ]
    assert taken == [Chunks(1, 2, 2_000_000), Chunks(8, 2, 3_000_008)]
    plan = plan_for(settings(), 10)._replace(chunks=taken[0], max_bytes=1e6)
    assert describe_plan(plan)[0].endswith("config.penalty.memory_mb allows 1.0 MB, but less than this cannot be had")
