"""Eq. 2 on a trained network: what the gradients at the two ends of a segment say, and what happens between them.

    python benchmarks/segment_audit.py RUN_FOLDER --epsilon=0.1 --num_points=200 > audit.json

Walks from test points of a finished run to their FGSM twins (true labels) and prints JSON: in how many cases, one for
each point and output, the larger norm of the two ends is below the supremum on the segment, by which factor, and
whether |change| <= radius * norm holds with each of them. With --float64 the rounding is
out of question.
"""

import argparse
import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jl1.array_types import Params
from jl1.attacks.fgsm import fgsm
from jl1.models import make_apply_fn
from jl1.problems import create_module
from jl1.segments import SegmentNorms, segment_gradient_norms
from jl1.trained import load_trained

_FACTORS = (1.0001, 1.01, 1.1, 1.5)
_QUANTILES = (0.5, 0.9, 0.99, 1.0)


def summarise(norms: SegmentNorms, radius: np.ndarray) -> dict[str, Any]:
    """Count over the points with a complete walk and the outputs that are not constant."""
    chosen = np.asarray((norms.supremum > 0) & norms.is_complete[:, None])
    largest_end = np.maximum(norms.at_start, norms.at_end)
    factors = np.asarray(norms.supremum / np.maximum(largest_end, 1e-30))[chosen]
    change, slack = np.abs(norms.change), 1e-5 * np.abs(norms.change).max()
    of_bound = (change / np.maximum(radius[:, None] * norms.supremum, 1e-30))[chosen]
    return {
        "complete": int(norms.is_complete.sum()),
        "pieces": dict(zip(("min", "median", "max"), np.quantile(norms.num_pieces, (0, 0.5, 1)).tolist(), strict=True)),
        "cases": int(chosen.sum()),
        "share_where_supremum_exceeds_ends_by": {str(by): float(np.mean(factors > by)) for by in _FACTORS},
        "supremum_over_ends_quantiles": _quantiles(factors),
        "change_over_bound_quantiles": _quantiles(of_bound),
        "cases_against_eq_2_with_supremum": int((chosen & (change > radius[:, None] * norms.supremum + slack)).sum()),
        "cases_against_eq_2_with_ends": int((chosen & (change > radius[:, None] * largest_end + slack)).sum()),
        "largest_gap_of_the_integral": float(np.abs(norms.integral - norms.change)[norms.is_complete].max()),
    }


def _quantiles(values: np.ndarray) -> dict[str, float]:
    """Return quantiles by their level."""
    return {str(level): float(value) for level, value in zip(_QUANTILES, np.quantile(values, _QUANTILES), strict=True)}


def walk_all(walk: Callable[..., SegmentNorms], params: Params, *batched: Any, batch_size: int) -> SegmentNorms:
    """Walk all segments, a batch at a time."""
    batches = []
    for start in range(0, len(batched[0]), batch_size):
        starts, ends, labels = (None if part is None else part[start : start + batch_size] for part in batched)
        batches.append(jax.device_get(walk(params, starts=starts, ends=ends, labels=labels)))
    return jax.tree.map(lambda *parts: np.concatenate(parts), *batches)


def main() -> None:
    """Walk the segments of the logits, then those of the margins."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workdir", type=Path)
    parser.add_argument("--epsilon", type=float, default=0.1)
    parser.add_argument("--num_points", type=int, default=200)
    parser.add_argument("--batch_size", type=int, default=100)
    parser.add_argument("--max_pieces", type=int, default=10_000)
    parser.add_argument("--float64", action="store_true")
    options = parser.parse_args()
    run = load_trained(options.workdir)
    module, params = create_module(run.config, run.data.num_classes), run.params
    inputs, labels = (jnp.asarray(part[: options.num_points]) for part in run.data.test)
    twins = fgsm(partial(make_apply_fn(module), params), inputs, labels=labels, epsilon=options.epsilon)
    if options.float64:
        jax.config.update("jax_enable_x64", True)
        params, inputs, twins = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), (params, inputs, twins))
    radius = np.abs(np.asarray(twins - inputs)).reshape(len(inputs), -1).max(axis=1)
    report: dict[str, Any] = {"command": sys.argv[1:], "points": len(inputs)}
    walk = jax.jit(partial(segment_gradient_norms, module, max_pieces=options.max_pieces))
    for outputs, of_margins in (("logits", None), ("margins", labels)):
        began = perf_counter()
        norms = walk_all(walk, params, inputs, twins, of_margins, batch_size=options.batch_size)
        report[outputs] = {**summarise(norms, radius), "seconds": perf_counter() - began}
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
