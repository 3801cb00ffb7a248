"""Runs on a Ray cluster: a task for each, which has the run's process as a child on its node."""

import math
import os
import signal
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from tempfile import NamedTemporaryFile
from types import ModuleType
from typing import Any, NamedTuple

from jl1.cores import usable_cores
from jl1.errors import EXIT_INTERRUPTED, UserError
from jl1.sweep.node import look, run_to_its_end

_SECONDS_TO_CONNECT = 5.0
_SECONDS_TO_LOOK = 120.0
_SECONDS_TO_END = 10.0
_KILLED = {-signal.SIGKILL: "SIGKILL", -signal.SIGTERM: "SIGTERM", EXIT_INTERRUPTED: "SIGTERM"}


class Needs(NamedTuple):
    """What Ray is to keep for each run.

    Attributes:
        num_cpus: Cores.
        num_gpus: Accelerators, or the part of one.
    """

    num_cpus: int = 1
    num_gpus: float = 0.0

    def fit(self, resources: Mapping[str, float]) -> int:
        """Say how many runs a node of these resources has room for.

        Example:
            >>> Needs(2, 0.5).fit({"CPU": 16.0, "GPU": 1.0}), Needs().fit({"GPU": 1.0})
            (2, 0)
        """
        needs = {"CPU": float(self.num_cpus), "GPU": self.num_gpus}
        room = [resources.get(name, 0.0) / number for name, number in needs.items() if number > 0]
        return math.floor(min(room) + 1e-6)  # ten tenths of a GPU are one


@contextmanager
def open_ray(address: str | None, needs: Needs, num_workers: int | None = None) -> Iterator["RayEngine"]:
    """Connect to a Ray cluster, or start one on this machine for as long as the sweep takes.

    Args:
        address: `auto`, `HOST:PORT`, or `local` for one of its own; RAY_ADDRESS, or else `local`, if not given.
        needs: Of each run.
        num_workers: How many runs are given to Ray at once, also when it has no room for them; as many as fit if not
            given.

    Yields:
        The engine.

    Raises:
        UserError: Ray is not installed, no cluster answers, or it has no node for such runs.
    """
    ray = _import_ray()
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    try:
        place = _connect(ray, address)
        yield RayEngine(ray, place, needs, num_workers)
    finally:
        ray.shutdown()


