"""Other data than before, numbers that are none, a clock that jumps, a damaged checkpoint, a second process."""

import gzip
import json
import os
import shutil
import struct
import time

import numpy as np
import pytest
from first_epoch import train_one_epoch
from leftovers import leftovers
from quick import OVERRIDES, quick_config, run_jl1, start_jl1

from jl1 import experiment, records
from jl1.cli import main
from jl1.data import epoch_indices, load_dataset
from jl1.experiment import train_and_evaluate
from jl1.json_files import write_json
from jl1.runs.problems import order_seed
from jl1.runs.trainer import DivergedError

ATTACKED = ("--epsilons=0.1", "--attacks=fgsm", "--max_points=40", "--batch_size=20")
AUDITED = ("--epsilon=0.1", "--max_points=40", "--num_examined=20", "--batch_size=20")
COMMANDS = (("train",), ("evaluate", *ATTACKED), ("audit", *AUDITED))


@pytest.fixture
def digits(tmp_path):
    """Write the embedded digits as the four files of MNIST: a data set that can be changed."""
    data, folder = load_dataset("mnist_5k"), tmp_path / "digits"
    folder.mkdir()
    for name, split in (("train", data.train), ("t10k", data.test)):
        images, labels = np.rint(split.inputs[..., 0] * 255).astype(np.uint8), split.labels.astype(np.uint8)
        for what, array in (("images-idx3", images), ("labels-idx1", labels)):
            header = bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape)
            (folder / f"{name}-{what}-ubyte.gz").write_bytes(gzip.compress(header + array.tobytes()))
    return folder


def flip(file):
    """Change the last byte of a packed file."""
    content = gzip.decompress(file.read_bytes())
    file.write_bytes(gzip.compress(content[:-1] + bytes([content[-1] ^ 1])))


def test_data_that_have_changed_since_the_start_are_refused_and_the_old_ones_go_on(digits, tmp_path, capsys):
    config = quick_config(data__name="mnist", data__dir=str(digits), data__validation_size=500)
    train_and_evaluate(config, tmp_path / "straight")
    train_one_epoch(config, tmp_path / "run")
    before = leftovers(tmp_path / "run")
    flip(digits / "train-labels-idx1-ubyte.gz")
    for command, *flags in COMMANDS:
        assert main([command, f"--workdir={tmp_path / 'run'}", *flags]) == 2
        error = capsys.readouterr().err.replace("\n", " ")
        assert "are not those that the checkpoint of epoch 1 was trained on: their content differs" in error
    flip(digits / "train-labels-idx1-ubyte.gz")
    assert leftovers(tmp_path / "run") == before
    train_and_evaluate(config, tmp_path / "run")
    assert leftovers(tmp_path / "run") == leftovers(tmp_path / "straight")


