"""Problems of 100 and of 1,000 classes out of real images: two or three of them side by side, read as one number."""

from collections.abc import Iterable

import numpy as np

from jl1.datasets.sources import NUM_CLASSES
from jl1.errors import UserError

MOST_TILES = 3
_LEAST = {"training": 20, "validation": 1, "test": 1}
"""Images of a class that are made at least: from 4,000 digits for 1,000 classes, each digit is in fifteen."""
_NUMBERS = {1: "image", 2: "pair", 3: "triple"}


def num_classes_of(tiles: int) -> int:
    """Give the number of classes of images that are made of so many: 10, 100, 1,000."""
    return NUM_CLASSES**tiles


def tiled_name(name: str, tiles: int) -> str:
    """Name a data set by how many of its images make one.

    Example:
        >>> tiled_name("mnist", 1), tiled_name("mnist", 3)
        ('mnist', 'mnist_x3')
    """
    return f"{name}_x{tiles}" if tiles > 1 else name


def tile_splits(splits: Iterable[np.ndarray], tiles: int, name: str) -> list[np.ndarray]:
    """Make the training, validation and test set of a problem out of those of a dataset; see `tile_records`."""
    if not 1 <= tiles <= MOST_TILES:
        raise UserError(f"tiles is {tiles}; it must be 1 to {MOST_TILES}")
    return [
        tile_records(records, tiles, least=least, stream=stream, where=f"the {part} set of {name}")
        for stream, (records, (part, least)) in enumerate(zip(splits, _LEAST.items(), strict=True))
    ]


def tile_records(records: np.ndarray, tiles: int, *, least: int, stream: int, where: str) -> np.ndarray:
    """Make images of several ones side by side; the class 407 shows a 4, a 0 and a 7, from left to right.

    Every class comes equally often, in a new order each time round, and every image of a digit about equally often in
    every place. Nothing depends on the seed of a run: all runs see the same problem.

    Args:
        records: The images of one split, from `sources`. No other image is used, so what is made of different
            splits shares none.
        tiles: How many side by side, 1 to `MOST_TILES`; 1 gives the records as they are.
        least: Images of each class, at least; more where there are more images than that needs.
        stream: Number of the random stream, another one for each split.
        where: What the records are, for messages.

    Returns:
        Records with `image`, of `tiles` times the width, and `label`.

    Raises:
        UserError: A class has no image, so that not every combination can be made.
    """
    if tiles == 1 or len(records) == 0:
        return records if tiles == 1 else np.empty(0, _tiled_dtype(records, tiles))
    by_digit = [np.flatnonzero(records["label"] == digit) for digit in range(NUM_CLASSES)]
    if missing := [digit for digit, rows in enumerate(by_digit) if len(rows) == 0]:
        raise UserError(f"{where} has no image of class {missing[0]}: not every {_NUMBERS[tiles]} can be made of it")
    rng, num_classes = np.random.default_rng([tiles, stream]), num_classes_of(tiles)
    rounds = max(least, len(records) // num_classes)
    labels = np.concatenate([rng.permutation(num_classes) for _ in range(rounds)])
    tiled = np.empty(len(labels), _tiled_dtype(records, tiles))
    tiled["label"] = labels
    width = records["image"].shape[2]
    for place in range(tiles):
        digits = labels // NUM_CLASSES ** (tiles - 1 - place) % NUM_CLASSES
        rows = _draw(rng, digits, by_digit)
        tiled["image"][:, :, place * width : (place + 1) * width] = records["image"][rows]
    return tiled


def _draw(rng: np.random.Generator, digits: np.ndarray, by_digit: list[np.ndarray]) -> np.ndarray:
    """Choose an image of every digit: all images of a digit in random order, then all again in another."""
    rows = np.empty(len(digits), int)
    for digit, images in enumerate(by_digit):
        places = np.flatnonzero(digits == digit)
        rounds = -(-len(places) // len(images))
        rows[places] = np.concatenate([rng.permutation(images) for _ in range(rounds)])[: len(places)]
    return rows


def _tiled_dtype(records: np.ndarray, tiles: int) -> np.dtype:
    """Give the type of a record of several images."""
    height, width, channels = records.dtype["image"].shape
    return np.dtype([("image", np.uint8, (height, tiles * width, channels)), ("label", np.uint16)])
