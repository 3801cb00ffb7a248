"""A network written down as plain JSON types, exact enough to be rebuilt in another framework."""

from typing import Any

import jax

from jl1.models import OUTPUT_LAYER, AveragePool, Conv, Dense, Layer, SequentialNet


def describe_layers(module: SequentialNet, input_shape: tuple[int, ...], *, activation: str) -> list[dict[str, Any]]:
    """Describe every layer of a network on inputs of one shape.

    Args:
        module: The network.
        input_shape: Shape of one input.
        activation: Name of the activation after each hidden layer that has parameters.

    Returns:
        One dict a layer in order, as docs/other_tools.md lists them. `padding` is the number of zeros before and
        behind each axis, so that no rule of a framework is needed to find them.

    Example:
        >>> (dense,) = describe_layers(SequentialNet((), 3), (4, 4, 2), activation="relu")
        >>> dense["input_shape"], dense["output_shape"], dense["kernel_layout"], dense["activation"]
        ([4, 4, 2], [3], 'IO', None)
    """
    described, shape = [], list(input_shape)
    for index, layer in enumerate(module.layers):
        is_last = index == len(module.hidden)
        facts = _facts(layer, shape)
        parameters: dict[str, Any] = {}
        if not isinstance(layer, AveragePool):
            name = OUTPUT_LAYER if is_last else f"layer_{index}"
            parameters = {"kernel": f"{name}/kernel", "bias": f"{name}/bias"}
            parameters["activation"] = None if is_last else activation
        described.append({"kind": facts["kind"], "input_shape": shape, **facts, **parameters})
        shape = facts["output_shape"]
    return described


def _facts(layer: Layer, input_shape: list[int]) -> dict[str, Any]:
    """Return the kind of a layer, what it computes with and the shape of its output."""
    match layer:
        case Dense(features):
            return {"kind": "dense", "kernel_layout": "IO", "output_shape": [features]}
        case AveragePool(window, stride):
            sides = [(side - window) // stride + 1 for side in input_shape[:2]]
            return {
                "kind": "average_pool",
                "window": window,
                "stride": stride,
                "output_shape": [*sides, input_shape[2]],
            }
        case Conv(features, size, stride, padding):
            pads = jax.lax.padtype_to_pads(input_shape[:2], (size, size), (stride, stride), padding)
            padded = [before + side + behind for side, (before, behind) in zip(input_shape[:2], pads, strict=True)]
            return {
                "kind": "conv",
                "kernel_layout": "HWIO",
                "stride": stride,
                "padding": [[int(before), int(behind)] for before, behind in pads],
                "output_shape": [*((side - size) // stride + 1 for side in padded), features],
            }
