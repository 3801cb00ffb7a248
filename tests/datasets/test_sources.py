"""Reading files: every spelling, the binary CIFAR-10, and what is refused and how."""

import gzip
import io
import struct
import tarfile

import numpy as np
import pytest

from jl1.datasets import sources
from jl1.errors import UserError

NAMES = sources._IDX_FILES
TRAIN_IMAGES, TRAIN_LABELS = NAMES[:2]


def idx_bytes(array):
    return bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def make_arrays(height=28, num_labels=6):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (2, 6, height, 28), np.uint8)
    labels = rng.integers(0, 10, (2, num_labels), np.uint8)
    return dict(zip(NAMES, (images[0], labels[0], images[1], labels[1]), strict=True))


def write_idx(folder, arrays):
    for name, array in arrays.items():
        (folder / name).write_bytes(idx_bytes(array))


def read(name, folder):
    return sources.read_files(name, sources.find_files(name, folder))


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("dotted", [False, True])
def test_every_spelling_reads_the_same(tmp_path, packed, dotted):
    arrays = make_arrays()
    for name, array in arrays.items():
        spelling = (name.replace("-idx", ".idx") if dotted else name) + (".gz" if packed else "")
        content = idx_bytes(array)
        (tmp_path / spelling).write_bytes(gzip.compress(content) if packed else content)
    records = read("mnist", tmp_path)
    assert records["is_test"].tolist() == [False] * 6 + [True] * 6
    for half, (images, labels) in zip((records[:6], records[6:]), (NAMES[:2], NAMES[2:]), strict=True):
        np.testing.assert_array_equal(half["image"][..., 0], arrays[images])
        np.testing.assert_array_equal(half["label"], arrays[labels])


def test_a_file_unpacked_under_its_packed_name_is_read(tmp_path):
    arrays = make_arrays()
    write_idx(tmp_path, arrays)
    (tmp_path / TRAIN_IMAGES).rename(tmp_path / f"{TRAIN_IMAGES}.gz")
    np.testing.assert_array_equal(read("kmnist", tmp_path)["image"][:6, ..., 0], arrays[TRAIN_IMAGES])


def test_a_missing_file_is_named_with_what_is_there(tmp_path):
    write_idx(tmp_path, make_arrays())
    (tmp_path / TRAIN_LABELS).rename(tmp_path / "labels")
    with pytest.raises(UserError) as refusal:
        read("mnist", tmp_path)
    assert str(refusal.value) == (
        f"{tmp_path} lacks train-labels-idx1-ubyte (raw or .gz) for mnist; "
        "it holds labels, t10k-images-idx3-ubyte, t10k-labels-idx1-ubyte, train-images-idx3-ubyte"
    )


def test_an_empty_folder_is_called_empty(tmp_path):
    with pytest.raises(UserError, match=r"lacks train-images-idx3-ubyte, train-labels-.*it holds nothing"):
        read("fashion_mnist", tmp_path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda content: content[:-1],
            "is truncated or damaged: its header promises 4,704 bytes, it holds 4,703",
        ),
        (lambda content: content + b"0", "is truncated or damaged: .* 4,704 bytes, it holds 4,705"),
        (lambda content: content[:9], "is truncated: it ends within its header"),
        (lambda content: content[:4] + bytes(12), "is truncated or damaged: its header promises 0 bytes"),
        (lambda content: b"", "no IDX file of images: it starts with 0x, not 0x00000803"),
        (lambda content: b"<html>", "no IDX file of images: it starts with 0x3c68746d, not 0x00000803"),
        (
            lambda content: idx_bytes(np.zeros(6, np.uint8)),
            "no IDX file of images: it starts with 0x00000801",
        ),
        (lambda content: gzip.compress(content)[:-9], "is damaged or unreadable: Compressed file ended"),
        (
            lambda content: gzip.compress(content)[:-8] + bytes(8),
            "is damaged or unreadable: CRC check failed",
        ),
        (lambda content: gzip.compress(content)[:10] + b"\xff" * 99, "is damaged or unreadable: "),
    ],
)
def test_a_damaged_file_is_named(tmp_path, damage, message):
    arrays = make_arrays()
    write_idx(tmp_path, arrays)
    (tmp_path / TRAIN_IMAGES).write_bytes(damage(idx_bytes(arrays[TRAIN_IMAGES])))
    with pytest.raises(UserError, match=message) as refusal:
        read("mnist", tmp_path)
    assert str(tmp_path / TRAIN_IMAGES) in str(refusal.value)


