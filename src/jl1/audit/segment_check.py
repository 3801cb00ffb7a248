"""Eq. 2 on real segments: the bound with its supremum, which must hold, and with the two ends, which need not.

The paper argues from gradients that vanish at x and at x'; what bounds the change of the outputs between them is the
largest gradient inside.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jl1.array_types import Params, Scalar
from jl1.attacks.fgsm import fgsm
from jl1.audit.check import Check, Outcome
from jl1.batches import measure
from jl1.models import SequentialNet, make_apply_fn
from jl1.segments import SegmentNorms, segment_gradient_norms

ROUNDING = 1e-5
"""Of the largest change, and of the logits: by so much a rounded change may exceed its bound."""

CLOSING = 1e-4
"""Of the same: by so much the sum over the pieces may miss the change, which it must come to."""

UNCOUNTED = 1e-3
"""Of the largest change: where pieces too short to count bring more of it, a walk says too little."""


class Segments(NamedTuple):
    """Walks from points to their FGSM twins, a row an example.

    Attributes:
        norms: Of the margins to all classes.
        radii: max_j |x'_j - x_j|.
    """

    norms: SegmentNorms
    radii: np.ndarray


def walk_to_twins(
    module: SequentialNet,
    params: Params,
    *,
    inputs: Float[np.ndarray | Array, " num_examples *features"],
    labels: Int[np.ndarray | Array, " num_examples"],
    epsilon: Scalar,
) -> Segments:
    """Walk from points to their FGSM twins at epsilon, all at once, on a network with ReLU or leaky ReLU."""
    logits_fn = partial(make_apply_fn(module), params)
    ends = np.asarray(fgsm(logits_fn, jnp.asarray(inputs), labels=jnp.asarray(labels), epsilon=epsilon))
    norms = walk_segments(module, params, starts=inputs, ends=ends, labels=labels, batch_size=len(inputs))
    return Segments(norms, np.abs(ends - inputs).reshape(len(ends), -1).max(axis=1))


def walk_segments(
    module: SequentialNet,
    params: Params,
    *,
    starts: Float[np.ndarray | Array, " num_examples *features"],
    ends: Float[np.ndarray | Array, " num_examples *features"],
    labels: Int[np.ndarray | Array, " num_examples"],
    batch_size: int = 50,
    max_pieces: int = 5_000,
) -> SegmentNorms:
    """Walk from points to attacked points, a batch at a time, for the margins to all classes.

    Args:
        module: A network with ReLU or leaky ReLU.
        params: Its parameters.
        starts: The points x.
        ends: The points x'.
        labels: True labels y: f_j is the margin z_y - z_j.
        batch_size: Segments at a time, at least 1.
        max_pieces: Where a walk is given up.

    Returns:
        The norms, as NumPy arrays with a row an example.

    Raises:
        ValueError: The network is not piecewise linear, no examples, a `batch_size` or `max_pieces` below 1.
    """

    def step(params: Params, inputs: Array, labels: Array) -> SegmentNorms:
        starts, ends = inputs[:, 0], inputs[:, 1]
        return segment_gradient_norms(module, params, starts=starts, ends=ends, labels=labels, max_pieces=max_pieces)

    segments = np.stack([np.asarray(starts), np.asarray(ends)], axis=1)
    return measure(jax.jit(step), params, inputs=segments, labels=labels, batch_size=batch_size)


def segment_check(norms: SegmentNorms, radius: Float[np.ndarray, " num_examples"]) -> Check:
    """Count the margins that change by more than radius times a gradient norm.

    Args:
        norms: From `walk_segments`.
        radius: max_j |x'_j - x_j| of every segment.

    Returns:
        FAIL if Eq. 2 itself is violated, or if a walk has lost a piece, which would be errors of jl1; the ends alone
        are a figure, not a verdict.
    """
    supremum, change, uncounted = np.asarray(norms.supremum), np.abs(norms.change), np.asarray(norms.uncounted)
    largest, larger_end = max(float(change.max()), 1e-30), np.maximum(norms.at_start, norms.at_end)
    complete = np.asarray(norms.is_complete)[:, None] & (uncounted.max(axis=1, keepdims=True) <= UNCOUNTED * largest)
    size = largest + np.asarray(norms.logit_size)[:, None]
    slack = ROUNDING * size + uncounted
    closes = np.abs(np.asarray(norms.integral) - np.asarray(norms.change)) <= CLOSING * size + uncounted
    num_open = int(np.sum(complete & ~closes))
    cases = complete & ((supremum > 0) | (change > slack))
    above = partial(_above, cases, change, radius[:, None], slack)
    with_supremum, with_ends, num_cases = above(supremum), above(larger_end), int(cases.sum())
    factor = float(np.median((supremum / np.maximum(larger_end, 1e-30))[cases])) if num_cases else float("nan")
    outcome: Outcome = "FAIL" if with_supremum or num_open else "PASS" if complete.all() and num_cases else "WARN"
    figure = (
        f"{num_cases:,} margins: {with_supremum} change by more than epsilon x supremum, {with_ends} by more than "
        f"epsilon x the larger end; median supremum / larger end {factor:.2f}"
    )
    advice = {
        "PASS": "",
        "WARN": "No margin changes on these segments."
        if complete.all()
        else f"{int((~complete).sum())} walks were given up or have pieces too short to measure: shorten them.",
        "FAIL": "Eq. 2 cannot be violated: report this as an error of jl1."
        if with_supremum
        else f"On {num_open} walks the pieces do not add up to the change: report this as an error of jl1.",
    }[outcome]
    counts = {"cases": num_cases, "above_supremum": with_supremum, "above_ends": with_ends, "not_closed": num_open}
    values = {name: float(count) for name, count in counts.items()}
    return Check("Eq. 2 on segments", "defence", outcome, figure, advice, False, values | {"median_factor": factor})


def _above(cases: np.ndarray, change: np.ndarray, radius: np.ndarray, slack: np.ndarray, bound: np.ndarray) -> int:
    """Count the cases above a bound."""
    return int(np.sum(cases & (change > radius * bound + slack)))
