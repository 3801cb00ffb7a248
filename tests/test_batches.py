"""Measures over all examples: no example dropped, twice or moved."""

import jax
import numpy as np
import pytest

from jl1.batches import measure


@pytest.mark.parametrize("batch_size", [1, 4, 10, 99])
def test_every_example_has_its_row_in_every_array(batch_size):
    step = lambda params, inputs, labels: {"sum": inputs.sum(1) + params, "pair": (labels, inputs)}  # noqa: E731
    inputs, labels = np.arange(20.0).reshape(10, 2), np.arange(10)
    values = measure(step, 1.0, inputs=inputs, labels=labels, batch_size=batch_size)
    np.testing.assert_array_equal(values["sum"], inputs.sum(1) + 1)
    np.testing.assert_array_equal(values["pair"][0], labels)
    np.testing.assert_array_equal(values["pair"][1], inputs)
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(values))


def test_nothing_to_measure_is_refused():
    with pytest.raises(ValueError, match="0 examples"):
        measure(lambda *_: None, 1.0, inputs=np.zeros((0, 2)), labels=np.zeros(0, int))
