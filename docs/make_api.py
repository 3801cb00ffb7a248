"""Write docs/api.md from the public docstrings; tests/test_public_api.py checks that it is up to date.

python docs/make_api.py
"""

import ast
import importlib
import inspect
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import jl1

_HEAD = """# Public names

Importable from `jl1`; each docstring gives shapes, ranges, errors, an example and the source. Written by
`python docs/make_api.py`.

| name | from | what it is |
|---|---|---|
"""


def api_page() -> str:
    """Return the page: one line a public name, with the first line of its docstring or the string below a constant."""
    rows = []
    for name, module in sorted(_origins().items(), key=lambda origin: origin[0].lower()):
        value = getattr(jl1, name)
        summary = _first_line(value) if callable(value) else _string_below(name, module)
        rows.append(f"| `{name}` | `{module.__name__}` | {summary} |\n")
    return _HEAD + "".join(rows)


def _origins() -> dict[str, ModuleType]:
    """Return the module of each public name, by the list of imports that `jl1` loads them by."""
    imports = ast.parse(Path(inspect.getfile(jl1)).with_suffix(".pyi").read_text()).body
    origins = {node.names[0].name: node.module for node in imports if isinstance(node, ast.ImportFrom)}
    return {name: importlib.import_module(f"jl1.{module}") for name, module in origins.items()}


def _first_line(value: object) -> str:
    """Return the first line of a docstring."""
    return _escaped((inspect.getdoc(value) or "").splitlines()[0])


def _string_below(name: str, module: ModuleType) -> str:
    """Return the string that stands below a constant, on one line."""
    strings = {
        ast.unparse(node.target if isinstance(node, ast.AnnAssign) else node.targets[0]): ast.literal_eval(below.value)
        for node, below in pairwise(ast.parse(inspect.getsource(module)).body)
        if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(below, ast.Expr)
    }
    return _escaped(" ".join(strings[name].split()))


def _escaped(text: str) -> str:
    """Keep Markdown from ending a cell at a bar."""
    return text.replace("|", r"\|")


if __name__ == "__main__":
    Path(__file__).with_name("api.md").write_text(api_page())
