"""The file bench.json: figures as they come, and what follows from them."""

import os
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jl1 import records
from jl1.errors import UserError, cannot_write
from jl1.json_files import write_json
from jl1.penalties import OUTPUTS

SCHEMA = "jl1.bench/1"
"""Changes when a field of bench.json changes its meaning or goes."""

BENCH_FILE = "bench.json"

Table = dict[str, Any]
"""Figures of one study with one setup: `study`, `setup`, and `rows` by form."""


class BenchRecord:
    """The figures so far, in a new folder; whatever is added is written at once."""

    def __init__(self, folder: Path, command: str) -> None:
        """Make the folder.

        Raises:
            UserError: It holds files already, or cannot be written.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if any(folder.iterdir()):
                raise UserError(f"{folder} is not empty, and is left as it is: choose a new folder with --out")
        except OSError as error:
            raise cannot_write(folder, error, "choose another --out") from error
        self.folder = folder
        self.content: dict[str, Any] = {"schema": SCHEMA, "command": command, "machine": _machine(), "tables": []}
        self._write()

    def new_table(self, study: str, **setup: Any) -> Table:
        """Add a table without rows."""
        table = {"study": study, "setup": setup, "rows": {}}
        self.content["tables"].append(table)
        return table

    def fill(self, table: Table, rows: dict[str, dict[str, Any]]) -> None:
        """Put the rows of the last round in place of those of the round before."""
        table["rows"] = rows
        versions = self.content["machine"]["versions"]
        versions |= {"torch": next((row["torch"] for row in rows.values() if "torch" in row), versions.get("torch"))}
        self._write()

    def _write(self) -> None:
        """Write everything."""
        write_json(self.folder / BENCH_FILE, self.content)


def penalised(form: str) -> str | None:
    """Return what an exact form penalises: `plain` (nothing) or a name of `penalties.OUTPUTS`; else None."""
    first, last = form.split()[0], form.split()[-1]
    return last if first != "estimate" and last in ("plain", *OUTPUTS) else None


def with_shares(rows: dict[str, dict[str, Any]], operations: int) -> dict[str, dict[str, Any]]:
    """Add to each exact form its share of the core's peak, the speed of the same run's matrix product.

    Args:
        rows: Rows of one model, the matrix product among them.
        operations: Of one exact step of the batch.

    Returns:
        New rows.
    """
    product = rows["matrix product"]
    speed = product["operations"] / product["median_ms"]
    return {
        form: row | ({"share_of_peak": round(operations / row["median_ms"] / speed, 4)} if exact else {})
        for form, row in rows.items()
        for exact in [penalised(form) in OUTPUTS]
    }


def speedups(rows: dict[str, dict[str, Any]]) -> dict[str, float]:
    """Say how many times faster the closed form on logits is than the best form of each peer; nothing without it."""
    if "closed form logits" not in rows:
        return {}
    ours = rows["closed form logits"]["median_ms"]
    times: dict[str, float] = {}
    for form, row in rows.items():
        peer = form.split()[0]
        if penalised(form) == "logits" and peer != "closed":
            times[peer] = min(times.get(peer, row["median_ms"]), row["median_ms"])
    return {peer: round(best / ours, 3) for peer, best in times.items()}


def milliseconds(value: float) -> str:
    """Write a duration with three digits, and none behind the point from a second on."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def _machine() -> dict[str, Any]:
    """Return what the figures depend on."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {
        "processor": records.processor(),
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": records.versions(),
        "load_average_at_start": load,
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }
