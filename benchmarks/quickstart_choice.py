"""Choose the quickstart's outputs, lambda and twins' epsilon by PGD accuracy on the validation digits.

    python benchmarks/quickstart_choice.py WORKDIR

Trains every cell of the grid once a seed (model C, mean scale, 30 epochs, 4,000 digits), attacks the 500
validation digits, never the test digits, and prints one line a cell, the best at PGD 0.1 first. Resumable:
finished cells are read from WORKDIR. About a minute a cell and seed on one core.
"""

import sys
from pathlib import Path

import numpy as np

from jl1 import records
from jl1.configuration.files import load_config
from jl1.experiment import train_and_evaluate

GRID = [
    (outputs, lam, epsilon)
    for outputs, lams in (("logits", (0.0, 15.0, 50.0, 150.0)), ("probs", (50.0, 500.0)))
    for lam in lams
    for epsilon in (0.0, 0.1, 0.2)
]
SEEDS = (0, 1)


def main(workdir: Path) -> None:
    """Train, attack and compare the cells."""
    cells = {cell: [_accuracies(workdir, *cell, seed) for seed in SEEDS] for cell in GRID}
    print("outputs,lam,twins_epsilon,clean,fgsm_0.3,pgd_0.1,pgd_0.2,pgd_0.3")
    for cell in sorted(GRID, key=lambda cell: -np.mean([row["pgd", 0.1] for row in cells[cell]])):
        columns = [("clean", 0.0), ("fgsm", 0.3), ("pgd", 0.1), ("pgd", 0.2), ("pgd", 0.3)]
        means = [100 * np.mean([row[column] for row in cells[cell]]) for column in columns]
        print(*cell, *(f"{mean:.1f}" for mean in means), sep=",")


def _accuracies(workdir: Path, outputs: str, lam: float, epsilon: float, seed: int) -> dict[tuple[str, float], float]:
    """Train one cell, or read what it gave."""
    config = load_config("quickstart")
    config.penalty.outputs, config.penalty.lam, config.adversarial.epsilon = outputs, lam, epsilon
    config.evaluation.points, config.seed = "validation", seed
    folder = workdir / f"{outputs}-lam{lam:g}-eps{epsilon:g}-seed{seed}"
    result = records.read_result(folder) if folder.exists() else None
    if result is None:
        result = train_and_evaluate(config, folder)
    return {(row["attack"], row["epsilon"]): row["accuracy"] for row in result["accuracies"] if row["labels"] == "true"}


if __name__ == "__main__":
    main(Path(sys.argv[1]))
