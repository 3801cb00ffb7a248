"""The exact gradient of Eq. 3 for piecewise-linear networks, on a batch and its FGSM twins.

The mathematics stands in `piecewise_linear.passes` and `piecewise_linear.heads`; here a batch is worked off in chunks
that stay in the caches.
"""

from collections.abc import Callable
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from jl1.array_types import ExampleLossFn, Inputs, Labels, Mask, Params, PerExample, PRNGKey, Scalar
from jl1.attacks.fgsm import full_step
from jl1.gradients import GradientFn
from jl1.inputs import check_floating
from jl1.labels import check_labels
from jl1.losses import LossTerms
from jl1.models import SequentialNet, convolution_form
from jl1.penalties import SCALES
from jl1.piecewise_linear.chunks import cached_examples, in_chunks
from jl1.piecewise_linear.heads import HEADS
from jl1.piecewise_linear.kinks import KINKS
from jl1.piecewise_linear.linear_ops import make_linear_ops
from jl1.piecewise_linear.passes import Network, Pass, Sums, bind, direction_of, loss_and_gradient_at, loss_slope
from jl1.precision import PRECISIONS


def has_closed_form(module: nn.Module) -> bool:
    """Say whether `make_closed_form_gradient` can differentiate a network.

    Args:
        module: Any flax.linen module.

    Returns:
        True for a `SequentialNet` with relu or leaky_relu after at least one convolution or dense layer.
    """
    return isinstance(module, SequentialNet) and module.activation in KINKS and len(module.layer_names) > 1


def fastest_examples(module: SequentialNet, inputs: Inputs | jax.ShapeDtypeStruct) -> int:
    """Return how many examples the closed form is fastest with at a time: on a CPU what stays in its caches.

    Args:
        module: Network with `has_closed_form`.
        inputs: The batch, or its shape.

    Returns:
        At least 1 and at most the size of the batch.
    """
    if jax.default_backend() != "cpu":
        return len(inputs)
    convolution = convolution_form(module.convolution)
    return cached_examples(make_linear_ops(module.layers, inputs.shape[1:], convolution=convolution), inputs)


def make_closed_form_gradient(
    module: SequentialNet,
    *,
    outputs: str = "logits",
    scale: str = "sum",
    loss_fn: ExampleLossFn = optax.softmax_cross_entropy_with_integer_labels,
    twin_loss_fn: ExampleLossFn | None = None,
    twin_weight: float = 0.5,
    layer_names: tuple[str, ...] | None = None,
    examples_per_pass: int | None = None,
    precision: str = "float32",
    lower: float = 0.0,
    upper: float = 1.0,
) -> GradientFn:
    """Make the function that computes the mean loss of Eq. 3 on a batch and its gradient, in closed form.

    For a network of your own, describe its layers by a `SequentialNet` and give the names that they have in YOUR
    parameter tree; a layer without a bias may be among them.

    Args:
        module: Network with `has_closed_form`; it fixes the layers and the form of the convolutions.
        outputs: What is penalised, a name of `penalties.OUTPUTS`.
        scale: `sum` (Eq. 3), or `mean` over the c x d entries of the Jacobian.
        loss_fn: L of Eq. 3.
        twin_loss_fn: With a loss, the FGSM twins that raise it for the true label are trained on too; None: no twins.
        twin_weight: Weight of a point and of its twin: 1/2 for their mean, 1 for their sum.
        layer_names: Where `params` holds the kernel of each convolution and dense layer, in order; None: the
            module's own names.
        examples_per_pass: The batch is worked off in chunks of so many examples, each with all its rows: the bound on
            memory; None: what suits the caches of a CPU, and the whole batch elsewhere.
        precision: Of all products, a name of `precision.PRECISIONS`.
        lower: Lowest value an input may have: the twins are clipped to it.
        upper: Highest value an input may have.

    Returns:
        `gradient_fn(params, inputs, labels=..., mask=..., lam=..., epsilon=..., key=...)`, which returns the gradient
        and the mean terms. Not jitted; lam and epsilon may be traced; the key is not used.

    Raises:
        ValueError: The network has no closed form, a name is unknown, or a layer's name occurs twice.

    Example:
        >>> from jl1.models import Dense
        >>> class TwoLayers(nn.Module):
        ...     @nn.compact
        ...     def __call__(self, inputs):
        ...         hidden = nn.relu(nn.Dense(5)(inputs))
        ...         return nn.Dense(3)(hidden)
        >>> inputs, labels = jnp.full((4, 2), 0.5), jnp.array([0, 1, 2, 0])
        >>> params = TwoLayers().init(jax.random.key(0), inputs)["params"]
        >>> gradient_fn = make_closed_form_gradient(
        ...     SequentialNet((Dense(5),), num_classes=3), layer_names=("Dense_0", "Dense_1"))
        >>> gradient, terms = gradient_fn(params, inputs, labels=labels, mask=jnp.ones(4, bool), lam=0.1, epsilon=0.0)
        >>> jax.tree.map(jnp.shape, gradient) == jax.tree.map(jnp.shape, params)
        True
    """
    _check_choices(module, outputs, scale, precision, layer_names)
    convolution, names = convolution_form(module.convolution), layer_names or module.layer_names
    kink, twins = KINKS[module.activation], (twin_loss_fn, twin_weight)
    loss_fns = (loss_fn,) if twin_loss_fn is None else (loss_fn, twin_loss_fn)
    differences = outputs != "logits" and all(_ignores_shifts(fn, module.num_classes) for fn in loss_fns)

    def gradient_fn(
        params: Params,
        inputs: Inputs,
        *,
        labels: Labels,
        mask: Mask,
        lam: Scalar,
        epsilon: Scalar,
        key: PRNGKey | None = None,
    ) -> tuple[Params, LossTerms]:
        del key  # nothing is random
        check_floating(inputs)
        check_labels(labels, inputs, what="inputs")
        net = bind(module.layers, names, params, inputs, convolution=convolution, precision=precision)
        num_entries = module.num_classes * inputs[0].size if scale == "mean" else 1
        weights = mask / jnp.maximum(jnp.sum(mask), 1).astype(inputs.dtype)
        options = {"head": HEADS[outputs], "loss_fn": loss_fn, "lam": lam / num_entries, "differences": differences}
        at_points = partial(loss_and_gradient_at, net, kink=kink, **options)
        attack = partial(full_step, epsilon=epsilon, lower=lower, upper=upper)
        at_chunk = partial(_at_points_and_twins, net, at_points, *twins, inputs.shape[1:], attack)

        size = min(examples_per_pass or fastest_examples(module, inputs), len(inputs))
        chunks = in_chunks(size, (inputs.reshape(len(inputs), -1), labels, weights))
        ((by_kernels, by_biases), losses, penalties) = _sum_over(at_chunk, chunks)
        kernels = [op.to_kernel(by_kernel) for op, by_kernel in zip(net.ops, by_kernels, strict=True)]
        penalties = penalties / num_entries
        gradient = _as_params(params, names, kernels, by_biases)
        return gradient, LossTerms(losses + lam * penalties, losses, penalties)

    return gradient_fn


