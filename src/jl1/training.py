"""The training step and the loop over an epoch's batches, both compiled, with the state donated."""

from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from jl1.array_types import Inputs, Labels, Mask, Params, PRNGKey
from jl1.gradients import GradientFn
from jl1.hyperparameters import Hyperparameters, radius_at
from jl1.losses import LossTerms


class TrainState(NamedTuple):
    """What a training step changes.

    Attributes:
        step: Number of steps taken.
        params: Parameters of the network.
        opt_state: State of the optimizer.
    """

    step: Int[Array, ""]
    params: Params
    opt_state: optax.OptState


class Totals(NamedTuple):
    """Sums over the examples seen so far, and the first step whose loss was not finite (-1: none).

    Attributes:
        terms: Sums of the loss and its parts.
        num_examples: How many examples they sum over.
        bad_step: Number of the step, counted from 0 over the whole training.
    """

    terms: LossTerms
    num_examples: Float[Array, ""]
    bad_step: Int[Array, ""]


class Examples(NamedTuple):
    """A data set on the device.

    Attributes:
        inputs: All inputs, in [0, 1].
        labels: All labels.
    """

    inputs: Float[Array, " num_examples *features"]
    labels: Int[Array, " num_examples"]


def create_train_state(
    module: nn.Module, optimizer: optax.GradientTransformation, *, key: PRNGKey, inputs: Inputs
) -> TrainState:
    """Initialise parameters and optimizer.

    Args:
        module: Network whose only variables are `params`.
        optimizer: What the state is made for.
        key: Fixes the parameters.
        inputs: Some inputs of the right feature shape.

    Returns:
        The state before the first step.

    Raises:
        ValueError: The module has other variables, such as batch statistics: examples then interact, the
            per-example Jacobian is not defined, and a penalty on it would be silently wrong.
    """
    variables = dict(jax.jit(module.init)(key, inputs))
    params = variables.pop("params")
    if variables:
        raise ValueError(
            f"{type(module).__name__} has variables {', '.join(variables)} beside its params. Batch statistics "
            "make the examples of a batch interact, so that the Jacobian of one example is not defined: "
            "use GroupNorm or LayerNorm instead of BatchNorm"
        )
    return TrainState(step=jnp.zeros((), jnp.int32), params=params, opt_state=optimizer.init(params))


def train_step(
    gradient_fn: GradientFn,
    optimizer: optax.GradientTransformation,
    *,
    state: TrainState,
    inputs: Inputs,
    labels: Labels,
    mask: Mask,
    hyperparameters: Hyperparameters,
) -> tuple[TrainState, LossTerms]:
    """Take one step on the mean loss of a batch. Pure and not jitted: `make_train_step` is.

    Args:
        gradient_fn: From `gradients.make_gradient` or `closed_form.make_closed_form_gradient`.
        optimizer: What turns gradients into updates.
        state: State before the step.
        inputs: Batch in [0, 1].
        labels: True classes.
        mask: Which examples count; the others pad the batch to its fixed size.
        hyperparameters: lambda, epsilon, the key and how often there is a penalty.

    Returns:
        The state after the step, and the mean terms before it; the penalty that is left out in some steps (`every`)
        counts in the others for them too, so that total = cross_entropy + lam * penalty in all.
    """
    weight = jnp.where(state.step % hyperparameters.every == 0, hyperparameters.every, 0)
    gradients, means = gradient_fn(
        state.params,
        inputs,
        labels=labels,
        mask=mask,
        lam=hyperparameters.lam * weight,
        epsilon=radius_at(hyperparameters, state.step),
        key=jax.random.fold_in(hyperparameters.key, state.step),
    )
    updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    means = means._replace(penalty=means.penalty * weight)
    return TrainState(step=state.step + 1, params=params, opt_state=opt_state), means


def make_train_step(
    gradient_fn: GradientFn, optimizer: optax.GradientTransformation
) -> Callable[..., tuple[TrainState, LossTerms]]:
    """Make the jitted step `step(state, inputs, labels, mask, hyperparameters)`; the state is donated.

    Args:
        gradient_fn: From `gradients.make_gradient` or `closed_form.make_closed_form_gradient`.
        optimizer: What turns gradients into updates.

    Returns:
        The step. Its first argument's buffers are reused: do not touch the old state again.
    """

    def step(
        state: TrainState, inputs: Inputs, labels: Labels, mask: Mask, hyperparameters: Hyperparameters
    ) -> tuple[TrainState, LossTerms]:
        batch = {"inputs": inputs, "labels": labels, "mask": mask}
        return train_step(gradient_fn, optimizer, state=state, hyperparameters=hyperparameters, **batch)

    return jax.jit(step, donate_argnums=0)


def make_epoch(
    gradient_fn: GradientFn, optimizer: optax.GradientTransformation
) -> Callable[..., tuple[TrainState, Totals]]:
    """Make the jitted loop over the batches `start <= i < stop` of an epoch; state and totals are donated.

    The whole data set lies on the device, and a batch is a row of indices into it, so the host sends
    nothing during an epoch. `start` and `stop` are traced: one compilation runs an epoch in a single call or
    in pieces of any length, with the same result to the last bit, and pieces are how the caller
    shows progress. The loop ends early at the first loss that is not finite.

    Args:
        gradient_fn: From `gradients.make_gradient` or `closed_form.make_closed_form_gradient`.
        optimizer: What turns gradients into updates.

    Returns:
        `epoch(state, totals, examples, batches, start, stop, hyperparameters)`, where `batches` holds
        one batch of indices a row and -1 pads the last one; it returns the state and the totals.
    """

    def epoch(
        state: TrainState,
        totals: Totals,
        examples: Examples,
        batches: Int[Array, " num_batches batch_size"],
        start: Int[Array, ""],
        stop: Int[Array, ""],
        hyperparameters: Hyperparameters,
    ) -> tuple[TrainState, Totals]:
        sizes = jnp.sum(batches >= 0, axis=1)  # not a sum over the mask, which may lie on several devices

        def unfinished(carry: tuple[Int[Array, ""], TrainState, Totals]) -> Array:
            index, _, totals = carry
            return (index < stop) & (totals.bad_step < 0)

        def one_batch(
            carry: tuple[Int[Array, ""], TrainState, Totals],
        ) -> tuple[Int[Array, ""], TrainState, Totals]:
            index, state, totals = carry
            rows = batches[index]
            mask = rows >= 0
            batch = {"inputs": examples.inputs[rows], "labels": examples.labels[rows], "mask": mask}
            new_state, means = train_step(gradient_fn, optimizer, state=state, hyperparameters=hyperparameters, **batch)
            return index + 1, new_state, _add(totals, means, sizes[index], state.step)

        _, state, totals = jax.lax.while_loop(unfinished, one_batch, (start, state, totals))
        return state, totals

    return jax.jit(epoch, donate_argnums=(0, 1))


def zero_totals() -> Totals:
    """Return the totals before the first batch of an epoch.

    Returns:
        Zeros, and no bad step.
    """
    zeros = [jnp.zeros(()) for _ in range(4)]
    return Totals(LossTerms(*zeros[:3]), zeros[3], jnp.full((), -1, jnp.int32))


def _add(totals: Totals, means: LossTerms, num_examples: Int[Array, ""], step: Int[Array, ""]) -> Totals:
    """Add a batch to the totals."""
    count = num_examples.astype(totals.num_examples.dtype)
    sums = LossTerms(*(total + mean * count for total, mean in zip(totals.terms, means, strict=True)))
    bad_step = jnp.where(jnp.isfinite(means.total), totals.bad_step, step)
    return Totals(sums, totals.num_examples + count, bad_step)
