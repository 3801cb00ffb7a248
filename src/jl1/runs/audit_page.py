"""The page of an audit, audit.md: the finding, the accuracies, the checks, the pictures, and how it was made."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jl1 import records
from jl1.attack_names import attack_name
from jl1.config import Config
from jl1.configuration.loss_in_words import describe_loss
from jl1.json_files import write_text

_OUTCOMES = {"PASS": "pass", "WARN": "**warn**", "FAIL": "**FAIL**", "SKIP": "not run"}


def write_page(workdir: Path, content: Mapping[str, Any], config: Config, pictures: Mapping[str, str]) -> Path:
    """Write the page and return its path.

    Args:
        workdir: Folder of the run.
        content: Of audit.json.
        config: Of the run.
        pictures: What each shows, by the name of its file in the audit folder.

    Returns:
        The path of audit.md.
    """
    path = records.audit_folder(workdir) / "audit.md"
    parts = [
        f"# Audit of {workdir.resolve().name}",
        f"**{content['sentence']}**",
        f"Model {config.model.name} on {config.data.name}; {describe_loss(config)}. Checkpoint of epoch "
        f"{content['epoch']} (`{content['checkpoint'][:12]}`), {content['num_examples']:,} of "
        f"{content['num_points']:,} {content['points']} points. A point that is wrong without attack counts as broken.",
        "## Accuracy, in percent",
        _table(*_accuracy_cells(content["accuracies"])),
        "## Checks",
        _table(["", "check", "figure", "what to do"], [_check_cells(check) for check in content["checks"]]),
        *([f"## Pictures\n\n{_pictures(pictures)}"] if pictures else []),
        "## How it was made",
        _provenance(content),
    ]
    write_text(path, "\n\n".join(parts) + "\n")
    return path


def _accuracy_cells(rows: list[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Lay out accuracies with their intervals: a row an attack, a column a radius."""
    radii = sorted({row["epsilon"] for row in rows})
    cells: dict[str, dict[float, str]] = {}
    for row in rows:
        low, high = (100 * end for end in row["interval"])
        text = f"{100 * row['accuracy']:.1f} ({low:.1f} - {high:.1f})"
        cells.setdefault(attack_name(row), {})[row["epsilon"]] = text
    header = ["attack", *(f"epsilon {radius:g}" if radius else "no attack" for radius in radii)]
    return header, [[name, *(of.get(radius, "") for radius in radii)] for name, of in cells.items()]


def _check_cells(check: Mapping[str, Any]) -> list[str]:
    """Lay out one check."""
    advice = "" if check["outcome"] == "PASS" else check["advice"]
    return [_OUTCOMES[check["outcome"]], check["name"], check["figure"], advice]


def _table(header: list[str], rows: list[list[str]]) -> str:
    """Write a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _pictures(pictures: Mapping[str, str]) -> str:
    """Show each picture under what it shows."""
    return "\n\n".join(f"{text}\n\n![{text}]({name})" for name, text in pictures.items())


def _provenance(content: Mapping[str, Any]) -> str:
    """Say with what the audit was made."""
    versions = ", ".join(f"{name} {version}" for name, version in content["versions"].items() if version)
    transfer = f", transfer from {content['transfer_from']}" if content["transfer_from"] else ""
    return (
        f"`jl1 audit`, ensemble with the budget `{content['budget']}`{transfer}, {content['seconds']:.0f} seconds on "
        f"{content['device']}. {versions}. Intervals are Wilson's at 95 %: what the choice of these points leaves "
        "open, not what a stronger attack would find. All figures: `audit.json`."
    )
