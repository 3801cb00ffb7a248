"""Errors that end a command with a message instead of a traceback."""

EXIT_FAILED_RUNS, EXIT_BAD_INPUT, EXIT_HELD, EXIT_INTERRUPTED = 1, 2, 75, 130
"""Exit statuses of the command line; 75: somebody else works on it, the same command may do later."""


class UserError(ValueError):
    """Bad input; the message says what was given, what is allowed and what to do."""

    exit_status = EXIT_BAD_INPUT


class InterruptedEarlyError(UserError):
    """A run was interrupted before it came to its result."""

    exit_status = EXIT_INTERRUPTED


class RunHeldError(UserError):
    """Another process works on the run, which is left as it is."""

    exit_status = EXIT_HELD
