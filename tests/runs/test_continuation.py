"""Runs that begin with the epochs of others: the bits of one go, nothing lost, and what is refused."""

import json
import shutil

import pytest
from quick import final_params, quick_config, same_bits

from jl1 import records
from jl1.cli import main
from jl1.errors import UserError
from jl1.experiment import train_and_evaluate
from jl1.runs.continuation import begin_with
from jl1.runs.trainer import end_of

SETTINGS = {"adversarial__epsilon": 0.1, "training__weights": "best"}


def settings(num_epochs, **fields):
    return quick_config(training__num_epochs=num_epochs, **SETTINGS, **fields)


@pytest.fixture(scope="module")
def short(tmp_path_factory):
    """A finished run of two epochs; nothing here changes it."""
    workdir = tmp_path_factory.mktemp("runs") / "short"
    train_and_evaluate(settings(2), workdir)
    return workdir


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != "holder.json"}


def test_a_continued_run_has_the_bits_of_one_go_and_the_figures_of_both_ends(short, tmp_path):
    before = contents(short)
    assert begin_with(short, tmp_path / "long", settings(3)) == 2
    result = train_and_evaluate(settings(3), tmp_path / "long")
    in_one_go = train_and_evaluate(settings(3), tmp_path / "whole")

    assert same_bits(final_params(tmp_path / "long"), final_params(tmp_path / "whole"))
    assert result["accuracies"] == in_one_go["accuracies"]
    lines = [
        [
            {name: row[name] for name in ("epoch", "loss", "validation_accuracy")}
            for row in records.read_metrics(workdir)
        ]
        for workdir in (tmp_path / "long", tmp_path / "whole")
    ]
    assert lines[0] == lines[1]
    assert records.read_trace(tmp_path / "long") == records.read_trace(tmp_path / "whole")

    first = records.read_result(short)
    figures = {name: first[name] for name in ("accuracies", "l1_jacobian_norm")}
    assert result["at_epochs"] == [{"epoch": 2, **figures}]
    assert result["seconds"]["train"] > first["seconds"]["train"]
    assert contents(short) == before


def test_what_was_measured_on_the_way_comes_along(short, tmp_path):
    source = shutil.copytree(short, tmp_path / "source")
    row = {"epoch": 1, "accuracies": [], "l1_jacobian_norm": {}}
    records.write_at_epochs(source, [row])
    begin_with(source, tmp_path / "long", settings(3))
    assert [row["epoch"] for row in records.read_at_epochs(tmp_path / "long")] == [1, 2]
    assert records.read_at_epochs(tmp_path / "long")[0] == row


def test_an_unfinished_run_is_continued_without_figures(short, tmp_path):
    source = shutil.copytree(short, tmp_path / "source", ignore=shutil.ignore_patterns("result.json"))
    assert begin_with(source, tmp_path / "long", settings(3)) == 2
    assert records.read_at_epochs(tmp_path / "long") == []


def test_a_finished_run_that_cannot_be_written_is_only_read(short, tmp_path):
    source = shutil.copytree(short, tmp_path / "source", ignore=shutil.ignore_patterns("lock", "holder.json"))
    for path in (*source.rglob("*"), source):
        path.chmod(path.stat().st_mode & ~0o222)
    begin_with(source, tmp_path / "long", settings(3))
    assert not {"lock", "holder.json"} & {path.name for path in source.iterdir()}  # root may write nevertheless
    assert all(path.stat().st_mode & 0o200 for path in (tmp_path / "long").rglob("*"))


def test_a_copy_that_a_kill_cut_short_is_made_again(short, tmp_path):
    workdir = tmp_path / "long"
    begin_with(short, workdir, settings(3))
    whole = contents(workdir / "checkpoints")
    (workdir / "checkpoints").rename(workdir / "checkpoints.half")
    next(path for path in (workdir / "checkpoints.half").rglob("*") if path.is_file()).unlink()
    assert begin_with(short, workdir, settings(3)) == 2
    assert contents(workdir / "checkpoints") == whole
    assert not (workdir / "checkpoints.half").exists()


