"""Sweeps on a real Ray cluster of this machine: workers, processes and nodes killed, and no run lost."""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from quick import final_params, run_jl1, same_bits, start_jl1
from sweeping import is_alive, log_of, tiny_sweep, wait_until

from jl1 import records
from jl1.cli import main
from jl1.cores import claimed_cores, usable_cores
from jl1.sweep.expansion import expand_runs

EPOCHS = "--config.training.num_epochs=12"


@pytest.fixture(scope="module")
def cluster():
    """The address of a cluster with two cores."""
    pytest.importorskip("ray", reason="needs the package ray: pip install '.[ray]'")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="jl1_ray_") as folder, pytest.MonkeyPatch.context() as patch:
        # The folder's name is short, since sockets lie in it; a token of the user's own clusters is not for this one.
        patch.setenv("RAY_AUTH_MODE", "disabled")
        flags = ("--head", f"--port={port}", f"--temp-dir={folder}", "--num-cpus=2", "--include-dashboard=false")
        head = start_node(*flags)
        yield f"127.0.0.1:{port}"
        end_node(head)


def start_node(*flags, before=()):
    """Start a node of a cluster as a user does, and wait until it is up."""
    ray = Path(sys.executable).with_name("ray")
    command = [*before, ray, "start", *flags, "--block", "--disable-usage-stats"]
    env = {**os.environ, "RAY_worker_niceness": "0"}  # the machine of the tests may be busy
    node = subprocess.Popen(
        command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    lines = []
    while not any("Ray runtime started" in line for line in lines):
        lines.append(node.stdout.readline())
        assert node.poll() is None, lines
    return node


def end_node(node):
    """End a node and all that it started."""
    node.terminate()
    node.communicate(timeout=60)


def holder_of(workdir, process):
    """Return the process that works on a run, and its parent, once it has made two more epochs."""
    before = len(records.read_metrics(workdir))
    wait_until(lambda: len(records.read_metrics(workdir)) >= before + 2, process)
    pid = json.loads((workdir / "holder.json").read_text())["pid"]
    return pid, int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def workdirs(cwd, num_epochs=12):
    """Return the folders of the runs of seeds 0, 1, 2 and of the one that fails."""
    return [cwd / "out" / run.name for run in expand_runs(str(cwd / "tiny.py"), {"training.num_epochs": num_epochs})]


@pytest.fixture(scope="module")
def disturbed(cluster, tmp_path_factory):
    """The folder of a sweep on the cluster, of which a worker and a process were killed, its status and output."""
    cwd = tmp_path_factory.mktemp("disturbed")
    flags = (tiny_sweep(cwd), EPOCHS, "--only=seed=0,1,9", "--workdir=out")
    sweep = start_jl1("sweep", *flags, "--engine=ray", f"--ray_address={cluster}", cwd=cwd)
    first, second, _, _ = workdirs(cwd)
    _, worker = holder_of(first, sweep)
    os.kill(worker, signal.SIGKILL)
    process, _ = holder_of(second, sweep)
    os.kill(process, signal.SIGKILL)
    output, _ = sweep.communicate(timeout=300)
    return cwd, sweep.returncode, output


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The folder of the same sweep by processes of this machine."""
    cwd = tmp_path_factory.mktemp("undisturbed")
    status, output = run_jl1("sweep", tiny_sweep(cwd), EPOCHS, "--only=seed=0,1,9", "--workdir=out", cwd=cwd)
    assert status == 1, output
    return cwd


def test_killed_workers_and_processes_lose_no_run(disturbed):
    cwd, status, output = disturbed
    first, second, _, _ = workdirs(cwd)
    assert status == 1, output
    assert "3 runs in out, 2 at once on the Ray cluster at " in output
    assert "2 finished, 1 failed, in out" in output
    assert f"lost {first.name}: WorkerCrashedError: " in output
    assert f"lost {second.name}: its process was ended by SIGKILL; going on with it" in output
    for workdir in (first, second):
        assert not (workdir / "failed.json").exists()
        assert log_of(workdir).count("lost: ") == 1
        assert "resumed after epoch" in log_of(workdir).partition("lost: ")[2]
    assert "Traceback" not in output
    assert "Warning" not in output


def test_they_end_with_the_bits_of_runs_that_nobody_disturbed_on_the_local_engine(disturbed, undisturbed):
    for one, other in zip(workdirs(disturbed[0])[:2], workdirs(undisturbed)[:2], strict=True):
        assert records.read_result(one)["accuracies"] == records.read_result(other)["accuracies"]
        assert same_bits(final_params(one), final_params(other))


def test_a_run_that_fails_by_itself_is_reported_and_not_tried_again(disturbed):
    cwd, _, output = disturbed
    failing = workdirs(cwd)[3]
    assert log_of(failing).count("jl1 train") == 1
    assert json.loads((failing / "failed.json").read_text())["exit_status"] == 2
    assert f"failed: {failing.name} (exit status 2), log out/{failing.name}/log.txt" in output


def start_long_sweep(cwd, cluster, *flags, seeds="0"):
    """Start a sweep on the cluster of a run that would take long, or of some."""
    flags = (tiny_sweep(cwd), "--config.training.num_epochs=100000", f"--only=seed={seeds}", "--workdir=out", *flags)
    return start_jl1("sweep", *flags, "--engine=ray", f"--ray_address={cluster}", cwd=cwd)


def test_control_c_ends_a_run_at_its_last_whole_epoch_and_withdraws_one_that_waits(cluster, tmp_path):
    queued = ("--cpus_per_run=2", "--workers=2")  # one of two runs has to wait
    sweep = start_long_sweep(tmp_path, cluster, *queued, seeds="0,1")
    workdir, waiting = workdirs(tmp_path, 100000)[:2]
    process, _ = holder_of(workdir, sweep)
    sweep.send_signal(signal.SIGINT)
    output, _ = sweep.communicate(timeout=60)
    assert sweep.returncode == 130, output
    assert "stopping: runs end at their last whole epoch" in output
    assert "0 finished, 0 failed, in out" in output
    assert "2 left; the same command goes on with them: jl1 sweep --config=" in output
    assert "stopping at the last whole epoch" in log_of(workdir)
    assert not (waiting / "log.txt").exists()
    assert not is_alive(process)


def test_a_cluster_without_such_a_node_is_refused_before_anything_is_written(cluster, tmp_path):
    flags = ("--engine=ray", f"--ray_address={cluster}", "--gpus_per_run=0.5")
    status, output = run_jl1("sweep", tiny_sweep(tmp_path), *flags, cwd=tmp_path)
    assert status == 2
    assert "no node has 1 CPU and 0.5 GPU for a run; there are nodes of 2 CPU and 0 GPU" in output.replace("\n", " ")
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.py"]


@pytest.mark.parametrize(
    ("address", "message"),
    [("127.0.0.1:1", "no Ray cluster answers at 127.0.0.1:1"), ("head", "give auto, local or HOST:PORT")],
)
def test_an_address_without_a_cluster_is_refused_at_once(address, message, tmp_path, monkeypatch, capsys):
    pytest.importorskip("ray", reason="needs the package ray: pip install '.[ray]'")
    monkeypatch.chdir(tmp_path)
    assert main(["sweep", "--config=fashion", "--engine=ray", f"--ray_address={address}"]) == 2
    assert message in capsys.readouterr().err.replace("\n", " ")
    assert list(tmp_path.iterdir()) == []


def test_without_ray_the_error_says_what_to_install_and_all_else_goes_without(tmp_path):
    program = """if True:
        import sys
        sys.modules["ray"] = None  # as if it were not there
        from jl1.cli import main
        assert main(["help"]) == 0
        assert main(["sweep", "--config=fashion", "--shard=9/10"]) == 0  # a shard without a run
        sys.exit(main(["sweep", "--config=fashion", "--engine=ray"]))
    """
    ended = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert ended.returncode == 2, ended.stderr
    assert "pip install '.[ray]'" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_cores_that_are_claimed_are_not_claimed_twice_while_there_are_others():
    usable = usable_cores()
    with claimed_cores(1) as one, claimed_cores(len(usable)) as all_others_first:
        assert len(one) == 1
        assert all_others_first[-1] == one[0]
        assert sorted(all_others_first) == usable
    with claimed_cores(1) as again:
        assert again == one


@pytest.mark.slow
def test_a_run_that_is_lost_again_and_again_without_a_new_epoch_is_given_up(cluster, tmp_path):
    sweep = start_long_sweep(tmp_path, cluster, "--max_retries=1")
    workdir = workdirs(tmp_path, 100000)[0]
    killed = set()
    while sweep.poll() is None:
        holder = workdir / "holder.json"
        pid = json.loads(holder.read_text())["pid"] if holder.exists() else sweep.pid
        if pid not in {sweep.pid, *killed} and log_of(workdir).count("jl1 train") == len(killed) + 1:
            os.kill(pid, signal.SIGKILL)
            killed.add(pid)
        time.sleep(0.05)
    output, _ = sweep.communicate()
    assert sweep.returncode == 1, output
    assert len(killed) == 2
    assert f"failed {workdir.name}: its process was ended by SIGKILL" in output
    assert (
        "lost: its process was ended by SIGKILL" in json.loads((workdir / "failed.json").read_text())["last_lines"][-1]
    )


@pytest.mark.slow
@pytest.mark.parametrize("numbers", [(signal.SIGKILL,), (signal.SIGINT, signal.SIGTERM)], ids=["killed", "twice"])
def test_the_processes_of_a_sweep_that_is_killed_or_interrupted_twice_end(numbers, cluster, tmp_path):
    sweep = start_long_sweep(tmp_path, cluster)
    process, worker = holder_of(workdirs(tmp_path, 100000)[0], sweep)
    for number in numbers:
        sweep.send_signal(number)
    output, _ = sweep.communicate(timeout=60)
    assert "Traceback" not in output
    end = time.monotonic() + 60
    while is_alive(process) or is_alive(worker):
        assert time.monotonic() < end
        time.sleep(0.1)


@pytest.mark.slow
def test_a_sweep_that_is_given_no_cluster_starts_one_and_takes_it_along_when_it_ends(tmp_path, monkeypatch):
    pytest.importorskip("ray", reason="needs the package ray: pip install '.[ray]'")
    monkeypatch.setenv("HOME", str(tmp_path))  # Ray keeps the token of its clusters there
    for name in ("RAY_ADDRESS", "RAY_AUTH_MODE"):
        monkeypatch.delenv(name, raising=False)
    flags = (tiny_sweep(tmp_path), "--only=seed=0", "--workdir=out", "--engine=ray")
    status, output = run_jl1("sweep", *flags, "--dry_run", cwd=tmp_path)
    assert status == 0, output
    assert "1 runs, 0 finished, 0 failed, 1 left" in output
    assert "at once on a Ray cluster of its own on this machine: about" in output
    assert not (tmp_path / "out").exists()
    status, output = run_jl1("sweep", *flags, cwd=tmp_path)
    assert status == 0, output
    assert "usage" not in output
    assert records.read_result(workdirs(tmp_path, 1)[0])


@pytest.mark.slow
def test_a_node_that_dies_takes_no_run_with_it(cluster, tmp_path):
    node = start_node(f"--address={cluster}", "--num-cpus=4")
    flags = ("--cpus_per_run=3", "--config.training.num_epochs=20")  # there is room for it on that node alone
    sweep = start_long_sweep(tmp_path, cluster, *flags)
    workdir = workdirs(tmp_path, 20)[0]
    holder_of(workdir, sweep)
    os.killpg(node.pid, signal.SIGKILL)
    node.communicate()
    wait_until(lambda: "lost: " in log_of(workdir), sweep)
    node = start_node(f"--address={cluster}", "--num-cpus=4")
    output, _ = sweep.communicate(timeout=300)
    end_node(node)
    assert sweep.returncode == 0, output
    assert f"lost {workdir.name}: " in output


@pytest.mark.slow
def test_a_node_that_does_not_see_the_folder_is_named_before_anything_runs(cluster, tmp_path):
    (tmp_path / "out").mkdir()
    apart = ("unshare", "--mount", "sh", "-c", 'mount -t tmpfs none "$0" && exec "$@"', str(tmp_path / "out"))
    if subprocess.run([*apart, "true"], capture_output=True).returncode:
        pytest.skip("needs the right to mount, to start a node that sees another folder")
    node = start_node(f"--address={cluster}", "--num-cpus=1", before=apart)
    sweep = start_long_sweep(tmp_path, cluster)
    output, _ = sweep.communicate(timeout=120)
    end_node(node)
    assert sweep.returncode == 2, output
    assert f"does not see {tmp_path / 'out'}: give a --workdir that all nodes share" in output.replace("\n", " ")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"sweep.json", "lock"}
