"""One run, from a config to its folder. This is the only training loop."""

import math
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jl1 import records
from jl1.checkpoints import Checkpoints, Restored, Snapshot
from jl1.clocks import Stopwatch
from jl1.config import Config, validate_config
from jl1.config_files import config_from_dict, config_to_dict
from jl1.data import Dataset, epoch_indices
from jl1.errors import UserError
from jl1.evaluation import check_classifier, make_eval_step, over_batches
from jl1.problems import Problem, attack_key, create_problem, load_data, order_seed
from jl1.reporting import Reporter
from jl1.scoring import ATTACKS, AttackOptions, Row, score_accuracies, score_norms
from jl1.stopping import STOPPING, StoppingOptions
from jl1.training import Examples, Totals, TrainState, make_epoch, zero_totals

_SECONDS_A_PIECE = 0.5
"""How long the device works between two looks at the display: long enough to cost nothing."""


class DivergedError(UserError):
    """The loss was not finite."""


class InterruptedEarlyError(UserError):
    """Training was interrupted before there was anything to evaluate."""


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
        training = _Training(config, data, problem, checkpoints, reporter)
        training.restore(workdir)
        reporter.started(config, data, workdir, training.num_epochs)
        training.run(workdir, should_stop)
    with training.stopwatch.section("evaluate"):
        figures = _figures(config, problem, training.evaluated_params(), data, reporter)
    result = _result(config, training, figures)
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
    config = config_from_dict(records.read_config(workdir))
    data = load_data(config, data_dir)
    problem = create_problem(config, data)
    with Checkpoints(workdir / "checkpoints") as checkpoints:
        restored = checkpoints.restore(_template(config, problem.state), reporter.notice)
    if restored is None:
        raise UserError(f"{workdir} has no checkpoint yet; `jl1 train` with its config goes on with it")
    _check_same_data(restored, data)
    params = restored.snapshot.best_params or restored.snapshot.state.params
    rows = list(
        score_accuracies(
            problem.apply_fn,
            params,
            points=data.test,
            options=options,
            key=attack_key(config, 2),
            attacks=attacks,
            progress=reporter.measured,
        )
    )
    new = [_identity(row) for row in rows]
    kept = [row for row in records.read_evaluation(workdir) if _identity(row) not in new]
    records.write_evaluation(workdir, kept + rows)
    return rows


