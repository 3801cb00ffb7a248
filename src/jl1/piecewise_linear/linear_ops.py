"""What differentiating a piecewise-linear network needs of its layers: three linear operations each.

An affine layer maps x to W x + b. For tangents t of the shape of its input and rows (cotangents) r of the shape of its
output, one for each output of the network and each example,

* push:  t -> W t;
* pull:  r -> W^T r;
* outer: (t, r) -> the sum of t r^T over outputs and examples.

A convolution comes in two forms with the same numbers: the library's, which accelerators are fast at, and patches times
a matrix, which is many times faster on a CPU.
"""

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jl1.models import AveragePool, Conv, Dense, Layer, average_pool
from jl1.patches import make_patches
from jl1.precision import PRECISIONS, round_factor, with_precision

Rows = Float[Array, "outputs _ ..."]
"""Rows or tangents, one for each output of the network and each example."""

Kernel = Float[Array, "..."]
KernelSum = Float[Array, "..."]
"""Of a kernel's size, in the layout that the layer's product writes fastest."""


class LinearOps(NamedTuple):
    """The linear operations of one layer on inputs of one shape.

    Attributes:
        push: (kernel, tangents) to W t.
        pull: (kernel, rows, fn) to fn(W^T r) with fn a function of one output's rows.
        outer: (tangents, rows) to the sum of t r^T, in a layout that `to_kernel` understands.
        to_kernel: That sum in the kernel's own layout: once, after all sums.
        at_inputs: (fn, tangents, *per_output) to fn(tangents of one output, *its own), for what `push` reads next.
        output_shape: Shape of one output.
        num_summands: The most numbers that `push` or `pull` adds up to one.
    """

    push: Callable[[Kernel, Rows], Rows]
    pull: Callable[[Kernel, Rows, Callable[[Array], Array]], Rows]
    outer: Callable[[Rows, Rows], KernelSum]
    to_kernel: Callable[[KernelSum], Kernel]
    at_inputs: Callable[..., Rows]
    output_shape: tuple[int, ...]
    num_summands: int


