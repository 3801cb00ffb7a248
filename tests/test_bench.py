"""`jl1 bench`: what it counts, compares, refuses and leaves. Its figures are no test's business."""

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks import NETS, as_tree
from quick import OVERRIDES, run_jl1

from jl1.bench import torch_forms
from jl1.bench.bench_record import BenchRecord, penalised, speedups, with_shares
from jl1.bench.compare import WrongGradientError, compared, gradient_error
from jl1.bench.jax_forms import FORMS, GRADIENTS, make_form, to_arrays
from jl1.bench.processes import Contender, Limits, Worker, WorkerError, make_forms, take_turns
from jl1.bench.report import as_markdown, lay_out_all
from jl1.bench.step_problem import StepProblem, create_problem, exact_operations, export_problem, layer_shapes
from jl1.bench.studies import SCALING
from jl1.cli import main
from jl1.models import MODELS, create_model

IMAGE = (28, 28, 1)


@pytest.fixture(scope="module")
def benched(tmp_path_factory):
    """What `jl1 bench` prints and leaves on the smallest setting."""
    cwd = tmp_path_factory.mktemp("bench")
    flags = ("--models=C", "--studies=forms", "--peers=torch,textbook", "--batch_size=4", "--repeats=2", "--out=out")
    hiding = tmp_path_factory.mktemp("hiding")
    (hiding / "torch.py").write_text("raise ImportError('hidden')")  # PyTorch is missing wherever the tests run
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(hiding), prepend=os.pathsep)
        patch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")  # half of the compilation
        status, output = run_jl1("bench", *flags, cwd=cwd)
    return cwd, status, output


def test_a_bench_leaves_its_figures_as_json_markdown_and_picture(benched):
    cwd, status, output = benched
    assert status == 0, output
    assert "C: torch is left out: ImportError: hidden" in output
    content = json.loads((cwd / "out" / "bench.json").read_text())
    assert content["schema"] == "jl1.bench/1"
    assert {"processor", "cores", "python", "versions", "date"} <= content["machine"].keys()
    assert "--batch_size=4" in content["command"]
    (table,) = content["tables"]
    assert table["setup"] == {"model": "C", "batch_size": 4, "num_classes": 10, "side": 28}
    automatic = {form for form in GRADIENTS if form.startswith("automatic")}
    assert table["rows"].keys() == {"matrix product", *GRADIENTS} - automatic
    assert table["times_faster_than"].keys() == {"textbook"}
    for form, row in table["rows"].items():
        assert row["repeats"] == len(row["ms"]) == 2
        assert row["min_ms"] <= row["median_ms"]
        assert row["temporary_mb"] >= 0
        assert row["compile_seconds"] > 0
        assert ("share_of_peak" in row) == form.endswith(("logits", "probs")), form
        assert ("gradient_error" in row) == (form == "library plain" or form.startswith("textbook"))
        assert form in output
        assert form in (cwd / "out" / "bench.md").read_text()
    assert (cwd / "out" / "bench.png").read_bytes().startswith(b"\x89PNG")


def test_a_folder_with_files_is_refused_and_left_as_it_is(benched, capsys):
    cwd, _, _ = benched
    before = {path.name: path.read_bytes() for path in (cwd / "out").iterdir()}
    assert main(["bench", f"--out={cwd / 'out'}"]) == 2
    assert "is not empty, and is left as it is" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in (cwd / "out").iterdir()} == before


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--models=C,D", "--models: there is no D; there are A, B, C"),
        ("--models=", "--models: there is no name in it"),
        ("--studies=form", "--studies: there is no form"),
        ("--peers=tensorflow", "--peers: there is no tensorflow"),
        ("--repeats=0", "0 is not a positive integer"),
        ("--batch_size=0", "0 is not a positive integer"),
        ("--core=4096", "--core=4096: this process may use the cores 0"),
        ("--torch_python=nowhere", "--torch_python=nowhere: there is no such program"),
        ("--form_seconds=-1", "-1.0 is not a non-negative number"),
    ],
)
def test_bad_flags_are_refused_before_anything_is_made(argument, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["bench", argument]) == 2
    assert message in capsys.readouterr().err.replace("\n", " ")
    assert list(tmp_path.iterdir()) == []


