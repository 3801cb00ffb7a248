"""Write docs/api.md from the public docstrings; tests/test_public_api.py checks that it is up to date.

python docs/make_api.py
"""

import inspect
from pathlib import Path

import jl1

_HEAD = """# Public names

Importable from `jl1`; each docstring gives shapes, ranges, errors, an example and the source. Written by
`python docs/make_api.py`.

| name | from | what it is |
|---|---|---|
"""


def api_page() -> str:
    """Return the page: one line a public name, with the first line of its docstring."""
    rows = []
    for name in sorted(jl1.__all__, key=str.lower):
        value = getattr(jl1, name)
        summary = (inspect.getdoc(value) or "").splitlines()[0].replace("|", r"\|")
        rows.append(f"| `{name}` | `{value.__module__}` | {summary} |\n")
    return _HEAD + "".join(rows)


if __name__ == "__main__":
    Path(__file__).with_name("api.md").write_text(api_page())
