"""One run, from a config to its folder."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from jl1 import records
from jl1.array_types import Params
from jl1.classifier_check import check_classifier
from jl1.config import Config
from jl1.configuration.checks import validate_config
from jl1.configuration.files import config_to_dict, with_whole_path
from jl1.data import Dataset, epoch_indices
from jl1.devices import Devices
from jl1.runs.checkpoints import Checkpoints
from jl1.runs.evaluator import EvaluationOptions, evaluate_run
from jl1.runs.folder import check_workdir, open_run
from jl1.runs.gradient_plans import describe_plan
from jl1.runs.lock import hold_run
from jl1.runs.problems import Problem, attack_key, create_problem, load_data
from jl1.runs.processes import any_process, check_same
from jl1.runs.reporting import Reporter, StoppableReporter
from jl1.runs.scoring import AttackOptions, score_accuracies, score_norms
from jl1.runs.trainer import Trainer
from jl1.training import Examples


def train_and_evaluate(
    config: Config,
    workdir: Path,
    *,
    reporter: Reporter | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    devices: Devices | None = None,
) -> dict[str, Any]:
    """Train, attack and record one run; go on with it if the folder holds it unfinished.

    Killed at any moment and called again, it ends with the same parameters and figures to the last bit. The attacks
    of `config.evaluation.attacks` come after training and before the figures of result.json, which is written last.

    Args:
        config: All settings, from `config.default_config` or a config file.
        workdir: Folder of the run.
        reporter: Told what happens; silent if not given.
        should_stop: Asked between pieces of an epoch; True ends training after the last whole epoch. Asked in the
            attacks and figures of a complete training too, which True ends at the next batch.
        devices: What shares the batches; all that JAX has if not given.

    Returns:
        The content of result.json.

    Raises:
        UserError: A bad config, data that are not there, or a folder that cannot be used.
        RunHeldError: Another process works on the run.
        DivergedError: The loss became infinite or not a number.
        InterruptedEarlyError: `should_stop` before the first epoch was over, or before the figures of a complete
            training were.
    """
    reporter, devices = reporter or Reporter(), devices or Devices()
    records.versions()  # of the code that runs, whatever becomes of the checkout meanwhile
    validate_config(config)
    config = with_whole_path(config)
    if config.log.tensorboard:
        records.require_tensorboard()
    data = load_data(config)
    epoch_indices(len(data.train.labels), config.training.batch_size, seed=0, epoch=0)  # refuses a bad size
    problem = create_problem(config, data)
    check_classifier(partial(problem.apply_fn, problem.state.params), jnp.asarray(data.train.inputs[:8]))
    check_same(_what_decides(config, data))
    check_workdir(workdir, config_to_dict(config))
    with hold_run(workdir):
        open_run(workdir, config_to_dict(config))
        return _run(config, data, problem, workdir, reporter, lambda: any_process(should_stop()), devices)


def _what_decides(config: Config, data: Dataset) -> dict[str, str]:
    """Describe what all processes of a run must have alike."""
    settings = config_to_dict(config)
    settings["data"]["dir"] = None  # each may have its own copy
    return {
        "the config": json.dumps(settings, sort_keys=True),
        "the data": str(data.fingerprint),
        "the versions": json.dumps(records.versions()),
    }


def _run(
    config: Config,
    data: Dataset,
    problem: Problem,
    workdir: Path,
    reporter: Reporter,
    should_stop: Callable[[], bool],
    devices: Devices,
) -> dict[str, Any]:
    """Do what is left of a run: epochs, attacks, figures."""

    def figures(reporter: Reporter = reporter) -> dict[str, Any]:
        with training.stopwatch.section("evaluate"):
            return _figures(config, problem, training.evaluated_params(), data, reporter, devices)

    with Checkpoints(workdir / "checkpoints") as checkpoints:
        training = Trainer(config, data, problem, checkpoints, reporter, devices)
        training.restore(workdir)
        reporter.started(config, data, workdir, training.num_epochs)
        for line in describe_plan(problem.plan):
            reporter.notice(line)
        if devices.platform != "cpu":  # XLA tries many kernels there, on the cores that this process may use
            reporter.notice(f"compiling for {devices.kind}: minutes before the first epoch, but for what the cache has")
        training.run(workdir, should_stop, lambda: _keep_on_the_way(config, workdir, training.num_epochs, figures))
    if training.stopped_because != records.INTERRUPTED:
        reporter = StoppableReporter(reporter, should_stop)
        _attack(config, workdir, training, reporter, devices)
    on_the_way = {"at_epochs": _on_the_way(workdir, training.num_epochs)}
    result = _result(config, problem, training, figures(reporter) | on_the_way, devices)
    records.write_result(workdir, result)
    return result


def _keep_on_the_way(config: Config, workdir: Path, epoch: int, figures: Callable[[], dict[str, Any]]) -> None:
    """Take the figures of an epoch for which the config asks, unless they are there from before a kill."""
    rows = _on_the_way(workdir, epoch)
    if epoch in config.evaluation.epochs and epoch not in [row["epoch"] for row in rows]:
        records.write_at_epochs(workdir, [*rows, {"epoch": epoch, **figures()}])


def _on_the_way(workdir: Path, num_epochs: int) -> list[dict[str, Any]]:
    """Return the figures taken on the way to an epoch; later ones are from before a checkpoint was damaged."""
    return [row for row in records.read_at_epochs(workdir) if row["epoch"] <= num_epochs]


def _attack(config: Config, workdir: Path, training: Trainer, reporter: Reporter, devices: Devices) -> None:
    """Run the attacks that the config asks for, and add their rows to evaluation.json."""
    settings = config.evaluation
    if not settings.attacks:
        return
    fields = [name for name in EvaluationOptions._fields if name != "norm"]  # the config's radii are L-infinity
    options = EvaluationOptions(**{name: settings[name] for name in fields})
    with training.stopwatch.section("evaluate"):
        evaluate_run(workdir, options=options, reporter=reporter, devices=devices)


def _figures(
    config: Config, problem: Problem, params: Params, data: Dataset, reporter: Reporter, devices: Devices
) -> dict[str, Any]:
    """Measure everything that result.json says of a network."""
    settings = config.evaluation
    options = AttackOptions(settings.epsilons, settings.pgd_steps, settings.pgd_restarts, settings.batch_size)
    points = Examples(*(jnp.asarray(part) for part in data.points(settings.points)))
    accuracies = score_accuracies(
        problem.apply_fn,
        params,
        points=points,
        options=options,
        key=attack_key(config, 2),
        progress=reporter.measured,
        share_rows=devices.share_rows,
    )
    norms = score_norms(
        problem.apply_fn,
        params,
        points=points,
        batch_size=settings.batch_size,
        progress=reporter.measured,
        share_rows=devices.share_rows,
    )
    return {"accuracies": list(accuracies), "l1_jacobian_norm": norms}


def _result(
    config: Config, problem: Problem, training: Trainer, figures: dict[str, Any], devices: Devices
) -> dict[str, Any]:
    """Put result.json together."""
    return {
        "schema": records.SCHEMA,
        "config": config_to_dict(config),
        "seed": config.seed,
        "num_params": sum(leaf.size for leaf in jax.tree.leaves(training.evaluated_params())),
        "gradient_form": problem.plan.form,
        "num_epochs": training.num_epochs,
        "stopped_because": training.stopped_because,
        "validation_accuracy": training.validation_accuracy,
        **figures,
        "seconds": {name: round(seconds, 3) for name, seconds in training.stopwatch.seconds.items()},
        "versions": training.versions[-1],
        "earlier_versions": training.versions[:-1],
        "device": {"platform": devices.platform, "kind": devices.kind, "count": devices.count},
        "processor": records.processor(),
    }
