"""The training loop of a run: whole epochs on the device, a checkpoint after each, resumed to the last bit."""

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jl1 import records
from jl1.array_types import Params
from jl1.batches import measure
from jl1.config import Config
from jl1.configuration.stored import differences
from jl1.data import Dataset, epoch_indices
from jl1.devices import Devices
from jl1.errors import InterruptedEarlyError, UserError
from jl1.evaluation import make_eval_step
from jl1.runs.checkpoints import Checkpoints, Restored, Snapshot
from jl1.runs.clocks import Lap, Stopwatch
from jl1.runs.problems import Problem, order_seed
from jl1.runs.processes import smallest
from jl1.runs.reporting import Reporter
from jl1.runs.tracing import make_trace_fn
from jl1.stopping import STOPPING, StoppingOptions
from jl1.training import Examples, Totals, TrainState, make_epoch, zero_totals

_SECONDS_A_PIECE = 0.5
"""How long the device works between two looks at the display: long enough to cost nothing."""

_SHORTEST = 1e-6
"""What an epoch takes at least, by clocks that may be set."""


class DivergedError(UserError):
    """The loss was not finite."""


class Trainer:
    """The state of a run's training loop.

    Attributes:
        versions: Those that have trained the run, one after the other; the last are this process's.
    """

    def __init__(
        self,
        config: Config,
        data: Dataset,
        problem: Problem,
        checkpoints: Checkpoints,
        reporter: Reporter,
        devices: Devices,
    ) -> None:
        self._config, self._data, self._problem = config, data, problem
        self._checkpoints, self._reporter, self._devices = checkpoints, reporter, devices
        self._template = snapshot_template(config, problem.state)
        self._take(None)
        self._examples = devices.replicate(Examples(*(jnp.asarray(part) for part in data.train)))
        self._validation = Examples(*(jnp.asarray(part) for part in data.validation))
        gradient_fn = devices.share_gradient(problem.gradient_fn, batch_size=config.training.batch_size)
        self._epoch_fn = make_epoch(gradient_fn, problem.optimizer)
        self._eval_fn = devices.share_rows(make_eval_step(problem.apply_fn))
        self._trace_fn = make_trace_fn(config, data, problem.apply_fn)
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
            check_same_data(restored, self._data)
            for before in restored.progress.get("versions", [])[-1:]:
                if changed := differences(before, records.versions(), "versions"):
                    self._reporter.notice(f"going on with another version than before: {', '.join(changed)}")
        self._take(restored)
        records.keep_epochs(workdir, self.num_epochs)

    def evaluated_params(self) -> Params:
        """Return the parameters that the config wants evaluated: the last ones, or the best."""
        return self._best_params or self._state.params

    @property
    def validation_accuracy(self) -> float:
        """Validation accuracy of the evaluated parameters."""
        return max(self.accuracies) if self._best_params else self.accuracies[-1]

    def run(self, workdir: Path, should_stop: Callable[[], bool], after_epoch: Callable[[], None]) -> None:
        """Train until the config's rule, its number of epochs, or `should_stop` ends it.

        `after_epoch` is called once an epoch is recorded, and first for what a kill may have left undone there.
        """
        after_epoch()
        with records.event_writer(workdir, self.num_epochs, wanted=self._config.log.tensorboard) as add_events:
            while not self._is_over():
                with self.stopwatch.section("train"):
                    row = self._one_epoch(should_stop)
                if row is None:
                    self._interrupt(workdir)
                    return
                self._finish_epoch(workdir, row)
                add_events(row)
                after_epoch()

    def _take(self, restored: Restored | None) -> None:
        """Start from a checkpoint, or from the beginning."""
        progress = restored.progress if restored else {}
        best = {"best_params": self._problem.state.params if self._config.training.weights == "best" else {}}
        snapshot = restored.snapshot if restored else Snapshot(self._problem.state, **best)
        # the epoch donates the state: copies leave the snapshot's own arrays alone
        self._state = self._devices.replicate(jax.tree.map(jnp.copy, snapshot.state))
        self._best_params = self._devices.replicate(snapshot.best_params)
        self.accuracies: list[float] = list(progress.get("accuracies", []))
        self.stopwatch = Stopwatch(progress.get("seconds"))
        earlier = progress.get("versions", [])
        self.versions = earlier if earlier[-1:] == [records.versions()] else [*earlier, records.versions()]

    def _is_over(self) -> bool:
        """Say whether training is over, and remember why."""
        self.stopped_because = end_of(self._config, self.accuracies) or ""
        return bool(self.stopped_because)

    def _one_epoch(self, should_stop: Callable[[], bool]) -> dict[str, Any] | None:
        """Train one epoch and return its line of metrics, or None if it was interrupted."""
        epoch, done, lap = self.num_epochs + 1, 0, Lap.begin()
        totals, batches = self._devices.replicate(zero_totals()), self._batches(epoch)
        while done < len(batches):
            if should_stop():
                return None
            done, totals = self._one_piece(batches, done, totals)
            if int(totals.bad_step) >= 0:
                raise DivergedError(self._divergence(f"the loss is not finite at step {totals.bad_step}", totals))
            so_far = _metrics(epoch, totals, lap)
            self._reporter.trained(epoch, int(totals.num_examples), len(self._data.train.labels), so_far)
        if not all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in jax.tree.leaves(self._state.params)):
            # the last gradient of the epoch, behind a loss that was still finite
            what = f"the parameters are not finite after step {int(self._state.step) - 1}"
            raise DivergedError(self._divergence(what, totals))
        row = _metrics(epoch, totals, lap)
        return row | {"validation_accuracy": self._validation_accuracy()}

    def _batches(self, epoch: int) -> np.ndarray:
        """Draw the order of an epoch, with as many places on each device."""
        num_examples, batch_size = len(self._data.train.labels), self._config.training.batch_size
        return self._devices.fill(epoch_indices(num_examples, batch_size, seed=order_seed(self._config), epoch=epoch))

    def _validation_accuracy(self) -> float:
        """Measure the clean accuracy on the validation points."""
        size, points = self._config.evaluation.batch_size, self._validation._asdict()
        return float(np.mean(measure(self._eval_fn, self._state.params, batch_size=size, **points)))

    def _one_piece(self, batches: np.ndarray, start: int, totals: Totals) -> tuple[int, Totals]:
        """Run some batches on the device, and choose how many the next piece will have."""
        stop = min(start + self._steps_a_piece, len(batches))
        start_time = time.perf_counter()
        self._state, totals = jax.block_until_ready(
            self._epoch_fn(self._state, totals, self._examples, batches, start, stop, self._problem.hyperparameters)
        )
        seconds_a_step = (time.perf_counter() - start_time) / (stop - start)
        self._steps_a_piece = smallest(max(1, int(_SECONDS_A_PIECE / seconds_a_step)))
        return stop, totals

    def _finish_epoch(self, workdir: Path, row: dict[str, Any]) -> None:
        """Record an epoch: first its lines, then the checkpoint, which is what counts after a kill."""
        if self._best_params and row["validation_accuracy"] > max(self.accuracies, default=-math.inf):
            self._best_params = jax.tree.map(jnp.copy, self._state.params)
        self.accuracies.append(row["validation_accuracy"])
        records.append_metrics(workdir, row)
        if self._trace_fn is not None:
            traced = self._trace_fn(self._devices.fetch(self._state.params))
            records.append_trace(workdir, {"epoch": row["epoch"], **traced})
        progress = {
            "accuracies": self.accuracies,
            "seconds": self.stopwatch.seconds,
            "data": self._data.fingerprint,
            "versions": self.versions,
        }
        snapshot = self._devices.fetch(Snapshot(self._state, self._best_params))
        self._checkpoints.save(self.num_epochs, snapshot, progress)
        self._reporter.finished_epoch(row)

    def _interrupt(self, workdir: Path) -> None:
        """Go back to the last whole epoch, so that what is evaluated is what can be resumed."""
        if self.num_epochs == 0:
            raise InterruptedEarlyError("interrupted before the first epoch was over: there is nothing to evaluate")
        self.restore(workdir)
        self.stopped_because = records.INTERRUPTED

    def _divergence(self, what: str, totals: Totals) -> str:
        """Say what stopped being finite, what is left, and what to try."""
        cross_entropy, penalty = float(totals.terms.cross_entropy), float(totals.terms.penalty)
        if math.isfinite(cross_entropy) and not math.isfinite(penalty):
            cause = "the penalty overflowed: lower config.penalty.lam, or take config.penalty.scale=mean"
        else:
            cause = (
                "the outputs or a gradient overflowed: lower config.optimizer.learning_rate, or config.penalty.lam "
                "(the scale `sum` of Eq. 3 is 7,840 times `mean` on MNIST)"
            )
        kept = (
            f"the last good checkpoint is that of epoch {self.num_epochs}"
            if self.num_epochs
            else "there is no checkpoint"
        )
        return f"{what} (epoch {self.num_epochs + 1}); {kept}. Likely cause: {cause}"


