"""--config and --config.FIELD: a config from the command line."""

from collections.abc import Callable, Mapping
from itertools import pairwise

from absl import flags
from ml_collections import config_flags

from jl1.cli_flags import parse, read_number
from jl1.config import Config
from jl1.configuration.fields import require_field
from jl1.configuration.files import load_config


def parse_config(
    arguments: list[str], default: str, *definitions: Callable[[flags.FlagValues], None]
) -> tuple[Config, flags.FlagValues]:
    """Load the config that --config names, apply every --config.FIELD=VALUE, and parse the other flags.

    Args:
        arguments: Those of the command line, without the subcommand.
        default: Name of the config without --config.
        *definitions: Functions that define the other flags.

    Returns:
        The config and the other flags.

    Raises:
        UserError: No such config or field, a value that does not fit, and as `cli_flags.parse`.
    """
    name, rest = take_config_name(arguments)
    return parse_overrides(load_config(name if name is not None else default), rest, *definitions)


def take_config_name(arguments: list[str]) -> tuple[str | None, list[str]]:
    """Return what --config names, or None, and the other arguments."""
    name, rest = None, []
    remaining = iter(arguments)
    for argument in remaining:
        flag, equals, value = argument.partition("=")
        if flag.lstrip("-") == "config" and flag != "config":
            name = value if equals else next(remaining, "")
        else:
            rest.append(argument)
    return name, rest


def parse_overrides(
    config: Config, arguments: list[str], *definitions: Callable[[flags.FlagValues], None]
) -> tuple[Config, flags.FlagValues]:
    """Apply every --config.FIELD=VALUE to a config, which is changed, and parse the other flags."""
    for field in given_fields(arguments):
        require_field(config, field)

    def define_overrides(values: flags.FlagValues) -> None:
        config_flags.DEFINE_config_dict("config", config, lock_config=True, flag_values=values, sys_argv=arguments)

    arguments = [_as_ml_collections_reads(*pair) for pair in pairwise(["", *arguments])]
    return config, parse(arguments, define_overrides, *definitions)


def _as_ml_collections_reads(before: str, argument: str) -> str:
    """Rewrite a value that ml_collections reads in another form; its flag is in the same argument or the one before."""
    if before.startswith("-") and before.lstrip("-") in _REWRITTEN:
        return _REWRITTEN[before.lstrip("-")](argument)
    flag, equals, value = argument.partition("=")
    return f"{flag}={_REWRITTEN[flag.lstrip('-')](value)}" if equals and flag.lstrip("-") in _REWRITTEN else argument


def _as_numbers(text: str) -> str:
    """Write fractions as numbers to the last bit, and leave other text to whoever refuses it."""
    return ",".join(_as_number(part) if "/" in part else part for part in text.split(","))


def _as_number(text: str) -> str:
    """Write a fraction as a number, if it is one."""
    try:
        return repr(read_number(text))
    except ValueError:
        return text


def _as_strings(text: str) -> str:
    """Write words with commas as a tuple of strings; what is in quotes or brackets is one already."""
    return text if set(text) & set("'\"(") else repr(tuple(word.strip() for word in text.split(",") if word.strip()))


_REWRITTEN: Mapping[str, Callable[[str], str]] = {
    "config.adversarial.epsilon": _as_numbers,
    "config.adversarial.step_size": _as_numbers,
    "config.evaluation.epsilons": _as_numbers,
    "config.evaluation.attacks": _as_strings,
}
"""Lengths in the space of the inputs, where 8 grey levels are 8/255, and tuples of names."""


def given_fields(arguments: list[str]) -> list[str]:
    """List the fields that --config.FIELD sets, by their dotted names."""
    names = [argument.partition("=")[0] for argument in arguments if argument.startswith("-")]
    given = [name.lstrip("-").removeprefix("no") for name in names]
    return [flag.removeprefix("config.") for flag in given if flag.startswith("config.")]
