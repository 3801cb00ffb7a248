"""What a CUDA device computes: a CPU's numbers, as exactly as its arithmetic allows, and a run's bits again."""

from functools import partial
from itertools import product
from shutil import copytree

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick import OVERRIDES, final_params, run_jl1, same_bits

from jl1.closed_form import make_closed_form_gradient
from jl1.gradients import make_gradient
from jl1.losses import penalised_loss
from jl1.models import CONVOLUTIONS, create_model, make_apply_fn
from jl1.penalties import make_penalty
from jl1.precision import traced_with
from jl1.records import read_evaluation
from jl1.sweep.gpus import count_gpus

pytestmark = pytest.mark.gpu

BATCH = 16
PRECISIONS = ("float32", "tf32")


def problem(model, convolution, dtype=jnp.float32):
    module = create_model(model, convolution=convolution)
    inputs = jax.random.uniform(jax.random.key(1), (BATCH, 28, 28, 1), jnp.float32)
    params = module.init(jax.random.key(0), inputs)["params"]
    cast = partial(jax.tree.map, lambda leaf: leaf.astype(dtype))
    return module, cast(params), cast(inputs)


def closed_form(module, outputs, precision):
    """Its precision is its own, whatever the default is."""
    return make_closed_form_gradient(module, outputs=outputs, scale="mean", precision=precision)


def automatic(module, outputs, precision):
    penalty_fn = make_penalty("jacobian_l1", outputs=outputs, scale="mean")

    def terms_fn(logits_fn, inputs, *, labels, lam, epsilon, key):
        del epsilon
        return penalised_loss(logits_fn, inputs, labels=labels, lam=lam, penalty_fn=penalty_fn, key=key)

    return traced_with(precision, make_gradient(make_apply_fn(module), terms_fn=terms_fn))


def flat_gradient(form, model, outputs, *, precision, convolution="library", dtype=jnp.float32):
    """The gradient of a batch as one vector in double precision."""
    module, params, inputs = problem(model, convolution, dtype)
    batch = {"labels": jnp.arange(BATCH) % 10, "mask": jnp.ones(BATCH, bool), "lam": 50.0, "epsilon": 0.0}
    gradient, _ = jax.jit(partial(form(module, outputs, precision), key=jax.random.key(2), **batch))(params, inputs)
    return np.concatenate([np.ravel(np.asarray(leaf, np.float64)) for leaf in jax.tree.leaves(gradient)])


def exact_gradient(model, outputs):
    """The same on a CPU in float64."""
    with jax.enable_x64(True), jax.default_device(jax.devices("cpu")[0]):
        return flat_gradient(closed_form, model, outputs, precision="float32", dtype=jnp.float64)


def error_of(gradient, exact):
    return np.linalg.norm(gradient - exact) / np.linalg.norm(exact)


@pytest.mark.parametrize("outputs", ["logits", "probs"])
@pytest.mark.parametrize("model", ["A", "B", "C"])
def test_gradients_are_those_of_a_cpu_in_double_precision(model, outputs):
    exact = exact_gradient(model, outputs)
    errors = {
        f"closed form, {convolution}": error_of(
            flat_gradient(closed_form, model, outputs, precision="float32", convolution=convolution), exact
        )
        for convolution in (["library"] if model == "C" else CONVOLUTIONS)
    }
    errors["automatic"] = error_of(flat_gradient(automatic, model, outputs, precision="float32"), exact)
    assert max(errors.values()) < 2e-3, errors  # signs of entries near 0 flip


@pytest.mark.parametrize("model", ["A", "C"])
def test_tf32_is_less_exact_and_only_where_it_is_asked_for(model):
    exact = exact_gradient(model, "logits")
    for form, default in product((closed_form, automatic), ("float32", "tensorfloat32")):
        with jax.default_matmul_precision(default):
            gradients = {name: flat_gradient(form, model, "logits", precision=name) for name in PRECISIONS}
        errors = {name: error_of(gradient, exact) for name, gradient in gradients.items()}
        assert 3 * errors["float32"] < errors["tf32"] < 0.1, errors


@pytest.mark.parametrize("model", ["A", "C"])
def test_with_deterministic_kernels_a_run_gives_the_same_bits_again(model, tmp_path):
    environment = {"XLA_FLAGS": "--xla_gpu_deterministic_ops=true"}
    for name in ("one", "other"):
        cache = tmp_path / f"xla of {name}"  # each chooses its kernels anew
        flag = f"--config.model.name={model}"
        train(tmp_path, name, flag, **environment, JAX_COMPILATION_CACHE_DIR=str(cache))
    assert same_bits(final_params(tmp_path / "one"), final_params(tmp_path / "other"))


def test_a_cpu_finds_the_accuracies_of_a_gpu(tmp_path):
    train(tmp_path, "on_gpu")
    copytree(tmp_path / "on_gpu", tmp_path / "on_cpu")
    attacks = ("--attacks=clean,fgsm,pgd,standard", "--epsilons=0.05,0.1", "--pgd_steps=10", "--max_points=200")
    for name, environment in (("on_gpu", {}), ("on_cpu", {"JAX_PLATFORMS": "cpu"})):
        status, output = run_jl1("evaluate", f"--workdir={name}", *attacks, cwd=tmp_path, **environment)
        assert status == 0, output
    on_gpu, on_cpu = (
        {(row["attack"], row["epsilon"]): row["accuracy"] for row in read_evaluation(tmp_path / name)}
        for name in ("on_gpu", "on_cpu")
    )
    assert len(on_gpu) == 9  # the worst case over the attacks too
    assert on_gpu == pytest.approx(on_cpu, abs=0.02)  # of 200 points, four whose margins are rounding


def train(cwd, name, *flags, **environment):
    flags = ("--config.penalty.lam=10", *OVERRIDES, "--config.training.num_epochs=2", *flags)
    status, output = run_jl1("train", "--config=quickstart", f"--workdir={name}", *flags, cwd=cwd, **environment)
    assert status == 0, output
    assert "note: compiling for" in output


def test_a_sweep_finds_the_gpus_that_jax_finds():
    assert count_gpus() == jax.local_device_count()
