"""The files of a report: the tables as Markdown, LaTeX and CSV, the tidy rows, and the pictures."""

from pathlib import Path

from jl1.display.terminal import readable
from jl1.display.text_tables import as_latex, notes_as_latex
from jl1.errors import cannot_write
from jl1.json_files import write_text
from jl1.pictures.style import have_matplotlib
from jl1.report.csv_rows import write_rows
from jl1.report.figures import PICTURES, draw_all
from jl1.report.pages import Page, page_as_markdown
from jl1.report.results import Results

_FILES = ("table.md", "table.tex", "table.csv", "trends.csv", "rows.csv")
_SIGNIFICANT = "%.10g"  # more than the figures have, and the same text on every machine


def write_report(folder: Path, *, command: str, page: Page, results: Results) -> tuple[list[Path], list[str]]:
    """Write all files; those of an earlier call are replaced.

    Args:
        folder: Made if it is not there.
        command: The command line, for table.md.
        page: The tables and the lines below them.
        results: What they were made from.

    Returns:
        table.md, table.tex, table.csv (a line a cell, accuracies as fractions), trends.csv (a line a trend), rows.csv,
        and the pictures if matplotlib is there; and the lines that only drawing has brought up, below the others in
        table.md.

    Raises:
        UserError: The folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_rows(results.rows, folder / "rows.csv")
        drawn = draw_all(page.cells, results, folder) if have_matplotlib() else ([], [])
        pictures, warnings = drawn[0], [f"warning: {note}" for note in drawn[1]]
        for old in {folder / name for name in PICTURES} - {*pictures}:
            old.unlink(missing_ok=True)  # of an earlier call, beside tables that it is not of
        page = page._replace(notes=[*page.notes, *warnings])
        write_text(folder / "table.md", readable(f"    {command}\n\n{page_as_markdown(page)}\n"))
        latex = [*map(as_latex, page.layouts), notes_as_latex(page.notes)]
        write_text(folder / "table.tex", readable("\n\n".join(latex) + "\n"))
        for name, frame in (("table.csv", page.cells.cells), ("trends.csv", page.trends)):
            write_text(folder / name, frame.to_csv(index=False, float_format=_SIGNIFICANT, lineterminator="\n"))
    except OSError as error:
        raise cannot_write(folder, error, "choose another --out") from error
    return [*(folder / name for name in _FILES), *pictures], warnings
