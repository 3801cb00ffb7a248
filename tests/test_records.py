"""The folder of a run: what may be written where, and files that are whole or not there."""

import json
import os
from functools import partial

import pytest

from jl1 import records
from jl1.configuration.files import config_to_dict, load_config
from jl1.errors import UserError
from jl1.runs.folder import open_run

CONFIG = {"seed": 0, "penalty": {"lam": 1.0}}


RESULT = {
    "schema": "jl1.result/1",
    "config": CONFIG,
    "num_epochs": 1,
    "stopped_because": "num_epochs",
    "accuracies": [],
    "seconds": {"compile": 1, "evaluate": 0.5},
}


def finish(workdir, stopped_because):
    records.write_result(workdir, RESULT | {"stopped_because": stopped_because})


def test_a_new_folder_is_made_with_the_config_in_it(tmp_path):
    workdir = open_run(tmp_path / "a" / "b", CONFIG)
    assert records.read_config(workdir) == CONFIG
    assert records.read_result(workdir) is None


def test_an_unfinished_run_of_the_same_config_is_found_again(tmp_path):
    open_run(tmp_path, CONFIG)
    assert open_run(tmp_path, CONFIG) == tmp_path


def test_an_interrupted_run_may_go_on_although_it_has_a_result(tmp_path):
    finish(open_run(tmp_path, CONFIG), records.INTERRUPTED)
    open_run(tmp_path, CONFIG)


def test_a_finished_run_is_refused_and_left_alone(tmp_path):
    finish(open_run(tmp_path, CONFIG), "num_epochs")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(UserError, match=r"holds the finished run.*--workdir or --config.seed.*jl1 evaluate"):
        open_run(tmp_path, CONFIG)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_run_of_another_config_is_refused_with_the_difference(tmp_path):
    open_run(tmp_path, CONFIG)
    with pytest.raises(UserError, match=r"another config(.|\n)*config\.penalty\.lam: 1\.0 -> 2\.0"):
        open_run(tmp_path, {"seed": 0, "penalty": {"lam": 2.0}})
    assert records.read_config(tmp_path) == CONFIG


def test_an_unfinished_run_of_an_older_version_with_its_data_moved_is_found_again(tmp_path):
    stored = config_to_dict(load_config("quickstart"))
    del stored["evaluation"]["attacks"], stored["log"]
    open_run(tmp_path, stored)
    config = load_config("quickstart")
    config.data.dir = "elsewhere"
    open_run(tmp_path, config_to_dict(config))
    assert records.read_config(tmp_path) == config_to_dict(config)


def test_a_foreign_folder_is_refused_and_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("important")
    with pytest.raises(UserError, match=r"not the folder of a jl1 run \(it has thesis\.tex"):
        open_run(tmp_path, CONFIG)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_what_a_kill_left_of_a_file_does_not_make_a_folder_foreign(tmp_path):
    (tmp_path / "config.json.tmp").write_text('{"se')
    open_run(tmp_path, CONFIG)
    assert records.read_config(tmp_path) == CONFIG


def test_a_folder_that_cannot_be_made_is_explained(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write to .*choose another folder with --workdir"):
        open_run(tmp_path / "file" / "run", CONFIG)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_explained(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(UserError, match="Permission denied"):
        open_run(tmp_path / "run", CONFIG)


@pytest.mark.parametrize("content", ['{"seed": ', "[]", "3", '"x"', "null"])
def test_a_damaged_config_is_named(content, tmp_path):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(UserError, match=r"config\.json is damaged: "):
        records.read_config(tmp_path)


def test_a_config_that_is_a_folder_is_named(tmp_path):
    (tmp_path / "config.json").mkdir()
    with pytest.raises(UserError, match=r"config\.json cannot be read: Is a directory"):
        records.read_config(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"result\.json is damaged: Expecting value.* Put a copy of it back, or move it away"),
        ("[]", "damaged: its content has another form"),
        ("3", "damaged: its content has another form"),
        ("null", "damaged: its content has another form"),
        ("{}", "damaged: it has no 'schema'"),
        ({"schema": "jl1.result/2"}, r"schema is jl1\.result/2, and this version reads jl1\.result/1; use the version"),
        ({"schema": 1}, r"its schema is 1, and"),
        ({"stopped_because": None}, "its 'stopped_because' has another form"),
        ({"seconds": {"compile": 1}}, "it has no 'evaluate'"),
        ({"seconds": {"compile": 1, "evaluate": "long"}}, "its 'evaluate' has another form"),
        ({"accuracies": {}}, "its 'accuracies' has another form"),
        ({"accuracies": [{}, 1]}, "an entry of its 'accuracies' has another form"),
    ],
)
def test_a_damaged_or_foreign_result_is_named_and_the_run_left_alone(content, message, tmp_path):
    open_run(tmp_path, CONFIG)
    (tmp_path / "result.json").write_text(content if isinstance(content, str) else json.dumps(RESULT | content))
    for use in (records.read_result, records.is_finished, lambda workdir: open_run(workdir, CONFIG)):
        with pytest.raises(UserError, match=message):
            use(tmp_path)


