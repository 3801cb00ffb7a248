"""A process for each run: `jl1 train` on cores of its own, with its log in the run's folder."""

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from jl1.cores import pinned
from jl1.sweep.folder import LOG, write_log

_MEMORY, _MEMORY_BEFORE = "XLA_CLIENT_MEM_FRACTION", "XLA_PYTHON_CLIENT_MEM_FRACTION"
_MEMORY_OF_ONE = 0.75  # what JAX takes of a GPU for itself


def environment_of(gpu_share: float, environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a process that shares its GPUs, unless the user has divided their memory himself.

    JAX takes three fourths of a GPU's memory at its start, so a second process would find none.

    Example:
        >>> environment_of(0.25, {})
        {'XLA_CLIENT_MEM_FRACTION': '0.1875'}
        >>> environment_of(0.25, {"XLA_CLIENT_MEM_FRACTION": "0.1"}), environment_of(1.0, {})
        ({'XLA_CLIENT_MEM_FRACTION': '0.1'}, {})
    """
    is_given = not {_MEMORY, _MEMORY_BEFORE}.isdisjoint(environment)
    share = {} if is_given or not 0 < gpu_share < 1 else {_MEMORY: f"{_MEMORY_OF_ONE * gpu_share:.4g}"}
    return {**environment, **share}


class Child:
    """The process of one run.

    It has a session of its own, so that a Ctrl-C at the terminal reaches only the sweep, and ends by itself when the
    sweep is gone: its standard input is a pipe of which the sweep has the other end.

    Attributes:
        lost: None: what ends a process of this machine ends its run.
    """

    lost: str | None = None

    def __init__(self, workdir: Path, cores: Sequence[int], *, cwd: Path | None = None, gpu_share: float = 1.0) -> None:
        """Start the process.

        Args:
            workdir: Folder of the run, with its config.json.
            cores: The cores it may use, where the system can pin; none: all.
            cwd: Where relative paths of the config start; that of this process if not given.
            gpu_share: Part of the memory of each GPU, if there are any.
        """
        command = [sys.executable, "-P", "-m", "jl1", "train", f"--workdir={workdir}", "--until_stdin_closes"]
        write_log(workdir, train_command(workdir))
        with (workdir / LOG).open("a") as log, pinned(cores):
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                cwd=cwd,
                env=environment_of(gpu_share, os.environ),
            )

    @property
    def status(self) -> int | None:
        """Exit status, the negative number of the signal that killed it, or None while it runs."""
        return self._process.poll()

    def stop(self) -> None:
        """Ask the process to end at its last whole epoch."""
        self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End the process at once."""
        self._process.kill()

    def close(self) -> None:
        """Close our end of the pipe, and wait for the end of the process."""
        self._process.communicate()


class LocalEngine:
    """Runs as processes of this machine, each pinned to the cores of its worker; a GPU's memory is shared evenly."""

    place = "on this machine"

    def __init__(self, workers: Sequence[Sequence[int]]) -> None:
        """Take the cores of each worker; none: not pinned."""
        self._cores, self.cores_of_a_run = workers, workers[0]
        self._children: list[Child | None] = [None] * len(workers)

    @property
    def num_workers(self) -> int:
        """The number of the workers."""
        return len(self._cores)

    def require_folder(self, folder: Path) -> None:
        """Processes of this machine see what this one sees."""

    def start(self, workdir: Path) -> Child:
        """Start the process of a run on the cores of an idle worker."""
        worker = next(
            worker for worker, child in enumerate(self._children) if child is None or child.status is not None
        )
        child = self._children[worker] = Child(workdir, self._cores[worker], gpu_share=1 / self.num_workers)
        return child


def train_command(workdir: Path) -> str:
    """Return the command that goes on with a run, as one would type it."""
    return f"jl1 train {shlex.quote(f'--workdir={workdir}')}"
