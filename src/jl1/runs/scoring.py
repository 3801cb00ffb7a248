"""The figures of a trained network: accuracies under the attacks of the report, and norms of its Jacobian."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from jl1.array_types import ApplyFn, AttackFn, Params, PRNGKey
from jl1.attacks.fgsm import fgsm
from jl1.attacks.pgd import pgd
from jl1.batches import over_batches
from jl1.data import Split
from jl1.evaluation import make_eval_step, make_penalty_step
from jl1.penalties import make_penalty
from jl1.shares import ShareRowsFn, unshared
from jl1.training import Examples

_MOST_ROWS = 100_000
"""Rows of Jacobians that the norms are measured on: those of MNIST's whole test set."""

Row = dict[str, Any]
"""One accuracy as it stands in result.json; docs/run_folder.md describes it."""

ProgressFn = Callable[[str, int, int], None]
"""Told what is being measured, how many examples of it are done, and out of how many."""


class AttackOptions(NamedTuple):
    """What the attacks of the report are set by.

    Attributes:
        epsilons: L-infinity radii, each in [0, 1].
        pgd_steps: Steps of a PGD restart.
        pgd_restarts: Random restarts of PGD.
        batch_size: Examples at a time.
    """

    epsilons: Sequence[float]
    pgd_steps: int = 20
    pgd_restarts: int = 1
    batch_size: int = 500


class _Column(NamedTuple):
    """One attack with everything but its radius: one compilation."""

    attack: str
    labels: str
    attack_fn: AttackFn | None
    settings: dict[str, int]


def score_accuracies(
    apply_fn: ApplyFn,
    params: Params,
    *,
    points: Split | Examples,
    options: AttackOptions,
    key: PRNGKey,
    progress: ProgressFn = lambda *_: None,
    share_rows: ShareRowsFn = unshared,
) -> Iterator[Row]:
    """Measure the accuracy on every point, clean and under each attack and radius, one row after another.

    Args:
        apply_fn: Function of params and inputs to logits.
        params: Parameters.
        points: All examples to measure on; none is dropped.
        options: Radii and the strength of the attacks.
        key: Fixes the random starts of PGD.
        progress: Told after each batch.
        share_rows: Lets several devices run a step, such as `devices.Devices.share_rows`.

    Yields:
        One row an accuracy.
    """
    for column in _columns(options):
        attacked = {"attack_fn": column.attack_fn, "attack_predicted_labels": column.labels == "predicted"}
        step = share_rows(make_eval_step(apply_fn, **attacked))
        for epsilon in options.epsilons if column.attack_fn is not None else (0.0,):
            correct = _collect(
                over_batches(
                    step,
                    params,
                    inputs=points.inputs,
                    labels=points.labels,
                    batch_size=options.batch_size,
                    key=key,
                    epsilon=epsilon,
                ),
                f"{column.attack} {epsilon:g} ({column.labels} labels)" if column.attack_fn else "clean",
                len(points.labels),
                progress,
            )
            yield {
                "attack": column.attack,
                "epsilon": float(epsilon),
                "labels": column.labels,
                "accuracy": float(np.mean(correct)),
                "num_examples": len(correct),
                **column.settings,
            }


def score_norms(
    apply_fn: ApplyFn,
    params: Params,
    *,
    points: Split | Examples,
    batch_size: int = 500,
    progress: ProgressFn = lambda *_: None,
    share_rows: ShareRowsFn = unshared,
) -> dict[str, float]:
    """Measure the mean of ||J||_{1,1} over the points, of the logits and of the probabilities.

    Of many classes over fewer points, the first ones: the norm takes a reverse pass for each class and point.

    Args:
        apply_fn: Function of params and inputs to logits.
        params: Parameters.
        points: The examples; of more than 10 classes the first 100,000 / c are measured.
        batch_size: Examples at a time.
        progress: Told after each batch.
        share_rows: Lets several devices run a step.

    Returns:
        The means, by `logits` and `probs`.
    """
    means, num_classes = {}, jax.eval_shape(apply_fn, params, points.inputs[:1]).shape[1]
    inputs, labels = (part[: max(1, _MOST_ROWS // num_classes)] for part in points)
    for outputs in ("logits", "probs"):
        penalty_fn = make_penalty("jacobian_l1", outputs=outputs)
        step = share_rows(make_penalty_step(apply_fn, penalty_fn=penalty_fn))
        batches = over_batches(step, params, inputs=inputs, labels=labels, batch_size=batch_size)
        norms = _collect(batches, f"Jacobian norm of the {outputs}", len(labels), progress)
        means[outputs] = float(np.mean(norms, dtype=np.float64))
    return means


def _columns(options: AttackOptions) -> list[_Column]:
    """List what is measured, the weakest attack first."""
    strength = {"num_steps": options.pgd_steps, "num_restarts": options.pgd_restarts}
    return [
        _Column("clean", "true", None, {}),
        _Column("fgsm", "true", fgsm, {}),
        _Column("fgsm", "predicted", fgsm, {}),
        _Column("pgd", "true", partial(pgd, **strength), strength),
    ]


def _collect(batches: Iterator[np.ndarray], what: str, total: int, progress: ProgressFn) -> np.ndarray:
    """Concatenate the values of all batches, and tell of each."""
    values, done = [], 0
    progress(what, 0, total)
    for batch in batches:
        values.append(batch)
        done += len(batch)
        progress(what, done, total)
    return np.concatenate(values)
