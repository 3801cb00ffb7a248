"""Problems of 100 and 1,000 classes: what an image shows, even classes, no image in two splits, the same every time."""

import numpy as np
import pytest

from jl1.data import load_dataset
from jl1.datasets.tiles import num_classes_of, tile_records
from jl1.errors import UserError


def make_records(num, *, missing=None):
    """Make images of 2 x 3 pixels, each all of one grey that tells it from the others, of digits in turn."""
    records = np.zeros(num, [("image", np.uint8, (2, 3, 1)), ("label", np.uint8), ("is_test", bool)])
    records["image"] = np.arange(num)[:, None, None, None]
    records["label"] = [label for label in np.arange(2 * num) % 10 if label != missing][:num]
    return records


@pytest.mark.parametrize(("tiles", "num"), [(2, 100), (3, 1000)])
def test_the_class_is_the_number_that_the_images_show_from_left_to_right(tiles, num):
    records = make_records(100)
    tiled = tile_records(records, tiles, least=1, stream=0, where="here")
    assert tiled["image"].shape == (num, 2, 3 * tiles, 1)
    np.testing.assert_array_equal(np.sort(tiled["label"]), np.arange(num_classes_of(tiles)))
    greys = tiled["image"][:, :, ::3, 0]
    np.testing.assert_array_equal(tiled["image"][..., 0], np.repeat(greys, 3, axis=2))  # each place is one whole image
    digits = records["label"][greys[:, 0]]
    np.testing.assert_array_equal(digits @ 10 ** np.arange(tiles)[::-1], tiled["label"])


def test_classes_come_equally_often_and_images_of_a_digit_too():
    tiled = tile_records(make_records(250), 2, least=3, stream=0, where="here")
    labels = tiled["label"].reshape(3, 100)
    np.testing.assert_array_equal(np.sort(labels), np.tile(np.arange(100), (3, 1)))
    assert not np.array_equal(labels[0], labels[1])
    for place in (0, 3):
        counts = np.bincount(tiled["image"][:, 0, place, 0], minlength=250)
        assert (counts.min(), counts.max()) == (1, 2)  # 30 of a digit in 25 images


def test_where_there_are_many_images_there_are_as_many_pairs():
    assert len(tile_records(make_records(250), 2, least=1, stream=0, where="here")) == 200


def test_another_stream_is_another_order_and_the_same_one_the_same():
    one, again, other = (
        tile_records(make_records(40), 2, least=1, stream=stream, where="here") for stream in (0, 0, 1)
    )
    np.testing.assert_array_equal(one, again)
    assert not np.array_equal(one["label"], other["label"])


def test_one_tile_is_the_data_as_they_are():
    records = make_records(10)
    assert tile_records(records, 1, least=20, stream=0, where="here") is records


def test_an_empty_split_stays_empty_and_a_class_without_images_is_refused():
    assert tile_records(make_records(0), 3, least=1, stream=0, where="here")["image"].shape == (0, 2, 9, 1)
    with pytest.raises(UserError, match="the test set of x has no image of class 4: not every pair can be made"):
        tile_records(make_records(30, missing=4), 2, least=1, stream=0, where="the test set of x")


@pytest.mark.parametrize(("tiles", "sizes"), [(2, [4000, 500, 500]), (3, [20_000, 1000, 1000])])
def test_real_digits_make_100_and_1000_classes_and_no_split_has_anothers_images(tiles, sizes):
    single, tiled = load_dataset("mnist_5k"), load_dataset("mnist_5k", tiles=tiles)
    assert [len(part.labels) for part in tiled[1:4]] == sizes
    assert (tiled.num_classes, tiled.train.inputs.shape[1:]) == (10**tiles, (28, 28 * tiles, 1))
    assert (tiled.fingerprint, tiled.source) == (single.fingerprint, f"{tiles} side by side out of {single.source}")
    own = {
        part: {image.tobytes() for image in getattr(single, part).inputs} for part in ("train", "validation", "test")
    }
    for part, images in own.items():
        tiles_of = getattr(tiled, part).inputs.reshape(-1, 28, tiles, 28).transpose(0, 2, 1, 3)[:200].reshape(-1, 784)
        assert {tile.tobytes() for tile in np.ascontiguousarray(tiles_of)} <= images
        assert not any(images & own[other] for other in own if other != part)


def test_another_number_of_tiles_is_refused():
    with pytest.raises(UserError, match="tiles is 4; it must be 1 to 3"):
        load_dataset("mnist_5k", tiles=4)
