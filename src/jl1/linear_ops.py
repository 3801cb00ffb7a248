"""What differentiating a piecewise-linear network needs of its layers: three linear operations each.

An affine layer maps x to W x + b. For a batch folded into the first axis,

* push:  t -> W t, for tangents t of the shape of the layer's input;
* pull:  r -> W^T r, for rows (cotangents) r of the shape of its output;
* outer: (t, r) -> sum over the batch of t r^T, of the shape of the kernel.

A convolution comes in two forms with the same numbers: the library's, which accelerators are fast at, and gather +
matrix product, which is many times faster on a CPU (XLA's convolutions there run at a tenth of its matrix products).
"""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jl1.models import Conv, Dense, Layer

Tangents = Float[Array, " batch *inputs"]
Rows = Float[Array, " batch *outputs"]
Kernel = Float[Array, " *kernel"]


class LinearOps(NamedTuple):
    """The linear operations of one layer on inputs of one shape.

    Attributes:
        push: (kernel, tangents) to W t.
        pull: (kernel, rows) to W^T r.
        outer: (tangents, rows) to the sum of t r^T over the batch.
        output_shape: Shape of one output.
    """

    push: Callable[[Kernel, Tangents], Rows]
    pull: Callable[[Kernel, Rows], Tangents]
    outer: Callable[[Tangents, Rows], Kernel]
    output_shape: tuple[int, ...]


def make_linear_ops(layers: tuple[Layer, ...], input_shape: tuple[int, ...], *, convolution: str) -> list[LinearOps]:
    """Make the operations of a sequence of layers.

    Args:
        layers: Convolutions and dense layers in order; what enters a dense layer is flattened.
        input_shape: Shape of one input, (height, width, channels) if the first layer is a convolution.
        convolution: A name of `CONVOLUTIONS`.

    Returns:
        The operations of each layer.
    """
    all_ops, shape = [], input_shape
    for layer in layers:
        ops = _dense(shape, layer) if isinstance(layer, Dense) else CONVOLUTIONS[convolution](shape, layer)
        all_ops.append(ops)
        shape = ops.output_shape
    return all_ops


def _dense(input_shape: tuple[int, ...], layer: Dense) -> LinearOps:
    """A matrix product."""
    size = math.prod(input_shape)

    def push(kernel: Kernel, tangents: Tangents) -> Rows:
        return tangents.reshape(-1, size) @ kernel

    def pull(kernel: Kernel, rows: Rows) -> Tangents:
        return (rows @ kernel.T).reshape(-1, *input_shape)

    def outer(tangents: Tangents, rows: Rows) -> Kernel:
        return tangents.reshape(-1, size).T @ rows

    return LinearOps(push, pull, outer, (layer.features,))


def _library_convolution(input_shape: tuple[int, ...], layer: Conv) -> LinearOps:
    """XLA's convolution and its two transposes."""
    kernel_shape = (layer.kernel_size, layer.kernel_size, input_shape[-1], layer.features)

    def push(kernel: Kernel, tangents: Tangents) -> Rows:
        strides, layout = (layer.stride,) * 2, ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(tangents, kernel, strides, layer.padding, dimension_numbers=layout)

    def pull(kernel: Kernel, rows: Rows) -> Tangents:
        tangents = jax.ShapeDtypeStruct((rows.shape[0], *input_shape), rows.dtype)
        return jax.linear_transpose(lambda values: push(kernel, values), tangents)(rows)[0]

    def outer(tangents: Tangents, rows: Rows) -> Kernel:
        kernel = jax.ShapeDtypeStruct(kernel_shape, tangents.dtype)
        return jax.linear_transpose(lambda values: push(values, tangents), kernel)(rows)[0]

    shapes = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in (kernel_shape, (1, *input_shape)))
    output = jax.eval_shape(push, *shapes)
    return LinearOps(push, pull, outer, output.shape[1:])


