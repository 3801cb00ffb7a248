"""A trained network for other tools: its parameters with a written layout, and a function that JAX loads without jl1.

docs/other_tools.md describes the files and how to load them.
"""

import tempfile
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict
from jax import export
from safetensors.numpy import save

from jl1 import records
from jl1.array_types import LogitsFn
from jl1.batches import measure
from jl1.configuration.stored import json_digest
from jl1.errors import UserError, cannot_write
from jl1.json_files import write_json
from jl1.layouts import describe_layers
from jl1.models import make_apply_fn
from jl1.runs.reporting import Reporter
from jl1.runs.trained import Trained, load_trained

SCHEMA = "jl1.export/1"
"""Changes when a field of model.json changes its meaning or goes."""

PLATFORMS = ("cpu", "cuda")
"""What model.jax is compiled for when it is loaded."""

_NUM_POINTS = 1000
_BATCH_SIZE = 100


def export_run(
    workdir: Path,
    out: Path,
    *,
    formats: Collection[str] = ("safetensors", "jax"),
    data_dir: str | None = None,
    reporter: Reporter | None = None,
) -> list[Path]:
    """Write the network of a run, as it was evaluated, into a new folder.

    Args:
        workdir: Folder of a run with a result.
        out: The new folder: it is there whole or not at all.
        formats: Which of `FORMATS`; model.json and points.safetensors are always written.
        data_dir: Folder with the data, if it is not where it was in training.
        reporter: Told of a damaged checkpoint, and that a run was interrupted; silent if not given.

    Returns:
        The files.

    Raises:
        UserError: No such run, no result yet, no checkpoint of its epoch, other data, or `out` exists or cannot
            be written.
    """
    try:
        if out.exists():
            raise UserError(f"{out} exists and is left as it is; choose a new folder with --out")
    except OSError as error:
        raise cannot_write(out, error, "choose another folder with --out") from error
    result, reporter = _read_result(workdir), reporter or Reporter()
    if result["stopped_because"] == records.INTERRUPTED:
        epochs = f"{result['num_epochs']} epoch{'s' * (result['num_epochs'] != 1)}"
        reporter.notice(f"this run is not finished: it was interrupted after {epochs}, and so this is its network then")
    run = load_trained(workdir, data_dir=data_dir, reporter=reporter)
    if run.epoch != result["num_epochs"]:
        raise UserError(
            f"the newest intact checkpoint in {workdir} is of epoch {run.epoch}, the figures in result.json are of "
            f"epoch {result['num_epochs']}: remove result.json and give `jl1 train` the same config and --workdir"
        )
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f"{out.name}.", dir=out.parent) as temporary:
            folder = Path(temporary) / "export"  # not the temporary folder itself, which others may not read
            folder.mkdir()
            write_json(folder / "model.json", _layout(run, result))
            for name in formats:
                FORMATS[name](run, folder)
            _write_points(run, folder)
            folder.replace(out)
    except OSError as error:
        raise cannot_write(out, error, "choose another folder with --out") from error
    return sorted(out.iterdir())


def export_logits(logits_fn: LogitsFn, input_shape: tuple[int, ...]) -> bytes:
    """Turn a network with its parameters bound into bytes that `jax.export.deserialize` loads.

    What is loaded takes a batch of any size, runs on every one of `PLATFORMS`, and is differentiable once: that is what
    an attack needs. Products are in float32 on every device, also where JAX's default is less.

    Args:
        logits_fn: Network with its parameters bound; it must not fix the size of the batch.
        input_shape: Shape of one input.

    Returns:
        The serialised function.
    """
    batch = jax.ShapeDtypeStruct((*export.symbolic_shape("batch"), *input_shape), jnp.float32)
    with jax.default_matmul_precision("float32"):
        return bytes(export.export(jax.jit(logits_fn), platforms=PLATFORMS)(batch).serialize(vjp_order=1))


def _read_result(workdir: Path) -> dict[str, Any]:
    """Read result.json, which stands for a run that has ended or was interrupted."""
    records.read_config(workdir)
    result = records.read_result(workdir)
    if result is None:
        raise UserError(f"{workdir} has no result yet; `jl1 train` with its config goes on with it")
    return result


def _layout(run: Trained, result: dict[str, Any]) -> dict[str, Any]:
    """Put model.json together."""
    shape = run.data.test.inputs.shape[1:]
    return {
        "schema": SCHEMA,
        "input": {"shape": list(shape), "layout": "NHWC", "range": [0.0, 1.0]},
        "num_classes": run.data.num_classes,
        "layers": describe_layers(run.module, shape, activation=run.config.model.activation),
        "weights": run.config.training.weights,
        "config_sha256": json_digest(result["config"]),
        "data_sha256": run.data.fingerprint,
        "result": result,
    }


def _write_params(run: Trained, folder: Path) -> None:
    """Write the parameters under names such as layer_0/kernel, as they are."""
    flat = flatten_dict(run.params, sep="/")
    arrays = {name: np.asarray(array) for name, array in flat.items()}
    (folder / "model.safetensors").write_bytes(save(arrays))


def _write_function(run: Trained, folder: Path) -> None:
    """Write the network as a function, with the convolution that every device has."""
    module = run.module.clone(convolution="library")
    logits_fn = partial(make_apply_fn(module), run.params)
    (folder / "model.jax").write_bytes(export_logits(logits_fn, run.data.test.inputs.shape[1:]))


FORMATS: dict[str, Callable[[Trained, Path], None]] = {"safetensors": _write_params, "jax": _write_function}
"""What can be written of a network, by name."""


def _write_points(run: Trained, folder: Path) -> None:
    """Write the first test points with the logits that the run's own network has there."""
    inputs, labels = (part[:_NUM_POINTS] for part in run.data.test)
    step = jax.jit(lambda params, inputs, labels: run.apply_fn(params, inputs))
    points = {"inputs": inputs, "labels": labels}
    points["logits"] = measure(step, run.params, batch_size=_BATCH_SIZE, **points)
    (folder / "points.safetensors").write_bytes(save(points))
