"""The command `jl1`: flags and subcommands. Only this file and `display` write to the terminal."""

import os
import shlex
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

import jax
from rich.console import Console

from jl1.bench.bench_record import BenchRecord
from jl1.bench.report import LEGEND, as_rich, lay_out_all, write_report
from jl1.bench.studies import run_studies
from jl1.cli_flags import (
    bench_options,
    check_names,
    define_attacks,
    define_bench,
    define_export,
    define_workdir,
    evaluation_options,
    parse,
    parse_config,
)
from jl1.config import validate_config
from jl1.config_files import config_folder, run_name
from jl1.data import prepare_dataset
from jl1.data_cache import cache_folder
from jl1.display import LiveReporter, PlainReporter, say, show_evaluation, show_result
from jl1.errors import UserError
from jl1.evaluator import evaluate_run
from jl1.experiment import train_and_evaluate
from jl1.exporting import FORMATS, export_run
from jl1.trainer import InterruptedEarlyError

_HELP = ("help", "-h", "--help")
_EXIT_BAD_INPUT, _EXIT_INTERRUPTED = 2, 130

_USAGE = """\
jl1: train networks with an L1 penalty on their Jacobian, attack them, report what holds.

  jl1 train    [--config=NAME|FILE.py[:arg]] [--config.FIELD=VALUE ...] [--workdir=DIR]
               train, attack and record one run; without flags: 5,000 real digits, under two minutes
  jl1 evaluate --workdir=DIR [--attacks=clean,noise,fgsm,pgd,pgd_margin,standard] [--epsilons=0.1,0.3]
               [--budget=fast|full] [--pgd_steps=100] [--pgd_restarts=10] [--points=test|validation]
               [--max_points=1000] [--batch_size=500] [--data_dir=DIR]
               attack the newest checkpoint of a run; interrupted, the same command goes on with it
  jl1 export   --workdir=DIR --out=FOLDER [--format=safetensors,jax] [--data_dir=DIR]
               write the network of a finished run for PyTorch and other tools
  jl1 prepare  [--config.data.name=mnist] [--config.data.dir=DIR]
               do the slow part of a data set once (download, decode)
  jl1 bench    [--out=runs/bench] [--models=C,A,B] [--studies=forms,loop,scaling,attacks,startup,cores]
               [--peers=automatic,textbook,torch] [--batch_size=128] [--repeats=15] [--form_seconds=60]
               [--core=0] [--torch_python=PYTHON]
               time the exact step beside its peers, pinned to one core

"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: Arguments without the program's name; those of the process if not given.

    Returns:
        The exit status: 0, 2 for bad input, 130 when interrupted before there was a result.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    errors = Console(stderr=True)
    command = arguments.pop(0) if arguments else "help"
    if command in _HELP or set(arguments) & set(_HELP):
        say(Console(), _USAGE + f"configs: {', '.join(_config_names())}")
        return 0
    if command not in _COMMANDS:
        say(errors, f"error: no command {command!r}; there are {', '.join(_COMMANDS)}\n\n{_USAGE}")
        return _EXIT_BAD_INPUT
    _keep_compiled_programs()
    jax.config.update("jax_default_matmul_precision", "float32")  # an accelerator's own default is coarser
    try:
        return _COMMANDS[command](arguments)
    except InterruptedEarlyError as error:
        say(errors, f"{error}")
        return _EXIT_INTERRUPTED
    except UserError as error:
        say(errors, f"error: {error}")
        return error.exit_status
    except KeyboardInterrupt:
        say(errors, "interrupted; the same command goes on with it")
        return _EXIT_INTERRUPTED


def _keep_compiled_programs() -> None:
    """Let JAX keep what it compiles in jl1's cache folder, unless JAX_COMPILATION_CACHE_DIR names another."""
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", str(cache_folder() / "xla"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def _train(arguments: list[str]) -> int:
    """Train, attack and record one run."""
    config, parsed = parse_config(arguments, "quickstart", define_workdir)
    validate_config(config)
    workdir = Path(parsed.workdir) if parsed.workdir else Path("runs") / run_name(config)
    console = Console()
    with _reporter(console) as reporter, _stop_on_signals(reporter) as should_stop:
        result = train_and_evaluate(config, workdir, reporter=reporter, should_stop=should_stop)
    show_result(console, result, workdir)
    return 0


def _evaluate(arguments: list[str]) -> int:
    """Attack the newest checkpoint of a run again."""
    parsed = parse(arguments, define_workdir, define_attacks)
    if not parsed.workdir:
        raise UserError("jl1 evaluate needs --workdir=DIR, the folder of a run")
    options, console, workdir = evaluation_options(parsed), Console(), Path(parsed.workdir)
    with _reporter(console) as reporter:
        rows = evaluate_run(workdir, options=options, data_dir=parsed.data_dir, reporter=reporter)
    show_evaluation(console, rows, workdir)
    return 0


def _export(arguments: list[str]) -> int:
    """Write the network of a run for other tools."""
    parsed = parse(arguments, define_workdir, define_export)
    if not parsed.workdir or not parsed.out:
        raise UserError("jl1 export needs --workdir=DIR, the folder of a run, and --out=FOLDER, a new one")
    check_names("format", parsed.format, FORMATS)
    console = Console()
    with _reporter(console) as reporter:
        files = export_run(
            Path(parsed.workdir),
            Path(parsed.out),
            formats=parsed.format,
            data_dir=parsed.data_dir,
            reporter=reporter,
        )
    say(console, "\n".join(f"{path} ({path.stat().st_size:,} bytes)" for path in files))
    return 0


def _prepare(arguments: list[str]) -> int:
    """Download, prepare and decode a data set."""
    config, _ = parse_config(arguments, "train")
    say(Console(), prepare_dataset(config.data.name, data_dir=config.data.dir))
    return 0


def _bench(arguments: list[str]) -> int:
    """Measure the exact step beside its peers."""
    parsed = parse(arguments, define_bench)
    options = bench_options(parsed)
    console = Console()
    record = BenchRecord(Path(parsed.out), shlex.join(["jl1", "bench", *arguments]))
    status = 0
    try:
        run_studies(options, record, lambda text: say(console, text))
    except KeyboardInterrupt:
        say(console, "interrupted; the rows so far are kept")
        status = _EXIT_INTERRUPTED
    for layout in lay_out_all(record.content["tables"]):
        console.print(as_rich(layout))
        say(console, "\n".join([*layout.below, ""]))
    say(console, f"{LEGEND}\n\n{write_report(record)}")
    return status


_COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "train": _train,
    "evaluate": _evaluate,
    "export": _export,
    "prepare": _prepare,
    "bench": _bench,
}


@contextmanager
def _reporter(console: Console) -> Iterator[PlainReporter]:
    """Give the reporter that fits the terminal."""
    reporter = LiveReporter(console) if console.is_terminal else PlainReporter(console)
    with reporter if isinstance(reporter, LiveReporter) else nullcontext():
        yield reporter


@contextmanager
def _stop_on_signals(reporter: PlainReporter) -> Iterator[Callable[[], bool]]:
    """Let the first Ctrl-C or SIGTERM end training at the last whole epoch; a second one ends the process."""
    received = []

    def remember(number: int, _: object) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(number)
        reporter.notice("stopping: the last whole epoch is evaluated; once more to end at once")

    before = {number: signal.signal(number, remember) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(received)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _config_names() -> list[str]:
    """List the configs that come with jl1."""
    return sorted(path.stem for path in config_folder().glob("*.py"))
