"""Sweeps as a user runs them: two at once, killed, with a run that fails; and what they expand to."""

import io
import json
import os
import shutil
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from quick import quick_config, run_jl1, start_jl1
from rich.console import Console
from sweeping import TINY, is_alive, log_of, tiny_sweep, wait_until

from jl1 import records
from jl1.cli import main
from jl1.configuration.files import config_to_dict, load_config, run_name
from jl1.display.sweeps import open_view
from jl1.errors import UserError
from jl1.runs.folder import open_run
from jl1.sweep import expand
from jl1.sweep.expansion import SweepRun, expand_runs, select, take_shard
from jl1.sweep.folder import write_sweep
from jl1.sweep.pace import Pace, forecast, kind_of, measure_paces
from jl1.sweep.scheduler import State, _has_ended


@pytest.fixture(scope="module")
def two_sweeps(tmp_path_factory):
    """The folder of two sweeps that were started at once on it, and what they printed."""
    cwd = tmp_path_factory.mktemp("user")
    flags = ("sweep", tiny_sweep(cwd), "--workdir=out", "--workers=1")
    processes = [start_jl1(*flags, cwd=cwd) for _ in range(2)]
    outputs = [process.communicate(timeout=300)[0] for process in processes]
    return cwd / "out", [process.returncode for process in processes], outputs


def test_two_sweeps_at_once_do_each_run_once_and_both_end_with_all_done(two_sweeps):
    folder, statuses, outputs = two_sweeps
    assert statuses == [1, 1], outputs
    runs = expand_runs(f"{folder.parent / 'tiny.py'}")
    assert {path.name for path in folder.iterdir()} == {"sweep.json", "lock", *(run.name for run in runs)}
    for run in runs[:3]:
        assert log_of(folder / run.name).count("model C on mnist_5k") == 1
        assert records.read_result(folder / run.name)["config"] == config_to_dict(run.config)
    for output in outputs:
        assert "3 finished, 1 failed, in out" in output
        assert "Traceback" not in output
        assert "Warning" not in output


def test_the_list_of_the_runs_is_on_disk(two_sweeps):
    folder, _, _ = two_sweeps
    content = json.loads((folder / "sweep.json").read_text())
    runs = expand_runs(f"{folder.parent / 'tiny.py'}")
    assert set(content) == {"schema", "config", "command", "runs"}
    assert content["schema"] == "jl1.sweep/1"
    assert content["config"] == str(folder.parent / "tiny.py")
    assert content["command"].startswith("jl1 sweep --config=")
    assert content["runs"] == [{"name": run.name, "overrides": run.overrides} for run in runs]


def test_fields_are_listed_as_the_config_has_them_and_data_by_their_whole_path(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(TINY.replace('{"seed": seed}', '{"seed": seed, "penalty.lam": 3}'))
    monkeypatch.chdir(tmp_path)
    run, *_ = expand_runs("mine.py", {"data.dir": "digits"})
    assert repr(run.overrides["penalty.lam"]) == repr(run.config.penalty.lam) == "3.0"
    assert run.overrides["data.dir"] == run.config.data.dir == str(tmp_path / "digits")


def test_sweeps_that_write_their_lists_at_once_lose_none(tmp_path):
    lists = [[SweepRun(f"run{index}", {"seed": index}, None)] for index in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda runs: write_sweep(tmp_path, config="tiny", command="jl1 sweep", runs=runs), lists))
    assert {run["name"] for run in records.read_sweep(tmp_path)} == {f"run{index}" for index in range(8)}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"schema": "jl1.sweep/1", "ru', "sweep.json is damaged: "),
        ("[]", "sweep.json is damaged: its content has another form"),
        ("null", "sweep.json is damaged: its content has another form"),
        ('{"schema": "jl1.sweep/1"}', "sweep.json is damaged: it has no 'runs'"),
        ('{"schema": "jl1.sweep/1", "runs": [1]}', "sweep.json is damaged: an entry of its 'runs' has another form"),
        ('{"runs": []}', "sweep.json is damaged: it has no 'schema'"),
        ('{"schema": "jl1.sweep/2", "runs": []}', "its schema is jl1.sweep/2, and this version reads jl1.sweep/1"),
    ],
)
def test_a_list_that_cannot_be_read_is_refused_and_left_as_it_is(content, message, tmp_path, capsys):
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "sweep.json").write_text(content)
    assert main(["sweep", tiny_sweep(tmp_path), f"--workdir={folder}", "--only=seed=0"]) == 2
    assert message in capsys.readouterr().err.replace("\n", " ")
    assert (folder / "sweep.json").read_text() == content
    assert {path.name for path in folder.iterdir()} == {"sweep.json", "lock"}


