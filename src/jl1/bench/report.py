"""The figures of bench.json as tables, for the terminal and as Markdown."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jl1.bench.bench_record import BENCH_FILE, BenchRecord, Table, milliseconds
from jl1.bench.picture import draw, drawn_tables
from jl1.display import text_tables
from jl1.display.text_tables import Layout
from jl1.pictures.style import NO_PICTURES, have_matplotlib

_COLUMNS: Mapping[str, tuple[str, Callable[[Any], str]]] = {
    "median_ms": ("ms", milliseconds),
    "repeats": ("runs", str),
    "share_of_peak": ("of peak", "{:.2f}".format),
    "temporary_mb": ("MB", "{:.1f}".format),
    "compile_seconds": ("compile s", "{:.1f}".format),
    "gradient_error": ("error", "{:.0e}".format),
}
"""Fields of a row: their headings and how they are written."""

_SUMMARIES: Mapping[str, str] = {
    "times_faster_than": "closed form on logits, times faster than the best form of each peer",
    "overhead": "what the loop of an epoch adds to bare steps, as a fraction",
    "times_the_throughput": "two processes, times the throughput of one",
    "microseconds_an_example": "microseconds an example",
}
"""Fields of a table that stand below it."""

LEGEND = (
    "Milliseconds are medians of processor time in a process pinned to one core (start-up, cores and device: of the "
    "clock), MB the temporary memory of the compiled program, error that of the gradient against the closed form's, of "
    "peak the operations of the exact step over what the same run's float32 matrix product would do in that time."
)


def lay_out_all(tables: Sequence[Table]) -> list[Layout]:
    """Write all tables as text; those of the study `scaling` become one table a model."""
    layouts, scaling = [], {}
    for table in tables:
        if table["study"] == "scaling":
            scaling.setdefault(table["setup"]["model"], []).append(table)
        else:
            layouts.append(_lay_out(table))
    return layouts + [_lay_out_scaling(model, parts) for model, parts in scaling.items()]


def _lay_out(table: Table) -> Layout:
    """Write one table; columns without a figure are left out."""
    rows = table["rows"]
    fields = [field for field in _COLUMNS if any(field in row for row in rows.values())]
    title = ", ".join([table["study"], *(f"{name} {value}" for name, value in table["setup"].items())])
    lines = [[form, *(_cell(field, row) for field in fields)] for form, row in rows.items()]
    below = [f"{text}: {_summary(table[field])}" for field, text in _SUMMARIES.items() if field in table]
    return Layout(title, ["form", *(_COLUMNS[field][0] for field in fields)], lines, below)


def _lay_out_scaling(model: str, tables: Sequence[Table]) -> Layout:
    """Write a line a setup: milliseconds and temporary MB of each form."""
    forms = [form for form in tables[0]["rows"] if form != "matrix product"]
    lines = []
    for table in tables:
        setup, rows = table["setup"], table["rows"]
        cells = [
            f"{milliseconds(rows[form]['median_ms'])} ({rows[form]['temporary_mb']:.1f})"
            for form in forms
            if form in rows
        ]
        lines.append([f"{setup['num_classes']} classes, batch {setup['batch_size']}, side {setup['side']}", *cells])
    return Layout(f"scaling, model {model}: ms (MB)", ["setup", *forms], lines)


def as_markdown(content: Mapping[str, Any]) -> str:
    """Write all tables, with the command and the machine."""
    machine = content["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items() if version)
    parts = [
        f"    {content['command']}",
        f"{machine['processor']}, {machine['cores']} cores, {machine['system']}; Python {machine['python']}, "
        f"{versions}; {machine['date']}; load average at the start {machine['load_average_at_start']}.",
        LEGEND,
    ]
    for layout in lay_out_all(content["tables"]):
        parts += [f"## {layout.title}", text_tables.as_markdown(layout), *layout.below]
    return "\n\n".join(parts) + "\n"


def write_report(record: BenchRecord) -> str:
    """Write bench.md, and bench.png if there is something to draw and to draw with; say which files there are."""
    paths = [record.folder / name for name in (BENCH_FILE, "bench.md")]
    paths[1].write_text(as_markdown(record.content))
    if not drawn_tables(record.content):
        return f"files: {', '.join(map(str, paths))}"
    if not have_matplotlib():
        return f"files: {', '.join(map(str, paths))} ({NO_PICTURES})"
    draw(record.content, record.folder / "bench.png")
    return f"files: {', '.join(map(str, [*paths, record.folder / 'bench.png']))}"


def _cell(field: str, row: Mapping[str, Any]) -> str:
    """Write one figure."""
    return _COLUMNS[field][1](row[field]) if field in row else ""


def _summary(value: Any) -> str:
    """Write one figure, or one for each name."""
    return (
        ", ".join(f"{peer} {times:.3g}" for peer, times in value.items()) if isinstance(value, dict) else f"{value:g}"
    )