class _Training:
    """The state of a run's training loop."""

    def __init__(
        self,
        config: Config,
        data: Dataset,
        problem: Problem,
        checkpoints: Checkpoints,
        reporter: Reporter,
    ) -> None:
        self._config, self._data, self._problem = config, data, problem
        self._checkpoints, self._reporter = checkpoints, reporter
        self._template = _template(config, problem.state)
        self._take(None)
        self._examples = Examples(*(jnp.asarray(part) for part in data.train))
        self._validation = Examples(*(jnp.asarray(part) for part in data.validation))
        self._epoch_fn = make_epoch(problem.apply_fn, problem.optimizer, terms_fn=problem.terms_fn)
        self._eval_fn = make_eval_step(problem.apply_fn)
        self._steps_a_piece = 1
        self.stopped_because = ""

    @property
    def num_epochs(self) -> int:
        """Number of whole epochs so far."""
        return len(self.accuracies)

    def restore(self, workdir: Path) -> None:
        """Go back to the newest intact checkpoint, if there is one."""
        restored = self._checkpoints.restore(self._template, self._reporter.notice)
        if restored is not None:
            _check_same_data(restored, self._data)
        self._take(restored)
        records.keep_metrics(workdir, self.num_epochs)

    def evaluated_params(self) -> Any:
        """Return the parameters that the config wants evaluated: the last ones, or the best."""
        return self._best_params or self._state.params

    def run(self, workdir: Path, should_stop: Callable[[], bool]) -> None:
        """Train until the config's rule, its number of epochs, or `should_stop` ends it."""
        with records.event_writer(workdir, self.num_epochs, wanted=self._config.log.tensorboard) as add_events:
            while not self._is_over():
                with self.stopwatch.section("train"):
                    row = self._one_epoch(should_stop)
                if row is None:
                    self._interrupt(workdir)
                    return
                self._finish_epoch(workdir, row)
                add_events(row)

    def _take(self, restored: Restored | None) -> None:
        """Start from a checkpoint, or from the beginning."""
        progress = restored.progress if restored else {}
        best = {"best_params": self._problem.state.params if self._config.training.weights == "best" else {}}
        snapshot = restored.snapshot if restored else Snapshot(self._problem.state, **best)
        # the epoch donates the state: copies leave the snapshot's own arrays alone
        self._state = jax.tree.map(jnp.copy, snapshot.state)
        self._best_params = snapshot.best_params
        self.accuracies: list[float] = list(progress.get("accuracies", []))
        self.stopwatch = Stopwatch(progress.get("seconds"))

    def _is_over(self) -> bool:
        """Say whether training is over, and remember why."""
        training = self._config.training
        options = StoppingOptions(training.stopping_tolerance, training.stopping_epochs)
        if STOPPING[training.stopping](self.accuracies, options):
            self.stopped_because = training.stopping
        elif self.num_epochs >= training.num_epochs:
            self.stopped_because = "num_epochs"
        return bool(self.stopped_because)

    def _one_epoch(self, should_stop: Callable[[], bool]) -> dict[str, Any] | None:
        """Train one epoch and return its line of metrics, or None if it was interrupted."""
        epoch, totals, done, start_time = self.num_epochs + 1, zero_totals(), 0, time.perf_counter()
        batches = epoch_indices(
            len(self._data.train.labels),
            self._config.training.batch_size,
            seed=order_seed(self._config),
            epoch=epoch,
        )
        while done < len(batches):
            if should_stop():
                return None
            done, totals = self._one_piece(batches, done, totals)
            if int(totals.bad_step) >= 0:
                raise DivergedError(self._divergence(int(totals.bad_step), totals))
            so_far = _metrics(epoch, totals, time.perf_counter() - start_time)
            self._reporter.trained(epoch, int(totals.num_examples), len(self._data.train.labels), so_far)
        row = _metrics(epoch, totals, time.perf_counter() - start_time)
        return row | {"validation_accuracy": self._validation_accuracy()}

    def _validation_accuracy(self) -> float:
        """Measure the clean accuracy on the validation points."""
        batches = over_batches(
            self._eval_fn,
            self._state.params,
            inputs=self._validation.inputs,
            labels=self._validation.labels,
            batch_size=self._config.evaluation.batch_size,
            key=attack_key(self._config, 2),
            epsilon=0.0,
        )
        return float(np.mean(np.concatenate(list(batches))))

    def _one_piece(self, batches: np.ndarray, start: int, totals: Totals) -> tuple[int, Totals]:
        """Run some batches on the device, and choose how many the next piece will have."""
        stop = min(start + self._steps_a_piece, len(batches))
        start_time = time.perf_counter()
        self._state, totals = jax.block_until_ready(
            self._epoch_fn(self._state, totals, self._examples, batches, start, stop, self._problem.hyperparameters)
        )
        seconds_a_step = (time.perf_counter() - start_time) / (stop - start)
        self._steps_a_piece = max(1, int(_SECONDS_A_PIECE / seconds_a_step))
        return stop, totals

    def _finish_epoch(self, workdir: Path, row: dict[str, Any]) -> None:
        """Record an epoch: first its line, then the checkpoint, which is what counts after a kill."""
        if self._best_params and row["validation_accuracy"] > max(self.accuracies, default=-math.inf):
            self._best_params = jax.tree.map(jnp.copy, self._state.params)
        self.accuracies.append(row["validation_accuracy"])
        records.append_metrics(workdir, row)
        progress = {
            "accuracies": self.accuracies,
            "seconds": self.stopwatch.seconds,
            "data": self._data.fingerprint,
        }
        self._checkpoints.save(self.num_epochs, Snapshot(self._state, self._best_params), progress)
        self._reporter.finished_epoch(row)

    def _interrupt(self, workdir: Path) -> None:
        """Go back to the last whole epoch, so that what is evaluated is what can be resumed."""
        if self.num_epochs == 0:
            raise InterruptedEarlyError("interrupted before the first epoch was over: there is nothing to evaluate")
        self.restore(workdir)
        self.stopped_because = records.INTERRUPTED

    def _divergence(self, step: int, totals: Totals) -> str:
        """Say where the loss stopped being finite, what is left, and what to try."""
        cross_entropy, penalty = float(totals.terms.cross_entropy), float(totals.terms.penalty)
        if math.isfinite(cross_entropy) and not math.isfinite(penalty):
            cause = "the penalty overflowed: lower config.penalty.lam, or take config.penalty.scale=mean"
        else:
            cause = (
                "the network's outputs overflowed: lower config.optimizer.learning_rate, or config.penalty.lam "
                "(the scale `sum` of Eq. 3 is 7,840 times `mean` on MNIST)"
            )
        kept = (
            f"the last good checkpoint is that of epoch {self.num_epochs}"
            if self.num_epochs
            else "there is no checkpoint"
        )
        return f"the loss is not finite at step {step} (epoch {self.num_epochs + 1}); {kept}. Likely cause: {cause}"


