"""Text on the terminal as it is."""

import os
from functools import partial

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

_WIDE = 1000  # more than any table
_make_console = partial(Console, markup=False, emoji=False)  # text as it is in the cells of tables too


def open_console(*, quiet: bool = False) -> Console:
    """Return the console of standard output: as wide as the terminal, or in a file or pipe as wide as its tables."""
    console = _make_console(quiet=quiet)
    if console.is_terminal or "COLUMNS" in os.environ:
        return console
    return _make_console(width=_WIDE, quiet=quiet)


def open_error_console() -> Console:
    """Return the console of standard error."""
    return _make_console(stderr=True)


def say(console: Console, text: str) -> None:
    """Write text as it is: no markup, no emoji, no colour, no line breaks of rich's own."""
    console.print(readable(text), highlight=False, soft_wrap=True, markup=False, emoji=False)


def show_table(console: Console, table: Table) -> None:
    """Print a table of figures: as wide as the terminal, or wider where a word or a number would be cut in two.

    The room that is left goes to the column with the most lines. (rich itself makes the columns alike, and cuts words.)
    """
    wide = console.options.update(max_width=_WIDE)
    narrowest = Measurement.get(console, wide, table).minimum
    cells = [
        [Measurement.get(console, wide, cell) for cell in (column.header, *column.cells)] for column in table.columns
    ]
    widths = [max(cell.minimum for cell in column) for column in cells]
    most = [max(cell.maximum for cell in column) for column in cells]
    room = max(0, min(console.width - narrowest, sum(most) - sum(widths)))
    for _ in range(room):
        widths[max(range(len(widths)), key=lambda index: most[index] / widths[index])] += 1
    for column, width in zip(table.columns, widths, strict=True):
        column.width = width
    table.width = narrowest + room
    console.print(table, crop=False)


def readable(text: str) -> str:
    r"""Write each byte of a file's name that is no UTF-8 with a backslash, so that the text can be written at all.

    Example:
        >>> readable(os.fsdecode(b"run-\xe9")) == r"run-\udce9"
        True
    """
    return text.encode(errors="backslashreplace").decode()


def duration(seconds: float) -> str:
    """Write a duration as m:ss, or h:mm:ss."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
