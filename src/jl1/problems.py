"""From a config to everything it decides before the first step: data, network, loss, optimizer, state."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from jl1.array_types import ApplyFn, AttackFn, ExampleLossFn, Inputs, Labels, LogitsFn, PRNGKey, Scalar
from jl1.attacks.fgsm import fgsm, fgsm_random_start, predicted_labels
from jl1.config import Config
from jl1.data import Dataset, load_dataset
from jl1.errors import UserError
from jl1.losses import (
    LossTerms,
    cross_entropy,
    cross_entropy_off_label,
    defended_loss,
    penalised_loss,
    summed_defended_loss,
)
from jl1.models import create_model, make_apply_fn
from jl1.penalties import make_penalty
from jl1.training import Hyperparameters, TermsFn, TrainState, create_train_state


class Problem(NamedTuple):
    """Everything that a config decides before training.

    Attributes:
        apply_fn: The network.
        optimizer: Adam with the config's constants.
        terms_fn: The loss of every example.
        hyperparameters: lambda, epsilon and the key of the attacks in training.
        state: The state before the first step.
    """

    apply_fn: ApplyFn
    optimizer: optax.GradientTransformation
    terms_fn: TermsFn
    hyperparameters: Hyperparameters
    state: TrainState


def load_data(config: Config, data_dir: str | None = None) -> Dataset:
    """Load the data of a config, from another folder if one is given."""
    return load_dataset(
        config.data.name,
        data_dir=data_dir or config.data.dir,
        validation_size=config.data.validation_size,
        split=config.data.split,
        split_seed=config.data.split_seed,
    )


def create_problem(config: Config, data: Dataset) -> Problem:
    """Build the network, its loss and its first state from a valid config."""
    padding = None if config.model.padding == "table" else tuple(config.model.padding.split(","))
    try:
        module = create_model(
            config.model.name,
            num_classes=data.num_classes,
            activation=config.model.activation,
            init=config.model.init,
            padding=padding,
        )
    except ValueError as error:
        raise UserError(f"config.model: {error}") from error
    optimizer = optax.adam(**config.optimizer)
    state = create_train_state(
        module, optimizer, key=_key(config, "init", 0), inputs=jnp.asarray(data.train.inputs[:1])
    )
    hyperparameters = Hyperparameters(
        jnp.float32(config.penalty.lam), jnp.float32(config.adversarial.epsilon), attack_key(config, 1)
    )
    return Problem(make_apply_fn(module), optimizer, make_terms_fn(config), hyperparameters, state)


def make_terms_fn(config: Config) -> TermsFn:
    """Choose the terms of the loss, once: with lambda 0 no Jacobian, with epsilon 0 no twins are compiled."""
    smooth = {"uniform": cross_entropy, "off_label": cross_entropy_off_label}[config.training.smoothing_form]
    loss_fn = partial(smooth, smoothing=config.training.smoothing)
    penalty_fn = None
    if config.penalty.name != "none" and config.penalty.lam > 0:
        penalty_fn = make_penalty(
            config.penalty.name,
            outputs=config.penalty.outputs,
            scale=config.penalty.scale,
            outputs_per_pass=config.penalty.outputs_per_pass,
            loss_fn=loss_fn,
        )

    def on_the_points(
        logits_fn: LogitsFn, inputs: Inputs, *, labels: Labels, lam: Scalar, epsilon: Scalar, key: PRNGKey
    ) -> LossTerms:
        del epsilon, key  # no attack
        return penalised_loss(logits_fn, inputs, labels=labels, lam=lam, penalty_fn=penalty_fn, loss_fn=loss_fn)

    if config.adversarial.epsilon == 0:
        return on_the_points
    coupled = {"mean": defended_loss, "sum": summed_defended_loss}[config.adversarial.coupling]
    attack_fn = _twin_attack(config, partial(smooth, smoothing=config.adversarial.smoothing))

    def on_the_points_and_twins(
        logits_fn: LogitsFn, inputs: Inputs, *, labels: Labels, lam: Scalar, epsilon: Scalar, key: PRNGKey
    ) -> LossTerms:
        return coupled(
            logits_fn,
            inputs,
            labels=labels,
            lam=lam,
            epsilon=epsilon,
            penalty_fn=penalty_fn,
            loss_fn=loss_fn,
            attack_fn=partial(attack_fn, key=key),
        )

    return on_the_points_and_twins


def _twin_attack(config: Config, loss_fn: ExampleLossFn) -> AttackFn:
    """Choose the attack that makes the twins."""

    def attack_fn(logits_fn: LogitsFn, inputs: Inputs, *, labels: Labels, epsilon: Scalar, key: PRNGKey) -> Inputs:
        attacked = predicted_labels(logits_fn, inputs) if config.adversarial.labels == "predicted" else labels
        options = {"labels": attacked, "epsilon": epsilon, "loss_fn": loss_fn}
        if config.adversarial.random_start:
            return fgsm_random_start(logits_fn, inputs, key=key, **options)
        return fgsm(logits_fn, inputs, **options)

    return attack_fn


def attack_key(config: Config, stream: int) -> PRNGKey:
    """Return the root of one stream of the attacks' randomness: 1 in training, 2 in the final figures."""
    return _key(config, "attack", stream)


def order_seed(config: Config) -> int:
    """Return the seed of the order of the examples."""
    return config.seed if config.seeds.order is None else config.seeds.order


def _key(config: Config, name: str, stream: int) -> PRNGKey:
    """Return the key of one use of randomness: its own seed or the run's, and its own stream."""
    seed = config.seed if config.seeds[name] is None else config.seeds[name]
    return jax.random.fold_in(jax.random.key(seed), stream)