# Multiply-adds of one example by hand: positions x fan-in x features, layer by layer.
COUNTS = {
    "A": (14 * 14 * 64 * 64, 5 * 5 * 6 * 6 * 64 * 128, 1 * 1 * 5 * 5 * 128 * 128, 128 * 10),
    "B": (28 * 28 * 9 * 128, 13 * 13 * 9 * 128 * 64, 13 * 13 * 64 * 128, 128 * 10),
    "C": (784 * 512, 512 * 256, 256 * 128, 128 * 10),
}


@pytest.mark.parametrize("model", MODELS)
def test_operations_are_those_counted_by_hand(model):
    module = create_model(model)
    assert tuple(shape.products for shape in layer_shapes(module, IMAGE)) == COUNTS[model]
    forward, last = sum(COUNTS[model]), COUNTS[model][-1]
    assert exact_operations(module, IMAGE) == 2 * (forward + 3 * 10 * (forward - last))


@pytest.mark.parametrize("model", MODELS)
def test_layer_shapes_are_those_of_the_network(model):
    module = create_model(model)
    shapes = layer_shapes(module, IMAGE)
    inputs = jax.ShapeDtypeStruct((1, *IMAGE), jnp.float32)
    params = jax.eval_shape(module.init, jax.random.key(0), inputs)["params"]
    for shape, layer in zip(shapes, params.values(), strict=True):
        positions = np.prod(shape.writes) // layer["bias"].size
        assert shape.products == positions * np.prod(layer["kernel"].shape)


def test_share_of_peak_is_operations_over_time_over_the_speed_of_the_matrix_product():
    rows = {
        "matrix product": {"median_ms": 10.0, "operations": 2_000},  # 200 operations a millisecond
        "plain": {"median_ms": 1.0},
        "closed form logits": {"median_ms": 40.0},
        "estimate one class": {"median_ms": 4.0},
        "torch loop logits": {"median_ms": 120.0},
        "torch func logits": {"median_ms": 100.0},
        "torch plain": {"median_ms": 2.0},
        "textbook probs": {"median_ms": 30.0},
    }
    shares = {form: row.get("share_of_peak") for form, row in with_shares(rows, 6_000).items()}
    assert shares == {
        "matrix product": None,
        "plain": None,
        "closed form logits": 0.75,
        "estimate one class": None,
        "torch loop logits": 0.25,
        "torch func logits": 0.3,
        "torch plain": None,
        "textbook probs": 1.0,
    }
    assert speedups(rows) == {"torch": 2.5}  # the best of PyTorch's forms, and logits only


def test_without_the_closed_form_there_is_nothing_to_compare_with():
    assert speedups({"torch loop logits": {"median_ms": 30.0}}) == {}


def test_the_error_of_a_gradient_is_relative_to_the_tensors_largest_entry():
    reference = {"layer_0/bias": np.array([0.5, -2.0]), "layer_0/kernel": np.array([[10.0]])}
    near = {name: values + 0.001 for name, values in reference.items()}
    assert gradient_error(near, reference) == pytest.approx(0.0005)
    with pytest.raises(WrongGradientError, match="not layer_0/bias, layer_0/kernel"):
        gradient_error({"layer_0/bias": np.zeros(2)}, reference)


class WorkerWithGradients:
    """Saves the gradient that a form is said to have; a form without one fails."""

    def __init__(self, gradients):
        self.gradients = gradients

    def ask(self, question, *, form, path):
        assert question == "save"
        if form not in self.gradients:
            raise WorkerError("no memory")
        np.savez(path, kernel=np.array(self.gradients[form]))


def test_exact_gradients_are_compared_before_the_timing(tmp_path):
    gradients = {"closed form logits": [1.0, 2.0], "textbook logits": [1.0, 2.001], "closed form probs": [5.0]}
    worker, notices = WorkerWithGradients(gradients), []
    forms = ["matrix product", "closed form logits", "closed form probs", "torch func logits", "textbook logits"]
    checked = compared([Contender(worker, form, {}) for form in forms], tmp_path, notices.append)
    assert [(contender.form, contender.facts) for contender in checked] == [
        ("matrix product", {}),
        ("closed form logits", {}),
        ("closed form probs", {}),
        ("textbook logits", {"gradient_error": 0.0005}),
    ]
    assert notices == ["torch func logits is left out: no memory"]
    gradients["textbook logits"] = [1.0, 2.01]
    with pytest.raises(WrongGradientError, match="one of the two is wrong, and nothing was timed"):
        list(compared([Contender(worker, form, {}) for form in forms], tmp_path, notices.append))
    gradients["textbook logits"] = [1.0, float("nan")]
    with pytest.raises(WrongGradientError, match="nothing was timed"):
        list(compared([Contender(worker, form, {}) for form in forms], tmp_path, notices.append))


