"""The networks of Table 1, as sequences of layers, and what can be chosen about them."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

import flax.linen as nn
import jax
from flax.linen import initializers
from jaxtyping import Array, Float

from jl1.array_types import ApplyFn, Inputs, Logits, Params
from jl1.convolution import patch_convolution

T = TypeVar("T")

OUTPUT_LAYER = "output"
"""Name of the last, linear layer in the parameter tree of a `SequentialNet`."""


class Conv(NamedTuple):
    """conv(features, kernel_size, stride) of Table 1, with a square kernel."""

    features: int
    kernel_size: int
    stride: int
    padding: str


class Dense(NamedTuple):
    """FC(features) of Table 1."""

    features: int


class AveragePool(NamedTuple):
    """The mean over square windows that lie inside the image."""

    window: int
    stride: int


Layer = Conv | Dense | AveragePool


def average_pool(layer: AveragePool, images: Float[Array, "batch height width channels"]) -> Any:
    """Average over each window."""
    return nn.avg_pool(images, (layer.window,) * 2, (layer.stride,) * 2)


CONVOLUTIONS: Mapping[str, Callable[..., Array]] = {
    "library": jax.lax.conv_general_dilated,
    "patches": patch_convolution,
}
"""The library's convolution, which accelerators are fast at, and patches times a matrix, many times faster on a CPU."""


def convolution_form(name: str) -> str:
    """Return a name of `CONVOLUTIONS`; for `auto` the one that is faster on this backend."""
    if name == "auto":
        return "patches" if jax.default_backend() == "cpu" else "library"
    return name


class SequentialNet(nn.Module):
    """Hidden layers with an activation after each that has parameters, then one linear layer to the logits.

    Images are NHWC; everything is flattened before the first dense layer. The parameter tree has
    `layer_0`, `layer_1`, ... and `output`, each with a `kernel` and a `bias`.

    Attributes:
        hidden: The layers before the last.
        num_classes: Number of logits.
        activation: Applied after every hidden layer.
        kernel_init: Initialiser of every kernel; biases start at zero.
        convolution: How convolutions are computed, a name of `CONVOLUTIONS` or `auto`: the same numbers to rounding.
    """

    hidden: tuple[Layer, ...]
    num_classes: int = 10
    activation: Callable[..., Any] = nn.relu
    kernel_init: Callable[..., Any] = initializers.glorot_uniform()
    convolution: str = "auto"

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The hidden layers and the last."""
        return (*self.hidden, Dense(self.num_classes))

    @property
    def layer_names(self) -> tuple[str, ...]:
        """Names of the layers with parameters in the parameter tree, in order."""
        hidden = (f"layer_{i}" for i, layer in enumerate(self.hidden) if not isinstance(layer, AveragePool))
        return (*hidden, OUTPUT_LAYER)

    @nn.compact
    def __call__(self, inputs: Inputs) -> Logits:
        """Compute the logits of a batch."""
        hidden = inputs
        for index, layer in enumerate(self.hidden):
            if isinstance(layer, AveragePool):
                _check_fits(f"layer_{index}", layer.window, hidden)
                hidden = average_pool(layer, hidden)
            else:
                hidden = self.activation(self._affine(layer, f"layer_{index}", hidden))
        return self._affine(Dense(self.num_classes), OUTPUT_LAYER, hidden)

    def _affine(self, layer: Conv | Dense, name: str, inputs: Inputs) -> Float[Array, " batch *outputs"]:
        """Apply one convolution or dense layer."""
        if isinstance(layer, Dense):
            flat = inputs.reshape(inputs.shape[0], -1)
            return nn.Dense(layer.features, kernel_init=self.kernel_init, name=name)(flat)
        if layer.padding == "VALID":
            _check_fits(name, layer.kernel_size, inputs)
        window, strides = (layer.kernel_size,) * 2, (layer.stride,) * 2
        module = nn.Conv(
            layer.features,
            window,
            strides,
            padding=layer.padding,
            kernel_init=self.kernel_init,
            conv_general_dilated=_known(CONVOLUTIONS, convolution_form(self.convolution), "convolution"),
            name=name,
        )
        return module(inputs)


MODELS: Mapping[str, tuple[Layer, ...]] = {
    "A": (Conv(64, 8, 2, "SAME"), Conv(128, 6, 2, "VALID"), Conv(128, 5, 1, "VALID")),
    "B": (Conv(128, 3, 1, "SAME"), Conv(64, 3, 2, "VALID"), Dense(128)),
    "C": (Dense(512), Dense(256), Dense(128)),
}
"""Table 1 without its last layer, FC(10). The table does not give the padding: A's is the only one with
710,218 parameters, and B's is one of the two with 1,460,938 (the other: first VALID, then SAME)."""

