"""From rows to cells: the right rows, tested against the right baseline, beside the right number of the paper."""

import math

import numpy as np
import pytest
from scipy import stats
from synthetic import accuracy_row, evaluated_row, result_like, write_run, write_seeds

from jl1.report.cells import make_cells
from jl1.report.paper_numbers import paper_numbers
from jl1.report.results import read_results
from jl1.report.trends import make_trends

PLAIN, PENALISED, LARGE = [0.14, 0.2, 0.17], [0.3, 0.42, 0.33, 0.35], [0.5, 0.6, 0.55]


def cells_of(*folders, paper=("table2", "table3", "table4")):
    return make_cells(read_results(folders).rows, paper_numbers(tuple(paper)))


def one(cells, **wanted):
    """Return the one cell with these values."""
    chosen = cells.cells
    for name, value in wanted.items():
        chosen = chosen[chosen[name] == value]
    assert len(chosen) == 1
    return chosen.iloc[0]


@pytest.fixture(scope="module")
def ladder(real_result, tmp_path_factory):
    """Three lambdas under FGSM at 0.3."""
    folder = tmp_path_factory.mktemp("ladder")
    for lam, accuracies in ((0.0, PLAIN), (10.0, PENALISED), (50.0, LARGE)):
        write_seeds(folder, real_result, accuracies, lam=lam)
    return folder


def test_a_cell_is_mean_spread_and_interval_over_seeds(ladder):
    cell = one(cells_of(ladder), lam=10.0, attack="fgsm")
    assert (cell["n"], cell["num_expected"]) == (4, 4)
    assert cell["mean"] == pytest.approx(np.mean(PENALISED))
    assert cell["std"] == pytest.approx(np.std(PENALISED, ddof=1))
    interval = stats.t.interval(0.95, 3, np.mean(PENALISED), stats.sem(PENALISED))
    assert (cell["low"], cell["high"]) == pytest.approx(interval)


def test_every_lambda_is_tested_against_lambda_0_and_corrected_over_all_cells(ladder):
    cells = cells_of(ladder)
    p_values = [stats.ttest_ind(PLAIN, group, equal_var=False).pvalue for group in (PENALISED, LARGE)]
    found = [one(cells, lam=lam, attack="fgsm") for lam in (10.0, 50.0)]
    assert [cell["p"] for cell in found] == pytest.approx(p_values)
    assert cells.num_tests == 2  # the clean accuracies are all the same, which gives no test
    assert [cell["p_holm"] for cell in found] == pytest.approx([max(p_values), 2 * min(p_values)])
    assert p_values[1] < p_values[0] < 2 * p_values[0]
    assert found[0]["minus_baseline"] == pytest.approx(np.mean(PENALISED) - np.mean(PLAIN))
    baseline = one(cells, lam=0.0, attack="fgsm")
    assert math.isnan(baseline["p"])
    assert math.isnan(one(cells, lam=10.0, attack="clean")["p"])


def test_the_paper_stands_beside_its_own_cells_with_the_difference_in_standard_errors(ladder):
    cells = cells_of(ladder)
    cell = one(cells, lam=50.0, attack="fgsm")
    assert (cell["paper_table"], cell["paper_mean"], cell["paper_std"]) == ("table2", 0.2992, 0.1424)
    difference = np.mean(LARGE) - 0.2992
    error = math.sqrt(0.1424**2 / 10 + np.var(LARGE, ddof=1) / 3)
    assert cell["minus_paper"] == pytest.approx(difference)
    assert cell["in_standard_errors"] == pytest.approx(difference / error)
    assert one(cells, lam=50.0, attack="clean")["paper_mean"] == pytest.approx(0.9863)
    assert math.isnan(one(cells, lam=0.0, attack="fgsm")["paper_mean"])  # Table 2 has no lambda 0
    assert cells_of(ladder, paper=()).cells["paper_mean"].isna().all()


def test_fgsm_on_predicted_labels_is_no_test_of_its_own(real_result, tmp_path):
    for lam, accuracies in ((0.0, PLAIN), (10.0, PENALISED), (50.0, LARGE)):
        for seed, accuracy in enumerate(accuracies):
            result = result_like(real_result, lam=lam, seed=seed, accuracies=((("fgsm", 0.3), accuracy),))
            result["accuracies"].append(accuracy_row("fgsm", 0.3, accuracy + 0.01, labels="predicted"))
            write_run(tmp_path / f"run-lam{lam:g}-seed{seed}", result)
    cells = cells_of(tmp_path)
    assert cells.num_tests == len(make_trends(cells)) * 2 == 2
    predicted = one(cells, lam=50.0, labels="predicted")
    assert predicted["mean"] == pytest.approx(np.mean(LARGE) + 0.01)
    assert math.isnan(predicted["p"])


