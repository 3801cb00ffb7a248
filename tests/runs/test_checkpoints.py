"""Checkpoints: exact, refused for another model, and damaged ones passed over."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jl1.errors import UserError
from jl1.models import Dense, SequentialNet
from jl1.runs.checkpoints import Checkpoints, Snapshot
from jl1.training import create_train_state


@cache
def first_state():
    module = SequentialNet((Dense(64), Dense(32)))
    return create_train_state(module, optax.adam(1e-3), key=jax.random.key(0), inputs=jnp.zeros((1, 8, 8, 1)))


def make_snapshot(seed=0, num_classes=10, with_best=False):
    state = jax.tree.map(lambda leaf: leaf + seed, first_state())
    output = jax.tree.map(lambda leaf: leaf[..., :num_classes], state.params["output"])
    state = state._replace(params={**state.params, "output": output})
    return Snapshot(state, state.params if with_best else {})


def leaves(snapshot):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(snapshot)]


def write(folder, seeds):
    with Checkpoints(folder) as checkpoints:
        for epoch, seed in enumerate(seeds, start=1):
            checkpoints.save(epoch, make_snapshot(seed), {"accuracies": [0.5] * epoch})


def restore(folder, template=None):
    notices = []
    with Checkpoints(folder) as checkpoints:
        return checkpoints.restore(template or make_snapshot(), notices.append), notices


def array_files(folder, epoch):
    """The files that hold the arrays of one checkpoint, largest first."""
    files = (path for path in (folder / str(epoch) / "arrays").rglob("*") if path.is_file())
    return sorted(files, key=lambda path: -path.stat().st_size)


@pytest.mark.parametrize("with_best", [False, True])
def test_what_is_saved_comes_back_to_the_last_bit(tmp_path, with_best):
    saved = make_snapshot(seed=3, with_best=with_best)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, saved, {"accuracies": [0.25]})
    restored, _ = restore(tmp_path, make_snapshot(with_best=with_best))
    assert restored.epoch == 1
    assert restored.progress == {"accuracies": [0.25]}
    assert jax.tree.structure(restored.snapshot) == jax.tree.structure(saved)
    assert all(np.array_equal(a, b) for a, b in zip(leaves(saved), leaves(restored.snapshot), strict=True))


def test_the_newest_two_are_kept(tmp_path):
    write(tmp_path, seeds=(1, 2, 3))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["2", "3"]
    assert restore(tmp_path)[0].epoch == 3


def test_an_empty_folder_has_none(tmp_path):
    assert restore(tmp_path) == (None, [])


@pytest.mark.parametrize("damage", ["truncate", "flip", "remove", "description"])
def test_a_damaged_checkpoint_is_passed_over_and_said_so(tmp_path, damage):
    write(tmp_path, seeds=(1, 2))
    file = array_files(tmp_path, 2)[0]
    if damage == "truncate":
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    elif damage == "flip":
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 0xFF
        file.write_bytes(content)
    elif damage == "remove":
        file.unlink()
    else:
        (tmp_path / "2" / "description" / "metadata").write_text("{")
    restored, notices = restore(tmp_path)
    assert restored.epoch == 1
    assert all(np.array_equal(a, b) for a, b in zip(leaves(make_snapshot(1)), leaves(restored.snapshot), strict=True))
    assert len(notices) == 1
    assert "checkpoint of epoch 2 is damaged" in notices[0]


def test_a_damaged_checkpoint_is_left_until_its_epoch_is_saved_again(tmp_path):
    """A disk that fails for a moment looks like damage."""
    write(tmp_path, seeds=(1, 2))
    file = array_files(tmp_path, 2)[0]
    hidden = file.rename(tmp_path / "hidden")
    assert restore(tmp_path)[0].epoch == 1
    hidden.rename(file)
    assert restore(tmp_path)[0].epoch == 2
    file.unlink()
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.restore(make_snapshot(), lambda _: None)
        checkpoints.save(2, make_snapshot(7), {})
    restored, notices = restore(tmp_path)
    assert (restored.epoch, notices) == (2, [])
    assert all(np.array_equal(a, b) for a, b in zip(leaves(make_snapshot(7)), leaves(restored.snapshot), strict=True))


def test_all_damaged_is_an_error_that_says_what_to_do(tmp_path):
    write(tmp_path, seeds=(1, 2))
    for epoch in (1, 2):
        array_files(tmp_path, epoch)[0].unlink()
    with pytest.raises(UserError, match=r"all checkpoints in .* are damaged: move the run away"):
        restore(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "2"]


def test_another_models_checkpoint_is_refused_with_the_first_difference(tmp_path):
    write(tmp_path, seeds=(1,))
    with pytest.raises(UserError, match=r"is of another model: .*output.* is float32\[10\] there and float32\[7\]"):
        restore(tmp_path, make_snapshot(num_classes=7))
