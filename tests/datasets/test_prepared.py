"""Through tensorflow-datasets, without TensorFlow: downloads from a local server, checksums, order."""

import functools
import gzip
import hashlib
import http.server
import io
import struct
import sys
import tarfile
import threading
import time

import numpy as np
import pytest

from jl1 import data
from jl1.datasets import cache, prepared
from jl1.errors import UserError

IDX_FILES = [f"{half}-{what}-ubyte.gz" for half in ("train", "t10k") for what in ("images-idx3", "labels-idx1")]


@pytest.fixture(autouse=True)
def _own_folders(monkeypatch, tmp_path):
    """Keep tests out of the home folder, and TensorFlow out of the process."""
    monkeypatch.setenv("JL1_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    yield
    assert "tensorflow" not in sys.modules


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def site(tmp_path):
    """Serve a folder; give the folder and its address."""
    folder = tmp_path / "site"
    folder.mkdir()
    handler = functools.partial(QuietHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=[0.05], daemon=True).start()
        yield folder, f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def write_mnist(folder):
    rng = np.random.default_rng(0)
    for name in IDX_FILES:
        num = 60 if name.startswith("train") else 20
        shape, top = ((num, 28, 28), 256) if "images" in name else ((num,), 10)
        header = bytes((0, 0, 8, len(shape))) + struct.pack(f">{len(shape)}I", *shape)
        content = header + rng.integers(0, top, shape, np.uint8).tobytes()
        (folder / name).write_bytes(gzip.compress(content))


def write_cifar10(folder):
    rng = np.random.default_rng(0)
    with tarfile.open(folder / "cifar-10-binary.tar.gz", "w:gz") as tar:
        for name in [f"data_batch_{i}.bin" for i in range(1, 6)] + ["test_batch.bin"]:
            raw = rng.integers(0, 256, (12, 3073), np.uint8)
            raw[:, 0] %= 10
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            member.size = raw.size
            tar.addfile(member, io.BytesIO(raw.tobytes()))


def point_at(monkeypatch, name, folder, address):
    """Let the stock builder of a dataset name files on our server, with their checksums."""
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.download.checksums import UrlInfo

    infos = {}
    for path in folder.iterdir():
        content = path.read_bytes()
        checksum = hashlib.sha256(content).hexdigest()
        infos[address + path.name] = UrlInfo(size=len(content), checksum=checksum, filename=path.name)
    monkeypatch.setattr(tfds.builder_cls(name), "url_infos", infos)


@pytest.mark.parametrize(("name", "write"), [("mnist", write_mnist), ("cifar10", write_cifar10)])
def test_downloaded_data_is_the_same_as_the_files(site, monkeypatch, tmp_path, name, write):
    folder, address = site
    write(folder)
    point_at(monkeypatch, name, folder, address)
    assert "60 training and" in data.prepare_dataset(name)
    plain = data.load_dataset(name, data_dir=folder, validation_size=10)
    roots = [
        None,
        tmp_path / "cache" / "tensorflow_datasets",
        prepared.find_prepared(name, prepared.prepared_roots()),
    ]
    for data_dir in roots:  # prepared here; any tfds folder; one preparation
        dataset = data.load_dataset(name, data_dir=data_dir, validation_size=10)
        for part, same in zip(dataset[1:4], plain[1:4], strict=True):
            np.testing.assert_array_equal(part.inputs, same.inputs)
            np.testing.assert_array_equal(part.labels, same.labels)
        assert dataset.fingerprint == plain.fingerprint
        assert "tensorflow-datasets" in dataset.source
    monkeypatch.setattr(prepared, "download_and_prepare", lambda *_: pytest.fail("prepared twice"))
    data.prepare_dataset(name)


def test_records_stand_shuffled_as_stock_tfds_shuffles(site, monkeypatch, tmp_path):
    """What is undone is really there, and it is the shuffle of tfds's own hasher."""
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.hashing import Hasher

    folder, address = site
    write_mnist(folder)
    point_at(monkeypatch, "mnist", folder, address)
    prepared.download_and_prepare("mnist", tmp_path / "tfds")
    labels = data.load_dataset("mnist", data_dir=folder, validation_size=0).train.labels
    stored = [example["label"] for example in tfds.data_source("mnist", data_dir=tmp_path / "tfds", split="train")]
    order = np.argsort([float(Hasher("train").hash_key(key)) for key in range(60)])
    assert stored == labels[order].tolist() != labels.tolist()


def test_a_file_with_a_wrong_checksum_is_refused(site, monkeypatch, tmp_path):
    folder, address = site
    write_mnist(folder)
    point_at(monkeypatch, "mnist", folder, address)
    (folder / IDX_FILES[0]).write_bytes(gzip.compress(b"something else"))
    with pytest.raises(UserError, match=r"preparing mnist failed: .*(checksum|wrong)"):
        data.prepare_dataset("mnist")
    with pytest.raises(UserError, match="mnist is not prepared"):
        data.load_dataset("mnist")


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "kmnist", "cifar10"])
def test_stock_addresses_carry_checksums(name, tmp_path):
    infos = prepared.make_builder(name, tmp_path).url_infos
    files = ["cifar-10-binary.tar.gz"] if name == "cifar10" else IDX_FILES
    assert sorted(url.rpartition("/")[2] for url in infos) == sorted(files)
    assert all(len(info.checksum) == 64 for info in infos.values())


