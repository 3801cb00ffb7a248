"""What the terminal shows: a live display where there is one, plain lines elsewhere, tables at the end."""

import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from jl1.attack_names import attack_name
from jl1.attacks.suite import order_violations
from jl1.config import Config
from jl1.data import Dataset
from jl1.reporting import Reporter
from jl1.terminal import duration, say

_SECONDS_BETWEEN_LINES = 30
_STYLES = {"PASS": "green", "WARN": "yellow", "FAIL": "bold red", "SKIP": "dim"}


class _Pace(NamedTuple):
    """How fast a figure has come along: what it is, when it began and was last spoken of, and with how many points."""

    what: str
    start: float
    said: float
    began_with: int


class PlainReporter(Reporter):
    """One line an epoch, for logs and pipes."""

    def __init__(self, console: Console) -> None:
        """Write to a console."""
        self._console = console
        self._max_epochs = 0
        self._start = time.perf_counter()
        self._epochs_before = 0
        self._pace = _Pace("", 0.0, 0.0, 0)

    def started(self, config: Config, data: Dataset, workdir: Path, num_epochs: int) -> None:
        """Say what is trained, on what, and where."""
        self._max_epochs, self._epochs_before = config.training.num_epochs, num_epochs
        self._start = time.perf_counter()
        self._say(f"model {config.model.name} on {data.name}: {_sizes(data)}; {data.source}")
        self._say(describe_loss(config))
        self._say(f"folder {workdir}" + (f", resumed after epoch {num_epochs}" if num_epochs else ""))

    def finished_epoch(self, row: dict[str, Any]) -> None:
        """Write the line of an epoch, with the time left at the pace so far."""
        epochs_here = row["epoch"] - self._epochs_before
        left = (time.perf_counter() - self._start) / epochs_here * (self._max_epochs - row["epoch"])
        self._say(
            f"epoch {row['epoch']:>3}/{self._max_epochs}  {_losses(row)}  "
            f"validation {row['validation_accuracy']:.2%}  {row['examples_per_second']:.0f} examples/s  "
            f"{duration(left)} left"
        )

    def measured(self, what: str, done: int, total: int) -> None:
        """Say when a figure is done, and on the way to a slow one now and then how long it will take."""
        now = time.perf_counter()
        if what != self._pace.what:
            self._pace = _Pace(what, now, now, done)
        if done == total:
            self._say(f"measured: {what}")
        elif now - self._pace.said >= _SECONDS_BETWEEN_LINES and done > self._pace.began_with:
            left = (now - self._pace.start) / (done - self._pace.began_with) * (total - done)
            self._say(f"{what}: {done:,}/{total:,} points, {duration(left)} left")
            self._pace = self._pace._replace(said=now)

    def examined(self, what: str) -> None:
        """Say it."""
        self._say(f"examined: {what}")

    def notice(self, text: str) -> None:
        """Say it."""
        self._say(f"note: {text}")

    def _say(self, text: str) -> None:
        say(self._console, text)


class LiveReporter(PlainReporter):
    """The same lines, and below them a bar that moves."""

    def __init__(self, console: Console) -> None:
        """Show a bar on a terminal."""
        super().__init__(console)
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[facts]}"),
        )
        self._progress = Progress(*columns, TextColumn("left"), TimeRemainingColumn(), console=console, transient=True)
        self._task: TaskID | None = None
        self._validation = "-"

    def __enter__(self) -> "LiveReporter":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def trained(self, epoch: int, done: int, total: int, row: dict[str, Any]) -> None:
        """Move the bar of the whole training."""
        facts = f"{_losses(row)}  validation {self._validation}  {row['examples_per_second']:.0f} examples/s"
        everything = total * (self._max_epochs - self._epochs_before)
        done_here = total * (epoch - 1 - self._epochs_before) + done
        self._move(f"epoch {epoch}/{self._max_epochs}", done_here, everything, facts)

    def finished_epoch(self, row: dict[str, Any]) -> None:
        """Write the line of an epoch above the bar."""
        self._validation = f"{row['validation_accuracy']:.2%}"
        super().finished_epoch(row)

    def measured(self, what: str, done: int, total: int) -> None:
        """Move the bar of one figure."""
        self._move(what, done, total, f"{done}/{total} points")

    def _move(self, description: str, done: int, total: int, facts: str) -> None:
        """Move the bar, or begin a new one when another thing is measured."""
        training = description.startswith("epoch")
        if self._task is None or (done == 0 and not training):
            if self._task is not None:
                self._progress.remove_task(self._task)
            self._task = self._progress.add_task(description, total=total, facts=facts)
        self._progress.update(self._task, description=description, completed=done, total=total, facts=facts)


