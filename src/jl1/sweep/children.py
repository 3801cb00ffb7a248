"""A process for each run: `jl1 train` on cores of its own, with its log in the run's folder."""

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from jl1.cores import pinned
from jl1.sweep.folder import LOG, write_log
from jl1.sweep.gpus import ALL_GPUS, GpuPart, environment_of, part_of_worker


class Child:
    """The process of one run.

    It has a session of its own, so that a Ctrl-C at the terminal reaches only the sweep, and ends by itself when the
    sweep is gone: its standard input is a pipe of which the sweep has the other end.

    Attributes:
        lost: None: what ends a process of this machine ends its run.
    """

    lost: str | None = None

    def __init__(
        self, workdir: Path, cores: Sequence[int], *, cwd: Path | None = None, gpu: GpuPart = ALL_GPUS
    ) -> None:
        """Start the process.

        Args:
            workdir: Folder of the run, with its config.json.
            cores: The cores it may use, where the system can pin; none: all.
            cwd: Where relative paths of the config start; that of this process if not given.
            gpu: What it gets of the GPUs, if there are any.
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
                env=environment_of(gpu, os.environ),
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
    """Runs as processes of this machine, each pinned to the cores of its worker, and each on one GPU if there are any.

    Attributes:
        place: This machine, and its GPUs.
    """

    def __init__(self, workers: Sequence[Sequence[int]], num_gpus: int = 0) -> None:
        """Take the cores of each worker (none: not pinned) and the number of GPUs that they share."""
        self._cores, self.cores_of_a_run, self._num_gpus = workers, workers[0], num_gpus
        self._children: list[Child | None] = [None] * len(workers)
        gpus = {0: "", 1: " and its GPU"}.get(num_gpus, f" and its {num_gpus} GPUs")
        self.place = f"on this machine{gpus}"

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
        gpu = part_of_worker(worker, num_workers=self.num_workers, num_gpus=self._num_gpus)
        child = self._children[worker] = Child(workdir, self._cores[worker], gpu=gpu)
        return child


def train_command(workdir: Path) -> str:
    """Return the command that goes on with a run, as one would type it."""
    return f"jl1 train {shlex.quote(f'--workdir={workdir}')}"
