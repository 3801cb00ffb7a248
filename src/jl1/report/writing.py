"""The files of a report: the tables as Markdown, LaTeX and CSV, the tidy rows, and the pictures."""

from pathlib import Path

from jl1.display.terminal import readable
from jl1.display.text_tables import as_latex, notes_as_latex
from jl1.errors import cannot_write
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
        drawn = draw_all(page.cells, results.rows, results.workdirs, folder) if have_matplotlib() else ([], [])
        pictures, warnings = drawn[0], [f"warning: {note}" for note in drawn[1]]
        for old in {path for pattern in PICTURES for path in folder.glob(pattern)} - {*pictures}:
            old.unlink()  # of an earlier call, beside tables that it is not of
        page = page._replace(notes=[*page.notes, *warnings])
        (folder / "table.md").write_text(readable(f"    {command}\n\n{page_as_markdown(page)}\n"))
        latex = [*map(as_latex, page.layouts), notes_as_latex(page.notes)]
        (folder / "table.tex").write_text(readable("\n\n".join(latex) + "\n"))
        page.cells.cells.to_csv(folder / "table.csv", index=False, float_format=_SIGNIFICANT, lineterminator="\n")
        page.trends.to_csv(folder / "trends.csv", index=False, float_format=_SIGNIFICANT, lineterminator="\n")
        write_rows(results.rows, folder / "rows.csv")
    except OSError as error:
        raise cannot_write(folder, error, "choose another --out") from error
    return [*(folder / name for name in _FILES), *pictures], warnings
