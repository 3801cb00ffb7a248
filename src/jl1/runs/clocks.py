"""Wall time of a run by section, with compilation told apart from all of them."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import NamedTuple

import jax

_compile_seconds = [0.0]


def _count_compilation(event: str, duration_secs: float, **_: object) -> None:
    """Add up what JAX reports of lowering and compiling."""
    if event in (
        "/jax/core/compile/jaxpr_to_mlir_module_duration",
        "/jax/core/compile/backend_compile_duration",
    ):
        _compile_seconds[0] += duration_secs


@cache
def _start_counting() -> None:
    """Listen to JAX, once a process."""
    jax.monitoring.register_event_duration_secs_listener(_count_compilation)


class Lap(NamedTuple):
    """A moment to count seconds from, by two clocks: that of the process and that of JAX's compilation."""

    start: float
    compiled: float

    @classmethod
    def begin(cls) -> "Lap":
        """Take the present moment."""
        _start_counting()
        return cls(time.perf_counter(), _compile_seconds[0])

    def seconds(self) -> tuple[float, float]:
        """Return the seconds since then: those of lowering and compiling, and all others."""
        elapsed = time.perf_counter() - self.start
        # JAX reports by the wall clock, which may be set back or forth
        compiling = min(max(_compile_seconds[0] - self.compiled, 0.0), elapsed)
        return compiling, elapsed - compiling


class Stopwatch:
    """Seconds by section; those that JAX spent on lowering and compiling go to the section `compile`."""

    def __init__(self, seconds: dict[str, float] | None = None) -> None:
        """Start from the seconds of an earlier part of the same run, or from nothing."""
        self.seconds = {"compile": 0.0, "train": 0.0, "evaluate": 0.0} | (seconds or {})

    @contextmanager
    def section(self, name: str) -> Iterator[None]:
        """Add the time spent in the `with` block to a section."""
        lap = Lap.begin()
        try:
            yield
        finally:
            compiling, others = lap.seconds()
            self.seconds["compile"] += compiling
            self.seconds[name] += others
