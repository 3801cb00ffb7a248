"""How exactly matrix products and convolutions are computed: float32, or less for speed where a user asks for it.

Measured with the closed form on one AVX-512 core (first step of models A, B, C, batch 128, lambda 50, mean): bfloat16
is 1.2 to 1.4 times as fast on C, hardly faster on A and slower on B, and the gradient is off by 0.06 (C), 0.07 (A) and
0.1 (B) of its length, since the signs of small entries of the Jacobian flip (benchmarks/precision.py). A CPU has no
tf32 and computes float32 instead; outside the closed form it knows no bfloat16 either.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

PRECISIONS: Mapping[str, str] = {"float32": "float32", "tf32": "tensorfloat32", "bfloat16": "bfloat16"}
"""By jl1's names those of `jax.default_matmul_precision`, which accelerators obey and CPUs ignore."""


def with_precision(precision: str, product: Callable[..., Array]) -> Callable[[Array, Array], Array]:
    """Fix the precision of a product, on every backend.

    Args:
        precision: A name of `PRECISIONS`; `bfloat16` rounds the factors and sums in float32.
        product: Such as `jnp.matmul`, with the options `precision` and `preferred_element_type`.

    Returns:
        Function of the two factors.

    Raises:
        ValueError: An unknown name.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"unknown precision {precision!r}; known are {', '.join(PRECISIONS)}")
    if precision != "bfloat16":
        return partial(product, precision=PRECISIONS[precision])

    def rounded(one: Array, other: Array) -> Array:
        factors = (factor.astype(jnp.bfloat16) for factor in (one, other))
        return product(*factors, preferred_element_type=jnp.float32)

    return rounded


def round_factor(precision: str, factor: Array) -> Array:
    """Round a factor of a product as `with_precision` does, in its own type: for products that are transposed."""
    return factor.astype(jnp.bfloat16).astype(factor.dtype) if precision == "bfloat16" else factor


def in_one_precise_type(*trees: Any) -> tuple[Any, ...]:
    """Bring all arrays to the most exact type among them, float32 at least: in a smaller one a ball may be empty.

    Example:
        >>> [leaf.dtype.name for leaf in in_one_precise_type(jnp.ones(2, jnp.bfloat16), jnp.ones(3, jnp.float16))]
        ['float32', 'float32']
    """
    dtypes = (jnp.dtype(jnp.float32), *(leaf.dtype for leaf in jax.tree.leaves(trees)))
    dtype = max(dtypes, key=lambda each: jnp.finfo(each).bits)
    return jax.tree.map(lambda leaf: leaf.astype(dtype), trees)


def traced_with(precision: str, fn: Callable[..., Any]) -> Callable[..., Any]:
    """Make a function whose products all have a precision, as far as the backend knows it."""

    def traced(*arguments: Any, **options: Any) -> Any:
        with jax.default_matmul_precision(PRECISIONS[precision]):
            return fn(*arguments, **options)

    return traced