ACTIVATIONS: Mapping[str, Callable[..., Any]] = {
    "relu": nn.relu,
    "leaky_relu": nn.leaky_relu,
    "gelu": nn.gelu,
    "silu": nn.silu,
    "softplus": nn.softplus,
    "tanh": nn.tanh,
}
"""Table 1 has ReLU. Penalties of the LOSS gradient are reported to need a smooth one (arXiv:2409.20139)."""

INITIALISERS: Mapping[str, Callable[..., Any]] = {
    "glorot_uniform": initializers.glorot_uniform(),
    "fan_in_normal": initializers.variance_scaling(1.0, "fan_in", "normal"),
}
"""Not given by the paper: Keras's default, and N(0, 1/fan_in)."""


def create_model(
    name: str,
    *,
    num_classes: int = 10,
    activation: str = "relu",
    init: str = "glorot_uniform",
    padding: tuple[str, ...] | None = None,
    convolution: str = "auto",
) -> SequentialNet:
    """Create model A, B or C of Table 1 for any number of classes, and any images that its convolutions fit.

    Args:
        name: "A", "B" or "C".
        num_classes: Number of logits, at least 2.
        activation: A name in `ACTIVATIONS`.
        init: A name in `INITIALISERS`.
        padding: Padding of each convolution in order; None for that of `MODELS`.
        convolution: A name of `CONVOLUTIONS`, or `auto`: the faster one on this backend.

    Returns:
        The module; `make_apply_fn` makes the function of params and inputs.

    Raises:
        ValueError: An unknown name, another number of paddings than convolutions, or fewer than 2 classes.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> params = create_model("C").init(jax.random.key(0), jnp.zeros((1, 28, 28, 1)))["params"]
        >>> sum(leaf.size for leaf in jax.tree.leaves(params))
        567434
    """
    hidden = _known(MODELS, name, "model")
    if num_classes < 2:
        raise ValueError(f"num_classes={num_classes}: must be at least 2")
    if padding is not None:
        hidden = _with_padding(hidden, padding, name)
    if convolution != "auto":
        _known(CONVOLUTIONS, convolution, "convolution")
    return SequentialNet(
        hidden,
        num_classes,
        _known(ACTIVATIONS, activation, "activation"),
        _known(INITIALISERS, init, "init"),
        convolution,
    )


def make_apply_fn(module: nn.Module) -> ApplyFn:
    """Turn a flax.linen module into the function of params and inputs that jl1's losses take.

    The module must have no other variables than `params`: batch statistics make examples interact,
    and the Jacobian of one example is then not defined (`training.create_train_state` refuses them).

    Args:
        module: The module.

    Returns:
        Function of (params, inputs) to logits.
    """

    def apply_fn(params: Params, inputs: Inputs) -> Logits:
        return module.apply({"params": params}, inputs)  # pyright: ignore[reportReturnType]

    return apply_fn


def _check_fits(name: str, window: int, inputs: Float[Array, " batch *features"]) -> None:
    """Refuse a window without padding that is larger than what enters it."""
    if min(inputs.shape[1:-1], default=window) < window:
        raise ValueError(
            f"{name}, {window} x {window} without padding, does not fit what enters it, "
            f"{' x '.join(map(str, inputs.shape[1:-1]))}: the network needs larger images"
        )


def _known(registry: Mapping[str, T], name: str, what: str) -> T:
    """Look a name up, or say which names there are."""
    if name not in registry:
        raise ValueError(f"unknown {what} {name!r}; known are {', '.join(registry)}")
    return registry[name]


def _with_padding(layers: tuple[Layer, ...], padding: tuple[str, ...], name: str) -> tuple[Layer, ...]:
    """Replace the padding of the convolutions, in order."""
    num_convs = sum(isinstance(layer, Conv) for layer in layers)
    if num_convs == 0:
        raise ValueError(f"padding {padding}: model {name} has no convolution; leave the padding at its default")
    if len(padding) != num_convs or not set(padding) <= {"SAME", "VALID"}:
        raise ValueError(f"padding {padding} for model {name}: needs {num_convs} of SAME or VALID")
    remaining = iter(padding)
    return tuple(layer._replace(padding=next(remaining)) if isinstance(layer, Conv) else layer for layer in layers)
