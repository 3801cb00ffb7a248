"""What pure functions know of a batch that several devices share: nothing but how to draw for their rows.

Inside `one_share` a function sees a part of the batch, one of equal parts that lie on the devices of a mapped axis.
What it draws by `draw_rows` is drawn for the whole batch, and each device takes the rows of its own examples.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array


class Share(NamedTuple):
    """How a batch lies on devices: in equal parts, of which the last are filled up.

    Attributes:
        axis_name: Mapped axis over the devices.
        num_devices: Its length.
        batch_size: Examples of the whole batch, without those that fill it up.
    """

    axis_name: str
    num_devices: int
    batch_size: int


ShareRowsFn = Callable[..., Callable[..., Any]]
"""Called as share_rows(step, static=names of options that are no arrays) with a step(params, inputs, labels, ...) that
returns arrays with a row an example; it returns a function that does the same, such as `devices.Devices.share_rows`."""


def unshared(step: Callable[..., Any], *, static: tuple[str, ...] = ()) -> Callable[..., Any]:
    """Leave a step to one device: the `ShareRowsFn` that does nothing."""
    del static
    return step


_SHARE = jax.make_user_context(None)  # what jit has traced for one share it does not take for another


def one_share(share: Share) -> AbstractContextManager[None]:
    """Say, while a function is traced, that its rows are one device's share of a batch."""
    return _SHARE(share)


def draw_rows(draw_fn: Callable[[int], Array], num_rows: int, *, axis: int = 0) -> Array:
    """Draw random numbers for every row of a batch.

    Args:
        draw_fn: Number of rows to random numbers, with an axis of that length.
        num_rows: Rows that the caller has: those of its batch, or of several copies of it one behind the other.
        axis: Which axis the rows are.

    Returns:
        `draw_fn(num_rows)`; inside `one_share` this device's rows of what the whole batch would be given.

    Raises:
        ValueError: Inside `one_share`, a number of rows that is no multiple of a share.

    Example:
        >>> key = jax.random.key(0)
        >>> draw_rows(lambda num_rows: jax.random.uniform(key, (num_rows, 4)), 3).shape
        (3, 4)
    """
    share: Share | None = _SHARE.value
    if share is None:
        return draw_fn(num_rows)
    own_rows = -(-share.batch_size // share.num_devices)
    copies, rest = divmod(num_rows, own_rows)
    if rest:
        raise ValueError(f"{num_rows} rows are drawn where a device's share of the batch has {own_rows}")
    whole = jnp.moveaxis(draw_fn(copies * share.batch_size), axis, 0)
    whole = whole.reshape(copies, share.batch_size, *whole.shape[1:])
    missing = own_rows * share.num_devices - share.batch_size
    # repeated, not zero: a direction of length zero would give NaN, in the gradients of all
    filled = jnp.pad(whole, [(0, 0), (0, missing), *[(0, 0)] * (whole.ndim - 2)], mode="edge")
    own = jax.lax.dynamic_slice_in_dim(filled, jax.lax.axis_index(share.axis_name) * own_rows, own_rows, axis=1)
    return jnp.moveaxis(own.reshape(num_rows, *own.shape[2:]), 0, axis)
