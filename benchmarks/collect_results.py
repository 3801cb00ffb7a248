"""Gather the figures of finished runs into a small CSV, and print them as a table over seeds.

    python benchmarks/collect_results.py runs/*/ > docs/results/NAME.csv
    python benchmarks/collect_results.py --table docs/results/NAME.csv

The CSV has a row an accuracy with the settings that it belongs to; the table has mean +- standard deviation over
seeds, in percent.
"""

import sys
from pathlib import Path
from typing import Any

import pandas as pd

from jl1.records import read_result


def rows_of(workdir: Path) -> list[dict[str, object]]:
    """Return the rows of one finished run."""
    result = read_result(workdir)
    if result is None:
        raise SystemExit(f"{workdir} has no result.json: its run is not finished")
    config, commit = result["config"], result["versions"]["git_commit"] or ""
    settings = {
        "dataset": config["data"]["name"],
        "model": config["model"]["name"],
        **{key: config["penalty"][key] for key in ("outputs", "scale", "lam")},
        "penalty": config["penalty"]["name"],
        "method": _method(config["adversarial"]),
        "train_epsilon": config["adversarial"]["epsilon"],
        "warmup_epochs": config["adversarial"].get("warmup_epochs", 0),
        "seed": result["seed"],
        "num_epochs": result["num_epochs"],
        "l1_norm_logits": round(result["l1_jacobian_norm"]["logits"], 3),
        "l1_norm_probs": round(result["l1_jacobian_norm"]["probs"], 4),
        "train_seconds": round(result["seconds"]["train"]),
        "jax": result["versions"]["jax"],
        "commit": commit[:12],
    }
    return [settings | row for row in result["accuracies"]]


def table_of(rows: pd.DataFrame) -> str:
    """Return a Markdown table of mean +- standard deviation in percent: attacks down, settings across."""
    cells = rows.assign(column=rows.apply(_column, axis=1), line=rows.apply(_line, axis=1))
    cells = cells.groupby(["line", "column"], sort=False)["accuracy"].agg(["mean", "std", "size"])
    table = cells.apply(_cell, axis=1).unstack("column", fill_value="missing", sort=False)
    head = ["attack", *table.columns]
    lines = [head, ["---"] * len(head), *([line, *table.loc[line]] for line in table.index)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _method(adversarial: dict[str, Any]) -> str:
    """Name the way of robust training; runs of older versions know only one."""
    method = adversarial.get("method", "twins")
    return method if method == "twins" else f"{method}-{adversarial['num_steps']}"


def _cell(cell: Any) -> str:
    """Write mean +- standard deviation, which one seed does not have."""
    spread = f" +- {100 * cell['std']:.2f}" if cell["size"] > 1 else ""
    return f"{100 * cell['mean']:.2f}{spread} (n={cell['size']:.0f})"


def _column(row: Any) -> str:
    """Name the settings of a run."""
    penalty = f"lambda {row['lam']:g} on {row['outputs']}, {row['scale']}" if row["lam"] > 0 else "lambda 0"
    warmup = f", warm-up {row['warmup_epochs']:g}" if row.get("warmup_epochs", 0) else ""
    attack = f", {row.get('method', 'twins')} {row['train_epsilon']:g}{warmup}" if row["train_epsilon"] > 0 else ""
    return f"{row['model']}, {penalty}{attack}"


def _line(row: Any) -> str:
    """Name an attack."""
    return "clean" if row["attack"] == "clean" else f"{row['attack']} {row['epsilon']:g}, {row['labels']} labels"


def main(arguments: list[str]) -> None:
    """Print the CSV of some runs, or the table of a CSV."""
    if arguments[0] == "--table":
        print(table_of(pd.read_csv(arguments[1])))
        return
    rows = [row for folder in sorted(arguments) for row in rows_of(Path(folder))]
    pd.DataFrame(rows).to_csv(sys.stdout, index=False)


if __name__ == "__main__":
    main(sys.argv[1:])
