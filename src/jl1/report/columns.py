"""The columns of the tidy rows, their types, ranges and defaults. docs/tables.md says what they mean."""

import numpy as np
import pandas as pd

from jl1.report.frames import Frame
from jl1.report.run_settings import PENALTY_COLUMNS, SETTING_COLUMNS

FINISHED, INTERRUPTED, MISSING = "finished", "interrupted", "missing"
"""`status` of a row: counted, left out of means, and without a figure."""

FINAL, ON_THE_WAY = "final", "on the way"
"""`when` of a row: measured on the weights that the run ended with, or on earlier ones."""

FIGURE_COLUMNS = ("epoch", "when", "attack", "strength", "epsilon", "norm", "labels", "points", "rule", "num_examples")
_RUN_COLUMNS = ("train_seconds", "l1_norm_logits", "l1_norm_probs", "gradient_form", "jax", "commit", "machine")
COLUMNS = (
    *SETTING_COLUMNS,
    "seed",
    "status",
    "num_epochs",
    *FIGURE_COLUMNS,
    "accuracy",
    "interval_low",
    "interval_high",
    *_RUN_COLUMNS,
    "run",
)
"""Of the tidy rows, in this order."""

_NUMBERS = {
    *("lam", "train_epsilon", "warmup_epochs", "num_epochs", "epoch", "epsilon", "num_examples", "accuracy"),
    *("interval_low", "interval_high", "train_seconds", "l1_norm_logits", "l1_norm_probs"),
}
REQUIRED = {"dataset", "model", "lam", "seed", "attack", "epsilon", "accuracy", "num_examples"}
"""Without which a CSV file has no such rows."""

WHOLE = ("warmup_epochs", "num_epochs", "epoch", "num_examples")
"""Columns of whole numbers."""

_FRACTIONS = ("accuracy", "interval_low", "interval_high")
_ONE_OF = {"status": (FINISHED, INTERRUPTED, MISSING), "when": (FINAL, ON_THE_WAY)}  # they decide what is counted
_DEFAULTS = {"status": FINISHED, "when": FINAL, "norm": "linf", "labels": "true", "points": "test", "rule": "attacked"}
_ZERO = ("lam", "train_epsilon", "warmup_epochs", "epsilon", "num_examples")  # part of what is grouped by


def check_cells(given: Frame) -> None:
    """Refuse text that has no meaning in its column, which would be taken for an empty cell; empty ones are fine.

    Args:
        given: Text, each row under the number of its line.

    Raises:
        ValueError: A cell of numbers that is none, or out of range, or a name that is not known.
    """
    for name in given.columns.intersection([*COLUMNS], sort=False):
        filled = given.loc[given[name] != "", name]
        if name in _ONE_OF:
            _refuse_first(filled, ~filled.isin(_ONE_OF[name]), f"be {', '.join(_ONE_OF[name])}, or empty")
        elif name in _NUMBERS:
            numbers: Frame = pd.to_numeric(filled, errors="coerce")
            good = np.isfinite(numbers) & (numbers >= 0)
            if name in _FRACTIONS:
                _refuse_first(filled, ~(good & (numbers <= 1)), "be a number from 0 to 1, such as 0.985")
            elif name in WHOLE:
                _refuse_first(filled, ~(good & (numbers % 1 == 0)), "be a whole number, 0 or more")
            else:
                _refuse_first(filled, ~good, "be a number, 0 or more, such as 0.3")
    if "when" in given:
        epochs = given["epoch"] if "epoch" in given else pd.Series("", given.index)
        no_epoch = (given["when"] == ON_THE_WAY) & epochs.str.fullmatch(r"0*(\.0*)?")
        _refuse_first(given["when"], no_epoch, "come with the epoch, 1 or more, that the figure was taken after")


def _refuse_first(cells: pd.Series, bad: pd.Series, wanted: str) -> None:
    """Name the first of the bad cells, if there is one."""
    if bad.any():
        line = bad.idxmax()
        raise ValueError(f"line {line}: {cells.name} is {cells[line]!r}, and must {wanted}")


def complete(given: Frame) -> Frame:
    """Give a table all columns in order, numbers as numbers."""
    table: Frame = given.reindex(columns=[*COLUMNS])
    for name in COLUMNS:
        if name in _NUMBERS:
            table[name] = table[name].astype(float)  # `to_numeric` of older pandas is off in the last digit
        else:
            table[name] = table[name].astype(object).where(table[name].notna(), _DEFAULTS.get(name, "")).astype(str)
    table[[*_ZERO]] = table[[*_ZERO]].fillna(0.0)
    table.loc[table["lam"] == 0, [*PENALTY_COLUMNS]] = ["none", "", ""]
    table.loc[table["train_epsilon"] == 0, "method"] = ""
    return table
