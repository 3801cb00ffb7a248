"""The audit of a run: its newest checkpoint, attacked and examined; audit.json, a page to read, and pictures."""

import time
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jl1 import records
from jl1.array_types import LogitsFn
from jl1.attacks.suite import Suite, settings_of
from jl1.audit.attacks import make_audit_suite
from jl1.audit.auditing import Audit, audit_network, audit_tasks
from jl1.audit.check import Check
from jl1.config import Config
from jl1.datasets.tiles import tiled_name
from jl1.errors import UserError
from jl1.evaluation import accuracy_interval
from jl1.runs.battery import Battery
from jl1.runs.checkpoints import digest_of_arrays
from jl1.runs.lock import hold_run
from jl1.runs.reporting import Reporter
from jl1.runs.trained import Trained, load_trained

USUAL_RADIUS = 0.1
"""What is asked about where nothing was attacked in training."""


class AuditOptions(NamedTuple):
    """What is audited, how hard.

    Attributes:
        epsilon: L-infinity radius, in (0, 1]; None: that of the training, or `USUAL_RADIUS`.
        budget: Of the ensemble, a name in `attacks.budgets.BUDGETS`.
        points: `test` or `validation`.
        max_points: So many points from the beginning; None for all.
        num_examined: Points that the measures of gradients look at.
        batch_size: Examples at a time.
        transfer_from: Folder of another run on the same data, whose adversarial examples are tried too.
    """

    epsilon: float | None = None
    budget: str = "fast"
    points: str = "test"
    max_points: int | None = 1000
    num_examined: int = 200
    batch_size: int = 500
    transfer_from: Path | None = None


class RunAudit(NamedTuple):
    """The audit of a run.

    Attributes:
        trained: The network.
        audit: What was found.
        content: Of audit.json.
    """

    trained: Trained
    audit: Audit
    content: dict[str, Any]


def audit_run(
    workdir: Path, *, options: AuditOptions, data_dir: str | None = None, reporter: Reporter | None = None
) -> RunAudit:
    """Audit the newest checkpoint of a run and write its audit.json.

    The attacks' verdicts are kept batch by batch as those of `jl1 evaluate` are: interrupted and called again, it goes
    on after the last finished batch. A new audit takes the place of the last one.

    Args:
        workdir: Folder of the run.
        options: Radius, strength, points.
        data_dir: Folder with the data, if it is not where it was in training.
        reporter: Told what happens; silent if not given.

    Returns:
        The audit.

    Raises:
        UserError: No such run, no checkpoint, another model's or a damaged one, other data, a network that has no
            point right, or a folder that cannot be written or that another process works on.
    """
    records.read_config(workdir)  # before the lock would make a folder that is no run's
    with hold_run(workdir):
        return _audit(workdir, options, data_dir, reporter or Reporter())


def _audit(workdir: Path, options: AuditOptions, data_dir: str | None, reporter: Reporter) -> RunAudit:
    """Audit the run of a folder that this process holds."""
    start = time.perf_counter()
    trained = load_trained(workdir, data_dir=data_dir, reporter=reporter)
    config = trained.config
    epsilon = options.epsilon or config.adversarial.epsilon or USUAL_RADIUS
    source = load_trained(options.transfer_from, data_dir=data_dir) if options.transfer_from else None
    suite = make_audit_suite(options.budget, source_logits_fn=_bind(source, trained) if source else None)
    battery = Battery(
        workdir,
        trained,
        suite,
        points_name=options.points,
        max_points=options.max_points,
        batch_size=options.batch_size,
        reporter=reporter,
        sources={"transfer": digest_of_arrays(source.params)} if source else None,
    )
    tasks = audit_tasks(suite, epsilon)

    def stands(name: str, radius: float) -> np.ndarray:
        what = f"{name} {radius:g}" if radius else name
        title = f"{what} ({1 + tasks.index((name, radius))} of {len(tasks)})"
        return battery.attack(name, radius, title).stands

    try:
        audit = audit_network(
            trained.apply_fn,
            trained.params,
            inputs=battery.points.inputs,
            labels=battery.points.labels,
            epsilon=epsilon,
            key=trained.key,
            suite=suite,
            module=trained.module,
            stands_fn=stands,
            num_points=battery.num_points,
            num_examined=options.num_examined,
            batch_size=min(options.batch_size, 100),
            progress=reporter.examined,
        )
    except ValueError as error:
        raise UserError(f"{workdir} cannot be audited: {error}") from error
    audit.checks.insert(0, _selection(config, trained.epoch, options.points))
    made = _made(options, battery) | {"epoch": trained.epoch, "seconds": round(time.perf_counter() - start, 1)}
    content = _findings(audit, suite) | made
    records.write_audit(workdir, content)
    return RunAudit(trained, audit, content)


def _findings(audit: Audit, suite: Suite) -> dict[str, Any]:
    """Return what was found, as plain types."""
    verdicts = {**audit.standing, **audit.certified}
    return {
        "schema": records.AUDIT_SCHEMA,
        "finding": audit.conclusion.finding,
        "sentence": audit.conclusion.sentence,
        "is_masked": audit.conclusion.is_masked,
        "epsilon": audit.epsilon,
        "accuracies": [_row(task, stands, suite) for task, stands in verdicts.items()],
        "checks": [{**check._asdict(), "values": dict(check.values)} for check in audit.checks],
    }


def _made(options: AuditOptions, battery: Battery) -> dict[str, Any]:
    """Return how it was found, as plain types."""
    return {
        "points": options.points,
        "num_examples": len(battery.points.labels),
        "num_points": battery.num_points,
        "budget": options.budget,
        "transfer_from": str(options.transfer_from) if options.transfer_from else None,
        "checkpoint": battery.checkpoint,
        "versions": records.versions(),
        "device": jax.devices()[0].device_kind,
    }


def _bind(source: Trained, trained: Trained) -> LogitsFn:
    """Return another run's network, if it is one for the same data."""
    same_data = source.data.fingerprint == trained.data.fingerprint
    if not same_data or source.config.data.tiles != trained.config.data.tiles:
        names = [tiled_name(run.data.name, run.config.data.tiles) for run in (source, trained)]
        raise UserError(f"--transfer_from: that run was trained on {names[0]}, this one on {names[1]}")
    return partial(source.apply_fn, source.params)


def _selection(config: Config, epoch: int, points: str) -> Check:
    """Say how the checkpoint was chosen."""
    best = config.training.weights == "best"
    figure = "the best epoch on the validation points" if best else f"the last epoch, {epoch}"
    chosen_here = best and points == "validation"
    advice = "Audit it on the test points: it was chosen on these."
    outcome = "WARN" if chosen_here else "PASS"
    return Check("checkpoint not chosen on these points", "hygiene", outcome, figure, advice, False, {})


def _row(task: tuple[str, float], stands: np.ndarray, suite: Suite) -> dict[str, Any]:
    """Return an accuracy as it stands in audit.json."""
    name, epsilon = task
    num_right = int(stands.sum())
    return {
        "attack": name,
        "epsilon": epsilon,
        "accuracy": num_right / len(stands),
        "interval": list(accuracy_interval(num_right, len(stands))),
        "num_examples": len(stands),
        **settings_of(suite.get(name, {})),
    }
