"""The type of a pandas table in annotations, and its rows as mappings."""

from typing import TYPE_CHECKING, Any

import pandas as pd

if TYPE_CHECKING:
    Frame = Any  # a type checker cannot see columns, and takes every element for a union of all that one can be
else:
    Frame = pd.DataFrame


def as_mappings(frame: Frame) -> list[dict[str, Any]]:
    """Return the rows of a table, each as a mapping from column to value."""
    columns = [str(name) for name in frame.columns]
    return [dict(zip(columns, row, strict=True)) for row in frame.itertuples(index=False, name=None)]


def first_row(frame: Frame) -> dict[str, Any]:
    """Return the first row of a table as a mapping."""
    return as_mappings(frame.head(1))[0]
