"""The attacks on a trained run: batch after batch, each kept on disk, so that an interrupted evaluation goes on."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jl1 import records
from jl1.array_types import PRNGKey
from jl1.attacks.ensemble import ProgressFn, Stage, standard_attack
from jl1.attacks.suite import ATTACKS, make_suite, strength
from jl1.checkpoints import digest_of_arrays
from jl1.data import Split
from jl1.data_cache import content_key
from jl1.errors import UserError
from jl1.evaluation import accuracy_interval
from jl1.reporting import Reporter
from jl1.run_lock import hold_run
from jl1.scoring import Row
from jl1.trained import Trained, load_trained
from jl1.verdicts import Verdicts, join, read_verdicts, worst_case, write_verdicts

WORST_CASE = "worst_case"
"""`attack` of the row that takes several attacks together."""

_FOLDER, _PIECES = "evaluation", "pieces"
_TOLERANCE = 1e-6  # of the radius, for rounding


class EvaluationOptions(NamedTuple):
    """What is attacked, by what, how hard.

    Attributes:
        epsilons: L-infinity radii, each in [0, 1].
        attacks: Names in `attacks.suite.ATTACKS`.
        budget: Strength of `standard` and its parts, a name in `attacks.ensemble.BUDGETS`.
        pgd_steps: Steps of a PGD restart.
        pgd_restarts: Random restarts of PGD.
        batch_size: Examples at a time, and the unit that an interrupted evaluation goes on with.
        points: `test` or `validation`.
        max_points: So many points from the beginning; None for all.
    """

    epsilons: Sequence[float]
    attacks: Sequence[str] = ATTACKS
    budget: str = "fast"
    pgd_steps: int = 100
    pgd_restarts: int = 1
    batch_size: int = 500
    points: str = "test"
    max_points: int | None = None


def evaluate_run(
    workdir: Path, *, options: EvaluationOptions, data_dir: str | None = None, reporter: Reporter | None = None
) -> list[Row]:
    """Attack the newest checkpoint of a run, and add the figures to its evaluation.json.

    A point that is wrong without an attack counts as broken, and every verdict is taken from the point that the
    attack returned. Interrupted and called again it goes on after the last finished batch, to the same figures.

    Args:
        workdir: Folder of the run.
        options: Attacks, radii, strength, points.
        data_dir: Folder with the data, if it is not where it was in training.
        reporter: Told what happens; silent if not given.

    Returns:
        The new rows, an attack and radius each, then the worst case at each radius if there are several attacks.
        In evaluation.json they stand beside the older ones, of which those that measure the same are replaced.

    Raises:
        UserError: No such run, no checkpoint, another model's or a damaged one, other data, or a folder that
            cannot be written or that another process works on.
    """
    reporter = reporter or Reporter()
    records.read_config(workdir)  # before the lock would make a folder that is no run's
    with hold_run(workdir):
        trained = load_trained(workdir, data_dir=data_dir, reporter=reporter)
        _make_folder(workdir / _FOLDER / _PIECES)
        return _Evaluation(workdir, trained, options, reporter).rows()


class _Evaluation:
    """One network under chosen attacks."""

    def __init__(self, workdir: Path, trained: Trained, options: EvaluationOptions, reporter: Reporter) -> None:
        self._workdir, self._trained, self._options, self._reporter = workdir, trained, options, reporter
        self._suite = make_suite(budget=options.budget, pgd_steps=options.pgd_steps, pgd_restarts=options.pgd_restarts)
        split = trained.data.validation if options.points == "validation" else trained.data.test
        self._num_points = len(split.labels)
        self._points = Split(*(part[: options.max_points] for part in split))
        size = min(options.batch_size, len(self._points.labels))
        self._batch_sizes = (size, max(size // 10, 1))
        self._checkpoint = digest_of_arrays(trained.params)
        device: Any = jax.devices()[0]
        self._decided_by = {
            "checkpoint": self._checkpoint,
            "model": trained.config.model.to_dict(),
            "batch_sizes": self._batch_sizes,
            "code": content_key(sorted(Path(__file__).parent.rglob("*.py"))),
            "versions": {name: text for name, text in records.versions().items() if name != "git_commit"},
            "device": [device.platform, device.device_kind],
        }

    def rows(self) -> list[Row]:
        """Run every attack, and take them together at each radius."""
        tasks = self.tasks()
        rows, found = [], {}
        for number, (name, epsilon) in enumerate(tasks, start=1):
            title = f"{name if name == 'clean' else f'{name} {epsilon:g}'} ({number} of {len(tasks)})"
            found[name, epsilon] = self.attack(name, epsilon, title)
            rows.append(self.record(name, epsilon, found[name, epsilon]))
        for epsilon in dict.fromkeys(epsilon for name, epsilon in tasks if name != "clean"):
            together = {name: found[name, radius] for name, radius in tasks if radius == epsilon and name != "clean"}
            if len(together) > 1:
                rows.append(self.record(WORST_CASE, epsilon, worst_case(list(together.values())), tuple(together)))
        return rows

    def tasks(self) -> list[tuple[str, float]]:
        """List the attacks, the weakest first, each with its radii."""
        radii = {name: (0.0,) if name == "clean" else self._options.epsilons for name in self._suite}
        chosen = [(name, float(epsilon)) for name in self._suite for epsilon in radii[name]]
        return list(dict.fromkeys(task for task in chosen if task[0] in self._options.attacks))

    def attack(self, name: str, epsilon: float, title: str) -> Verdicts:
        """Attack all points, batch after batch, those left out of which there are verdicts already."""
        total, size, pieces = len(self._points.labels), self._batch_sizes[0], []
        self._reporter.measured(title, 0, total)
        for start in range(0, total, size):
            points = Split(*(part[start : start + size] for part in self._points))
            pieces.append(self._piece(name, epsilon, points, start, title))
            self._reporter.measured(title, start + len(points.labels), total)
        return join(pieces)

    def record(self, name: str, epsilon: float, verdicts: Verdicts, members: Sequence[str] = ()) -> Row:
        """Write the verdicts on all points, and the row of evaluation.json."""
        num_right, num_examples = int(verdicts.stands.sum()), len(verdicts.stands)
        settings = {"attacks": {each: self._settings(each) for each in members}} if members else self._settings(name)
        path = Path(_FOLDER) / f"{_file_stem(name, settings)}-{self._options.points}{num_examples}-{epsilon!r}.npz"
        breakers, counts = np.unique(verdicts.broken_by[~verdicts.stands], return_counts=True)
        row = {
            "attack": name,
            "epsilon": epsilon,
            "labels": "true",
            "accuracy": num_right / num_examples,
            "interval": list(accuracy_interval(num_right, num_examples)),
            "points": self._options.points,
            "num_examples": num_examples,
            "num_points": self._num_points,
            "broken_by": dict(zip(breakers.tolist(), counts.tolist(), strict=True)),
            "epoch": self._trained.epoch,
            "checkpoint": self._checkpoint,
            "verdicts": path.as_posix(),
            **settings,
        }
        write_verdicts(self._workdir / path, verdicts, digest=self._checkpoint)
        kept = [old for old in records.read_evaluation(self._workdir) if _identity(old) != _identity(row)]
        records.write_evaluation(self._workdir, [*kept, row])
        return row

    def _settings(self, name: str) -> dict[str, Any]:
        """Return the strength of an attack as it stands in its row."""
        if name == "standard":
            return {"budget": self._options.budget}
        return strength(self._suite[name][name]) if self._suite[name] else {}

    def _piece(self, name: str, epsilon: float, points: Split, start: int, title: str) -> Verdicts:
        """Return the verdicts on one batch: those on disk if all that decides them is the same, else new ones."""
        key = jax.random.fold_in(self._trained.key, start)
        decided_by = self._decided_by | {
            "stages": _describe(self._suite[name]),
            "epsilon": epsilon,
            "key": jax.random.key_data(key).tolist(),
            "points": digest_of_arrays(points),
        }
        digest = _digest(decided_by)
        stem = f"{_file_stem(name, self._settings(name))}-{self._options.points}{start}-{epsilon!r}"
        path = self._workdir / _FOLDER / _PIECES / f"{stem}.npz"
        verdicts = read_verdicts(path, digest=digest, notice=self._reporter.notice)
        if verdicts is None:
            progress = self._progress(title, start, len(points.labels), list(self._suite[name]))
            verdicts = self._attack_points(name, epsilon, points, key, progress)
            write_verdicts(path, verdicts, digest=digest)
        return verdicts

    def _attack_points(self, name: str, epsilon: float, points: Split, key: PRNGKey, progress: ProgressFn) -> Verdicts:
        """Attack one batch, and check that what comes back is inside the ball and the range."""
        attacked = standard_attack(
            self._trained.apply_fn,
            self._trained.params,
            inputs=points.inputs,
            labels=points.labels,
            epsilon=epsilon,
            key=key,
            budget=self._suite[name],
            batch_sizes=self._batch_sizes,
            progress=progress,
        )
        farthest = np.max(np.abs(attacked.inputs - points.inputs))
        outside = np.max(np.abs(attacked.inputs - np.clip(attacked.inputs, 0, 1)))
        if not (farthest <= epsilon + _TOLERANCE and outside <= _TOLERANCE):  # not a number is outside too
            raise RuntimeError(f"{name} moved a point by {farthest} (epsilon {epsilon}), {outside} out of [0, 1]")
        return Verdicts(attacked.stands, attacked.broken_by.astype(str))

    def _progress(self, title: str, start: int, size: int, stages: list[str]) -> ProgressFn:
        """Make what turns the progress of the stages into a number of points; each stage counts alike."""

        def progress(stage: str, done: int, total: int) -> None:
            share = (stages.index(stage) + (done / total if total else 1.0)) / len(stages)
            if share < 1:  # the whole batch is told of once it is kept
                self._reporter.measured(title, start + int(share * size), len(self._points.labels))

        return progress


def _make_folder(folder: Path) -> None:
    """Make the folder of the batches before hours are spent on them."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror or error}") from error


def _describe(stages: Mapping[str, Stage]) -> dict[str, Any]:
    """Return what stages run as plain types."""
    functions: Any = {name: getattr(stage.attack_fn, "func", stage.attack_fn) for name, stage in stages.items()}
    return {name: [functions[name].__name__, strength(stage)] for name, stage in stages.items()}


def _digest(decided_by: dict[str, Any]) -> str:
    """Hash plain types."""
    return hashlib.sha256(json.dumps(decided_by, sort_keys=True).encode()).hexdigest()


def _file_stem(name: str, settings: dict[str, Any]) -> str:
    """Return a name for the files of an attack of this strength, such as `pgd-100-1`."""
    if name == WORST_CASE:
        return f"{name}-{_digest(settings)[:8]}"
    return "-".join([name, *(str(value) for key, value in settings.items() if key != "loss_fn")])


def _identity(row: Row) -> dict[str, Any]:
    """Return what tells one accuracy from another."""
    figures = ("accuracy", "interval", "broken_by", "num_points", "epoch", "checkpoint", "verdicts")
    return {"points": "test"} | {key: value for key, value in row.items() if key not in figures}