def test_a_failed_run_is_reported_with_its_log_and_what_tries_it_again(two_sweeps):
    folder, _, outputs = two_sweeps
    (run,) = select(expand_runs(f"{folder.parent / 'tiny.py'}"), ["seed=9"])
    failure = json.loads((folder / run.name / "failed.json").read_text())
    assert (failure["exit_status"], failure["killed_by"]) == (2, None)
    assert "padding" in failure["last_lines"][-1]
    for output in outputs:
        assert f"failed: {run.name} (exit status 2), log out/{run.name}/log.txt" in output
        assert f"jl1 train --workdir=out/{run.name}" in output
        assert "--workers=1 --retry_failed" in output


def test_failed_runs_are_tried_again_only_when_asked_for_and_finished_ones_never(two_sweeps, monkeypatch, capsys):
    folder, _, _ = two_sweeps
    monkeypatch.chdir(folder.parent)
    logs = {path: path.read_text() for path in folder.glob("*/log.txt")}
    arguments = ["sweep", "--config=tiny.py", "--workdir=out"]
    assert main(arguments) == 1
    output = capsys.readouterr().out
    assert "failed earlier, and not tried again: mnist_5k-C-plain-seed9-" in output
    assert "to try all of them again: jl1 sweep --config=tiny.py --workdir=out --retry_failed" in output
    assert {path: path.read_text() for path in folder.glob("*/log.txt")} == logs
    assert main([*arguments, "--retry_failed"]) == 1
    assert "failed: mnist_5k-C-plain-seed9-" in capsys.readouterr().out
    again = {path: path.read_text() for path in folder.glob("*/log.txt")}
    changed = [path for path in logs if again[path] != logs[path]]
    assert [path.parent.name for path in changed] == [expand_runs("tiny.py")[3].name]
    assert main([*arguments, "--only=seed=0,1,2"]) == 0
    assert len(json.loads((folder / "sweep.json").read_text())["runs"]) == 4
    capsys.readouterr()


def test_a_dry_run_predicts_from_the_runs_that_are_there_and_writes_nothing(two_sweeps, monkeypatch, capsys):
    folder, _, _ = two_sweeps
    monkeypatch.chdir(folder.parent)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    dry = ("--workdir=out", "--dry_run")
    assert main(["sweep", "--config=tiny.py", "--config.training.num_epochs=7", "--workers=2", *dry]) == 0
    output = capsys.readouterr().out
    assert "4 runs, 0 finished, 0 failed, 4 left" in output
    assert "measured by a few steps: " in output
    assert "will fail, as mnist_5k-C-plain-seed9-" in output
    assert "with 2 at once on this machine: about 0:" in output  # minutes, even on a machine under load
    assert "seed=2 training.num_epochs=7" in output
    assert main(["sweep", "--config=tiny.py", *dry]) == 0
    assert "4 runs, 3 finished, 1 failed (--retry_failed tries them again), 0 left" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_the_pace_of_finished_runs_is_that_of_the_others_of_their_kind(two_sweeps):
    folder, _, _ = two_sweeps
    runs = expand_runs(f"{folder.parent / 'tiny.py'}")
    paces = measure_paces(runs, folder)
    pace = paces[kind_of(runs[0].config)]
    assert pace.num_epochs == 1
    assert pace.epoch_seconds > 0
    assert pace.other_seconds > 0
    assert kind_of(runs[0].config) == kind_of(runs[2].config) != kind_of(runs[3].config)
    assert forecast(runs, folder, paces, num_workers=2) is None


