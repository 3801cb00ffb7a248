"""What a run leaves behind, in a form in which two runs can be compared to the last bit."""

import json

from quick import final_params

_PROCESSES = ("lock", "holder.json", "log.txt")
_TIMES = ("seconds", "examples_per_second", "versions", "earlier_versions")


def leftovers(workdir):
    """Read all that a run has left but what may differ: times, versions, and who worked on it.

    Of the pages for people the name alone is compared, since they quote times.
    """
    files = {path.relative_to(workdir).as_posix(): path for path in sorted(workdir.rglob("*")) if path.is_file()}
    found = {
        name: _content(path)
        for name, path in files.items()
        if name not in _PROCESSES and not name.startswith("checkpoints/")
    }
    arrays = [leaf.tobytes() for leaf in final_params(workdir)]
    return found | {"arrays": arrays, "checkpoints": sorted(path.name for path in (workdir / "checkpoints").iterdir())}


def _content(path):
    """Read a file, without times."""
    if path.suffix == ".json":
        return _without_times(json.loads(path.read_text()))
    if path.suffix == ".jsonl":
        return [_without_times(json.loads(line)) for line in path.read_text().splitlines()]
    return path.name if path.suffix == ".md" else path.read_bytes()


def _without_times(value):
    """Leave out what a repetition changes."""
    if isinstance(value, dict):
        return {key: _without_times(item) for key, item in value.items() if key not in _TIMES}
    return [_without_times(item) for item in value] if isinstance(value, list) else value
