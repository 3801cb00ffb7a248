"""A process for each run: `jl1 train` on cores of its own, with its log in the run's folder."""

import shlex
import signal
import subprocess
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from jl1.cores import pinned
from jl1.sweep.folder import LOG


class Child:
    """The process of one run.

    It has a session of its own, so that a Ctrl-C at the terminal reaches only the sweep, and ends by itself when the
    sweep is gone: its standard input is a pipe of which the sweep has the other end.
    """

    def __init__(self, workdir: Path, cores: Sequence[int]) -> None:
        """Start the process.

        Args:
            workdir: Folder of the run, with its config.json.
            cores: The cores it may use, where the system can pin; none: all.
        """
        command = [sys.executable, "-P", "-m", "jl1", "train", f"--workdir={workdir}", "--until_stdin_closes"]
        with (workdir / LOG).open("a") as log, pinned(cores):
            log.write(f"--- {datetime.now().isoformat(sep=' ', timespec='seconds')} {train_command(workdir)}\n")
            log.flush()
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
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
        self.close()

    def close(self) -> None:
        """Close our end of the pipe, and wait for the end of the process."""
        self._process.communicate()


def train_command(workdir: Path) -> str:
    """Return the command that goes on with a run, as one would type it."""
    return f"jl1 train {shlex.quote(f'--workdir={workdir}')}"