def test_a_terminal_shows_a_table_of_what_runs_and_when_it_ends(two_sweeps):
    folder, _, _ = two_sweeps
    first, second, third, last = expand_runs(f"{folder.parent / 'tiny.py'}")
    console = Console(force_terminal=True, width=200, file=io.StringIO())
    with open_view(console, folder) as view:
        view.look(State(running=[first], waiting=[second], elsewhere=[], finished=[third], failed=[last]), 2)
    shown = console.file.getvalue()
    validation = records.read_metrics(folder / first.name)[0]["validation_accuracy"]
    for expected in (first.name, "epoch 1 of 1", f"{validation:.2%}", "1 finished, 1 running, 0 elsewhere, 1 left"):
        assert expected in shown
    assert "1 failed; about " in shown


def test_the_work_that_is_left_is_shared_with_those_who_hold_runs_elsewhere(two_sweeps, tmp_path):
    ours, theirs, *waiting = [SweepRun(f"run{index}", {}, quick_config()) for index in range(4)]
    epoch = '{"epoch": 1, "seconds": 1800.0, "examples_per_second": 2.0, "validation_accuracy": 0.5}\n'  # one of three
    for run in (ours, theirs, *waiting):
        (tmp_path / run.name).mkdir()
        (tmp_path / run.name / "metrics.jsonl").write_text(epoch)

    def shown():
        console = Console(force_terminal=True, width=200, file=io.StringIO())
        with open_view(console, tmp_path) as view:
            view.look(State(running=[ours], waiting=waiting, elsewhere=[theirs], finished=[], failed=[]), 1)
        return console.file.getvalue()

    assert "about 2:00:00" in shown()
    shutil.copy(next(two_sweeps[0].glob("*/result.json")), tmp_path / theirs.name)
    assert "about 3:00:00" in shown()


@pytest.mark.parametrize("line", ['{"epoch": gar', "[]", "{}", '{"seconds": "long"}', "\N{FORM FEED}"])
def test_a_damaged_run_is_left_out_of_what_is_shown_and_predicted(line, two_sweeps, tmp_path):
    folder = shutil.copytree(two_sweeps[0], tmp_path / "out")
    first, second, third, _ = runs = expand_runs(f"{two_sweeps[0].parent / 'tiny.py'}")
    metrics = folder / first.name / "metrics.jsonl"
    metrics.write_text(f"{line}\n{metrics.read_text()}")
    (folder / second.name / "result.json").write_text("{}")
    paces = measure_paces(runs, folder)
    assert paces[kind_of(first.config)].num_epochs == 1
    console = Console(force_terminal=True, width=200, file=io.StringIO())
    with open_view(console, folder) as view:
        view.look(State(running=[first, second], waiting=[], elsewhere=[], finished=[third], failed=[]), 2)
    assert "epoch 0 of 1" in console.file.getvalue()
    assert "epoch 1 of 1" in console.file.getvalue()


def test_a_run_with_a_damaged_result_has_failed_and_stops_no_other(two_sweeps, tmp_path, monkeypatch, capsys):
    folder = shutil.copytree(two_sweeps[0], tmp_path / "out")
    monkeypatch.chdir(two_sweeps[0].parent)
    first, second, _, last = expand_runs("tiny.py")
    (folder / first.name / "result.json").write_text("{}")
    for path in (folder / second.name).iterdir():  # to be trained
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    (folder / last.name / "failed.json").write_text('{"foo": 1}')
    assert main(["sweep", "--config=tiny.py", f"--workdir={folder}", "--workers=1"]) == 1
    output = capsys.readouterr().out.replace("\n", " ")
    assert "2 finished, 2 failed" in output
    assert f"failed {first.name}: " in output
    assert "result.json is damaged: it has no 'schema'" in output
    assert f"failed earlier, and not tried again: {last.name} (exit status unknown)" in output
    assert "failed.json is damaged: it has no 'exit_status'" in output
    assert records.is_finished(folder / second.name)


def test_to_ask_whether_a_run_has_ended_makes_no_folder(two_sweeps, tmp_path):
    folder = two_sweeps[0]
    assert not _has_ended(tmp_path / "moved_away")
    assert list(tmp_path.iterdir()) == []
    ended = [_has_ended(path.parent) for path in sorted(folder.glob("*/config.json"))]
    assert ended.count(True) == len(list(folder.glob("*/result.json"))) > 0


