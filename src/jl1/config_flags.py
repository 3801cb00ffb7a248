"""--config and --config.FIELD: a config from the command line."""

import difflib
from collections.abc import Callable

from absl import flags
from ml_collections import config_flags

from jl1.cli_flags import parse
from jl1.config import Config
from jl1.config_files import field_names, load_config
from jl1.errors import UserError


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
    name, rest = default, []
    remaining = iter(arguments)
    for argument in remaining:
        flag, equals, value = argument.partition("=")
        if flag.lstrip("-") == "config" and flag != "config":
            name = value if equals else next(remaining, "")
        else:
            rest.append(argument)
    config = load_config(name)
    _check_fields(config, rest)

    def define_overrides(values: flags.FlagValues) -> None:
        config_flags.DEFINE_config_dict("config", config, lock_config=True, flag_values=values, sys_argv=rest)

    return config, parse(rest, define_overrides, *definitions)


def _check_fields(config: Config, arguments: list[str]) -> None:
    """Refuse --config.FIELD for a field that does not exist, with the nearest that does."""
    known = field_names(config)
    for argument in arguments:
        flag = argument.partition("=")[0].lstrip("-").removeprefix("no")
        if flag.startswith("config.") and flag.removeprefix("config.") not in known:
            near = difflib.get_close_matches(flag.removeprefix("config."), known, n=1)
            hint = f"did you mean config.{near[0]}?" if near else "docs/configs.md lists them"
            raise UserError(f"there is no field {flag}; {hint}")
