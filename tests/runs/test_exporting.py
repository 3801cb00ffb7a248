"""Networks for other tools: what is written is the network of the run, and the documented ways to load it work."""

import hashlib
import importlib.util
import json
import re
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export
from networks import NETS, as_tree
from quick import quick_config
from safetensors.numpy import load_file, save

from jl1.cli import main
from jl1.errors import UserError
from jl1.experiment import train_and_evaluate
from jl1.layouts import describe_layers
from jl1.losses import cross_entropy
from jl1.models import ACTIVATIONS, AveragePool, Conv, Dense, SequentialNet, create_model
from jl1.runs.checkpoints import Checkpoints
from jl1.runs.exporting import export_logits, export_run
from jl1.runs.trained import load_trained

ROOT = Path(__file__).parents[2]
FILES = ["model.jax", "model.json", "model.safetensors", "points.safetensors"]
BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "other_tools.md").read_text(), re.DOTALL)
IN_TORCH, *WITH_LIBRARIES, IN_JAX = BLOCKS


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """A finished run whose best weights need not be its last."""
    folder = tmp_path_factory.mktemp("runs") / "finished"
    train_and_evaluate(quick_config(training__weights="best", training__num_epochs=2), folder)
    return folder


@pytest.fixture(scope="module")
def run(workdir):
    return load_trained(workdir)


@pytest.fixture(scope="module")
def folder(workdir, tmp_path_factory):
    """What is exported of it, by the name that the documents use."""
    out = tmp_path_factory.mktemp("user") / "export"
    assert [path.name for path in export_run(workdir, out)] == FILES
    return out


def test_params_are_those_of_the_run_to_the_last_bit(folder, run):
    stored = load_file(folder / "model.safetensors")
    for layer in ("layer_0", "layer_1", "layer_2", "output"):
        for part in ("kernel", "bias"):
            expected = np.asarray(run.params[layer][part])
            array = stored.pop(f"{layer}/{part}")
            assert array.dtype == np.float32
            np.testing.assert_array_equal(array, expected, strict=True)
    assert stored == {}


def test_the_points_are_the_first_of_the_test_set_and_their_logits_the_runs_own(folder, run):
    points = load_file(folder / "points.safetensors")
    np.testing.assert_array_equal(points["inputs"], run.data.test.inputs)
    np.testing.assert_array_equal(points["labels"], run.data.test.labels)
    logits = run.apply_fn(run.params, jnp.asarray(points["inputs"]))
    np.testing.assert_allclose(points["logits"], logits, rtol=1e-5, atol=1e-5)


def test_the_layout_says_what_the_network_is_and_where_it_comes_from(folder, workdir):
    layout = json.loads((folder / "model.json").read_text())
    assert layout["schema"] == "jl1.export/1"
    assert layout["input"] == {"shape": [28, 28, 1], "layout": "NHWC", "range": [0.0, 1.0]}
    assert (layout["num_classes"], layout["weights"]) == (10, "best")
    assert layout["result"] == json.loads((workdir / "result.json").read_text())
    config = json.dumps(layout["result"]["config"], sort_keys=True)
    assert layout["config_sha256"] == hashlib.sha256(config.encode()).hexdigest()
    named = {layer[part] for layer in layout["layers"] for part in ("kernel", "bias")}
    assert named == load_file(folder / "model.safetensors").keys()


@pytest.mark.parametrize(
    ("name", "shapes", "paddings", "strides"),
    [
        ("A", [[28, 28, 1], [14, 14, 64], [5, 5, 128], [1, 1, 128], [10]], [3, 0, 0, None], [2, 2, 1, None]),
        ("B", [[28, 28, 1], [28, 28, 128], [13, 13, 64], [128], [10]], [1, 0, None, None], [1, 2, None, None]),
        ("C", [[28, 28, 1], [512], [256], [128], [10]], [None] * 4, [None] * 4),
    ],
)
def test_the_layers_of_table_1(name, shapes, paddings, strides):
    layers = describe_layers(create_model(name), (28, 28, 1), activation="relu")
    assert [layer["input_shape"] for layer in layers] == shapes[:-1]
    assert [layer["output_shape"] for layer in layers] == shapes[1:]
    expected = [None if pads is None else [[pads, pads], [pads, pads]] for pads in paddings]
    assert [layer.get("padding") for layer in layers] == expected
    assert [layer.get("stride") for layer in layers] == strides
    assert [layer["activation"] for layer in layers] == ["relu", "relu", "relu", None]
    assert [layer["kernel"] for layer in layers] == [f"layer_{i}/kernel" for i in range(3)] + ["output/kernel"]
    assert [layer["kernel_layout"] for layer in layers] == ["IO" if pads is None else "HWIO" for pads in paddings]


