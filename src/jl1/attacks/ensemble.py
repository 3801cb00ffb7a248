"""AutoAttack, here `standard`: strong attacks one after another on the points that still stand, worst case a point.

`standard_attack` is the one function here that is not jitted as a whole. Shapes are static inside jit, so work can only
shrink outside: it gathers the standing examples on the host into batches of a few fixed sizes, each compiled once.

References:
    Croce, Hein 2020, "Reliable evaluation of adversarial robustness with an ensemble of diverse
    parameter-free attacks", arXiv:2003.01690 (AutoAttack).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial, reduce
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float, Int

from jl1.array_types import ApplyFn, Inputs, Labels, Mask, NormName, Params, PRNGKey, Scalar
from jl1.attacks.budgets import Stage, find_budget
from jl1.attacks.fgsm import predicted_labels
from jl1.attacks.norms import find_norm
from jl1.attacks.targets import ranked_targets
from jl1.inputs import check_floating, check_range
from jl1.labels import check_labels
from jl1.per_example import is_finite
from jl1.shares import ShareRowsFn, unshared

ProgressFn = Callable[[str, int, int], None]
"""Told the stage, how many of the examples it began with are done, and how many these were."""


class Attacked(NamedTuple):
    """What an ensemble leaves, one row an example.

    Attributes:
        inputs: Adversarial inputs; the inputs themselves where nothing was found or they were wrong to begin with.
        broken_by: Name of the stage that found it, "clean" if it was wrong to begin with, "" if it stands.
        stands: Whether the returned point is classified right, by a forward pass over the returned points.
    """

    inputs: np.ndarray
    broken_by: np.ndarray
    stands: np.ndarray


def standard_attack(
    apply_fn: ApplyFn,
    params: Params,
    *,
    inputs: Float[np.ndarray | Array, " num_examples *features"],
    labels: Int[np.ndarray | Array, " num_examples"],
    epsilon: Scalar,
    key: PRNGKey,
    budget: str | Mapping[str, Stage] = "full",
    norm: NormName = "linf",
    lower: float = 0.0,
    upper: float = 1.0,
    batch_sizes: Sequence[int] = (500, 50),
    progress: ProgressFn = lambda *_: None,
    share_rows: ShareRowsFn = unshared,
) -> Attacked:
    """Attack every example by the stages of a budget in turn until one beats it.

    The accuracy that is left is `stands.mean()`.
    Compiles each stage once for each batch size in use, whatever epsilon, params and key are, as long as `apply_fn`
    and the stages are the same objects. The same arguments give the same result; which examples share a batch depends
    on `batch_sizes` and on what stands, and the random draws depend on that.

    Args:
        apply_fn: Function of params and inputs to LOGITS; examples must not interact.
        params: Parameters.
        inputs: All inputs, in [lower, upper].
        labels: All true labels.
        epsilon: Radius in the units of the inputs.
        key: Fixes all randomness.
        budget: What is run, in order: a name in `BUDGETS` (`full`, `few_classes`, `fast`), or stages by name.
        norm: "linf" or "l2".
        lower: Lowest value an input may have.
        upper: Highest value an input may have.
        batch_sizes: Numbers of examples that are attacked together: the largest that the standing examples fill,
            then smaller ones; the last batch is padded. Few sizes compile sooner, more of them waste less.
        progress: Called after each batch with the stage, and how much of it is done out of how much.
        share_rows: Lets several devices attack a batch, such as `devices.Devices.share_rows`.

    Returns:
        Points and verdicts, as NumPy arrays.

    Raises:
        ValueError: No examples, inputs that are not floating or not in [lower, upper], labels that are not one integer
            an example, no batch size or one below 1, an unknown budget, a number for epsilon that is negative or (in
            L-infinity) above upper - lower, or what the attacks refuse, such as fewer than four classes for the
            targeted DLR.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from jl1.attacks.apgd import apgd
        >>> options = {"inputs": jnp.array([[0.5, 0.4], [0.9, 0.1]]), "labels": jnp.array([0, 0])}
        >>> stages = {"apgd": Stage(partial(apgd, num_steps=5))}
        >>> result = standard_attack(
        ...     lambda scale, x: scale * x, 2.0, epsilon=0.1, key=jax.random.key(0), budget=stages, **options)
        >>> result.broken_by.tolist(), result.stands.tolist()
        (['apgd', ''], [False, True])
    """
    find_norm(norm).check(epsilon, lower, upper)  # here, since the attacks below see a traced one
    inputs, labels = np.asarray(inputs), np.asarray(labels)
    if len(inputs) == 0 or min(batch_sizes, default=0) < 1:
        raise ValueError(f"{len(inputs)} examples in batches of {tuple(batch_sizes)}: all must be at least 1")
    check_labels(labels, inputs, what="inputs")
    check_floating(inputs)
    check_range(inputs, lower, upper)
    attack_batch = share_rows(_attack_batch, static=("apply_fn", "stage", "space"))
    points, is_right = inputs.copy(), partial(share_rows(_is_right, static=("apply_fn",)), params, apply_fn=apply_fn)
    stands = _judge(is_right, points, labels, batch_sizes)
    broken_by = np.where(stands, "", "clean").astype(object)
    stages = find_budget(budget) if isinstance(budget, str) else budget
    for number, (name, stage) in enumerate(stages.items()):
        attack_fn = partial(attack_batch, params, apply_fn=apply_fn, stage=stage, space=(norm, lower, upper))
        num_began, num_rounds = int(stands.sum()), _num_rounds(stage, apply_fn, params, inputs)
        for part in _parts(stands, num_rounds, batch_sizes):
            rows, part_key = part.rows, _fold_in(key, number, part.round, part.number)
            found = attack_fn(inputs[rows], labels[rows], epsilon, part_key, part.round)
            beaten = ~np.asarray(is_right(found, labels[rows]))[: part.size]
            hit = rows[: part.size][beaten]
            points[hit], broken_by[hit], stands[hit] = np.asarray(found)[: part.size][beaten], name, False
            progress(name, part.num_done, num_began * num_rounds)
        progress(name, num_began * num_rounds, num_began * num_rounds)
    stands = _judge(is_right, points, labels, batch_sizes)
    # rounding may differ from batch to batch, and the last word is that of the points
    broken_by[stands] = ""
    broken_by[~stands & (broken_by == "")] = "clean"
    return Attacked(points, broken_by, stands)


class _Part(NamedTuple):
    """One batch of a stage: its rows, of which the first `size` count and the others pad it."""

    round: int
    number: int
    rows: np.ndarray
    size: int
    num_done: int


def _parts(stands: np.ndarray, num_rounds: int, batch_sizes: Sequence[int]) -> Iterator[_Part]:
    """Yield the batches of all rounds; `stands` is looked at when a round begins, and the caller writes to it."""
    num_began = int(stands.sum())
    for number_of_round in range(num_rounds):
        done = number_of_round * num_began
        for number, (rows, size) in enumerate(_batches(np.flatnonzero(stands), batch_sizes)):
            done += size
            yield _Part(number_of_round, number, rows, size, done)


def _batches(rows: np.ndarray, batch_sizes: Sequence[int]) -> Iterator[tuple[np.ndarray, int]]:
    """Cut rows into batches of the given sizes, the largest that can be filled first; the last one is padded."""
    while len(rows):
        size = max((size for size in batch_sizes if size <= len(rows)), default=min(batch_sizes))
        yield np.resize(rows[:size], size), min(size, len(rows))
        rows = rows[size:]


def _judge(
    is_right: Callable[..., Mask], points: np.ndarray, labels: np.ndarray, batch_sizes: Sequence[int]
) -> np.ndarray:
    """Return which points are classified right."""
    batches = _batches(np.arange(len(points)), batch_sizes)
    return np.concatenate([np.asarray(is_right(points[rows], labels[rows]))[:size] for rows, size in batches])


def _num_rounds(stage: Stage, apply_fn: ApplyFn, params: Params, inputs: np.ndarray) -> int:
    """Return one round a target, no more than there are rivals; one a restart for an untargeted attack."""
    if not stage.num_targets:
        return max(stage.num_restarts, 1)
    logits = jax.eval_shape(apply_fn, params, jax.ShapeDtypeStruct((1, *inputs.shape[1:]), inputs.dtype))
    return min(stage.num_targets, logits.shape[1] - 1)


def _fold_in(key: PRNGKey, *numbers: int) -> PRNGKey:
    return reduce(jax.random.fold_in, numbers, key)


@partial(jax.jit, static_argnames="apply_fn")
def _is_right(params: Params, points: Inputs, labels: Labels, *, apply_fn: ApplyFn) -> Mask:
    """A point that is no number is not in the ball, whatever the network says of it: it beats nothing."""
    return (predicted_labels(partial(apply_fn, params), points) == labels) | ~is_finite(points)


@partial(jax.jit, static_argnames=("apply_fn", "stage", "space"))
def _attack_batch(
    params: Params,
    inputs: Inputs,
    labels: Labels,
    epsilon: Scalar,
    key: PRNGKey,
    rank: Scalar,
    *,
    apply_fn: ApplyFn,
    stage: Stage,
    space: tuple[NormName, float, float],
) -> Inputs:
    """Attack one batch, toward the rival of the given rank if the stage has targets."""
    logits_fn = partial(apply_fn, params)
    options: dict[str, Any] = dict(zip(("norm", "lower", "upper"), space, strict=True))
    if stage.num_targets:
        options["targets"] = ranked_targets(logits_fn(inputs), labels, rank=rank)
    return stage.attack_fn(logits_fn, inputs, labels=labels, epsilon=epsilon, key=key, **options)
