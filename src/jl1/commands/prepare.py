"""`jl1 prepare`: do the slow part of a data set once."""

from rich.console import Console

from jl1.config_flags import parse_config
from jl1.data import prepare_dataset
from jl1.terminal import say


def run(arguments: list[str]) -> int:
    """Download, prepare and decode a data set."""
    config, _ = parse_config(arguments, "train")
    say(Console(), prepare_dataset(config.data.name, data_dir=config.data.dir))
    return 0
