"""`jl1 train`: train, attack and record one run."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from absl import flags
from rich.console import Console

from jl1 import records
from jl1.cli_flags import define_processes, define_workdir, read_path
from jl1.config import Config
from jl1.configuration.checks import validate_config
from jl1.configuration.files import config_from_dict, run_name
from jl1.configuration.flags import parse_config, parse_overrides, take_config_name
from jl1.devices import Devices
from jl1.display.reporters import PlainReporter, open_reporter
from jl1.display.results import show_result
from jl1.display.terminal import open_console, say
from jl1.errors import EXIT_INTERRUPTED, InterruptedEarlyError, UserError
from jl1.experiment import train_and_evaluate
from jl1.interrupts import end_when_stdin_closes, stop_on_signals
from jl1.runs.continuation import begin_with
from jl1.runs.processes import from_first, is_first, join_by_flags, same_folder
from jl1.sweep.expansion import expand_runs

_DEFAULT = "quickstart"
"""The config without --config."""


def run(arguments: list[str]) -> int:
    """Train, attack and record one run; without --config go on with the run in --workdir, if there is one.

    With --continue_from it begins with the epochs of another run.
    """
    config, parsed = parse_config(arguments, _DEFAULT, *_ALL_FLAGS)
    source = read_path(parsed.continue_from) if parsed.continue_from else None
    if source:
        config = _settings_of(source, arguments)
    workdir = read_path(parsed.workdir) if parsed.workdir else Path("runs") / run_name(config)
    if parsed.until_stdin_closes:
        return _run_for_a_sweep(_stored_or_given(arguments, config, workdir), workdir, open_console())
    join_by_flags(parsed)
    name = take_config_name(arguments)[0]
    if is_first() and (note := _note_on_a_sweep(name, config)):
        say(open_console(), f"note: {note}")
    if source:
        _begin_with(source, workdir, config)
    with same_folder(workdir) as folder:
        config = _stored_or_given(arguments, config, folder if parsed.workdir else None)
        if is_first() and parsed.workdir and name is None and not records.is_run(folder):
            say(open_console(), f"note: there is no run in {workdir} yet: this is a new one of --config={_DEFAULT}")
        return _run_by_hand(config, workdir, folder)


def _note_on_a_sweep(name: str | None, config: Config) -> str | None:
    """Say that a config is that of a sweep, of which this is no run, if it is so."""
    try:
        runs = expand_runs(name) if name else []
    except UserError:  # it has no sweep, or none that matters here
        return None
    if not runs or run_name(config) in {run.name for run in runs}:
        return None
    return f"{name} is a sweep of {len(runs)} runs (jl1 sweep --config={name}); this trains its base settings"


def _settings_of(source: Path, arguments: list[str]) -> Config:
    """Return the settings of a run that continues another one: its, with the fields that are given."""
    if (name := take_config_name(arguments)[0]) is not None:
        raise UserError(f"--continue_from has the settings of that run: leave --config={name} out")
    config = _stored(source, arguments)
    validate_config(config)
    return config


def _begin_with(source: Path, workdir: Path, config: Config) -> None:
    """Let a new run begin with the epochs of another one, and say so."""
    num_epochs = int(from_first(lambda: str(begin_with(source, workdir, config)).encode()))
    if num_epochs and is_first():
        say(open_console(), f"note: begins with the {num_epochs} epochs of {source}, which is left as it is")


def _stored_or_given(arguments: list[str], config: Config, folder: Path | None) -> Config:
    """Without --config return that of the run in the folder, if there is one, with the fields that are given."""
    if take_config_name(arguments)[0] is None and folder and records.is_run(folder):
        config = _stored(folder, arguments)
    validate_config(config)
    return config


def _stored(folder: Path, arguments: list[str]) -> Config:
    """Return the config of the run in a folder, with the fields that are given."""
    _, rest = take_config_name(arguments)
    return parse_overrides(config_from_dict(records.read_config(folder)), rest, *_ALL_FLAGS)[0]


def _run_by_hand(config: Config, workdir: Path, folder: Path) -> int:
    """Train on all devices and show it; `folder` is where this process works."""
    console, devices = open_console(quiet=not is_first()), Devices()
    if devices.count > 1:
        say(console, devices.describe())
    stopping = (
        "stopping: the last whole epoch is evaluated, or figures end at their next batch; once more to end at once"
    )
    with open_reporter(console) as reporter, stop_on_signals(lambda: reporter.notice(stopping)) as should_stop:
        result = train_and_evaluate(config, folder, reporter=reporter, should_stop=should_stop, devices=devices)
    return _show(console, result, workdir)


def _show(console: Console, result: dict[str, Any], workdir: Path) -> int:
    """Show the figures of a run, and return the exit status."""
    show_result(console, result, workdir)
    if result["stopped_because"] != records.INTERRUPTED:
        return 0
    most = result["config"]["training"]["num_epochs"]
    say(console, f"interrupted after {result['num_epochs']} of {most} epochs; the same command goes on")
    return EXIT_INTERRUPTED


def _define_start(values: flags.FlagValues) -> None:
    """Define what a run begins with."""
    text = "folder of a run to begin with: the same settings and a later end, in a folder of its own"
    flags.DEFINE_string("continue_from", None, text, flag_values=values)


def _define_train(values: flags.FlagValues) -> None:
    """Define what a sweep adds."""
    text = "end at once when standard input closes, and do not evaluate an interrupted run: for `jl1 sweep`"
    flags.DEFINE_boolean("until_stdin_closes", False, text, flag_values=values)


FLAGS = (define_workdir, _define_start, define_processes)
"""Functions that define its flags."""

_ALL_FLAGS = (*FLAGS, _define_train)


def _run_for_a_sweep(config: Config, workdir: Path, console: Console) -> int:
    """Train on one device as the child of a sweep, which may be stopped at any moment and is not to outlive it."""
    end_when_stdin_closes()
    with stop_on_signals(lambda: say(console, "stopping at the last whole epoch")) as should_stop:
        options = {"reporter": _ImpatientReporter(console, should_stop), "should_stop": should_stop}
        result = train_and_evaluate(config, workdir, devices=Devices.one(), **options)
    return _show(console, result, workdir)


class _ImpatientReporter(PlainReporter):
    """Ends the figures of an interrupted training too, which nobody waits for."""

    def __init__(self, console: Console, should_stop: Callable[[], bool]) -> None:
        super().__init__(console)
        self._should_stop = should_stop

    def measured(self, what: str, done: int, total: int) -> None:
        """Say it, unless the run is to stop."""
        if self._should_stop():
            raise InterruptedEarlyError(f"stopped before the figures were complete ({what}): the same command goes on")
        super().measured(what, done, total)