@contextmanager
def open_reporter(console: Console) -> Iterator[PlainReporter]:
    """Give the reporter that fits the terminal."""
    reporter = LiveReporter(console) if console.is_terminal else PlainReporter(console)
    with reporter if isinstance(reporter, LiveReporter) else nullcontext():
        yield reporter


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
    console.print(accuracy_table(rows))
    for line in order_warnings(rows):
        say(console, f"warning: {line}")
    say(console, f"files: {workdir / 'evaluation.json'}, a verdict for each point in {workdir / 'evaluation'}")


def show_audit(console: Console, content: dict[str, Any], page: Path) -> None:
    """Show the accuracies of an audit, a line a check, what they come to, and where its files are."""
    part = f"the first {content['num_examples']:,} of " if content["num_examples"] < content["num_points"] else ""
    points = f"{part}{content['num_points']:,} {content['points']} points"
    say(console, f"\naccuracy in %, and its 95 % interval, on {points}")
    console.print(accuracy_table([{"labels": "true", **row} for row in content["accuracies"]]))
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
    epochs = f"{result['num_epochs']} epochs ({result['stopped_because']})"
    say(console, f"\naccuracy in % on {num_points:,} {points} points after {epochs}")
    console.print(accuracy_table(result["accuracies"]))
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
        accuracies = {row["attack"]: row["accuracy"] for row in rows if row["epsilon"] == epsilon}
        lines += [
            f"at epsilon {epsilon:g} {strong} leaves {accuracies[strong]:.2%}, more than the {accuracies[weak]:.2%} of "
            f"{weak}, a weaker attack: the gradients are masked, or {strong} needs more steps"
            for weak, strong in order_violations(accuracies)
        ]
    return lines


def _sizes(data: Dataset) -> str:
    """Say how many points there are of each kind."""
    parts = (("training", data.train), ("validation", data.validation), ("test", data.test))
    return " / ".join(f"{len(split.labels):,} {name}" for name, split in parts)


def describe_loss(config: Config) -> str:
    """Say in one line what is minimised."""
    text = f"loss: cross-entropy, smoothing {config.training.smoothing:g}"
    if config.penalty.name != "none" and config.penalty.lam > 0:
        text += (
            f" + {config.penalty.lam:g} * {config.penalty.name} of the {config.penalty.outputs} "
            f"({config.penalty.scale})"
        )
    return text + _describe_attack(config.adversarial)


def _describe_attack(settings: Config) -> str:
    """Say what is trained on beside the points, or in place of them."""
    if settings.epsilon == 0:
        return ""
    warmup = f", reached after {settings.warmup_epochs} epochs" if settings.warmup_epochs else ""
    clean = f", the clean ones with weight {settings.clean_weight:g}" if settings.clean_weight else ""
    where = {
        "twins": "on the points and their FGSM twins",
        "pgd": f"on the points that PGD-{settings.num_steps} finds",
        "trades": f"and {settings.beta:g} times the divergence (TRADES-{settings.num_steps})",
    }[settings.method]
    return f", {where} at {settings.epsilon:g}{warmup}{clean}"


def _losses(row: dict[str, Any]) -> str:
    """Write the loss and its parts."""
    return f"loss {row['loss']:.4f}  cross-entropy {row['cross_entropy']:.4f}  penalty {row['penalty']:.3g}"