@pytest.mark.parametrize("content", ["{}", "null", "[1]", '[{"accuracies": []}]'])
def test_damaged_figures_on_the_way_are_named(content, tmp_path):
    (tmp_path / "at_epochs.json").write_text(content)
    with pytest.raises(UserError, match=r"at_epochs\.json is damaged: "):
        records.read_at_epochs(tmp_path)


@pytest.mark.parametrize(
    ("name", "append", "read"),
    [
        ("metrics.jsonl", records.append_metrics, records.read_metrics),
        ("trace.jsonl", records.append_trace, records.read_trace),
    ],
)
def test_epochs_are_cut_back_to_what_the_checkpoint_knows(tmp_path, name, append, read):
    for epoch in (1, 2, 3):
        append(tmp_path, {"epoch": epoch})
    with (tmp_path / name).open("a") as file:
        file.write('{"epoch": 4, "lo')  # a kill in the middle of a line
    records.keep_epochs(tmp_path, 2)
    assert [row["epoch"] for row in read(tmp_path)] == [1, 2]
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("content", [b"\xff\n{}\n{}\n", b"\xff"])
def test_bytes_that_are_no_text_are_named_and_left_alone(content, tmp_path):
    (tmp_path / "metrics.jsonl").write_bytes(content)
    for use in (records.read_metrics, partial(records.keep_epochs, num_epochs=1)):
        with pytest.raises(UserError, match=r"metrics\.jsonl is damaged: .*0xff.* Put a copy of it back"):
            use(tmp_path)
    assert (tmp_path / "metrics.jsonl").read_bytes() == content


@pytest.mark.parametrize("name", ["metrics", "trace"])
def test_half_a_line_is_not_read(name, tmp_path):
    (tmp_path / f"{name}.jsonl").write_text('{"epoch": 1}\n{"epoch": 2, "lo')
    assert getattr(records, f"read_{name}")(tmp_path) == [{"epoch": 1}]


@pytest.mark.parametrize("line", [b'{"epoch": gar', b"[]", b"\xff"])
@pytest.mark.parametrize("name", ["metrics", "trace"])
def test_a_damaged_line_is_named(name, line, tmp_path):
    (tmp_path / f"{name}.jsonl").write_bytes(line + b'\n{"epoch": 1}\n')
    with pytest.raises(UserError, match=rf"{name}\.jsonl is damaged: "):
        getattr(records, f"read_{name}")(tmp_path)


def test_versions_name_what_can_change_a_figure():
    versions = records.versions()
    assert {"jl1", "jax", "jaxlib", "flax", "optax", "numpy", "git_commit"} == set(versions)
    json.dumps(versions)


def test_versions_are_those_of_the_start_of_the_process(monkeypatch):
    before = records.versions()
    monkeypatch.setattr(records, "_git_commit", lambda: "another commit")
    assert records.versions() == before


def test_what_a_kill_left_of_a_picture_is_removed(tmp_path):
    (tmp_path / "audit").mkdir()
    (tmp_path / "audit" / ".images.png.0123.half").write_text("half")
    assert list(records.audit_folder(tmp_path).iterdir()) == []
