"""The pictures: what they show is what the table says, and nothing lies over anything else."""

import itertools

import numpy as np
import pytest
from synthetic import evaluated_row, result_like, write_run, write_seeds

from jl1.report.cells import make_cells
from jl1.report.choices import choose_for_cost, choose_for_lambda, strongest
from jl1.report.cost_figure import draw_cost, pareto_front
from jl1.report.csv_rows import write_rows
from jl1.report.curve_figure import draw_curves, read_curves
from jl1.report.figures import draw_all
from jl1.report.lambda_figure import draw_lambdas, lambda_panels
from jl1.report.paper_numbers import paper_numbers
from jl1.report.results import read_results

LAMBDAS = {0.0: (0.1, 0.2), 10.0: (0.3, 0.4), 50.0: (0.5, 0.7)}


def without_folders(results):
    """The same rows from a file."""
    return results._replace(from_folder=np.zeros(len(results.rows), bool))


def metrics(seed, lam):
    """Return three epochs."""
    return [
        {"epoch": epoch, "validation_accuracy": 0.9 + 0.01 * epoch + 0.001 * seed, "penalty": lam / (100 * epoch)}
        for epoch in (1, 2, 3)
    ]


@pytest.fixture(scope="module")
def runs(real_result, tmp_path_factory):
    """Two seeds at three lambdas, under FGSM and PGD."""
    folder = tmp_path_factory.mktemp("runs")
    for lam, accuracies in LAMBDAS.items():
        for seed, accuracy in enumerate(accuracies):
            rows = (
                *((("clean", 0.0), 0.98), (("fgsm", 0.3), accuracy), (("fgsm", 0.1), accuracy + 0.2)),
                *((("pgd", 0.3), accuracy / 2), (("pgd", 0.1), accuracy + 0.1)),
            )
            made = result_like(real_result, lam=lam, seed=seed, accuracies=rows)
            made["seconds"]["train"] = 10.0 + 10 * lam + seed
            write_run(folder / f"lam{lam:g}-seed{seed}", made, metrics=metrics(seed, lam))
    return read_results([folder])


@pytest.fixture(scope="module")
def cells(runs):
    return make_cells(runs.rows, paper_numbers())


def assert_nothing_overlaps(figure):
    """Titles, labels and legends keep to their own places inside of the figure."""
    figure.draw_without_rendering()
    boxes = []
    for axes in figure.axes:
        if axes.get_visible():
            low, high = axes.get_xlim()
            ticks = [label for label in axes.get_xticklabels() if low <= label.get_position()[0] <= high]
            texts = [axes._left_title, axes.xaxis.label, axes.yaxis.label, *ticks]
            boxes += [text.get_window_extent() for text in texts if text.get_text()]
            legend = axes.get_legend()
            boxes += [legend.get_window_extent()] if legend and "upper center" in str(legend._loc) else []
    boxes += [legend.get_window_extent() for legend in figure.legends]
    for one, other in itertools.combinations(boxes, 2):
        assert not one.overlaps(other), (one, other)
    for box in boxes:
        assert box.x0 >= 0
        assert box.y0 >= 0
        assert box.x1 <= figure.bbox.x1
        assert box.y1 <= figure.bbox.y1


@pytest.mark.parametrize("budget", ["fast", "few_classes"])
def test_long_names_keep_to_the_picture(real_result, tmp_path, budget):
    for lam in (0.0, 10.0, 50.0):
        made = result_like(real_result, lam=lam)
        strong = [
            evaluated_row("standard", epsilon, 0.1, epoch=made["num_epochs"], budget=budget, num_examples=1000)
            for epsilon in (0.1, 0.3)
        ]
        write_run(tmp_path / f"lam{lam:g}", made, evaluation=strong)
    cells = make_cells(read_results([tmp_path]).rows, paper_numbers())
    figure = draw_lambdas(lambda_panels(cells))
    assert f"standard ({budget}) at 0.1 (standing) on 1,000 test points" in {
        line.get_label() for line in figure.axes[0].lines
    }
    assert_nothing_overlaps(figure)


