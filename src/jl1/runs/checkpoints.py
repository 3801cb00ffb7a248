"""Checkpoints of a run, by orbax: one an epoch, the newest two kept, damaged ones passed over."""

import hashlib
import io
import json
import logging
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp

from jl1.array_types import Params
from jl1.errors import UserError
from jl1.runs.processes import from_first, is_first
from jl1.training import TrainState

_NUM_KEPT = 2


class Snapshot(NamedTuple):
    """The arrays of a checkpoint.

    Attributes:
        state: The state after the last epoch.
        best_params: Parameters of the best epoch, or an empty dict if the config does not ask for them.
    """

    state: TrainState
    best_params: Params


class Restored(NamedTuple):
    """An intact checkpoint.

    Attributes:
        epoch: Number of epochs it has seen.
        snapshot: Its arrays.
        progress: What was stored with them, plain JSON types.
    """

    epoch: int
    snapshot: Snapshot
    progress: dict[str, Any]


def has_checkpoints(folder: Path) -> bool:
    """Say whether there is a checkpoint in a folder of checkpoints, intact or not."""
    return folder.is_dir() and any(path.name.isdecimal() for path in folder.iterdir())


class Checkpoints:
    """The checkpoints of one run. Close it, or use it in a `with` statement."""

    def __init__(self, folder: Path) -> None:
        """Open the folder; it need not exist."""
        folder.mkdir(parents=True, exist_ok=True)
        options = ocp.CheckpointManagerOptions(
            max_to_keep=_NUM_KEPT,
            enable_async_checkpointing=False,
            create=False,
            multiprocessing_options=ocp.options.MultiprocessingOptions(active_processes={0}),
        )
        # of several processes the first alone reads and writes
        self._manager: Any = ocp.CheckpointManager(folder.absolute(), options=options) if is_first() else None

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_: object) -> None:
        if self._manager is not None:
            self._manager.close()

    def save(self, epoch: int, snapshot: Snapshot, progress: dict[str, Any]) -> None:
        """Save the state after an epoch; when this returns it survives a kill of the process.

        Checkpoints of this epoch and of later ones, which `restore` has passed over as damaged, go first.

        Raises:
            UserError: It cannot be written; the checkpoints before it are left as they are.
        """
        if self._manager is None:
            return
        described = {"progress": progress, "shapes": _shapes(snapshot), "digest": digest_of_arrays(snapshot)}
        items = ocp.args.Composite(
            arrays=ocp.args.StandardSave(snapshot._asdict()), description=ocp.args.JsonSave(described)
        )
        try:
            _require_room(Path(self._manager.directory), snapshot)
            for superseded in [each for each in self._manager.all_steps() if each >= epoch]:
                self._manager.delete(superseded)
            with _without_tracebacks():
                self._manager.save(epoch, args=items)
        except Exception as error:  # orbax and tensorstore raise many types where a file cannot be written
            raise UserError(
                f"cannot write the checkpoint of epoch {epoch} in {self._manager.directory} ({_first_line(error)}). "
                "Those before it are whole: see to the disk or the permissions, and give the same command again"
            ) from None  # the original holds a hundred unfinished writes, which complain when the process ends

    def restore(self, template: Snapshot, notice: Callable[[str], None]) -> Restored | None:
        """Restore the newest intact checkpoint; all processes of a run must ask for it.

        Args:
            template: Arrays of the same shapes and types, such as a fresh state.
            notice: Told of each damaged checkpoint that is passed over. It is left as it is, since what looks like
                damage may be a disk that fails for a moment, until its epoch is saved again.

        Returns:
            The checkpoint, or None if there is none.

        Raises:
            UserError: The checkpoint is of another model, or all are damaged.
        """
        if jax.process_count() == 1:
            return self._newest_intact(template, notice)
        template = jax.device_get(template)  # a device of one process is not for all
        return _from_bytes(from_first(lambda: _to_bytes(self._newest_intact(template, notice))), template)

    def _newest_intact(self, template: Snapshot, notice: Callable[[str], None]) -> Restored | None:
        """Restore the newest checkpoint that is not damaged."""
        damaged = []
        for epoch in sorted(self._manager.all_steps(), reverse=True):
            try:
                restored = self._restore_one(epoch, template)
            except UserError:
                raise
            except Exception as error:  # orbax and tensorstore raise many types for a damaged file
                damaged.append(epoch)
                notice(f"the checkpoint of epoch {epoch} is damaged, trying the one before it ({_first_line(error)})")
                continue
            return restored
        if damaged:
            raise UserError(
                f"all checkpoints in {self._manager.directory} are damaged: move the run away and start anew"
            )
        return None

    def _restore_one(self, epoch: int, template: Snapshot) -> Restored:
        """Restore one checkpoint and compare it with what was stored of it."""
        description = self._manager.restore(epoch, args=ocp.args.Composite(description=ocp.args.JsonRestore()))
        stored, expected = description["description"]["shapes"], _shapes(template)
        if stored != expected:
            raise UserError(
                f"the checkpoint of epoch {epoch} in {self._manager.directory} is of another model: "
                f"{_first_difference(stored, expected)}"
            )
        shapes = jax.tree.map(ocp.utils.to_shape_dtype_struct, template._asdict())
        arrays = self._manager.restore(epoch, args=ocp.args.Composite(arrays=ocp.args.StandardRestore(shapes)))
        snapshot = Snapshot(**arrays["arrays"])
        if digest_of_arrays(snapshot) != description["description"]["digest"]:
            raise ValueError("its content has changed since it was written")
        return Restored(epoch, snapshot, description["description"]["progress"])


