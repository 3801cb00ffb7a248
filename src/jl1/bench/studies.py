"""The smaller studies of `jl1 bench`, each a function of the model, the options and the record."""

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from jl1.bench.bench_record import BenchRecord, Table
from jl1.bench.compare import MATRIX, compare_forms
from jl1.bench.options import BenchOptions
from jl1.bench.processes import (
    Limits,
    Notice,
    Worker,
    WorkerError,
    child_environment,
    make_forms,
    pinned_core,
    take_turns,
    timed,
    wall_seconds,
)
from jl1.cores import usable_cores

Study = Callable[[BenchOptions, BenchRecord, Notice], None]

_STEP_FORMS = ("matrix product", "plain", "estimate sampled_classes", "closed form logits")
_MOST_STARTS = 5
_SECONDS_A_CORE = 5.0

SCALING: Mapping[str, Sequence[Mapping[str, int]]] = {
    "A": [{}, {"num_classes": 100}, {"batch_size": 1}, {"batch_size": 32}, {"side": 56}],
    "B": [],
    "C": [
        {},
        *({"num_classes": number} for number in (100, 1000)),
        *({"batch_size": size} for size in (1, 8, 32, 512)),
        *({"side": side} for side in (14, 56)),
    ],
}
"""What is changed about a model's step, one thing at a time; {} is the step as it is. B costs too much, and A needs
images of 28 or more."""


def run_studies(options: BenchOptions, record: BenchRecord, notice: Notice) -> None:
    """Run the studies that are asked for, in the order of `options.STUDIES`.

    Raises:
        WrongGradientError: A form's gradient is not that of the closed form.
    """
    for name, study in _STUDIES.items():
        if name in options.studies:
            notice(f"study {name} ...")
            try:
                study(options, record, notice)
            except WorkerError as error:
                notice(f"study {name} was not finished: {error}")


def _forms(options: BenchOptions, record: BenchRecord, notice: Notice) -> None:
    """Compare the forms of every model."""
    for model in options.models:
        compare_forms(model, options, record, notice)


def _scaling(options: BenchOptions, record: BenchRecord, notice: Notice) -> None:
    """Measure the step by the number of classes, the batch and the side of the images."""
    for model in options.models:
        for change in SCALING[model]:
            setup = {"model": model, "batch_size": options.batch_size, "num_classes": 10, "side": 28, **change}
            _one_table("scaling", options, record, _STEP_FORMS, **setup)


def _attacks(options: BenchOptions, record: BenchRecord, notice: Notice) -> None:
    """Measure the attacks and the evaluation."""
    for model in options.models:
        setup = {"model": model, "batch_size": options.batch_size}
        table = _one_table("attacks", options, record, [MATRIX, "clean", "fgsm", "pgd-20"], **setup)
        table["microseconds_an_example"] = {
            form: round(1e3 * row["median_ms"] / options.batch_size, 3)
            for form, row in table["rows"].items()
            if form != MATRIX
        }


def _loop(options: BenchOptions, record: BenchRecord, notice: Notice) -> None:
    """Measure what the loop of an epoch adds to its steps."""
    for loss, num_steps in (("plain", 200), ("exact", 20)):
        forms = [f"bare steps, {loss}", f"epoch, {loss}"]
        setup = {"model": "C", "batch_size": options.batch_size, "num_steps": num_steps}
        table = _one_table("loop", options, record, forms, **setup)
        bare, epoch = (table["rows"][form]["median_ms"] for form in forms)
        table["overhead"] = round(epoch / bare - 1, 4)


def _one_table(study: str, options: BenchOptions, record: BenchRecord, forms: Sequence[str], **setup: Any) -> Table:
    """Measure some forms of one setup in a process of their own."""
    table = record.new_table(study, **setup)
    with Worker("jax_forms.py", core=pinned_core(options.core)) as worker:
        worker.ask("open", **setup)
        for rows in take_turns(make_forms(worker, forms), Limits(options.repeats, options.form_seconds)):
            record.fill(table, rows)
    return table


def _startup(options: BenchOptions, record: BenchRecord, notice: Notice) -> None:
    """Measure the wall time of commands from start to end, not pinned: as a user sees them."""
    table, rows, repeats = record.new_table("startup"), {}, min(options.repeats, _MOST_STARTS)
    with TemporaryDirectory() as folder:
        cold = [_with_cache(Path(folder) / str(number)) for number in range(repeats)]
        commands = {
            "python": (["-c", "pass"], cold),
            "import jl1": (["-c", "import jl1"], cold),
            "jl1 --help": (["-m", "jl1", "--help"], cold),
            "first step, nothing compiled": (["-m", "jl1.bench.first_step"], cold),
            "first step, compiled before": (["-m", "jl1.bench.first_step"], cold[:1] * repeats),
        }
        for name, (arguments, environments) in commands.items():
            rows[name] = timed([wall_seconds([sys.executable, *arguments], each) for each in environments])
            record.fill(table, rows)


def _with_cache(folder: Path) -> dict[str, str]:
    """Return the environment of a process that keeps what it compiles in a folder."""
    cache = {"JAX_COMPILATION_CACHE_DIR": str(folder), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    return child_environment() | cache


def _cores(options: BenchOptions, record: BenchRecord, notice: Notice) -> None:
    """Measure exact steps of model C by one process, and by two at once on a core each."""
    others = [core for core in usable_cores() if core != options.core]
    if pinned_core(options.core) is None or not others:
        notice("cores: left out, since this machine has one core or cannot pin processes to cores")
        return
    table = record.new_table("cores", model="C", batch_size=options.batch_size, cores=[options.core, others[0]])
    form, alone, together = "closed form logits", [], []
    with ExitStack() as stack:
        workers = [stack.enter_context(Worker("jax_forms.py", core=core)) for core in table["setup"]["cores"]]
        for worker in workers:
            worker.ask("open", model="C", batch_size=options.batch_size)
            make_forms(worker, [form])
        for _ in range(min(options.repeats, _MOST_STARTS)):
            for active, seconds in ((workers[:1], alone), (workers, together)):
                for worker in active:
                    worker.tell("run_for", form=form, seconds=_SECONDS_A_CORE)
                seconds.append(1 / sum(worker.hear()["runs_per_second"] for worker in active))
            table["times_the_throughput"] = round(median(alone) / median(together), 3)
            record.fill(table, {"one process": timed(alone), "two processes, a step of either": timed(together)})


_STUDIES: Mapping[str, Study] = {
    "forms": _forms,
    "loop": _loop,
    "scaling": _scaling,
    "attacks": _attacks,
    "startup": _startup,
    "cores": _cores,
}
