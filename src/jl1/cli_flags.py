"""How the flags of a subcommand are read and checked; jl1 defines none in the process's own flag table."""

import math
import os
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from absl import flags

from jl1.errors import UserError, did_you_mean


def define_workdir(values: flags.FlagValues) -> None:
    """Define --workdir."""
    flags.DEFINE_string("workdir", None, "folder of the run", flag_values=values)


def define_data_dir(values: flags.FlagValues) -> None:
    """Define --data_dir."""
    flags.DEFINE_string("data_dir", None, "folder with the data, if it has moved", flag_values=values)


def define_processes(values: flags.FlagValues) -> None:
    """Define how several processes find each other, where no launcher says it."""
    flags.DEFINE_string("coordinator", None, "HOST:PORT of process 0", flag_values=values)
    flags.DEFINE_integer("num_processes", None, "how many processes there are", 1, flag_values=values)
    flags.DEFINE_integer("process_id", None, "which of the processes this one is, from 0", 0, flag_values=values)
    flags.DEFINE_boolean("alone", False, "one process, whatever launched it", flag_values=values)


def parse(arguments: list[str], *definitions: Callable[[flags.FlagValues], None]) -> flags.FlagValues:
    """Parse the flags of one subcommand.

    Args:
        arguments: Those of the command line, without the subcommand.
        *definitions: Functions that define flags.

    Returns:
        The flags with their values.

    Raises:
        UserError: A flag that does not exist, a value that does not fit, or a word that is no flag.
    """
    values = flags.FlagValues()
    try:
        for define in definitions:
            define(values)
        rest = values(["jl1", *arguments])
    except (flags.Error, TypeError) as error:
        raise UserError(f"{error}\n(`jl1 COMMAND --help` lists the flags, docs/configs.md the fields)") from error
    if len(rest) > 1:
        raise UserError(f"did not understand {' '.join(rest[1:])!r}; flags are written --name=value")
    return values


def describe_flags(*definitions: Callable[[flags.FlagValues], None]) -> dict[str, str]:
    """Return the meaning of each flag, with its default in brackets if it has one.

    Example:
        >>> describe_flags(define_data_dir)
        {'data_dir': 'folder with the data, if it has moved'}
    """
    values = flags.FlagValues()
    for define in definitions:
        define(values)
    return {name: _meaning(values[name]) for name in values}


def _meaning(flag: flags.Flag) -> str:
    """Return the first line of what absl says of a flag, with its default in brackets if it has one."""
    text = f"{flag.help}".partition(";\n")[0]
    has_default = flag.default is not None and flag.default is not False and flag.default != []
    return f"{text} [{f'{flag.default_as_str}'[1:-1]}]" if has_default else text


def check_names(flag: str, given: Sequence[str], known: Collection[str]) -> None:
    """Refuse a name that a flag does not know, and a list without names."""
    unknown = sorted(set(given) - set(known))
    if unknown or not given:
        hint = did_you_mean(unknown[0], known) if unknown else ""
        missing = ", ".join(unknown) or "name in it"
        raise UserError(f"--{flag}: there is no {missing}; there are {', '.join(known)}{hint}")


def read_path(text: str) -> Path:
    """Read a path; `~` is the home folder here too, since a shell leaves it as it is behind `--flag=`.

    Example:
        >>> read_path("~/runs") == Path.home() / "runs"
        True
    """
    return Path(os.path.expanduser(text))  # which leaves the home of nobody as it is, where Path.expanduser fails


def read_radius(flag: str, text: str) -> float:
    """Read one L-infinity radius, a number or a fraction, or refuse it; 8 grey levels are 8/255."""
    try:
        value = read_number(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        hint = f"; did you mean {value:g}/255?" if 1 < value <= 255 else ""
        raise UserError(f"--{flag}: {text!r} is not a number in [0, 1], the range of the inputs{hint}")
    return value


def read_length(flag: str, text: str) -> float:
    """Read one L2 radius, a number or a fraction, or refuse it."""
    try:
        value = read_number(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise UserError(f"--{flag}: {text!r} is not an L2 radius: a number of at least 0, in the units of the inputs")
    return value


def read_number(text: str) -> float:
    """Read a number or a fraction of two.

    Raises:
        ValueError: It is neither.

    Example:
        >>> read_number("0.5"), read_number("51/255")
        (0.5, 0.2)
    """
    above, slash, below = text.partition("/")
    if slash and float(below) == 0:
        raise ValueError(f"{text!r} divides by zero")
    return float(above) / float(below) if slash else float(text)
