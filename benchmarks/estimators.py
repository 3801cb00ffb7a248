"""Estimators of the penalty beside the exact one: how much of its gradient a draw keeps, and at what cost.

    taskset -c 0 python benchmarks/estimators.py C [A] > docs/results/estimators.json

Penalty on the logits, summed over entries, float32, 128 of the embedded MNIST digits; at the initial weights, and after
some plain steps. `cosine` and `relative_error` compare the gradient of the penalty with the exact closed form's, over
several keys: the mean of the cosines, the lowest, the mean of ||found - exact|| / ||exact|| (for estimates of another
norm it would say nothing). Process CPU milliseconds of the whole gradient, cross-entropy included, all forms of a model
alternating; medians.
"""

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from itertools import product
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jl1.closed_form import has_closed_form, make_closed_form_gradient
from jl1.data import load_dataset
from jl1.gradients import make_gradient
from jl1.losses import LossTerms, cross_entropy, penalised_loss
from jl1.models import MODELS, SequentialNet, create_model, make_apply_fn
from jl1.penalties import ESTIMATORS, make_penalty

_BATCH = 128
_SMOOTHED = partial(cross_entropy, smoothing=0.1)
_SAME_NORM = ("jacobian_l1_sampled_classes", "jacobian_l1_finite_difference")


class Form(NamedTuple):
    """A compiled gradient of one batch, params and a key to gradient and terms."""

    name: str
    num_draws: int
    program: Any


def main() -> None:
    """Measure the models that are named and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", choices=tuple(MODELS))
    parser.add_argument("--activation", default="relu")
    parser.add_argument("--keys", type=int, default=10)
    parser.add_argument("--steps", type=int, default=200, help="plain steps of Adam before the second measurement")
    parser.add_argument("--draws", type=int, nargs="+", default=[1, 2, 5])
    options = vars(parser.parse_args())
    models = options.pop("models")
    results = [measure(name, **options) for name in models]
    print(json.dumps({"jax": jax.__version__, "results": results}, indent=2))


def measure(model: str, *, activation: str, keys: int, steps: int, draws: list[int]) -> dict[str, Any]:
    """Compare all forms at two states of one model."""
    module = create_model(model, activation=activation)
    data = load_dataset("mnist_5k").train
    inputs, labels = jnp.asarray(data.inputs), jnp.asarray(data.labels)
    params = jax.jit(module.init)(jax.random.key(0), inputs[:1])["params"]
    rows = np.random.default_rng(1).permutation(len(labels))[:_BATCH]
    batch = inputs[rows], labels[rows]
    forms = compile_forms(module, params, *batch, draws)
    result: dict[str, Any] = {"model": model, "activation": activation, "keys": keys, "steps": steps}
    result["initial"] = compare(forms, params, keys)
    result["trained"] = compare(forms, train(module, params, inputs, labels, steps), keys)
    return result


def compile_forms(module: SequentialNet, params: Any, inputs: Any, labels: Any, draws: list[int]) -> list[Form]:
    """Compile the plain gradient, the exact one and every estimator's."""
    apply_fn = make_apply_fn(module)

    def automatic(penalty_fn: Callable[..., Any] | None) -> Callable[..., Any]:
        def terms_fn(logits_fn: Any, inputs: Any, *, epsilon: Any, **options: Any) -> LossTerms:
            del epsilon
            return penalised_loss(logits_fn, inputs, penalty_fn=penalty_fn, loss_fn=_SMOOTHED, **options)

        return make_gradient(apply_fn, terms_fn=terms_fn)

    def compiled(gradient_fn: Callable[..., Any]) -> Any:
        def of_batch(params: Any, key: Any) -> Any:
            mask = jnp.ones(len(labels), bool)
            return gradient_fn(params, inputs, labels=labels, mask=mask, lam=1.0, epsilon=0.0, key=key)

        return jax.jit(of_batch).lower(params, jax.random.key(0)).compile()

    if has_closed_form(module):
        exact = make_closed_form_gradient(module, loss_fn=_SMOOTHED)
    else:
        exact = automatic(make_penalty("jacobian_l1"))
    choices = [("class_sum_l1", 0), *product(ESTIMATORS, draws)]
    estimates = [Form(name, num, compiled(automatic(make_penalty(name, num_draws=num)))) for name, num in choices]
    return [Form("plain", 0, compiled(automatic(None))), Form("exact", 0, compiled(exact)), *estimates]


def train(module: SequentialNet, params: Any, inputs: Any, labels: Any, steps: int) -> Any:
    """Take plain steps of Adam."""
    apply_fn, adam = make_apply_fn(module), optax.adam(1e-3)

    @jax.jit
    def step(params: Any, state: Any, inputs: Any, labels: Any) -> Any:
        slope = jax.grad(lambda params: jnp.mean(_SMOOTHED(apply_fn(params, inputs), labels)))(params)
        updates, state = adam.update(slope, state)
        return optax.apply_updates(params, updates), state

    state, order = adam.init(params), np.random.default_rng(0)
    for _ in range(steps):
        rows = order.integers(0, len(labels), _BATCH)
        params, state = step(params, state, inputs[rows], labels[rows])
    return params


def compare(forms: list[Form], params: Any, keys: int) -> list[dict[str, Any]]:
    """Return one row a form: its gradient of the penalty beside the exact one, its time beside the others'."""
    seconds: dict[Form, list[float]] = {form: [] for form in forms}
    found: dict[Form, list[np.ndarray]] = {form: [] for form in forms}
    penalties: dict[Form, list[float]] = {form: [] for form in forms}
    for seed in range(keys):
        for form in forms:
            start = time.process_time()
            gradient, terms = jax.block_until_ready(form.program(params, jax.random.key(seed)))
            seconds[form].append(time.process_time() - start)
            found[form].append(np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(gradient)]).astype(float))
            penalties[form].append(float(terms.penalty))
    plain, exact = forms[:2]
    true, exact_ms = found[exact][0] - found[plain][0], 1e3 * float(np.median(seconds[exact]))
    rows = []
    for form in forms:
        slopes = [slope - found[plain][0] for slope in found[form]]
        milliseconds = 1e3 * float(np.median(seconds[form]))
        row: dict[str, Any] = {"form": form.name, "draws": form.num_draws, "ms": round(milliseconds, 2)}
        row["share_of_exact_time"] = round(milliseconds / exact_ms, 3)
        if form is not plain:
            row["value_of_exact"] = round(float(np.mean(penalties[form])) / penalties[exact][0], 4)
            cosines = [float(slope @ true / np.linalg.norm(slope) / np.linalg.norm(true)) for slope in slopes]
            row |= {"cosine": round(float(np.mean(cosines)), 4), "lowest_cosine": round(min(cosines), 4)}
        if form.name in _SAME_NORM:
            errors = [np.linalg.norm(slope - true) / np.linalg.norm(true) for slope in slopes]
            row["relative_error"] = round(float(np.mean(errors)), 4)
        rows.append(row)
    return rows


if __name__ == "__main__":
    main()
