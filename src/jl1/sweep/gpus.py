"""The GPUs of this machine, and what of them each run of a sweep gets."""

import os
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import NamedTuple

from jl1.errors import UserError

_RUNS_A_GPU = 4
"""Six runs of model C at once shared an H100 well, 16 did not; each needs cores too, on which XLA compiles."""

_QUESTION = "import jax; print(jax.default_backend(), jax.local_device_count())"

_VISIBLE = ("JAX_CUDA_VISIBLE_DEVICES", "JAX_ROCM_VISIBLE_DEVICES")
_MEMORY, _MEMORY_BEFORE = "XLA_CLIENT_MEM_FRACTION", "XLA_PYTHON_CLIENT_MEM_FRACTION"
_MEMORY_OF_ONE = 0.75  # what JAX takes of a GPU for itself


class GpuPart(NamedTuple):
    """What a run gets of the GPUs, if there are any.

    Attributes:
        number: Which of those that JAX sees it may use, from 0; None: all.
        share: Part of its memory.
    """

    number: int | None = None
    share: float = 1.0


ALL_GPUS = GpuPart()
"""Each GPU, as if there were no other run."""


def count_gpus() -> int:
    """Ask JAX how many GPUs it would use on this machine.

    A process of its own asks, since one that has asked keeps hold of each GPU; none does where JAX has no plugin for
    another device than the CPU.

    Raises:
        UserError: JAX does not start, so that no run would.
    """
    if not entry_points(group="jax_plugins"):
        return 0
    environment = {**os.environ, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    asked = subprocess.run([sys.executable, "-P", "-c", _QUESTION], env=environment, capture_output=True, text=True)
    if asked.returncode:
        lines = asked.stderr.strip().splitlines() or [f"exit status {asked.returncode}"]
        raise UserError(f"JAX does not start on this machine, so no run would: {lines[-1]}")
    backend, number = asked.stdout.split()[-2:]
    return int(number) if backend == "gpu" else 0


def default_workers(num_cores: int, num_gpus: int) -> int:
    """Return how many runs to train at once: one a core, or a few on each GPU.

    Example:
        >>> default_workers(16, 0), default_workers(16, 1), default_workers(16, 8)
        (16, 4, 16)
    """
    return min(num_cores, _RUNS_A_GPU * num_gpus) if num_gpus else num_cores


def part_of_worker(worker: int, *, num_workers: int, num_gpus: int) -> GpuPart:
    """Give a worker one GPU, which it shares with others if there are fewer of them than workers.

    Example:
        >>> [tuple(part_of_worker(worker, num_workers=3, num_gpus=2)) for worker in range(3)]
        [(0, 0.5), (1, 1.0), (0, 0.5)]
    """
    if not num_gpus:
        return ALL_GPUS
    number = worker % num_gpus
    return GpuPart(number, 1 / len(range(number, num_workers, num_gpus)))


def environment_of(part: GpuPart, environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a process that has a part of the GPUs.

    JAX takes three fourths of the memory of each GPU that it sees at its start, so a second process would find none.
    A choice that the user made by the same variables holds: of the devices, which the runs then share; of the memory.

    Example:
        >>> environment_of(GpuPart(1, 0.25), {"JAX_CUDA_VISIBLE_DEVICES": "4,5"})
        {'JAX_CUDA_VISIBLE_DEVICES': '5', 'JAX_ROCM_VISIBLE_DEVICES': '1', 'XLA_CLIENT_MEM_FRACTION': '0.1875'}
        >>> environment_of(GpuPart(share=0.25), {"XLA_CLIENT_MEM_FRACTION": "0.1"}), environment_of(ALL_GPUS, {})
        ({'XLA_CLIENT_MEM_FRACTION': '0.1'}, {})
    """
    own = {} if part.number is None else {name: _one_of(environment.get(name), part.number) for name in _VISIBLE}
    if 0 < part.share < 1 and {_MEMORY, _MEMORY_BEFORE}.isdisjoint(environment):
        own[_MEMORY] = f"{_MEMORY_OF_ONE * part.share:.4g}"
    return {**environment, **own}


def _one_of(visible: str | None, number: int) -> str:
    """Return the n-th of the devices that a variable of JAX names, which is not set or `all` where it names none."""
    if visible in (None, "all"):
        return str(number)
    named = visible.split(",")
    return named[number % len(named)]
