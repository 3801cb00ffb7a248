"""One run, from a config to its folder, and its evaluation again later."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jl1 import records
from jl1.array_types import Params
from jl1.checkpoints import Checkpoints
from jl1.config import Config, validate_config
from jl1.config_files import config_from_dict, config_to_dict
from jl1.data import Dataset, epoch_indices
from jl1.errors import UserError
from jl1.evaluation import check_classifier
from jl1.problems import Problem, attack_key, create_problem, load_data
from jl1.reporting import Reporter
from jl1.scoring import ATTACKS, AttackOptions, Row, score_accuracies, score_norms
from jl1.trainer import Trainer, check_same_data, snapshot_template
from jl1.training import Examples


def train_and_evaluate(
    config: Config,
    workdir: Path,
    *,
    reporter: Reporter | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> dict[str, Any]:
    """Train, attack and record one run; go on with it if the folder holds it unfinished.

    Killed at any moment and called again, it ends with the same parameters and figures to the last bit.

    Args:
        config: All settings, from `config.default_config` or a config file.
        workdir: Folder of the run.
        reporter: Told what happens; silent if not given.
        should_stop: Asked between pieces of an epoch; True ends training after the last whole epoch.

    Returns:
        The content of result.json.

    Raises:
        UserError: A bad config, data that are not there, or a folder that cannot be used.
        DivergedError: The loss became infinite or not a number.
        InterruptedEarlyError: `should_stop` before the first epoch was over.
    """
    reporter = reporter or Reporter()
    validate_config(config)
    if config.log.tensorboard:
        records.require_tensorboard()
    data = load_data(config)
    epoch_indices(len(data.train.labels), config.training.batch_size, seed=0, epoch=0)  # refuses a bad size
    problem = create_problem(config, data)
    check_classifier(partial(problem.apply_fn, problem.state.params), jnp.asarray(data.train.inputs[:8]))
    records.open_run(workdir, config_to_dict(config))
    with Checkpoints(workdir / "checkpoints") as checkpoints:
        training = Trainer(config, data, problem, checkpoints, reporter)
        training.restore(workdir)
        reporter.started(config, data, workdir, training.num_epochs)
        training.run(workdir, should_stop)
    with training.stopwatch.section("evaluate"):
        figures = _figures(config, problem, training.evaluated_params(), data, reporter)
    result = _result(config, problem, training, figures)
    records.write_result(workdir, result)
    return result


def evaluate_run(
    workdir: Path,
    *,
    options: AttackOptions,
    attacks: tuple[str, ...] = ATTACKS,
    data_dir: str | None = None,
    reporter: Reporter | None = None,
) -> list[Row]:
    """Attack the newest checkpoint of a run again, and add the figures to its evaluation.json.

    Args:
        workdir: Folder of the run.
        options: Radii and the strength of the attacks.
        attacks: Which of `scoring.ATTACKS`.
        data_dir: Folder with the data, if it is not where it was in training.
        reporter: Told what happens; silent if not given.

    Returns:
        The new rows. In evaluation.json they stand beside the older ones, of which those of the same
        attack, radius and strength are replaced.

    Raises:
        UserError: No such run, no checkpoint, another model's or a damaged one, or other data.
    """
    reporter = reporter or Reporter()
    run = load_run(workdir, data_dir=data_dir, reporter=reporter)
    rows = list(
        score_accuracies(
            run.problem.apply_fn,
            run.params,
            points=run.data.test,
            options=options,
            key=attack_key(run.config, 2),
            attacks=attacks,
            progress=reporter.measured,
        )
    )
    new = [_identity(row) for row in rows]
    kept = [row for row in records.read_evaluation(workdir) if _identity(row) not in new]
    records.write_evaluation(workdir, kept + rows)
    return rows


class TrainedRun(NamedTuple):
    """A run that has a checkpoint.

    Attributes:
        config: Its settings.
        data: The data it was trained on.
        problem: What the config decides.
        epoch: Number of epochs that the newest intact checkpoint has seen.
        params: What is evaluated of that checkpoint.
    """

    config: Config
    data: Dataset
    problem: Problem
    epoch: int
    params: Params


def load_run(workdir: Path, *, data_dir: str | None, reporter: Reporter) -> TrainedRun:
    """Load the newest intact checkpoint of a run, with what `evaluate_run` refuses."""
    config = config_from_dict(records.read_config(workdir))
    data = load_data(config, data_dir)
    problem = create_problem(config, data)
    with Checkpoints(workdir / "checkpoints") as checkpoints:
        restored = checkpoints.restore(snapshot_template(config, problem.state), reporter.notice)
    if restored is None:
        raise UserError(f"{workdir} has no checkpoint yet; `jl1 train` with its config goes on with it")
    check_same_data(restored, data)
    params = restored.snapshot.best_params or restored.snapshot.state.params
    return TrainedRun(config, data, problem, restored.epoch, params)


def _identity(row: Row) -> dict[str, Any]:
    """Return what tells one accuracy from another."""
    return {key: value for key, value in row.items() if key not in ("accuracy", "num_examples")}


def _figures(config: Config, problem: Problem, params: Params, data: Dataset, reporter: Reporter) -> dict[str, Any]:
    """Measure everything that result.json says of a network."""
    settings = config.evaluation
    options = AttackOptions(settings.epsilons, settings.pgd_steps, settings.pgd_restarts, settings.batch_size)
    split = data.validation if settings.points == "validation" else data.test
    points = Examples(*(jnp.asarray(part) for part in split))
    accuracies = score_accuracies(
        problem.apply_fn,
        params,
        points=points,
        options=options,
        key=attack_key(config, 2),
        progress=reporter.measured,
    )
    return {
        "accuracies": list(accuracies),
        "l1_jacobian_norm": score_norms(
            problem.apply_fn, params, points=points, batch_size=settings.batch_size, progress=reporter.measured
        ),
    }


def _result(config: Config, problem: Problem, training: Trainer, figures: dict[str, Any]) -> dict[str, Any]:
    """Put result.json together."""
    device: Any = jax.devices()[0]
    return {
        "schema": records.SCHEMA,
        "config": config_to_dict(config),
        "seed": config.seed,
        "num_params": sum(leaf.size for leaf in jax.tree.leaves(training.evaluated_params())),
        "gradient_form": problem.gradient_form,
        "num_epochs": training.num_epochs,
        "stopped_because": training.stopped_because,
        "validation_accuracy": training.validation_accuracy,
        **figures,
        "seconds": {name: round(seconds, 3) for name, seconds in training.stopwatch.seconds.items()},
        "versions": records.versions(),
        "device": {"platform": device.platform, "kind": device.device_kind, "count": jax.device_count()},
    }
