"""Results of runs as tidy rows: what is read, what is left out and named."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from synthetic import accuracy_row, evaluated_row, result_like, write_run, write_seeds

from jl1.errors import UserError
from jl1.report.cells import make_cells
from jl1.report.columns import COLUMNS
from jl1.report.csv_rows import write_rows
from jl1.report.paper_numbers import paper_numbers
from jl1.report.results import read_results
from jl1.report.run_settings import differing_fields, settings_digests


def test_every_figure_of_a_real_run_is_a_row(real_run, real_result):
    results = read_results([real_run])
    evaluation = json.loads((real_run / "evaluation.json").read_text())["accuracies"]
    rows = results.rows
    assert results.notes == []
    assert list(rows.columns) == list(COLUMNS)
    assert len(rows) == len(real_result["accuracies"]) + len(evaluation)
    for row in (*real_result["accuracies"], *evaluation):
        rule = "standing" if "broken_by" in row and row["attack"] != "clean" else "attacked"
        named = (rows["attack"] == row["attack"]) & (rows["epsilon"] == row["epsilon"]) & (rows["rule"] == rule)
        named &= (rows["labels"] == row["labels"]) & (rows["num_examples"] == row["num_examples"])
        assert rows.loc[named, "accuracy"].tolist() == [row["accuracy"]]
    first = rows.iloc[0]
    assert (first["dataset"], first["model"], first["seed"], first["penalty"]) == ("mnist_5k", "C", "0", "none")
    assert (first["method"], first["gradient_form"], first["status"]) == ("", "plain", "finished")
    assert first["commit"] == "" or real_result["versions"]["git_commit"].startswith(first["commit"].split("+")[0])
    assert set(rows["strength"]) == {"pgd-2", "fgsm", "clean", "worst case of fgsm, pgd-2"}
    assert set(rows["when"]) == {"final"}


def test_rows_are_the_same_after_a_csv_to_the_last_digit(real_run, tmp_path):
    rows = read_results([real_run]).rows
    path = write_rows(rows, tmp_path / "rows.csv")
    again = read_results([], [path]).rows
    pd.testing.assert_frame_equal(again, rows)
    assert write_rows(again, tmp_path / "again.csv").read_bytes() == path.read_bytes()


def test_a_folder_of_runs_is_read_one_level_deep_and_several_together(real_result, tmp_path):
    write_seeds(tmp_path / "one", real_result, [0.1, 0.2])
    write_seeds(tmp_path / "two", real_result, [0.3], lam=50.0)
    (tmp_path / "one" / "logs").mkdir()
    results = read_results([tmp_path / "one", tmp_path / "two"])
    assert results.notes == []
    assert results.rows["run"].unique().tolist() == ["run-lam50-seed0", "run-lam0-seed0", "run-lam0-seed1"]


def test_what_has_no_penalty_or_attack_says_nothing_of_them(real_result, tmp_path):
    write_run(tmp_path / "a", result_like(real_result, penalty__name="none", penalty__lam=3.0))
    write_run(tmp_path / "b", result_like(real_result, lam=0.0, penalty__outputs="logits"))
    rows = read_results([tmp_path]).rows
    assert rows[["penalty", "outputs", "scale", "lam", "method"]].drop_duplicates().values.tolist() == [
        ["none", "", "", 0.0, ""]
    ]


def test_estimators_and_robust_training_are_named_with_their_strength(real_result, tmp_path):
    made = result_like(
        real_result,
        lam=1.0,
        penalty__name="jacobian_l1_sampled_classes",
        penalty__num_draws=2,
        penalty__every=4,
        adversarial__epsilon=0.1,
        adversarial__method="pgd",
        seeds__init=7,
    )
    write_run(tmp_path / "a", made)
    row = read_results([tmp_path]).rows.iloc[0]
    assert row["penalty"] == "jacobian_l1_sampled_classes x 2 every 4"
    assert (row["method"], row["train_epsilon"], row["seed"]) == ("pgd-10", 0.1, "0, init 7")


def test_figures_on_the_way_keep_their_epoch(real_result, tmp_path):
    made = result_like(real_result) | {"num_epochs": 150}
    made["at_epochs"] = [{"epoch": 100, "accuracies": [accuracy_row("fgsm", 0.3, 0.5)]}]
    write_run(tmp_path / "a", made, evaluation=[evaluated_row("pgd", 0.3, 0.1, epoch=120, num_steps=7)])
    rows = read_results([tmp_path]).rows.query("attack != 'clean'")
    assert sorted(zip(rows["when"], rows["epoch"], rows["accuracy"], strict=True)) == [
        ("final", 150.0, 0.2),
        ("on the way", 100.0, 0.5),
        ("on the way", 120.0, 0.1),
    ]


def test_an_interrupted_run_is_marked(real_result, tmp_path):
    write_run(tmp_path / "a", result_like(real_result) | {"stopped_because": "interrupted"})
    assert set(read_results([tmp_path]).rows["status"]) == {"interrupted"}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{not json", "is damaged"),
        ("[1, 2]", "its content has another form"),
        ('{"schema": "other/3"}', "its schema is other/3, and this version reads jl1.result/1"),
        ('{"no": "schema"}', "it has no 'schema'"),
        (b"\xff\xfe\x00", "is damaged"),
        ("accuracy", "the accuracy 98.0 under clean is not in [0, 1]"),
        ("config", "it has no 'penalty'"),
        ("num_examples", "could not convert string to float: 'ten'"),
        ("interval", "could not convert string to float: 'low'"),
        ("warmup", "could not convert string to float: 'some'"),
    ],
)
def test_a_damaged_or_foreign_file_is_named_and_left_out(real_result, tmp_path, content, said):
    write_run(tmp_path / "good", result_like(real_result))
    bad = write_run(tmp_path / "bad", result_like(real_result, seed=1)) / "result.json"
    if content == "accuracy":
        content = json.dumps(result_like(real_result, accuracies=((("clean", 0.0), 98.0),)))
    elif content == "config":
        made = result_like(real_result)
        del made["config"]["penalty"]
        content = json.dumps(made)
    elif content == "warmup":
        content = json.dumps(result_like(real_result, adversarial__epsilon=0.1, adversarial__warmup_epochs="some"))
    elif content in ("num_examples", "interval"):
        made = result_like(real_result)
        made["accuracies"][0] |= {"num_examples": "ten"} if content == "num_examples" else {"interval": ["low", 0.9]}
        content = json.dumps(made)
    bad.write_bytes(content if isinstance(content, bytes) else content.encode())
    results = read_results([tmp_path])
    (note,) = results.notes
    assert note.startswith(f"{bad.parent} is left out: ")
    assert said in note
    assert set(results.rows["run"]) == {"good"}


def test_a_damaged_evaluation_leaves_the_result(real_run, tmp_path):
    workdir = shutil.copytree(real_run, tmp_path / "run")
    (workdir / "evaluation.json").write_text("{")
    results = read_results([workdir])
    assert "evaluation.json is left out" in results.notes[0]
    assert len(results.rows) == 4


def test_settings_without_a_column_are_told_apart_and_named(real_result):
    configs = [
        result_like(real_result, training__batch_size=64)["config"],
        result_like(real_result, training__batch_size=128, seed=3, lam=5.0, model__convolution="library")["config"],
        result_like(real_result, training__batch_size=128, data__dir="elsewhere")["config"],
    ]
    digests = settings_digests(configs)
    assert digests[0] != digests[1] == digests[2]
    assert differing_fields(configs[0], configs[1]) == ["training.batch_size: 64 -> 128"]


def test_a_field_that_an_older_version_did_not_have_makes_no_difference_where_the_others_agree(real_result):
    old, new, other = (result_like(real_result)["config"] for _ in range(3))
    del old["training"]["precision"]
    assert len(set(settings_digests([old, new]))) == 1
    other["training"]["precision"] = "tf32"
    assert len(set(settings_digests([old, new, other]))) == 3  # which of the two the old one had is not known


def test_a_field_that_is_filled_in_is_named(real_result, tmp_path):
    old = result_like(real_result)
    del old["config"]["training"]["precision"]
    write_run(tmp_path / "old", old)
    for seed in (1, 2):
        write_run(tmp_path / f"new{seed}", result_like(real_result, seed=seed, training__precision="tf32"))
    results = read_results([tmp_path])
    assert results.notes == [
        "fields that older versions lack, counted as what the other runs have: training.precision = tf32 (1 of 3 runs)"
    ]
    assert results.rows["settings"].nunique() == 1
    assert read_results([tmp_path / "new1", tmp_path / "new2"]).notes == []


def test_runs_that_a_sweep_lists_and_that_are_not_there_are_rows(real_result, tmp_path):
    write_seeds(tmp_path, real_result, [0.1, 0.2], lam=10.0, name="c")
    runs = [
        {"name": f"c-lam{lam:g}-seed{seed}", "overrides": {"penalty.lam": lam, "seed": seed}}
        for lam in (10.0, 50.0)
        for seed in range(3)
    ]
    sweep = {"schema": "jl1.sweep/1", "config": "table2:C", "command": "jl1 sweep", "runs": runs}
    (tmp_path / "sweep.json").write_text(json.dumps(sweep))
    rows = read_results([tmp_path]).rows
    missing = rows[rows["status"] == "missing"]
    assert sorted(zip(missing["lam"], missing["seed"], strict=True)) == [
        (10.0, "2"),
        (50.0, "0"),
        (50.0, "1"),
        (50.0, "2"),
    ]
    assert missing["accuracy"].isna().all()
    assert rows["settings"].nunique() == 1


@pytest.mark.parametrize(("dataset", "tiles"), [("mnist", 1), ("mnist_x2", 2)])
def test_a_missing_run_of_another_model_is_not_taken_for_one_of_those_there(real_result, tmp_path, dataset, tiles):
    names = [f"{dataset}-{end}" for end in ("A-plain-seed0-bbbbbb", "C-plain-seed0-aaaaaa", "C-plain-seed1-cccccc")]
    write_run(tmp_path / names[1], result_like(real_result, data__tiles=tiles))
    runs = [{"name": name, "overrides": {"seed": int(name[-8])}} for name in names]
    (tmp_path / "sweep.json").write_text(json.dumps({"schema": "jl1.sweep/1", "runs": runs}))
    results = read_results([tmp_path])
    missing = results.rows[results.rows["status"] == "missing"]
    assert missing[["model", "seed"]].values.tolist() == [["C", "1"]]
    assert results.notes == [f"{tmp_path / 'sweep.json'} lists 1 runs of a kind that none is there of: {names[0]} ..."]


def test_a_run_that_sets_more_does_not_stand_in_for_a_missing_one(real_result, tmp_path):
    attacked = {"adversarial.epsilon": 0.1, "adversarial.method": "pgd"}
    made = result_like(real_result, adversarial__epsilon=0.1, adversarial__method="pgd")
    write_run(tmp_path / "mnist-C-plain-pgd0.1-seed0-bbbbbb", made)
    runs = [
        {"name": "mnist-C-plain-seed0-aaaaaa", "overrides": {"seed": 0}},
        {"name": "mnist-C-plain-pgd0.1-seed0-bbbbbb", "overrides": {"seed": 0} | attacked},
        {"name": "mnist-C-plain-pgd0.1-seed1-cccccc", "overrides": {"seed": 1} | attacked},
    ]
    (tmp_path / "sweep.json").write_text(json.dumps({"schema": "jl1.sweep/1", "runs": runs}))
    results = read_results([tmp_path])
    missing = results.rows[results.rows["status"] == "missing"]
    assert missing[["train_epsilon", "seed"]].values.tolist() == [[0.1, "1"]]
    (note,) = results.notes
    assert note.endswith("lists 1 runs of a kind that none is there of: mnist-C-plain-seed0-aaaaaa ...")


def test_a_figure_on_the_way_counts_for_the_run_that_stops_at_that_epoch_too(real_result, tmp_path):
    for seed, num_epochs in enumerate((20, 31)):
        made = result_like(real_result, seed=seed, accuracies=((("fgsm", 0.3), 0.1),)) | {"num_epochs": num_epochs}
        made["at_epochs"] = [{"epoch": 20, "accuracies": [accuracy_row("fgsm", 0.3, 0.1)]}]
        write_run(tmp_path / f"seed{seed}", made)
    cells = make_cells(read_results([tmp_path]).rows, paper_numbers()).cells
    assert dict(zip(cells["at_epoch"], cells["n"], strict=True)) == {0.0: 2, 20.0: 2}


def test_a_processor_is_told_from_another(real_result, tmp_path):
    write_run(tmp_path / "a", result_like(real_result))
    write_run(tmp_path / "b", result_like(real_result, seed=1) | {"processor": "Some CPU"})
    machines = read_results([tmp_path]).rows.groupby("run")["machine"].first()
    assert machines["a"] == f"1 x cpu {real_result['processor']}".strip()
    assert machines["b"] == "1 x cpu Some CPU"


def test_what_may_not_be_looked_into_is_named_and_left_out(real_result, tmp_path, monkeypatch):
    write_run(tmp_path / "a", result_like(real_result))
    (tmp_path / "lost+found").mkdir()
    is_file = Path.is_file

    def refused(path):
        if "lost+found" in path.parts:
            raise PermissionError(13, "Permission denied", str(path))  # root may look everywhere
        return is_file(path)

    monkeypatch.setattr(Path, "is_file", refused)
    results = read_results([tmp_path])
    assert set(results.rows["run"]) == {"a"}
    assert results.notes == [f"{tmp_path / 'lost+found'} cannot be read: Permission denied; it is left out"]
    with pytest.raises(UserError, match="cannot be read: File name too long"):
        read_results([tmp_path / ("x" * 300)])


@pytest.mark.parametrize("overrides", [{"penalty.lam": "x"}, {"penalty": 3}, {"data": {}}])
def test_a_sweep_with_fields_of_another_form_is_named(real_result, tmp_path, overrides):
    write_run(tmp_path / "a", result_like(real_result))
    runs = [{"name": "a", "overrides": {}}, {"name": "b", "overrides": overrides}]
    (tmp_path / "sweep.json").write_text(json.dumps({"schema": "jl1.sweep/1", "runs": runs}))
    results = read_results([tmp_path])
    (note,) = results.notes
    assert note.startswith(f"{tmp_path / 'sweep.json'} is left out: it")
    assert set(results.rows["run"]) == {"a"}


def test_runs_whose_folders_have_the_same_name_are_told_apart(real_result, tmp_path, monkeypatch):
    for name, lam in (("lam50", 50.0), ("plain", 0.0), ("plain/deep/plain", 3.0)):
        write_run(tmp_path / name / "run", result_like(real_result, lam=lam))
    write_run(tmp_path / "alone", result_like(real_result, seed=7))
    monkeypatch.chdir(tmp_path / "alone")
    found = [tmp_path / "lam50" / "run", tmp_path / "plain", tmp_path / "plain" / "deep" / "plain", Path()]
    results = read_results([*found, tmp_path / "lam50"])  # one of them twice
    names = results.rows.groupby("run")["lam"].unique().map(list).to_dict()
    two = {f"{tmp_path.name}/plain/run": [0.0], "deep/plain/run": [3.0]}
    assert names == {"lam50/run": [50.0], "alone": [0.0], **two}
    assert results.workdirs["lam50/run"].samefile(tmp_path / "lam50" / "run")
    assert results.workdirs["deep/plain/run"].samefile(found[2] / "run")


@pytest.mark.parametrize("content", ["{", '{"schema": "jl1.sweep/9", "runs": []}', '{"schema": "jl1.sweep/1"}', "[]"])
def test_a_damaged_sweep_is_named(real_result, tmp_path, content):
    write_run(tmp_path / "a", result_like(real_result))
    (tmp_path / "sweep.json").write_text(content)
    results = read_results([tmp_path])
    assert results.notes[0].startswith(f"{tmp_path / 'sweep.json'} is left out: ")
    assert len(results.rows) == 2


def test_a_run_that_is_not_finished_is_missing(real_result, tmp_path):
    (write_run(tmp_path / "a", result_like(real_result)) / "result.json").unlink()
    assert read_results([tmp_path]).rows["status"].tolist() == ["missing"]


def test_folders_and_files_that_are_not_there_or_are_something_else_are_refused(tmp_path):
    with pytest.raises(UserError, match="there is no folder"):
        read_results([tmp_path / "none"])
    with pytest.raises(UserError, match="there is no file"):
        read_results([], [tmp_path / "none.csv"])
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match="has no column accuracy, attack"):
        read_results([], [tmp_path / "other.csv"])
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(UserError, match=r"is no rows\.csv, as `jl1 table"):
        read_results([], [tmp_path / "empty.csv"])


ROW = {
    **{"dataset": "mnist", "model": "C", "lam": "50.0", "seed": "0", "attack": "fgsm", "epsilon": "0.3"},
    **{"accuracy": "0.5", "num_examples": "1000"},
}
"""The columns that a file of rows must have."""


def csv_of(path, *rows, end=""):
    """Write such a file."""
    path.write_text("".join(",".join(line) + end + "\n" for line in ([*rows[0]], *(row.values() for row in rows))))
    return path


@pytest.mark.parametrize("number", [7, 9])
def test_a_line_with_more_or_fewer_fields_than_the_header_is_refused(tmp_path, number):
    path = csv_of(tmp_path / "rows.csv", ROW)
    fields = [*ROW.values(), ""][:number]
    path.write_text(f"{path.read_text()}\n{','.join(fields)}\n")  # after an empty line, which is none
    with pytest.raises(
        UserError, match=rf"rows\.csv is no rows\.csv, .*: line 4 has {number} fields, and the header 8"
    ):
        read_results([], [path])


def test_a_column_twice_is_refused_and_one_of_no_meaning_here_is_not(tmp_path):
    path = csv_of(tmp_path / "rows.csv", ROW, end=",,")
    assert read_results([], [path]).rows[["lam", "accuracy"]].values.tolist() == [[50.0, 0.5]]
    path.write_text(f"lam,{','.join(ROW)}\n")
    with pytest.raises(UserError, match="it has the column lam more than once"):
        read_results([], [path])


def test_a_spreadsheets_mark_of_unicode_is_no_part_of_a_name(tmp_path):
    path = csv_of(tmp_path / "rows.csv", ROW)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert read_results([], [path]).rows["dataset"].tolist() == ["mnist"]


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        *(("lam", value, "a number, 0 or more") for value in ('"50,0"', "fifty", "nan", "inf", "-1")),
        ("epsilon", "8/255", "a number, 0 or more"),
        ("train_epsilon", "8/255", "a number, 0 or more"),
        *(("num_examples", value, "a whole number, 0 or more") for value in ("ten", "10000.5", "inf", "-10")),
        *(("accuracy", value, "a number from 0 to 1") for value in ('"0,5"', "90%", "98.5", "-0.1", "nan")),
        ("interval_high", "90", "a number from 0 to 1"),
        ("status", "done", "finished, interrupted, missing"),
        ("when", "later", "final, on the way"),
    ],
)
def test_a_cell_that_cannot_be_read_is_refused_with_its_line(tmp_path, column, value, said):
    path = csv_of(tmp_path / "rows.csv", ROW | {column: ""}, ROW | {column: value})
    with pytest.raises(UserError, match=rf"^--rows: .*rows\.csv, line 3: {column} is .*, and must be {said}") as caught:
        read_results([], [path])
    assert value.strip('"') in str(caught.value)


@pytest.mark.parametrize("epoch", [{}, {"epoch": ""}, {"epoch": "0"}, {"epoch": "0.0"}])
def test_a_figure_on_the_way_needs_its_epoch(tmp_path, epoch):
    path = csv_of(tmp_path / "rows.csv", ROW | {"when": "on the way"} | epoch)
    with pytest.raises(UserError, match="line 2: when is 'on the way', and must come with the epoch, 1 or more"):
        read_results([], [path])


def test_empty_cells_keep_their_defaults(tmp_path):
    path = csv_of(tmp_path / "rows.csv", ROW | {"status": "", "when": "", "train_epsilon": "", "lam": "", "epoch": ""})
    row = read_results([], [path]).rows.iloc[0]
    assert tuple(row[["status", "when", "train_epsilon", "lam"]]) == ("finished", "final", 0.0, 0.0)
    assert write_rows(read_results([], [path]).rows, tmp_path / "again.csv").exists()
