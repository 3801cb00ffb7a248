"""How a run differentiates its loss: in which form, and in a bound of memory how much at a time."""

from collections.abc import Callable
from functools import partial
from math import inf
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jl1.array_types import Params, Scalar
from jl1.closed_form import fastest_examples, has_closed_form, make_closed_form_gradient
from jl1.config import Config
from jl1.errors import UserError
from jl1.gradients import GradientFn
from jl1.memory import temporary_bytes
from jl1.models import SequentialNet, make_apply_fn
from jl1.penalties import ROW_PENALTIES
from jl1.piecewise_linear.chunks import MOST_ROWS, Chunks, choose_chunks
from jl1.runs.objective import losses_of, make_penalty_fn

_BYTES, _SHARE_OF_A_DEVICE = 1_000_000_000, 0.25
"""The bound where the config has none: so many bytes, or this share of a device that tells how much memory it has."""

_MANY_CLASSES = 100
"""From here on a run is told that an estimate does with one pass."""


class GradientPlan(NamedTuple):
    """How the loss is differentiated.

    Attributes:
        form: `closed_form`, `automatic`, or `plain` where there is no penalty.
        chunks: Of an exact penalty that goes through the rows of the Jacobian, what is worked off at a time; or None.
        max_bytes: The bound that they were chosen for.
        num_classes: Rows of the Jacobian.
    """

    form: str
    chunks: Chunks | None = None
    max_bytes: float | int = inf
    num_classes: int = 0


def plan_gradient(
    config: Config, module: SequentialNet, *, params: Params, input_shape: tuple[int, ...]
) -> GradientPlan:
    """Choose the form of the gradient, and chunks that fit into `config.penalty.memory_mb`.

    The closed form needs all rows of one example at a time; where they do not fit, the automatic form is taken, which
    does with one row.

    Raises:
        UserError: The config asks for the closed form, and there is none, or one example does not fit.
    """
    form = _form(config, module)
    if form == "plain" or config.penalty.name not in ROW_PENALTIES:
        return GradientPlan(form)
    max_bytes, num_classes = _max_bytes(config), module.num_classes
    if form == "closed_form":
        chunks = _closed_form_chunks(config, module, params, input_shape, max_bytes)
        if chunks.num_bytes <= max_bytes:
            return GradientPlan(form, chunks, max_bytes, num_classes)
        if config.penalty.gradient == "closed_form":
            raise UserError(
                f"config.penalty.gradient=closed_form: the rows of one example take {_mb(chunks.num_bytes)}, and "
                f"config.penalty.memory_mb allows {_mb(max_bytes)}; take auto, or allow more"
            )
    chunks = _automatic_chunks(config, module, params, input_shape, max_bytes)
    return GradientPlan("automatic", chunks, max_bytes, num_classes)


def describe_plan(plan: GradientPlan) -> list[str]:
    """Say in a line or two how an exact penalty is worked off; of any other there is nothing to say."""
    if plan.chunks is None:
        return []
    examples, outputs, num_bytes = plan.chunks
    form = plan.form.replace("_", " ")
    plural = "s" if examples > 1 else ""
    at_a_time = f"{examples:,} example{plural} x {outputs:,} of {plan.num_classes:,} classes at a time"
    lines = [f"exact penalty, {form}: {at_a_time}, at most about {_mb(num_bytes)}"]
    if num_bytes > plan.max_bytes:
        lines[0] += f"; config.penalty.memory_mb allows {_mb(plan.max_bytes)}, but less than this cannot be had"
    if plan.num_classes >= _MANY_CLASSES:
        lines.append(
            f"{plan.num_classes:,} classes: the exact penalty takes a pass for each. An estimate takes one: "
            "--config.penalty.name=jacobian_l1_sampled_classes (docs/estimators.md)"
        )
    return lines


def closed_form_gradient(config: Config, module: SequentialNet, examples: int) -> GradientFn:
    """Make the gradient of Eq. 3 in closed form, on the points or on the points and their twins."""
    loss_fn, twin_loss_fn = losses_of(config)
    return make_closed_form_gradient(
        module,
        outputs=config.penalty.outputs,
        scale=config.penalty.scale,
        loss_fn=loss_fn,
        twin_loss_fn=twin_loss_fn if config.adversarial.epsilon > 0 else None,
        twin_weight={"mean": 0.5, "sum": 1.0}[config.adversarial.coupling],
        examples_per_pass=examples,
        precision=config.training.precision,
    )


