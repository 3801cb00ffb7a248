"""A table as text, written for the terminal, as Markdown or as LaTeX: one structure, several forms."""

from collections.abc import Sequence
from typing import NamedTuple

from rich.box import SIMPLE
from rich.table import Table
from rich.text import Text

_LATEX = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"$<$",
    ">": r"$>$",
    "|": r"$|$",
}


class Layout(NamedTuple):
    """A table as text.

    Attributes:
        title: What it is of.
        header: The first row.
        lines: The other rows.
        below: Lines below it.
    """

    title: str
    header: list[str]
    lines: list[list[str]]
    below: Sequence[str] = ()


def as_rich(layout: Layout) -> Table:
    """Lay the rows of a table out for the terminal, without title and without what stands below."""
    table = Table(box=SIMPLE, pad_edge=False)
    for index, name in enumerate(layout.header):
        table.add_column(Text(name), justify="right" if index else "left")
    for line in layout.lines:
        table.add_row(*map(Text, line))  # brackets are no markup
    return table


def as_markdown(layout: Layout) -> str:
    """Write the rows of a table as Markdown, without title and without what stands below.

    Example:
        >>> print(as_markdown(Layout("t", ["attack", "accuracy"], [["fgsm", "12.5"]])))
        | attack | accuracy |
        | --- | ---: |
        | fgsm | 12.5 |
    """
    alignment = ["---", *["---:"] * (len(layout.header) - 1)]
    return "\n".join(_markdown_row(line) for line in (layout.header, alignment, *layout.lines))


def as_latex(layout: Layout) -> str:
    r"""Write a table for LaTeX with the package booktabs, what stands below it in small print under it.

    Example:
        >>> print(as_latex(Layout("t", ["attack", "accuracy"], [["pgd_margin", "12.5 +- 0.1"]])))
        \begin{table}
        \caption{t}
        \centering
        \begin{tabular}{lr}
        \toprule
        attack & accuracy \\
        \midrule
        pgd\_margin & 12.5 $\pm$ 0.1 \\
        \bottomrule
        \end{tabular}
        \end{table}
    """
    below = [rf"\par\footnotesize {_latex_text(line)}" for line in layout.below]
    return "\n".join(
        [
            r"\begin{table}",
            rf"\caption{{{_latex_text(layout.title)}}}",
            r"\centering",
            rf"\begin{{tabular}}{{l{'r' * (len(layout.header) - 1)}}}",
            r"\toprule",
            _latex_row(layout.header),
            r"\midrule",
            *(_latex_row(line) for line in layout.lines),
            r"\bottomrule",
            r"\end{tabular}",
            *below,
            r"\end{table}",
        ]
    )


def notes_as_latex(notes: Sequence[str]) -> str:
    r"""Write the lines below all tables for LaTeX.

    Example:
        >>> print(notes_as_latex(["p_holm: over 3 tests"]))
        \begin{itemize}\footnotesize
        \item p\_holm: over 3 tests
        \end{itemize}
    """
    items = [rf"\item {_latex_text(note)}" for note in notes]
    return "\n".join([r"\begin{itemize}\footnotesize", *items, r"\end{itemize}"]) if items else ""


def _markdown_row(cells: Sequence[str]) -> str:
    """Write one row."""
    escaped = (cell.replace("|", "\\|") for cell in cells)
    return f"| {' | '.join(escaped)} |"


def _latex_row(cells: Sequence[str]) -> str:
    """Write one row."""
    return " & ".join(map(_latex_text, cells)) + r" \\"


def _latex_text(text: str) -> str:
    """Write text so that LaTeX shows it as it is, with its own sign for +-."""
    escaped = "".join(_LATEX.get(character, character) for character in text)
    return escaped.replace("+-", r"$\pm$").replace("lambda", r"$\lambda$")