class FakeWorker:
    """Answers with the given seconds, one after another."""

    def __init__(self, log, seconds):
        self.log, self.seconds = log, iter(seconds)

    def ask(self, question, *, form):
        self.log.append(form)
        return {"seconds": next(self.seconds)}


def test_forms_take_turns_until_each_has_run_often_enough():
    log = []
    quick = Contender(FakeWorker(log, [9.0, 0.003, 0.001, 0.002, 0.004]), "quick", {"temporary_mb": 1.0})
    slow = Contender(FakeWorker(log, [9.0, 2.0, 2.0, 2.0]), "slow", {})
    *_, rows = take_turns([quick, slow], Limits(repeats=4, form_seconds=3.0))
    assert log == ["quick", "slow"] * 4 + ["quick"]  # a warm-up each; three runs at least, then the limit of seconds
    assert rows["quick"] == {
        "median_ms": 2.5,
        "min_ms": 1.0,
        "repeats": 4,
        "ms": [3.0, 1.0, 2.0, 4.0],
        "temporary_mb": 1.0,
    }
    assert rows["slow"]["repeats"] == 3


def test_a_worker_answers_its_errors_and_goes_on():
    with Worker("jax_forms.py", core=None) as worker:
        with pytest.raises(WorkerError, match="unknown model 'D'"):
            worker.ask("open", model="D")
        worker.ask("open", model="C", batch_size=2)
        with pytest.raises(WorkerError, match="KeyError: 'no such form'"):
            make_forms(worker, ["no such form"])
        make_forms(worker, ["matrix product"])
        worker.tell("run_for", form="matrix product", seconds=0.05)
        assert worker.hear()["runs_per_second"] > 1
        worker._process.kill()
        with pytest.raises(WorkerError, match="the process is gone, with exit status -9"):
            worker.ask("run", form="matrix product")


@pytest.mark.usefixtures("quick_compile")
@pytest.mark.parametrize("form", ["clean", "fgsm", "pgd-20"])
def test_evaluations_say_which_points_are_right(form):
    run, facts = make_form(create_problem(model="C", batch_size=3), form)
    assert run().shape == (3,)
    assert facts["temporary_mb"] >= 0


@pytest.mark.usefixtures("quick_compile")
@pytest.mark.parametrize("loss", ["plain", "exact"])
def test_both_loops_take_all_their_steps(loss):
    problem = create_problem(model="C", batch_size=2, num_steps=3)
    for loop in ("bare steps", "epoch"):
        run, _ = make_form(problem, f"{loop}, {loss}")
        for _ in range(2):  # a state that was donated would fail the second time
            assert int(run().step) == 3


@pytest.mark.usefixtures("quick_compile")
def test_the_textbook_form_has_the_librarys_convolutions():
    problem = create_problem(model="A", batch_size=1)
    gradient_fn = GRADIENTS["textbook logits"](problem)
    batch = {"labels": problem.labels, "mask": jnp.ones(1, bool), "lam": 0.1, "epsilon": 0.0, "key": jax.random.key(0)}
    lowered = jax.jit(partial(gradient_fn, **batch)).lower(problem.params, problem.inputs)
    assert "stablehlo.convolution" in lowered.as_text()


def test_every_form_is_in_a_family_and_every_change_of_scale_is_possible():
    assert {form.split()[0] for form in GRADIENTS} == {
        "plain",
        "library",
        "closed",
        "estimate",
        "automatic",
        "textbook",
    }
    assert {penalised(form) for form in GRADIENTS} == {"plain", "logits", "centred_logits", "probs", "log_probs", None}
    assert FORMS.keys() > GRADIENTS.keys()
    for model, changes in SCALING.items():
        for change in changes:
            setup = {"num_classes": 10, "side": 28, **change}
            module = create_model(model, num_classes=setup["num_classes"])
            assert all(shape.products > 0 for shape in layer_shapes(module, (setup["side"], setup["side"], 1)))


