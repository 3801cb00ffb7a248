"""Text on the terminal as it is."""

from rich.console import Console


def say(console: Console, text: str) -> None:
    """Write text as it is: no markup, no colour, no line breaks of rich's own."""
    console.print(text, highlight=False, soft_wrap=True, markup=False)


def duration(seconds: float) -> str:
    """Write a duration as m:ss, or h:mm:ss."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
