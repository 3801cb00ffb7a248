"""`jl1 train`: train, attack and record one run."""

from collections.abc import Callable
from pathlib import Path

from absl import flags
from rich.console import Console

from jl1 import records
from jl1.cli_flags import define_workdir
from jl1.config import Config, validate_config
from jl1.config_files import config_from_dict, run_name
from jl1.config_flags import parse_config, parse_overrides, take_config_name
from jl1.display import show_result
from jl1.errors import InterruptedEarlyError
from jl1.experiment import train_and_evaluate
from jl1.interrupts import end_when_stdin_closes, stop_on_signals
from jl1.reporters import PlainReporter, open_reporter
from jl1.terminal import open_console, say


def run(arguments: list[str]) -> int:
    """Train, attack and record one run; without --config go on with the run in --workdir, if there is one."""
    config, parsed = parse_config(arguments, "quickstart", define_workdir, _define_train)
    name, rest = take_config_name(arguments)
    if name is None and parsed.workdir and records.is_run(Path(parsed.workdir)):
        stored = config_from_dict(records.read_config(Path(parsed.workdir)))
        config, parsed = parse_overrides(stored, rest, define_workdir, _define_train)
    validate_config(config)
    workdir = Path(parsed.workdir) if parsed.workdir else Path("runs") / run_name(config)
    console = open_console()
    if parsed.until_stdin_closes:
        return _run_for_a_sweep(config, workdir, console)
    stopping = "stopping: the last whole epoch is evaluated; once more to end at once"
    with open_reporter(console) as reporter, stop_on_signals(lambda: reporter.notice(stopping)) as should_stop:
        result = train_and_evaluate(config, workdir, reporter=reporter, should_stop=should_stop)
    show_result(console, result, workdir)
    return 0


def _define_train(values: flags.FlagValues) -> None:
    """Define what a sweep adds."""
    text = "end at once when standard input closes, and do not evaluate an interrupted run: for `jl1 sweep`"
    flags.DEFINE_boolean("until_stdin_closes", False, text, flag_values=values)


def _run_for_a_sweep(config: Config, workdir: Path, console: Console) -> int:
    """Do the same as the child of a sweep, which may be stopped at any moment and is not to outlive it."""
    end_when_stdin_closes()
    with stop_on_signals(lambda: say(console, "stopping at the last whole epoch")) as should_stop:
        reporter = _StoppableReporter(console, should_stop)
        result = train_and_evaluate(config, workdir, reporter=reporter, should_stop=should_stop)
    show_result(console, result, workdir)
    return 0


class _StoppableReporter(PlainReporter):
    """Ends attacks and figures at the next batch when the run is to stop; finished batches of attacks are kept."""

    def __init__(self, console: Console, should_stop: Callable[[], bool]) -> None:
        super().__init__(console)
        self._should_stop = should_stop

    def measured(self, what: str, done: int, total: int) -> None:
        """Say it, unless the run is to stop."""
        if self._should_stop():
            raise InterruptedEarlyError(f"stopped before the figures were complete ({what}): the same command goes on")
        super().measured(what, done, total)
