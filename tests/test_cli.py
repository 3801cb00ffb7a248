"""The command line, as a user runs it."""

import json
import re
import shutil
import signal
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
from quick import OVERRIDES, quick_config, run_jl1, start_jl1
from sweeping import tiny_sweep

from jl1 import records
from jl1.cli import _COMMANDS, main
from jl1.cli_flags import define_workdir, describe_flags
from jl1.commands import evaluate
from jl1.configuration.files import config_to_dict, run_name
from jl1.configuration.flags import given_fields, parse_config
from jl1.display.results import show_result
from jl1.display.terminal import open_console
from jl1.errors import UserError
from jl1.runs.folder import open_run

PLAIN = ("--config=quickstart:plain", *OVERRIDES)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """What `jl1 train` prints and leaves, in a folder made from the config."""
    cwd = tmp_path_factory.mktemp("user")
    status, output = run_jl1("train", *PLAIN, cwd=cwd)
    return cwd, status, output


def test_train_prints_every_epoch_a_table_and_where_the_files_are(trained):
    cwd, status, output = trained
    assert status == 0, output
    (workdir,) = (cwd / "runs").iterdir()
    assert workdir.name == run_name(quick_config())
    assert "4,000 training / 500 validation / 500 test" in output
    for expected in ("epoch   1/3", "epoch   3/3", "examples/s", "left", "validation", f"files: runs/{workdir.name}"):
        assert expected in output
    result = json.loads((workdir / "result.json").read_text())
    for row in result["accuracies"]:
        assert f"{100 * row['accuracy']:.2f}" in output
    assert "Warning" not in output
    assert "Traceback" not in output


def test_the_example_of_the_documents_loads_the_run_and_attacks_it(trained):
    cwd, _, _ = trained
    (workdir,) = (cwd / "runs").iterdir()
    page = (Path(__file__).parents[1] / "docs" / "run_folder.md").read_text()
    (example,) = (code for code in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "load_trained" in code)
    found = {}
    exec(example.replace("runs/NAME", str(workdir)), found)
    assert len(found["attacked"]) == 100
    assert found["adversarial_accuracy"] < found["clean_accuracy"]
    assert found["clean_accuracy"] > 0.5


def test_a_second_train_is_refused_and_says_what_to_do(trained):
    cwd, _, _ = trained
    status, output = run_jl1("train", *PLAIN, cwd=cwd)
    assert status == 2
    assert "holds the finished run" in output
    assert "--config.seed" in output


def test_evaluate_adds_rows_to_the_run(trained):
    cwd, _, _ = trained
    (workdir,) = (cwd / "runs").iterdir()
    flags = ("--attacks=pgd", "--epsilons=0.05,0.1", "--pgd_steps=4", "--pgd_restarts=2")
    status, output = run_jl1("evaluate", f"--workdir={workdir}", *flags, cwd=cwd)
    assert status == 0, output
    assert "pgd-4 x 2" in output
    assert "on 500 test points" in output
    rows = json.loads((workdir / "evaluation.json").read_text())["accuracies"]
    assert [(row["attack"], row["epsilon"], row["num_steps"], row["num_restarts"]) for row in rows] == [
        ("pgd", 0.05, 4, 2),
        ("pgd", 0.1, 4, 2),
    ]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_evaluate_stopped_by_a_signal_goes_on_and_prints_what_the_verdicts_say(trained, tmp_path, number):
    cwd, _, _ = trained
    (workdir,) = (cwd / "runs").iterdir()
    workdir = shutil.copytree(workdir, tmp_path / "run", ignore=shutil.ignore_patterns("evaluation*"))
    flags = ("evaluate", f"--workdir={workdir}", "--epsilons=0.1", "--attacks=fgsm,pgd,apgd_ce", "--batch_size=20")
    process = start_jl1(*flags, "--max_points=200", cwd=cwd)
    while "measured: fgsm" not in process.stdout.readline():
        assert process.poll() is None
    process.send_signal(number)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 130, output
    assert "the same command goes on" in output
    kept = {path: path.stat().st_mtime_ns for path in (workdir / "evaluation" / "pieces").glob("fgsm-*")}
    status, output = run_jl1(*flags, "--max_points=200", cwd=cwd)
    assert status == 0, output
    assert len(kept) >= 10
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert "the first 200 of 500 test points" in output
    assert "worst case" in output
    for row in json.loads((workdir / "evaluation.json").read_text())["accuracies"]:
        if row["num_examples"] == 200:
            with np.load(workdir / row["verdicts"], allow_pickle=False) as verdicts:
                assert f"{100 * verdicts['stands'].mean():.2f}" in output