def test_over_lambda_the_lines_are_the_means_and_the_dots_the_seeds(cells):
    figure = draw_lambdas(lambda_panels(cells))
    (axes,) = (axes for axes in figure.axes if axes.get_visible())
    lines = {line.get_label(): line for line in axes.lines if not line.get_label().startswith("_")}
    assert set(lines) == {"clean", "fgsm at 0.3", "pgd at 0.3", "pgd at 0.1"}
    means = [100 * np.mean(accuracies) for accuracies in LAMBDAS.values()]
    np.testing.assert_allclose(lines["fgsm at 0.3"].get_ydata(), means)
    np.testing.assert_allclose(lines["pgd at 0.3"].get_ydata(), np.array(means) / 2)
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0", "10", "50"]
    dots = np.concatenate([dots.get_offsets()[:, 1] for dots in axes.collections if hasattr(dots, "get_sizes")])
    assert len(dots) == 4 * 6
    assert {round(float(dot), 6) for dot in dots} >= {10.0, 20.0, 30.0, 40.0, 50.0, 70.0}
    papers = [container for container in axes.containers if "paper" in container.get_label()]
    points = {container.get_label(): list(container.lines[0].get_ydata()) for container in papers}
    assert points["fgsm at 0.3, the paper's"] == pytest.approx([18.24, 29.92])
    assert points["clean, the paper's"] == pytest.approx([98.57, 98.63])
    assert_nothing_overlaps(figure)


def test_no_panel_of_one_lambda(real_result, tmp_path):
    write_seeds(tmp_path, real_result, [0.1, 0.2], lam=50.0)
    assert lambda_panels(make_cells(read_results([tmp_path]).rows, paper_numbers())) == []


def test_curves_are_those_of_metrics_jsonl_and_their_mean(runs):
    curves, notes = read_curves(runs)
    assert notes == []
    assert len(curves) == 6 * 3
    figure = draw_curves([curves])
    accuracy, penalty = figure.axes
    mean = next(line for line in accuracy.lines if line.get_label() == "lambda 10 (2 runs)")
    np.testing.assert_allclose(mean.get_ydata(), [91.05, 92.05, 93.05])
    assert len(accuracy.lines) == 3 * (2 + 1)
    labelled = [line for line in penalty.lines if not line.get_label().startswith("_")]
    assert [line.get_label() for line in labelled] == ["lambda 10 (2 runs)", "lambda 50 (2 runs)"]
    np.testing.assert_allclose(labelled[0].get_ydata(), [0.1, 0.05, 0.1 / 3])
    assert_nothing_overlaps(figure)


def test_runs_that_are_not_finished_have_no_curve(real_result, tmp_path):
    write_run(tmp_path / "a", result_like(real_result), metrics=metrics(0, 1.0))
    (write_run(tmp_path / "b", result_like(real_result, seed=1), metrics=metrics(1, 1.0)) / "result.json").unlink()
    results = read_results([tmp_path])
    assert set(read_curves(results)[0]["seed"]) == {"0"}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"epoch": 1, "loss"\n', "Expecting ':' delimiter"),
        ('{"epoch": 1}\n', "it has no 'validation_accuracy'"),
        ("[1]\n", "an entry of its content has another form"),
    ],
)
def test_damaged_metrics_give_no_curve_and_are_named(real_result, tmp_path, content, said):
    write_run(tmp_path / "a", result_like(real_result), metrics=metrics(0, 1.0))
    broken = write_run(tmp_path / "b", result_like(real_result, seed=1), metrics=metrics(1, 1.0))
    (broken / "metrics.jsonl").write_text(content)
    results = read_results([tmp_path])
    curves, (note,) = read_curves(results)
    assert curves["seed"].unique().tolist() == ["0"]
    assert note.startswith(f"{broken / 'metrics.jsonl'} is left out of curves.png: {said}")


def test_cost_stands_against_accuracy_clean_and_under_the_strongest_attacks(cells):
    figure = draw_cost(cells.cells, cells.values)
    assert [axes.get_title(loc="left") for axes in figure.axes] == [
        "mnist: clean",
        "mnist: pgd at 0.1",
        "mnist: pgd at 0.3",
    ]
    strong = figure.axes[2]
    points = [(line.get_xdata()[0], line.get_ydata()[0]) for line in strong.lines if len(line.get_xdata()) == 1]
    np.testing.assert_allclose(points, [(10.5, 7.5), (110.5, 17.5), (510.5, 30.0)])
    front = next(line for line in strong.lines if len(line.get_xdata()) > 1)
    np.testing.assert_allclose(front.get_xdata(), [10.5, 110.5, 510.5])
    assert strong.get_xscale() == "log"
    assert len(figure.legends[0].get_texts()) == 3
    assert_nothing_overlaps(figure)


