"""The network and the batch that every process of the bench steps on, and the operations of an exact step."""

import json
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jl1.array_types import Inputs, Labels, Params
from jl1.models import Conv, Dense, SequentialNet, create_model


class StepProblem(NamedTuple):
    """A network and a batch of random numbers.

    Attributes:
        module: Model A, B or C.
        params: Its first parameters.
        inputs: Uniform in [0, 1].
        labels: Every class in turn.
        smoothing: Of the labels, in the loss.
        lam: lambda of Eq. 3.
        num_steps: Steps of the loops.
        closed_form: Options of `make_closed_form_gradient`.
    """

    module: SequentialNet
    params: Params
    inputs: Inputs
    labels: Labels
    smoothing: float
    lam: float
    num_steps: int
    closed_form: Mapping[str, Any]


class LayerShape(NamedTuple):
    """What one layer reads and writes for one example, and the multiply-adds in between."""

    reads: tuple[int, ...]
    writes: tuple[int, ...]
    products: int


def create_problem(
    *,
    model: str,
    batch_size: int = 128,
    num_classes: int = 10,
    side: int = 28,
    convolution: str = "auto",
    smoothing: float = 0.1,
    lam: float = 0.01,
    num_steps: int = 1,
    closed_form: Mapping[str, Any] | None = None,
    matmul_precision: str | None = None,
) -> StepProblem:
    """Create a model and a batch; the same arguments give the same numbers in every process."""
    jax.config.update("jax_default_matmul_precision", matmul_precision)
    module = create_model(model, num_classes=num_classes, convolution=convolution)
    inputs = jax.random.uniform(jax.random.key(1), (batch_size, side, side, 1))
    params = jax.jit(module.init)(jax.random.key(0), inputs)["params"]
    labels = jnp.arange(batch_size) % num_classes
    return StepProblem(module, params, inputs, labels, smoothing, lam, num_steps, closed_form or {})


def export_problem(problem: StepProblem, path: str) -> None:
    """Write layers, weights and batch for `torch_forms`."""
    module, layers, arrays = problem.module, [], {}
    shapes = layer_shapes(module, problem.inputs.shape[1:])
    for name, layer, shape in zip(module.layer_names, _all_layers(module), shapes, strict=True):
        kind = "conv" if isinstance(layer, Conv) else "dense"
        layers.append({"name": name, "kind": kind, "reads": shape.reads, **layer._asdict()})
        arrays |= {f"{name}/{part}": np.asarray(problem.params[name][part]) for part in ("kernel", "bias")}
    batch = {"inputs": np.asarray(problem.inputs), "labels": np.asarray(problem.labels)}
    np.savez(path, layers=np.array(json.dumps(layers)), **batch, **arrays)


def layer_shapes(module: SequentialNet, input_shape: tuple[int, ...]) -> list[LayerShape]:
    """Return the shapes of every layer."""
    shapes, reads = [], input_shape
    for layer in _all_layers(module):
        positions, fan_in = (), math.prod(reads)
        if isinstance(layer, Conv):
            positions, fan_in = tuple(_positions(size, layer) for size in reads[:2]), reads[-1] * layer.kernel_size**2
        writes = (*positions, layer.features)
        shapes.append(LayerShape(reads, writes, math.prod(writes) * fan_in))
        reads = writes
    return shapes


def exact_operations(module: SequentialNet, input_shape: tuple[int, ...]) -> int:
    """Count 2 (F + 3c (F - F_last)): the operations of the exact step on one example.

    F are the multiply-adds of a forward pass, F_last those of its last layer. Each of the c outputs has a row pulled
    down, a tangent pushed up and an outer product taken, all but free at the last layer.
    """
    products = [shape.products for shape in layer_shapes(module, input_shape)]
    return 2 * (sum(products) + 3 * module.num_classes * sum(products[:-1]))


def _all_layers(module: SequentialNet) -> tuple[Conv | Dense, ...]:
    """Return the hidden layers and the last."""
    assert all(isinstance(layer, Conv | Dense) for layer in module.layers), "Table 1 has no other layers"
    return tuple(layer for layer in module.layers if isinstance(layer, Conv | Dense))


def _positions(size: int, layer: Conv) -> int:
    """Return how many positions a convolution has along an axis."""
    if layer.padding == "SAME":
        return math.ceil(size / layer.stride)
    return (size - layer.kernel_size) // layer.stride + 1