def _gathered_convolution(input_shape: tuple[int, ...], layer: Conv) -> LinearOps:
    """Gather the patches by one `take`, then a matrix product; backwards a sum of `take`s, never a scatter."""
    height, width, channels = input_shape
    num_pixels, taps = height * width, layer.kernel_size**2
    (out_height, out_width), reads = _patch_reads(height, width, layer)
    num_outputs = out_height * out_width
    readers = _readers(reads, num_pixels)

    def patches(values: Tangents) -> Float[Array, " rows taps"]:
        pixels = values.reshape(-1, num_pixels, channels)
        if reads.max() == num_pixels:  # a zero behind the last pixel is what padding reads
            pixels = jnp.pad(pixels, ((0, 0), (0, 1), (0, 0)))
        return jnp.take(pixels, reads, axis=1, mode="clip").reshape(-1, taps * channels)

    def fold(values: Float[Array, " rows taps"]) -> Tangents:
        entries = values.reshape(-1, num_outputs * taps, channels)
        total = jnp.zeros((), values.dtype)
        for reader in readers:
            part = jnp.take(entries, np.maximum(reader, 0), axis=1, mode="clip")
            total = total + (part if (reader >= 0).all() else part * (reader >= 0)[None, :, None].astype(values.dtype))
        return total.reshape(-1, *input_shape)

    def push(kernel: Kernel, tangents: Tangents) -> Rows:
        product = patches(tangents) @ kernel.reshape(-1, layer.features)
        return product.reshape(-1, out_height, out_width, layer.features)

    def pull(kernel: Kernel, rows: Rows) -> Tangents:
        return fold(rows.reshape(-1, layer.features) @ kernel.reshape(-1, layer.features).T)

    def outer(tangents: Tangents, rows: Rows) -> Kernel:
        product = patches(tangents).T @ rows.reshape(-1, layer.features)
        return product.reshape(layer.kernel_size, layer.kernel_size, channels, layer.features)

    return LinearOps(push, pull, outer, (out_height, out_width, layer.features))


CONVOLUTIONS: Mapping[str, Callable[[tuple[int, ...], Conv], LinearOps]] = {
    "library": _library_convolution,
    "gather": _gathered_convolution,
}
"""The forms of a convolution, with the same numbers to rounding."""


def _patch_reads(height: int, width: int, layer: Conv) -> tuple[tuple[int, int], np.ndarray]:
    """Return the output's size, and for each output and tap the pixel it reads (one past the last: padding)."""
    (out_height, rows), (out_width, columns) = (_axis_reads(size, layer) for size in (height, width))
    rows, columns = rows[:, None, :, None], columns[None, :, None, :]
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    return (out_height, out_width), np.where(inside, rows * width + columns, height * width).reshape(-1)


def _axis_reads(size: int, layer: Conv) -> tuple[int, np.ndarray]:
    """Return the number of outputs along one axis, and for each output and tap the coordinate it reads."""
    num_outputs, before = (size - layer.kernel_size) // layer.stride + 1, 0
    if layer.padding == "SAME":
        num_outputs = -(-size // layer.stride)
        before = max((num_outputs - 1) * layer.stride + layer.kernel_size - size, 0) // 2
    return num_outputs, np.arange(num_outputs)[:, None] * layer.stride - before + np.arange(layer.kernel_size)


def _readers(reads: np.ndarray, num_pixels: int) -> np.ndarray:
    """Invert `reads`: for each pixel the entries that read it, as rows of one entry a pixel (-1: no more)."""
    entries = np.argsort(reads, kind="stable")
    entries = entries[reads[entries] < num_pixels]
    counts = np.bincount(reads[entries], minlength=num_pixels)
    first = np.concatenate([[0], np.cumsum(counts)[:-1]])
    readers = np.full((counts.max(), num_pixels), -1)
    readers[np.arange(len(entries)) - first[reads[entries]], reads[entries]] = entries
    return readers