def _require_room(folder: Path, snapshot: Snapshot) -> None:
    """Refuse to begin what will not fit: a full disk in the middle of it is met with less grace by tensorstore."""
    free, needed = shutil.disk_usage(folder).free, sum(leaf.nbytes for leaf in jax.tree.leaves(snapshot))
    if free < needed:
        raise OSError(f"no space left on the disk: {free:,} bytes, and it has up to {needed:,}")


@contextmanager
def _without_tracebacks() -> Iterator[None]:
    """Keep orbax from logging the tracebacks of errors that it raises too."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


def _to_bytes(restored: Restored | None) -> bytes:
    """Write a checkpoint for the other processes; nothing if there is none."""
    if restored is None:
        return b""
    content = io.BytesIO()
    described = json.dumps({"epoch": restored.epoch, "progress": restored.progress})
    np.savez(content, *map(np.asarray, jax.tree.leaves(restored.snapshot)), described=np.array(described))
    return content.getvalue()


def _from_bytes(content: bytes, template: Snapshot) -> Restored | None:
    """Read what another process wrote."""
    if not content:
        return None
    with np.load(io.BytesIO(content), allow_pickle=False) as stored:
        described = json.loads(str(stored["described"]))
        leaves = [stored[f"arr_{number}"] for number in range(len(stored.files) - 1)]
    return Restored(snapshot=jax.tree.unflatten(jax.tree.structure(template), leaves), **described)


def _shapes(snapshot: Snapshot) -> dict[str, str]:
    """Describe every array, by its path."""
    leaves = jax.tree_util.tree_leaves_with_path(snapshot._asdict())
    return {jax.tree_util.keystr(path): f"{leaf.dtype}{list(leaf.shape)}" for path, leaf in leaves}


def digest_of_arrays(tree: Snapshot | Params) -> str:
    """Hash the content of every array."""
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(tree):
        digest.update(np.asarray(leaf).tobytes())
    return digest.hexdigest()


def _first_difference(stored: dict[str, str], expected: dict[str, str]) -> str:
    """Say where two descriptions differ first."""
    for name in sorted({*stored, *expected}):
        if stored.get(name) != expected.get(name):
            there, here = stored.get(name, "absent"), expected.get(name, "absent")
            return f"{name} is {there} there and {here} by the config"
    return "the same arrays"


def _first_line(error: Exception) -> str:
    """Return what an error says, without its details: the beginning, and the end, where tensorstore has the reason."""
    said = str(error).splitlines()[0] if str(error) else "no message"
    return f"{type(error).__name__}: {said if len(said) < 200 else f'{said[:80]} ... {said[-110:]}'}"
