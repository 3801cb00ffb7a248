"""The attacks on a trained run: batch after batch, each kept on disk, so that an interrupted evaluation goes on."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jl1 import records
from jl1.array_types import NormName
from jl1.attacks.suite import ATTACKS, make_suite, settings_of
from jl1.configuration.stored import json_digest
from jl1.devices import Devices
from jl1.evaluation import accuracy_interval
from jl1.runs.battery import FOLDER, Battery, file_stem
from jl1.runs.lock import hold_run
from jl1.runs.reporting import Reporter
from jl1.runs.scoring import Row
from jl1.runs.trained import Trained, load_trained
from jl1.runs.verdicts import Verdicts, worst_case, write_verdicts

WORST_CASE = "worst_case"
"""`attack` of the row that takes several attacks together."""


class EvaluationOptions(NamedTuple):
    """What is attacked, by what, how hard.

    Attributes:
        epsilons: Radii in the units of the inputs; in L-infinity each in [0, 1].
        attacks: Names in `attacks.suite.ATTACKS`.
        budget: Strength of `standard` and its parts, a name in `attacks.budgets.BUDGETS`.
        pgd_steps: Steps of a PGD restart.
        pgd_restarts: Random restarts of PGD.
        batch_size: Examples at a time, and the unit that an interrupted evaluation goes on with.
        points: `test` or `validation`.
        max_points: So many points from the beginning; None for all.
        norm: Of the balls that the attacks stay in, "linf" or "l2".
    """

    epsilons: Sequence[float]
    attacks: Sequence[str] = ATTACKS
    budget: str = "fast"
    pgd_steps: int = 100
    pgd_restarts: int = 1
    batch_size: int = 500
    points: str = "test"
    max_points: int | None = None
    norm: NormName = "linf"


def evaluate_run(
    workdir: Path,
    *,
    options: EvaluationOptions,
    data_dir: str | None = None,
    reporter: Reporter | None = None,
    devices: Devices | None = None,
) -> list[Row]:
    """Attack the newest checkpoint of a run, and add the figures to its evaluation.json.

    A point that is wrong without an attack counts as broken, and every verdict is taken from the point that the
    attack returned. Interrupted and called again it goes on after the last finished batch, to the same figures.

    Args:
        workdir: Folder of the run.
        options: Attacks, radii, strength, points.
        data_dir: Folder with the data, if it is not where it was in training.
        reporter: Told what happens; silent if not given.
        devices: What shares a batch; all that JAX has if not given.

    Returns:
        The new rows, an attack and radius each, then the worst case at each radius if there are several attacks.
        In evaluation.json they stand beside the older ones, of which those that measure the same are replaced.

    Raises:
        UserError: No such run, no checkpoint, another model's or a damaged one, other data, an evaluation.json that
            cannot be read, or a folder that cannot be written or that another process works on.
    """
    reporter = reporter or Reporter()
    records.read_config(workdir)  # before the lock would make a folder that is no run's
    with hold_run(workdir):
        records.read_evaluation(workdir)  # before the attacks: rows that cannot be read cannot be kept either
        trained = load_trained(workdir, data_dir=data_dir, reporter=reporter)
        return _Evaluation(workdir, trained, options, reporter, devices or Devices()).rows()


class _Evaluation:
    """The attacks that were chosen, and the rows that come of them."""

    def __init__(
        self, workdir: Path, trained: Trained, options: EvaluationOptions, reporter: Reporter, devices: Devices
    ) -> None:
        self._workdir, self._trained, self._options = workdir, trained, options
        self._suite = make_suite(budget=options.budget, pgd_steps=options.pgd_steps, pgd_restarts=options.pgd_restarts)
        self.battery = Battery(
            workdir,
            trained,
            self._suite,
            norm=options.norm,
            points_name=options.points,
            max_points=options.max_points,
            batch_size=options.batch_size,
            reporter=reporter,
            devices=devices,
        )

    def rows(self) -> list[Row]:
        """Run every attack, and take them together at each radius."""
        tasks = self.tasks()
        rows, found = [], {}
        for number, (name, epsilon) in enumerate(tasks, start=1):
            attack = "clean" if name == "clean" else f"{'L2 ' * (self._options.norm == 'l2')}{name} {epsilon:g}"
            title = f"{attack} ({number} of {len(tasks)})"
            found[name, epsilon] = self.battery.attack(name, epsilon, title)
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

    def record(self, name: str, epsilon: float, verdicts: Verdicts, members: Sequence[str] = ()) -> Row:
        """Write the verdicts on all points, and the row of evaluation.json."""
        num_right, num_examples = int(verdicts.stands.sum()), len(verdicts.stands)
        settings = {"attacks": {each: self._settings(each) for each in members}} if members else self._settings(name)
        norm = "linf" if name == "clean" else self._options.norm
        stem = file_stem(f"{name}-{json_digest(settings)[:8]}" if members else name, {} if members else settings, norm)
        path = Path(FOLDER) / f"{stem}-{self._options.points}{num_examples}-{epsilon!r}.npz"
        breakers, counts = np.unique(verdicts.broken_by[~verdicts.stands], return_counts=True)
        row = {
            "attack": name,
            "epsilon": epsilon,
            "norm": norm,
            "labels": "true",
            "accuracy": num_right / num_examples,
            "interval": list(accuracy_interval(num_right, num_examples)),
            "points": self._options.points,
            "num_examples": num_examples,
            "num_points": self.battery.num_points,
            "broken_by": dict(zip(breakers.tolist(), counts.tolist(), strict=True)),
            "epoch": self._trained.epoch,
            "checkpoint": self.battery.checkpoint,
            "verdicts": path.as_posix(),
            **settings,
        }
        write_verdicts(self._workdir / path, verdicts, digest=self.battery.checkpoint)
        kept = [old for old in records.read_evaluation(self._workdir) if _identity(old) != _identity(row)]
        records.write_evaluation(self._workdir, [*kept, row])
        return row

    def _settings(self, name: str) -> dict[str, Any]:
        """Return the strength of an attack as it stands in its row."""
        return settings_of(self._suite[name])


def _identity(row: Row) -> dict[str, Any]:
    """Return what tells one accuracy from another."""
    figures = ("accuracy", "interval", "broken_by", "num_points", "epoch", "checkpoint", "verdicts", "attacks")
    members = {name: _strength(settings) for name, settings in row.get("attacks", {}).items()}
    rest = {key: value for key, value in row.items() if key not in figures}
    return {"points": "test", "norm": "linf", "attacks": members} | _strength(rest)


def _strength(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out what earlier versions did not write, so that a new figure takes the place of theirs."""
    return {key: value for key, value in settings.items() if key != "schedule_queries"}
