"""Pixels from tensorflow-datasets, without TensorFlow: thin builders over the stock ones, and their folders.

The stock builders of tensorflow-datasets (tfds) give addresses, checksums and features; the steps that need
TensorFlow are replaced by jl1's own readers. A folder prepared here reads like one prepared by stock tfds.
"""

import hashlib
import io
import json
import os
import threading
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from jl1.datasets.cache import cache_folder
from jl1.datasets.sources import EMBEDDED, make_records, read_files
from jl1.errors import UserError

_PROBE_SECONDS = 3.0
_CLASS_FIELDS = {"type", "pythonClassName", "python_class_name"}
_OWN_FEATURES = "tensorflow_datasets.core.features."


def prepared_roots() -> list[Path]:
    """List the folders of prepared data: jl1's own, where it writes, and that of tfds."""
    stock = os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    return [cache_folder() / "tensorflow_datasets", Path(stock).expanduser()]


def find_prepared(name: str, folders: Iterable[Path]) -> Path | None:
    """Find a preparation that can be read without TensorFlow: the newest in the first folder with one.

    A folder may be the preparation itself, all versions of one dataset, or the folder of all datasets.
    """
    patterns = ("dataset_info.json", "*/dataset_info.json", f"{name}/*/dataset_info.json")
    for folder in folders:
        infos = [info for pattern in patterns for info in folder.glob(pattern) if _is_readable(name, info)]
        if infos:
            return max((info.parent for info in infos), key=lambda prepared: (_version(prepared), prepared))
    return None


def read_prepared(name: str, folder: Path) -> np.ndarray:
    """Read a prepared folder into records, with the shuffle of tfds undone."""
    import tensorflow_datasets as tfds

    try:
        _refuse_foreign_classes(folder / "features.json")
        builder = tfds.builder_from_directory(os.fspath(folder))
        return np.concatenate([_read_split(name, builder, split) for split in ("train", "test")])
    except Exception as error:  # tfds, array_record and PIL each raise their own on a damaged folder
        raise UserError(
            f"cannot read the prepared data in {folder} ({error}); delete that folder and prepare again"
        ) from error


def download_and_prepare(name: str, root: Path) -> None:
    """Download a dataset, checked against the checksums that tfds carries, and prepare it under `root`."""
    import tensorflow_datasets as tfds

    builder = make_builder(name, root)
    url = next(iter(builder.url_infos))
    if not _is_reachable(url):
        raise UserError(f"cannot download {name}: no answer from {url}. {offline_choices(name)}")
    config = tfds.download.DownloadConfig(force_checksums_validation=True)
    try:
        builder.download_and_prepare(download_config=config)
    except Exception as error:  # tfds raises bare Exceptions for refused downloads and wrong checksums
        raise UserError(f"preparing {name} failed: {error}. {offline_choices(name)}") from error


def offline_choices(name: str) -> str:
    """Say what can be done where a dataset is not there."""
    files = "its binary archive" if name == "cifar10" else "its four IDX files"
    return (
        f"The choices: `jl1 prepare --config.data.name={name}` on a machine with network; "
        f"--config.data.dir=DIR, a folder with {files}; --config.data.name={EMBEDDED}, which needs neither"
    )


def make_builder(name: str, root: Path) -> Any:  # tfds has no type for a builder made at run time
    """Make the stock builder of a dataset with the steps replaced that need TensorFlow."""
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core import registered

    dataset = name
    stock: Any = tfds.builder_cls(name)

    with registered.skip_registration():

        class Builder(stock):
            name = dataset
            # tfds looks for checksums beside the file of the class; without this line, nothing is checked.
            url_infos = stock.url_infos

            def _split_generators(self, dl_manager: Any) -> dict[str, Iterator]:
                urls = {url.rpartition("/")[2].removesuffix(".gz"): url for url in self.url_infos}
                paths = {stem: Path(path) for stem, path in dl_manager.download(urls).items()}
                records = read_files(dataset, paths)
                is_test = records["is_test"]
                halves = {"train": records[~is_test], "test": records[is_test]}
                return {split: self._generate_examples(split, half) for split, half in halves.items()}

            def _generate_examples(self, split: str, records: np.ndarray) -> Iterator[tuple[int, dict]]:
                yield from _examples(split, records, with_id="id" in self.info.features)

    return Builder(data_dir=os.fspath(root), file_format="array_record")