def test_tables_of_one_scaling_become_one(tmp_path):
    record = BenchRecord(tmp_path / "out", "jl1 bench")
    for number in (10, 100):
        table = record.new_table("scaling", model="C", batch_size=4, num_classes=number, side=28)
        record.fill(table, {"plain": {"median_ms": 1.5 * number, "temporary_mb": 0.25, "repeats": 1}})
    (layout,) = lay_out_all(record.content["tables"])
    assert layout.lines == [
        ["10 classes, batch 4, side 28", "15 (0.2)"],
        ["100 classes, batch 4, side 28", "150 (0.2)"],
    ]
    assert "| 100 classes, batch 4, side 28 | 150 (0.2) |" in as_markdown(record.content)
    assert json.loads((tmp_path / "out" / "bench.json").read_text())["tables"] == record.content["tables"]


@pytest.mark.usefixtures("quick_compile")
@pytest.mark.parametrize("net", ["conv_relu", "dense_relu"])
def test_torch_forms_have_the_same_gradient_under_the_same_names(net, tmp_path):
    """5 x 6 images: XLA pads the columns of a strided SAME convolution on one side only."""
    pytest.importorskip("torch")
    net = NETS[net]
    inputs, labels = jnp.float32(net.inputs(4)), jnp.int32(net.labels(4))
    params = jax.tree.map(jnp.float32, as_tree(net.params()))
    problem = StepProblem(net.module, params, inputs, labels, smoothing=0.1, lam=0.3, num_steps=1, closed_form={})
    export_problem(problem, str(tmp_path / "problem.npz"))
    ours = {}
    for form in ("textbook logits", "plain"):
        run, _ = make_form(problem, form)
        ours[penalised(form)] = {name: np.asarray(array) for name, array in to_arrays(problem, run()).items()}
    peer = torch_forms.create_problem(path=str(tmp_path / "problem.npz"), smoothing=0.1, lam=0.3)
    for form in torch_forms.FORMS:
        run, _ = torch_forms.make_form(peer, form)
        arrays = {name: array.detach().numpy() for name, array in torch_forms.to_arrays(peer, run()).items()}
        assert gradient_error(arrays, ours[penalised(form)]) < 1e-5, form


@pytest.mark.parametrize("reads", [(3, 2, 4), (24,)])
def test_dense_kernels_turn_into_torchs_and_back(reads):
    """NumPy stands in for a tensor: only the layout is looked at."""

    class Tensor(np.ndarray):
        def permute(self, *axes):
            return self.transpose(axes)

    layer = {"kind": "dense", "reads": reads}
    kernel = np.arange(24.0 * 5).reshape(24, 5)
    turned = torch_forms.to_torch(layer, kernel)
    image = np.random.default_rng(0).uniform(size=reads)
    as_torch_reads = image.transpose(2, 0, 1) if image.ndim == 3 else image
    np.testing.assert_allclose(turned @ as_torch_reads.reshape(-1), image.reshape(-1) @ kernel)
    np.testing.assert_array_equal(torch_forms.from_torch(layer, turned.view(Tensor)), kernel)


def test_the_script_for_gpus_runs_small_on_a_cpu_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
    script = Path(__file__).parent.parent / "benchmarks" / "gpu.py"
    flags = ["--models", "C", "--forms", "closed form logits", "--loops", "epoch, exact", "--chunks", "0"]
    flags += ["--batch_size=2", "--repeats=1"]
    arguments = [str(script), str(tmp_path / "out"), *flags, "--train", "quickstart:plain", "--", *OVERRIDES]
    arguments += ["--config.training.num_epochs=1"]
    result = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "no CUDA device" in result.stdout
    content = json.loads((tmp_path / "out" / "bench.json").read_text())
    assert content["machine"]["device"].startswith("cpu")
    precisions = {table["setup"]["matmul_precision"] for table in content["tables"]}
    assert precisions == {"float32", "tensorfloat32"}
    assert [*content["tables"][-1]["rows"]] == ["matrix product", "epoch, exact"]
    assert (tmp_path / "out" / "quickstart_plain" / "result.json").exists()
