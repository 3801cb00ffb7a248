"""Penalties by name: an exact norm or an estimate, of the outputs that are chosen, on the scale that is chosen."""

import math
from collections.abc import Callable, Mapping
from functools import partial

import jax
import jax.numpy as jnp
import optax

from jl1.array_types import (
    BatchedFn,
    ChangePenaltyFn,
    ExampleLossFn,
    Inputs,
    Labels,
    Logits,
    LogitsFn,
    Outputs,
    PenaltyFn,
    PerExample,
    PRNGKey,
    Scalar,
)
from jl1.estimators import (
    jacobian_frobenius_projected,
    jacobian_l1_finite_difference,
    jacobian_l1_random_sign,
    jacobian_l1_sampled_classes,
    jacobian_l21_projected,
    output_change,
)
from jl1.evaluated import Sharing, compose
from jl1.norms import class_sum_l1, jacobian_frobenius, jacobian_l1, loss_gradient_l1, loss_gradient_l2


def logits_output(logits: Logits) -> Outputs:
    """Penalise the logits as they are."""
    return logits


def centred_logits(logits: Logits) -> Outputs:
    """Subtract each example's mean logit: the part of the logits that decisions depend on.

    Args:
        logits: Scores before the softmax.

    Returns:
        Logits that sum to zero in every example.
    """
    return logits - jnp.mean(logits, axis=-1, keepdims=True)


OUTPUTS: Mapping[str, Callable[[Logits], Outputs]] = {
    "logits": logits_output,
    "centred_logits": centred_logits,
    "probs": jax.nn.softmax,
    "log_probs": jax.nn.log_softmax,
}
"""The f of Eq. 3, as a function of the logits; the paper does not say which it penalised."""

_STRAIGHT = (logits_output, centred_logits)
"""Outputs that are linear functions of the logits."""

CONSTANT_SUM = ("centred_logits", "probs")
"""Outputs whose sum over the classes is the same everywhere, so that `class_sum_l1` of them is 0."""

JACOBIAN_PENALTIES: Mapping[str, Callable[..., PerExample]] = {
    "jacobian_l1": jacobian_l1,
    "class_sum_l1": class_sum_l1,
    "jacobian_frobenius": jacobian_frobenius,
}
"""Penalties of the derivative of the outputs."""

ROW_PENALTIES = ("jacobian_l1", "jacobian_frobenius")
"""Those that go through the rows of the Jacobian, in chunks of outputs and examples."""

LOSS_GRADIENT_PENALTIES: Mapping[str, Callable[[Callable[[Inputs], PerExample], Inputs], PerExample]] = {
    "loss_gradient_l2": loss_gradient_l2,
    "loss_gradient_l1": loss_gradient_l1,
}
"""Penalties of the derivative of the loss; which outputs are penalised does not matter to them."""

ESTIMATORS: Mapping[str, Callable[..., PerExample]] = {
    "jacobian_l1_sampled_classes": jacobian_l1_sampled_classes,
    "jacobian_l1_finite_difference": jacobian_l1_finite_difference,
    "jacobian_l1_random_sign": jacobian_l1_random_sign,
    "jacobian_l21_projected": jacobian_l21_projected,
    "jacobian_frobenius_projected": jacobian_frobenius_projected,
}
"""Penalties of the derivative of the outputs that draw at random, and need a key."""

DRAW_CLASSES = ("jacobian_l1_sampled_classes", "jacobian_l1_finite_difference")
"""Estimators whose draws are different outputs: no more of them than there are."""

OUTPUT_CHANGE = "output_change"
"""The penalty of two points, x and its twin: `make_change_penalty`, `change_loss.output_change_loss`."""

PENALTIES = ("none", *JACOBIAN_PENALTIES, *LOSS_GRADIENT_PENALTIES, *ESTIMATORS, OUTPUT_CHANGE)
"""Names of all penalties, and `none`; `make_penalty` makes those of one point."""

SCALES = ("sum", "mean")
"""`sum` is Eq. 3 to the letter; `mean` divides it by the number of entries of the Jacobian."""


