"""What `jl1 bench` can be asked for."""

from collections.abc import Sequence
from typing import NamedTuple

PEERS = ("automatic", "textbook", "torch")
"""Peers of the closed form: jl1's automatic form, grad of vmap(jacrev) with the library's convolutions, PyTorch."""

STUDIES = ("forms", "loop", "scaling", "attacks", "startup", "cores")
"""The step beside its peers; an epoch beside its steps; the step by classes, batch and side; attacks; start; cores."""


class BenchOptions(NamedTuple):
    """What is measured.

    Attributes:
        models: Names of Table 1.
        studies: Of `STUDIES`.
        peers: Of `PEERS`.
        batch_size: Examples a step.
        repeats: Runs of each form, after one to warm up.
        form_seconds: Seconds after which a form is not run again, once it has run three times.
        core: The core that every process is pinned to, where the system can.
        torch_python: Interpreter that can import PyTorch.
    """

    models: Sequence[str]
    studies: Sequence[str]
    peers: Sequence[str]
    batch_size: int
    repeats: int
    form_seconds: float
    core: int
    torch_python: str