def _md5(text: str) -> bytes:
    """Hash a key as tfds does."""
    return hashlib.md5(text.encode(), usedforsecurity=False).digest()


def _examples(split: str, records: np.ndarray, *, with_id: bool) -> Iterator[tuple[int, dict]]:
    """Give examples as the stock builders do, with the same keys, which decide their order on disk."""
    from PIL import Image  # tfds encodes PIL images without TensorFlow, but arrays with it

    for index, record in enumerate(records):
        example = {"image": Image.fromarray(record["image"].squeeze()), "label": int(record["label"])}
        yield index, example | ({"id": f"{split}_{index:05d}"} if with_id else {})


def _read_split(name: str, builder: Any, split: str) -> np.ndarray:
    """Read a prepared split in the order of its keys 0, 1, ..., which is the official order."""
    import tensorflow_datasets as tfds
    from PIL import Image

    source = builder.as_data_source(split=split, decoders={"image": tfds.decode.SkipDecoding()})
    examples = source.__getitems__(range(len(source)))
    images = np.stack([np.asarray(Image.open(io.BytesIO(example["image"]))) for example in examples])
    labels = np.array([example["label"] for example in examples])
    num_train = len(images) if split == "train" else 0
    shuffled = make_records(name, images, labels, num_train=num_train, where=split)
    # Records stand on disk by the MD5 of the split's name and the key. Written out, not taken from tfds:
    # data on disk would not change with it.
    order = sorted(range(len(images)), key=lambda key: _md5(f"{split}{key}"))
    restored = np.empty_like(shuffled)
    restored[order] = shuffled
    return restored


def _refuse_foreign_classes(description: Path) -> None:
    """Let through only tfds's own features: it imports, and so runs, whatever module a description names."""

    def check(fields: dict[str, Any]) -> dict[str, Any]:
        for field in _CLASS_FIELDS & fields.keys():
            if not str(fields[field]).startswith(_OWN_FEATURES):
                raise ValueError(f"{description.name} names {fields[field]}, which is no feature of tfds")
        return fields

    json.loads(description.read_text(), object_hook=check)


def _version(prepared: Path) -> list[int]:
    """Return the numbers of a version such as 3.0.10, the name of its folder; none if it has another name."""
    parts = prepared.name.split(".")
    return [int(part) for part in parts] if all(part.isdecimal() for part in parts) else []


def _is_readable(name: str, info: Path) -> bool:
    """Tell whether a dataset_info.json is of this dataset, in the one format that needs no TensorFlow."""
    try:
        fields = json.loads(info.read_text())
    except (OSError, ValueError):
        return False
    return isinstance(fields, dict) and (fields.get("name"), fields.get("fileFormat")) == (name, "array_record")


def _is_reachable(url: str) -> bool:
    """Ask once and quickly: offline, tfds itself gives up only after some 200 seconds of retries."""
    answers = []

    def ask() -> None:
        request = urllib.request.Request(url, method="HEAD")  # noqa: S310 (of the stock builder, http or https)
        try:
            urllib.request.urlopen(request, timeout=_PROBE_SECONDS).close()  # noqa: S310 (its answer is not read)
        except urllib.error.HTTPError as error:  # refused, but somebody is there
            error.close()
        except OSError:
            return
        answers.append(True)

    # In a thread, since the timeout does not cover a silent name server.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(_PROBE_SECONDS)
    return bool(answers)
