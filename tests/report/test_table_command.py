"""`jl1 table` as a user runs it."""

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from quick import run_jl1
from synthetic import evaluated_row, result_like, write_run, write_seeds

from jl1.cli import main

PLAIN, LARGE = [0.1, 0.2, 0.15], [0.5, 0.7, 0.6]
DOCS = Path(__file__).parents[2] / "docs" / "results"

WITHOUT_JAX = """\
import sys
from jl1.cli import main
status = main(sys.argv[1:])
loaded = {"jax", "jaxlib", "flax", "optax"} & {*sys.modules}
sys.exit(f"imported {loaded}" if loaded else status)
"""


@pytest.fixture(scope="module")
def runs(real_result, tmp_path_factory):
    """Three seeds at two lambdas."""
    folder = tmp_path_factory.mktemp("runs")
    write_seeds(folder, real_result, PLAIN)
    write_seeds(folder, real_result, LARGE, lam=50.0)
    return folder


def test_a_thousand_results_are_read_without_jax(real_result, tmp_path):
    for seed, lam in itertools.product(range(100), range(10)):
        accuracies = ((("fgsm", 0.3), (seed + lam) / 200),)
        made = result_like(real_result, lam=float(lam), seed=seed, accuracies=accuracies)
        write_run(tmp_path / "runs" / f"{lam}-{seed}", made, evaluation=[evaluated_row("pgd", 0.1, 0.1, epoch=1)])
    process = subprocess.run(
        [sys.executable, "-c", WITHOUT_JAX, "table", f"--workdir={tmp_path / 'runs'}", f"--out={tmp_path / 'out'}"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "COLUMNS": "400"},
    )
    assert process.returncode == 0, process.stderr
    assert "n=100" in process.stdout
    assert len(pd.read_csv(tmp_path / "out" / "rows.csv")) == 2000
    assert (tmp_path / "out" / "lambda.png").exists()


def test_it_prints_tables_with_the_paper_beside_and_writes_them(runs, tmp_path):
    status, output = run_jl1("table", f"--workdir={runs}", f"--out={tmp_path / 'out'}", cwd=tmp_path)
    assert status == 0, output
    for text in ("60.00 +- 10.00 (n=3)", "29.92 +- 14.24", "Welch's t-test", "paper, table2", "files: "):
        assert text in output
    assert "Warning" not in output
    assert "Traceback" not in output
    markdown = (tmp_path / "out" / "table.md").read_text()
    assert f"    jl1 table --workdir={runs} --out={tmp_path / 'out'}" in markdown
    assert "| fgsm at 0.3 | 15.00 +- 5.00 (n=3) | 60.00 +- 10.00 (n=3) |" in markdown
    assert r"fgsm at 0.3 & 15.00 $\pm$ 5.00 (n=3)" in (tmp_path / "out" / "table.tex").read_text()
    cells = pd.read_csv(tmp_path / "out" / "table.csv")
    assert cells.loc[(cells["lam"] == 50) & (cells["attack"] == "fgsm"), "mean"].tolist() == pytest.approx([0.6])


def test_every_number_comes_again_from_the_rows_alone(runs, real_result, tmp_path):
    write_seeds(tmp_path / "more", real_result, [0.4], lam=10.0)
    missing = {"name": "run-lam10-seed9", "overrides": {"penalty.lam": 10.0, "seed": 9}}
    there = {"name": "run-lam10-seed0", "overrides": {"penalty.lam": 10.0, "seed": 0}}
    sweep = {"schema": "jl1.sweep/1", "runs": [there, missing]}
    (tmp_path / "more" / "sweep.json").write_text(json.dumps(sweep))
    assert main(["table", f"--workdir={runs},{tmp_path / 'more'}", f"--out={tmp_path / 'one'}"]) == 0
    assert main(["table", f"--rows={tmp_path / 'one' / 'rows.csv'}", f"--out={tmp_path / 'two'}"]) == 0
    for name in ("table.csv", "trends.csv", "table.tex", "rows.csv"):
        assert (tmp_path / "two" / name).read_bytes() == (tmp_path / "one" / name).read_bytes()
    assert "40.00 (1/2)" in (tmp_path / "two" / "table.md").read_text()


