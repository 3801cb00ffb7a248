"""The command `jl1`: finds the subcommand and turns its errors into messages. `commands/` has one file a subcommand."""

import os
import sys
from collections.abc import Sequence
from importlib import import_module

from rich.console import Console

from jl1.config_folder import config_names
from jl1.errors import EXIT_BAD_INPUT, EXIT_INTERRUPTED, InterruptedEarlyError, UserError
from jl1.terminal import say

_HELP = ("help", "-h", "--help")
_COMMANDS = ("train", "sweep", "evaluate", "audit", "table", "export", "prepare", "bench")
_WITHOUT_JAX = ("table",)  # they start in a fraction of the time

_USAGE = """\
jl1: train networks with an L1 penalty on their Jacobian, attack them, report the accuracy that remains.

  jl1 train    [--config=NAME|FILE.py[:arg]] [--config.FIELD=VALUE ...] [--workdir=DIR]
               train, attack and record one run; without flags: 5,000 real digits, under two minutes;
               without --config, resumes the run in --workdir; uses all devices
               [--coordinator=HOST:PORT] [--num_processes=N] [--process_id=I] [--alone]: docs/scale.md
  jl1 sweep    --config=NAME|FILE.py[:arg] [--config.FIELD=VALUE ...] [--workdir=DIR] [--only=FIELD=VALUE,...]
               [--shard=i/n] [--workers=N] [--cores=0,1] [--retry_failed] [--dry_run]
               [--engine=local|ray] [--ray_address=auto|HOST:PORT|local] [--cpus_per_run=1] [--gpus_per_run=0]
               [--max_retries=3]
               train and attack all runs of a config, some at once; if interrupted, the same command resumes
  jl1 evaluate --workdir=DIR [--attacks=clean,noise,fgsm,pgd,pgd_margin,standard] [--epsilons=0.1,0.3]
               [--budget=fast|few_classes|full] [--pgd_steps=100] [--pgd_restarts=10] [--points=test|validation]
               [--max_points=1000] [--batch_size=500] [--data_dir=DIR]
               attack the newest checkpoint of a run; standard, or autoattack, is AutoAttack (Croce & Hein 2020,
               arXiv:2003.01690), reimplemented in JAX, with --budget=full as published: docs/evaluate.md;
               if interrupted, the same command resumes; on several devices and hosts as `jl1 train`
  jl1 audit    --workdir=DIR [--epsilon=0.1] [--budget=fast|few_classes|full] [--points=test|validation]
               [--max_points=1000] [--num_examined=200] [--batch_size=500] [--transfer_from=DIR] [--data_dir=DIR]
               say whether a run's accuracy holds: some thirty checks, a conclusion, a page with pictures
  jl1 table    [--workdir=DIR,...] [--rows=FILE.csv,...] [--paper=all|table2|table3|table4|none] [--out=FOLDER]
               set the results of many runs side by side, with statistics and the paper's numbers
  jl1 export   --workdir=DIR --out=FOLDER [--format=safetensors,jax] [--data_dir=DIR]
               write the network of a finished run for PyTorch and other tools
  jl1 prepare  [--config.data.name=mnist] [--config.data.dir=DIR]
               do the slow part of a data set once (download, decode)
  jl1 bench    [--out=runs/bench] [--models=C,A,B] [--studies=forms,loop,scaling,attacks,startup,cores]
               [--peers=automatic,textbook,torch] [--batch_size=128] [--repeats=15] [--form_seconds=60]
               [--core=0] [--torch_python=PYTHON]
               time the exact step beside its peers, pinned to one core

"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: Arguments without the program's name; those of the process if not given.

    Returns:
        The exit status: 0, 1 if runs of a sweep failed, 2 for bad input, 75 if another process works on the run, 130
        when interrupted before there was a result.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    errors = Console(stderr=True)
    command = arguments.pop(0) if arguments else "help"
    if command in _HELP or set(arguments) & set(_HELP):
        say(Console(), _USAGE + f"configs: {', '.join(config_names())}")
        return 0
    if command not in _COMMANDS:
        say(errors, f"error: no command {command!r}; there are {', '.join(_COMMANDS)}\n\n{_USAGE}")
        return EXIT_BAD_INPUT
    try:
        if command not in _WITHOUT_JAX:
            _set_up_jax()
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


def _set_up_jax() -> None:
    """Let JAX keep what it compiles in jl1's cache folder, unless JAX_COMPILATION_CACHE_DIR names another.

    Products are asked for in float32: an accelerator's own default is coarser.
    """
    import jax  # slow to import, and not every command needs it

    from jl1.data_cache import cache_folder

    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", str(cache_folder() / "xla"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_default_matmul_precision", "float32")
