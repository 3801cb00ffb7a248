"""The Square attack: random search by square patches that needs no gradient, so a masked one cannot stop it.

References:
    Andriushchenko, Croce, Flammarion, Hein 2020, "Square attack: a query-efficient black-box
    adversarial attack via random search", arXiv:1912.00049, Algorithms 1 to 3.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from jl1.array_types import Inputs, Labels, LogitsFn, Mask, NormName, PerExample, PRNGKey, Scalar
from jl1.attacks.ball import typed_as
from jl1.attacks.norms import check_task
from jl1.attacks.objectives import judge, margin
from jl1.attacks.square_patches import PATCHES, Images, image_shape, schedule
from jl1.per_example import choose, is_narrow


class _State(NamedTuple):
    """The search of every example."""

    query: Int[Array, ""]
    points: Images
    margin: PerExample
    beaten: Mask


def square(
    logits_fn: LogitsFn,
    inputs: Inputs,
    *,
    labels: Labels,
    epsilon: Scalar,
    key: PRNGKey,
    num_queries: int = 5000,
    first_share: float = 0.8,
    schedule_queries: int | None = None,
    norm: NormName = "linf",
    lower: float = 0.0,
    upper: float = 1.0,
) -> Inputs:
    """Attack by random patches, each kept where it raises the margin max_{i != y} z_i - z_y.

    Begins with vertical stripes (L-infinity) or a grid of patches (L2). The patches shrink from `first_share` of
    the image on the published schedule, nine halvings in 10,000 queries, rescaled to `schedule_queries`. Inputs of
    shape (batch, height, width, channels) are images; any others are taken as one row of pixels. Every example
    draws its own places and signs, from all places where the patch fits (AutoAttack's copy leaves out the last row
    and column, and shares the places among the examples of a batch). A beaten example keeps its point; the loop
    ends when all are beaten. Not jitted; one compilation serves every epsilon.

    Args:
        logits_fn: Network with its parameters bound, a batch to LOGITS; no gradient of it is taken.
        inputs: Batch in [lower, upper].
        labels: True labels.
        epsilon: Radius in the units of the inputs, at least 0; may be traced.
        key: Fixes the patches.
        num_queries: Forward passes after that of the start, at least 1.
        first_share: Share of the image that the first patches cover, in (0, 1].
        schedule_queries: Queries that the whole schedule takes, at least 1: `num_queries` unless given, as published.
            AutoAttack leaves it at 10,000 and makes 5,000 of them, so that its patches stay larger.
        norm: "linf" or "l2".
        lower: Lowest value an input may have.
        upper: Highest value an input may have.

    Returns:
        Adversarial inputs, within `epsilon` of `inputs` and in [lower, upper], detached.

    Raises:
        ValueError: `num_queries` or `schedule_queries` below 1, `first_share` outside (0, 1], inputs that are not
            floating, labels that are not one integer an example, an unknown norm, or a number for epsilon that is
            negative or (in L-infinity) above upper - lower.
    """
    geometry = check_task(norm, inputs, labels, epsilon=epsilon, lower=lower, upper=upper)
    length = num_queries if schedule_queries is None else schedule_queries
    if min(num_queries, length) < 1 or not 0 < first_share <= 1:
        raise ValueError(
            f"num_queries={num_queries}, schedule_queries={length}: at least 1; first_share={first_share}: in (0, 1]"
        )
    epsilon, images = typed_as(inputs, epsilon), jax.lax.stop_gradient(inputs).reshape(image_shape(inputs.shape))
    patches = PATCHES[norm](images.shape[1:], schedule(num_queries, first_share, length))

    def judge_images(points: Images) -> tuple[PerExample, Mask]:
        return judge(logits_fn, margin, labels, points.reshape(inputs.shape))

    def inside(points: Images) -> Images:
        if is_narrow(images):
            points = geometry.project(points, images, epsilon=epsilon, lower=lower, upper=upper)
        return jnp.clip(points, lower, upper)

    def query(state: _State) -> _State:
        changed = patches.propose(jax.random.fold_in(key, state.query), state.query, state.points, images, epsilon)
        return _keep_better(state, inside(changed), judge_images)

    margins, wrong = judge_images(images)
    nothing = _State(jnp.asarray(-1), images, jnp.full_like(margins, -jnp.inf), wrong)
    start = patches.start(jax.random.fold_in(key, num_queries), images, epsilon)
    state = _keep_better(nothing, inside(start), judge_images)
    state = jax.lax.while_loop(lambda state: (state.query < num_queries) & ~jnp.all(state.beaten), query, state)
    return jax.lax.stop_gradient(state.points.reshape(inputs.shape))


def _keep_better(state: _State, points: Images, judge_fn: Callable[[Images], tuple[PerExample, Mask]]) -> _State:
    """Take the points where they have more margin or are misclassified, and the example is not beaten yet."""
    margins, wrong = judge_fn(points)
    better = ~state.beaten & (wrong | (margins > state.margin))
    return _State(
        state.query + 1,
        choose(better, points, state.points),
        jnp.where(better, margins, state.margin),
        state.beaten | wrong,
    )
