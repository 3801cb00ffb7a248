"""A process of the bench: it makes and times the forms that its parent names, one line of JSON a question.

    python -P worker.py FORMS.py CORE

FORMS.py (`jax_forms.py` or `torch_forms.py`) has

* create_problem(**setup): the network, its weights and a batch;
* make_form(problem, name): (run, facts), where run() computes once and returns when it is done;
* to_arrays(problem, result): the named arrays of such a result;
* export_problem(problem, path): the same network, weights and batch as an .npz file.

This file needs nothing but Python's own library and NumPy: it also runs where there is PyTorch and no jl1.
"""

import importlib.util
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np


class Session:
    """The forms made so far. Each public method answers one question of the parent."""

    def __init__(self, forms_file: Path) -> None:
        self._forms_file = forms_file
        self._forms: ModuleType | None = None
        self._problem: Any = None
        self._runs: dict[str, Callable[[], Any]] = {}

    def open(self, **setup: Any) -> dict[str, Any]:
        """Create the problem, in place of the one before."""
        self._forms = self._forms or _load(self._forms_file)
        self._problem, self._runs = self._forms.create_problem(**setup), {}
        return {}

    def make(self, form: str) -> dict[str, Any]:
        """Make a form, and tell what is known of it."""
        assert self._forms is not None
        self._runs[form], facts = self._forms.make_form(self._problem, form)
        return facts

    def run(self, form: str) -> dict[str, Any]:
        """Run a form once: seconds of this process's processor time, all threads together, and of the clock."""
        wall, start = time.perf_counter(), time.process_time()
        self._runs[form]()
        return {"seconds": time.process_time() - start, "wall_seconds": time.perf_counter() - wall}

    def run_for(self, form: str, seconds: float) -> dict[str, Any]:
        """Run a form again and again for some seconds of the clock."""
        start, count = time.perf_counter(), 0
        while time.perf_counter() < start + seconds:
            self._runs[form]()
            count += 1
        return {"runs_per_second": count / (time.perf_counter() - start)}

    def save(self, form: str, path: str) -> dict[str, Any]:
        """Run a form once and write what it gives to an .npz file."""
        assert self._forms is not None
        named = self._forms.to_arrays(self._problem, self._runs[form]())
        arrays: dict[str, Any] = {name: np.asarray(array) for name, array in named.items()}
        np.savez(path, **arrays)
        return {}

    def export(self, path: str) -> dict[str, Any]:
        """Write the problem to an .npz file."""
        assert self._forms is not None
        self._forms.export_problem(self._problem, path)
        return {}


def serve(session: Session) -> None:
    """Answer the questions on standard input until it ends."""
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what libraries print is no reply
    for line in sys.stdin:
        question = json.loads(line)
        try:
            reply = getattr(session, question.pop("ask"))(**question)
        except Exception as error:
            reply = {"error": " ".join(f"{type(error).__name__}: {error}".split())}
        print(json.dumps(reply), file=replies, flush=True)


def _load(path: Path) -> ModuleType:
    """Load a file as a module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main() -> None:
    """Pin this process to its core before any library starts threads, then serve."""
    forms_file, core = sys.argv[1:]
    if hasattr(os, "sched_setaffinity") and core != "any":
        os.sched_setaffinity(0, {int(core)})
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's, which then closes standard input
    serve(Session(Path(forms_file)))


if __name__ == "__main__":
    main()
