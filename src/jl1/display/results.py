"""What the terminal shows at the end of a command: tables, warnings, and where the files are."""

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from jl1.attack_names import attack_name
from jl1.attacks.suite import order_violations
from jl1.display.terminal import say, show_table

_STYLES = {"PASS": "green", "WARN": "yellow", "FAIL": "bold red", "SKIP": "dim"}


def accuracy_table(rows: list[dict[str, Any]]) -> Table:
    """Lay out accuracies in percent: a row an attack, a column a radius."""
    epsilons = sorted({row["epsilon"] for row in rows})
    table = Table("attack", "labels")
    for epsilon in epsilons:
        table.add_column(f"epsilon {epsilon:g}" if epsilon else "no attack", justify="right")
    cells: dict[tuple[str, str], dict[float, str]] = {}
    for row in rows:
        cells.setdefault((attack_name(row), row["labels"]), {})[row["epsilon"]] = _accuracy(row)
    for (attack, labels), by_epsilon in cells.items():
        table.add_row(attack, labels, *(by_epsilon.get(epsilon, "") for epsilon in epsilons))
    return table


def _accuracy(row: dict[str, Any]) -> str:
    """Write an accuracy in percent, and below it its interval if it has one."""
    if "interval" not in row:
        return f"{100 * row['accuracy']:.2f}"
    low, high = row["interval"]
    return f"{100 * row['accuracy']:.2f}\n{100 * low:.1f} - {100 * high:.1f}"


def show_evaluation(console: Console, rows: list[dict[str, Any]], workdir: Path) -> None:
    """Show what `jl1 evaluate` has measured, and where its files are."""
    row = rows[0]
    part = f"the first {row['num_examples']:,} of " if row["num_examples"] < row["num_points"] else ""
    say(console, f"\naccuracy in %, and its 95 % interval, on {part}{row['num_points']:,} {row['points']} points")
    say(console, f"checkpoint of epoch {row['epoch']}; a point that is wrong without an attack counts as broken")
    show_table(console, accuracy_table(rows))
    for line in order_warnings(rows):
        say(console, f"warning: {line}")
    say(console, f"files: {workdir / 'evaluation.json'}, a verdict for each point in {workdir / 'evaluation'}")


def show_audit(console: Console, content: dict[str, Any], page: Path) -> None:
    """Show the accuracies of an audit, a line a check, what they come to, and where its files are."""
    part = f"the first {content['num_examples']:,} of " if content["num_examples"] < content["num_points"] else ""
    points = f"{part}{content['num_points']:,} {content['points']} points"
    say(console, f"\naccuracy in %, and its 95 % interval, on {points}")
    show_table(console, accuracy_table([{"labels": "true", **row} for row in content["accuracies"]]))
    for check in content["checks"]:
        line = Text.assemble((check["outcome"], _STYLES[check["outcome"]]), f"  {check['name']}: {check['figure']}")
        console.print(line, soft_wrap=True)
        if check["outcome"] != "PASS":
            say(console, f"      -> {check['advice']}")
    say(console, f"\n{content['sentence']}")
    say(console, f"files: {page} (to read), {page.with_name('audit.json')}")


def show_result(console: Console, result: dict[str, Any], workdir: Path) -> None:
    """Show the final figures of a run and where its files are."""
    num_points = result["accuracies"][0]["num_examples"]
    points = result["config"]["evaluation"]["points"]
    epochs = f"{result['num_epochs']} epoch{'s' * (result['num_epochs'] != 1)} ({result['stopped_because']})"
    say(console, f"\naccuracy in % on {num_points:,} {points} points after {epochs}")
    show_table(console, accuracy_table(result["accuracies"]))
    norms, seconds = result["l1_jacobian_norm"], result["seconds"]
    lines = [
        f"mean ||J||_1,1: logits {norms['logits']:.4g}, probabilities {norms['probs']:.4g}",
        f"seconds: compile {seconds['compile']:.1f}, train {seconds['train']:.1f}, evaluate {seconds['evaluate']:.1f}",
        f"files: {workdir} (result.json, metrics.jsonl, config.json, checkpoints)",
    ]
    say(console, "\n".join(lines))


def order_warnings(rows: list[dict[str, Any]]) -> list[str]:
    """Say where a stronger attack leaves more accuracy than a weaker one, with the figures."""
    lines = []
    for epsilon in dict.fromkeys(row["epsilon"] for row in rows):
        here = [row for row in rows if row["epsilon"] == epsilon]
        accuracies = {row["attack"]: row["accuracy"] for row in here}
        lines += [
            f"at epsilon {epsilon:g} {strong} leaves {accuracies[strong]:.2%}, more than the {accuracies[weak]:.2%} of "
            f"{weak}, a weaker attack: the gradients are masked, or {strong} needs more steps"
            for weak, strong in order_violations(accuracies, num_examples=here[0]["num_examples"])
        ]
    return lines
