"""What the class-sampled penalty costs beside a plain step, by the number of classes.

    taskset -c 0 python benchmarks/many_classes.py C A > docs/results/many_classes.json

The gradient of the mean loss of a batch of 128 images of 28 x 84 pixels, three digits wide, float32, for 10, 100 and
1,000 classes: plain, and with one class of the Jacobian sampled an image, on logits and on probabilities. All forms of
a model take turns in one process; median process CPU milliseconds, and the temporary memory of the compiled programs.
"""

import argparse
import json
import time
from functools import partial
from itertools import product
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jl1.gradients import make_gradient
from jl1.losses import LossTerms, cross_entropy, penalised_loss
from jl1.models import MODELS, create_model, make_apply_fn
from jl1.penalties import make_penalty

_BATCH, _SHAPE = 128, (28, 84, 1)
_FORMS = ("plain", "sampled logits", "sampled probs")


def main() -> None:
    """Measure the models that are named and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", choices=tuple(MODELS))
    parser.add_argument("--classes", type=int, nargs="+", default=[10, 100, 1000])
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    rows = [row for model in options.models for row in measure(model, options.classes, options.rounds)]
    print(json.dumps({"jax": jax.__version__, "batch_size": _BATCH, "input_shape": _SHAPE, "rows": rows}, indent=2))


def measure(model: str, classes: list[int], rounds: int) -> list[dict[str, Any]]:
    """Let all forms of a model take turns, and return a row for each number of classes."""
    programs = {(num, form): compiled(model, num, form) for num, form in product(classes, _FORMS)}
    seconds: dict[tuple[int, str], list[float]] = {name: [] for name in programs}
    for number in range(rounds + 1):
        for name, (program, arguments, _) in programs.items():
            start = time.process_time()
            jax.block_until_ready(program(*arguments))
            if number > 0:  # the first warms up
                seconds[name].append(time.process_time() - start)
    rows = []
    for num in classes:
        milliseconds = {form: round(1e3 * float(np.median(seconds[num, form])), 2) for form in _FORMS}
        ratios = {form: round(milliseconds[form] / milliseconds["plain"], 2) for form in _FORMS[1:]}
        memory = {form: round(programs[num, form][2], 2) for form in _FORMS}
        rows.append({"model": model, "classes": num, "ms": milliseconds, "plain_steps": ratios, "temporary_mb": memory})
    return rows


def compiled(model: str, num_classes: int, form: str) -> tuple[Any, tuple[Any, ...], float]:
    """Compile a form, and return it with its arguments and its temporary memory in MB."""
    module = create_model(model, num_classes=num_classes)
    inputs, labels = jax.random.uniform(jax.random.key(1), (_BATCH, *_SHAPE)), jnp.arange(_BATCH) % num_classes
    params = jax.jit(module.init)(jax.random.key(0), inputs)["params"]
    penalty_fn = None if form == "plain" else make_penalty("jacobian_l1_sampled_classes", outputs=form.split()[1])

    def terms_fn(logits_fn: Any, inputs: Any, *, epsilon: Any, **options: Any) -> LossTerms:
        del epsilon
        loss_fn = partial(cross_entropy, smoothing=0.1)
        return penalised_loss(logits_fn, inputs, penalty_fn=penalty_fn, loss_fn=loss_fn, **options)

    gradient_fn = make_gradient(make_apply_fn(module), terms_fn=terms_fn)

    def gradient(params: Any, inputs: Any, labels: Any, key: Any) -> Any:
        mask = jnp.ones(_BATCH, bool)
        return gradient_fn(params, inputs, labels=labels, mask=mask, lam=0.01, epsilon=0.0, key=key)

    arguments = params, inputs, labels, jax.random.key(2)
    program = jax.jit(gradient).lower(*arguments).compile()
    memory = program.memory_analysis()
    assert memory is not None, "this device does not tell"
    return program, arguments, memory.temp_size_in_bytes / 1e6


if __name__ == "__main__":
    main()
