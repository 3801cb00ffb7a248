"""The type of a pandas table in annotations, its rows as mappings, and such a table from a CSV file."""

import csv
from pathlib import Path
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


def read_text_table(file: Path) -> Frame:
    """Read a CSV file as text, each row under the number of its line; no field may stand under another's name.

    Raises:
        ValueError: No header, a column twice, or a line with other than its number of fields.
        csv.Error: No CSV.
        OSError: The file cannot be read.
    """
    with file.open(encoding="utf-8-sig", newline="") as text:
        lines = csv.reader(text)
        header = next(lines, [])
        numbered = dict((lines.line_num, fields) for fields in lines if fields)
    repeated = [name for name in header if name and header.count(name) > 1]
    if not header or repeated:
        raise ValueError(f"it has the column {repeated[0]} more than once" if repeated else "it is empty")
    for number, fields in numbered.items():
        if len(fields) != len(header):
            raise ValueError(f"line {number} has {len(fields)} fields, and the header {len(header)}")
    table = pd.DataFrame([*numbered.values()], index=[*numbered], columns=header, dtype=str)
    return table.loc[:, table.columns != ""]