def end_of(config: Config, accuracies: Sequence[float]) -> str | None:
    """Say what ends the training of a config after these validation accuracies: its rule, `num_epochs`, or nothing."""
    training = config.training
    if STOPPING[training.stopping](accuracies, StoppingOptions(training.stopping_tolerance, training.stopping_epochs)):
        return training.stopping
    return "num_epochs" if len(accuracies) >= training.num_epochs else None


def snapshot_template(config: Config, state: TrainState) -> Snapshot:
    """Return arrays of the shapes that a checkpoint of this config has."""
    return Snapshot(state, state.params if config.training.weights == "best" else {})


def check_same_data(restored: Restored, data: Dataset) -> None:
    """Refuse a checkpoint that has seen other data under the same name."""
    if restored.progress["data"] != data.fingerprint:
        raise UserError(
            f"the data {data.name} ({data.source}) are not those that the checkpoint of epoch {restored.epoch} was "
            "trained on: their content differs. Give the original folder, or start a new run"
        )


def _metrics(epoch: int, totals: Totals, lap: Lap) -> dict[str, Any]:
    """Return the means of an epoch so far as a line of metrics.jsonl; its compilation, if it was first, is no part."""
    num_examples, seconds = float(totals.num_examples), max(lap.seconds()[1], _SHORTEST)
    loss, cross_entropy, penalty = (float(term) / num_examples for term in totals.terms)
    return {
        "epoch": epoch,
        "loss": loss,
        "cross_entropy": cross_entropy,
        "penalty": penalty,
        "seconds": seconds,
        "examples_per_second": num_examples / seconds,
    }