def test_the_pictures_of_an_earlier_call_go_with_its_tables(runs, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    old = [out / name for name in ("curves.png", "cost-cifar10.png", "notes.png")]
    for path in old:
        path.write_text("old")
    assert main(["table", f"--workdir={runs}", f"--out={out}"]) == 0
    assert [path.name for path in old if path.exists()] == ["notes.png"]
    assert r"\item Paper: 10 repeats" in (out / "table.tex").read_text()


def test_damaged_files_are_warnings(runs, real_result, tmp_path):
    write_seeds(tmp_path, real_result, PLAIN)
    (tmp_path / "run-lam0-seed1" / "result.json").write_text("{")
    (tmp_path / "run-lam0-seed2" / "metrics.jsonl").write_text("{\n")
    status, output = run_jl1("table", f"--workdir={tmp_path}", "--out=out", cwd=tmp_path)
    assert status == 0
    for text in (output, (tmp_path / "out" / "table.md").read_text()):
        assert f"warning: {tmp_path / 'run-lam0-seed2' / 'metrics.jsonl'} is left out of curves.png: " in text
    assert f"warning: {tmp_path / 'run-lam0-seed1'} is left out: " in output
    assert "(n=2)" in output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "jl1 table needs --workdir=DIR"),
        (["--workdir=nowhere"], "there is no folder nowhere"),
        (["--rows=nowhere.csv"], "there is no file nowhere.csv"),
        (["--workdir=.", "--paper=table5"], "there is no table5; there are all, table2, table3, table4, none"),
        (["--workdir=."], "there is no result of a finished run in ."),
    ],
)
def test_bad_input_is_said_without_a_traceback(tmp_path, monkeypatch, capsys, arguments, said):
    monkeypatch.chdir(tmp_path)
    assert main(["table", *arguments]) == 2
    assert said in capsys.readouterr().err


def test_a_file_that_is_no_table_is_refused_in_one_line(tmp_path, capsys):
    (tmp_path / "README.md").write_text("# Title\none, two\nthree, four, five, six\n")
    assert main(["table", f"--rows={tmp_path / 'README.md'}"]) == 2
    error = capsys.readouterr().err
    assert "README.md is no rows.csv, as `jl1 table --out=FOLDER` writes it" in error
    assert len(error.splitlines()) == 1


def test_rows_that_are_read_and_written_in_one_call_survive_a_full_disk(runs, tmp_path, monkeypatch, capsys):
    out = tmp_path / "all"
    assert main(["table", f"--workdir={runs}", f"--out={out}"]) == 0
    (out / "cost-analysis.png").write_bytes(b"somebody's")
    before = {path.name: path.read_bytes() for path in out.iterdir()}

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("jl1.json_files.os.fsync", full)
    assert main(["table", f"--rows={out / 'rows.csv'}", f"--out={out}"]) == 2
    assert "No space left on device" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in out.iterdir() if path.suffix != ".tmp"} == before


def test_a_folder_that_cannot_be_written_is_refused(runs, tmp_path, capsys):
    (tmp_path / "out").write_text("in the way")
    assert main(["table", f"--workdir={runs}", f"--out={tmp_path / 'out'}"]) == 2
    assert "cannot write to" in capsys.readouterr().err


def test_a_folder_whose_name_is_no_text_is_written_with_a_backslash(runs, real_result, tmp_path):
    folder = os.fsdecode(os.fsencode(tmp_path) + b"/runs\xff")
    write_run(Path(folder) / os.fsdecode(b"run-\xe9"), result_like(real_result, seed=5))
    write_run(Path(folder) / os.fsdecode(b"damaged-\xe9"), result_like(real_result, seed=6))
    (Path(folder) / os.fsdecode(b"damaged-\xe9") / "result.json").write_text("{")
    status, output = run_jl1("table", f"--workdir={runs},{folder}", f"--out={folder}/out", cwd=tmp_path)
    assert status == 0, output
    assert r"runs\udcff/damaged-\udce9 is left out" in output
    assert r"run-\udce9" in (Path(folder) / "out" / "rows.csv").read_text()
    assert r"runs\udcff" in (Path(folder) / "out" / "table.md").read_text()


def test_a_tilde_behind_a_flag_is_the_home_folder(runs, tmp_path, monkeypatch):
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    assert main(["table", f"--workdir={runs}", "--out=~/out"]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["home"]
    assert (tmp_path / "home" / "out" / "lambda.png").exists()


@pytest.mark.parametrize("paper", ["table2", "none"])
def test_one_table_of_the_paper_or_none(runs, capsys, paper):
    assert main(["table", f"--workdir={runs}", f"--paper={paper}"]) == 0
    output = capsys.readouterr().out
    assert ("no run for 14 of 15 networks of table2" in output) == (paper == "table2")
    assert ("29.92" in output) == (paper == "table2")


@pytest.mark.parametrize("name", ["model_c_20_epochs", "robust_training", "quickstart_grid"])
def test_the_rows_in_the_documents_are_such_rows(name, capsys):
    assert main(["table", f"--rows={DOCS / f'{name}.csv'}"]) == 0
    output = capsys.readouterr().out
    assert {"model_c_20_epochs": "59.60", "robust_training": "89.68", "quickstart_grid": "83.20"}[name] in output
