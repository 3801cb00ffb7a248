"""Weak scaling of `jl1 train` on the cores of one machine: a device a core, the same number of examples on each.

    python benchmarks/weak_scaling.py --out=docs/results/weak_scaling.csv

Every measurement is a process of its own (two for `2 processes`), pinned to as many cores as it has devices, and times
whole pieces of an epoch as the trainer runs them. The kinds of measurement take turns, so that what else the machine
does falls on all of them alike. Efficiency is the time of one device over that of two with twice the batch.

Beside the time on the clock stands the time of the processors, which does not count waiting for the other device.
"""

import argparse
import csv
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path

from jl1.cores import pinned, usable_cores

KINDS = {"1 device": (1, 1), "2 devices": (1, 2), "2 processes": (2, 1)}
"""Processes, and devices in each."""

FIELDS = ("model", "form", "kind", "batch_size", "repeat", "seconds_a_step", "processor_seconds_a_step")


def main() -> None:
    """Measure in turns, write the rows and print the medians."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", default="C,A")
    parser.add_argument("--forms", default="plain,defended")
    parser.add_argument("--batch_size", type=int, default=128, help="examples a device")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("weak_scaling.csv"))
    parser.add_argument("--child", default="", help="how this program starts itself")
    options = parser.parse_args()
    if options.child:
        print(json.dumps(measure(**json.loads(options.child))))
        return
    rows = []
    for repeat in range(options.repeats):
        for model in options.models.split(","):
            for form in options.forms.split(","):
                for kind in KINDS:
                    rows.append(one_row(model, form, kind, repeat, options))
                    write(options.out, rows)
                    print(rows[-1], flush=True)
    show(rows)


def one_row(model: str, form: str, kind: str, repeat: int, options: argparse.Namespace) -> dict:
    """Run the processes of one measurement."""
    num_processes, num_devices = KINDS[kind]
    count = num_processes * num_devices
    task = {"model": model, "form": form, "batch_size": options.batch_size * count, "num_steps": options.steps}
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        coordinator = f"127.0.0.1:{found.getsockname()[1]}"
    children = []
    for number in range(num_processes):
        meeting = [coordinator, num_processes, number] if num_processes > 1 else None
        cores = usable_cores()[number * num_devices : (number + 1) * num_devices]
        children.append(start(task | {"meeting": meeting}, cores))
    measured = [json.loads(child.communicate(timeout=1800)[0].splitlines()[-1]) for child in children]
    return {
        **{"model": model, "form": form, "kind": kind, "batch_size": task["batch_size"], "repeat": repeat},
        "seconds_a_step": max(seconds for seconds, _ in measured),
        "processor_seconds_a_step": sum(seconds for _, seconds in measured),
    }


def start(task: dict, cores: list[int]) -> subprocess.Popen:
    """Start a process with a device for each of its cores."""
    command = [sys.executable, __file__, f"--child={json.dumps(task)}"]
    environ = os.environ | {"XLA_FLAGS": f"--xla_force_host_platform_device_count={len(cores)}", "JAX_PLATFORMS": "cpu"}
    with pinned(cores):
        return subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, text=True)


def measure(*, model: str, form: str, batch_size: int, num_steps: int, meeting: list | None) -> tuple[float, float]:
    """Time steps of the quickstart in this process: seconds on the clock and of the processors, the best of three."""
    import jax
    import jax.numpy as jnp
    from jax.experimental import multihost_utils

    from jl1.configuration.files import load_config
    from jl1.data import epoch_indices
    from jl1.devices import Devices
    from jl1.runs.problems import create_problem, load_data
    from jl1.training import Examples, make_epoch, zero_totals

    jax.config.update("jax_default_matmul_precision", "float32")
    if meeting is not None:
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        jax.distributed.initialize(*meeting)
        multihost_utils.sync_global_devices("start")  # gloo waits 30 seconds for a first meeting, no longer
    config = load_config(f"quickstart:{form}")
    config.model.name, config.training.batch_size = model, batch_size
    data, devices = load_data(config), Devices()
    problem = create_problem(config, data)
    epoch_fn = make_epoch(devices.share_gradient(problem.gradient_fn, batch_size=batch_size), problem.optimizer)
    examples = devices.replicate(Examples(*(jnp.asarray(part) for part in data.train)))
    batches = devices.fill(epoch_indices(len(data.train.labels), batch_size, seed=0, epoch=1))
    num_steps = min(num_steps, len(batches))

    def seconds(stop: int) -> tuple[float, float]:
        begun = devices.replicate((jax.tree.map(jnp.copy, problem.state), zero_totals()))
        start = time.perf_counter(), time.process_time()
        jax.block_until_ready(epoch_fn(*begun, examples, batches, 0, stop, problem.hyperparameters))
        return (time.perf_counter() - start[0]) / stop, (time.process_time() - start[1]) / stop

    seconds(1)  # compiles
    return min(seconds(num_steps) for _ in range(3))


def write(path: Path, rows: list[dict]) -> None:
    """Write all rows so far."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def show(rows: list[dict]) -> None:
    """Print the efficiencies: the median over the repeats, and their range."""
    for model, form in dict.fromkeys((row["model"], row["form"]) for row in rows):
        for kind in list(KINDS)[1:]:
            for measure, work in (("seconds_a_step", 1), ("processor_seconds_a_step", 2)):
                one, two = (
                    [row[measure] for row in rows if (row["model"], row["form"], row["kind"]) == (model, form, name)]
                    for name in ("1 device", kind)
                )
                shares = [work * before / after for before, after in zip(one, two, strict=True)]
                print(
                    f"{model} {form}, {kind}, {measure}: median {statistics.median(shares):.2f} "
                    f"({min(shares):.2f} to {max(shares):.2f})"
                )


if __name__ == "__main__":
    main()
