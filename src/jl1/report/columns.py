"""The columns of the tidy rows, their types and defaults. docs/tables.md says what they mean."""

import pandas as pd

from jl1.report.frames import Frame
from jl1.report.run_settings import SETTING_COLUMNS

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

_DEFAULTS = {"status": FINISHED, "when": FINAL, "norm": "linf", "labels": "true", "points": "test", "rule": "attacked"}
_ZERO = ("lam", "train_epsilon", "warmup_epochs", "epsilon", "num_examples")  # part of what is grouped by


def complete(given: Frame) -> Frame:
    """Give a table all columns in order, numbers as numbers."""
    table: Frame = given.reindex(columns=[*COLUMNS])
    for name in COLUMNS:
        if name in _NUMBERS:
            numbers: Frame = pd.to_numeric(table[name], errors="coerce")
            table[name] = numbers.astype(float)
        else:
            table[name] = table[name].astype(object).where(table[name].notna(), _DEFAULTS.get(name, "")).astype(str)
    table[[*_ZERO]] = table[[*_ZERO]].fillna(0.0)
    table.loc[table["lam"] == 0, ["penalty", "outputs", "scale"]] = ["none", "", ""]
    table.loc[table["train_epsilon"] == 0, "method"] = ""
    return table
