"""The command `jl1`: finds the subcommand and turns its errors into messages. `commands/` has one file a subcommand."""

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import version

from jl1.cli_flags import describe_flags
from jl1.configuration.folder import config_names
from jl1.display.terminal import open_console, open_error_console, say
from jl1.errors import EXIT_BAD_INPUT, EXIT_INTERRUPTED, InterruptedEarlyError, UserError, did_you_mean
from jl1.interrupts import sigterm_as_ctrl_c

_HELP_FLAGS = ("-h", "--help", "--helpshort", "--helpfull")
_HELP = ("help", *_HELP_FLAGS)
_VERSION = ("--version", "version")
_COMMANDS = {
    "train": "train, attack and record one run; without flags: 5,000 real digits, under two minutes",
    "sweep": "train and attack all runs of a config, some at once",
    "evaluate": "attack the newest checkpoint of a run: AutoAttack, PGD, FGSM, noise",
    "audit": "say whether a run's accuracy holds: some thirty checks, a conclusion, a page with pictures",
    "table": "set the results of many runs side by side, with statistics and the paper's numbers",
    "export": "write the network of a run for PyTorch and other tools",
    "prepare": "do the slow part of a data set once (download, decode)",
    "bench": "time the exact step beside its peers, pinned to one core",
}
_TITLE = "jl1: train networks with an L1 penalty on their Jacobian, attack them, report the accuracy that remains."
_GO_ON = "If interrupted, the same command resumes."
_NOTES = {
    "train": f"Uses all devices. {_GO_ON} Without --config it resumes the run in --workdir,\n"
    "without --workdir the folder is one under runs/ named after the settings.",
    "sweep": _GO_ON,
    "evaluate": "`standard`, or `autoattack`, is AutoAttack (Croce & Hein 2020, arXiv:2003.01690), reimplemented in\n"
    f"JAX; with --budget=full as published: docs/evaluate.md. {_GO_ON} On several devices and hosts as `jl1 train`.",
    "audit": _GO_ON,
}
_WITH_CONFIG = ("train", "sweep", "prepare")
_WITHOUT_JAX = ("table",)  # they start in a fraction of the time


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: Arguments without the program's name; those of the process if not given.

    Returns:
        The exit status: 0, 1 if runs of a sweep failed, 2 for bad input, 75 if another process works on the run, 130
        when interrupted.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    errors = open_error_console()
    command = arguments.pop(0) if arguments else "help"
    asks_for_help = set(arguments) & {*_HELP_FLAGS} or arguments[:1] == ["help"]
    if command in (*_HELP, *_VERSION) or (command in _COMMANDS and asks_for_help):
        named = command if command in _COMMANDS else next((each for each in arguments if each in _COMMANDS), None)
        say(open_console(), f"jl1 {version('jl1')}" if command in _VERSION else _help_on(named) if named else _help())
        return 0
    if command not in _COMMANDS:
        say(errors, f"error: there is no command {command!r}; see jl1 --help{did_you_mean(command, _COMMANDS)}")
        return EXIT_BAD_INPUT
    try:
        if command not in _WITHOUT_JAX:
            _set_up_jax()
        with sigterm_as_ctrl_c():
            return import_module(f"jl1.commands.{command}").run(arguments)
    except InterruptedEarlyError as error:
        say(errors, f"{error}")
        return error.exit_status
    except UserError as error:
        say(errors, f"error: {error}")
        return error.exit_status
    except KeyboardInterrupt:
        say(errors, "interrupted; the same command goes on with it")
        return EXIT_INTERRUPTED


def _help() -> str:
    """List the commands."""
    lines = (f"  jl1 {command:<9} {summary}" for command, summary in _COMMANDS.items())
    return "\n".join(
        [
            _TITLE,
            "",
            *lines,
            "\n`jl1 COMMAND --help` lists the flags of a command, `jl1 --version` says which jl1 this is.",
            f"configs: {', '.join(config_names())}",
        ]
    )


def _help_on(command: str) -> str:
    """Describe a command and its flags."""
    definitions = import_module(f"jl1.commands.{command}").FLAGS
    flags = {
        "config=NAME[:arg]": f"settings: FILE.py, or {', '.join(config_names())}",
        "config.FIELD=VALUE": "one of them: docs/configs.md lists the fields",
    }
    flags = (flags if command in _WITH_CONFIG else {}) | describe_flags(*definitions)
    width = max(map(len, flags))
    lines = [f"  --{flag:<{width}}  {meaning}" for flag, meaning in flags.items()]
    notes = [_NOTES[command]] if command in _NOTES else []
    return "\n".join(
        [f"jl1 {command}: {_COMMANDS[command]}", *notes, "\nflags, with their defaults in brackets:", *lines]
    )


def _set_up_jax() -> None:
    """Let JAX keep what it compiles in jl1's cache folder, unless JAX_COMPILATION_CACHE_DIR names another.

    Products are asked for in float32: an accelerator's own default is coarser.
    """
    import jax  # slow to import, and not every command needs it

    from jl1.datasets.cache import cache_folder

    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", str(cache_folder() / "xla"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_default_matmul_precision", "float32")
