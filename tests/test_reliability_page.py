"""docs/reliability.md: every test that it names is there."""

import ast
import re
from pathlib import Path

CHECKOUT = Path(__file__).parents[1]
NAMED = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", (CHECKOUT / "docs" / "reliability.md").read_text())


def defined_in(file):
    """List the tests of a file, without running it."""
    return {node.name for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.FunctionDef)}


def test_every_test_that_the_page_names_is_there():
    assert len(NAMED) > 40
    assert [f"{file}::{test}" for file, test in NAMED if test not in defined_in(CHECKOUT / file)] == []


def test_every_test_of_a_fault_is_on_the_page():
    files = [*(CHECKOUT / "tests" / "faults").glob("test_*.py"), CHECKOUT / "tests" / "test_security.py"]
    there = {test for file in files for test in defined_in(file) if test.startswith("test_")}
    assert sorted(there - {test for _, test in NAMED}) == []
