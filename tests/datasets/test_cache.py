"""The decoded copy: used when sound, made again when not, never in the way."""

import logging

import numpy as np
import pytest

from jl1 import atomic_files
from jl1.datasets import cache
from jl1.datasets.sources import record_dtype


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path):
    monkeypatch.setenv("JL1_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def records():
    rng = np.random.default_rng(0)
    some = np.zeros(20, record_dtype("mnist"))
    some["image"], some["label"] = rng.integers(0, 256, some["image"].shape), rng.integers(0, 10, 20)
    return some


def test_a_sound_copy_is_not_decoded_again(records):
    first, digest = cache.load_or_decode("mnist", "key", lambda: records)
    second, same = cache.load_or_decode("mnist", "key", lambda: pytest.fail("decoded again"))
    assert first.tobytes() == second.tobytes() == records.tobytes()
    assert digest == same


def test_another_key_is_another_copy(records, folder):
    changed = records.copy()
    changed["label"][0] += 1
    _, digest = cache.load_or_decode("mnist", "key", lambda: records)
    loaded, other = cache.load_or_decode("mnist", "other key", lambda: changed)
    assert loaded.tobytes() == changed.tobytes()
    assert digest != other
    assert len(list(folder.glob("*.npy"))) == 2


@pytest.mark.parametrize("damage", ["a byte", "the end", "all", "pickle", "number", "checksum", "no checksum"])
def test_a_damaged_copy_is_decoded_again(records, folder, damage, caplog):
    cache.load_or_decode("mnist", "key", lambda: records)
    (copy,), (checksum,) = folder.glob("*.npy"), folder.glob("*.sha256")
    sound = copy.read_bytes()
    contents = {
        "a byte": sound[:999] + bytes([sound[999] ^ 1]) + sound[1000:],
        "the end": sound[:999],
        "all": b"",
    }
    if damage in contents:
        copy.write_bytes(contents[damage])
    elif damage in ("pickle", "number"):
        np.save(copy, np.array([{}], object) if damage == "pickle" else np.float64(1), allow_pickle=True)
    elif damage == "checksum":
        checksum.write_bytes(b"\xff")
    else:
        checksum.unlink()
    with caplog.at_level(logging.INFO):
        loaded, _ = cache.load_or_decode("mnist", "key", lambda: records)
    assert loaded.tobytes() == records.tobytes()
    assert copy.read_bytes() == sound
    assert ("damaged" in caplog.text) == (damage != "no checksum")
    assert sorted(path.suffix for path in folder.iterdir()) == [".npy", ".sha256"]


def test_no_room_for_a_copy_is_no_reason_to_stop(records, folder, caplog):
    folder.write_text("a file where the folder should be")
    loaded, _ = cache.load_or_decode("mnist", "key", lambda: records)
    assert loaded.tobytes() == records.tobytes()
    assert "Cannot keep" in caplog.text


def test_a_write_that_fails_leaves_nothing_behind(folder):
    def fail(file):
        file.write(b"half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        atomic_files.write_atomically(folder / "file", fail)
    assert list(folder.iterdir()) == []


def test_the_folder_follows_the_environment(monkeypatch, tmp_path):
    assert cache.cache_folder() == tmp_path / "cache"
    monkeypatch.delenv("JL1_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache.cache_folder() == tmp_path / "xdg" / "jl1"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache.cache_folder() == tmp_path / ".cache" / "jl1"
