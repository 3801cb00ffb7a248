"""Text on the terminal as it is."""

import os

from rich.console import Console

_WIDE = 1000  # more than any table
_AS_IT_IS = {"markup": False, "emoji": False}  # in the cells of tables too


def open_console(*, quiet: bool = False) -> Console:
    """Return the console of standard output: as wide as the terminal, or in a file or pipe as wide as its tables."""
    console = Console(quiet=quiet, **_AS_IT_IS)
    if console.is_terminal or "COLUMNS" in os.environ:
        return console
    return Console(width=_WIDE, quiet=quiet, **_AS_IT_IS)


def open_error_console() -> Console:
    """Return the console of standard error."""
    return Console(stderr=True, **_AS_IT_IS)


def say(console: Console, text: str) -> None:
    """Write text as it is: no markup, no emoji, no colour, no line breaks of rich's own."""
    console.print(text, highlight=False, soft_wrap=True, markup=False, emoji=False)


def duration(seconds: float) -> str:
    """Write a duration as m:ss, or h:mm:ss."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
