"""`jl1 table`: the results of many runs side by side, with statistics and the paper's numbers."""

import shlex

from absl import flags

from jl1.cli_flags import check_names, parse, read_path
from jl1.display.terminal import open_console, say, show_table
from jl1.display.text_tables import as_rich
from jl1.errors import UserError
from jl1.pictures.style import NO_PICTURES, have_matplotlib
from jl1.report.columns import FINISHED
from jl1.report.pages import Page, make_page
from jl1.report.paper_numbers import TABLES
from jl1.report.results import Results, read_results
from jl1.report.writing import write_report


def run(arguments: list[str]) -> int:
    """Read, summarise, show, and write if asked to."""
    parsed = parse(arguments, *FLAGS)
    check_names("paper", [parsed.paper], ("all", *TABLES, "none"))
    if not parsed.workdir and not parsed.rows:
        raise UserError("jl1 table needs --workdir=DIR, a folder of runs, or --rows=FILE.csv, or several of them")
    results = read_results(map(read_path, parsed.workdir), map(read_path, parsed.rows))
    if not (results.rows["accuracy"].notna() & (results.rows["status"] == FINISHED)).any():
        reasons = "".join(f"\n  {note}" for note in results.notes)
        raise UserError(f"there is no result of a finished run in {', '.join(parsed.workdir + parsed.rows)}{reasons}")
    page = make_page(results, parsed.paper)
    _show_and_write(parsed, results, page, shlex.join(["jl1", "table", *arguments]))
    return 0


def _define_table(values: flags.FlagValues) -> None:
    """Define what is read, what it is set beside, and where it is written."""
    flags.DEFINE_list("workdir", [], "folders of runs, or of one run", flag_values=values)
    flags.DEFINE_list("rows", [], "CSV files of rows, written by --out", flag_values=values)
    flags.DEFINE_string(
        "paper", "all", f"what of the paper stands beside: all, {', '.join(TABLES)}, none", flag_values=values
    )
    flags.DEFINE_string("out", None, "folder for the tables, the rows and the pictures", flag_values=values)


def _show_and_write(parsed: flags.FlagValues, results: Results, page: Page, command: str) -> None:
    """Show the tables and what is to be known of them, and write the files."""
    console = open_console()
    for layout in page.layouts:
        say(console, layout.title)
        show_table(console, as_rich(layout))
        say(console, "")
    say(console, "\n".join(page.notes))
    if parsed.out:
        files, warnings = write_report(read_path(parsed.out), command=command, page=page, results=results)
        written = f"files: {', '.join(map(str, files))}" + ("" if have_matplotlib() else f" ({NO_PICTURES})")
        say(console, "\n".join([*warnings, written]))


FLAGS = (_define_table,)
"""Functions that define its flags."""
