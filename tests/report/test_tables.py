"""Tables and the lines below them, as text."""

import itertools
import json

import pytest
from synthetic import accuracy_row, evaluated_row, result_like, write_run, write_seeds

from jl1.report.cells import make_cells
from jl1.report.choices import choose_for_cost, choose_for_lambda
from jl1.report.names import measures_of
from jl1.report.notes import absent_from_paper, legend, source_lines
from jl1.report.paper_numbers import paper_numbers
from jl1.report.results import read_results
from jl1.report.tables import lay_out
from jl1.report.trends import make_trends

PLAIN, PENALISED, LARGE = [0.1, 0.2], [0.3, 0.4], [0.5, 0.7]


def tables_of(folder):
    results = read_results([folder])
    cells = make_cells(results.rows, paper_numbers())
    return lay_out(cells, make_trends(cells)), cells, results


@pytest.fixture(scope="module")
def ladder(real_result, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ladder")
    for lam, accuracies in ((0.0, PLAIN), (10.0, PENALISED), (50.0, LARGE)):
        write_seeds(folder, real_result, accuracies, lam=lam)
    return folder


def test_accuracies_stand_over_lambda_and_the_papers_below(ladder):
    accuracies, *_ = tables_of(ladder)[0]
    assert accuracies.title == "mnist, model C, no adversarial training, jacobian_l1 of probs, mean, 10,000 test points"
    assert accuracies.header == ["accuracy in %", "lambda 0", "lambda 10", "lambda 50"]
    assert accuracies.lines[:4] == [
        ["clean", "98.00 +- 0.00 (n=2)", "98.00 +- 0.00 (n=2)", "98.00 +- 0.00 (n=2)"],
        ["  paper, table2", "-", "98.57 +- 0.06", "98.63 +- 0.11"],
        ["fgsm at 0.3", "15.00 +- 7.07 (n=2)", "35.00 +- 7.07 (n=2)", "60.00 +- 14.14 (n=2)"],
        ["  paper, table2", "-", "18.24 +- 9.97", "29.92 +- 14.24"],
    ]
    assert accuracies.lines[4][0] == "seconds of training"


def test_statistics_name_a_measure_once_and_leave_out_what_is_not_known(ladder):
    _, statistics, _ = tables_of(ladder)[0]
    assert statistics.header == [
        *("accuracy in %", "network", "n", "mean +- std", "95 %", "minus lambda 0", "p", "paper", "minus paper", "SE"),
    ]
    by_network = {(line[0], line[1]): line[2:] for line in statistics.lines}
    assert by_network["fgsm at 0.3", "lambda 0"] == ["n=2", "15.00 +- 7.07", "0.00 to 78.53", "", "", "", "", ""]
    last = by_network["", "lambda 50"]
    assert last[:4] == ["n=2", "60.00 +- 14.14", "0.00 to 100.00", "+45.00"]
    assert last[5:] == ["29.92 +- 14.24", "+30.08", "+2.7"]  # sqrt(14.24^2 / 10 + 14.14^2 / 2) = 10.97


def test_missing_runs_are_counted_in_their_cells(ladder, real_result, tmp_path):
    write_seeds(tmp_path, real_result, PLAIN)
    runs = [
        {"name": f"run-lam{lam:g}-seed{seed}", "overrides": {"penalty.lam": lam, "seed": seed}}
        for lam in (0.0, 50.0)
        for seed in range(10)
    ]
    (tmp_path / "sweep.json").write_text(json.dumps({"schema": "jl1.sweep/1", "runs": runs}))
    (accuracies, statistics), _, _ = tables_of(tmp_path)
    assert ["fgsm at 0.3", "15.00 +- 7.07 (2/10)", "missing (0/10)"] in accuracies.lines
    assert "missing" in [line[3] for line in statistics.lines]


def test_measures_come_weakest_first_and_say_what_tells_them_apart(real_result, tmp_path):
    made = result_like(real_result) | {"num_epochs": 150}
    made["accuracies"] = [
        accuracy_row("pgd", 0.3, 0.1, num_steps=20, num_restarts=1),
        accuracy_row("fgsm", 0.3, 0.3, labels="predicted"),
        accuracy_row("fgsm", 0.3, 0.2),
        accuracy_row("clean", 0.0, 0.98),
    ]
    made["at_epochs"] = [{"epoch": 100, "accuracies": [accuracy_row("fgsm", 0.3, 0.4)]}]
    attacks = {"fgsm": {}, "pgd": {"num_steps": 100, "num_restarts": 10}}
    evaluation = [
        evaluated_row("worst_case", 0.3, 0.05, epoch=150, num_examples=500, attacks=attacks),
        evaluated_row("standard", 0.3, 0.06, epoch=150, budget="full"),
    ]
    write_run(tmp_path / "a", made, evaluation=evaluation)
    (accuracies,), cells, _ = tables_of(tmp_path)  # one seed, nothing of the paper: no statistics
    assert [line[0] for line in accuracies.lines[:-1]] == [
        "clean on 10,000 test points",
        "fgsm at 0.3 on 10,000 test points",
        "pgd-20 at 0.3 on 10,000 test points",
        "standard (full) at 0.3 (standing) on 10,000 test points",
        "worst case of fgsm, pgd-100 x 10 at 0.3 (standing) on 500 test points",
        "fgsm at 0.3 after epoch 100 on 10,000 test points",
    ]
    assert accuracies.title == "mnist, model C, no adversarial training"
    said = "\n".join(legend(cells, make_trends(cells)))
    assert "n = 1: one seed has no standard deviation" in said
    assert "(standing)" in said
    assert "Welch" not in said
    assert "Kendall" not in said


def test_trends_are_a_table_of_their_own(ladder):
    (*_, trends), cells, _ = tables_of(ladder)
    assert trends.title.endswith(", 10,000 test points: trends over lambda")
    # 12 of the 15 pairs are not tied, and all rise: tau-b = 12 / sqrt(12 * 15), z = 12 / sqrt((510 - 54) / 18) = 2.38
    assert trends.header == ["accuracy in %", "tau", "p", "runs"]
    assert trends.lines == [["fgsm at 0.3", "+0.89", "0.017", "6"]]  # clean is the same everywhere
    assert "after Holm over the trends of all these tables, 1." in "\n".join(legend(cells, make_trends(cells)))


def test_trends_of_several_penalties_are_named_and_corrected_together(ladder, real_result, tmp_path):
    for lam, accuracies in ((10.0, PENALISED), (50.0, LARGE)):
        write_seeds(tmp_path, real_result, accuracies[::-1], lam=lam, name="logits", penalty__outputs="logits")
    for path in ladder.iterdir():
        (tmp_path / path.name).symlink_to(path)
    *_, trends = tables_of(tmp_path)[0]
    assert trends.header == ["accuracy in %", "penalty", "tau", "p", "runs"]
    assert trends.lines == [
        ["fgsm at 0.3", "jacobian_l1 of logits, mean", "+0.89", "0.034", "6"],  # twice the 0.0171 of one test
        ["fgsm at 0.3", "jacobian_l1 of probs, mean", "+0.89", "0.034", "6"],
    ]


def test_several_penalties_are_named_by_what_differs(ladder, real_result, tmp_path):
    write_seeds(tmp_path, real_result, PLAIN)
    write_seeds(tmp_path, real_result, LARGE, lam=50.0)
    write_seeds(tmp_path, real_result, LARGE, lam=50.0, name="logits", penalty__outputs="logits")
    (accuracies, _), _, _ = tables_of(tmp_path)
    assert accuracies.header == ["accuracy in %", "lambda 0", "lambda 50, logits", "lambda 50, probs"]
    assert "jacobian_l1, mean" in accuracies.title


def test_mixed_machines_versions_and_commits_are_said_with_their_runs(real_result, tmp_path):
    write_seeds(tmp_path, real_result, PLAIN)
    other = result_like(real_result, seed=5)
    other["device"] = {"platform": "gpu", "kind": "Some GPU", "count": 2}
    other["versions"] |= {"jax": "9.9", "git_commit": "f" * 40 + "+changes"}
    write_run(tmp_path / "other", other)
    results = read_results([tmp_path])
    lines = source_lines(results.rows, results.configs)
    assert any(line.startswith("mixed machines: ") and "2 x gpu Some GPU (1 run)" in line for line in lines)
    assert any(line.startswith("mixed versions of jax: ") and "9.9 (1 run)" in line for line in lines)
    assert any(line.startswith("mixed commits: ") and "ffffffffffff+changes (1 run)" in line for line in lines)


def test_settings_without_a_column_are_in_the_title_and_below(real_result, tmp_path):
    write_seeds(tmp_path, real_result, PLAIN)
    write_seeds(tmp_path, real_result, LARGE, name="other", training__batch_size=32)
    layouts, _, results = tables_of(tmp_path)
    assert len({layout.title for layout in layouts}) == 4
    assert all(", settings " in layout.title for layout in layouts)
    (line,) = [line for line in source_lines(results.rows, results.configs) if line.startswith("settings")]
    assert "training.batch_size: " in line


def test_what_the_paper_has_and_no_run_is_named(ladder):
    _, cells, _ = tables_of(ladder)
    (line,) = absent_from_paper(cells.cells, "table2")
    assert line.startswith("no run for 13 of 15 networks of table2: A lambda 50, ")
    assert "C lambda 50" not in line
    (line,) = absent_from_paper(cells.cells, "table4")
    assert line.startswith("no run for 6 of 6 networks of table4: C lambda 0 at 0.3")


def test_two_worst_cases_over_as_many_attacks_have_two_names_in_every_table(real_result, tmp_path):
    of_three, of_others = {"noise": {}, "fgsm": {}, "pgd": {"num_steps": 7}}, {"noise": {}, "fgsm": {}, "apgd_ce": {}}
    of_four = of_three | {"square": {}}
    for lam, seed in itertools.product((0.0, 10.0, 50.0), range(2)):
        made = result_like(real_result, lam=lam, seed=seed, accuracies=((("clean", 0.0), 0.98),))
        rows = [
            evaluated_row("worst_case", 0.3, 0.2 + lam / 1e3 + seed / 1e2, epoch=made["num_epochs"], attacks=attacks)
            for attacks in (of_three, of_others, of_four)
        ]
        write_run(tmp_path / f"lam{lam:g}-seed{seed}", made, evaluation=rows)
    layouts = tables_of(tmp_path)[0]
    assert len(layouts) == 3
    for layout in layouts:
        names = {line[0] for line in layout.lines if line[0].startswith("worst")}
        assert names == {
            "worst case of noise, fgsm, pgd-7 at 0.3 (standing)",
            "worst case of noise, fgsm, apgd_ce at 0.3 (standing)",
            "worst case of 4 attacks at 0.3 (standing)",
        }


def test_l2_has_lines_of_its_own_and_no_picture(real_result, tmp_path):
    for lam in (0.0, 50.0):
        made = result_like(real_result, lam=lam, accuracies=((("clean", 0.0), 0.98), (("pgd", 0.3), 0.5)))
        rows = [
            evaluated_row("pgd", 0.3, accuracy, epoch=made["num_epochs"], norm=norm)
            for norm, accuracy in (("l2", 0.4), ("linf", 0.3))
        ]
        write_run(tmp_path / f"lam{lam:g}", made, evaluation=rows)
    cells = make_cells(read_results([tmp_path]).rows, paper_numbers()).cells
    names = [name for name, _ in measures_of(cells)]
    assert names == ["clean", "pgd at 0.3", "pgd at 0.3 (standing)", "L2 pgd at 0.3 (standing)"]
    assert {choice.name for choice in (*choose_for_lambda(cells), *choose_for_cost(cells))} == {
        "clean",
        "pgd at 0.3 (standing)",
    }
