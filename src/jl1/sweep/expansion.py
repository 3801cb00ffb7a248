"""From a config file with `sweep(add)` to the configs of its runs."""

import ast
from collections.abc import Mapping, Sequence
from contextlib import suppress
from copy import deepcopy
from typing import Any, NamedTuple

from jl1.cli_flags import read_number
from jl1.config import Config
from jl1.configuration.checks import validate_config
from jl1.configuration.fields import read_field, require_field
from jl1.configuration.files import load_config, load_sweep, run_name, with_whole_path
from jl1.errors import UserError


class SweepRun(NamedTuple):
    """One run of a sweep.

    Attributes:
        name: Of its folder, from `configuration.files.run_name`.
        overrides: The fields that the sweep and the command line set, by their dotted names, as the config has them.
        config: All settings.
    """

    name: str
    overrides: dict[str, Any]
    config: Config


def expand(name: str) -> list[Config]:
    """Return the configs of all runs of a sweep.

    Args:
        name: A config whose file has `sweep(add)`, as for `configuration.files.load_config`.

    Returns:
        A valid, locked config a run, in the order of the file.

    Raises:
        UserError: No such config, it has no `sweep`, or one of its runs cannot be.

    Example:
        >>> [config.penalty.lam for config in expand("fashion")][:4]
        [0.0, 10.0, 50.0, 0.0]
    """
    return [run.config for run in expand_runs(name)]


def expand_runs(name: str, overrides: Mapping[str, Any] | None = None) -> list[SweepRun]:
    """Expand a sweep, with some fields set in every run.

    Args:
        name: As for `expand`.
        overrides: Values by dotted field, which outrank those of the sweep.

    Returns:
        The runs in the order of the file, each once, however many calls describe it.

    Raises:
        UserError: As `expand`.
    """
    base = load_config(name)
    runs = [_expand_one(name, base, {**fields, **(overrides or {})}) for fields in load_sweep(name)]
    if not runs:
        raise UserError(f"the sweep {name} adds no run")
    return list({run.name: run for run in reversed(runs)}.values())[::-1]


def _expand_one(name: str, base: Config, overrides: dict[str, Any]) -> SweepRun:
    """Set the fields of one run, and check them."""
    config = deepcopy(base)
    for field, value in overrides.items():
        require_field(config, field)
        try:
            config.update_from_flattened_dict({field: value})
        except (TypeError, ValueError) as error:
            raise UserError(f"the sweep {name} sets config.{field}={value!r}: {error}") from error
    validate_config(config)
    config = with_whole_path(config)
    return SweepRun(run_name(config), {field: read_field(config, field) for field in overrides}, config)


def select(runs: Sequence[SweepRun], filters: Sequence[str]) -> list[SweepRun]:
    """Keep the runs that pass every filter.

    Args:
        runs: Runs of a sweep.
        filters: Each `FIELD=VALUE` or `FIELD=VALUE,VALUE`, such as `seed=0,1,2`.

    Returns:
        Those runs whose field has one of the values.

    Raises:
        UserError: An unknown field, no value, or a filter that no run passes.

    Example:
        >>> [run.config.seed for run in select(expand_runs("fashion"), ["seed=1", "penalty.lam=0,10"])]
        [1, 1]
    """
    for text in filters:
        field, _, values = text.partition("=")
        require_field(runs[0].config, field)
        wanted = [_read(value) for value in values.split(",")]
        kept = [run for run in runs if read_field(run.config, field) in wanted]
        if not kept:
            there = dict.fromkeys(str(read_field(run.config, field)) for run in runs)
            raise UserError(f"--only={text}: no run has it; config.{field} is one of {', '.join(there)}")
        runs = kept
    return list(runs)


def take_shard(runs: Sequence[SweepRun], text: str) -> list[SweepRun]:
    """Take every n-th run, for one of the n tasks of a job array.

    Args:
        runs: Runs of a sweep.
        text: `i/n` with 0 <= i < n: the runs i, i + n, i + 2n and so on.

    Returns:
        Those runs; all n shards together are all runs, each once.

    Raises:
        UserError: Not of this form, or out of range.

    Example:
        >>> runs = expand_runs("fashion")
        >>> [len(take_shard(runs, f"{i}/4")) for i in range(4)]
        [2, 2, 1, 1]
    """
    index, _, count = text.partition("/")
    if not (index.isdecimal() and count.isdecimal() and int(index) < int(count)):
        raise UserError(f"--shard={text}: give i/n with 0 <= i < n, such as 0/4 to 3/4 for four tasks")
    return list(runs[int(index) :: int(count)])


def _read(text: str) -> Any:
    """Read a value as Python would, or a fraction as a number, or as text."""
    for read in (ast.literal_eval, read_number):
        with suppress(SyntaxError, ValueError):
            return read(text)
    return text
