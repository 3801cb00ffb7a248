"""The picture bench.png: milliseconds by form and model. Needs matplotlib."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jl1.bench.bench_record import Table, milliseconds

_COLOURS = {
    "closed": "#1b6ca8",
    "estimate": "#7fb7de",
    "plain": "#6b6b6b",
    "library": "#6b6b6b",
    "automatic": "#e3b23c",
    "textbook": "#d9783d",
    "torch": "#a8324a",
}
"""By the first word of a form's name."""


def drawn_tables(content: Mapping[str, Any]) -> list[Table]:
    """Return the tables of the study `forms`, which are what is drawn."""
    return [table for table in content["tables"] if table["study"] == "forms" and table["rows"]]


def draw(content: Mapping[str, Any], path: Path) -> None:
    """Draw one panel a model."""
    from matplotlib.figure import Figure  # optional, and slow to import

    tables = drawn_tables(content)
    heights = [len(table["rows"]) for table in tables]
    figure = Figure(figsize=(9, 1.2 + 0.27 * sum(heights) + 0.7 * len(tables)), layout="constrained")
    panels = figure.subplots(len(tables), 1, squeeze=False, gridspec_kw={"height_ratios": heights})
    for panel, table in zip(panels[:, 0], tables, strict=True):
        _draw_panel(panel, table)
    machine = content["machine"]
    figure.suptitle("One step's gradient on one core: jl1's closed form beside its peers", x=0.01, ha="left")
    figure.supxlabel(
        f"milliseconds of processor time (log scale), median; {machine['processor']}, "
        f"jax {machine['versions']['jax']}, {machine['date']}",
        fontsize=8,
    )
    figure.savefig(path, dpi=150)


def _draw_panel(panel: Any, table: Table) -> None:
    """Draw the forms of one model, the fastest on top."""
    forms = sorted((form for form in table["rows"] if form != "matrix product"), key=lambda form: -_ms(table, form))
    times = [_ms(table, form) for form in forms]
    panel.barh(forms, times, height=0.7, color=[_COLOURS[form.split()[0]] for form in forms])
    panel.set_xscale("log")
    panel.xaxis.set_major_formatter(lambda value, _: milliseconds(value))
    panel.set_xlim(min(times) / 2, 4 * max(times))  # room for the figures behind the bars
    for position, form in enumerate(forms):
        share = table["rows"][form].get("share_of_peak")
        text = f"{milliseconds(times[position])} ms" + (f", {share:.0%} of peak" if share else "")
        panel.text(
            1.03 * times[position],
            position,
            text,
            va="center",
            fontsize=7,
            bbox={"facecolor": "white", "linewidth": 0, "pad": 0.5},
        )
    for value, style, text in _marks(table):
        panel.axvline(value, color="black", linewidth=0.8, linestyle=style, label=text)
    setup = table["setup"]
    panel.set_title(f"model {setup['model']}, batch {setup['batch_size']}", loc="left", fontsize=10)
    panel.tick_params(labelsize=8)
    panel.spines[["top", "right"]].set_visible(False)
    panel.legend(fontsize=7, loc="upper right", framealpha=1, edgecolor="none")


def _marks(table: Table) -> list[tuple[float, str, str]]:
    """Return the lines that bars are read against: the plain step, and the exact step at the core's peak."""
    marks = [(_ms(table, "plain"), "--", "plain step")] if "plain" in table["rows"] else []
    shares = [(form, row["share_of_peak"]) for form, row in table["rows"].items() if "share_of_peak" in row]
    if shares:
        form, share = shares[0]
        marks.append((share * _ms(table, form), ":", "exact step at the core's peak"))
    return marks


def _ms(table: Table, form: str) -> float:
    """Return a form's median."""
    return table["rows"][form]["median_ms"]
