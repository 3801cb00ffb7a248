"""The one exception that the command line shows without a traceback."""


class UserError(ValueError):
    """Bad input; the message says what was given, what is allowed and what to do."""

    exit_status = 2
