"""Load what `jl1 export` wrote into PyTorch, and compare with the logits that jl1 wrote beside it.

    python examples/load_in_torch.py FOLDER

Needs torch and safetensors, nothing of jl1: take this file with you. The network is an ordinary `torch.nn.Sequential`
of images in PyTorch's order, (batch, channels, height, width) in [0, 1]. Three things differ between the frameworks:

* kernels of convolutions are (height, width, in, out) there and (out, in, height, width) here;
* a convolution may pad one more zero behind than before, which `Conv2d` cannot: model.json has the numbers;
* what a dense layer reads is flattened in the order height, width, channels there, and channels, height, width here.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "gelu": lambda: nn.GELU(approximate="tanh"),
    "silu": nn.SiLU,
    "softplus": nn.Softplus,
    "tanh": nn.Tanh,
}


def load(folder: str | Path) -> nn.Sequential:
    """Load a network."""
    tensors = load_file(Path(folder) / "model.safetensors")
    layout = json.loads((Path(folder) / "model.json").read_text())
    modules: list[nn.Module] = []
    for layer in layout["layers"]:
        modules += _LOADERS[layer["kind"]](layer, tensors)
        if layer.get("activation"):
            modules.append(ACTIVATIONS[layer["activation"]]())
    return nn.Sequential(*modules).eval().requires_grad_(False)


def load_points(folder: str | Path) -> tuple[Tensor, Tensor, Tensor]:
    """Load test images, their labels, and jl1's logits there."""
    points = load_file(Path(folder) / "points.safetensors")
    return points["inputs"].permute(0, 3, 1, 2).contiguous(), points["labels"].long(), points["logits"]


def _conv(layer: dict[str, Any], tensors: dict[str, Tensor]) -> list[nn.Module]:
    """Pad with zeros, then convolve without padding."""
    weight = tensors[layer["kernel"]].permute(3, 2, 0, 1)
    features, channels, height, width = weight.shape
    (top, bottom), (left, right) = layer["padding"]
    conv = nn.Conv2d(channels, features, (height, width), layer["stride"])
    return [nn.ZeroPad2d((left, right, top, bottom)), _with_parameters(conv, weight, tensors[layer["bias"]])]


def _dense(layer: dict[str, Any], tensors: dict[str, Tensor]) -> list[nn.Module]:
    """Flatten in PyTorch's order, and sort the rows of the kernel to match."""
    kernel = tensors[layer["kernel"]]
    inputs = kernel.unflatten(0, layer["input_shape"])
    weight = (inputs.permute(3, 2, 0, 1) if inputs.ndim == 4 else inputs.T).flatten(1)
    return [nn.Flatten(), _with_parameters(nn.Linear(kernel.shape[0], kernel.shape[1]), weight, tensors[layer["bias"]])]


def _average_pool(layer: dict[str, Any], tensors: dict[str, Tensor]) -> list[nn.Module]:
    """Average over the windows that lie inside the image."""
    del tensors  # it has none
    return [nn.AvgPool2d(layer["window"], layer["stride"])]


def _with_parameters(module: nn.Module, weight: Tensor, bias: Tensor) -> nn.Module:
    """Replace the parameters of a module."""
    module.load_state_dict({"weight": weight.contiguous(), "bias": bias})
    return module


_LOADERS = {"conv": _conv, "dense": _dense, "average_pool": _average_pool}


def main(folder: str) -> None:
    """Compare with jl1."""
    model, (images, labels, expected) = load(folder), load_points(folder)
    with torch.no_grad():
        logits = torch.cat([model(batch) for batch in images.split(100)])
    difference = (logits - expected).abs().max().item()
    accuracy = (logits.argmax(1) == labels).float().mean().item()
    print(f"{len(images)} points: largest difference of a logit from jl1 {difference:.1e}, accuracy {accuracy:.2%}")


if __name__ == "__main__":
    main(sys.argv[1])
