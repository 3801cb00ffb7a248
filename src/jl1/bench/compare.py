"""The study `forms`: the exact step beside its peers, with gradients compared before anything is timed."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from jl1.bench import torch_forms
from jl1.bench.bench_record import BenchRecord, penalised, speedups, with_shares
from jl1.bench.jax_forms import GRADIENTS
from jl1.bench.options import PEERS, BenchOptions
from jl1.bench.processes import Contender, Limits, Notice, Worker, WorkerError, make_forms, pinned_core, take_turns
from jl1.bench.step_problem import exact_operations
from jl1.errors import UserError
from jl1.models import create_model

MATRIX = "matrix product"

GRADIENT_TOLERANCE = 1e-3
"""Largest error of a gradient's entry against the tensor's largest that passes: far above rounding."""


class WrongGradientError(UserError):
    """Two forms of the same gradient differ."""


def compare_forms(model: str, options: BenchOptions, record: BenchRecord, notice: Notice) -> None:
    """Measure every form of the step of a model, each family in its own process, all in turns.

    Raises:
        WrongGradientError: A form's gradient is not that of the closed form.
    """
    table = record.new_table("forms", model=model, batch_size=options.batch_size, num_classes=10, side=28)
    operations = options.batch_size * exact_operations(create_model(model), (28, 28, 1))
    with ExitStack() as stack, TemporaryDirectory() as folder:
        made = list(_contenders(model, options, Path(folder), stack, notice))
        notice(f"{model}: {len(made)} forms are compiled; now their gradients are compared")
        contenders = list(compared(made, Path(folder), notice))
        notice(f"{model}: the gradients agree; now {len(contenders)} forms take turns")
        for rows in take_turns(contenders, Limits(options.repeats, options.form_seconds)):
            rows = with_shares(rows, operations)
            table["times_faster_than"] = speedups(rows)
            record.fill(table, rows)


def _contenders(
    model: str, options: BenchOptions, folder: Path, stack: ExitStack, notice: Notice
) -> Iterator[Contender]:
    """Make our forms in one process, and each peer's in another; a peer that cannot is left out, in one line."""
    core, exported = pinned_core(options.core), str(folder / "problem.npz")
    setup = {"model": model, "batch_size": options.batch_size, "smoothing": 0.1, "lam": 0.01}
    worker = stack.enter_context(Worker("jax_forms.py", core=core))
    worker.ask("open", **setup)
    worker.ask("export", path=exported)
    yield from make_forms(worker, [MATRIX, *(form for form in GRADIENTS if form.split()[0] not in PEERS)])
    for peer in options.peers:
        try:
            if peer == "torch":
                worker = stack.enter_context(Worker("torch_forms.py", core=core, python=options.torch_python))
                worker.ask("open", path=exported, smoothing=setup["smoothing"], lam=setup["lam"])
            else:
                worker = stack.enter_context(Worker("jax_forms.py", core=core))
                worker.ask("open", **setup)
            names = torch_forms.FORMS if peer == "torch" else GRADIENTS
            yield from make_forms(worker, [form for form in names if form.split()[0] == peer])
        except WorkerError as error:
            notice(f"{model}: {peer} is left out: {error}")


def compared(contenders: Sequence[Contender], folder: Path, notice: Notice) -> Iterator[Contender]:
    """Compare every exact gradient with the first of its kind, which is ours, and note the largest error."""
    references: dict[str, Mapping[str, np.ndarray]] = {}
    for contender in contenders:
        outputs = penalised(contender.form)
        if outputs is None:
            yield contender
            continue
        try:
            gradient = _gradient(contender, folder / "gradient.npz")
        except WorkerError as error:
            notice(f"{contender.form} is left out: {error}")
            continue
        if outputs not in references:
            references[outputs] = gradient
            yield contender
        else:
            error = gradient_error(gradient, references[outputs])
            _check(contender.form, error)
            yield contender._replace(facts=contender.facts | {"gradient_error": error})


def _gradient(contender: Contender, path: Path) -> Mapping[str, np.ndarray]:
    """Compute and fetch a form's gradient."""
    contender.worker.ask("save", form=contender.form, path=str(path))
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


def gradient_error(gradient: Mapping[str, np.ndarray], reference: Mapping[str, np.ndarray]) -> float:
    """Return the largest error of an entry, as a fraction of the largest entry of its tensor in the reference."""
    if gradient.keys() != reference.keys():
        raise WrongGradientError(f"the gradients have {', '.join(gradient)}, not {', '.join(reference)}")
    errors = [np.max(np.abs(gradient[name] - values)) / np.max(np.abs(values)) for name, values in reference.items()]
    return float(f"{max(errors):.3g}")


def _check(form: str, error: float) -> None:
    """Refuse a gradient that is another one."""
    if not error <= GRADIENT_TOLERANCE:
        raise WrongGradientError(
            f"the gradient of {form!r} differs from the first form's by {error:g} of the largest entry, more than "
            f"{GRADIENT_TOLERANCE:g}: one of the two is wrong, and nothing was timed"
        )
