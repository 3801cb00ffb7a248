"""From a config to everything it decides before the first step: data, network, loss, optimizer, state."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from jl1.array_types import ApplyFn, PRNGKey
from jl1.config import Config
from jl1.data import Dataset, load_dataset
from jl1.errors import UserError
from jl1.gradients import GradientFn, make_gradient
from jl1.hyperparameters import Hyperparameters
from jl1.lazy import make_lazy_gradient
from jl1.models import SequentialNet, create_model, make_apply_fn
from jl1.precision import traced_with
from jl1.runs.gradient_plans import GradientPlan, closed_form_gradient, plan_gradient
from jl1.runs.objective import make_terms_fn
from jl1.training import TrainState, create_train_state


class Network(NamedTuple):
    """A network that no loss has been chosen for.

    Attributes:
        module: The layers.
        apply_fn: The network.
        optimizer: Adam with the config's constants.
        state: The state before the first step.
    """

    module: SequentialNet
    apply_fn: ApplyFn
    optimizer: optax.GradientTransformation
    state: TrainState


class Problem(NamedTuple):
    """Everything that a config decides before training.

    Attributes:
        apply_fn: The network.
        optimizer: Adam with the config's constants.
        gradient_fn: The gradient of the mean loss of a batch.
        plan: How it is computed where there is a penalty: its form, and how much at a time.
        hyperparameters: lambda, epsilon and its warm-up, the key of attacks and estimators, the penalised steps.
        state: The state before the first step.
    """

    apply_fn: ApplyFn
    optimizer: optax.GradientTransformation
    gradient_fn: GradientFn
    plan: GradientPlan
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
        tiles=config.data.tiles,
    )


def create_network(config: Config, data: Dataset) -> Network:
    """Build the network and its first state from a valid config."""
    module = _create_module(config, data.num_classes)
    optimizer = optax.adam(**config.optimizer)
    state = create_train_state(
        module, optimizer, key=_key(config, "init", 0), inputs=jnp.asarray(data.train.inputs[:1])
    )
    return Network(module, make_apply_fn(module), optimizer, state)


def create_problem(config: Config, data: Dataset) -> Problem:
    """Build the network, its loss and its first state from a valid config."""
    network = create_network(config, data)
    steps_an_epoch = -(-len(data.train.labels) // config.training.batch_size)
    hyperparameters = Hyperparameters(
        jnp.float32(config.penalty.lam),
        jnp.float32(config.adversarial.epsilon),
        attack_key(config, 1),
        jnp.int32(config.penalty.every),
        jnp.int32(config.adversarial.warmup_epochs * steps_an_epoch),
    )
    input_shape = data.train.inputs.shape[1:]
    plan = plan_gradient(config, network.module, params=network.state.params, input_shape=input_shape)
    gradient_fn = traced_with(config.training.precision, _gradient(config, network, plan))
    return Problem(network.apply_fn, network.optimizer, gradient_fn, plan, hyperparameters, network.state)


def _gradient(config: Config, network: Network, plan: GradientPlan) -> GradientFn:
    """Make the gradient of the mean loss of a batch, as it is planned."""
    plain_fn = make_gradient(network.apply_fn, terms_fn=make_terms_fn(config, penalised=False))
    if plan.form == "plain":
        return plain_fn
    if plan.form == "closed_form" and plan.chunks:
        gradient_fn = closed_form_gradient(config, network.module, plan.chunks.examples)
    else:
        terms_fn = make_terms_fn(config, penalised=True, chunks=plan.chunks)
        gradient_fn = make_gradient(network.apply_fn, terms_fn=terms_fn)
    return make_lazy_gradient(gradient_fn, plain_fn) if config.penalty.every > 1 else gradient_fn


def _create_module(config: Config, num_classes: int) -> SequentialNet:
    """Create the network."""
    padding = None if config.model.padding == "table" else tuple(config.model.padding.split(","))
    try:
        return create_model(
            config.model.name,
            num_classes=num_classes,
            activation=config.model.activation,
            init=config.model.init,
            convolution=config.model.convolution,
            padding=padding,
        )
    except ValueError as error:
        raise UserError(f"config.model: {error}") from error


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
