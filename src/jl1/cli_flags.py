"""Flags of the subcommands, and how they are read; jl1 defines none in the process's own flag table."""

import difflib
import os
import shutil
import sys
from collections.abc import Callable, Collection, Sequence
from typing import Any

from absl import flags
from ml_collections import config_flags

from jl1.attacks.ensemble import BUDGETS
from jl1.attacks.suite import ATTACKS
from jl1.bench.options import PEERS, STUDIES, BenchOptions
from jl1.config import Config
from jl1.config_files import load_config, require_field
from jl1.errors import UserError
from jl1.evaluator import EvaluationOptions
from jl1.exporting import FORMATS
from jl1.models import MODELS

_DEFAULT_ATTACKS = ("clean", "noise", "fgsm", "pgd", "pgd_margin", "standard")
_POINTS = ("test", "validation")


def define_workdir(values: flags.FlagValues) -> None:
    """Define --workdir."""
    flags.DEFINE_string("workdir", None, "folder of the run", flag_values=values)


def define_attacks(values: flags.FlagValues) -> None:
    """Define the flags of `jl1 evaluate`."""
    flags.DEFINE_list("attacks", list(_DEFAULT_ATTACKS), "which attacks", flag_values=values)
    flags.DEFINE_string("budget", "fast", "strength of the standard ensemble and its parts", flag_values=values)
    flags.DEFINE_string("points", "test", "test, or validation", flag_values=values)
    flags.DEFINE_integer("max_points", None, "only so many points, from the first", 1, flag_values=values)
    flags.DEFINE_list("epsilons", ["0.1", "0.2", "0.3"], "L-infinity radii in [0, 1]", flag_values=values)
    flags.DEFINE_integer("pgd_steps", 100, "steps of a PGD restart", 1, flag_values=values)
    flags.DEFINE_integer("pgd_restarts", 1, "random restarts of PGD", 1, flag_values=values)
    flags.DEFINE_integer("batch_size", 500, "examples at a time", 1, flag_values=values)
    _define_data_dir(values)


def define_export(values: flags.FlagValues) -> None:
    """Define the flags of `jl1 export`."""
    flags.DEFINE_string("out", None, "new folder for the network", flag_values=values)
    flags.DEFINE_list("format", list(FORMATS), "what is written", flag_values=values)
    _define_data_dir(values)


def _define_data_dir(values: flags.FlagValues) -> None:
    """Define --data_dir."""
    flags.DEFINE_string("data_dir", None, "folder with the data, if it has moved", flag_values=values)


def define_bench(values: flags.FlagValues) -> None:
    """Define the flags of `jl1 bench`."""
    flags.DEFINE_string("out", "runs/bench", "new folder for the figures", flag_values=values)
    flags.DEFINE_list("models", ["C", "A", "B"], "which models", flag_values=values)
    flags.DEFINE_list("studies", list(STUDIES), "what is measured", flag_values=values)
    flags.DEFINE_list("peers", list(PEERS), "what the closed form is measured beside", flag_values=values)
    flags.DEFINE_integer("batch_size", 128, "examples a step", 1, flag_values=values)
    flags.DEFINE_integer("repeats", 15, "runs of each form", 1, flag_values=values)
    flags.DEFINE_float("form_seconds", 60.0, "seconds after which a form has run enough", 0.0, flag_values=values)
    flags.DEFINE_integer("core", _cores()[0], "the core that every process is pinned to", flag_values=values)
    flags.DEFINE_string("torch_python", sys.executable, "interpreter with PyTorch", flag_values=values)


def evaluation_options(parsed: flags.FlagValues) -> EvaluationOptions:
    """Check the flags of `jl1 evaluate`."""
    check_names("attacks", parsed.attacks, ATTACKS)
    check_names("budget", [parsed.budget], BUDGETS)
    check_names("points", [parsed.points], _POINTS)
    if not parsed.epsilons:
        raise UserError("--epsilons: there is no radius in it; give numbers in [0, 1], such as 0.1,0.3")
    values: dict[str, Any] = {name: parsed[name].value for name in EvaluationOptions._fields}
    values["epsilons"] = [_radius(text) for text in parsed.epsilons]
    return EvaluationOptions(**values)


def bench_options(parsed: flags.FlagValues) -> BenchOptions:
    """Check the flags of `jl1 bench`."""
    check_names("models", parsed.models, MODELS)
    check_names("studies", parsed.studies, STUDIES)
    if parsed.peers:
        check_names("peers", parsed.peers, PEERS)
    if parsed.core not in _cores():
        raise UserError(f"--core={parsed.core}: this process may use the cores {', '.join(map(str, _cores()))}")
    if shutil.which(parsed.torch_python) is None:
        raise UserError(f"--torch_python={parsed.torch_python}: there is no such program")
    values: dict[str, Any] = {name: parsed[name].value for name in BenchOptions._fields}
    return BenchOptions(**values)


def check_names(flag: str, given: Sequence[str], known: Collection[str]) -> None:
    """Refuse a name that a flag does not know, and a list without names."""
    unknown = sorted(set(given) - set(known))
    if unknown or not given:
        near = difflib.get_close_matches(unknown[0], known, n=1) if unknown else []
        hint = f"; did you mean {near[0]}?" if near else ""
        missing = ", ".join(unknown) or "name in it"
        raise UserError(f"--{flag}: there is no {missing}; there are {', '.join(known)}{hint}")


def _cores() -> list[int]:
    """List the cores that this process may use."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))


def parse(arguments: list[str], *definitions: Callable[[flags.FlagValues], None]) -> flags.FlagValues:
    """Parse the flags of one subcommand; jl1 defines none in the process's own flag table."""
    values = flags.FlagValues()
    try:
        for define in definitions:
            define(values)
        rest = values(["jl1", *arguments])
    except (flags.Error, TypeError) as error:
        raise UserError(f"{error}\n(`jl1 help` lists the flags, docs/configs.md the fields)") from error
    if len(rest) > 1:
        raise UserError(f"did not understand {' '.join(rest[1:])!r}; flags are written --name=value")
    return values


def parse_config(
    arguments: list[str], default: str, *definitions: Callable[[flags.FlagValues], None]
) -> tuple[Config, flags.FlagValues]:
    """Load the config that --config names, apply every --config.FIELD=VALUE, and parse the other flags."""
    name, rest = default, []
    remaining = iter(arguments)
    for argument in remaining:
        flag, equals, value = argument.partition("=")
        if flag.lstrip("-") == "config" and flag != "config":
            name = value if equals else next(remaining, "")
        else:
            rest.append(argument)
    config = load_config(name)
    for field in given_fields(rest):
        require_field(config, field)

    def define_overrides(values: flags.FlagValues) -> None:
        config_flags.DEFINE_config_dict("config", config, lock_config=True, flag_values=values, sys_argv=rest)

    return config, parse(rest, define_overrides, *definitions)


def given_fields(arguments: list[str]) -> list[str]:
    """List the fields that --config.FIELD sets, by their dotted names."""
    flags_given = [argument.partition("=")[0].lstrip("-").removeprefix("no") for argument in arguments]
    return [flag.removeprefix("config.") for flag in flags_given if flag.startswith("config.")]


def _radius(text: str) -> float:
    """Read one radius."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        hint = f"; did you mean {value:g}/255 = {value / 255:.6g}?" if 1 < value <= 255 else ""
        raise UserError(f"--epsilons: {text!r} is not a number in [0, 1], the range of the inputs{hint}")
    return value
