"""The name of an attack with its strength, from a row of result.json or evaluation.json."""

from collections.abc import Mapping
from typing import Any


def attack_name(row: Mapping[str, Any]) -> str:
    """Write an attack with its strength.

    Args:
        row: A row of `accuracies` (docs/run_folder.md).

    Example:
        >>> attack_name({"attack": "pgd", "num_steps": 100, "num_restarts": 10})
        'pgd-100 x 10'
        >>> attack_name({"attack": "standard", "budget": "full", "norm": "l2"})
        'L2 standard (full)'
        >>> attack_name({"attack": "apgd_t", "num_steps": 100, "num_targets": 9, "loss_fn": "targeted_margin"})
        'apgd_t-100 x 9 on targeted_margin'
    """
    norm = "L2 " if row.get("norm") == "l2" else ""
    if "budget" in row:
        return f"{norm}{row['attack']} ({row['budget']})"
    size = next((f"-{row[name]}" for name in ("num_steps", "num_queries", "num_draws") if name in row), "")
    times = max(row.get("num_restarts", 1), row.get("num_targets", 1))
    loss = row.get("loss_fn", "")
    of_loss = f" on {loss}" if loss and not row["attack"].endswith(f"_{loss}") else ""
    return f"{norm}{row['attack'].replace('_case', ' case')}{size}{f' x {times}' if times > 1 else ''}{of_loss}"


def full_attack_name(row: Mapping[str, Any]) -> str:
    """Write an attack with its strength, and a worst case with the attacks that it is over.

    Args:
        row: A row of `accuracies`.

    Example:
        >>> full_attack_name({"attack": "worst_case", "attacks": {"fgsm": {}, "pgd": {"num_steps": 7}}})
        'worst case of fgsm, pgd-7'
    """
    members = [attack_name({"attack": name} | settings) for name, settings in row.get("attacks", {}).items()]
    return attack_name(row) + (f" of {', '.join(members)}" if members else "")
