"""All that `jl1 table` says of some results: the tables, and the lines below them."""

from collections.abc import Sequence
from typing import NamedTuple

from jl1.display.text_tables import Layout, as_markdown
from jl1.report.cells import Cells, make_cells
from jl1.report.frames import Frame
from jl1.report.notes import absent_from_paper, legend, source_lines
from jl1.report.paper_numbers import TABLES, paper_numbers
from jl1.report.results import Results
from jl1.report.tables import lay_out
from jl1.report.trends import make_trends


class Page(NamedTuple):
    """What is said of some results.

    Attributes:
        cells: The statistics.
        trends: How accuracy goes along with lambda.
        layouts: The tables, laid out.
        notes: The lines below them all.
    """

    cells: Cells
    trends: Frame
    layouts: Sequence[Layout]
    notes: Sequence[str]


def make_page(results: Results, paper: str) -> Page:
    """Summarise results, and lay them out.

    Args:
        results: As `results.read_results` returns them.
        paper: `all`, `none`, or the one of `paper_numbers.TABLES` whose numbers stand beside.

    Returns:
        The page.
    """
    cells = make_cells(results.rows, paper_numbers({"all": TABLES, "none": ()}.get(paper, (paper,))))
    trends = make_trends(cells)
    absent = absent_from_paper(cells.cells, paper) if paper in TABLES else []
    warnings = [f"warning: {note}" for note in (*results.notes, *cells.notes)]
    notes = [*legend(cells, trends), *source_lines(results.rows, results.configs), *absent, *warnings]
    return Page(cells, trends, lay_out(cells, trends), notes)


def page_as_markdown(page: Page) -> str:
    """Write the tables with what stands below them.

    Args:
        page: The page.

    Returns:
        Markdown, without a line break at the end.
    """
    parts = []
    for layout in page.layouts:
        parts += [f"## {layout.title}", as_markdown(layout)]
    return "\n\n".join(part for part in [*parts, "## Notes", _items(page.notes)] if part)


def _items(lines: Sequence[str]) -> str:
    """Write lines as a list."""
    return "\n".join(f"* {line}" for line in lines)
