"""`jl1 audit`: say whether the accuracy of a run holds."""

from typing import Any

from absl import flags

from jl1.attacks.budgets import BUDGETS
from jl1.cli_flags import check_names, define_data_dir, define_workdir, parse, read_path, read_radius
from jl1.data import POINTS
from jl1.display.reporters import open_reporter
from jl1.display.results import show_audit
from jl1.display.terminal import open_console
from jl1.errors import UserError
from jl1.pictures.style import NO_PICTURES, have_matplotlib
from jl1.runs.audit_page import write_page
from jl1.runs.audit_pictures import draw_audit
from jl1.runs.auditor import AuditOptions, audit_run
from jl1.runs.lock import hold_run


def run(arguments: list[str]) -> int:
    """Audit the newest checkpoint of a run."""
    parsed = parse(arguments, *FLAGS)
    if not parsed.workdir:
        raise UserError("jl1 audit needs --workdir=DIR, the folder of a run")
    options, console, workdir = _options(parsed), open_console(), read_path(parsed.workdir)
    with open_reporter(console) as reporter:
        audited = audit_run(workdir, options=options, data_dir=parsed.data_dir, reporter=reporter)
        with hold_run(workdir):
            pictures = draw_audit(workdir, audited) if have_matplotlib() else {}
            page = write_page(workdir, audited.content, audited.trained.config, pictures)
        if not pictures:
            reporter.notice(NO_PICTURES)
    show_audit(console, audited.content, page)
    return 0


def _define_audit(values: flags.FlagValues) -> None:
    """Define what is audited, and how hard."""
    flags.DEFINE_string(
        "epsilon",
        None,
        "L-infinity radius in (0, 1], 8/255 too; that of the training, or else 0.1, if not given",
        flag_values=values,
    )
    flags.DEFINE_string("budget", "fast", f"strength of AutoAttack: {', '.join(BUDGETS)}", flag_values=values)
    flags.DEFINE_string("points", "test", f"which points: {', '.join(POINTS)}", flag_values=values)
    flags.DEFINE_integer("max_points", 1000, "only so many points, from the first", 2, flag_values=values)
    flags.DEFINE_integer("num_examined", 200, "points for the measures of gradients", 1, flag_values=values)
    flags.DEFINE_integer("batch_size", 500, "examples at a time", 1, flag_values=values)
    flags.DEFINE_string("transfer_from", None, "folder of another run on the same data", flag_values=values)


def _options(parsed: flags.FlagValues) -> AuditOptions:
    """Check the flags."""
    check_names("budget", [parsed.budget], BUDGETS)
    check_names("points", [parsed.points], POINTS)
    values: dict[str, Any] = {name: parsed[name].value for name in AuditOptions._fields}
    if parsed.epsilon is not None:
        values["epsilon"] = read_radius("epsilon", parsed.epsilon)
        if values["epsilon"] == 0:
            raise UserError("--epsilon=0: there is no attack in a ball of radius 0; give a number in (0, 1]")
    values["transfer_from"] = read_path(parsed.transfer_from) if parsed.transfer_from else None
    return AuditOptions(**values)


FLAGS = (define_workdir, define_data_dir, _define_audit)
"""Functions that define its flags."""