def _import_ray() -> ModuleType:
    """Import Ray, which takes a second."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a cluster that we start reports nothing to anyone
    try:
        import ray
    except ImportError as error:
        raise UserError(
            "--engine=ray needs the package ray: pip install '.[ray]' in jl1's checkout, on every node"
        ) from error
    return ray


def _connect(ray: ModuleType, address: str) -> str:
    """Connect, or start a cluster; say where it is."""
    quiet = {"log_to_driver": False, "logging_level": "error"}
    if address == "local":
        ray.init(address, num_cpus=len(usable_cores()), include_dashboard=False, **quiet)
        return "on a Ray cluster of its own on this machine"
    if address != "auto":
        _require_answer(address)
    try:
        ray.init(address, **quiet)
    except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise UserError(
            f"cannot join the Ray cluster at {address}: {error} (run the sweep on one of its nodes; where the cluster "
            "has a token, with RAY_AUTH_MODE=token)"
        ) from error
    return f"on the Ray cluster at {ray.get_runtime_context().gcs_address}"


def _require_answer(address: str) -> None:
    """Refuse an address at which nobody listens, for which Ray would wait two minutes and then end the process."""
    host, _, port = address.rpartition(":")
    if not (host and port.isdecimal()):
        raise UserError(f"--ray_address={address}: give auto, local or HOST:PORT of the cluster's head")
    try:
        socket.create_connection((host, int(port)), _SECONDS_TO_CONNECT).close()
    except OSError as error:
        raise UserError(
            f"no Ray cluster answers at {address} ({error}): start its head with ray start --head"
        ) from error


class RayEngine:
    """Runs as tasks of a Ray cluster.

    Attributes:
        place: Which cluster.
        cores_of_a_run: As many of this machine as a run gets.
    """

    def __init__(self, ray: ModuleType, place: str, needs: Needs, num_workers: int | None) -> None:
        """Refuse a cluster without a node for such runs, unless the user counts on one that comes."""
        self.cores_of_a_run = usable_cores()[: needs.num_cpus]
        self.place, self._ray, self._needs, self._num_workers = place, ray, needs, num_workers
        self._options = {"num_cpus": needs.num_cpus, "num_gpus": needs.num_gpus, "max_retries": 0}
        if self.num_workers == 0:
            there = [
                [f"{node['Resources'].get(name, 0):g} {name}" for name in ("CPU", "GPU")] for node in self._nodes()
            ]
            raise UserError(
                f"no node has {needs.num_cpus} CPU and {needs.num_gpus:g} GPU for a run; there are nodes of "
                f"{'; '.join(map(' and '.join, there))}. Give less to --cpus_per_run or --gpus_per_run, or --workers=N "
                "to wait for a node that is to come"
            )

    @property
    def num_workers(self) -> int:
        """How many runs fit on the nodes that are there now, or how many the user wants in Ray's hands."""
        return self._num_workers or sum(self._needs.fit(node["Resources"]) for node in self._nodes())

    def require_folder(self, folder: Path) -> None:
        """Refuse to go on unless every node that may get a run sees the folder, and has this jl1."""
        with NamedTemporaryFile(dir=folder, prefix=".seen_by_all_nodes_") as file:
            nodes = [node for node in self._nodes() if self._needs.fit(node["Resources"])]
            views = [
                (node["NodeManagerHostname"], self._look(node["NodeID"], Path(file.name).absolute())) for node in nodes
            ]
            complaints = [text for name, view in views if (text := self._complaint(name, view, folder))]
        if complaints:
            raise UserError("\n".join(complaints))

    def start(self, workdir: Path) -> "RayAttempt":
        """Give a run to Ray."""
        task = self._ray.remote(**self._options, name=workdir.name)(run_to_its_end)
        return RayAttempt(self._ray, task.remote(workdir.absolute(), Path.cwd(), *self._needs))

    def _nodes(self) -> list[dict[str, Any]]:
        """List the nodes that are alive."""
        return [node for node in self._ray.nodes() if node["Alive"]]

    def _look(self, node_id: str, file: Path) -> Any:
        """Ask a node whether it sees a file."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        there = NodeAffinitySchedulingStrategy(node_id, soft=False)
        return self._ray.remote(num_cpus=0, max_retries=0, scheduling_strategy=there)(look).remote(file)

    def _complaint(self, name: str, view: Any, folder: Path) -> str | None:
        """Say what is wrong with a node, if something is."""
        try:
            found, wanted = self._ray.get(view, timeout=_SECONDS_TO_LOOK), version("jl1")
        except self._ray.exceptions.RayError as error:
            return f"the node {name} cannot run jl1 ({_in_words(error)}): install jl1 {version('jl1')} with Ray on it"
        if found.version != wanted:
            return f"the node {name} has jl1 {found.version}, and this machine {wanted}: install the same on both"
        if not found.has_file:
            return (
                f"the node {name} does not see {folder.absolute()}: give a --workdir that all nodes share by one name"
            )
        return None


class RayAttempt:
    """The task of one run."""

    def __init__(self, ray: ModuleType, task: Any) -> None:
        """Take the reference to what the task returns."""
        self._ray, self._task = ray, task
        self._status: int | None = None
        self._lost: str | None = None

    @property
    def status(self) -> int | None:
        """Exit status of the run's process, or None while it runs or waits for a node with room for it."""
        if self._status is None and self._ray.wait([self._task], timeout=0)[0]:
            self._collect()
        return self._status

    @property
    def lost(self) -> str | None:
        """Why the process is gone, if it, its worker or its node was killed or broke down."""
        return self._lost

    def stop(self) -> None:
        """Interrupt the task, which then stops the process; one that waits for room is only withdrawn."""
        self._ray.cancel(self._task)

    def kill(self) -> None:
        """End the task's worker at once; the process, which has a pipe from it, ends with it."""
        self._ray.cancel(self._task, force=True)

    def close(self) -> None:
        """Wait for the end of the task."""
        self._ray.wait([self._task], timeout=_SECONDS_TO_END)

    def _collect(self) -> None:
        """Take what the task returned, or how it ended instead."""
        try:
            status = self._ray.get(self._task)
        except self._ray.exceptions.RayError as error:
            self._status, self._lost = EXIT_INTERRUPTED, _in_words(error)
        else:
            self._status = status
            self._lost = f"its process was ended by {_KILLED[status]}" if status in _KILLED else None


def _in_words(error: Exception) -> str:
    """Say in one line what Ray reports; of an error in a task the last line is the cause."""
    lines = f"{error}".strip().splitlines() or ["no more is known"]
    return f"{type(error).__name__}: {lines[-1] if hasattr(error, 'cause') else lines[0]}"[:300]