def test_train_without_a_config_goes_on_with_the_run_in_its_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    config = quick_config(training__num_epochs=1, optimizer__eps=1e-7)
    open_run(tmp_path / "run", config_to_dict(config))
    assert main(["train", "--workdir=run", "--config.seed=1"]) == 2
    assert "config.seed: 0 -> 1" in capsys.readouterr().err
    assert main(["train", "--workdir=run"]) == 0
    assert records.read_result(tmp_path / "run")["config"] == config_to_dict(config)
    assert main(["train", "--workdir=run"]) == 2
    assert "holds the finished run" in capsys.readouterr().err


def test_a_folder_without_a_run_begins_one_and_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    flags = ["train", "--workdir=new", *OVERRIDES, "--config.penalty.lam=0", "--config.adversarial.epsilon=0"]
    assert main([*flags, "--config.training.num_epochs=1"]) == 0
    note = "note: there is no run in new yet: this is a new one of --config=quickstart\n"
    assert capsys.readouterr().out.startswith(note)
    assert main(["train", "--workdir=new"]) == 2
    assert capsys.readouterr().out == ""
    assert main(["train", "--config=quickstart", "--workdir=new"]) == 2
    assert capsys.readouterr().out == ""


def test_training_the_config_of_a_sweep_says_that_it_is_one(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    flags = ["train", f"{tiny_sweep(tmp_path)}:5000"]  # a batch that is too large: nothing is trained
    name = f"{tmp_path / 'tiny.py'}:5000"
    assert main([*flags, "--config.optimizer.eps=1e-7"]) == 2
    assert capsys.readouterr().out == (
        f"note: {name} is a sweep of 4 runs (jl1 sweep --config={name}); this trains its base settings\n"
    )
    assert main([*flags, "--config.seed=1"]) == 2
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(("num_epochs", "words"), [(1, "after 1 epoch (fixed)"), (2, "after 2 epochs (fixed)")])
def test_one_epoch_is_not_called_epochs(num_epochs, words, tmp_path, capsys):
    result = {
        "accuracies": [{"attack": "clean", "epsilon": 0.0, "labels": "true", "accuracy": 0.5, "num_examples": 10}],
        "config": {"evaluation": {"points": "test"}},
        "l1_jacobian_norm": {"logits": 1.0, "probs": 1.0},
        "seconds": {"compile": 1.0, "train": 1.0, "evaluate": 1.0},
    }
    show_result(open_console(), result | {"num_epochs": num_epochs, "stopped_because": "fixed"}, tmp_path)
    assert words in capsys.readouterr().out


def test_control_c_ends_a_run_cleanly_with_what_it_has(tmp_path):
    flags = ("--config.training.num_epochs=100", "--workdir=run")
    process = start_jl1("train", "--config=quickstart:plain", *OVERRIDES, *flags, cwd=tmp_path)
    while "epoch   2/100" not in process.stdout.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 130, output
    assert "the last whole epoch is evaluated" in output
    assert "(interrupted)" in output
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["stopped_because"] == "interrupted"
    assert 2 <= result["num_epochs"] < 100
    last = f"interrupted after {result['num_epochs']} of 100 epochs; the same command goes on"
    assert output.splitlines()[-1] == last


def test_a_signal_in_the_figures_ends_them_and_the_same_command_goes_on(tmp_path):
    fields = ("--config.training.num_epochs=1", "--config.evaluation.batch_size=10")
    flags = ("train", "--config=quickstart:plain", *OVERRIDES, *fields, "--workdir=run")
    process = start_jl1(*flags, cwd=tmp_path)
    while "measured: clean" not in process.stdout.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert "training is complete; stopped before its figures were (" in output
    assert output.rstrip().endswith("the same command goes on with them")
    assert records.read_result(tmp_path / "run") is None
    checkpoints = {path: path.stat().st_mtime_ns for path in (tmp_path / "run" / "checkpoints").rglob("*")}
    status, output = run_jl1("train", "--workdir=run", cwd=tmp_path)
    assert status == 0, output
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run" / "checkpoints").rglob("*")} == checkpoints


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trian"], "error: there is no command 'trian'; see jl1 --help; did you mean train?"),
        (["foo"], "error: there is no command 'foo'; see jl1 --help"),
        (["train", "--config.penalty.lamm=1"], r"no field config.penalty.lamm; did you mean config.penalty.lam?"),
        (["train", "--config.penalty.lam=much"], "could not convert string to float: 'much'"),
        (["train", "--config.training.num_epochs=1.5"], "invalid literal for int"),
        (["train", "--config=quickstat"], "did you mean quickstart?"),
        (["train", "--config=nowhere.py"], "no config 'nowhere.py'"),
        (["train", "--config"], "no config ''"),
        (["train", "--workdri=x"], "Did you mean: workdir"),
        (["train", "quickstart"], "did not understand 'quickstart'"),
        (["train", "--config.model.name=D"], "must be one of A, B, C"),
        (["train", "--config.penalty.lam=-1"], "must be a number in [0, 1e30]"),
        (["train", "--config.training.batch_size=4001"], "there are only 4,000 examples"),
        (["train", "--config.model.name=B", "--config.model.padding=SAME"], "needs 2 of SAME or VALID"),
        (["train", "--config=train", "--config.data.name=kmnist"], "jl1 prepare --config.data.name=kmnist"),
        (["train", "--config=train", "--config.data.dir=nowhere"], "nowhere"),
        (["evaluate"], "needs --workdir"),
        (["evaluate", "--workdir=nowhere"], "nowhere is not the folder of a jl1 run"),
        (["evaluate", "--workdir=x", "--epsilons=0.1,8"], "'8' is not a number in [0, 1]"),
        (
            ["evaluate", "--workdir=x", "--attacks=fgsm,cw"],
            "--attacks: there is no cw; there are clean, noise, fgsm, pgd",
        ),
        (["evaluate", "--workdir=x", "--attacks=standart"], "did you mean standard?"),
        (["evaluate", "--workdir=x", "--attacks="], "--attacks: there is no name in it"),
        (["evaluate", "--workdir=x", "--epsilons=8"], "did you mean 8/255?"),
        (["evaluate", "--workdir=x", "--epsilons=8/0"], "'8/0' is not a number in [0, 1]"),
        (["evaluate", "--workdir=x", "--epsilons=8/255"], "x is not the folder of a jl1 run"),
        (["train", "--config.adversarial.epsilon=8/"], "could not convert string to float: '8/'"),
        (["evaluate", "--workdir=x", "--epsilons=nan"], "'nan' is not a number in [0, 1]"),
        (["evaluate", "--workdir=x", "--epsilons="], "--epsilons: there is no radius in it"),
        (["evaluate", "--workdir=x", "--norm=l1"], "--norm: there is no l1; there are linf, l2"),
        (["evaluate", "--workdir=x", "--norm=l2"], "--norm=l2 needs --epsilons"),
        (["evaluate", "--workdir=x", "--norm=l2", "--epsilons=-1"], "'-1' is not an L2 radius"),
        (["evaluate", "--workdir=x", "--norm=l2", "--epsilons=inf"], "'inf' is not an L2 radius"),
        (["evaluate", "--workdir=x", "--norm=l2", "--epsilons=2"], "x is not the folder of a jl1 run"),
        (["evaluate", "--workdir=x", "--budget=fats"], "there are full, few_classes, fast; did you mean fast?"),
        (["evaluate", "--workdir=x", "--points=train"], "--points: there is no train; there are test, validation"),
        (["evaluate", "--workdir=x", "--max_points=0"], "0 is not a positive integer"),
        (["evaluate", "--workdir=x", "--pgd_steps=0"], "0 is not a positive integer"),
        (["export", "--workdir=x"], "needs --workdir=DIR, the folder of a run, and --out=FOLDER, a new one"),
        (["export", "--workdir=nowhere", "--out=y"], "nowhere is not the folder of a jl1 run"),
        (["export", "--workdir=x", "--out=y", "--format=onnx"], "there is no onnx; there are safetensors, jax"),
        (["prepare", "--config.data.name=mnist_5"], "did you mean mnist_5k?"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_is_one_clear_error_and_leaves_nothing(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    monkeypatch.setenv("COLUMNS", "200")
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ")
    assert message in captured.err.replace("\n", " ")
    assert captured.out == ""
    assert list(tmp_path.iterdir()) == []


def test_help_names_the_commands_and_the_configs(capsys):
    assert main([]) == main(["help"]) == main(["--help"]) == 0
    text = capsys.readouterr().out
    for word in (*(f"\n  jl1 {command} " for command in _COMMANDS), "AutoAttack", "quickstart", "COMMAND --help"):
        assert text.count(word) == 3


@pytest.mark.parametrize("command", _COMMANDS)
def test_the_help_of_a_command_has_a_line_for_each_of_its_flags_alone(command, capsys):
    assert main([command, "--help"]) == main(["help", command]) == 0
    output = capsys.readouterr().out
    half = len(output) // 2
    assert output[:half] == output[half:]
    title, *lines = output[:half].splitlines()
    assert title.startswith(f"jl1 {command}: ")
    flags = [line.split()[0].partition("=")[0] for line in lines if line.startswith("  --")]
    expected = [f"--{name}" for name in describe_flags(*import_module(f"jl1.commands.{command}").FLAGS)]
    with_config = ["--config", "--config.FIELD"] if command in ("train", "sweep", "prepare") else []
    assert flags == with_config + expected
    assert len(lines) <= len(flags) + 4
    assert command != "evaluate" or "[0.1,0.2,0.3]" in output


def test_the_version_is_told(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"jl1 {version('jl1')}\n"


def test_a_radius_of_the_config_may_be_a_fraction():
    flags = ["--config.adversarial.epsilon=8/255", "--config.evaluation.epsilons=4/255,0.1"]
    config, _ = parse_config(flags, "train")
    assert (config.adversarial.epsilon, config.evaluation.epsilons) == (8 / 255, (4 / 255, 0.1))


@pytest.mark.parametrize(
    ("text", "attacks"),
    [
        ("standard", ("standard",)),
        ("noise,standard", ("noise", "standard")),
        ("noise, standard,", ("noise", "standard")),
        ("('noise', 'standard')", ("noise", "standard")),
        ("", ()),
    ],
)
def test_attacks_of_the_config_are_names_with_commas(text, attacks):
    assert parse_config([f"--config.evaluation.attacks={text}"], "train")[0].evaluation.attacks == attacks
    assert parse_config(["--config.evaluation.attacks", text], "train")[0].evaluation.attacks == attacks


def test_a_flag_and_its_value_may_be_two_arguments_and_no_value_is_taken_for_a_flag():
    flags = ["--config.adversarial.epsilon", "8/255", "--config.evaluation.epsilons", "4/255,0.1"]
    config, parsed = parse_config([*flags, "--workdir", "config.runs"], "train", define_workdir)
    assert (config.adversarial.epsilon, config.evaluation.epsilons) == (8 / 255, (4 / 255, 0.1))
    assert parsed.workdir == "config.runs"
    assert given_fields([*flags, "--workdir", "config.runs"]) == ["adversarial.epsilon", "evaluation.epsilons"]


def test_a_folder_may_be_called_like_a_command_of_its_own(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["evaluate", "--workdir", "help"]) == 2
    assert "help is not the folder of a jl1 run" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--workdir=~/mine"], "{home}/mine is not the folder of a jl1 run"),
        (["train", "--config=~/mine/none.py"], "{home}/mine/none.py has no get_config()"),
        (["sweep", "--config=~/mine/tiny.py", "--workdir=~/run"], "{home}/run is the folder of one run"),
        (["evaluate", "--workdir=~/none"], "{home}/none is not the folder of a jl1 run"),
        (["audit", "--workdir=~/none"], "{home}/none is not the folder of a jl1 run"),
        (["export", "--workdir=~/none", "--out=x"], "{home}/none is not the folder of a jl1 run"),
        (["table", "--workdir=~/none"], "there is no folder {home}/none"),
        (["table", "--rows=~/none.csv"], "there is no file {home}/none.csv"),
        (["evaluate", "--workdir=~nobody-of-this-name/run"], "~nobody-of-this-name/run is not the folder"),
    ],
)
def test_a_tilde_behind_a_flag_is_the_home_folder(arguments, message, tmp_path, monkeypatch, capsys):
    home = tmp_path / "home"
    (home / "mine").mkdir(parents=True)
    tiny_sweep(home / "mine")
    (home / "mine" / "none.py").touch()
    open_run(home / "run", config_to_dict(quick_config()))
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    assert message.format(home=home) in capsys.readouterr().err.replace("\n", " ")
    assert [path.name for path in tmp_path.iterdir()] == ["home"]


def test_autoattack_is_another_name_of_the_standard_ensemble(monkeypatch, tmp_path):
    chosen = []

    def evaluate_nothing(folder, *, options, **_):
        chosen.extend(options.attacks)
        raise UserError("nothing is evaluated")

    monkeypatch.setattr(evaluate, "evaluate_run", evaluate_nothing)
    assert main(["evaluate", f"--workdir={tmp_path}", "--attacks=fgsm,autoattack"]) == 2
    assert chosen == ["fgsm", "standard"]


def test_prepare_says_what_it_did(capsys):
    assert main(["prepare", "--config.data.name=mnist_5k"]) == 0
    assert "mnist_5k" in capsys.readouterr().out
