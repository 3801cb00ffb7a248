"""Bring the tables of docs/results.md up to date; tests/report/test_results_page.py checks that they are.

python docs/make_results.py

What stands between a line `<!-- jl1 table --rows=docs/results/NAME.csv -->` and the next `<!-- end -->` is what that
command says. The rows are those that `jl1 table --workdir=DIR --out=OUT` wrote as `OUT/rows.csv`.
"""

import re
from pathlib import Path

from jl1.display.text_tables import Layout, as_markdown
from jl1.report.pages import make_page
from jl1.report.results import read_results

_CHECKOUT = Path(__file__).parents[1]
_PAGE = Path(__file__).with_name("results.md")
_PART = re.compile(r"(<!-- jl1 table --rows=(\S+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)


def with_tables(text: str) -> str:
    """Return the page with its tables made anew."""

    def table(part: re.Match[str]) -> str:
        results = read_results([], [_CHECKOUT / name for name in part[2].split(",")])
        page = make_page(results, "all")
        parts = [*map(_laid_out, page.layouts), "\n".join(f"* {note}" for note in page.notes)]
        body = "\n\n".join(parts)
        return f"{part[1]}\n{body}\n\n{part[4]}"

    return _PART.sub(table, text)


def _laid_out(layout: Layout) -> str:
    """Write one table; statistics and trends are folded up."""
    table = as_markdown(layout)
    if layout.title.endswith((": statistics", ": trends over lambda")):
        return f"<details><summary>{layout.title}</summary>\n\n{table}\n\n</details>"
    return f"**{layout.title}**\n\n{table}"


if __name__ == "__main__":
    _PAGE.write_text(with_tables(_PAGE.read_text()))
