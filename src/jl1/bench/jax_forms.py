"""What the bench runs in JAX: forms of the step, attacks and loops, by the names that their rows carry.

To measure another form of the gradient, add one line to `GRADIENTS`: the last word of an exact form's name is what it
penalises, and its first word says in which process it runs. Loaded by `worker.py`.
"""

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jl1.array_types import AttackFn, Inputs, Labels, LogitsFn, Params, PenaltyFn, PerExample, PRNGKey
from jl1.attacks.fgsm import fgsm
from jl1.attacks.pgd import pgd
from jl1.bench.step_problem import StepProblem, create_problem, export_problem
from jl1.closed_form import make_closed_form_gradient
from jl1.evaluation import make_eval_step
from jl1.gradients import GradientFn, make_gradient
from jl1.hyperparameters import Hyperparameters
from jl1.jacobian import l1_jacobian_norm
from jl1.losses import LossTerms, cross_entropy, penalised_loss
from jl1.models import make_apply_fn
from jl1.penalties import OUTPUTS, make_penalty
from jl1.training import Examples, TrainState, make_epoch, make_train_step, zero_totals

__all__ = ["FORMS", "create_problem", "export_problem", "make_form", "to_arrays"]

_MATRIX_SIZE = 1024

Form = tuple[Callable[[], Any], dict[str, Any]]
"""A function that computes once and returns when it is done, and what the compiler knows of it."""


def make_form(problem: StepProblem, name: str) -> Form:
    """Compile a form."""
    return FORMS[name](problem)


def to_arrays(problem: StepProblem, result: tuple[Params, LossTerms]) -> dict[str, Any]:
    """Name the arrays of a gradient."""
    del problem  # they have its names and layouts
    gradient, _ = result
    return {f"{layer}/{part}": array for layer, parts in gradient.items() for part, array in parts.items()}


def _compiled(function: Callable[..., Any], *arguments: Any) -> Form:
    """Compile a function for these arguments."""
    start = time.perf_counter()
    program = jax.jit(function).lower(*arguments).compile()
    facts = {"compile_seconds": round(time.perf_counter() - start, 3)}
    if memory := program.memory_analysis():  # not every device tells
        facts["temporary_mb"] = round(memory.temp_size_in_bytes / 1e6, 3)
    return lambda: jax.block_until_ready(program(*arguments)), facts


def _matrix_product(problem: StepProblem) -> Form:
    """Multiply two float32 matrices: what the core can do at best."""
    del problem
    matrix = jnp.ones((_MATRIX_SIZE, _MATRIX_SIZE))
    run, facts = _compiled(jnp.dot, matrix, matrix)
    device = jax.devices()[0]
    return run, facts | {"operations": 2 * _MATRIX_SIZE**3, "device": f"{device.platform} {device.device_kind}"}


def _gradient_form(make_gradient_fn: Callable[[StepProblem], GradientFn], problem: StepProblem) -> Form:
    """Compute the gradient of one batch."""
    gradient_fn = make_gradient_fn(problem)

    def gradient(params: Params, inputs: Inputs, labels: Labels, key: PRNGKey) -> tuple[Params, LossTerms]:
        batch = {"labels": labels, "mask": jnp.ones(len(inputs), bool)}
        return gradient_fn(params, inputs, lam=problem.lam, epsilon=0.0, key=key, **batch)

    return _compiled(gradient, problem.params, problem.inputs, problem.labels, jax.random.key(2))


def _closed_form(problem: StepProblem, *, outputs: str = "logits") -> GradientFn:
    """Differentiate in closed form."""
    loss_fn = partial(cross_entropy, smoothing=problem.smoothing)
    return make_closed_form_gradient(problem.module, outputs=outputs, loss_fn=loss_fn, **problem.closed_form)


def _automatic(problem: StepProblem, *, penalty_fn: PenaltyFn | None = None, library: bool = False) -> GradientFn:
    """Differentiate automatically; `library`: with the library's convolutions."""

    def terms_fn(logits_fn: LogitsFn, inputs: Inputs, *, labels: Labels, lam: Any, key: PRNGKey, **_: Any) -> LossTerms:
        options = {"penalty_fn": penalty_fn, "loss_fn": partial(cross_entropy, smoothing=problem.smoothing)}
        return penalised_loss(logits_fn, inputs, labels=labels, lam=lam, key=key, **options)

    module = problem.module.clone(convolution="library") if library else problem.module
    return make_gradient(make_apply_fn(module), terms_fn=terms_fn)


