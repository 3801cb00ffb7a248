"""Text on the terminal as it is."""

from rich.console import Console


def say(console: Console, text: str) -> None:
    """Write text as it is: no markup, no colour, no line breaks of rich's own."""
    console.print(text, highlight=False, soft_wrap=True, markup=False)