def make_penalty(
    name: str,
    *,
    outputs: str = "logits",
    scale: str = "sum",
    outputs_per_pass: int = 1,
    examples_per_pass: int | None = None,
    num_draws: int = 1,
    loss_fn: ExampleLossFn = optax.softmax_cross_entropy_with_integer_labels,
) -> PenaltyFn:
    """Compose a penalty of a network from its name, the penalised outputs and the scale.

    Args:
        name: One of `PENALTIES` but `none` and `output_change` (`make_change_penalty` makes that one).
        outputs: One of `OUTPUTS`.
        scale: `sum`, or `mean` over the c x d entries of the Jacobian (the d entries of the gradient for
            a penalty of the loss). `class_sum_l1` is divided by c x d too: it stands where ||J||_{1,1}
            stands in Eq. 3, so both have the same factor and lambda means the same.
        outputs_per_pass: Outputs differentiated at a time by the penalties that need a reverse pass for
            each: the bound on memory.
        examples_per_pass: Examples at a time, by the same penalties; None: the whole batch.
        num_draws: Draws of an estimator.
        loss_fn: The loss whose gradient is penalised, for a penalty of the loss.

    Returns:
        Function of (logits_fn, inputs, labels=..., key=...) with one value an example. Only estimators need
        the key; without one they raise a ValueError.

    Raises:
        ValueError: An unknown name.

    Example:
        >>> import jax.numpy as jnp
        >>> weights = jnp.array([[1.0, -2.0], [3.0, 0.5]])
        >>> penalty_fn = make_penalty("jacobian_l1", scale="mean")
        >>> penalty_fn(lambda x: x @ weights.T, jnp.zeros((1, 2)), labels=jnp.array([0])).tolist()
        [1.625]
    """
    known = [known for known in PENALTIES if known not in ("none", OUTPUT_CHANGE)]
    if name not in known or outputs not in OUTPUTS or scale not in SCALES:
        raise ValueError(
            f"no penalty {name!r} on outputs {outputs!r} with scale {scale!r}; penalties are "
            f"{', '.join(known)}; outputs {', '.join(OUTPUTS)}; scales {', '.join(SCALES)}"
        )
    if name in LOSS_GRADIENT_PENALTIES:
        return Sharing(partial(_loss_gradient_penalty, LOSS_GRADIENT_PENALTIES[name], loss_fn, scale))
    output_fn = OUTPUTS[outputs]
    if name in ROW_PENALTIES:
        chunks = {"outputs_per_pass": outputs_per_pass, "examples_per_pass": examples_per_pass}
        return partial(_jacobian_penalty, partial(JACOBIAN_PENALTIES[name], **chunks), output_fn, scale)
    if name in ESTIMATORS:
        of_one_row = partial(_estimated_penalty, name, num_draws, output_fn, scale)
    else:
        of_one_row = partial(_jacobian_penalty, JACOBIAN_PENALTIES[name], output_fn, scale)
    return of_one_row if output_fn in _STRAIGHT else Sharing(of_one_row)


def make_change_penalty(*, outputs: str = "logits", scale: str = "sum") -> ChangePenaltyFn:
    """Make the penalty of the change of the outputs between two points, `estimators.output_change`.

    Args:
        outputs: One of `OUTPUTS`.
        scale: `sum`, or `mean`: divided by c x d, since it stands where ||J||_{1,1} stands in Eq. 3.

    Returns:
        Function of (logits, twin_logits, inputs=..., epsilon=...) with one value an example.

    Raises:
        ValueError: An unknown name.
    """
    if outputs not in OUTPUTS or scale not in SCALES:
        raise ValueError(f"no outputs {outputs!r} with scale {scale!r}: {', '.join(OUTPUTS)}; {', '.join(SCALES)}")
    output_fn = OUTPUTS[outputs]

    def penalty_fn(logits: Logits, twin_logits: Logits, *, inputs: Inputs, epsilon: Scalar) -> PerExample:
        values = output_change(output_fn(logits), output_fn(twin_logits), epsilon=epsilon)
        return values / _num_entries(scale, logits.shape[1], inputs)

    return penalty_fn


def _jacobian_penalty(
    norm_fn: Callable[[BatchedFn, Inputs], PerExample],
    output_fn: Callable[[Logits], Outputs],
    scale: str,
    logits_fn: LogitsFn,
    inputs: Inputs,
    *,
    labels: Labels,
    key: PRNGKey | None = None,
) -> PerExample:
    """Penalise the Jacobian of output_fn(logits)."""
    del labels, key  # the Jacobian does not depend on them
    values = norm_fn(compose(output_fn, logits_fn), inputs)
    return values / _num_entries(scale, jax.eval_shape(logits_fn, inputs).shape[1], inputs)


def _estimated_penalty(
    name: str,
    num_draws: int,
    output_fn: Callable[[Logits], Outputs],
    scale: str,
    logits_fn: LogitsFn,
    inputs: Inputs,
    *,
    labels: Labels,
    key: PRNGKey | None = None,
) -> PerExample:
    """Penalise an estimate of a norm of the Jacobian of output_fn(logits)."""
    if key is None:
        raise ValueError(f"{name} draws at random: give it a key, as in loss(..., key=jax.random.fold_in(key, step))")
    norm_fn = partial(ESTIMATORS[name], key=key, num_draws=num_draws)
    return _jacobian_penalty(norm_fn, output_fn, scale, logits_fn, inputs, labels=labels)


def _loss_gradient_penalty(
    norm_fn: Callable[[Callable[[Inputs], PerExample], Inputs], PerExample],
    loss_fn: ExampleLossFn,
    scale: str,
    logits_fn: LogitsFn,
    inputs: Inputs,
    *,
    labels: Labels,
    key: PRNGKey | None = None,
) -> PerExample:
    """Penalise the gradient of the loss."""
    del key  # nothing is random
    values = norm_fn(compose(lambda logits: loss_fn(logits, labels), logits_fn), inputs)
    return values / _num_entries(scale, 1, inputs)


def _num_entries(scale: str, num_outputs: int, inputs: Inputs) -> int:
    """Return what the sum over entries is divided by."""
    return num_outputs * math.prod(inputs.shape[1:]) if scale == "mean" else 1
