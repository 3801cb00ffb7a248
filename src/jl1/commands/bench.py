"""`jl1 bench`: time the exact step beside its peers."""

import shlex
import shutil
import sys
from typing import Any

from absl import flags

from jl1.bench.bench_record import BenchRecord
from jl1.bench.options import PEERS, STUDIES, BenchOptions
from jl1.bench.report import LEGEND, lay_out_all, write_report
from jl1.bench.studies import run_studies
from jl1.cli_flags import check_names, parse, read_path
from jl1.cores import usable_cores
from jl1.display.terminal import open_console, say, show_table
from jl1.display.text_tables import as_rich
from jl1.errors import EXIT_INTERRUPTED, UserError
from jl1.models import MODELS


def run(arguments: list[str]) -> int:
    """Measure the exact step beside its peers."""
    parsed = parse(arguments, *FLAGS)
    options = _options(parsed)
    console = open_console()
    record = BenchRecord(read_path(parsed.out), shlex.join(["jl1", "bench", *arguments]))
    status = 0
    try:
        run_studies(options, record, lambda text: say(console, text))
    except KeyboardInterrupt:
        say(console, "interrupted; the rows so far are kept")
        status = EXIT_INTERRUPTED
    for layout in lay_out_all(record.content["tables"]):
        say(console, layout.title)
        show_table(console, as_rich(layout))
        say(console, "\n".join([*layout.below, ""]))
    say(console, f"{LEGEND}\n\n{write_report(record)}")
    return status


def _define_bench(values: flags.FlagValues) -> None:
    """Define what is measured, and how long."""
    flags.DEFINE_string("out", "runs/bench", "new folder for the figures", flag_values=values)
    flags.DEFINE_list("models", ["C", "A", "B"], "which models", flag_values=values)
    flags.DEFINE_list("studies", list(STUDIES), "what is measured", flag_values=values)
    flags.DEFINE_list("peers", list(PEERS), "what the closed form is measured beside", flag_values=values)
    flags.DEFINE_integer("batch_size", 128, "examples a step", 1, flag_values=values)
    flags.DEFINE_integer("repeats", 15, "runs of each form", 1, flag_values=values)
    flags.DEFINE_float("form_seconds", 60.0, "seconds after which a form has run enough", 0.0, flag_values=values)
    flags.DEFINE_integer("core", usable_cores()[0], "the core that every process is pinned to", flag_values=values)
    flags.DEFINE_string("torch_python", sys.executable, "interpreter with PyTorch", flag_values=values)


def _options(parsed: flags.FlagValues) -> BenchOptions:
    """Check the flags."""
    check_names("models", parsed.models, MODELS)
    check_names("studies", parsed.studies, STUDIES)
    if parsed.peers:
        check_names("peers", parsed.peers, PEERS)
    if parsed.core not in usable_cores():
        raise UserError(f"--core={parsed.core}: this process may use the cores {', '.join(map(str, usable_cores()))}")
    if shutil.which(parsed.torch_python) is None:
        raise UserError(f"--torch_python={parsed.torch_python}: there is no such program")
    values: dict[str, Any] = {name: parsed[name].value for name in BenchOptions._fields}
    return BenchOptions(**values)


FLAGS = (_define_bench,)
"""Functions that define its flags."""
