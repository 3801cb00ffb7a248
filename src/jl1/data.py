"""Datasets as NumPy arrays: one call, the same images on every route, decoded once.

Loading never downloads; `prepare_dataset` does. Both leave a decoded copy in the cache folder (JL1_CACHE_DIR,
else $XDG_CACHE_HOME/jl1, else ~/.cache/jl1) under a name made from the content of its source.
"""

import os
from typing import NamedTuple

import numpy as np

from jl1.datasets import prepared, sources
from jl1.datasets.places import locate, read_place
from jl1.datasets.sources import EMBEDDED
from jl1.datasets.tiles import num_classes_of, tile_splits
from jl1.errors import UserError, did_you_mean

DATASETS = tuple(sources.IMAGE_SHAPES)
_SPLITS = ("official", "random")


POINTS = ("test", "validation")
"""Names of what is judged by: `Dataset.points`."""


class Split(NamedTuple):
    """Images and their classes.

    Attributes:
        inputs: float32 in [0, 1], `[n, height, width, channels]`.
        labels: int32 in 0 to num_classes - 1, `[n]`.
    """

    inputs: np.ndarray
    labels: np.ndarray


class Dataset(NamedTuple):
    """A dataset in memory.

    Attributes:
        name: one of `DATASETS`.
        train: what is trained on.
        validation: what choices are made by; held out of the official training set.
        test: the official test set.
        num_classes: number of classes.
        fingerprint: SHA-256 of all decoded images and labels in official order, in hexadecimal. It does not
            depend on the route or on the validation split.
        source: where the data came from, for people.
    """

    name: str
    train: Split
    validation: Split
    test: Split
    num_classes: int
    fingerprint: str
    source: str

    def points(self, name: str) -> Split:
        """Return what is judged by: `validation` or `test`."""
        return {"validation": self.validation, "test": self.test}[name]


def load_dataset(
    name: str,
    *,
    data_dir: str | os.PathLike[str] | None = None,
    validation_size: int = 5000,
    split: str = "official",
    split_seed: int = 0,
    tiles: int = 1,
) -> Dataset:
    """Load a dataset from local files, from prepared data or from an installed package; never download.

    The split means the same images on every route. `mnist_5k` is always split 4,000 / 500 / 500: the first
    400, next 50 and last 50 of each class, interleaved by class, so any prefix is balanced; the arguments
    of the split are checked, but not used for it.

    Args:
        name: one of `DATASETS`.
        data_dir: folder with the dataset's own files (four IDX files, raw or .gz; for `cifar10` the binary
            archive or its batches), or with a tensorflow-datasets preparation in array_record. None or empty:
            what `prepare_dataset` or tensorflow-datasets has prepared on this machine.
        validation_size: number of training images to hold out, 0 or more.
        split: `official` holds out the last images of the training set, `random` a random choice of them.
        split_seed: seed of that choice, 0 or more.
        tiles: images side by side that make one (`datasets.tiles`): 2 make 100 classes, 3 make 1,000.

    Returns:
        The dataset, inputs as float32 in [0, 1].

    Raises:
        UserError: An unknown name or split, missing or damaged data, those of another
            data set, a validation set that does not fit.

    Example:
        >>> dataset = load_dataset("mnist_5k")
        >>> dataset.train.inputs.shape, dataset.validation.labels[:10].tolist()
        ((4000, 28, 28, 1), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
    """
    _check_choice("dataset", name, DATASETS)
    _check_choice("split", split, _SPLITS)
    _check_at_least("validation_size", validation_size, 0)
    _check_at_least("split_seed", split_seed, 0)
    if name == EMBEDDED:
        validation_size, split = 500, "official"
    place = locate(name, data_dir)
    records, fingerprint = read_place(name, place)
    num_train = int(np.sum(~records["is_test"]))
    if validation_size >= num_train:
        raise UserError(
            f"validation_size is {validation_size:,}, but the training set of {name} has {num_train:,} images"
        )
    held_out = np.arange(num_train) >= num_train - validation_size
    if split == "random":
        held_out = np.random.default_rng(split_seed).permutation(held_out)
    splits = (records[:num_train][~held_out], records[:num_train][held_out], records[num_train:])
    train, validation, test = (_to_split(part) for part in tile_splits(splits, tiles, name))
    return Dataset(
        name=name,
        train=train,
        validation=validation,
        test=test,
        num_classes=num_classes_of(tiles),
        fingerprint=fingerprint,
        source=place.text if tiles == 1 else f"{tiles} side by side out of {place.text}",
    )


def prepare_dataset(name: str, *, data_dir: str | os.PathLike[str] | None = None) -> str:
    """Do the slow part once: download where needed, check, decode, and keep the decoded copy.

    Args:
        name: one of `DATASETS`.
        data_dir: as in `load_dataset`; nothing is downloaded where it is given.

    Returns:
        A sentence on what is there now.

    Raises:
        UserError: As `load_dataset`, or the download failed; without a network it says so within seconds.
    """
    _check_choice("dataset", name, DATASETS)
    roots = prepared.prepared_roots()
    if name != EMBEDDED and not data_dir and prepared.find_prepared(name, roots) is None:
        prepared.download_and_prepare(name, roots[0])
    place = locate(name, data_dir)
    records, _ = read_place(name, place)
    num_test = int(np.sum(records["is_test"]))
    return f"{name}: {len(records) - num_test:,} training and {num_test:,} test images from {place.text}, ready"


def epoch_indices(num_examples: int, batch_size: int, *, seed: int, epoch: int) -> np.ndarray:
    """Draw the order of one epoch; it depends on the seed and the epoch alone, so a resumed run repeats it.

    Args:
        num_examples: number of training examples.
        batch_size: examples a batch, 1 to `num_examples`.
        seed: seed of the run's order, 0 or more.
        epoch: number of the epoch, 0 or more.

    Returns:
        int32 `[num_batches, batch_size]`: each example once, then -1 up to the end of the last batch.
        Places with -1 are to be masked: nothing is dropped and nothing is seen twice.

    Raises:
        UserError: A batch that is empty or larger than the data, a negative seed or epoch.

    Example:
        >>> epoch_indices(5, 2, seed=0, epoch=0).shape
        (3, 2)
    """
    _check_at_least("batch_size", batch_size, 1)
    _check_at_least("seed", seed, 0)
    _check_at_least("epoch", epoch, 0)
    if batch_size > num_examples:
        raise UserError(f"batch_size is {batch_size:,}, but there are only {num_examples:,} examples")
    order = np.full(-(-num_examples // batch_size) * batch_size, -1, np.int32)
    order[:num_examples] = np.random.default_rng([seed, epoch]).permutation(num_examples)
    return order.reshape(-1, batch_size)


def _check_choice(what: str, given: str, allowed: tuple[str, ...]) -> None:
    """Refuse an unknown name, with the list and the nearest one."""
    if given in allowed:
        return
    hint = did_you_mean(str(given), allowed)
    raise UserError(f"unknown {what} {given!r}: choose from {', '.join(allowed)}{hint}")


def _check_at_least(what: str, given: int, least: int) -> None:
    """Refuse a number below its range."""
    if given < least:
        raise UserError(f"{what} is {given}; it must be {least} or more")


def _to_split(records: np.ndarray) -> Split:
    """Scale bytes to [0, 1]."""
    return Split(np.divide(records["image"], 255, dtype=np.float32), records["label"].astype(np.int32))