def test_a_run_that_cannot_be_opened_is_said_with_the_reason(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    config = tiny_sweep(tmp_path)
    (run,) = select(expand_runs("tiny.py"), ["seed=1"])
    workdir = tmp_path / "out" / run.name
    workdir.mkdir(parents=True)
    (workdir / "thesis.tex").write_text("important")
    arguments = ["sweep", config, "--workdir=out", "--only=seed=1"]
    assert main(arguments) == 1
    end = capsys.readouterr().out.replace("\n", " ").partition("0 finished, 1 failed, in out")[2]
    assert f"failed: {run.name}: out/{run.name} is not the folder of a jl1 run (it has thesis.tex but" in end
    assert "log.txt" not in end
    assert "exit status" not in end
    assert main([*arguments, "--dry_run"]) == 0
    assert "1 runs, 0 finished, 0 failed, 1 left" in capsys.readouterr().out
    assert {path.name for path in workdir.iterdir()} == {"thesis.tex", "lock", "holder.json"}


def test_shards_share_the_runs_out_and_a_bad_one_is_refused():
    runs = expand_runs("table3")
    shards = [take_shard(runs, f"{index}/7") for index in range(7)]
    assert sorted(run.name for shard in shards for run in shard) == sorted(run.name for run in runs)
    assert {len(shard) for shard in shards} == {11, 12}
    for text in ("7/7", "1", "-1/3", "0/0", "a/b"):
        with pytest.raises(UserError, match="give i/n"):
            take_shard(runs, text)


@pytest.mark.parametrize(
    ("field", "value", "is_another"),
    [("data.tiles", 2, True), ("training.batch_size", 7, True), ("seed", 5, False), ("penalty.lam", 3.0, False)],
)
def test_what_decides_how_long_an_epoch_takes_makes_another_kind(field, value, is_another):
    config = load_config("quickstart")
    changed = load_config("quickstart")
    changed.update_from_flattened_dict({field: value})
    assert (kind_of(changed) != kind_of(config)) == is_another


def test_a_forecast_fills_the_workers_and_says_what_bounds_it(tmp_path):
    runs = expand_runs("fashion")[:3]
    paces = {kind_of(run.config): Pace(10.0) for run in runs}
    predicted = forecast(runs, tmp_path, paces, num_workers=2)
    assert predicted == (400.0, False, True)
    open_ended = expand_runs("table2")[:3]
    paces = {kind_of(run.config): Pace(1.0, 5.0) for run in open_ended}
    assert forecast(open_ended, tmp_path, paces, num_workers=3) == (105.0, True, False)
    paces = {kind_of(run.config): Pace(1.0, 5.0, 30.0) for run in open_ended}
    assert forecast(open_ended, tmp_path, paces, num_workers=1) == (105.0, False, False)


def start_long_sweep(cwd):
    """Start a sweep of one run that would take long."""
    flags = ("--config.training.num_epochs=100000", "--only=seed=1", "--workdir=out", "--workers=1")
    return start_jl1("sweep", tiny_sweep(cwd), *flags, cwd=cwd)


def long_run(cwd):
    config = load_config(f"{cwd / 'tiny.py'}")
    config.training.num_epochs, config.seed = 100000, 1
    return cwd / "out" / run_name(config)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_the_processes_of_a_killed_sweep_end_and_the_next_one_goes_on(tmp_path):
    sweep = start_long_sweep(tmp_path)
    workdir = long_run(tmp_path)
    wait_until(lambda: len(records.read_metrics(workdir)) >= 2, sweep)
    pid = json.loads((workdir / "holder.json").read_text())["pid"]
    assert is_alive(pid)
    sweep.send_signal(signal.SIGKILL)
    sweep.communicate()
    end = time.monotonic() + 20
    while is_alive(pid):
        assert time.monotonic() < end
        time.sleep(0.05)
    num_epochs = len(records.read_metrics(workdir))
    again = start_long_sweep(tmp_path)
    wait_until(lambda: "resumed after epoch" in log_of(workdir), again)
    resumed_after = int(log_of(workdir).rpartition("resumed after epoch ")[2].split()[0])
    assert resumed_after >= num_epochs - 1
    wait_until(lambda: len(records.read_metrics(workdir)) > num_epochs, again)
    again.send_signal(signal.SIGINT)
    output, _ = again.communicate(timeout=60)
    assert again.returncode == 130, output
    assert "1 left; the same command goes on with them: jl1 sweep --config=" in output
    assert not is_alive(json.loads((workdir / "holder.json").read_text())["pid"])
    assert not (workdir / "failed.json").exists()
    assert records.read_result(workdir) is None


@pytest.mark.slow
def test_a_run_taken_over_from_a_killed_sweep_is_finished_by_the_one_that_waited(tmp_path):
    config = tiny_sweep(tmp_path)
    flags = (config, "--config.training.num_epochs=100", "--only=seed=1", "--workdir=out", "--workers=1")
    first = start_jl1("sweep", *flags, cwd=tmp_path)
    (run,) = select(expand_runs(str(tmp_path / "tiny.py"), {"training.num_epochs": 100}), ["seed=1"])
    workdir = tmp_path / "out" / run.name
    wait_until(lambda: len(records.read_metrics(workdir)) >= 1, first)
    second = start_jl1("sweep", *flags, cwd=tmp_path)
    while "elsewhere: " not in second.stdout.readline():
        assert second.poll() is None
    child = json.loads((workdir / "holder.json").read_text())["pid"]
    for pid in (first.pid, child):
        os.kill(pid, signal.SIGKILL)
    first.communicate()
    output, _ = second.communicate(timeout=300)
    assert second.returncode == 0, output
    straight, output = run_jl1("train", config, "--config.training.num_epochs=100", "--config.seed=1", cwd=tmp_path)
    assert straight == 0, output
    other = records.read_result(tmp_path / "runs" / run.name)
    assert records.read_result(workdir)["accuracies"] == other["accuracies"]


def test_a_sweep_is_expanded_to_valid_locked_configs_in_order(tmp_path):
    tiny_sweep(tmp_path)
    configs = expand(f"{tmp_path / 'tiny.py'}:500")
    assert [config.seed for config in configs] == [0, 1, 2, 9]
    assert [config.training.batch_size for config in configs] == [500] * 4
    with pytest.raises(AttributeError, match="locked"):
        configs[0].new_field = 1


def test_the_argument_reaches_a_sweep_that_takes_it(tmp_path):
    file = tmp_path / "one.py"
    text = TINY.partition("def sweep")[0] + "def sweep(add, arg='1'):\n    add(**{'seed': int(arg)})\n"
    file.write_text(text)
    assert [config.seed for config in expand(f"{file}:7")] == [7]
    assert [config.seed for config in expand(f"{file}")] == [1]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("add(**{'penalty.lamm': 1.0})", r"no field config\.penalty\.lamm; did you mean config\.penalty\.lam\?"),
        ("add(**{'penalty.lam': 'much'})", r"sets config\.penalty\.lam='much'"),
        ("add(**{'penalty.lam': -1.0})", "a negative lambda"),
        ("add(seed=1, penalty=2)", r"no field config\.penalty"),
        ("pass", "adds no run"),
        ("1 / 0", "fails with ZeroDivisionError"),
    ],
)
def test_a_bad_sweep_is_refused(body, message, tmp_path):
    file = tmp_path / "bad.py"
    file.write_text(TINY.partition("def sweep")[0] + f"def sweep(add):\n    {body}\n")
    with pytest.raises(UserError, match=message):
        expand(f"{file}")


