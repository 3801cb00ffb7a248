"""Tidy rows as CSV, written and read."""

import csv
from pathlib import Path

from jl1.errors import UserError
from jl1.json_files import write_text
from jl1.report.columns import REQUIRED, WHOLE, check_cells, complete
from jl1.report.frames import Frame, read_text_table


def read_rows(file: Path) -> Frame:
    """Read tidy rows from a CSV file; columns that it lacks, and empty cells, get their defaults.

    Raises:
        UserError: No such file, one without these rows, or a cell that cannot be read.
    """
    try:
        table = read_text_table(file)
    except FileNotFoundError as error:
        raise UserError(f"--rows: there is no file {file}") from error
    except OSError as error:
        raise UserError(f"--rows: {file} cannot be read: {error.strerror or error}") from error
    except (ValueError, csv.Error) as error:
        raise UserError(f"--rows: {file} is no rows.csv, as `jl1 table --out=FOLDER` writes it: {error}") from error
    lacking = sorted(REQUIRED - {*table.columns})
    if lacking:
        raise UserError(
            f"--rows: {file} has no column {', '.join(lacking)}; give a rows.csv that `jl1 table --out` has written"
        )
    try:
        check_cells(table)
    except ValueError as error:
        raise UserError(f"--rows: {file}, {error}") from error
    return complete(table.where(table != ""))


def write_rows(rows: Frame, path: Path) -> Path:
    """Write tidy rows as CSV, each figure to its last digit; whole or not at all, for they may be the only ones."""
    return write_text(path, rows.astype(dict.fromkeys(WHOLE, "Int64")).to_csv(index=False, lineterminator="\n"))
