"""`jl1 sweep`: many runs from one command."""

import re
import shlex
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from absl import flags
from rich.console import Console

from jl1.cli_flags import read_path
from jl1.configuration.fields import read_field
from jl1.configuration.files import load_config
from jl1.configuration.flags import given_fields, parse_overrides, take_config_name
from jl1.cores import pinned, share_cores, usable_cores
from jl1.datasets.places import locate
from jl1.display.sweeps import describe_forecast, open_view, show_end, show_runs
from jl1.display.terminal import open_console, say
from jl1.errors import EXIT_FAILED_RUNS, EXIT_INTERRUPTED, UserError
from jl1.interrupts import stop_on_signals
from jl1.sweep.children import LocalEngine
from jl1.sweep.engine import Engine
from jl1.sweep.expansion import SweepRun, expand_runs, select, take_shard
from jl1.sweep.folder import write_sweep
from jl1.sweep.gpus import count_gpus, default_workers
from jl1.sweep.pace import Pace, forecast, kind_of, measure_paces
from jl1.sweep.scheduler import State, find_state, run_sweep

_FLAGS_OF_ENGINES = {"local": ("cores",), "ray": ("ray_address", "cpus_per_run", "gpus_per_run", "max_retries")}
"""The engines, and the flags of each that no other one knows."""

_RETRY = re.compile(r"--?(no)?retry_failed(=.*)?", re.DOTALL)
"""The flag that a command which only goes on with a sweep does not have, in every form that absl takes."""


def run(arguments: list[str]) -> int:
    """Run what is not finished of a sweep, or with --dry_run say what would run and how long."""
    name, rest = take_config_name(arguments)
    if name is None:
        raise UserError("jl1 sweep needs --config=NAME of a config with sweep(add), such as table2")
    config, parsed = parse_overrides(load_config(name), rest, *FLAGS)
    overrides = {field: read_field(config, field) for field in given_fields(rest)}
    listed = select(expand_runs(name, overrides), parsed.only)
    runs = take_shard(listed, parsed.shard) if parsed.shard else listed
    folder, console = _folder(parsed, name), open_console()
    with _open_engine(parsed) as engine:
        if parsed.dry_run:
            _predict(console, runs, folder, engine)
            return 0
        command = shlex.join(["jl1", "sweep", *(each for each in arguments if not _RETRY.fullmatch(each))])
        before = find_state(runs, folder)
        if parsed.engine == "local":  # the nodes of a cluster may have the data where this machine has none
            _require_data([*before.waiting, *(before.failed if parsed.retry_failed else [])])
        write_sweep(folder, config=name, command=command, runs=listed)
        engine.require_folder(folder)
        state = _run(console, runs, folder, engine, parsed)
    failed_before = set() if parsed.retry_failed else {run.name for run in before.failed}
    show_end(console, state, folder, command, failed_before)
    return _exit_status(state)


def _require_data(runs: Sequence[SweepRun]) -> None:
    """Refuse to start runs whose data are not there: each would fail by itself, with the same error."""
    for name, folder in dict.fromkeys((run.config.data.name, run.config.data.dir) for run in runs):
        locate(name, folder)


def _run(console: Console, runs: Sequence[SweepRun], folder: Path, engine: Engine, parsed: flags.FlagValues) -> State:
    """Run what is not finished, and show it."""
    stopping = "stopping: runs end at their last whole epoch; once more to end at once"
    with open_view(console, folder) as view, stop_on_signals(lambda: view.say(stopping)) as should_stop:
        view.say(f"{len(runs)} runs in {folder}, {engine.num_workers} at once {engine.place}")
        return run_sweep(
            runs,
            folder,
            engine=engine,
            retry_failed=parsed.retry_failed,
            max_retries=parsed.max_retries,
            watcher=view,
            should_stop=should_stop,
        )


def _define_sweep(values: flags.FlagValues) -> None:
    """Define the flags of a sweep."""
    flags.DEFINE_string("workdir", None, "folder of the sweep; one under sweeps/ if not given", flag_values=values)
    flags.DEFINE_integer(
        "workers", None, "runs at once; if not given, one for each core, or four for each GPU", 1, flag_values=values
    )
    flags.DEFINE_list("cores", None, "cores that the runs are pinned to", flag_values=values)
    flags.DEFINE_enum("engine", "local", list(_FLAGS_OF_ENGINES), "what starts the runs", flag_values=values)
    flags.DEFINE_string("ray_address", None, "auto, local or HOST:PORT of a Ray cluster", flag_values=values)
    flags.DEFINE_integer("cpus_per_run", 1, "cores that Ray keeps for a run", 1, flag_values=values)
    flags.DEFINE_float("gpus_per_run", 0.0, "GPUs that Ray keeps for a run, or part of one", 0.0, flag_values=values)
    flags.DEFINE_integer("max_retries", 3, "restarts in a row of a lost run without a new epoch", 0, flag_values=values)
    flags.DEFINE_multi_string("only", [], "FIELD=VALUE,...: only runs with one of the values", flag_values=values)
    flags.DEFINE_string("shard", None, "i/n: only every n-th run, for a job array", flag_values=values)
    flags.DEFINE_boolean("retry_failed", False, "try failed runs again", flag_values=values)
    flags.DEFINE_boolean("dry_run", False, "list the runs and predict the time", flag_values=values)


