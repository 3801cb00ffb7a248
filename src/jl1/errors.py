"""Errors that end a command with a message instead of a traceback, and the words that they share."""

import difflib
from collections.abc import Iterable

EXIT_FAILED_RUNS, EXIT_BAD_INPUT, EXIT_HELD, EXIT_INTERRUPTED = 1, 2, 75, 130
"""Exit statuses of the command line; 75: somebody else works on it, the same command may do later."""


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """Ask whether the nearest known name was meant, at the end of a message; empty if none is near."""
    near = difflib.get_close_matches(given, known, n=1)
    return f"; did you mean {near[0]}?" if near else ""


def cannot_write(place: object, error: OSError, advice: str) -> "UserError":
    """Make the error for a file or folder that the system does not let us write: where, why, and what to do.

    Example:
        >>> str(cannot_write("runs", OSError(13, "Permission denied"), "choose another folder with --workdir"))
        'cannot write to runs: Permission denied; choose another folder with --workdir'
    """
    return UserError(f"cannot write to {place}: {error.strerror or error}; {advice}")


def cannot_read(place: object, error: OSError) -> "UserError":
    """Make the error for a file or folder that the system does not let us look into.

    Example:
        >>> str(cannot_read("data", OSError(13, "Permission denied")))
        'data cannot be read: Permission denied'
    """
    return UserError(f"{place} cannot be read: {error.strerror or error}")


class UserError(ValueError):
    """Bad input; the message says what was given, what is allowed and what to do."""

    exit_status = EXIT_BAD_INPUT


class InterruptedEarlyError(UserError):
    """A run was interrupted before it came to its result."""

    exit_status = EXIT_INTERRUPTED


class RunHeldError(UserError):
    """Another process works on the run, which is left as it is."""

    exit_status = EXIT_HELD