def test_padding_that_differs_before_and_behind_is_written_out():
    net = NETS["conv_relu"]  # on 5x6: 3x3 windows with stride 2 need two more rows and one more column
    first, *_ = describe_layers(net.module, net.features, activation="relu")
    assert first["padding"] == [[1, 1], [0, 1]]
    assert first["output_shape"] == [3, 3, 2]


@pytest.mark.parametrize("name", ["dense_relu", "conv_softplus"])
@pytest.mark.usefixtures("quick_compile")
def test_the_exported_function_has_the_networks_logits_and_gradients_at_any_batch_size(name):
    net = NETS[name]
    params = jax.tree.map(jnp.float32, as_tree(net.params()))
    own_fn = partial(net.module.clone(convolution="library").apply, {"params": params})
    loaded = export.deserialize(bytearray(export_logits(own_fn, net.features)))
    assert set(loaded.platforms) == {"cpu", "cuda"}
    products = re.findall(
        r"stablehlo\.(?:dot_general|convolution).*", loaded.mlir_module() + loaded.vjp().mlir_module()
    )
    assert len(products) >= 2 * len(net.layers)
    assert all("HIGHEST" in product for product in products)  # float32, also where a device's default is less
    for size in (1, 3):
        inputs, labels = jnp.float32(net.inputs(size)), jnp.asarray(net.labels(size))
        np.testing.assert_allclose(loaded.call(inputs), own_fn(inputs), rtol=1e-5, atol=1e-6)
        gradients = [
            jax.grad(lambda points, fn=fn, labels=labels: cross_entropy(fn(points), labels).sum())(inputs)
            for fn in (loaded.call, own_fn)
        ]
        np.testing.assert_allclose(*gradients, rtol=1e-5, atol=1e-6)
        assert np.abs(gradients[1]).max() > 1e-3


def _execute(code, cwd):
    """Run Python where jl1 cannot be imported."""
    code = f"import sys\nsys.modules['jl1'] = None\n{code}"
    ended = subprocess.run([sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_the_documented_way_back_into_jax_needs_no_jl1(folder, run):
    _execute(IN_JAX + "\nassert difference < 1e-5\njnp.save('gradient.npy', gradient)", folder.parent)
    points, labels = map(jnp.asarray, run.data.test)
    expected = jax.grad(lambda inputs: cross_entropy(run.apply_fn(run.params, inputs), labels).sum())(points)
    gradient = np.load(folder.parent / "gradient.npy")
    np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


def _needs(name):
    """Mark what is skipped where an optional library is not installed; it is not imported into this process."""
    return pytest.mark.skipif(importlib.util.find_spec(name) is None, reason=f"needs {name}")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=_needs(name)) for name in ("torch", "torchattacks", "foolbox", "art")]
)
def test_the_documented_ways_into_other_libraries(name, folder):
    shutil.copy(ROOT / "examples" / "load_in_torch.py", folder.parent)
    code = IN_TORCH + "\nassert difference < 1e-5\nadversarial = images\n"
    if name != "torch":
        (block,) = (block for block in WITH_LIBRARIES if f"import {name}\n" in block or f"from {name}." in block)
        code += f"images, labels = images[:50], labels[:50]\n{block}"
    code += "\nprint((model(adversarial).argmax(1) == labels).float().mean().item())"
    code += "\nprint((adversarial - images).abs().max().item())"
    accuracy, distance = map(float, _execute(code, folder.parent).split())
    if name == "torch":
        layout = json.loads((folder / "model.json").read_text())
        assert accuracy == pytest.approx(layout["result"]["accuracies"][0]["accuracy"], abs=0.003)
    else:
        assert accuracy < 0.5
        assert distance == pytest.approx(0.1, abs=1e-4)


IMAGES = {
    **{name: (create_model(name), "relu", (28, 28, 1)) for name in "ABC"},
    "padded unevenly": (create_model("B", padding=("SAME", "SAME")), "relu", (28, 28, 1)),
    "pooled": (SequentialNet((Conv(3, 3, 2, "SAME"), AveragePool(2, 1), Dense(5)), 4), "relu", (6, 9, 2)),
    **{name: (SequentialNet((Dense(8),), 4, fn), name, (4, 3, 2)) for name, fn in ACTIVATIONS.items()},
}
"""Networks in every layer, padding and activation there is: module, activation, shape of an image."""


