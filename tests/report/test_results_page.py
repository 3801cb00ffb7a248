"""The tables of docs/results.md come from the rows beside it."""

import runpy
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"


def test_the_tables_are_those_of_their_rows():
    with_tables = runpy.run_path(str(DOCS / "make_results.py"))["with_tables"]
    page = (DOCS / "results.md").read_text()
    assert with_tables(page) == page, "run python docs/make_results.py"
    assert page.count("<!-- jl1 table") == page.count("<!-- end -->") > 0


def test_a_table_that_has_changed_by_hand_is_made_anew():
    with_tables = runpy.run_path(str(DOCS / "make_results.py"))["with_tables"]
    page = (DOCS / "results.md").read_text()
    start = page.index("<!-- jl1 table")
    changed = page[:start] + page[start:].replace("| clean |", "| cleaner |", 1)
    assert changed != page
    assert with_tables(changed) == page
