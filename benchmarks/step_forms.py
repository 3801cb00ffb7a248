"""The exact step in closed form beside the plain step, the automatic and the textbook form, on one core.

    taskset -c 0 python benchmarks/step_forms.py C [A B] [--repeats=15] [--textbook] > FILE.json

One process a model; the forms alternate with a matrix product of the same run, whose speed stands for the processor's
peak; process CPU seconds, medians and minima. `share_of_peak` counts 2 (F + 3c (F - F_last)) operations an example, F
multiply-adds of a forward pass, F_last those of its last layer. The textbook form, grad of vmap(jacrev), needs
minutes for A and B and 280 MB and 2.1 GB of temporary memory: only with --textbook.
"""

import argparse
import json
import math
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jl1.closed_form import make_closed_form_gradient
from jl1.jacobian import l1_jacobian_norm
from jl1.linear_ops import make_linear_ops
from jl1.losses import LossTerms, cross_entropy, penalised_loss
from jl1.models import MODELS, Conv, Dense, SequentialNet, create_model, make_apply_fn
from jl1.penalties import OUTPUTS, make_penalty
from jl1.training import make_gradient

_BATCH, _SIDE, _MATRIX = 128, 28, 1024
_SMOOTHED = partial(cross_entropy, smoothing=0.1)


def forward_counts(module: SequentialNet) -> tuple[int, int]:
    """Count the multiply-adds of a forward pass of one example, and those of its last layer."""
    shape, counts = (_SIDE, _SIDE, 1), []
    layers = (*module.hidden, Dense(module.num_classes))
    for layer, ops in zip(layers, make_linear_ops(layers, shape, convolution="patches"), strict=True):
        fan_in = shape[-1] * layer.kernel_size**2 if isinstance(layer, Conv) else math.prod(shape)
        counts.append(math.prod(ops.output_shape) * fan_in)
        shape = ops.output_shape
    return sum(counts), counts[-1]


def forms(module: SequentialNet, *, textbook: bool) -> dict[str, Callable[..., Any]]:
    """Return the gradient functions that are compared, by name."""
    apply_fn = make_apply_fn(module)

    def automatic(penalty: Callable[..., Any] | None) -> Callable[..., Any]:
        def terms_fn(logits_fn: Any, inputs: Any, *, labels: Any, lam: Any, **_: Any) -> LossTerms:
            return penalised_loss(logits_fn, inputs, labels=labels, lam=lam, penalty_fn=penalty, loss_fn=_SMOOTHED)

        return make_gradient(apply_fn, terms_fn=terms_fn)

    def by_definition(outputs: str) -> Callable[..., Any]:
        def penalty_fn(logits_fn: Any, inputs: Any, *, labels: Any) -> Any:
            del labels
            return l1_jacobian_norm(lambda one: OUTPUTS[outputs](logits_fn(one[None]))[0], inputs)

        return penalty_fn

    named = {"plain": automatic(None)}
    for outputs in ("logits", "probs"):
        named[f"closed_form {outputs}"] = make_closed_form_gradient(module, outputs=outputs, loss_fn=_SMOOTHED)
    if not any(isinstance(layer, Conv) for layer in module.hidden) or textbook:
        named["automatic logits"] = automatic(make_penalty("jacobian_l1"))
        named["textbook logits"] = automatic(by_definition("logits"))
    return named


def measure(name: str, *, repeats: int, textbook: bool) -> dict[str, Any]:
    """Time all forms of one model, alternating."""
    module = create_model(name)
    inputs = jax.random.uniform(jax.random.key(1), (_BATCH, _SIDE, _SIDE, 1))
    params = jax.jit(module.init)(jax.random.key(0), inputs)["params"]
    batch = {"labels": jnp.arange(_BATCH) % 10, "mask": jnp.ones(_BATCH, bool), "lam": 0.01, "epsilon": 0.0}
    matrix = jnp.ones((_MATRIX, _MATRIX))
    programs: dict[str, tuple[Any, tuple[Any, ...]]] = {
        "matrix product": (jax.jit(jnp.dot).lower(matrix, matrix).compile(), (matrix, matrix))
    }
    for form, gradient_fn in forms(module, textbook=textbook).items():
        program = jax.jit(partial(gradient_fn, key=jax.random.key(0), **batch)).lower(params, inputs).compile()
        programs[form] = (program, (params, inputs))
    seconds: dict[str, list[float]] = {form: [] for form in programs}
    for _ in range(repeats + 1):
        for form, (program, arguments) in programs.items():
            start = time.process_time()
            jax.block_until_ready(program(*arguments))
            seconds[form].append(time.process_time() - start)
    peak = 2 * _MATRIX**3 / np.median(seconds["matrix product"][1:])
    forward, last = forward_counts(module)
    exact = 2 * _BATCH * (forward + 3 * module.num_classes * (forward - last))
    rows = {}
    for form, (program, _) in programs.items():
        median = float(np.median(seconds[form][1:]))
        rows[form] = {
            "median_ms": round(1e3 * median, 2),
            "min_ms": round(1e3 * min(seconds[form][1:]), 2),
            "temporary_mb": round(program.memory_analysis().temp_size_in_bytes / 1e6, 2),
        }
        if "logits" in form or "probs" in form:
            rows[form]["share_of_peak"] = round(exact / median / peak, 3)
    return {"model": name, "peak_gflops": round(peak / 1e9, 1), "forms": rows}


def main() -> None:
    """Measure the models that are named and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", choices=tuple(MODELS))
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--textbook", action="store_true", help="the textbook form of A and B too")
    options = parser.parse_args()
    results = [measure(name, repeats=options.repeats, textbook=options.textbook) for name in options.models]
    print(json.dumps({"jax": jax.__version__, "results": results}, indent=2))


if __name__ == "__main__":
    main()