def _by_definition(outputs: str) -> PenaltyFn:
    """Take the Jacobian as a textbook does: vmap(jacrev)."""

    def penalty(logits_fn: LogitsFn, inputs: Inputs, *, labels: Labels, key: PRNGKey | None = None) -> PerExample:
        del labels, key  # the Jacobian does not depend on them
        return l1_jacobian_norm(lambda one: OUTPUTS[outputs](logits_fn(one[None]))[0], inputs)

    return penalty


def _evaluation(problem: StepProblem, *, attack_fn: AttackFn | None = None) -> Form:
    """Attack and classify the batch."""
    step = make_eval_step(make_apply_fn(problem.module), attack_fn=attack_fn)
    return _compiled(step, problem.params, problem.inputs, problem.labels, 0.1, jax.random.key(3))


def _first_state(problem: StepProblem, optimizer: optax.GradientTransformation) -> TrainState:
    """Return a state that may be donated."""
    params = jax.tree.map(jnp.copy, problem.params)
    return TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params))


def _bare_steps(make_gradient_fn: Callable[[StepProblem], GradientFn], problem: StepProblem) -> Form:
    """Take steps one by one on a batch that lies on the device."""
    optimizer = optax.adam(1e-3)
    step = make_train_step(make_gradient_fn(problem), optimizer)
    mask, hyperparameters = jnp.ones(len(problem.labels), bool), _hyperparameters(problem)

    def run() -> TrainState:
        state = _first_state(problem, optimizer)
        for _ in range(problem.num_steps):
            state, _ = step(state, problem.inputs, problem.labels, mask, hyperparameters)
        return jax.block_until_ready(state)

    return run, {}


def _epoch(make_gradient_fn: Callable[[StepProblem], GradientFn], problem: StepProblem) -> Form:
    """Take as many steps by the loop of an epoch, over a data set of as many batches."""
    optimizer, num_steps = optax.adam(1e-3), problem.num_steps
    epoch = make_epoch(make_gradient_fn(problem), optimizer)
    repeated = (jnp.tile(part, (num_steps, *[1] * (part.ndim - 1))) for part in (problem.inputs, problem.labels))
    examples, hyperparameters = Examples(*repeated), _hyperparameters(problem)
    batches = jax.random.permutation(jax.random.key(4), len(examples.labels)).reshape(num_steps, -1)

    def run() -> TrainState:
        state = _first_state(problem, optimizer)
        state, _ = epoch(state, zero_totals(), examples, batches, 0, num_steps, hyperparameters)
        return jax.block_until_ready(state)

    return run, {}


def _hyperparameters(problem: StepProblem) -> Hyperparameters:
    """Return lambda and the key as the steps take them."""
    return Hyperparameters(jnp.float32(problem.lam), jnp.float32(0.0), jax.random.key(2))


GRADIENTS: Mapping[str, Callable[[StepProblem], GradientFn]] = {
    "plain": _automatic,
    "library plain": partial(_automatic, library=True),
    "closed form logits": _closed_form,
    "closed form probs": partial(_closed_form, outputs="probs"),
    "closed form centred_logits": partial(_closed_form, outputs="centred_logits"),
    "closed form log_probs": partial(_closed_form, outputs="log_probs"),
    "estimate sampled_classes": partial(_automatic, penalty_fn=make_penalty("jacobian_l1_sampled_classes")),
    "estimate finite_difference": partial(_automatic, penalty_fn=make_penalty("jacobian_l1_finite_difference")),
    "estimate random_sign": partial(_automatic, penalty_fn=make_penalty("jacobian_l1_random_sign")),
    "estimate l21_projected": partial(_automatic, penalty_fn=make_penalty("jacobian_l21_projected")),
    "automatic logits": partial(_automatic, penalty_fn=make_penalty("jacobian_l1")),
    "automatic probs": partial(_automatic, penalty_fn=make_penalty("jacobian_l1", outputs="probs")),
    "textbook logits": partial(_automatic, penalty_fn=_by_definition("logits"), library=True),
    "textbook probs": partial(_automatic, penalty_fn=_by_definition("probs"), library=True),
}
"""The gradients of the mean loss of a batch."""

FORMS: Mapping[str, Callable[[StepProblem], Form]] = {
    "matrix product": _matrix_product,
    **{name: partial(_gradient_form, make_gradient_fn) for name, make_gradient_fn in GRADIENTS.items()},
    "clean": _evaluation,
    "fgsm": partial(_evaluation, attack_fn=fgsm),
    "pgd-20": partial(_evaluation, attack_fn=partial(pgd, num_steps=20)),
    "bare steps, plain": partial(_bare_steps, _automatic),
    "bare steps, exact": partial(_bare_steps, _closed_form),
    "epoch, plain": partial(_epoch, _automatic),
    "epoch, exact": partial(_epoch, _closed_form),
}
"""Everything that a worker can be asked for."""
