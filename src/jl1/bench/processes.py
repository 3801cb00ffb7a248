"""Worker processes, and runs of their forms in turns."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

_FOLDER = Path(__file__).parent
_FEWEST_RUNS = 3


Notice = Callable[[str], None]
"""Told in one line what happens."""


class WorkerError(RuntimeError):
    """A worker could not do what it was asked for, or is gone; the message is its own."""


class Worker:
    """One process with the forms of a file, on one core. Use it in a `with` block."""

    def __init__(self, forms_file: str, *, core: int | None, python: str = sys.executable) -> None:
        """Start the process.

        Args:
            forms_file: A file of this folder, `jax_forms.py` or `torch_forms.py`.
            core: The one core that it may use; None: as the system likes.
            python: The interpreter.
        """
        pinned = "any" if core is None else str(core)
        self._process = subprocess.Popen(
            [python, "-P", str(_FOLDER / "worker.py"), str(_FOLDER / forms_file), pinned],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=child_environment(python) | {"JAX_ENABLE_COMPILATION_CACHE": "0"},  # compilation is measured
        )

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def tell(self, ask: str, **arguments: Any) -> None:
        """Ask without waiting for the answer."""
        assert self._process.stdin is not None
        try:
            print(json.dumps({"ask": ask, **arguments}), file=self._process.stdin, flush=True)
        except BrokenPipeError as error:
            raise WorkerError(f"the process is gone, with exit status {self._process.wait()}") from error

    def hear(self) -> dict[str, Any]:
        """Wait for the answer to the oldest question."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise WorkerError(f"the process is gone, with exit status {self._process.wait()}")
        reply = json.loads(line)
        if "error" in reply:
            raise WorkerError(reply["error"])
        return reply

    def ask(self, ask: str, **arguments: Any) -> dict[str, Any]:
        """Ask and wait for the answer."""
        self.tell(ask, **arguments)
        return self.hear()


class Contender(NamedTuple):
    """A form in its process, and what was found when it was made."""

    worker: Worker
    form: str
    facts: dict[str, Any]


class Limits(NamedTuple):
    """When a form has run often enough.

    Attributes:
        repeats: Runs of a form, after one to warm up.
        form_seconds: Seconds after which a form is not run again, once it has run three times.
    """

    repeats: int
    form_seconds: float


def child_environment(python: str = sys.executable) -> dict[str, str]:
    """Return the environment of a child, which finds the jl1 that runs here if it has the same interpreter."""
    if python != sys.executable:
        return dict(os.environ)
    paths = [str(_FOLDER.parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


def make_forms(worker: Worker, forms: Sequence[str]) -> list[Contender]:
    """Make forms in a worker."""
    return [Contender(worker, form, worker.ask("make", form=form)) for form in forms]


def take_turns(
    contenders: Sequence[Contender], limits: Limits, *, clock: str = "seconds"
) -> Iterator[dict[str, dict[str, Any]]]:
    """Run every form once a round, so that what disturbs the machine disturbs all of them.

    Args:
        contenders: Forms, in this order; only one runs at a time.
        limits: When a form has run often enough.
        clock: `seconds` of processor time, or `wall_seconds`.

    Yields:
        After each round a row of figures for each form.
    """
    seconds: list[list[float]] = [[] for _ in contenders]
    for contender in contenders:
        contender.worker.ask("run", form=contender.form)
    while True:
        unfinished = [index for index, runs in enumerate(seconds) if not _is_enough(runs, limits)]
        if not unfinished:
            return
        for index in unfinished:
            contender = contenders[index]
            seconds[index].append(contender.worker.ask("run", form=contender.form)[clock])
        yield {
            contender.form: timed(runs) | contender.facts for contender, runs in zip(contenders, seconds, strict=True)
        }


def timed(seconds: Sequence[float]) -> dict[str, Any]:
    """Return the row of some runs."""
    milliseconds = [round(1e3 * value, 4) for value in seconds]
    return {
        "median_ms": round(median(milliseconds), 4),
        "min_ms": min(milliseconds),
        "repeats": len(milliseconds),
        "ms": milliseconds,
    }


def _is_enough(runs: Sequence[float], limits: Limits) -> bool:
    """Say whether a form has run often enough."""
    return len(runs) >= limits.repeats or (len(runs) >= _FEWEST_RUNS and sum(runs) >= limits.form_seconds)


def wall_seconds(arguments: Sequence[str], environment: dict[str, str]) -> float:
    """Run a command in a process of its own and return how long it took."""
    start = time.perf_counter()
    subprocess.run(arguments, env=environment, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def pinned_core(core: int) -> int | None:
    """Return the core if processes can be pinned on this system, else None."""
    return core if hasattr(os, "sched_setaffinity") else None