def test_offline_preparation_fails_quickly(site, monkeypatch):
    folder, _ = site
    write_mnist(folder)
    point_at(monkeypatch, "mnist", folder, "http://127.0.0.1:1/")
    start = time.perf_counter()
    with pytest.raises(UserError, match=r"cannot download mnist: no answer from http://127.*--config.data.dir=DIR"):
        data.prepare_dataset("mnist")
    assert time.perf_counter() - start < 5


def test_a_silent_name_server_cannot_hold_us(monkeypatch):
    def never_answers(*_, **__):
        time.sleep(2)
        raise OSError("timed out")

    monkeypatch.setattr(prepared, "_PROBE_SECONDS", 0.1)
    monkeypatch.setattr(prepared.urllib.request, "urlopen", never_answers)
    start = time.perf_counter()
    assert not prepared._is_reachable("http://127.0.0.1:1/")
    assert time.perf_counter() - start < 1


def test_a_server_that_refuses_the_probe_is_reachable(site):
    assert prepared._is_reachable(site[1] + "not-there")


def test_damaged_prepared_data_is_named(site, monkeypatch):
    folder, address = site
    write_mnist(folder)
    point_at(monkeypatch, "mnist", folder, address)
    prepared.download_and_prepare("mnist", prepared.prepared_roots()[0])
    (records,) = (cache.cache_folder() / "tensorflow_datasets" / "mnist").glob("*/*train.array_record*")
    records.write_bytes(records.read_bytes()[:100])
    with pytest.raises(UserError, match=r"cannot read the prepared data in .*mnist.*delete that folder"):
        data.load_dataset("mnist")


@pytest.mark.parametrize("names", [("3.0.9", "3.0.10"), ("zeros", "1.0.0"), ("a", "b")])
def test_the_newest_preparation_is_that_of_the_largest_version(names, tmp_path):
    for name in names:
        (tmp_path / "mnist" / name).mkdir(parents=True)
        info = '{"name": "mnist", "fileFormat": "array_record"}'
        (tmp_path / "mnist" / name / "dataset_info.json").write_text(info)
    for folder in (tmp_path, tmp_path / "mnist"):
        assert prepared.find_prepared("mnist", [folder]) == tmp_path / "mnist" / names[-1]


@pytest.mark.parametrize(
    "info",
    [
        '{"name": "kmnist", "fileFormat": "array_record"}',
        '{"name": "mnist", "fileFormat": "tfrecord"}',
        "{",
        "[]",
        "null",
    ],
)
def test_other_preparations_are_passed_over(tmp_path, info):
    folder = tmp_path / "tfds" / "mnist" / "3.0.1"
    folder.mkdir(parents=True)
    (folder / "dataset_info.json").write_text(info)
    with pytest.raises(UserError, match="counts if it is in array_record"):
        data.load_dataset("mnist")
    with pytest.raises(UserError, match="lacks train-images"):
        data.load_dataset("mnist", data_dir=tmp_path / "tfds")
