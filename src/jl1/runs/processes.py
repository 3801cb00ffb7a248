"""One run by several processes: how they find each other, see the same files, and take the same decisions.

Each process runs the same program on the same data. The first one's folder is the run's; the others work in a copy of
it that is thrown away, so that all find the same files and decide alike. What a clock or a signal decides is agreed on.
"""

import importlib.util
import io
import os
import tarfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import jax
import numpy as np
from absl import flags
from jax.experimental import multihost_utils

from jl1 import records
from jl1.errors import UserError
from jl1.runs.lock import hold_run

_LAUNCHERS = (
    ("SLURM_STEP_NUM_TASKS", "SLURM_PROCID"),
    ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"),
    ("PMI_SIZE", "PMI_RANK"),
)
"""Where srun, Open MPI's mpirun and MPICH's mpiexec say how many processes there are, and which this one is."""

_POD = "JOB_COMPLETION_INDEX"
"""Where an indexed job of Kubernetes says which of its pods this one is."""

_NOT_NEEDED = ("tensorboard", "audit", "checkpoints")
"""Folders of a run in which nothing is decided, or which `checkpoints` reads in the first process alone."""


class Meeting(NamedTuple):
    """How processes find each other; what is None, `jax.distributed` asks the cluster.

    Attributes:
        coordinator: HOST:PORT of the first process.
        num_processes: How many there are.
        process_id: Which this one is, from 0.
    """

    coordinator: str | None
    num_processes: int | None
    process_id: int | None


def find_meeting(given: Meeting, environ: Mapping[str, str]) -> Meeting | None:
    """Find out whether this process is one of several.

    Args:
        given: What the user says.
        environ: Variables that launchers set.

    Returns:
        How they meet, or None if this process is alone.

    Raises:
        UserError: Something is missing.

    Example:
        >>> find_meeting(Meeting("first:1234", None, None), {"PMI_SIZE": "4", "PMI_RANK": "3"})
        Meeting(coordinator='first:1234', num_processes=4, process_id=3)
        >>> find_meeting(Meeting(None, None, None), {}) is None
        True
    """
    coordinator = given.coordinator or environ.get("JAX_COORDINATOR_ADDRESS")
    found = [(int(environ[size]), int(environ[rank])) for size, rank in _LAUNCHERS if {size, rank} <= environ.keys()]
    if coordinator:
        size, rank = found[0] if found else (None, int(environ[_POD]) if _POD in environ else None)
        size = size if given.num_processes is None else given.num_processes
        rank = rank if given.process_id is None else given.process_id
        return _complete(Meeting(coordinator, size, rank))
    if given.num_processes is not None or given.process_id is not None:
        raise UserError("--num_processes and --process_id need --coordinator=HOST:PORT, the address of process 0")
    is_pod = _POD in environ and importlib.util.find_spec("kubernetes") is not None
    return Meeting(None, None, None) if is_pod or any(size > 1 for size, _ in found) else None


def join_by_flags(parsed: flags.FlagValues) -> None:
    """Meet the other processes, if there are any, as `cli_flags.define_processes` and the launcher say.

    Before JAX is asked for its devices.

    Raises:
        UserError: Something is missing, or they do not meet.
    """
    given = Meeting(parsed.coordinator, parsed.num_processes, parsed.process_id)
    meeting = None if parsed.alone else find_meeting(given, os.environ)
    if meeting is not None:
        _join(meeting)


def _join(meeting: Meeting) -> None:
    """Meet the other processes."""
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    try:
        jax.distributed.initialize(*meeting)
        multihost_utils.sync_global_devices("start")  # at once: gloo waits 30 seconds for a first meeting, no longer
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f"the processes did not meet: {error}\n(--coordinator=HOST:PORT --num_processes=N --process_id=I say how, "
            "--alone that there is only this one; docs/scale.md)"
        ) from error


def is_first() -> bool:
    """Say whether this process is the one that writes and speaks."""
    return jax.process_index() == 0


def any_process(is_so: bool) -> bool:
    """Say whether something is so in any process; all must ask."""
    return is_so if jax.process_count() == 1 else bool(np.any(multihost_utils.process_allgather(np.array(is_so))))


def smallest(value: int) -> int:
    """Return the smallest value that any process has; all must ask."""
    return value if jax.process_count() == 1 else int(np.min(multihost_utils.process_allgather(np.array(value))))


def check_same(described: Mapping[str, str]) -> None:
    """Refuse processes that differ in something.

    Raises:
        UserError: What, and in which processes.
    """
    if jax.process_count() == 1:
        return
    texts = [_text_of_all(text) for text in described.values()]
    for name, of_all in zip(described, texts, strict=True):
        others = [str(number) for number, text in enumerate(of_all) if text != of_all[0]]
        if others:
            raise UserError(
                f"the processes do not do the same: {name} of process {', '.join(others)} is not that of process 0. "
                "Independent runs side by side need --alone each"
            )


@contextmanager
def same_folder(workdir: Path) -> Iterator[Path]:
    """Give each process a folder with the same files: the first the real one, the others a copy for a while.

    Raises:
        RunHeldError: Another process than these works on the run.
    """
    if jax.process_count() == 1:
        yield workdir
        return
    content = from_first(lambda: _pack(workdir))
    if is_first():
        yield workdir
        return
    with TemporaryDirectory(prefix="jl1-") as copy:
        if content:
            with tarfile.open(fileobj=io.BytesIO(content)) as tar:
                tar.extractall(copy, filter="data")
        yield Path(copy)


def _complete(meeting: Meeting) -> Meeting:
    """Refuse a meeting of which something is not known."""
    missing = [f"--{name}" for name, value in meeting._asdict().items() if value is None]
    if missing:
        raise UserError(f"--coordinator needs {' and '.join(missing)} too: no launcher says it")
    return meeting


def _pack(workdir: Path) -> bytes:
    """Return the files of a run as a tar archive; nothing for a folder that holds none."""
    if not records.is_run(workdir):
        return b""
    archive = io.BytesIO()
    with hold_run(workdir), tarfile.open(fileobj=archive, mode="w") as tar:
        for path in sorted(workdir.iterdir()):
            if path.name not in _NOT_NEEDED:
                tar.add(path, arcname=path.name)
    return archive.getvalue()


def from_first(make_fn: Callable[[], bytes]) -> bytes:
    """Return what a function gives in the first process, or raise in all what it raises there."""
    if jax.process_count() == 1:
        return make_fn()
    content, problem = b"", None
    if is_first():
        try:
            content = make_fn()
        except UserError as error:
            problem = error
    failed = any_process(problem is not None)
    sent = str(problem).encode() if problem else content
    size = int(multihost_utils.broadcast_one_to_all(np.array(len(sent))))
    buffer = np.zeros(size, np.uint8)
    buffer[: len(sent)] = np.frombuffer(sent, np.uint8)
    received = np.asarray(multihost_utils.broadcast_one_to_all(buffer), np.uint8).tobytes()
    if failed:
        raise problem or UserError(received.decode())
    return received


def _text_of_all(text: str) -> list[str]:
    """Return a text of every process."""
    content = np.frombuffer(text.encode(), np.uint8)
    sizes = np.ravel(multihost_utils.process_allgather(np.array(len(content))))
    padded = np.pad(content, (0, int(sizes.max()) - len(content)))
    rows = np.asarray(multihost_utils.process_allgather(padded), np.uint8)
    return [row[:size].tobytes().decode() for row, size in zip(rows, sizes, strict=True)]