def test_a_run_finds_its_data_from_any_folder_and_where_an_older_one_does_not_it_says_what_to_do(
    digits, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    config = quick_config(data__name="mnist", data__dir=digits.name, data__validation_size=500)
    train_one_epoch(config, tmp_path / "run")
    assert config.data.dir == digits.name
    stored = records.read_config(tmp_path / "run")
    assert stored["data"]["dir"] == str(digits)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    flags = ("evaluate", "--workdir=../run", "--attacks=fgsm", "--epsilons=0.1", "--max_points=10")
    assert main([*flags]) == 0
    write_json(tmp_path / "run" / "config.json", stored | {"data": stored["data"] | {"dir": digits.name}})
    assert main([*flags]) == 2
    error = capsys.readouterr().err
    assert f"data folder {digits.name} does not exist in {tmp_path / 'elsewhere'}\n" in error
    assert "--data_dir=DIR says where its data are now" in error
    assert main([*flags, f"--data_dir={digits}"]) == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["train", f"--config.data.dir={'x' * 300}", "--config=train"], "cannot be read: File name too long"),
        (["sweep", f"--config.data.dir={'x' * 300}", "--config=table2"], "cannot be read: File name too long"),
        (["train", f"--config={'x' * 300}.py"], "cannot be read: File name too long"),
        (["prepare", "--config=train", "--config.data.dir=~nobody-here/x"], "~nobody-here/x"),
        (["train", f"--workdir={os.fsdecode(b'run-%c' % 0xE9)}"], "is not UTF-8: choose another with --workdir"),
        (["sweep", "--config=readings", f"--workdir={os.fsdecode(b'out-%c' % 0xE9)}"], "is not UTF-8: choose another"),
    ],
)
def test_a_name_that_no_file_can_have_is_refused_in_a_line(arguments, said, digits, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    where = [f"--config.data.dir={digits}"] if "--config=readings" in arguments else []
    assert main([*arguments, *where]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error
    assert sorted(path.name for path in tmp_path.iterdir()) == [digits.name]


def test_a_number_that_is_none_ends_training_at_its_step_and_the_last_checkpoint_goes_on(
    begun, straight, tmp_path, monkeypatch
):
    data, config = load_dataset("mnist_5k"), quick_config()
    order = epoch_indices(len(data.train.labels), 400, seed=order_seed(config), epoch=2)
    inputs = data.train.inputs.copy()
    inputs[order[7, 0], 14, 14] = np.nan
    with monkeypatch.context() as patch:  # a file of bytes holds no such number: it comes from memory or a driver
        patch.setattr(experiment, "load_data", lambda _: data._replace(train=data.train._replace(inputs=inputs)))
        message = r"not finite at step 17 \(epoch 2\); the last good checkpoint is that of epoch 1"
        with pytest.raises(DivergedError, match=message):
            train_and_evaluate(config, begun)
    assert [row["epoch"] for row in records.read_metrics(begun)] == [1]
    train_and_evaluate(config, begun)
    assert leftovers(begun) == leftovers(straight)


JUMPING = """\
import itertools, random, time
steady = time.time
jumps = itertools.cycle((0.0, 3.15e8, -3.15e8, 3600.0, -1e6))
time.time = lambda: steady() + next(jumps)
time.time_ns = lambda: int(1e9 * time.time())
"""


def test_a_clock_that_jumps_by_years_changes_no_bit_and_the_durations_add_up(straight, tmp_path):
    """Python runs sitecustomize.py first, so that every package of the process sees the jumps."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(JUMPING)
    path = f"{tmp_path / 'site'}:{os.environ.get('PYTHONPATH', '')}"
    flags = ("--config=quickstart:plain", *OVERRIDES, "--workdir=run")
    start = time.perf_counter()
    status, output = run_jl1("train", *flags, cwd=tmp_path, PYTHONPATH=path)
    elapsed = time.perf_counter() - start
    assert status == 0, output
    assert "Traceback" not in output
    assert leftovers(tmp_path / "run") == leftovers(straight)
    sections = records.read_result(tmp_path / "run")["seconds"].values()
    assert min(sections) >= 0
    assert 0 < sum(sections) < elapsed
    assert all(0 < row["seconds"] < elapsed for row in records.read_metrics(tmp_path / "run"))


@pytest.mark.parametrize(
    ("command", "flags"), [("evaluate", ATTACKED), pytest.param("audit", AUDITED, marks=pytest.mark.slow)]
)
def test_a_damaged_newest_checkpoint_is_said_and_the_one_before_it_is_used(command, flags, straight, tmp_path, capsys):
    copy = shutil.copytree(straight, tmp_path / "run")
    file = max((copy / "checkpoints" / "3" / "arrays").rglob("*"), key=lambda path: path.stat().st_size)
    file.write_bytes(file.read_bytes()[:1000])
    assert main([command, f"--workdir={copy}", *flags]) == 0
    assert "the checkpoint of epoch 3 is damaged" in capsys.readouterr().out.replace("\n", " ")
    assert (copy / "checkpoints" / "3").exists()
    name = {"evaluate": "evaluation.json", "audit": "audit/audit.json"}[command]
    content = json.loads((copy / name).read_text())
    assert (content["accuracies"][0] if command == "evaluate" else content)["epoch"] == 2


def test_a_second_process_on_a_run_is_turned_away_and_changes_nothing(tmp_path, capsys):
    flags = ("--config=quickstart:plain", *OVERRIDES, "--config.training.num_epochs=100000", "--workdir=run")
    process = start_jl1("train", *flags, cwd=tmp_path)
    try:
        while not (tmp_path / "run" / "checkpoints" / "1").exists():
            assert process.poll() is None
            time.sleep(0.05)
        holder = (tmp_path / "run" / "holder.json").read_text()
        for command, *more in COMMANDS:
            assert main([command, f"--workdir={tmp_path / 'run'}", *more]) == 75
            assert f"is held by pid {process.pid} on " in capsys.readouterr().err.replace("\n", " ")
        assert (tmp_path / "run" / "holder.json").read_text() == holder
        assert {path.name for path in (tmp_path / "run").iterdir()} == {
            *("config.json", "lock", "holder.json", "checkpoints", "metrics.jsonl", "trace.jsonl")
        }
    finally:
        process.kill()
        process.communicate()