def _write_by_hand(folder, module, activation, shape):
    """Write a random network as `jl1 export` does, without a run."""
    inputs = jax.random.uniform(jax.random.key(0), (5, *shape))
    params = jax.jit(module.init)(jax.random.key(1), inputs)["params"]
    for layer in params.values():
        layer["bias"] = jax.random.normal(jax.random.key(2), layer["bias"].shape)
    arrays = {f"{layer}/{part}": np.asarray(params[layer][part]) for layer in params for part in params[layer]}
    logits = np.asarray(jax.jit(module.apply)({"params": params}, inputs))
    points = {"inputs": np.asarray(inputs), "labels": np.zeros(5, np.int32), "logits": logits}
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(save(arrays))
    (folder / "points.safetensors").write_bytes(save(points))
    (folder / "model.json").write_text(json.dumps({"layers": describe_layers(module, shape, activation=activation)}))


@_needs("torch")
@pytest.mark.usefixtures("quick_compile")
def test_pytorch_computes_the_same_logits(tmp_path):
    shutil.copy(ROOT / "examples" / "load_in_torch.py", tmp_path)
    for name, network in IMAGES.items():
        _write_by_hand(tmp_path / name, *network)
    code = f"from load_in_torch import main\nfor name in {list(IMAGES)}: main(name)"
    lines = _execute(code, tmp_path).splitlines()
    for name, line in zip(IMAGES, lines, strict=True):
        assert float(re.search(r"from jl1 (\S+),", line)[1]) < 1e-5, name


def test_the_command_writes_what_is_asked_for_and_says_so(workdir, tmp_path, capsys):
    arguments = ["export", f"--workdir={workdir}", f"--out={tmp_path / 'new' / 'out'}"]
    assert main([*arguments, "--format=safetensors"]) == 0
    assert sorted(path.name for path in (tmp_path / "new" / "out").iterdir()) == FILES[1:]
    printed = capsys.readouterr().out
    assert all(name in printed for name in FILES[1:])
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["out"]
    assert main(arguments) == 2
    assert "exists and is left as it is" in capsys.readouterr().err
    assert sorted(path.name for path in (tmp_path / "new" / "out").iterdir()) == FILES[1:]


def test_a_run_without_a_result_is_refused(workdir, tmp_path):
    copy = shutil.copytree(workdir, tmp_path / "copy")
    (copy / "result.json").unlink()
    with pytest.raises(UserError, match="has no result yet"):
        export_run(copy, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("why", "num_notices"), [("interrupted", 1), ("num_epochs", 0)])
def test_an_interrupted_run_is_exported_and_said_to_be_one(why, num_notices, workdir, tmp_path, capsys):
    copy = shutil.copytree(workdir, tmp_path / "copy")
    result = json.loads((copy / "result.json").read_text())
    (copy / "result.json").write_text(json.dumps(result | {"stopped_because": why}))
    assert main(["export", f"--workdir={copy}", f"--out={tmp_path / 'out'}", "--format=safetensors"]) == 0
    said = capsys.readouterr().out.replace("\n", " ")
    assert said.count("this run is not finished: it was interrupted after 2 epochs") == num_notices


@pytest.mark.parametrize("content", ["[]", "{}", '{"schema": "jl1.result/2"}'])
def test_a_damaged_or_foreign_result_is_refused(workdir, tmp_path, content, capsys):
    copy = shutil.copytree(workdir, tmp_path / "copy")
    (copy / "result.json").write_text(content)
    for arguments in (["export", f"--workdir={copy}", f"--out={tmp_path / 'out'}"], ["train", f"--workdir={copy}"]):
        assert main(arguments) == 2
        error = capsys.readouterr().err.replace("\n", " ")
        assert "result.json is damaged: it" in error or "its schema is jl1.result/2, and this version reads" in error
    assert not (tmp_path / "out").exists()


def test_a_checkpoint_that_the_figures_are_not_of_is_refused(workdir, tmp_path):
    copy = shutil.copytree(workdir, tmp_path / "copy")
    with Checkpoints(copy / "checkpoints") as checkpoints:
        newest = max(checkpoints._manager.all_steps())
    shutil.rmtree(copy / "checkpoints" / str(newest))
    with pytest.raises(UserError, match=r"is of epoch 1, the figures in result\.json are of epoch 2"):
        export_run(copy, tmp_path / "out")


def test_a_folder_that_cannot_be_made_is_refused(workdir, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="choose another folder with --out"):
        export_run(workdir, tmp_path / "file" / "out", formats=["safetensors"])
