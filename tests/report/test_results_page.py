"""The tables of docs/results.md come from the rows beside it."""

import runpy
from pathlib import Path

import pandas as pd

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


def test_what_fgsm_alone_would_have_chosen_is_what_the_grid_says():
    rows = pd.read_csv(DOCS / "results" / "quickstart_grid.csv").query("attack != 'clean'")
    rows["measure"] = rows["attack"] + rows["epsilon"].astype(str)
    keys = ["train_epsilon", "penalty", "outputs", "lam"]
    grid = rows.pivot_table(index=keys, columns="measure", values="accuracy", dropna=False).reset_index()
    chosen = grid.loc[grid["fgsm0.3"].idxmax()]
    assert (chosen["train_epsilon"], chosen["penalty"], chosen["lam"]) == (0.2, "none", 0.0)
    sentence = (
        (DOCS / "results.md").read_text().partition("FGSM at 0.3 alone would have chosen")[2].partition("\n\n")[0]
    )
    for figure in chosen[["fgsm0.3", "pgd0.1", "pgd0.2"]]:
        assert f"{100 * figure:.1f} %" in sentence