def test_the_front_has_no_network_that_another_beats_in_both():
    rng = np.random.default_rng(0)
    points = [(float(cost), float(gain)) for cost, gain in rng.random((50, 2))]
    front = pareto_front(points)
    beaten = [
        any(cost <= point[0] and gain >= point[1] and (cost, gain) != point for cost, gain in points)
        for point in points
    ]
    assert front == sorted(point for point, is_beaten in zip(points, beaten, strict=True) if not is_beaten)


def test_the_strongest_attack_leaves_least_among_those_that_most_networks_stood_under(real_result, tmp_path):
    write_seeds(tmp_path, real_result, [0.1, 0.2])
    write_seeds(tmp_path, real_result, [0.3, 0.4], lam=50.0)
    rare = result_like(real_result, seed=7, accuracies=((("square", 0.3), 0.0),))
    write_run(tmp_path / "rare", rare)
    found = make_cells(read_results([tmp_path]).rows, paper_numbers()).cells
    assert strongest(found, 0.3).name == "fgsm at 0.3"
    assert strongest(found, 0.2) is None
    assert [choice.role for choice in choose_for_lambda(found)] == ["clean", "fgsm"]  # FGSM is the strongest too
    assert [choice.role for choice in choose_for_cost(found)] == ["clean", "strongest"]


def test_networks_that_differ_in_the_warm_up_alone_are_two(real_result, tmp_path):
    for index, (measure, warmups) in enumerate({("fgsm", 0.1): (0, 5), ("fgsm", 0.2): (0,)}.items()):
        for warmup in warmups:
            settings = {"adversarial__epsilon": 0.3, "adversarial__warmup_epochs": warmup, "seed": index}
            write_run(
                tmp_path / f"{index}-{warmup}", result_like(real_result, accuracies=((measure, 0.5),), **settings)
            )
    found = make_cells(read_results([tmp_path]).rows, paper_numbers()).cells
    assert [choice.epsilon for choice in choose_for_cost(found) if choice.role == "strongest"] == [0.1]


def test_a_run_of_a_file_with_the_name_of_a_folder_gives_its_curve_no_other_settings(real_result, tmp_path):
    write_run(tmp_path / "old" / "run", result_like(real_result, lam=50.0), metrics=metrics(0, 1.0))
    file = write_rows(read_results([tmp_path / "old"]).rows, tmp_path / "rows.csv")
    write_run(tmp_path / "today" / "run", result_like(real_result, lam=0.0), metrics=metrics(0, 1.0))
    curves, _ = read_curves(read_results([tmp_path / "today"], [file]))
    assert curves["lam"].unique().tolist() == [0.0]


@pytest.mark.parametrize("change", [{"norm": "l2"}, {"when": "on the way", "epoch": 5.0}])
def test_rows_that_no_picture_is_of_give_none(runs, tmp_path, change):
    rows = runs.rows.assign(**change)
    files, _ = draw_all(make_cells(rows, paper_numbers()), without_folders(runs._replace(rows=rows)), tmp_path)
    assert files == []


def test_a_radius_of_0_is_none_of_the_training(real_result, tmp_path):
    for lam in (0.0, 50.0):
        rows = ((("clean", 0.0), 0.98), *((("fgsm", epsilon), 0.9 - epsilon) for epsilon in (0.0, 0.1, 0.3)))
        write_run(tmp_path / f"lam{lam:g}", result_like(real_result, lam=lam, accuracies=rows))
    found = make_cells(read_results([tmp_path]).rows, paper_numbers()).cells
    assert [(choice.role, choice.epsilon) for choice in choose_for_lambda(found)] == [
        ("clean", 0.0),
        ("fgsm", 0.3),
        ("strongest", 0.1),
    ]


def test_all_pictures_are_written(cells, runs, tmp_path):
    files, _ = draw_all(cells, runs, tmp_path)
    assert [path.name for path in files] == ["lambda.png", "curves.png", "cost-mnist.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in files)
    files, _ = draw_all(cells, without_folders(runs), tmp_path)
    assert [path.name for path in files] == ["lambda.png", "cost-mnist.png"]  # curves come from folders only
