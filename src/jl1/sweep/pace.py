"""How fast runs go and when they will be over, from what lies in their folders."""

import heapq
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, median
from typing import Any, NamedTuple

from jl1 import records
from jl1.config import Config
from jl1.errors import UserError
from jl1.sweep.expansion import SweepRun
from jl1.sweep.folder import read_epochs


class Pace(NamedTuple):
    """How long runs of one kind take.

    Attributes:
        epoch_seconds: An epoch.
        other_seconds: Compilation, attacks and figures; None if no such run is finished.
        num_epochs: Of the finished runs, on average; None if there is none.
    """

    epoch_seconds: float
    other_seconds: float | None = None
    num_epochs: float | None = None


class Forecast(NamedTuple):
    """When runs will be over.

    Attributes:
        seconds: Until the last of them.
        is_bound: Some run may stop before its largest number of epochs, and none of its kind has shown when.
        lacks_attacks: Nothing is known of how long compilation, attacks and figures of some run take.
    """

    seconds: float
    is_bound: bool
    lacks_attacks: bool


def kind_of(config: Config) -> str:
    """Return what decides how long an epoch takes; runs of one kind share their compiled programs."""
    penalty, attack = config.penalty.to_dict(), config.adversarial.to_dict()
    is_penalised = penalty.pop("lam") > 0 and penalty["name"] != "none"
    is_attacked = attack.pop("epsilon") > 0
    data = [config.data.name, config.data.tiles, config.data.validation_size]
    steps = [config.training.batch_size, config.training.precision]
    return json.dumps([config.model.to_dict(), data, steps, is_penalised and penalty, is_attacked and attack])


def measure_paces(runs: Sequence[SweepRun], folder: Path) -> dict[str, Pace]:
    """Measure the pace of every kind of run that has at least one epoch in the folder."""
    by_kind: dict[str, list[SweepRun]] = {}
    for run in runs:
        by_kind.setdefault(kind_of(run.config), []).append(run)
    paces = {kind: _pace([folder / run.name for run in alike]) for kind, alike in by_kind.items()}
    return {kind: pace for kind, pace in paces.items() if pace is not None}


def _pace(workdirs: Sequence[Path]) -> Pace | None:
    """Measure the pace of runs of one kind."""
    epochs = [row["seconds"] for workdir in workdirs for row in read_epochs(workdir)[-5:]]
    finished = [result for workdir in workdirs if (result := read_finished(workdir)) is not None]
    if not epochs:
        return None
    if not finished:
        return Pace(median(epochs))
    others = [result["seconds"]["compile"] + result["seconds"]["evaluate"] for result in finished]
    return Pace(median(epochs), mean(others), mean(result["num_epochs"] for result in finished))


def read_finished(workdir: Path) -> dict[str, Any] | None:
    """Read the result of a run; None of one that has not come to its end, or whose file is damaged."""
    try:
        return records.read_result(workdir) if records.is_finished(workdir) else None
    except UserError:
        return None


def forecast(runs: Sequence[SweepRun], folder: Path, paces: Mapping[str, Pace], *, num_workers: int) -> Forecast | None:
    """Predict when unfinished runs will be over if each worker takes the next as it becomes free.

    Args:
        runs: The runs that are left, those that are running first.
        folder: Of the sweep.
        paces: By kind.
        num_workers: How many run at once.

    Returns:
        The forecast, or None if the pace of some run is not known.
    """
    if any(kind_of(run.config) not in paces for run in runs):
        return None
    free_at = [0.0] * num_workers
    for run in runs:
        heapq.heapreplace(free_at, free_at[0] + seconds_left(run, folder, paces[kind_of(run.config)]))
    kinds = [(run.config, paces[kind_of(run.config)]) for run in runs]
    return Forecast(
        max(free_at),
        any(config.training.stopping != "fixed" and pace.num_epochs is None for config, pace in kinds),
        any(pace.other_seconds is None for _, pace in kinds),
    )


def seconds_left(run: SweepRun, folder: Path, pace: Pace) -> float:
    """Predict how long a run will still take."""
    is_fixed = run.config.training.stopping == "fixed" or pace.num_epochs is None
    most = run.config.training.num_epochs
    expected = most if is_fixed else min(pace.num_epochs or most, most)
    done = len(read_epochs(folder / run.name))
    return max(expected - done, 0) * pace.epoch_seconds + (pace.other_seconds or 0.0)
