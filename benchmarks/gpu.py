"""Everything of jl1 that wants a CUDA device, measured and checked on a machine that has one.

    python benchmarks/gpu.py DIR [--models A B C] [--convolutions library] [--chunks 0 32]
                                 [--batch_size=128] [--repeats=15] [--tests] [--train CONFIG ...]

Writes DIR/bench.json and DIR/bench.md: the gradient of a batch in float32 and in tf32, with both forms of the
convolutions, the whole batch at once (chunk 0) and in chunks, and the loop of an epoch, in which a step has no launch
of its own; milliseconds are of the clock. `--tests` first runs the tests marked gpu, `--train train:A train:B` then
runs configs through `jl1 train`, each into a folder of DIR; what follows `--` goes to each of them
(`-- --config.data.dir=DATA`). It runs on a CPU too, as a test of the script, and says so.
"""

import argparse
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from jl1.bench.bench_record import BenchRecord
from jl1.bench.jax_forms import GRADIENTS
from jl1.bench.processes import Limits, Worker, WorkerError, make_forms, take_turns
from jl1.bench.report import write_report
from jl1.models import CONVOLUTIONS, MODELS
from jl1.precision import PRECISIONS

_MATRIX = "matrix product"
_FORMS = ("plain", "closed form logits", "closed form probs", "automatic logits")
_LOOPS = ("epoch, plain", "epoch, exact")
_NUM_STEPS = 50
"""Of the loop of an epoch."""
_FORM_SECONDS = 20.0


def setups(model: str, convolutions: Sequence[str], chunks: Sequence[int]) -> Iterator[dict[str, Any]]:
    """Yield everything that the gradient of a batch is measured with; a chunk of 0 is the whole batch."""
    forms = convolutions[:1] if model == "C" else convolutions  # C has none
    for precision, convolution, examples in product(("float32", "tf32"), forms, chunks):
        yield {
            "model": model,
            "matmul_precision": PRECISIONS[precision],
            "convolution": convolution,
            "closed_form": {"precision": precision, "examples_per_pass": examples or None},
        }


def measure(record: BenchRecord, options: argparse.Namespace) -> None:
    """Time the forms of every setup, in one process a model: nothing else may hold the device's memory."""
    for model in options.models:
        with Worker("jax_forms.py", core=None) as worker:
            for setup in setups(model, options.convolutions, options.chunks):
                _measure_one("device", [_MATRIX, *options.forms], worker, record, options, setup)
            for setup in setups(model, options.convolutions[:1], [0] if options.loops else []):
                forms = [_MATRIX, *options.loops]
                _measure_one("device loop", forms, worker, record, options, {**setup, "num_steps": _NUM_STEPS})
    if not record.content["machine"].get("device", "").startswith("gpu"):
        print("no CUDA device: these figures are a CPU's and only show that the script runs")


def _measure_one(
    study: str,
    forms: Sequence[str],
    worker: Worker,
    record: BenchRecord,
    options: argparse.Namespace,
    setup: dict[str, Any],
) -> None:
    """Fill one table; what does not fit the device is left out."""
    table = record.new_table(study, batch_size=options.batch_size, **setup)
    print(table["setup"], flush=True)
    try:
        worker.ask("open", **table["setup"])
        contenders = make_forms(worker, forms)
        for rows in take_turns(contenders, Limits(options.repeats, _FORM_SECONDS), clock="wall_seconds"):
            record.content["machine"]["device"] = rows[_MATRIX]["device"]
            record.fill(table, rows)
    except WorkerError as error:
        print(f"  left out: {error}")


def run(*arguments: str) -> int:
    """Run a command of this interpreter and return its exit status."""
    print(shlex.join(arguments), flush=True)
    return subprocess.run([sys.executable, "-m", *arguments], check=False).returncode


def main() -> int:
    """Measure, and run what was asked for beside it."""
    end = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--models", nargs="+", choices=tuple(MODELS), default=list(MODELS))
    parser.add_argument("--forms", nargs="+", choices=tuple(GRADIENTS), default=_FORMS)
    parser.add_argument("--loops", nargs="*", choices=_LOOPS, default=_LOOPS)
    parser.add_argument("--convolutions", nargs="+", choices=CONVOLUTIONS, default=("library", "patches"))
    parser.add_argument("--chunks", nargs="+", type=int, default=(0, 32, 4), help="examples at a time; 0: all")
    parser.add_argument("--batch_size", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--tests", action="store_true", help="run the tests marked gpu")
    parser.add_argument("--train", nargs="+", default=[], metavar="CONFIG", help="configs for jl1 train")
    options = parser.parse_args(sys.argv[1:end])
    record = BenchRecord(options.folder, shlex.join(["python", *sys.argv]))
    statuses = [run("pytest", "-m", "gpu", "tests")] if options.tests else []
    measure(record, options)
    print(write_report(record))
    for config in options.train:
        workdir = options.folder / config.replace(":", "_")
        statuses.append(run("jl1", "train", f"--config={config}", f"--workdir={workdir}", *sys.argv[end + 1 :]))
    return max(statuses, default=0)


if __name__ == "__main__":
    sys.exit(main())