def test_images_side_by_side_are_another_data_set_without_a_number_of_the_paper(real_result, tmp_path):
    write_seeds(tmp_path, real_result, PLAIN, lam=50.0)
    write_seeds(tmp_path, real_result, LARGE, lam=50.0, name="tiles", data__tiles=2)
    cells = cells_of(tmp_path)
    assert math.isnan(one(cells, dataset="mnist_x2", attack="fgsm")["paper_mean"])
    assert one(cells, dataset="mnist", attack="fgsm")["paper_mean"] == 0.2992
    assert cells.cells["settings"].nunique() == 1


def test_table_3_compares_the_surrogate_with_twins_alone(real_result, tmp_path):
    twins = {"adversarial__epsilon": 0.1, "attack": ("fgsm", 0.1)}
    surrogate = {"penalty__name": "class_sum_l1", "penalty__outputs": "logits"}
    write_seeds(tmp_path, real_result, PLAIN, **twins)
    write_seeds(tmp_path, real_result, PENALISED, lam=10.0, **twins, **surrogate)
    write_seeds(tmp_path, real_result, LARGE, lam=10.0, name="exact", **twins)
    cells = cells_of(tmp_path)
    plain, with_penalty = one(cells, lam=0.0, attack="fgsm"), one(cells, penalty="class_sum_l1", attack="fgsm")
    assert (plain["paper_mean"], plain["paper_std"]) == pytest.approx((0.9356, 0.0047))
    assert (with_penalty["paper_mean"], with_penalty["paper_std"]) == pytest.approx((0.9456, 0.0016))
    assert with_penalty["p"] == pytest.approx(stats.ttest_ind(PLAIN, PENALISED, equal_var=False).pvalue)
    assert math.isnan(one(cells, penalty="jacobian_l1", attack="fgsm")["paper_mean"])  # not what the paper trained


@pytest.mark.parametrize(
    "change",
    [
        {"data__name": "kmnist"},
        {"adversarial__epsilon": 0.1},
        {"evaluation__points": "validation"},
        {"penalty__name": "class_sum_l1"},
    ],
)
def test_no_number_of_the_paper_stands_beside_something_else(real_result, tmp_path, change):
    write_seeds(tmp_path, real_result, LARGE, lam=50.0, **change)
    assert cells_of(tmp_path).cells["paper_mean"].isna().all()


def test_the_paper_has_60_numbers_and_table_4_repeats_none():
    numbers = paper_numbers()
    assert numbers["paper_table"].value_counts().to_dict() == {"table2": 30, "table3": 48, "table4": 8}
    assert len(paper_numbers(("table4",))) == 12


def test_one_seed_has_a_mean_and_no_more(real_result, tmp_path):
    write_seeds(tmp_path, real_result, PLAIN)
    write_seeds(tmp_path, real_result, [0.4], lam=50.0)
    cell = one(cells_of(tmp_path), lam=50.0, attack="fgsm")
    assert (cell["n"], cell["mean"], cell["paper_mean"]) == (1, 0.4, 0.2992)
    assert cell[["std", "low", "high", "p", "p_holm", "in_standard_errors"]].isna().all()


def test_interrupted_runs_are_in_no_mean_and_are_named(real_result, tmp_path):
    write_seeds(tmp_path, real_result, PLAIN)
    made = result_like(real_result, seed=3, accuracies=((("fgsm", 0.3), 0.99),)) | {"stopped_because": "interrupted"}
    write_run(tmp_path / "stopped", made)
    cells = cells_of(tmp_path)
    cell = one(cells, attack="fgsm")
    assert (cell["n"], cell["num_expected"]) == (3, 4)
    assert cell["mean"] == pytest.approx(np.mean(PLAIN))
    assert cells.notes == ["interrupted, not in any mean: stopped"]