def _metrics(epoch: int, totals: Totals, seconds: float) -> dict[str, Any]:
    """Return the means of an epoch so far as a line of metrics.jsonl."""
    num_examples = float(totals.num_examples)
    loss, cross_entropy, penalty = (float(term) / num_examples for term in totals.terms)
    return {
        "epoch": epoch,
        "loss": loss,
        "cross_entropy": cross_entropy,
        "penalty": penalty,
        "seconds": seconds,
        "examples_per_second": num_examples / seconds,
    }


def _template(config: Config, state: TrainState) -> Snapshot:
    """Return arrays of the shapes that a checkpoint of this config has."""
    return Snapshot(state, state.params if config.training.weights == "best" else {})


def _check_same_data(restored: Restored, data: Dataset) -> None:
    """Refuse a checkpoint that has seen other data under the same name."""
    if restored.progress["data"] != data.fingerprint:
        raise UserError(
            f"the data {data.name} ({data.source}) are not those that the checkpoint of epoch {restored.epoch} was "
            "trained on: their content differs. Give the original folder, or start a new run"
        )


def _identity(row: Row) -> dict[str, Any]:
    """Return what tells one accuracy from another."""
    return {key: value for key, value in row.items() if key not in ("accuracy", "num_examples")}


def _figures(config: Config, problem: Problem, params: Any, data: Dataset, reporter: Reporter) -> dict[str, Any]:
    """Measure everything that result.json says of a network."""
    settings = config.evaluation
    options = AttackOptions(settings.epsilons, settings.pgd_steps, settings.pgd_restarts, settings.batch_size)
    test = Examples(*(jnp.asarray(part) for part in data.test))
    accuracies = score_accuracies(
        problem.apply_fn,
        params,
        points=test,
        options=options,
        key=attack_key(config, 2),
        progress=reporter.measured,
    )
    return {
        "accuracies": list(accuracies),
        "l1_jacobian_norm": score_norms(
            problem.apply_fn, params, points=test, batch_size=settings.batch_size, progress=reporter.measured
        ),
    }


def _result(config: Config, training: _Training, figures: dict[str, Any]) -> dict[str, Any]:
    """Put result.json together."""
    device: Any = jax.devices()[0]
    return {
        "schema": records.SCHEMA,
        "config": config_to_dict(config),
        "seed": config.seed,
        "num_params": sum(leaf.size for leaf in jax.tree.leaves(training.evaluated_params())),
        "num_epochs": training.num_epochs,
        "stopped_because": training.stopped_because,
        "validation_accuracy": training.accuracies[-1],
        **figures,
        "seconds": {name: round(seconds, 3) for name, seconds in training.stopwatch.seconds.items()},
        "versions": records.versions(),
        "device": {"platform": device.platform, "kind": device.device_kind, "count": jax.device_count()},
    }
