"""Training and evaluation on all devices of all processes: the examples of a batch are shared, the rest is on each.

Every device runs the same program as a single one would, on its own rows of the batch. In training the gradients are
summed over the devices, once a step; nothing else is sent. An evaluation sends nothing but its results.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.flatten_util import ravel_pytree
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Int

from jl1.array_types import Inputs, Labels, Mask, Params, PRNGKey, Scalar
from jl1.gradients import GradientFn
from jl1.losses import LossTerms
from jl1.shares import Share, one_share

_AXIS = "data"
_WHOLE, _ROWS = PartitionSpec(), PartitionSpec(_AXIS)


class Devices:
    """The devices that share each batch. With a single one every method returns what it is given."""

    def __init__(self, devices: Sequence[Any] | None = None) -> None:
        """Take some devices; all of all processes if none are given."""
        self._mesh = Mesh(np.asarray(jax.devices() if devices is None else devices), (_AXIS,))

    @classmethod
    def one(cls) -> "Devices":
        """Take the first device of this process."""
        return cls(jax.local_devices()[:1])

    @property
    def count(self) -> int:
        """How many there are."""
        return self._mesh.size

    @property
    def platform(self) -> str:
        """Such as `cpu`, `gpu`."""
        return self._mesh.devices.flat[0].platform

    @property
    def kind(self) -> str:
        """What the maker calls them."""
        return self._mesh.devices.flat[0].device_kind

    def describe(self) -> str:
        """Say what there is.

        Example:
            >>> Devices.one().describe()
            'devices: 1 x cpu in 1 process'
        """
        kind = self.platform if self.kind == self.platform else f"{self.platform} ({self.kind})"
        num_processes = len({device.process_index for device in self._mesh.devices.flat})
        return f"devices: {self.count} x {kind} in {num_processes} process{'es' if num_processes > 1 else ''}"

    def replicate(self, tree: Any) -> Any:
        """Put arrays on every device; of several processes the first says what is in them."""
        if self.count == 1:
            return tree
        values = self.fetch(tree)
        if jax.process_count() > 1:
            values = multihost_utils.broadcast_one_to_all(values)
        place = partial(_place, NamedSharding(self._mesh, _WHOLE))
        return jax.tree.map(place, values)

    def fetch(self, tree: Any) -> Any:
        """Return arrays that are on every device as this process's own: NumPy's if there are several devices."""
        return tree if self.count == 1 else jax.device_get(tree)

    def fill(self, batches: Int[np.ndarray, " num_batches batch_size"]) -> Int[np.ndarray, " num_batches rows"]:
        """Fill the batches of an epoch up with -1, so that each device has as many places."""
        return np.pad(batches, ((0, 0), (0, -batches.shape[1] % self.count)), constant_values=-1)

    def share_gradient(self, gradient_fn: GradientFn, *, batch_size: int) -> GradientFn:
        """Let each device compute the gradient of its own rows, and average over all that count.

        Args:
            gradient_fn: The gradient of the mean loss of a batch, such as of `gradients.make_gradient`.
            batch_size: Examples of a batch, without those that `fill` adds.

        Returns:
            Function with the same signature and, to rounding, the same result; random draws are the same too.
        """
        if self.count == 1:
            return gradient_fn
        share = Share(_AXIS, self.count, batch_size)
        of_own_rows = jax.shard_map(
            partial(_mean_over_devices, gradient_fn, share),
            mesh=self._mesh,
            in_specs=(_WHOLE, _ROWS, _ROWS, _ROWS, _WHOLE),
            out_specs=_WHOLE,
            check_vma=False,  # the gradient inside is that of the device's rows alone, and is summed by hand
        )

        def shared_gradient_fn(
            params: Params,
            inputs: Inputs,
            *,
            labels: Labels,
            mask: Mask,
            lam: Scalar,
            epsilon: Scalar,
            key: PRNGKey | None = None,
        ) -> tuple[Params, LossTerms]:
            return of_own_rows(params, inputs, labels, mask, {"lam": lam, "epsilon": epsilon, "key": key})

        return shared_gradient_fn

    def share_rows(self, step: Callable[..., Any], *, static: tuple[str, ...] = ()) -> Callable[..., Any]:
        """Let each device run a step of an evaluation on its own rows.

        Args:
            step: Called as step(params, inputs, labels, *values, **options); it returns arrays with a row an example,
                each of which depends on its own example alone.
            static: Options that are no arrays.

        Returns:
            Function with the same signature and results, for any number of rows; jitted.
        """
        return step if self.count == 1 else _shared_step(self._mesh, step, static)


def _place(sharding: NamedSharding, values: np.ndarray) -> Array:
    """Put an array that every process has on all devices."""
    values = np.asarray(values)
    return jax.make_array_from_callback(values.shape, sharding, lambda index: values[index])


def _mean_over_devices(
    gradient_fn: GradientFn,
    share: Share,
    params: Params,
    inputs: Inputs,
    labels: Labels,
    mask: Mask,
    options: dict[str, Any],
) -> tuple[Params, LossTerms]:
    """Average over the examples of all devices, by one sum over the devices."""
    with one_share(share):
        means, unflatten = ravel_pytree(gradient_fn(params, inputs, labels=labels, mask=mask, **options))
    num_examples = jnp.sum(mask).astype(means.dtype)
    sums = jax.lax.psum(jnp.append(num_examples * means, num_examples), share.axis_name)
    return unflatten(sums[:-1] / jnp.maximum(sums[-1], 1))


@lru_cache(maxsize=64)
def _shared_step(mesh: Mesh, step: Callable[..., Any], static: tuple[str, ...]) -> Callable[..., Any]:
    """Make the jitted function that fills a batch up, shares it and cuts what was filled up off the results."""

    def shared_step(params: Params, inputs: Inputs, labels: Labels, *values: Any, **options: Any) -> Any:
        share, fixed = Share(_AXIS, mesh.size, len(inputs)), {name: options.pop(name) for name in static}

        def of_own_rows(params: Params, inputs: Inputs, labels: Labels, values: Any, options: Any) -> Any:
            with one_share(share):
                return step(params, inputs, labels, *values, **options, **fixed)

        specs = (_WHOLE, _ROWS, _ROWS, _WHOLE, _WHOLE)
        on_devices = jax.shard_map(of_own_rows, mesh=mesh, in_specs=specs, out_specs=_ROWS, check_vma=False)
        results = on_devices(params, _filled(inputs, mesh.size), _filled(labels, mesh.size), values, options)
        return jax.tree.map(lambda rows: rows[: len(inputs)], results)

    return jax.jit(shared_step, static_argnames=static, out_shardings=NamedSharding(mesh, _WHOLE))


def _filled(rows: Array, num_devices: int) -> Array:
    """Repeat the last row until each device has as many."""
    return jnp.pad(rows, [(0, -len(rows) % num_devices), *[(0, 0)] * (rows.ndim - 1)], mode="edge")
