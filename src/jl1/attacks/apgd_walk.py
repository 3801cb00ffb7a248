"""One restart of Auto-PGD: the steps, and the rule that halves their size.

The paper gives it in Algorithm 1. Where the code that its authors published says something else, jl1 follows the
code, since published figures were made with it: checkpoints lie at sums of whole window lengths (`checkpoints`),
"too few rises" is `rises <= 0.75 window` with equality, the second condition is not looked at in the first window.
One slip of that code is left out: in the first window it compares the loss after the first step with 0 and not
with the loss at the start.

References:
    Croce, Hein 2020, "Reliable evaluation of adversarial robustness with an ensemble of diverse
    parameter-free attacks", arXiv:2003.01690.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from jl1.array_types import Inputs, Mask, PerExample, Scalar
from jl1.attacks.norms import Norm
from jl1.per_example import choose, spread

_MOMENTUM = 0.75  # alpha of Algorithm 1: the weight of the new step against the last one
_RISES = 0.75  # rho: below this share of rising steps the step size halves


def checkpoints(num_steps: int) -> dict[int, int]:
    """Return after how many steps the step size is looked at, each with the length of the window before it.

    Windows shrink from 22 % of the steps by 3 % at a time to 6 %: p_{j+1} = p_j + max(p_j - p_{j-1} - 0.03, 0.06) in
    whole steps. For 100 steps these are the paper's w_j = ceil(100 p_j).

    Example:
        >>> list(checkpoints(100))
        [22, 41, 57, 70, 80, 87, 93, 99]
    """
    window, shrink, shortest = (max(int(share * num_steps), 1) for share in (0.22, 0.03, 0.06))
    found, step = {}, window
    while step <= num_steps:
        found[step] = window
        window = max(window - shrink, shortest)
        step += window
    return found


class Best(NamedTuple):
    """The point to return: the first misclassified one, else the one of highest loss."""

    inputs: Inputs
    loss: PerExample
    beaten: Mask


class _Place(NamedTuple):
    """A point with what the network says there."""

    inputs: Inputs
    gradient: Inputs
    loss: PerExample


class _Progress(NamedTuple):
    """What the step-size rule remembers."""

    step_size: PerExample
    rises: PerExample
    loss_at_check: PerExample
    halved_at_check: Mask


class _Walk(NamedTuple):
    """One restart under way; `peak` is its place of highest loss, where a halved step starts again."""

    step: Int[Array, ""]
    place: _Place
    previous: Inputs
    peak: _Place
    progress: _Progress
    best: Best


_LookFn = Callable[[Inputs], tuple[Inputs, PerExample, Mask]]
"""Points to gradient, loss and whether they are misclassified: `objectives.look`."""


def walk(look_fn: _LookFn, norm: Norm, ball: dict, num_steps: int, inputs: Inputs, starts: Inputs, best: Best) -> Best:
    """Run Algorithm 1 from the given starts until every example is beaten or the steps are used up."""
    windows = checkpoints(num_steps)
    window_at = jnp.array([windows.get(step, 0) for step in range(num_steps + 1)], inputs.dtype)

    def step(walk: _Walk) -> _Walk:
        points = _move(walk, norm, ball, inputs)
        place, wrong = _look(look_fn, points)
        best, peak = _keep(walk.best, place, wrong), _higher(walk.peak, place)
        count = walk.step + 1
        progress, halve = _judge(walk, place.loss, peak.loss, window_at[count])
        restarted = _Place(  # the loss stays that of the step just made: the next one is compared with it
            choose(halve, peak.inputs, place.inputs), choose(halve, peak.gradient, place.gradient), place.loss
        )
        return _Walk(count, restarted, walk.place.inputs, peak, progress, best)

    place, wrong = _look(look_fn, starts)
    no_rise, full_step = jnp.zeros_like(place.loss), jnp.full_like(place.loss, 2.0, inputs.dtype) * ball["epsilon"]
    progress = _Progress(full_step, no_rise, place.loss, jnp.full_like(wrong, True))
    start = _Walk(jnp.asarray(0), place, starts, place, progress, _keep(best, place, wrong))
    return jax.lax.while_loop(lambda walk: (walk.step < num_steps) & ~jnp.all(walk.best.beaten), step, start).best


def _look(look_fn: _LookFn, points: Inputs) -> tuple[_Place, Mask]:
    """Evaluate a place and its verdict."""
    gradient, loss, wrong = look_fn(points)
    return _Place(points, gradient, loss), wrong


def _move(walk: _Walk, norm: Norm, ball: dict, inputs: Inputs) -> Inputs:
    """Step uphill, then lean on the direction of the last step; the very first step has none."""
    points = walk.place.inputs
    stepped = points + spread(walk.progress.step_size, points) * norm.ascent(walk.place.gradient)
    stepped = norm.project(stepped, inputs, **ball)
    weight = jnp.where(walk.step == 0, 1.0, _MOMENTUM).astype(points.dtype)
    leaned = points + weight * (stepped - points) + (1 - weight) * (points - walk.previous)
    return norm.project(leaned, inputs, **ball)


def _judge(walk: _Walk, loss: PerExample, highest: PerExample, window: Scalar) -> tuple[_Progress, Mask]:
    """Decide at a checkpoint (window > 0) whose step size halves: too few rises, or no gain since the last one."""
    step_size, rises, loss_at_check, halved_at_check = walk.progress
    rises = rises + (loss > walk.place.loss).astype(loss.dtype)
    too_few = rises <= _RISES * window
    no_gain = ~halved_at_check & (loss_at_check >= highest)
    at_check = window > 0
    halve = at_check & (too_few | no_gain)
    progress = _Progress(
        jnp.where(halve, step_size / 2, step_size),
        jnp.where(at_check, 0.0, rises),
        jnp.where(at_check, highest, loss_at_check),
        jnp.where(at_check, halve, halved_at_check),
    )
    return progress, halve


def _higher(peak: _Place, place: _Place) -> _Place:
    """Keep the place of higher loss."""
    rose = place.loss > peak.loss
    return _Place(
        choose(rose, place.inputs, peak.inputs),
        choose(rose, place.gradient, peak.gradient),
        jnp.where(rose, place.loss, peak.loss),
    )


def _keep(best: Best, place: _Place, wrong: Mask) -> Best:
    """Take the first misclassified point; until there is one, that of highest loss."""
    better = ~best.beaten & (wrong | (place.loss > best.loss))
    return Best(
        choose(better, place.inputs, best.inputs), jnp.where(better, place.loss, best.loss), best.beaten | wrong
    )
