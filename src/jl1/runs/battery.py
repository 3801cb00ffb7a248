"""One network under attacks, batch after batch; each batch's verdicts are kept on disk, so that a later start goes on.

What decides a verdict is hashed: parameters, model, points, attack, radius, random key, sizes of batches, jl1's own
code, versions and device. A batch on disk counts only if all of it is the same.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jl1 import records
from jl1.array_types import NormName, PRNGKey
from jl1.atomic_files import remove_halves
from jl1.attacks.budgets import Stage
from jl1.attacks.ensemble import ProgressFn, standard_attack
from jl1.attacks.norms import find_norm
from jl1.attacks.suite import Suite, settings_of, strength
from jl1.configuration.stored import json_digest
from jl1.data import Split
from jl1.datasets.cache import content_key
from jl1.devices import Devices
from jl1.errors import cannot_write
from jl1.runs.checkpoints import digest_of_arrays
from jl1.runs.reporting import Reporter
from jl1.runs.trained import Trained
from jl1.runs.verdicts import Verdicts, join, read_verdicts, write_verdicts

FOLDER = "evaluation"
"""Of the verdicts, in the folder of a run."""

_PIECES = "pieces"
_TOLERANCE = 1e-6  # for rounding, of a radius up to 1; of larger ones so many times as much


class Battery:
    """The attacks of a suite on the points of a run.

    Attributes:
        points: What is attacked.
        points_name: `test` or `validation`.
        num_points: How many there are, of which `points` may be the first few.
        checkpoint: Hash of the attacked parameters.
    """

    def __init__(
        self,
        workdir: Path,
        trained: Trained,
        suite: Suite,
        *,
        norm: NormName = "linf",
        points_name: str = "test",
        max_points: int | None = None,
        batch_size: int = 500,
        reporter: Reporter | None = None,
        sources: Mapping[str, str] | None = None,
        devices: Devices | None = None,
    ) -> None:
        """Prepare the folder of the verdicts, before hours are spent on them.

        Args:
            workdir: Folder of the run.
            trained: Its network.
            suite: Attacks by name.
            norm: Of the balls, "linf" or "l2".
            points_name: `test` or `validation`.
            max_points: So many points from the beginning; None for all.
            batch_size: Examples at a time, at least 1, and the unit that an interrupted evaluation goes on with.
            reporter: Told how far it is; silent if not given.
            sources: What else decides the verdicts of an attack, by its name, such as the source of a transfer.
            devices: What shares a batch; the first one if not given. How many there are decides no verdict.

        Raises:
            UserError: The folder cannot be written.
        """
        self._folder, self._trained, self._suite = workdir / FOLDER / _PIECES, trained, suite
        self._norm: NormName = norm
        self._reporter = reporter or Reporter()
        split = trained.data.points(points_name)
        self.points_name, self.num_points = points_name, len(split.labels)
        self.points = Split(*(part[:max_points] for part in split))
        size = min(batch_size, len(self.points.labels))
        self._batch_sizes = (size, max(size // 10, 1))
        self.checkpoint = digest_of_arrays(trained.params)
        self._devices, self._num_new = devices or Devices.one(), 0
        self._params = self._devices.replicate(trained.params)
        self._decided_by = {
            "checkpoint": self.checkpoint,
            "model": trained.config.model.to_dict(),
            "batch_sizes": self._batch_sizes,
            "norm": norm,
            "code": content_key(sorted(Path(__file__).parents[1].rglob("*.py"))),
            "versions": {name: text for name, text in records.versions().items() if name != "git_commit"},
            "device": [self._devices.platform, self._devices.kind],
        }
        self._sources = sources or {}
        _prepare_folder(self._folder)

    def attack(self, name: str, epsilon: float, title: str) -> Verdicts:
        """Attack all points, batch after batch, those left out of which there are verdicts already.

        Args:
            name: Of an attack of the suite.
            epsilon: Radius in the units of the inputs.
            title: What the reporter is told of it.

        Returns:
            One verdict a point.
        """
        total, size = len(self.points.labels), self._batch_sizes[0]
        pieces, num_new = [], self._num_new
        self._reporter.measured(title, 0, total)
        for start in range(0, total, size):
            points = Split(*(part[start : start + size] for part in self.points))
            pieces.append(self._piece(name, epsilon, points, start, title))
            if start + size >= total and self._num_new == num_new:
                self._reporter.kept(title)
            else:
                self._reporter.measured(title, start + len(points.labels), total)
        return join(pieces)

    def _piece(self, name: str, epsilon: float, points: Split, start: int, title: str) -> Verdicts:
        """Return the verdicts on one batch: those on disk if all that decides them is the same, else new ones."""
        stages, key = self._suite[name], jax.random.fold_in(self._trained.key, start)
        decided_by = (
            self._decided_by
            | {
                "stages": _describe(stages),
                "epsilon": epsilon,
                "key": jax.random.key_data(key).tolist(),
                "points": digest_of_arrays(points),
            }
            | ({"source": self._sources[name]} if name in self._sources else {})
        )
        digest = json_digest(decided_by)
        stem = file_stem(name, settings_of(stages), self._norm)
        path = self._folder / f"{stem}-{self.points_name}{start}-{epsilon!r}.npz"
        verdicts = read_verdicts(path, digest=digest, notice=self._reporter.notice)
        if verdicts is None:
            self._num_new += 1
            progress = self._progress(title, start, len(points.labels), list(stages))
            verdicts = self._attack_points(name, epsilon, points, key, progress)
            write_verdicts(path, verdicts, digest=digest)
        return verdicts

    def _attack_points(self, name: str, epsilon: float, points: Split, key: PRNGKey, progress: ProgressFn) -> Verdicts:
        """Attack one batch, and check that what comes back is inside the ball and the range."""
        attacked = standard_attack(
            self._trained.apply_fn,
            self._params,
            inputs=points.inputs,
            labels=points.labels,
            epsilon=epsilon,
            key=key,
            budget=self._suite[name],
            norm=self._norm,
            batch_sizes=self._batch_sizes,
            progress=progress,
            share_rows=self._devices.share_rows,
        )
        moves = jnp.asarray(attacked.inputs - points.inputs)
        farthest = float(np.max(find_norm(self._norm).length(moves)))
        outside = np.max(np.abs(attacked.inputs - np.clip(attacked.inputs, 0, 1)))
        is_inside = farthest <= epsilon + _TOLERANCE * max(epsilon, 1) and outside <= _TOLERANCE
        if not is_inside:  # not a number is outside too
            raise RuntimeError(
                f"{name} moved a point by {farthest} in {self._norm} (epsilon {epsilon}), {outside} out of [0, 1]"
            )
        return Verdicts(attacked.stands, attacked.broken_by.astype(str))

    def _progress(self, title: str, start: int, size: int, stages: list[str]) -> ProgressFn:
        """Make what turns the progress of the stages into a number of points; each stage counts alike."""

        def progress(stage: str, done: int, total: int) -> None:
            share = (stages.index(stage) + (done / total if total else 1.0)) / len(stages)
            if share < 1:  # the whole batch is told of once it is kept
                self._reporter.measured(title, start + int(share * size), len(self.points.labels))

        return progress


def file_stem(name: str, settings: Mapping[str, Any], norm: NormName = "linf") -> str:
    """Return a name for the files of an attack of this strength, such as `pgd-100-1` or `pgd-100-1-l2`."""
    strength_of = [str(value) for value in settings.values() if not name.endswith(f"_{value}")]  # pgd_margin's loss
    return "-".join([name, *strength_of, *([norm] if norm != "linf" else [])])


def _prepare_folder(folder: Path) -> None:
    """Make a folder, without the halves of files that a kill has left in it, or say why it cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        remove_halves(folder.parent)
        remove_halves(folder)
    except OSError as error:
        raise cannot_write(folder, error, "see to the disk or the permissions") from error


def _describe(stages: Mapping[str, Stage]) -> dict[str, Any]:
    """Return what stages run as plain types."""
    functions: dict[str, Any] = {
        name: getattr(stage.attack_fn, "func", stage.attack_fn) for name, stage in stages.items()
    }
    return {name: [functions[name].__name__, strength(stage)] for name, stage in stages.items()}
