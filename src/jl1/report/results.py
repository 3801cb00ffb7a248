"""The figures of many runs as tidy rows, one a run, attack and radius: from their folders, or from a CSV of such rows.

Whatever cannot be read is named and left out. docs/tables.md lists the columns.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Set
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from jl1 import records
from jl1.attack_names import full_attack_name
from jl1.display.terminal import readable
from jl1.errors import UserError
from jl1.report.columns import (
    COLUMNS,
    FINAL,
    FINISHED,
    INTERRUPTED,
    MISSING,
    ON_THE_WAY,
    complete,
)
from jl1.report.csv_rows import read_rows
from jl1.report.frames import Frame
from jl1.report.run_settings import filled_fields, run_settings, settings_digests
from jl1.report.sweep_files import expected_runs


class Results(NamedTuple):
    """What was found.

    Attributes:
        rows: Tidy rows, with `COLUMNS`.
        notes: What was left out, and why.
        configs: A config for each value of the column `settings`.
        workdirs: Folders of the runs that have rows, by the column `run`: the folder's name, after those of the
            folders that it is in as far as others have the same.
        from_folder: Which rows are of these, and not of a file, in which a run may have the same name.
    """

    rows: Frame
    notes: list[str]
    configs: dict[str, dict[str, Any]]
    workdirs: dict[str, Path]
    from_folder: np.ndarray


class _Run(NamedTuple):
    """One folder: its config, and its rows without the settings."""

    workdir: Path
    config: dict[str, Any]
    rows: list[dict[str, Any]]


def read_results(folders: Iterable[Path], files: Iterable[Path] = ()) -> Results:
    """Read all runs of some folders, and the rows of some CSV files.

    Args:
        folders: Each the folder of a run, or a folder with runs in it and, of a sweep, with sweep.json.
        files: Written by `write_rows`.

    Returns:
        The rows, sorted; a run that a sweep lists and that has no result gives one row without an attack.

    Raises:
        UserError: A folder or file that is not there, or a file that has no such rows.
    """
    notes: list[str] = []
    runs = [run for folder in folders for run in _read_folder(folder, notes)]
    digests = settings_digests([run.config for run in runs])
    filled = filled_fields([run.config for run in runs])
    if filled:
        notes.append(f"fields that older versions lack, counted as what the other runs have: {', '.join(filled)}")
    names = _unlike_names({run.workdir.absolute() for run in runs})
    rows = [
        run_settings(run.config) | {"settings": digest, "run": names[run.workdir.absolute()]} | row
        for run, digest in zip(runs, digests, strict=True)
        for row in run.rows
    ]
    tables = [complete(pd.DataFrame(rows)), *(read_rows(file) for file in files)]
    together = pd.concat([table for table in tables if len(table)] or tables[:1], ignore_index=True)
    together = together.sort_values([name for name in COLUMNS if name != "accuracy"], kind="stable")
    from_folder = np.asarray(together.index < len(tables[0]))
    return Results(
        together.reset_index(drop=True),
        notes,
        {digest: run.config for digest, run in zip(digests, runs, strict=True)},
        {names[run.workdir.absolute()]: run.workdir for run in runs},
        from_folder,
    )


def _unlike_names(paths: Set[Path]) -> dict[Path, str]:
    """Name absolute paths by their last part, and by more of them as long as two are named alike."""
    names: dict[Path, str] = {}
    num_parts = 0
    while len(names) < len(paths):
        num_parts += 1
        ends = {path: Path(*path.parts[-num_parts:]).as_posix() for path in paths if path not in names}
        counts = Counter(ends.values())
        names |= {path: readable(end) for path, end in ends.items() if counts[end] == 1}
    return names


def _read_folder(folder: Path, notes: list[str]) -> list[_Run]:
    """Read the runs of one folder, and those that its sweep lists and that are not there."""
    try:
        if not folder.is_dir():
            raise UserError(f"--workdir: there is no folder {folder}")
    except OSError as error:
        raise UserError(f"--workdir: {folder} cannot be read: {error.strerror or error}") from error
    workdirs = [folder] if records.is_run(folder) else _runs_in(folder, notes)
    runs = [run for workdir in workdirs if (run := _read_run(workdir, notes)) is not None]
    configs = {run.workdir.name: run.config for run in runs}
    try:
        expected, unknown = expected_runs(folder, configs)
        expected = {name: _checked(config) for name, config in expected.items()}
    except (UserError, KeyError, TypeError, ValueError, AttributeError, OSError) as error:
        notes.append(f"{folder / 'sweep.json'} is left out: {reason(error)}")
        expected, unknown = {}, []
    if unknown:
        notes.append(
            f"{folder / 'sweep.json'} lists {len(unknown)} runs of a kind that none is there of: {unknown[0]} ..."
        )
    return runs + [_Run(folder / name, config, [{"status": MISSING}]) for name, config in expected.items()]


def _runs_in(folder: Path, notes: list[str]) -> list[Path]:
    """List the runs of a folder; a note names what may not be looked into."""
    found = []
    for path in sorted(folder.iterdir()):
        try:
            found += [path] if records.is_run(path) else []
        except UserError as error:
            notes.append(f"{error}; it is left out")
    return found


def _read_run(workdir: Path, notes: list[str]) -> _Run | None:
    """Read one run; a note says why if it cannot be."""
    try:
        result = records.read_result(workdir)
        if result is None:
            return _Run(workdir, _checked(records.read_config(workdir)), [{"status": MISSING}])
        run = _Run(workdir, _checked(result["config"]), _rows_of(result))
    except (UserError, KeyError, TypeError, ValueError, AttributeError, OSError) as error:
        notes.append(f"{workdir} is left out: {reason(error)}")
        return None
    return run._replace(rows=run.rows + _evaluated(workdir, result, notes))


def _checked(config: Any) -> dict[str, Any]:
    """Return a config if the settings of a table can be read from it."""
    run_settings(config)
    return config


def _evaluated(workdir: Path, result: Mapping[str, Any], notes: list[str]) -> list[dict[str, Any]]:
    """Read what `jl1 evaluate` has added to a run; a note says why if it cannot be."""
    try:
        return [_run_facts(result) | _figure(row, result) for row in records.read_evaluation(workdir)]
    except (UserError, KeyError, TypeError, ValueError, AttributeError, OSError) as error:
        notes.append(f"{workdir / 'evaluation.json'} is left out: {reason(error)}")
        return []


def reason(error: Exception) -> str:
    """Say what is wrong with a file, from the error that reading it gave."""
    if isinstance(error, KeyError):
        return f"it has no {error}"
    text = str(error).strip().partition("\n")[0]
    return f"its content has another form ({text})" if isinstance(error, TypeError | AttributeError) else text


def _rows_of(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of result.json, those taken on the way among them."""
    figures = [_figure(row, result) for row in result["accuracies"]]
    for taken in result.get("at_epochs", []):
        epoch = {"epoch": taken["epoch"]}
        figures += [_figure(row | epoch, result) | {"when": ON_THE_WAY} for row in taken["accuracies"]]
    return [_run_facts(result) | figure for figure in figures]


