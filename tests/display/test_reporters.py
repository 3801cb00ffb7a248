"""The lines of a run: how much time is left."""

import io

import pytest
from quick import quick_config
from rich.console import Console

from jl1.data import load_dataset
from jl1.display.reporters import PlainReporter

ROW = {"loss": 1.0, "cross_entropy": 1.0, "penalty": 0.0, "validation_accuracy": 0.5, "examples_per_second": 10.0}


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until it is moved."""
    now = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    return now


def test_the_time_left_is_that_of_the_last_epochs_and_compilation_is_over(clock, tmp_path):
    text = io.StringIO()
    reporter = PlainReporter(Console(file=text, width=200))
    config = quick_config(training__num_epochs=100)
    reporter.started(config, load_dataset("mnist_5k"), tmp_path, 0)
    for epoch, seconds in enumerate((300.0, 4.0, 4.0, 90.0, 4.0, 2.0, 2.0, 2.0), start=1):  # 300: compilation
        clock[0] += seconds
        reporter.finished_epoch({"epoch": epoch, "seconds": 3.0, **ROW})
    left = [line.rsplit("  ", 1)[1] for line in text.getvalue().splitlines() if line.startswith("epoch")]
    assert left[0] == "4:57 left"  # 99 epochs of 3 s
    assert left[1:3] == ["6:32 left", "6:28 left"]
    assert left[3] == "6:24 left"  # one that took long changes nothing
    assert left[-1] == "3:04 left"