def _form(config: Config, module: SequentialNet) -> str:
    """Choose how the loss is differentiated: `plain` (no penalty), `closed_form` or `automatic`."""
    if config.penalty.name == "none" or config.penalty.lam == 0:
        return "plain"
    reasons = {
        f"config.penalty.name={config.penalty.name}": config.penalty.name != "jacobian_l1",
        f"config.model.activation={config.model.activation}": not has_closed_form(module),
        f"config.adversarial.method={config.adversarial.method}": config.adversarial.method != "twins",
        "config.adversarial.random_start": config.adversarial.random_start,
        "config.adversarial.labels=predicted": config.adversarial.epsilon > 0 and config.adversarial.labels != "true",
    }
    obstacles = [reason for reason, holds in reasons.items() if holds]
    if config.penalty.gradient == "closed_form" and obstacles:
        raise UserError(f"config.penalty.gradient=closed_form: there is none with {', '.join(obstacles)}; take auto")
    return "automatic" if obstacles or config.penalty.gradient == "automatic" else "closed_form"


def _closed_form_chunks(
    config: Config, module: SequentialNet, params: Params, input_shape: tuple[int, ...], max_bytes: float | int
) -> Chunks:
    """Take as many examples at a time as are fastest, or as fit."""
    inputs, labels = _batch(config.training.batch_size, input_shape)

    def bytes_of(examples: int, outputs: int) -> int:
        del outputs  # always all
        gradient_fn = closed_form_gradient(config, module, examples)
        options = {"mask": jnp.ones(len(inputs), bool), "lam": 1.0, "epsilon": config.adversarial.epsilon}
        return temporary_bytes(
            lambda *given: gradient_fn(*given[:2], labels=given[2], **options), params, inputs, labels
        )

    rows = {"outputs": module.num_classes, "fewest_outputs": module.num_classes}
    return choose_chunks(bytes_of, examples=fastest_examples(module, inputs), max_bytes=max_bytes, **rows)


def _automatic_chunks(
    config: Config, module: SequentialNet, params: Params, input_shape: tuple[int, ...], max_bytes: float | int
) -> Chunks:
    """Take the whole batch and as many outputs at a time as gain something, or as fit."""
    points = 2 if config.adversarial.epsilon > 0 else 1  # an attacked one beside each
    inputs, labels = _batch(points * config.training.batch_size, input_shape)
    apply_fn, (loss_fn, _) = make_apply_fn(module), losses_of(config)

    def bytes_of(examples: int, outputs: int) -> int:
        penalty_fn: Callable[..., Any] = make_penalty_fn(config, loss_fn, Chunks(examples, outputs, 0))

        def penalty(params: Params, inputs: Any, labels: Any) -> Scalar:
            return jnp.mean(penalty_fn(partial(apply_fn, params), inputs, labels=labels))

        return temporary_bytes(jax.grad(penalty), params, inputs, labels)

    return choose_chunks(
        bytes_of,
        examples=len(inputs),
        outputs=module.num_classes,
        fewest_outputs=config.penalty.outputs_per_pass,
        max_bytes=max_bytes,
        max_rows=MOST_ROWS if jax.default_backend() == "cpu" else inf,
    )


def _max_bytes(config: Config) -> float | int:
    """Return the bound of memory: the config's, or a share of the device's."""
    if config.penalty.memory_mb is not None:
        return 1e6 * config.penalty.memory_mb
    limit = (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit")  # a CPU tells nothing
    return _SHARE_OF_A_DEVICE * limit if limit else _BYTES


def _batch(size: int, input_shape: tuple[int, ...]) -> tuple[jax.ShapeDtypeStruct, jax.ShapeDtypeStruct]:
    """Return the shapes of a batch."""
    return jax.ShapeDtypeStruct((size, *input_shape), jnp.float32), jax.ShapeDtypeStruct((size,), jnp.int32)


def _mb(num_bytes: float | int) -> str:
    """Write a size for people."""
    return f"{num_bytes / 1e6:,.0f} MB" if num_bytes >= 1e7 else f"{num_bytes / 1e6:.1f} MB"