def _run_facts(result: Mapping[str, Any]) -> dict[str, Any]:
    """Return what all rows of a run have in common."""
    device, versions = result["device"], result["versions"]
    kind = device["kind"] if device["kind"] != device["platform"] else result.get("processor", "")
    commit, plus, changes = (versions["git_commit"] or "").partition("+")
    return {
        "status": INTERRUPTED if result["stopped_because"] == records.INTERRUPTED else FINISHED,
        "num_epochs": result["num_epochs"],
        "train_seconds": round(result["seconds"]["train"], 1),
        "l1_norm_logits": round(result["l1_jacobian_norm"]["logits"], 3),
        "l1_norm_probs": round(result["l1_jacobian_norm"]["probs"], 4),
        "gradient_form": result.get("gradient_form", ""),
        "jax": versions["jax"],
        "commit": commit[:12] + plus + changes,
        "machine": f"{device['count']} x {' '.join(filter(None, (device['platform'], kind)))}",
    }


def _figure(row: Mapping[str, Any], result: Mapping[str, Any]) -> dict[str, Any]:
    """Return one accuracy; `rule` tells right after the attack from right before and after it."""
    epoch, accuracy = row.get("epoch", result["num_epochs"]), float(row["accuracy"])
    if not 0 <= accuracy <= 1:
        raise ValueError(f"the accuracy {accuracy} under {row['attack']} is not in [0, 1]")
    low, high = map(float, row.get("interval", (math.nan, math.nan)))
    return {
        "epoch": float(epoch),
        "when": FINAL if epoch == result["num_epochs"] else ON_THE_WAY,
        "attack": row["attack"],
        "strength": full_attack_name(row),
        "epsilon": float(row["epsilon"]),
        "norm": row.get("norm", "linf"),
        "labels": row["labels"],
        "points": row.get("points", result["config"]["evaluation"]["points"]),
        "rule": "standing" if "broken_by" in row and row["attack"] != "clean" else "attacked",
        "num_examples": float(row["num_examples"]),
        "accuracy": accuracy,
        "interval_low": low,
        "interval_high": high,
    }
