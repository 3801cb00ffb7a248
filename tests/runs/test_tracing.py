"""Points followed through a run: what is written, that it is the network's, and that training does not notice."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick import final_params, quick_config, same_bits

from jl1 import records
from jl1.data import load_dataset
from jl1.end_points import EndPoints
from jl1.experiment import train_and_evaluate
from jl1.runs.reporting import Reporter
from jl1.runs.tracing import UNTRAINED_RADIUS, make_trace_fn
from jl1.runs.trained import load_trained

DEFENDED = {"penalty__name": "class_sum_l1", "penalty__lam": 1.0, "adversarial__epsilon": 0.2}


class Counter(Reporter):
    """Counts the epochs."""

    def __init__(self):
        self.num_epochs = 0

    def finished_epoch(self, row):
        self.num_epochs += 1


@pytest.fixture(scope="module", autouse=True)
def _quick_compile():
    """As `quick_compile`, for the fixtures of this module and all its tests: the same bits are asked of both."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "run"
    train_and_evaluate(quick_config("quickstart", **DEFENDED), workdir)
    return workdir


def test_every_epoch_has_a_line_of_numbers_for_each_point(finished):
    rows = records.read_trace(finished)
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    for row in rows:
        assert set(row) == {"epoch", "epsilon", "labels", "logits", "probs"}
        assert row["epsilon"] == 0.2
        assert row["labels"] == load_dataset("mnist_5k").validation.labels[:8].tolist()
        for outputs in ("logits", "probs"):
            assert set(row[outputs]) == set(EndPoints._fields)
            for name, values in row[outputs].items():
                assert np.shape(values) == ((8, 10) if name.endswith("outputs") else (8,))
        np.testing.assert_allclose(np.sum(row["probs"]["twin_outputs"], axis=1), 1, rtol=1e-5)
        assert row["probs"]["largest_change"] == pytest.approx(
            np.abs(np.subtract(row["probs"]["twin_outputs"], row["probs"]["outputs"])).max(1), abs=1e-6
        )


def test_the_last_line_is_of_the_last_parameters_to_the_last_bit(finished):
    trained = load_trained(finished)
    trace_fn = make_trace_fn(trained.config, trained.data, trained.apply_fn)
    assert {"epoch": 3, **trace_fn(trained.params)} == records.read_trace(finished)[-1]
    inputs = jnp.asarray(trained.data.validation.inputs[:8])
    stored = np.float32(records.read_trace(finished)[-1]["logits"]["outputs"])
    np.testing.assert_allclose(stored, trained.apply_fn(trained.params, inputs), rtol=1e-4, atol=1e-5)


def test_training_without_a_trace_ends_with_the_same_bits(finished, tmp_path):
    train_and_evaluate(quick_config("quickstart", **DEFENDED, log__traced_points=0), tmp_path / "run")
    assert same_bits(final_params(finished), final_params(tmp_path / "run"))
    assert not (tmp_path / "run" / "trace.jsonl").exists()
    assert records.read_trace(tmp_path / "run") == []


def test_an_interrupted_run_ends_with_the_same_file(finished, tmp_path):
    config, counter = quick_config("quickstart", **DEFENDED), Counter()
    workdir = tmp_path / "run"
    train_and_evaluate(config, workdir, reporter=counter, should_stop=lambda: counter.num_epochs == 2)
    with (workdir / "trace.jsonl").open("a") as file:
        file.write('{"epoch": 3, "log')  # a kill before the checkpoint of the third epoch
    train_and_evaluate(config, workdir)
    assert (workdir / "trace.jsonl").read_bytes() == (finished / "trace.jsonl").read_bytes()


def test_training_without_an_attack_is_traced_at_a_radius_of_its_own():
    config, data = quick_config(log__traced_points=2), load_dataset("mnist_5k")
    trace_fn = make_trace_fn(config, data, lambda params, inputs: inputs.reshape(len(inputs), -1)[:, 300:310] * params)
    row = trace_fn(jnp.float32(3.0))
    assert row["epsilon"] == UNTRAINED_RADIUS
    assert row["logits"]["gradient_norm"] == [3.0, 3.0]
    assert row["logits"]["jacobian_norm"] == [30.0, 30.0]
