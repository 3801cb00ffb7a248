"""What a task of a cluster does on its node: looks for the sweep's folder, or runs one run's process to its end."""

import signal
import time
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from jl1.cores import claimed_cores
from jl1.sweep.children import Child
from jl1.sweep.gpus import GpuPart

_SECONDS_A_LOOK = 0.2


class Sight(NamedTuple):
    """What a node has.

    Attributes:
        version: Of jl1.
        has_file: Whether it sees the file it was asked for.
    """

    version: str
    has_file: bool


def look(file: Path) -> Sight:
    """Say what this node has."""
    return Sight(version("jl1"), file.exists())


def run_to_its_end(workdir: Path, cwd: Path, num_cpus: int, num_gpus: float) -> int:
    """Run the process of a run; an interrupt in this thread asks it to end at its last whole epoch.

    Args:
        workdir: Folder of the run.
        cwd: Where relative paths of the config start, if this node has that folder.
        num_cpus: On how many cores.
        num_gpus: A part of one means that its memory is shared with other runs.

    Returns:
        Its exit status, or the negative number of the signal that killed it.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the cluster was started in the background
    with claimed_cores(num_cpus) as cores:
        child = Child(workdir, cores, cwd=cwd if cwd.is_dir() else None, gpu=GpuPart(share=num_gpus))
        try:
            return _wait(child)
        except KeyboardInterrupt:
            child.stop()
            return _wait(child)


def _wait(child: Child) -> int:
    """Wait for the end of a process, in steps between which an interrupt gets through."""
    while (status := child.status) is None:
        time.sleep(_SECONDS_A_LOOK)
    child.close()
    return status
