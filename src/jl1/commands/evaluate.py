"""`jl1 evaluate`: attack the newest checkpoint of a run."""

from collections.abc import Mapping
from typing import Any

from absl import flags

from jl1.attacks.budgets import BUDGETS
from jl1.attacks.norms import NORMS
from jl1.attacks.suite import ATTACKS
from jl1.cli_flags import (
    check_names,
    define_data_dir,
    define_processes,
    define_workdir,
    parse,
    read_length,
    read_path,
    read_radius,
)
from jl1.data import POINTS
from jl1.devices import Devices
from jl1.display.reporters import open_reporter
from jl1.display.results import show_evaluation
from jl1.display.terminal import open_console, say
from jl1.errors import UserError
from jl1.runs.evaluator import EvaluationOptions, evaluate_run
from jl1.runs.processes import is_first, join_by_flags, same_folder

_DEFAULT_ATTACKS = ("clean", "noise", "fgsm", "pgd", "pgd_margin", "standard")
_ALIASES: Mapping[str, str] = {"autoattack": "standard"}


def run(arguments: list[str]) -> int:
    """Attack the newest checkpoint of a run again."""
    parsed = parse(arguments, *FLAGS)
    if not parsed.workdir:
        raise UserError("jl1 evaluate needs --workdir=DIR, the folder of a run")
    options, workdir = _options(parsed), read_path(parsed.workdir)
    join_by_flags(parsed)
    console, devices = open_console(quiet=not is_first()), Devices()
    if devices.count > 1:
        say(console, devices.describe())
    with same_folder(workdir) as folder, open_reporter(console) as reporter:
        where = {"data_dir": parsed.data_dir, "devices": devices}
        rows = evaluate_run(folder, options=options, reporter=reporter, **where)
    show_evaluation(console, rows, workdir)
    return 0


def _define_attacks(values: flags.FlagValues) -> None:
    """Define the flags of the attacks."""
    flags.DEFINE_list("attacks", list(_DEFAULT_ATTACKS), f"some of {','.join(ATTACKS)}", flag_values=values)
    flags.DEFINE_string("budget", "fast", f"strength of AutoAttack: {', '.join(BUDGETS)}", flag_values=values)
    flags.DEFINE_string("points", "test", f"which points: {', '.join(POINTS)}", flag_values=values)
    flags.DEFINE_integer(
        "max_points", None, "only so many points, from the first; all if not given", 1, flag_values=values
    )
    flags.DEFINE_list(
        "epsilons", ["0.1", "0.2", "0.3"], "radii, 8/255 too; in L-infinity in [0, 1]", flag_values=values
    )
    flags.DEFINE_string("norm", "linf", f"of the balls: {', '.join(NORMS)}", flag_values=values)
    flags.DEFINE_integer("pgd_steps", 100, "steps of a PGD restart", 1, flag_values=values)
    flags.DEFINE_integer("pgd_restarts", 1, "random restarts of PGD", 1, flag_values=values)
    flags.DEFINE_integer("batch_size", 500, "examples at a time", 1, flag_values=values)


def _options(parsed: flags.FlagValues) -> EvaluationOptions:
    """Check the flags."""
    attacks: list[str] = [_ALIASES.get(name, name) for name in parsed.attacks]
    check_names("attacks", attacks, ATTACKS)
    check_names("budget", [parsed.budget], BUDGETS)
    check_names("points", [parsed.points], POINTS)
    check_names("norm", [parsed.norm], NORMS)
    if not parsed.epsilons:
        raise UserError("--epsilons: there is no radius in it; give numbers in [0, 1], such as 0.1,0.3")
    if parsed.norm == "l2" and not parsed["epsilons"].present:
        raise UserError("--norm=l2 needs --epsilons=R,...: L2 lengths in the units of the inputs, such as 0.5,1,2")
    values: dict[str, Any] = {name: parsed[name].value for name in EvaluationOptions._fields}
    values["attacks"] = attacks
    read = read_length if parsed.norm == "l2" else read_radius
    values["epsilons"] = [read("epsilons", text) for text in parsed.epsilons]
    return EvaluationOptions(**values)


FLAGS = (define_workdir, define_data_dir, define_processes, _define_attacks)
"""Functions that define its flags."""
