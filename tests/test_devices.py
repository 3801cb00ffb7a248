"""Batches shared by devices: here what one device can show, and `eight_devices.py` in a process that has eight."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jl1.devices import Devices
from jl1.shares import Share, draw_rows, one_share


@pytest.mark.parametrize("which", ["not slow", pytest.param("slow", marks=pytest.mark.slow)])
def test_eight_devices_do_as_one(which):
    """The tests of `eight_devices.py`; what fails there is shown."""
    command = [sys.executable, "-m", "pytest", "-q", "-m", which, "-p", "no:cacheprovider", "-p", "no:xdist"]
    ended = subprocess.run(
        [*command, str(Path(__file__).with_name("eight_devices.py"))],
        cwd=Path(__file__).parents[1],
        env=os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=8", "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout[-6000:] + ended.stderr[-2000:]


def test_one_device_changes_nothing():
    def step(params, inputs, labels):
        return inputs

    devices, tree, batches = Devices.one(), {"a": jnp.ones(2)}, np.arange(6).reshape(2, 3)
    assert devices.count == 1
    assert devices.replicate(tree) is tree
    assert devices.fetch(tree) is tree
    assert devices.share_rows(step) is step
    assert devices.share_gradient(step, batch_size=3) is step
    assert np.array_equal(devices.fill(batches), batches)


def test_what_jit_traced_for_one_share_is_not_taken_for_another():
    key = jax.random.key(0)

    @jax.jit
    def draw():
        return draw_rows(lambda num_rows: jax.random.uniform(key, (2, num_rows)), 3, axis=1)

    mapped = jax.vmap(lambda _: draw(), axis_name="data", axis_size=2, in_axes=None)
    for batch_size in (5, 6):
        whole = jax.random.uniform(key, (2, batch_size))
        with one_share(Share("data", 2, batch_size)):
            first, second = mapped(0)
        assert np.array_equal(np.concatenate([first, second], axis=1)[:, :batch_size], whole)
    assert np.array_equal(draw(), jax.random.uniform(key, (2, 3)))


def test_rows_that_are_no_share_are_refused():
    with one_share(Share("data", 2, 6)), pytest.raises(ValueError, match=r"4 rows .* share of the batch has 3"):
        draw_rows(lambda num_rows: jnp.zeros(num_rows), 4)