def test_a_folder_of_checkpoints_without_one_is_no_beginning(short, tmp_path):
    workdir = tmp_path / "long"
    begin_with(short, workdir, settings(3))
    shutil.rmtree(workdir / "checkpoints")
    assert main(["evaluate", f"--workdir={workdir}", "--attacks=clean"]) == 2
    assert (workdir / "checkpoints").is_dir()
    assert begin_with(short, workdir, settings(3)) == 2


def test_a_run_that_has_begun_goes_on_by_itself(short, tmp_path):
    begin_with(short, tmp_path / "long", settings(3))
    before = contents(tmp_path / "long")
    assert begin_with(short, tmp_path / "long", settings(3)) == 0
    assert contents(tmp_path / "long") == before
    train_and_evaluate(settings(3), tmp_path / "long")
    with pytest.raises(UserError, match="holds the finished run of this config"):
        begin_with(short, tmp_path / "long", settings(3))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            settings(3, penalty__lam=1.0),
            r"other settings:\n  config\.penalty\.lam: .* -> 1\.0\nonly the end of training",
        ),
        (settings(3, evaluation__pgd_steps=3), r"config\.evaluation\.pgd_steps: 2 -> 3"),
        (settings(2), r"has 2 epochs, .* training ends after epoch 2 \(num_epochs\): give a larger"),
        (settings(1), r"training ends after epoch 1 \(num_epochs\)"),
        (
            settings(9, training__stopping="patience", training__stopping_tolerance=1.0, training__stopping_epochs=1),
            r"training ends after epoch 2 \(patience\): .*config\.training\.stopping=fixed",
        ),
    ],
)
def test_another_training_or_an_end_that_is_past_is_refused_before_anything_is_made(config, message, short, tmp_path):
    with pytest.raises(UserError, match=message):
        begin_with(short, tmp_path / "long", config)
    assert not (tmp_path / "long").exists()


def test_a_run_does_not_begin_with_itself(short):
    with pytest.raises(UserError, match=r"short is the new run itself: give a larger config\.training\.num_epochs"):
        begin_with(short, short.parent / "." / "short", settings(2))


def test_what_is_no_run_or_has_no_epoch_is_refused(short, tmp_path):
    with pytest.raises(UserError, match="nowhere is not the folder of a jl1 run"):
        begin_with(tmp_path / "nowhere", tmp_path / "long", settings(3))
    (tmp_path / "fresh").mkdir()
    shutil.copy(short / "config.json", tmp_path / "fresh")
    with pytest.raises(UserError, match="fresh has no whole epoch yet"):
        begin_with(tmp_path / "fresh", tmp_path / "long", settings(3))


def test_the_command_says_what_it_begins_with_and_takes_the_settings_of_that_run(short, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    flags = ["train", f"--continue_from={short}", "--config.training.num_epochs=3", "--workdir=long"]
    assert main(flags) == 0
    output = capsys.readouterr().out
    assert f"note: begins with the 2 epochs of {short}, which is left as it is" in output
    assert "resumed after epoch 2" in output
    expected = json.loads((short / "config.json").read_text())
    expected["training"]["num_epochs"] = 3
    assert json.loads((tmp_path / "long" / "config.json").read_text()) == expected
    assert main(flags) == 2
    assert "holds the finished run of this config" in capsys.readouterr().err
    assert main([*flags[:2], "--config=quickstart"]) == 2
    assert "leave --config=quickstart out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("accuracies", "rule", "num_epochs", "end"),
    [
        ([], "fixed", 1, None),
        ([0.5], "fixed", 1, "num_epochs"),
        ([0.5, 0.5], "patience", 3, None),
        ([0.5, 0.5, 0.5], "patience", 3, "patience"),  # both at once: the rule has ended it
        ([0.5, 0.6, 0.7], "patience", 3, "num_epochs"),
    ],
)
def test_training_ends_by_its_rule_or_with_its_last_epoch(accuracies, rule, num_epochs, end):
    rest = {"training__stopping": rule} | ({"training__stopping_epochs": 2} if rule == "patience" else {})
    assert end_of(settings(num_epochs, **rest), accuracies) == end
