"""What differentiating a piecewise-linear network needs of its layers: three linear operations each.

An affine layer maps x to W x + b. For tangents t of the shape of its input and rows (cotangents) r of the shape of its
output, any number of them along the first axis,

* push:  t -> W t;
* pull:  r -> W^T r;
* outer: (t, r) -> the sum of t r^T over the first axis.

A convolution comes in two forms with the same numbers: the library's, which accelerators are fast at, and patches times
a matrix, which is many times faster on a CPU.
"""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jl1.models import AveragePool, Conv, Dense, Layer, average_pool
from jl1.patches import make_patches

Tangents = Float[Array, " batch *inputs"]
Rows = Float[Array, " batch *outputs"]
Kernel = Float[Array, " *kernel"]
KernelSum = Float[Array, " *layout"]
"""Of a kernel's size, in the layout that the layer's matrix product writes fastest."""


def _at_once(fn: Callable[..., Rows], rows: Rows, *per_output: Array) -> Rows:
    """Apply fn to the rows of all outputs at once."""
    num_outputs = len(per_output[0])
    return jax.vmap(fn)(rows.reshape(num_outputs, -1, *rows.shape[1:]), *per_output).reshape(rows.shape)


def _one_after_the_other(fn: Callable[..., Rows], rows: Rows, *per_output: Array) -> Rows:
    """Apply fn to the rows of one output after the other, in place.

    What gathers numbers reads them several times, and XLA would compute fn anew for each reading, at many times the
    cost. It does not reach into a loop for that.
    """
    num_outputs = len(per_output[0])
    block = (len(rows) // num_outputs, *rows.shape[1:])

    def one(index: Array, rows: Array) -> Array:
        new = fn(rows[index].reshape(block), *(values[index] for values in per_output))
        return rows.at[index].set(new.reshape(rows.shape[1:]))

    flat = rows.reshape(num_outputs, -1, rows.shape[-1])
    return jax.lax.fori_loop(0, num_outputs, one, flat).reshape(rows.shape)


class LinearOps(NamedTuple):
    """The linear operations of one layer on inputs of one shape.

    Attributes:
        push: (kernel, tangents) to W t.
        pull: (kernel, rows) to W^T r.
        outer: (tangents, rows) to the sum of t r^T, in a layout that `to_kernel` understands.
        to_kernel: That sum in the kernel's own layout: once, after all sums.
        output_shape: Shape of one output.
        num_numbers: Numbers that one tangent occupies on its way through the layer.
        at_inputs: Called as at_inputs(fn, rows, *per_output): how a function of one output's rows or tangents, and of
            what else there is for each output, is applied to those at the layer's inputs.
    """

    push: Callable[[Kernel, Tangents], Rows]
    pull: Callable[[Kernel, Rows], Tangents]
    outer: Callable[[Tangents, Rows], KernelSum]
    to_kernel: Callable[[KernelSum], Kernel]
    output_shape: tuple[int, ...]
    num_numbers: int
    at_inputs: Callable[..., Tangents] = _at_once


def make_linear_ops(layers: tuple[Layer, ...], input_shape: tuple[int, ...], *, convolution: str) -> list[LinearOps]:
    """Make the operations of the affine layers of a sequence; a pool belongs to the affine layer that follows it.

    Args:
        layers: Convolutions, average pools and dense layers in order; what enters a dense layer is flattened.
        input_shape: Shape of one input, (height, width, channels) if the first layer is a convolution or a pool.
        convolution: A name of `CONVOLUTIONS`.

    Returns:
        The operations of each convolution and dense layer.
    """
    all_ops, shape, pools = [], input_shape, []
    for layer in layers:
        if isinstance(layer, AveragePool):
            pools.append((layer, shape))
            sides = ((side - layer.window) // layer.stride + 1 for side in shape[:-1])
            shape = (*sides, shape[-1])
            continue
        ops = _dense(shape, layer) if isinstance(layer, Dense) else CONVOLUTIONS[convolution](shape, layer)
        shape = ops.output_shape
        while pools:
            ops = _after_pool(ops, *pools.pop())
        all_ops.append(ops)
    return all_ops


def _dense(input_shape: tuple[int, ...], layer: Dense) -> LinearOps:
    """A matrix product."""
    size = math.prod(input_shape)

    def push(kernel: Kernel, tangents: Tangents) -> Rows:
        return tangents.reshape(-1, size) @ kernel

    def pull(kernel: Kernel, rows: Rows) -> Tangents:
        return (rows @ kernel.T).reshape(-1, *input_shape)

    def outer(tangents: Tangents, rows: Rows) -> KernelSum:
        return rows.T @ tangents.reshape(-1, size)

    return LinearOps(push, pull, outer, jnp.transpose, (layer.features,), size + layer.features)


def _library_convolution(input_shape: tuple[int, ...], layer: Conv) -> LinearOps:
    """XLA's convolution and its two transposes."""
    kernel_shape = (layer.kernel_size, layer.kernel_size, input_shape[-1], layer.features)

    def push(kernel: Kernel, tangents: Tangents) -> Rows:
        strides, layout = (layer.stride,) * 2, ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(tangents, kernel, strides, layer.padding, dimension_numbers=layout)

    def pull(kernel: Kernel, rows: Rows) -> Tangents:
        tangents = jax.ShapeDtypeStruct((rows.shape[0], *input_shape), rows.dtype)
        return jax.linear_transpose(lambda values: push(kernel, values), tangents)(rows)[0]

    def outer(tangents: Tangents, rows: Rows) -> KernelSum:
        kernel = jax.ShapeDtypeStruct(kernel_shape, tangents.dtype)
        return jax.linear_transpose(lambda values: push(values, tangents), kernel)(rows)[0]

    shapes = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in (kernel_shape, (1, *input_shape)))
    output_shape = jax.eval_shape(push, *shapes).shape[1:]
    return LinearOps(
        push, pull, outer, lambda total: total, output_shape, math.prod(input_shape) + math.prod(output_shape)
    )


def _patch_convolution(input_shape: tuple[int, ...], layer: Conv) -> LinearOps:
    """Patches times a matrix."""
    patches = make_patches(input_shape, window=layer.kernel_size, stride=layer.stride, padding=layer.padding)
    kernel_shape = (layer.kernel_size, layer.kernel_size, input_shape[-1], layer.features)
    output_shape = (*patches.output_shape, layer.features)
    transposed = patches.num_columns >= layer.features  # a product is slow when its wide matrix is the transposed one

    def push(kernel: Kernel, tangents: Tangents) -> Rows:
        return (patches.gather(tangents) @ kernel.reshape(-1, layer.features)).reshape(-1, *output_shape)

    def pull(kernel: Kernel, rows: Rows) -> Tangents:
        return patches.fold(rows.reshape(-1, layer.features) @ kernel.reshape(-1, layer.features).T)

    def outer(tangents: Tangents, rows: Rows) -> KernelSum:
        matrix, columns = patches.gather(tangents), rows.reshape(-1, layer.features)
        return columns.T @ matrix if transposed else matrix.T @ columns

    def to_kernel(total: KernelSum) -> Kernel:
        return (total.T if transposed else total).reshape(kernel_shape)

    num_numbers = math.prod(patches.output_shape) * patches.num_columns + math.prod(output_shape)
    return LinearOps(push, pull, outer, to_kernel, output_shape, num_numbers, _one_after_the_other)


CONVOLUTIONS: Mapping[str, Callable[[tuple[int, ...], Conv], LinearOps]] = {
    "library": _library_convolution,
    "patches": _patch_convolution,
}
"""The forms of a convolution, with the same numbers to rounding."""


def _after_pool(ops: LinearOps, layer: AveragePool, input_shape: tuple[int, ...]) -> LinearOps:
    """Let a layer read the averages of what enters."""

    def pool(values: Tangents) -> Tangents:
        return average_pool(layer, values)

    def unpool(rows: Rows) -> Tangents:
        values = jax.ShapeDtypeStruct((rows.shape[0], *input_shape), rows.dtype)
        return jax.linear_transpose(pool, values)(rows)[0]

    return ops._replace(
        push=lambda kernel, tangents: ops.push(kernel, pool(tangents)),
        pull=lambda kernel, rows: unpool(ops.pull(kernel, rows)),
        outer=lambda tangents, rows: ops.outer(pool(tangents), rows),
        num_numbers=ops.num_numbers + math.prod(input_shape),
    )
