"""Tables as text, and text as it is."""

import io

import pytest
from rich.console import Console
from rich.table import Table
from synthetic import accuracy_row

from jl1.display.results import accuracy_table
from jl1.display.terminal import open_console, say, show_table
from jl1.display.text_tables import Layout, as_latex, as_markdown, as_rich

LAYOUT = Layout("A & B", ["attack", "lambda 1"], [["a_b [x] 5 %", "1.00 +- 0.10"], ["c|d", "<0.001"]], ["50 % of them"])


def test_markdown_keeps_bars_inside_of_their_cell():
    assert as_markdown(LAYOUT).splitlines() == [
        "| attack | lambda 1 |",
        "| --- | ---: |",
        "| a_b [x] 5 % | 1.00 +- 0.10 |",
        r"| c\|d | <0.001 |",
    ]


def test_latex_escapes_what_it_would_take_for_commands():
    lines = as_latex(LAYOUT).splitlines()
    assert r"\caption{A \& B}" in lines
    assert r"attack & $\lambda$ 1 \\" in lines
    assert r"a\_b [x] 5 \% & 1.00 $\pm$ 0.10 \\" in lines
    assert r"c$|$d & $<$0.001 \\" in lines
    assert r"\par\footnotesize 50 \% of them" in lines
    assert lines.count(r"\toprule") == lines.count(r"\midrule") == lines.count(r"\bottomrule") == 1


def test_brackets_are_no_markup_in_the_terminal():
    console = Console(width=80, record=True)
    console.print(as_rich(LAYOUT))
    assert "a_b [x] 5 %" in console.export_text()


@pytest.mark.parametrize("num_columns", [2, 6, 12])
def test_in_a_narrow_terminal_a_cell_has_more_lines_and_no_figure_is_cut(num_columns):
    name = "standard (fast) at 0.1 (standing) on 1,000 test points"
    cells = [f"9{number}.12 +- 0.34 (7/10)" for number in range(num_columns)]
    header = ["accuracy in %", *(f"lambda {number}" for number in range(num_columns))]
    console = Console(width=80, record=True)
    show_table(console, as_rich(Layout("t", header, [[name, *cells]])))
    show_table(console, accuracy_table([accuracy_row("fgsm", n / 16, 1 - n / 80) for n in range(num_columns)]))
    shown = console.export_text()
    assert "…" not in shown
    words = {*shown.split()}
    assert {*name.split(), *" ".join(cells).split(), "fgsm"} <= words
    assert {f"{100 - number / 0.8:.2f}" for number in range(num_columns)} <= words


def test_nothing_between_colons_or_brackets_becomes_another_sign():
    console = open_console()
    console.file = io.StringIO()
    say(console, "give table2:A: or [bold]table2:x:")
    table = Table("run")
    table.add_row("table2:x:")
    table.add_row("[bold]")
    console.print(table)
    shown = console.file.getvalue()
    assert "give table2:A: or [bold]table2:x:" in shown
    assert shown.count("table2:x:") == 2
    assert shown.count("[bold]") == 2
