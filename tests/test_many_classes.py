"""Other shapes and numbers of classes through the same program: images of CIFAR-10's, and a hundred classes."""

import numpy as np
import pytest
from quick import quick_config

from jl1.data import load_dataset
from jl1.experiment import train_and_evaluate
from jl1.runs.reporting import Reporter

SAMPLED = {"penalty__name": "jacobian_l1_sampled_classes", "penalty__outputs": "logits", "training__num_epochs": 1}


class Listener(Reporter):
    """Keeps the notices."""

    def __init__(self):
        self.notices = []

    def notice(self, text):
        self.notices.append(text)


def write_cifar10(folder, num=100):
    """Write the six binary batches of CIFAR-10 with digits in the three colour planes."""
    digits = load_dataset("mnist_5k").train
    images = np.pad(np.rint(digits.inputs[: 6 * num, ..., 0] * 255).astype(np.uint8), ((0, 0), (2, 2), (2, 2)))
    records = np.concatenate(
        [digits.labels[: 6 * num, None].astype(np.uint8), *[images.reshape(6 * num, -1)] * 3], axis=1
    )
    names = [*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin"]
    for name, batch in zip(names, np.split(records, 6), strict=True):
        (folder / name).write_bytes(batch.tobytes())


def test_images_of_cifar10s_shape_train(tmp_path):
    write_cifar10(tmp_path)
    fields = {"data__name": "cifar10", "data__dir": str(tmp_path), "data__validation_size": 100, **SAMPLED}
    config = quick_config("train:C", training__batch_size=100, **fields)
    result = train_and_evaluate(config, tmp_path / "run")
    assert result["num_params"] == 3072 * 512 + 512 + 131_328 + 32_896 + 1290
    assert result["accuracies"][0]["num_examples"] == 100


EXACT = {"penalty__name": "jacobian_frobenius", "penalty__every": 1000, "penalty__lam": 0.01}
"""In the first step alone: each takes a pass for each class."""


@pytest.mark.parametrize("penalty", [SAMPLED, SAMPLED | EXACT], ids=["sampled", "exact"])
def test_a_hundred_classes_train_and_the_exact_penalty_says_what_it_does_at_a_time(penalty, tmp_path):
    config = quick_config("many_classes:100", **penalty, training__batch_size=100, evaluation__points="validation")
    listener = Listener()
    result = train_and_evaluate(config, tmp_path / "run", reporter=listener)
    assert (result["accuracies"][0]["num_examples"], result["gradient_form"]) == (500, "automatic")
    assert result["accuracies"][0]["accuracy"] > 0.05  # chance is 0.01
    if penalty is SAMPLED:
        assert listener.notices == []
    else:
        first, advice = listener.notices
        assert first.startswith("exact penalty, automatic: 100 examples x 1 of 100 classes at a time, at most about")
        assert "jacobian_l1_sampled_classes" in advice