def test_a_header_that_promises_petabytes_is_refused_without_reading(tmp_path):
    write_idx(tmp_path, make_arrays())
    (tmp_path / TRAIN_IMAGES).write_bytes(bytes((0, 0, 8, 3)) + b"\xff" * 12)
    with pytest.raises(UserError, match="promises 79,228,162,458,924,105,385,300,197,375 bytes, it holds 0"):
        read("mnist", tmp_path)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (make_arrays(num_labels=5), "train-images-idx3-ubyte: 6 images, but 5 labels"),
        (make_arrays(height=32), "the images are 32 x 28, but those of mnist are 28 x 28 x 1"),
        (
            make_arrays() | {TRAIN_LABELS: np.array([0, 9, 3, 10, 1, 2], np.uint8)},
            "train-labels-idx1-ubyte: label number 3 is 10; mnist has 0 to 9",
        ),
    ],
)
def test_arrays_that_do_not_belong_are_refused(tmp_path, arrays, message):
    write_idx(tmp_path, arrays)
    with pytest.raises(UserError, match=message):
        read("mnist", tmp_path)


def cifar_batches(num=4):
    """Make six batches, with images whose pixels say where they are."""
    rng = np.random.default_rng(1)
    images, labels = (
        rng.integers(0, 256, (6, num, 32, 32, 3), np.uint8),
        rng.integers(0, 10, (6, num), np.uint8),
    )
    planes = images.transpose(0, 1, 4, 2, 3).reshape(6, num, -1)
    raw = np.concatenate([labels[..., None], planes], axis=-1)
    return (
        images,
        labels,
        dict(zip(sources._CIFAR_BATCHES, (batch.tobytes() for batch in raw), strict=True)),
    )


def write_archive(path, batches):
    with tarfile.open(path, "w:gz") as tar:
        for name, content in reversed(batches.items()):
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


@pytest.mark.parametrize("layout", ["archive", "here", "subfolder"])
def test_cifar_reads_from_its_archive_or_its_batches(tmp_path, layout):
    images, labels, batches = cifar_batches()
    if layout == "archive":
        write_archive(tmp_path / "cifar-10-binary.tar.gz", batches)
    else:
        folder = tmp_path if layout == "here" else tmp_path / "cifar-10-batches-bin"
        folder.mkdir(exist_ok=True)
        for name, content in batches.items():
            (folder / name).write_bytes(content)
    records = read("cifar10", tmp_path)
    np.testing.assert_array_equal(records["image"], images.reshape(-1, 32, 32, 3))
    np.testing.assert_array_equal(records["label"], labels.ravel())
    assert records["is_test"].tolist() == [False] * 20 + [True] * 4
    assert layout != "archive" or [path.name for path in tmp_path.iterdir()] == ["cifar-10-binary.tar.gz"]


def test_a_damaged_archive_is_named(tmp_path):
    archive, batches = tmp_path / "cifar-10-binary.tar.gz", cifar_batches()[2]
    write_archive(archive, batches)
    whole = archive.read_bytes()
    archive.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"cifar-10-binary.tar.gz is damaged or unreadable"):
        read("cifar10", tmp_path)
    write_archive(archive, {name: content for name, content in batches.items() if "_3" not in name})
    with pytest.raises(UserError, match=r"lacks data_batch_3.bin; jl1 reads the binary version of CIFAR-10"):
        read("cifar10", tmp_path)
    write_archive(archive, batches | {"test_batch.bin": batches["test_batch.bin"][:-1]})
    with pytest.raises(UserError, match=r"test_batch.bin is truncated: 12,291 bytes, no multiple of 3073"):
        read("cifar10", tmp_path)


def test_an_archive_cannot_write_or_point_outside(tmp_path):
    """A link in the archive is not followed: its batch counts as missing."""
    archive, batches = tmp_path / "cifar-10-binary.tar.gz", cifar_batches()[2]
    with tarfile.open(archive, "w:gz") as tar:
        for name, content in batches.items():
            member = tarfile.TarInfo(f"../../{name}")
            if name == "test_batch.bin":
                member.type, member.linkname = tarfile.SYMTYPE, "data_batch_1.bin"
                tar.addfile(member)
            else:
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    with pytest.raises(UserError, match=r"lacks test_batch.bin"):
        read("cifar10", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["cifar-10-binary.tar.gz"]
