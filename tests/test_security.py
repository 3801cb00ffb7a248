"""Reading never runs code: a pickle that would leave a mark is planted in all that jl1 reads."""

import json
import pickle  # noqa: TID251 (to plant one)
import shutil
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from jax import export
from quick import quick_config
from safetensors import SafetensorError
from safetensors.numpy import load

from jl1.cli import main
from jl1.datasets import cache, prepared
from jl1.datasets.sources import find_files, read_files, record_dtype
from jl1.errors import UserError
from jl1.experiment import train_and_evaluate
from jl1.runs.verdicts import read_verdicts

EVALUATE = ("--epsilons=0.1", "--attacks=fgsm", "--max_points=40", "--batch_size=20")


class Mine:
    """Makes a folder when it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return Path.mkdir, (self.mark,)


@pytest.fixture
def mine(tmp_path):
    """An object that leaves a mark when it is unpickled, and at the end: there is none."""
    mark = tmp_path / "mark"
    pickle.loads(pickle.dumps(Mine(mark)))
    mark.rmdir()  # it works
    yield Mine(mark)
    assert not mark.exists()


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    """A run with verdicts; tests copy it."""
    workdir = tmp_path_factory.mktemp("runs") / "run"
    train_and_evaluate(quick_config(training__num_epochs=1), workdir)
    assert main(["evaluate", f"--workdir={workdir}", *EVALUATE]) == 0
    return workdir


@pytest.mark.parametrize(
    ("pattern", "status"),
    [
        ("config.json", 2),
        ("result.json", 0),
        ("evaluation.json", 2),
        ("metrics.jsonl", 0),
        ("checkpoints/1/arrays/**/*", 2),
        ("checkpoints/1/description/*", 2),
        ("checkpoints/**/*", 2),
        ("evaluation/**/*.npz", 0),
    ],
)
def test_no_file_of_a_run_is_unpickled(pattern, status, evaluated, mine, tmp_path, capsys):
    copy = shutil.copytree(evaluated, tmp_path / "run")
    files = [path for path in copy.glob(pattern) if path.is_file()]
    assert files
    for path in files:
        path.write_bytes(pickle.dumps(mine))
    assert main(["evaluate", f"--workdir={copy}", *EVALUATE]) == status
    assert ("error: " in capsys.readouterr().err) == (status == 2)


def test_an_array_of_objects_is_not_unpickled_as_a_decoded_copy_or_as_verdicts(mine, tmp_path, monkeypatch):
    monkeypatch.setenv("JL1_CACHE_DIR", str(tmp_path / "cache"))
    records = np.zeros(3, record_dtype("mnist"))
    cache.load_or_decode("mnist", "key", lambda: records)
    (copy,) = (tmp_path / "cache").glob("*.npy")
    np.save(copy, np.array([mine], object), allow_pickle=True)
    loaded, _ = cache.load_or_decode("mnist", "key", lambda: records)
    assert loaded.tobytes() == records.tobytes()
    objects = np.array([mine], object)
    np.savez(tmp_path / "piece.npz", stands=objects, broken_by=objects, digest=np.array("x"), allow_pickle=True)
    assert read_verdicts(tmp_path / "piece.npz", digest="x") is None


@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_no_data_file_is_unpickled(name, mine, tmp_path):
    """The Python version of CIFAR-10 is made of pickles: jl1 reads the binary one alone."""
    folder = tmp_path / "data"
    folder.mkdir()
    pickled = folder / "pickled"
    pickled.write_bytes(pickle.dumps(mine))
    if name == "mnist":
        for stem in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
            shutil.copy(pickled, folder / f"{stem}-ubyte")
    else:
        with tarfile.open(folder / "cifar-10-binary.tar.gz", "w:gz") as tar:
            for stem in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch", "batches.meta"):
                tar.add(pickled, f"cifar-10-batches-py/{stem}.bin")
    with pytest.raises(UserError, match=r"is no IDX file|is truncated"):
        read_files(name, find_files(name, folder))


def test_a_preparation_cannot_name_a_module_to_run(tmp_path, monkeypatch):
    """The package tensorflow-datasets imports the module of every feature that features.json names."""
    builder = prepared.make_builder("mnist", tmp_path)
    folder = tmp_path / "prepared"
    folder.mkdir()
    (tmp_path / "planted.py").write_text(f"from pathlib import Path\nPath({str(tmp_path / 'mark')!r}).mkdir()\n")
    monkeypatch.syspath_prepend(tmp_path)
    features = builder.info.features.to_json()
    text = json.dumps(features)
    own = "tensorflow_datasets.core.features.image_feature.Image"
    assert own in text
    (folder / "features.json").write_text(text.replace(own, "planted.Image"))
    (folder / "dataset_info.json").write_text(json.dumps({"name": "mnist", "fileFormat": "array_record"}))
    with pytest.raises(UserError, match=r"features\.json names planted\.Image, which is no feature of tfds"):
        prepared.read_prepared("mnist", folder)
    assert "planted" not in sys.modules
    assert not (tmp_path / "mark").exists()


def test_no_exported_file_is_unpickled(mine):
    with pytest.raises(SafetensorError):
        load(pickle.dumps(mine))
    with pytest.raises(Exception, match=r".+"):
        export.deserialize(bytearray(pickle.dumps(mine)))


def test_a_stored_config_is_data_and_not_python(evaluated, tmp_path, capsys):
    copy = shutil.copytree(evaluated, tmp_path / "run")
    text = (copy / "config.json").read_text()
    planted = f"__import__('os').mkdir({str(tmp_path / 'mark')!r})"
    stored = json.loads(text)
    stored["model"]["padding"] = stored["data"]["split"] = planted
    (copy / "config.json").write_text(json.dumps(stored))
    for command in ("train", "evaluate"):
        assert main([command, f"--workdir={copy}"]) == 2
    assert not (tmp_path / "mark").exists()
    capsys.readouterr()
