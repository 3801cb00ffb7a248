"""The paper's Tables 2, 3 and 4 as rows, to set beside jl1's own figures."""

import json
from collections.abc import Iterator
from importlib import resources
from typing import Any

import pandas as pd

from jl1.report.frames import Frame

TABLES = ("table2", "table3", "table4")
"""Those with accuracies."""

NUM_REPEATS = 10
"""Trainings behind each of the paper's means (Sec. 4.1)."""

NUM_EXAMPLES = 10_000
"""Of the MNIST test set, which they are on."""

_EXACT, _SURROGATE = "jacobian_l1", "class_sum_l1"
PAPER_KEYS = ("model", "penalty", "lam", "method", "train_epsilon", "attack", "epsilon")
"""Columns that say which of jl1's cells a number of the paper belongs to."""


def paper_numbers(tables: tuple[str, ...] = TABLES) -> Frame:
    """Return the paper's means and standard deviations, as fractions.

    Table 4's cells of lambda 0 and 10 repeat Table 3's; they are there once.

    Args:
        tables: Which tables, in `TABLES`.

    Returns:
        A row a number: `PAPER_KEYS`, `paper_table`, `paper_mean`, `paper_std`.

    Example:
        >>> numbers = paper_numbers(("table2",)).query("model == 'C' and lam == 50 and attack == 'fgsm'")
        >>> numbers[["paper_mean", "paper_std"]].round(4).values.tolist()
        [[0.2992, 0.1424]]
    """
    content = json.loads(resources.files("jl1.report").joinpath("paper_tables.json").read_text())
    readers = {"table2": _table2, "table3": _table3, "table4": _table4}
    rows = [
        {**row, "paper_table": table, "paper_mean": mean / 100, "paper_std": std / 100}
        for table in tables
        for row, (mean, std) in readers[table](content[table])
    ]
    columns = [*PAPER_KEYS, "paper_table", "paper_mean", "paper_std"]
    return pd.DataFrame(rows, columns=columns).drop_duplicates([*PAPER_KEYS], ignore_index=True)


_Numbers = Iterator[tuple[dict[str, Any], list[float]]]


def _table2(table: dict[str, Any]) -> _Numbers:
    """Yield the cells without adversarial training: FGSM at 0.3, Eq. 3."""
    for model in ("A", "B", "C"):
        for index, lam in enumerate(table["lambda"]):
            network = {"model": model, "penalty": _EXACT, "lam": float(lam), "method": "", "train_epsilon": 0.0}
            yield from _cells(network, 0.3, table[model], index)


def _table3(table: dict[str, Any]) -> _Numbers:
    """Yield the cells with twins and the surrogate at lambda 10, attacked at the radius of the training."""
    for model in ("A", "B", "C"):
        for name, lam in (("adv_train", 0.0), ("adv_train_gp", 10.0)):
            for index, epsilon in enumerate(table["epsilon"]):
                yield from _cells(_twins(model, lam, epsilon), epsilon, table[model][name], index)


def _table4(table: dict[str, Any]) -> _Numbers:
    """Yield the cells of model C at 0.3 over lambda."""
    for index, lam in enumerate(table["lambda"]):
        yield from _cells(_twins("C", float(lam), 0.3), 0.3, table, index)


def _twins(model: str, lam: float, epsilon: float) -> dict[str, Any]:
    """Return the columns of a network of Sec. 4.2."""
    penalty = _SURROGATE if lam > 0 else "none"
    return {"model": model, "penalty": penalty, "lam": lam, "method": "twins", "train_epsilon": epsilon}


def _cells(network: dict[str, Any], epsilon: float, figures: dict[str, Any], index: int) -> _Numbers:
    """Yield the clean and the attacked accuracy of one network."""
    yield network | {"attack": "clean", "epsilon": 0.0}, figures["clean"][index]
    yield network | {"attack": "fgsm", "epsilon": epsilon}, figures["adv"][index]
