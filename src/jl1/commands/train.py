"""`jl1 train`: train, attack and record one run."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from jl1.cli_flags import define_workdir
from jl1.config import validate_config
from jl1.config_files import run_name
from jl1.config_flags import parse_config
from jl1.display import PlainReporter, open_reporter, show_result
from jl1.experiment import train_and_evaluate


def run(arguments: list[str]) -> int:
    """Train, attack and record one run."""
    config, parsed = parse_config(arguments, "quickstart", define_workdir)
    validate_config(config)
    workdir = Path(parsed.workdir) if parsed.workdir else Path("runs") / run_name(config)
    console = Console()
    with open_reporter(console) as reporter, _stop_on_signals(reporter) as should_stop:
        result = train_and_evaluate(config, workdir, reporter=reporter, should_stop=should_stop)
    show_result(console, result, workdir)
    return 0


@contextmanager
def _stop_on_signals(reporter: PlainReporter) -> Iterator[Callable[[], bool]]:
    """Let the first Ctrl-C or SIGTERM end training at the last whole epoch; a second one ends the process."""
    received = []

    def remember(number: int, _: object) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(number)
        reporter.notice("stopping: the last whole epoch is evaluated; once more to end at once")

    before = {number: signal.signal(number, remember) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(received)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