def _folder(parsed: flags.FlagValues, name: str) -> Path:
    """Return the folder of the sweep."""
    stem, _, arg = name.partition(":")
    return (
        read_path(parsed.workdir) if parsed.workdir else Path("sweeps") / "-".join(filter(None, [Path(stem).stem, arg]))
    )


def _open_engine(parsed: flags.FlagValues) -> AbstractContextManager[Engine]:
    """Make what starts the runs, and refuse flags that it does not know."""
    for engine, names in _FLAGS_OF_ENGINES.items():
        for given in (name for name in names if engine != parsed.engine and parsed[name].present):
            raise UserError(f"--{given} needs --engine={engine}")
    if parsed.engine == "local":
        num_gpus = count_gpus()
        return nullcontext(LocalEngine(_workers(parsed, num_gpus), num_gpus))
    from jl1.sweep.ray_engine import Needs, open_ray  # optional, and slow to import

    return open_ray(parsed.ray_address, Needs(parsed.cpus_per_run, parsed.gpus_per_run), parsed.workers)


def _workers(parsed: flags.FlagValues, num_gpus: int) -> list[list[int]]:
    """Return the cores of each worker."""
    usable = usable_cores()
    given = usable if parsed.cores is None else [_core(text, usable) for text in parsed.cores]
    if not given:
        raise UserError("--cores: there is no core in it")
    return share_cores(given, parsed.workers or default_workers(len(given), num_gpus))


def _core(text: str, usable: Sequence[int]) -> int:
    """Read the number of a core, or refuse it."""
    if not text.isdecimal() or int(text) not in usable:
        raise UserError(f"--cores: {text!r} is none of the cores {', '.join(map(str, usable))} of this process")
    return int(text)


def _exit_status(state: State) -> int:
    """Return 0 if all runs are finished, else why not."""
    if state.waiting or state.elsewhere:
        return EXIT_INTERRUPTED
    return EXIT_FAILED_RUNS if state.failed else 0


def _predict(console: Console, runs: Sequence[SweepRun], folder: Path, engine: Engine) -> None:
    """List the runs, and predict how long those that are left take."""
    state = find_state(runs, folder)
    show_runs(console, runs, state)
    left = state.waiting
    hint = " (--retry_failed tries them again)" if state.failed else ""
    counts = f"{len(state.finished)} finished, {len(state.failed)} failed{hint}, {len(left)} left"
    say(console, f"{len(runs)} runs, {counts}")
    paces = measure_paces(runs, folder)
    unknown = {kind_of(each.config): each for each in reversed(left) if kind_of(each.config) not in paces}
    if unknown:
        with pinned(engine.cores_of_a_run):
            paces |= _try_out(console, list(unknown.values())[::-1])
    if left:
        predicted = forecast(left, folder, paces, num_workers=engine.num_workers)
        say(console, f"with {engine.num_workers} at once {engine.place}: {describe_forecast(predicted)}")


def _try_out(console: Console, runs: Sequence[SweepRun]) -> dict[str, Pace]:
    """Time a few steps of each run."""
    from jl1.runs.problems import load_data  # a sweep needs neither the data nor compiled programs itself
    from jl1.sweep.trial import time_steps

    data: dict[str, Any] = {}
    paces = {}
    for each in runs:
        key = f"{each.config.data.to_dict()}"
        data[key] = data[key] if key in data else load_data(each.config)
        try:
            pace, compilation = time_steps(each.config, data[key])
        except UserError as error:
            pace, text = Pace(0.0, 0.0), f"will fail, as {each.name}: {error}"
        else:
            seconds = f"{pace.epoch_seconds:.1f} s an epoch, {compilation:.0f} s of compilation"
            text = f"measured by a few steps: {seconds}, as {each.name}"
        paces[kind_of(each.config)] = pace
        say(console, text)
    return paces


FLAGS = (_define_sweep,)
"""Functions that define its flags."""
