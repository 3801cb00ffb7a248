"""The Fast Adaptive Boundary attack: looks for the nearest misclassified point, whatever the radius.

Each step takes the network as linear, steps onto the nearest decision plane from the present point and from the
input, and moves a little past a mixture of both; a misclassified point is pulled back toward the input and the search
goes on. `fab_search` has the algorithm; here are its restarts.

References:
    Croce, Hein 2020, "Minimally distorted adversarial examples with a fast adaptive boundary attack",
    arXiv:1907.02044. Its targeted form: Croce, Hein 2020, arXiv:2003.01690.
"""

from functools import partial

import jax
import jax.numpy as jnp

from jl1.array_types import Inputs, Labels, LogitsFn, NormName, PRNGKey, Scalar
from jl1.attacks.ball import typed_as
from jl1.attacks.fab_search import MinimalPerturbation, Search, descend, final_search, nearest_plane, target_plane
from jl1.attacks.fgsm import predicted_labels
from jl1.attacks.norms import check_task, random_border_point
from jl1.per_example import choose, is_narrow
from jl1.precision import in_one_precise_type


def fab(
    logits_fn: LogitsFn,
    inputs: Inputs,
    *,
    labels: Labels,
    epsilon: Scalar,
    key: PRNGKey,
    targets: Labels | None = None,
    num_steps: int = 100,
    num_restarts: int = 1,
    norm: NormName = "linf",
    lower: float = 0.0,
    upper: float = 1.0,
) -> Inputs:
    """Attack by the Fast Adaptive Boundary attack within a radius.

    As `minimal_perturbation`, but an example's search ends as soon as a point within `epsilon` is found, and an
    example for which none is found is returned unchanged. Not jitted; one compilation serves every epsilon.

    Args:
        logits_fn: Network with its parameters bound, a batch to LOGITS; examples must not interact.
        inputs: Batch in [lower, upper].
        labels: True labels.
        epsilon: Radius in the units of the inputs, at least 0; may be traced.
        key: Fixes the random starts of all restarts but the first, which begins at the inputs.
        targets: A class an example whose plane is stepped to (FAB-T); None for the nearest of all planes, at
            the cost of a reverse pass for each class.
        num_steps: Steps of one restart, at least 1.
        num_restarts: Restarts, at least 1.
        norm: "linf" or "l2".
        lower: Lowest value an input may have.
        upper: Highest value an input may have.

    Returns:
        Adversarial inputs, within `epsilon` of `inputs` and in [lower, upper], detached.

    Raises:
        ValueError: `num_steps` or `num_restarts` below 1, inputs that are not floating, labels that are not one integer
            an example, an unknown norm, or a number for epsilon that is negative or (in L-infinity) above upper -
            lower.
    """
    geometry = check_task(norm, inputs, labels, epsilon=epsilon, lower=lower, upper=upper)
    epsilon = typed_as(inputs, epsilon)
    search = Search(logits_fn, labels, geometry, lower, upper, enough=epsilon)
    found = _search(search, inputs, targets, key, radius=epsilon, num_steps=num_steps, num_restarts=num_restarts)
    is_inside = found.distance <= epsilon
    if is_narrow(inputs):  # the distance is rounded too
        ends, middle, radius = in_one_precise_type(found.inputs, inputs, epsilon)
        is_inside &= geometry.length(ends - middle) <= radius
    return choose(is_inside, found.inputs, jax.lax.stop_gradient(inputs))


def minimal_perturbation(
    logits_fn: LogitsFn,
    inputs: Inputs,
    *,
    labels: Labels,
    key: PRNGKey,
    targets: Labels | None = None,
    restart_radius: Scalar = 0.3,
    num_steps: int = 100,
    num_restarts: int = 1,
    norm: NormName = "linf",
    lower: float = 0.0,
    upper: float = 1.0,
) -> MinimalPerturbation:
    """Search the nearest misclassified point of every example by the Fast Adaptive Boundary attack.

    Its distance is an upper bound of that to the decision boundary. Not jitted.

    Args:
        logits_fn: Network with its parameters bound, a batch to LOGITS; examples must not interact.
        inputs: Batch in [lower, upper].
        labels: True labels.
        key: Fixes the random starts of all restarts but the first, which begins at the inputs.
        targets: A class an example whose plane is stepped to; None for the nearest of all planes.
        restart_radius: Restarts begin at half of this distance, or of the smallest found so far.
        num_steps: Steps of one restart, at least 1.
        num_restarts: Restarts, at least 1.
        norm: "linf" or "l2".
        lower: Lowest value an input may have.
        upper: Highest value an input may have.

    Returns:
        Points and distances, detached.

    Raises:
        ValueError: `num_steps` or `num_restarts` below 1, inputs that are not floating, labels that are not one
            integer an example, or an unknown norm.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> logits_fn = lambda x: jnp.stack([x[:, 0] + x[:, 1], jnp.full(len(x), 0.9)], axis=1)
        >>> options = {"labels": jnp.array([0]), "key": jax.random.key(0)}
        >>> found = minimal_perturbation(logits_fn, jnp.array([[0.5, 0.6]]), **options)
        >>> round(float(found.distance[0]), 3)  # x1 + x2 must fall from 1.1 to 0.9
        0.1
    """
    geometry = check_task(norm, inputs, labels, epsilon=0.0, lower=lower, upper=upper)
    search = Search(logits_fn, labels, geometry, lower, upper, enough=0.0)
    return _search(search, inputs, targets, key, radius=restart_radius, num_steps=num_steps, num_restarts=num_restarts)


def _search(
    search: Search,
    inputs: Inputs,
    targets: Labels | None,
    key: PRNGKey,
    *,
    radius: Scalar,
    num_steps: int,
    num_restarts: int,
) -> MinimalPerturbation:
    """Run all restarts and the final search."""
    if num_steps < 1 or num_restarts < 1:
        raise ValueError(f"num_steps={num_steps}, num_restarts={num_restarts}: both must be at least 1")
    inputs, radius = jax.lax.stop_gradient(inputs), typed_as(inputs, radius)
    plane_fn = partial(nearest_plane, search) if targets is None else partial(target_plane, search, targets)

    def restart(index: Scalar, best: MinimalPerturbation) -> MinimalPerturbation:
        reach = jnp.where(index == 0, 0.0, jnp.minimum(best.distance, radius) / 2)
        starts = random_border_point(
            jax.random.fold_in(key, index),
            inputs,
            norm=search.norm,
            radius=reach,
            lower=search.lower,
            upper=search.upper,
        )
        return descend(search, plane_fn, num_steps, inputs, starts, best)

    wrong = predicted_labels(search.logits_fn, inputs) != search.labels
    unbeaten = MinimalPerturbation(inputs, jnp.where(wrong, 0.0, jnp.inf).astype(inputs.dtype))
    best = jax.lax.fori_loop(0, num_restarts, restart, unbeaten)
    return jax.lax.stop_gradient(final_search(search, inputs, best))
