"""Tables as text, and text as it is."""

import io

from rich.console import Console
from rich.table import Table

from jl1.display.terminal import open_console, say
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
