"""`jl1 prepare`: do the slow part of a data set once."""

from jl1.configuration.flags import parse_config
from jl1.data import prepare_dataset
from jl1.display.terminal import open_console, say

FLAGS = ()
"""Functions that define its flags: it has those of a config alone."""


def run(arguments: list[str]) -> int:
    """Download, prepare and decode a data set."""
    config, _ = parse_config(arguments, "train")
    say(open_console(), prepare_dataset(config.data.name, data_dir=config.data.dir))
    return 0
