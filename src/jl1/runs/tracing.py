"""A few fixed points followed through training: what trace.jsonl says of each epoch (Fig. 1)."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jl1.array_types import ApplyFn, Params
from jl1.config import Config
from jl1.data import Dataset
from jl1.end_points import EndPoints, make_trace_step

UNTRAINED_RADIUS = 0.1
"""Radius of the twins where training has none."""


def make_trace_fn(config: Config, data: Dataset, apply_fn: ApplyFn) -> Callable[[Params], dict[str, Any]] | None:
    """Make the function that measures the traced points; it compiles once, at its first call.

    Args:
        config: Says how many points, and the radius in training.
        data: The points are the first of its validation set, so that nothing looks at the test set.
        apply_fn: The network.

    Returns:
        Function of the parameters to a line of trace.jsonl but its epoch, or None if no point is traced.
    """
    num_points = config.log.traced_points
    if num_points == 0:
        return None
    inputs, labels = (jnp.asarray(part[:num_points]) for part in data.validation)
    epsilon = float(config.adversarial.epsilon) or UNTRAINED_RADIUS
    step = make_trace_step(apply_fn)

    def trace(params: Params) -> dict[str, Any]:
        measured = jax.device_get(step(params, inputs, labels, epsilon))
        values = {name: _plain(ends) for name, ends in measured.items()}
        return {"epsilon": epsilon, "labels": np.asarray(labels).tolist(), **values}

    return trace


def _plain(ends: EndPoints) -> dict[str, Any]:
    """Return lists of numbers, each with as many digits as float32 has."""
    shortest = np.vectorize(lambda value: float(str(value)), otypes=[float])
    return {name: shortest(values).tolist() for name, values in ends._asdict().items()}