def test_a_config_of_one_run_is_refused():
    with pytest.raises(UserError, match=r"train is one run: .*no sweep\(add\).*jl1 train --config=train:C"):
        expand("train:C")


def test_fields_of_the_command_line_outrank_the_sweep_and_runs_that_become_one_are_one(tmp_path):
    tiny_sweep(tmp_path)
    runs = expand_runs(f"{tmp_path / 'tiny.py'}", {"seed": 4, "penalty.lam": 2.0})
    assert [run.overrides for run in runs] == [
        {"seed": 4, "penalty.lam": 2.0},
        {"seed": 4, "model.padding": "SAME", "penalty.lam": 2.0},
    ]


def test_filters_keep_the_runs_with_one_of_the_values():
    runs = expand_runs("table3:C")
    kept = select(runs, ["seed=0,1,2", "penalty.lam=10", "adversarial.epsilon=0.3"])
    assert [(run.config.seed, run.config.penalty.lam) for run in kept] == [(0, 10.0), (1, 10.0), (2, 10.0)]
    assert len(select(expand_runs("readings"), ["penalty.outputs=probs"])) == 7  # the plain network's too
    with pytest.raises(UserError, match=r"--only=seed=10: no run has it; config.seed is one of 0, 1"):
        select(runs, ["seed=10"])
    with pytest.raises(UserError, match=r"did you mean config\.seed"):
        select(runs, ["sed=1"])
    with pytest.raises(UserError, match=r"there is no field config\.lam; did you mean config\.penalty\.lam\?"):
        select(runs, ["lam=10"])
    assert len(select(runs, ["adversarial.epsilon=3/10"])) == 20


