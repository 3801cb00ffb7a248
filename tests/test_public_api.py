"""What `import jl1` offers: every name, documented, and nothing loaded before it is used."""

import inspect
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

import jl1

FUNCTIONS = [name for name in sorted(jl1.__all__) if inspect.isfunction(getattr(jl1, name))]


HEAVY = ["absl", "flax", "jax", "ml_collections", "numpy", "optax", "tensorflow", "tensorflow_datasets"]
SHELL = ["jl1.config", "jl1.data", "ml_collections", "tensorflow", "tensorflow_datasets"]


@pytest.mark.parametrize(
    ("code", "unwanted"),
    [("import jl1", HEAVY), ("import jl1\nfor name in jl1.__all__: getattr(jl1, name)", SHELL)],
    ids=["import", "use"],
)
def test_nothing_is_loaded_before_it_is_needed(code, unwanted):
    code += f"\nimport sys\nprint([name for name in {unwanted} if name in sys.modules])"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert ended.stdout == "[]\n"


@pytest.mark.parametrize(
    "name",
    [
        "input_jacobian",
        "l1_jacobian_norm",
        "jacobian_l1",
        "class_sum_l1",
        "loss_gradient_l2",
        "loss_gradient_l1",
        "jacobian_frobenius",
        "jacobian_frobenius_projected",
        "penalised_loss",
        "defended_loss",
        "make_loss",
        "fgsm",
        "pgd",
        "create_model",
        "TrainState",
        "make_train_step",
        "make_epoch",
        "make_eval_step",
        "centre_output_layer",
        "accuracy",
        "PENALTIES",
        "OUTPUTS",
        "BUDGETS",
        "OBJECTIVES",
        "AttackFn",
        "PenaltyFn",
        "Totals",
        "gradient_health",
        "ascent_health",
        "pgd_from_peak",
    ],
)
def test_the_promised_names_are_there(name):
    assert name in jl1.__all__


@pytest.mark.parametrize("name", sorted(jl1.__all__))
def test_every_public_name_exists_and_is_documented(name):
    assert inspect.getdoc(getattr(jl1, name))


def test_the_page_of_public_names_is_up_to_date():
    docs = Path(__file__).parents[1] / "docs"
    assert runpy.run_path(str(docs / "make_api.py"))["api_page"]() == (docs / "api.md").read_text()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_public_function_documents_its_arguments_and_result(name):
    function = getattr(jl1, name)
    text, parameters = inspect.getdoc(function), inspect.signature(function).parameters
    for parameter in parameters:
        assert any(f"\n    {stars}{parameter}: " in text for stars in ("", "*", "**"))
    if inspect.signature(function).return_annotation is not None:
        assert "Returns:\n" in text or "Yields:\n" in text


@pytest.mark.parametrize("name", sorted({*FUNCTIONS} - {"patch_convolution"}))  # it has the library's signature
def test_what_follows_the_second_argument_is_named(name):
    parameters = inspect.signature(getattr(jl1, name)).parameters.values()
    assert sum(parameter.kind is parameter.POSITIONAL_OR_KEYWORD for parameter in parameters) <= 2
