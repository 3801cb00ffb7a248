"""Which run a folder may hold: a new one, or the unfinished run of the same config."""

from pathlib import Path
from typing import Any

from jl1 import records
from jl1.configuration.files import run_differences
from jl1.errors import UserError, cannot_write
from jl1.json_files import TEMPORARY, write_json
from jl1.runs.lock import HOLDER, LOCK


def check_workdir(workdir: Path, config: dict[str, Any]) -> None:
    """Refuse a folder that the run of a config cannot start or go on in; nothing is written.

    Args:
        workdir: The folder; it need not exist.
        config: The resolved config, as plain types.

    Raises:
        UserError: The folder holds other files, another config or a finished run, may not be looked into, or has a
            name that no checkpoint could be written under.
    """
    require_utf8(workdir)
    try:
        paths = [*workdir.iterdir()] if workdir.is_dir() else []
    except OSError as error:
        raise UserError(f"{workdir} cannot be read: {error.strerror or error}; choose another --workdir") from error
    names = {path.name for path in paths if path.suffix != TEMPORARY} - {LOCK, HOLDER}
    if records.CONFIG in names:
        _refuse_another_run(workdir, config)
    elif names:
        raise UserError(
            f"{workdir} is not the folder of a jl1 run (it has {', '.join(sorted(names)[:5])} but no config.json): "
            "choose an empty or a new folder with --workdir"
        )


def require_utf8(folder: Path) -> None:
    """Refuse a folder of which the path is no UTF-8: neither orbax nor a log can write it.

    Raises:
        UserError: It is not.
    """
    try:
        str(folder.absolute()).encode()
    except UnicodeEncodeError as error:
        raise UserError(f"the name of the folder {folder} is not UTF-8: choose another with --workdir") from error


def open_run(workdir: Path, config: dict[str, Any]) -> Path:
    """Make the folder of a run, or find the unfinished run of the same config in it.

    A config differs by no field that an older version did not know and that has its default, and not by where the
    data lie: `data.dir` becomes the given one.

    Args:
        workdir: The folder; it may exist.
        config: The resolved config, as plain types.

    Returns:
        The folder, with config.json in it.

    Raises:
        UserError: The folder holds other files, another config or a finished run, or cannot be written.
    """
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        check_workdir(workdir, config)
        write_json(workdir / records.CONFIG, config)
    except OSError as error:
        raise cannot_write(workdir, error, "choose another folder with --workdir") from error
    return workdir


def _refuse_another_run(workdir: Path, config: dict[str, Any]) -> None:
    """Raise unless the folder's run is unfinished and has this config."""
    different = run_differences(records.read_config(workdir), config)
    if different:
        raise UserError(
            f"{workdir} holds a run of another config, which is left as it is:\n  "
            + "\n  ".join(different)
            + "\nchoose another folder with --workdir, or give the same config to resume it"
        )
    if records.is_finished(workdir):
        raise UserError(
            f"{workdir} holds the finished run of this config, which is left as it is. To repeat it, choose "
            "another --workdir or --config.seed; to attack it again, `jl1 evaluate --workdir`; to train it for longer, "
            f"`jl1 train --continue_from`; its figures are in {workdir / records.RESULT}"
        )