@pytest.mark.parametrize(
    ("name", "number"),
    [
        *((f"{table}:{model}", number) for table, number in (("table2", 60), ("table3", 80)) for model in "ABC"),
        *(("table4", 60), ("readings", 25), ("baselines", 18), ("fashion", 6), ("figure1", 2)),
    ],
)
def test_the_sweeps_that_come_with_jl1_expand_to_different_runs(name, number):
    configs = expand(name)
    assert len({run_name(config) for config in configs}) == len(configs) == number


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sweep"], "needs --config=NAME"),
        (["sweep", "--config=train"], "no sweep(add)"),
        (["sweep", "--config=table2:D"], "table2:A, table2:B or table2:C"),
        (["sweep", "--config=table2", "--config.penalty.lamm=1"], "did you mean config.penalty.lam?"),
        (["sweep", "--config=fashion"], "error: fashion_mnist is not prepared on this machine"),
        (["sweep", "--config=table2", "--config.data.dir=nowhere"], "nowhere does not exist"),
        (["sweep", "--config=table2", "--cores=x"], "--cores: 'x' is none of the cores"),
        (["sweep", "--config=table2", "--cores="], "there is no core in it"),
        (["sweep", "--config=table2", "--workers=0"], "0 is not a positive integer"),
        (["sweep", "--config=table2", "--only=seed=99"], "no run has it"),
        (["sweep", "--config=table2", "--gpus_per_run=1"], "--gpus_per_run needs --engine=ray"),
        (["sweep", "--config=table2", "--engine=ray", "--cores=0"], "--cores needs --engine=local"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_is_one_clear_error_and_leaves_nothing(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    assert main(arguments) == 2
    assert message in capsys.readouterr().err.replace("\n", " ")
    assert list(tmp_path.iterdir()) == []


def test_the_command_that_goes_on_lacks_the_flag_and_nothing_that_is_only_called_like_it(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    config = tiny_sweep(tmp_path)
    (run,) = select(expand_runs(f"{tmp_path / 'tiny.py'}"), ["seed=9"])
    (tmp_path / "s_retry_failed" / run.name).mkdir(parents=True)
    failure = {"exit_status": 2, "killed_by": None, "last_lines": []}
    (tmp_path / "s_retry_failed" / run.name / "failed.json").write_text(json.dumps(failure))
    flags = ["--workdir=s_retry_failed", "--only=seed=9", "--retry_failed=false", "--noretry_failed"]
    assert main(["sweep", config, *flags]) == 1
    command = json.loads((tmp_path / "s_retry_failed" / "sweep.json").read_text())["command"]
    assert command == f"jl1 sweep {config} --workdir=s_retry_failed --only=seed=9"
    assert f"{command} --retry_failed" in capsys.readouterr().out.replace("\n", "")


def test_the_folder_of_one_run_is_refused(tmp_path, capsys):
    open_run(tmp_path / "run", config_to_dict(load_config("quickstart")))
    assert main(["sweep", tiny_sweep(tmp_path), f"--workdir={tmp_path / 'run'}"]) == 2
    assert "is the folder of one run" in capsys.readouterr().err
