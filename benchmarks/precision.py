"""The closed form with bfloat16 products against float32: time, and how far the gradient is off.

    taskset -c 0 python benchmarks/precision.py > docs/results/precision.json

First step of each model, lambda 50 with the mean scale, medians of process CPU milliseconds; on a CUDA device tf32
too, and milliseconds of the clock.
"""

import json
import time
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jl1.closed_form import make_closed_form_gradient
from jl1.models import MODELS, create_model
from jl1.precision import PRECISIONS

_BATCH, _REPEATS = 128, 7


def measure(model: str, outputs: str, precision: str) -> tuple[np.ndarray, float]:
    """Return the flat gradient and the median milliseconds."""
    module = create_model(model)
    inputs, labels = jax.random.uniform(jax.random.key(1), (_BATCH, 28, 28, 1)), jnp.arange(_BATCH) % 10
    params = jax.jit(module.init)(jax.random.key(0), inputs)["params"]
    gradient_fn = make_closed_form_gradient(module, outputs=outputs, scale="mean", precision=precision)
    batch = {"labels": labels, "mask": jnp.ones(_BATCH, bool), "lam": 50.0, "epsilon": 0.0}
    program = jax.jit(partial(gradient_fn, **batch)).lower(params, inputs).compile()
    gradient, _ = jax.block_until_ready(program(params, inputs))
    clock = time.process_time if jax.default_backend() == "cpu" else time.perf_counter
    seconds = []
    for _ in range(_REPEATS):
        start = clock()
        jax.block_until_ready(program(params, inputs))
        seconds.append(clock() - start)
    flat = [np.ravel(np.asarray(leaf, np.float64)) for leaf in jax.tree.leaves(gradient)]
    return np.concatenate(flat), 1e3 * float(np.median(seconds))


def compare(model: str, outputs: str) -> list[dict[str, Any]]:
    """Return one row for each precision."""
    names = [name for name in PRECISIONS if name != "tf32" or jax.default_backend() != "cpu"]
    exact, exact_ms = measure(model, outputs, "float32")
    rows = []
    for name in names:
        gradient, ms = measure(model, outputs, name)
        error = np.linalg.norm(gradient - exact) / np.linalg.norm(exact)
        rows.append({"model": model, "outputs": outputs, "precision": name, "ms": round(ms, 2)})
        rows[-1] |= {"speedup": round(exact_ms / ms, 2), "relative_error": float(f"{error:.2g}")}
    return rows


def main() -> None:
    """Measure all models and print JSON."""
    rows = [row for model in MODELS for outputs in ("logits", "probs") for row in compare(model, outputs)]
    device = jax.devices()[0]
    print(
        json.dumps(
            {"jax": jax.__version__, "device": f"{device.platform} {device.device_kind}", "rows": rows}, indent=1
        )
    )


if __name__ == "__main__":
    main()