def make_linear_ops(
    layers: tuple[Layer, ...], input_shape: tuple[int, ...], *, convolution: str, precision: str = "float32"
) -> list[LinearOps]:
    """Make the operations of the affine layers of a sequence; a pool belongs to the affine layer that follows it.

    Args:
        layers: Convolutions, average pools and dense layers in order; what enters a dense layer is flattened.
        input_shape: Shape of one input, (height, width, channels) if the first layer is a convolution or a pool.
        convolution: A name of `models.CONVOLUTIONS`.
        precision: Of all products, a name of `precision.PRECISIONS`.

    Returns:
        The operations of each convolution and dense layer.
    """
    all_ops, shape, pools = [], input_shape, []
    for layer in layers:
        if isinstance(layer, AveragePool):
            pools.append((layer, shape))
            shape = (*((side - layer.window) // layer.stride + 1 for side in shape[:-1]), shape[-1])
            continue
        make_ops = _dense if isinstance(layer, Dense) else _CONVOLUTIONS[convolution]
        ops = make_ops(shape, layer, precision)  # pyright: ignore[reportArgumentType]
        shape = ops.output_shape
        while pools:
            ops = _after_pool(ops, *pools.pop())
        all_ops.append(ops)
    return all_ops


def _dense(input_shape: tuple[int, ...], layer: Dense, precision: str) -> LinearOps:
    """A matrix product."""
    size, product = math.prod(input_shape), with_precision(precision, jnp.matmul)
    transposed = _is_transposed(size, layer.features)

    def push(kernel: Kernel, tangents: Rows) -> Rows:
        return product(tangents.reshape(*tangents.shape[:2], size), kernel)

    def pull(kernel: Kernel, rows: Rows, fn: Callable[[Array], Array]) -> Rows:
        return jax.vmap(fn)(product(rows, kernel.T).reshape(*rows.shape[:2], *input_shape))

    def outer(tangents: Rows, rows: Rows) -> KernelSum:
        matrix, columns = tangents.reshape(-1, size), rows.reshape(-1, layer.features)
        return product(columns.T, matrix) if transposed else product(matrix.T, columns)

    to_kernel = jnp.transpose if transposed else jnp.asarray
    return LinearOps(push, pull, outer, to_kernel, _at_once, (layer.features,), max(size, layer.features))


def _library_convolution(input_shape: tuple[int, ...], layer: Conv, precision: str) -> LinearOps:
    """XLA's convolution and its two transposes."""
    kernel_shape = (layer.kernel_size, layer.kernel_size, input_shape[-1], layer.features)

    geometry = {"window_strides": (layer.stride,) * 2, "padding": layer.padding}
    layout = ("NHWC", "HWIO", "NHWC")
    convolution = partial(jax.lax.conv_general_dilated, **geometry, dimension_numbers=layout)
    product, rounded = with_precision(precision, convolution), partial(round_factor, precision)

    def convolve(kernel: Kernel, images: Array) -> Array:
        # to be transposed, with rounded factors in float32: the transpose of a bfloat16 product would round its result
        return convolution(images, kernel, precision=PRECISIONS[precision])

    def push(kernel: Kernel, tangents: Rows) -> Rows:
        return product(_merge_axes(tangents), kernel).reshape(*tangents.shape[:2], *output_shape)

    def pull(kernel: Kernel, rows: Rows, fn: Callable[[Array], Array]) -> Rows:
        images = jax.ShapeDtypeStruct((rows.shape[0] * rows.shape[1], *input_shape), rows.dtype)
        pull_back = jax.linear_transpose(partial(convolve, rounded(kernel)), images)
        (pulled,) = pull_back(rounded(_merge_axes(rows)))
        return jax.vmap(fn)(pulled.reshape(*rows.shape[:2], *input_shape))

    def outer(tangents: Rows, rows: Rows) -> KernelSum:
        kernel = jax.ShapeDtypeStruct(kernel_shape, tangents.dtype)
        images = rounded(_merge_axes(tangents))
        (summed,) = jax.linear_transpose(lambda values: convolve(values, images), kernel)(rounded(_merge_axes(rows)))
        return summed

    shapes = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in (kernel_shape, (1, *input_shape)))
    output_shape = jax.eval_shape(convolve, *shapes).shape[1:]
    return LinearOps(push, pull, outer, jnp.asarray, _at_once, output_shape, _num_summands(layer, input_shape))


def _patch_convolution(input_shape: tuple[int, ...], layer: Conv, precision: str) -> LinearOps:
    """Patches times a matrix."""
    height, width, channels = input_shape
    patches = make_patches(
        (height, width, channels), window=layer.kernel_size, stride=layer.stride, padding=layer.padding
    )
    kernel_shape = (layer.kernel_size, layer.kernel_size, channels, layer.features)
    output_shape = (*patches.output_shape, layer.features)
    transposed, product = _is_transposed(patches.num_columns, layer.features), with_precision(precision, jnp.matmul)

    def push(kernel: Kernel, tangents: Rows) -> Rows:
        pushed = product(patches.gather(_merge_axes(tangents)), kernel.reshape(-1, layer.features))
        return pushed.reshape(*tangents.shape[:2], *output_shape)

    def pull_rows(kernel: Kernel, rows: Array) -> Array:
        return patches.fold(product(rows.reshape(-1, layer.features), kernel.reshape(-1, layer.features).T))

    def pull(kernel: Kernel, rows: Rows, fn: Callable[[Array], Array]) -> Rows:
        if layer.features < min(patches.num_columns, rows[0].size // layer.features):
            # The product is larger than its factors: one output at a time it stays in the cache. Not with fewer rows
            # than features, since each product reorders the whole kernel first.
            pulled = jax.lax.map(lambda each: fn(pull_rows(kernel, each)).reshape(-1, channels), rows)
            return pulled.reshape(*rows.shape[:2], *input_shape)
        pulled = pull_rows(kernel, rows).reshape(*rows.shape[:2], *input_shape)
        return _one_after_the_other(fn, pulled)

    def outer(tangents: Rows, rows: Rows) -> KernelSum:
        matrix, columns = patches.gather(_merge_axes(tangents)), rows.reshape(-1, layer.features)
        return product(columns.T, matrix) if transposed else product(matrix.T, columns)

    def to_kernel(total: KernelSum) -> Kernel:
        return (total.T if transposed else total).reshape(kernel_shape)

    num_summands = _num_summands(layer, input_shape)
    return LinearOps(push, pull, outer, to_kernel, _one_after_the_other, output_shape, num_summands)


_CONVOLUTIONS: Mapping[str, Callable[[tuple[int, ...], Conv, str], LinearOps]] = {
    "library": _library_convolution,
    "patches": _patch_convolution,
}


def _after_pool(ops: LinearOps, layer: AveragePool, input_shape: tuple[int, ...]) -> LinearOps:
    """Let a layer read the averages of what enters."""

    def pool(tangents: Rows) -> Rows:
        return jax.vmap(lambda images: average_pool(layer, images))(tangents)

    def unpool(rows: Array) -> Array:
        images = jax.ShapeDtypeStruct((len(rows), *input_shape), rows.dtype)
        return jax.linear_transpose(lambda values: average_pool(layer, values), images)(rows)[0]

    return ops._replace(
        push=lambda kernel, tangents: ops.push(kernel, pool(tangents)),
        pull=lambda kernel, rows, fn: jax.vmap(fn)(jax.vmap(unpool)(ops.pull(kernel, rows, lambda each: each))),
        outer=lambda tangents, rows: ops.outer(pool(tangents), rows),
        num_summands=ops.num_summands + layer.window**2,
    )


def _num_summands(layer: Conv, input_shape: tuple[int, ...]) -> int:
    """Return how many numbers a convolution or its transpose adds up at most."""
    return layer.kernel_size**2 * max(input_shape[-1], layer.features)


def _is_transposed(fan_in: int, fan_out: int) -> bool:
    """Say whether a kernel's gradient is summed as r t^T: a product is slow if it transposes the wide factor.

    The sum is transposed back after the last chunk: inside the loop, XLA would turn the products around again.
    """
    return fan_in >= 2 * fan_out


def _at_once(fn: Callable[..., Array], rows: Rows, *per_output: Array) -> Rows:
    """Apply fn to the rows of all outputs at once."""
    return jax.vmap(fn)(rows, *per_output)


def _one_after_the_other(fn: Callable[..., Array], rows: Rows, *per_output: Array) -> Rows:
    """Apply fn to the rows of one output after the other, in place.

    Patches read every number several times, and XLA would compute fn anew for each reading, at many times the cost.
    It does not reach into a loop for that. Images are flat in the loop, which keeps XLA from changing their layout.
    """

    def one(index: Array, flat: Array) -> Array:
        new = fn(flat[index].reshape(rows.shape[1:]), *(values[index] for values in per_output))
        return flat.at[index].set(new.reshape(flat.shape[1:]))

    return jax.lax.fori_loop(0, len(rows), one, rows.reshape(len(rows), -1, rows.shape[-1])).reshape(rows.shape)


def _merge_axes(rows: Rows) -> Array:
    """Make outputs and examples one axis."""
    return rows.reshape(-1, *rows.shape[2:])
