"""A run that begins with the epochs of another one: the same training with a later end, in a folder of its own."""

import shutil
import stat
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from jl1 import records
from jl1.config import Config
from jl1.configuration.files import config_from_dict, config_to_dict, run_differences
from jl1.errors import UserError
from jl1.runs.checkpoints import has_checkpoints
from jl1.runs.folder import check_workdir, open_run
from jl1.runs.lock import hold_run
from jl1.runs.trainer import end_of

_CHECKPOINTS, _HALF = "checkpoints", "checkpoints.half"

_END = ("num_epochs", "stopping", "stopping_tolerance", "stopping_epochs")
"""Fields of `config.training` that say when it ends: all that may differ."""

_FIGURES = ("accuracies", "l1_jacobian_norm")
"""What result.json and at_epochs.json both say of a network."""


def begin_with(source: Path, workdir: Path, config: Config) -> int:
    """Copy the epochs of a run into the folder of a new one, which then goes on where that one stands.

    The two differ by nothing that training sees before it ends, so on the same machine the new run ends with the
    same bits as one that was trained in one go. The other run is left as it is; its figures, if it has any, are taken
    over as figures on the way. Killed and called again, it begins anew.

    Args:
        source: Folder of the run to begin with, finished or not.
        workdir: Folder of the new run. One that has begun already is left to go on by itself.
        config: Settings of the new run.

    Returns:
        How many epochs were copied; 0 where the new run has begun already.

    Raises:
        UserError: No such run, the new run itself, one without a whole epoch, another config in more than the end of
            training, one by which training would have ended, or a folder that cannot be read, written or used.
        RunHeldError: Another process works on one of the two runs.
    """
    _check_alike(source, config)
    if workdir.resolve() == source.resolve():
        raise UserError(
            f"--continue_from: with these settings {source} is the new run itself: give a larger "
            "config.training.num_epochs, or give --workdir alone to go on with it"
        )
    check_workdir(workdir, config_to_dict(config))
    if has_checkpoints(workdir / _CHECKPOINTS):
        return 0
    with nullcontext() if records.is_finished(source) else hold_run(source):
        num_epochs = _check_goes_on(source, config)
        with hold_run(workdir):
            open_run(workdir, config_to_dict(config))
            _copy(source, workdir)
    return num_epochs


def _check_alike(source: Path, config: Config) -> None:
    """Refuse settings that differ in more than the end of training."""
    with_this_end = config_from_dict(records.read_config(source))
    for name in _END:
        with_this_end.training[name] = config.training[name]
    different = run_differences(config_to_dict(with_this_end), config_to_dict(config))
    if different:
        raise UserError(
            f"--continue_from: {source} was trained with other settings:\n  "
            + "\n  ".join(different)
            + f"\nonly the end of training may differ: {', '.join(f'config.training.{name}' for name in _END)}"
        )


def _check_goes_on(source: Path, config: Config) -> int:
    """Refuse a run without an epoch, and a config by which training would not have come further; count the epochs."""
    accuracies = [row["validation_accuracy"] for row in records.read_metrics(source)]
    if not accuracies or not has_checkpoints(source / _CHECKPOINTS):
        raise UserError(f"--continue_from: {source} has no whole epoch yet: there is nothing to begin with")
    for epoch in range(1, len(accuracies) + 1):
        if rule := end_of(config, accuracies[:epoch]):
            raise UserError(
                f"--continue_from: {source} has {len(accuracies)} epochs, and with these settings training ends after "
                f"epoch {epoch} ({rule}): give a larger config.training.num_epochs, or another stopping rule, such as "
                "config.training.stopping=fixed"
            )
    return len(accuracies)


def _copy(source: Path, workdir: Path) -> None:
    """Copy what a training goes on with; the checkpoints last and all at once, since with them the run has begun."""
    records.copy_epochs(source, workdir)
    records.write_at_epochs(workdir, _figures_so_far(source))
    shutil.rmtree(workdir / _HALF, ignore_errors=True)
    shutil.copytree(source / _CHECKPOINTS, workdir / _HALF)
    for path in (workdir / _HALF, *(workdir / _HALF).rglob("*")):
        path.chmod(path.stat().st_mode | stat.S_IWUSR)  # a copy of what cannot be written cannot be either
    if (workdir / _CHECKPOINTS).exists():
        (workdir / _CHECKPOINTS).rmdir()  # without a checkpoint: who looked for one has made it
    (workdir / _HALF).rename(workdir / _CHECKPOINTS)


def _figures_so_far(source: Path) -> list[dict[str, Any]]:
    """Return the figures on the way of a run, and those of its result if it has one, finished or interrupted."""
    rows, result = records.read_at_epochs(source), records.read_result(source)
    if result is None or result["num_epochs"] in [row["epoch"] for row in rows]:
        return rows
    return [*rows, {"epoch": result["num_epochs"], **{name: result[name] for name in _FIGURES}}]
