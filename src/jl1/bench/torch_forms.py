"""The exact step in PyTorch, in three forms. Loaded by `worker.py`; nothing of jl1 in here.

The network, its weights and the batch come from `jax_forms.export_problem`: kernels HWIO and images NHWC, which
become OIHW and NCHW; what a dense layer reads is flattened in NHWC order there and in NCHW order here. SAME pads as
XLA does, with the odd pixel behind. Gradients go back under jl1's names and in its layouts.
"""

import importlib
import json
import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np


class TorchProblem(NamedTuple):
    """A network in PyTorch: its layers as written by `jax_forms`, a (weight, bias) each, and a batch."""

    torch: Any
    layers: list[dict[str, Any]]
    weights: list[Any]
    inputs: Any
    labels: Any
    smoothing: float
    lam: float


def create_problem(*, path: str, smoothing: float, lam: float) -> TorchProblem:
    """Read an exported problem."""
    torch = importlib.import_module("torch")  # optional: installed for the bench only
    torch.set_num_threads(1)
    with np.load(path, allow_pickle=False) as file:
        arrays = dict(file)
    layers = json.loads(str(arrays["layers"]))
    weights = []
    for layer in layers:
        pair = to_torch(layer, arrays[f"{layer['name']}/kernel"]), arrays[f"{layer['name']}/bias"]
        weights += [torch.tensor(np.ascontiguousarray(array)) for array in pair]
    inputs, labels = arrays["inputs"], torch.tensor(arrays["labels"], dtype=torch.int64)
    images = inputs.transpose(0, 3, 1, 2) if inputs.ndim == 4 else inputs
    return TorchProblem(
        torch, layers, weights, torch.tensor(np.ascontiguousarray(images)), labels, smoothing=smoothing, lam=lam
    )


def make_form(problem: TorchProblem, name: str) -> tuple[Callable[[], Any], dict[str, Any]]:
    """Return a form as a function without arguments; there is nothing to compile."""
    return partial(FORMS[name], problem), {"torch": problem.torch.__version__}


def to_arrays(problem: TorchProblem, gradients: Any) -> dict[str, Any]:
    """Name the gradients and lay them out as jl1 does."""
    named = {}
    for layer, kernel, bias in zip(problem.layers, gradients[::2], gradients[1::2], strict=True):
        named |= {f"{layer['name']}/kernel": from_torch(layer, kernel), f"{layer['name']}/bias": bias}
    return named


def to_torch(layer: dict[str, Any], kernel: Any) -> Any:
    """Lay a kernel out as PyTorch wants it."""
    if layer["kind"] == "conv":
        return kernel.transpose(3, 2, 0, 1)
    if len(layer["reads"]) == 3:
        return kernel.reshape(*layer["reads"], -1).transpose(3, 2, 0, 1).reshape(kernel.shape[1], -1)
    return kernel.T


def from_torch(layer: dict[str, Any], kernel: Any) -> Any:
    """Undo `to_torch` on a gradient."""
    if layer["kind"] == "conv":
        return kernel.permute(2, 3, 1, 0)
    if len(layer["reads"]) == 3:
        height, width, channels = layer["reads"]
        return kernel.reshape(-1, channels, height, width).permute(2, 3, 1, 0).reshape(-1, kernel.shape[0])
    return kernel.T


def network(problem: TorchProblem, weights: Any, values: Any) -> Any:
    """Compute the logits of a batch."""
    functional = problem.torch.nn.functional
    for index, layer in enumerate(problem.layers):
        weight, bias = weights[2 * index], weights[2 * index + 1]
        if layer["kind"] == "conv":
            before, behind = _padding(layer)
            if before == behind:
                values = functional.conv2d(values, weight, bias, layer["stride"], tuple(before))
            else:
                padded = functional.pad(values, (before[1], behind[1], before[0], behind[0]))
                values = functional.conv2d(padded, weight, bias, layer["stride"])
        else:
            values = functional.linear(values.reshape(values.shape[0], -1), weight, bias)
        if index < len(problem.layers) - 1:
            values = functional.relu(values)
    return values


def _padding(layer: dict[str, Any]) -> tuple[list[int], list[int]]:
    """Return the pixels that XLA pads before and behind each axis."""
    if layer["padding"] == "VALID":
        return [0, 0], [0, 0]
    size, stride = layer["kernel_size"], layer["stride"]
    totals = [max((math.ceil(length / stride) - 1) * stride + size - length, 0) for length in layer["reads"][:2]]
    return [total // 2 for total in totals], [total - total // 2 for total in totals]


def _cross_entropy(problem: TorchProblem, logits: Any) -> Any:
    """Return the mean smoothed cross-entropy."""
    return problem.torch.nn.functional.cross_entropy(logits, problem.labels, label_smoothing=problem.smoothing)


def plain(problem: TorchProblem) -> Any:
    """Differentiate the cross-entropy alone."""
    weights = [weight.detach().requires_grad_() for weight in problem.weights]
    logits = network(problem, weights, problem.inputs)
    return problem.torch.autograd.grad(_cross_entropy(problem, logits), weights)


def loop(problem: TorchProblem) -> Any:
    """Differentiate each output with create_graph, then the loss."""
    inputs, *weights = (array.detach().requires_grad_() for array in (problem.inputs, *problem.weights))
    logits = network(problem, weights, inputs)
    penalty = 0.0
    for column in logits.sum(0):
        (row,) = problem.torch.autograd.grad(column, inputs, create_graph=True)
        penalty = penalty + row.abs().sum()
    loss = _cross_entropy(problem, logits) + problem.lam * penalty / len(inputs)
    return problem.torch.autograd.grad(loss, weights)


def batched(problem: TorchProblem) -> Any:
    """Differentiate all outputs at once with is_grads_batched and create_graph, then the loss."""
    inputs, *weights = (array.detach().requires_grad_() for array in (problem.inputs, *problem.weights))
    logits = network(problem, weights, inputs)
    units = problem.torch.eye(logits.shape[1])[:, None].expand(-1, len(inputs), -1)
    options = {"grad_outputs": units, "is_grads_batched": True, "create_graph": True}
    (rows,) = problem.torch.autograd.grad(logits, inputs, **options)
    loss = _cross_entropy(problem, logits) + problem.lam * rows.abs().sum() / len(inputs)
    return problem.torch.autograd.grad(loss, weights)


def func(problem: TorchProblem) -> Any:
    """Differentiate the mean over torch.func's vmap(jacrev)."""
    transform = problem.torch.func

    def logits_of_one(weights: Any, one: Any) -> Any:
        return network(problem, weights, one[None])[0]

    def loss(weights: Any) -> Any:
        jacobian = transform.vmap(transform.jacrev(logits_of_one, argnums=1), in_dims=(None, 0))
        rows = jacobian(weights, problem.inputs)
        penalty = rows.abs().sum() / len(rows)
        return _cross_entropy(problem, network(problem, weights, problem.inputs)) + problem.lam * penalty

    return transform.grad(loss)(problem.weights)


FORMS: dict[str, Callable[[TorchProblem], Any]] = {
    "torch plain": plain,
    "torch loop logits": loop,
    "torch batched logits": batched,
    "torch func logits": func,
}
"""Every form, by the name that the bench gives it; the last word is what is penalised."""
