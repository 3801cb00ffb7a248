"""Errors that end a command with a message instead of a traceback."""

EXIT_BAD_INPUT, EXIT_INTERRUPTED = 2, 130
"""Exit statuses of the command line."""


class UserError(ValueError):
    """Bad input; the message says what was given, what is allowed and what to do."""


class InterruptedEarlyError(UserError):
    """Training was interrupted before there was anything to evaluate."""
