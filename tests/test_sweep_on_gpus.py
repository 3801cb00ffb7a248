"""How runs of a sweep share GPUs, without one: what JAX is asked, and what the process of each run is told."""

from importlib.metadata import entry_points
from pathlib import Path

import pytest

from jl1.errors import UserError
from jl1.sweep.children import LocalEngine
from jl1.sweep.gpus import count_gpus

PLUGIN = """\
from pathlib import Path

def initialize():
    Path(__file__).with_name("asked").touch()
"""


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """A plugin of JAX without any device, installed for this process and its children."""
    (tmp_path / "no_device.py").write_text(PLUGIN)
    info = tmp_path / "no_device-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: no-device\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[jax_plugins]\nno_device = no_device\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path


@pytest.mark.skipif(bool(entry_points(group="jax_plugins")), reason="JAX has a plugin here")
def test_without_a_plugin_no_process_is_started_to_ask(monkeypatch):
    monkeypatch.setattr("sys.executable", "/no/such/python")
    assert count_gpus() == 0


def test_with_a_plugin_jax_is_asked_and_a_cpu_is_no_gpu(plugin):
    assert count_gpus() == 0
    assert (plugin / "asked").exists()


def test_where_jax_does_not_start_the_sweep_does_not_either(plugin, monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "typewriter")
    with pytest.raises(UserError, match=r"JAX does not start on this machine, so no run would: .*typewriter"):
        count_gpus()


@pytest.mark.parametrize(
    ("num_gpus", "told"),
    [
        (0, [(None, None)] * 3),
        (1, [("0", "0.25")] * 3),
        (2, [("0", "0.375"), ("1", None), ("0", "0.375")]),
    ],
)
def test_each_run_is_told_its_gpu_and_its_part_of_the_memory(tmp_path, num_gpus, told):
    engine = LocalEngine([[0], [0], [0]], num_gpus)
    children = []
    try:
        for number in range(3):
            (tmp_path / f"{number}").mkdir()
            children.append(engine.start(tmp_path / f"{number}"))
        environments = [_environment(child._process.pid) for child in children]
    finally:
        for child in children:
            child.kill()
            child.close()
    names = "JAX_CUDA_VISIBLE_DEVICES", "XLA_CLIENT_MEM_FRACTION"
    assert [tuple(each.get(name) for name in names) for each in environments] == told


def _environment(pid):
    """Read the variables that a process was started with."""
    lines = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return dict(line.decode().partition("=")[::2] for line in lines if line)
