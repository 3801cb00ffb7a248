"""One real run, which the synthetic ones are made from."""

import json

import jax
import pytest
from quick import quick_config

from jl1.experiment import train_and_evaluate
from jl1.runs.evaluator import EvaluationOptions, evaluate_run


@pytest.fixture(scope="session")
def real_run(tmp_path_factory):
    """The folder of a run of one epoch, evaluated."""
    workdir = tmp_path_factory.mktemp("real") / "run"
    options = EvaluationOptions((0.1,), attacks=("clean", "fgsm", "pgd"), pgd_steps=2, batch_size=100, max_points=100)
    jax.config.update("jax_disable_most_optimizations", True)  # half of the compilation
    train_and_evaluate(quick_config(training__num_epochs=1), workdir)
    evaluate_run(workdir, options=options)
    jax.config.update("jax_disable_most_optimizations", False)
    return workdir


@pytest.fixture(scope="session")
def real_result(real_run):
    """Its result.json."""
    return json.loads((real_run / "result.json").read_text())