def _check_choices(
    module: nn.Module, outputs: str, scale: str, precision: str, layer_names: tuple[str, ...] | None
) -> None:
    """Refuse what has no closed form."""
    if not has_closed_form(module):
        raise ValueError(
            "the closed form needs a SequentialNet with hidden layers and relu or leaky_relu; differentiate other "
            "networks with jl1.make_gradient"
        )
    if outputs not in HEADS or scale not in SCALES or precision not in PRECISIONS:
        raise ValueError(f"no closed form for outputs={outputs!r}, scale={scale!r}, precision={precision!r}")
    if layer_names and len(set(layer_names)) < len(layer_names):
        raise ValueError(
            f"layer_names={layer_names}: a layer that is used twice has no closed form here; differentiate such "
            "networks with jl1.make_gradient"
        )


def _ignores_shifts(loss_fn: ExampleLossFn, num_classes: int) -> bool:
    """Say whether a loss stays the same when all logits move by the same amount, as cross-entropies do.

    Looked at on logits of all sizes, since a clip or a penalty of large logits shows at these alone.
    """
    with jax.ensure_compile_time_eval():
        sizes = jnp.repeat(10.0 ** jnp.arange(-1, 5), 10)
        logits = sizes[:, None] * jnp.sin(jnp.arange(1.0 * len(sizes) * num_classes)).reshape(-1, num_classes)
        slope = loss_slope(loss_fn, logits, jnp.arange(len(sizes)) % num_classes)
        # against the largest slope: where a softmax is saturated, rounding is all that is left of one
        return bool(jnp.max(jnp.abs(jnp.sum(slope, axis=1))) <= 1e-5 * jnp.max(jnp.sum(jnp.abs(slope), axis=1)))


def _at_points_and_twins(
    net: Network,
    at_points: Callable[..., tuple[Sums, Pass]],
    twin_loss_fn: ExampleLossFn | None,
    twin_weight: float,
    input_shape: tuple[int, ...],
    attack: Callable[[Inputs, Inputs], Inputs],
    chunk: tuple[Inputs, Labels, PerExample],
) -> Sums:
    """Return the gradient, loss and penalty of a chunk, and of its twins: their direction comes with the rows."""
    flat, labels, weights = chunk
    inputs = flat.reshape(-1, *input_shape)
    if twin_loss_fn is None:
        return at_points(inputs, labels, weights)[0]
    sums, there = at_points(inputs, labels, twin_weight * weights)
    ascent = direction_of(net, loss_slope(twin_loss_fn, there.logits, labels), there)
    twins = attack(inputs, ascent.reshape(inputs.shape))
    at_twins, _ = at_points(twins, labels, twin_weight * weights)
    return jax.tree.map(jnp.add, sums, at_twins)


def _as_params(params: Params, names: tuple[str, ...], kernels: list[Array], biases: list[Array]) -> Params:
    """Put gradients into the tree of the parameters, of which some have no bias, and into their types."""
    whole = {name: {"kernel": one, "bias": two} for name, one, two in zip(names, kernels, biases, strict=True)}
    summed = {name: {leaf: whole[name][leaf] for leaf in params[name]} for name in params}
    return jax.tree.map(lambda total, value: total.astype(value.dtype), summed, dict(params))


def _sum_over(fn: Callable[..., Sums], chunks: tuple[Array, Array, Array]) -> Sums:
    """Sum a function of a chunk over all chunks, one after the other."""
    shapes = jax.eval_shape(fn, jax.tree.map(lambda array: array[0], chunks))
    zero = jnp.zeros_like(chunks[0][0, 0, 0])  # of the data: inside `shard_map` the sums vary over devices as it does
    zeros = jax.tree.map(lambda leaf: jnp.broadcast_to(zero, leaf.shape).astype(leaf.dtype), shapes)
    return jax.lax.scan(lambda sums, chunk: (jax.tree.map(jnp.add, sums, fn(chunk)), None), zeros, chunks)[0]
