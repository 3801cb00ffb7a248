"""`jl1 export`: write the network of a run that has a result for other tools."""

from absl import flags

from jl1.cli_flags import check_names, define_data_dir, define_workdir, parse, read_path
from jl1.display.reporters import open_reporter
from jl1.display.terminal import open_console, say
from jl1.errors import UserError
from jl1.runs.exporting import FORMATS, export_run


def run(arguments: list[str]) -> int:
    """Write the network of a run for other tools."""
    parsed = parse(arguments, *FLAGS)
    if not parsed.workdir or not parsed.out:
        raise UserError("jl1 export needs --workdir=DIR, the folder of a run, and --out=FOLDER, a new one")
    check_names("format", parsed.format, FORMATS)
    console = open_console()
    with open_reporter(console) as reporter:
        files = export_run(
            read_path(parsed.workdir),
            read_path(parsed.out),
            formats=parsed.format,
            data_dir=parsed.data_dir,
            reporter=reporter,
        )
    say(console, "\n".join(f"{path} ({path.stat().st_size:,} bytes)" for path in files))
    return 0


def _define_export(values: flags.FlagValues) -> None:
    """Define what is written, and where."""
    flags.DEFINE_string("out", None, "new folder for the network", flag_values=values)
    flags.DEFINE_list("format", list(FORMATS), f"what is written: {', '.join(FORMATS)}", flag_values=values)


FLAGS = (define_workdir, define_data_dir, _define_export)
"""Functions that define its flags."""