def test_an_attack_that_one_run_lacks_is_counted_as_such(real_result, tmp_path):
    write_seeds(tmp_path, real_result, PLAIN)
    evaluation = [evaluated_row("pgd", 0.3, 0.05, epoch=real_result["num_epochs"], num_steps=100, num_restarts=10)]
    write_run(tmp_path / "evaluated", result_like(real_result, seed=9), evaluation=evaluation)
    cell = one(cells_of(tmp_path), attack="pgd")
    assert (cell["strength"], cell["rule"], cell["n"], cell["num_expected"]) == ("pgd-100 x 10", "standing", 1, 4)


def test_a_setting_without_any_result_has_cells_with_nothing_in_them(real_result, tmp_path):
    write_seeds(tmp_path, real_result, PLAIN)
    (write_run(tmp_path / "begun", result_like(real_result, lam=50.0)) / "result.json").unlink()
    (write_run(tmp_path / "alone", result_like(real_result, model__name="A")) / "result.json").unlink()
    cells = cells_of(tmp_path)
    cell = one(cells, lam=50.0, attack="fgsm")
    assert (cell["n"], cell["num_expected"]) == (0, 1)
    assert math.isnan(cell["mean"])
    assert cells.notes == ["no figure yet of mnist, model A, no adversarial training: 0/1 runs"]


def test_accuracies_on_other_numbers_of_points_are_other_cells(real_result, tmp_path):
    made = result_like(real_result)
    made["accuracies"] = [accuracy_row("fgsm", 0.3, 0.2), accuracy_row("fgsm", 0.3, 0.4, num_examples=1000)]
    write_run(tmp_path / "a", made)
    cells = cells_of(tmp_path)
    assert one(cells, num_examples=1000)["mean"] == 0.4
    assert one(cells, num_examples=10_000)["mean"] == 0.2


def test_runs_of_other_settings_are_never_averaged(real_result, tmp_path):
    write_seeds(tmp_path, real_result, PLAIN)
    write_seeds(tmp_path, real_result, LARGE, name="other", training__batch_size=32)
    cells = cells_of(tmp_path)
    assert sorted(cells.cells.query("attack == 'fgsm'")["mean"]) == pytest.approx([np.mean(PLAIN), np.mean(LARGE)])


def test_the_same_run_twice_counts_once(ladder, real_result, tmp_path):
    write_seeds(tmp_path, real_result, PLAIN)
    twice = cells_of(ladder, tmp_path)
    copies = ", ".join(f"{tmp_path.name}/run-lam0-seed{seed}" for seed in range(3))
    assert twice.notes == [f"the same settings, seed and accuracies as another run, counted once: {copies}"]
    assert one(twice, lam=0.0, attack="fgsm")["n"] == 3
    write_run(tmp_path / "zz-copy", result_like(real_result, accuracies=((("fgsm", 0.3), PLAIN[0]),)))
    write_run(tmp_path / "zz-other", result_like(real_result, accuracies=((("fgsm", 0.3), 0.9),)))
    cells = cells_of(tmp_path)
    assert one(cells, attack="fgsm")["mean"] == pytest.approx(np.mean(PLAIN))
    assert cells.notes == [
        "the same settings, seed and accuracies as another run, counted once: zz-copy",
        "other accuracies of the same settings and seed, the first run by name counts: zz-other",
    ]


@pytest.mark.parametrize(("first", "second"), [(10.0, 0.1), (0.1, 10.0)])
def test_of_two_runs_of_one_seed_the_first_by_name_counts_however_long_they_took(real_result, tmp_path, first, second):
    for name, accuracy, seconds in (("a", 0.3, first), ("b", 0.5, second)):
        made = result_like(real_result, accuracies=((("fgsm", 0.3), accuracy),))
        made["seconds"]["train"] = seconds
        write_run(tmp_path / name, made)
    cells = cells_of(tmp_path)
    assert one(cells, attack="fgsm")["mean"] == 0.3
    assert cells.notes == ["other accuracies of the same settings and seed, the first run by name counts: b"]


def test_trends_take_all_seeds_of_a_penalty_and_of_lambda_0(ladder):
    found = make_trends(cells_of(ladder)).iloc[0]  # of one: clean is the same everywhere
    lambdas = [0.0] * 3 + [10.0] * 4 + [50.0] * 3
    expected = stats.kendalltau(lambdas, PLAIN + PENALISED + LARGE)
    assert (found["penalty"], found["outputs"], found["scale"]) == ("jacobian_l1", "probs", "mean")
    assert found["attack"] == "fgsm"
    assert tuple(found[["num_runs", "tau", "p", "p_holm"]]) == pytest.approx((10, *expected, expected.pvalue))
