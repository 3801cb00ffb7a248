"""The attacks on a trained run: figures that come from the verdicts, and evaluations that go on where they ended."""

import json
import shutil

import jax
import numpy as np
import pytest
from quick import quick_config

from jl1 import records
from jl1.attacks.ensemble import standard_attack
from jl1.attacks.suite import make_suite, settings_of
from jl1.display.results import order_warnings
from jl1.errors import UserError
from jl1.evaluation import accuracy_interval
from jl1.experiment import train_and_evaluate
from jl1.runs import battery
from jl1.runs.battery import Battery, file_stem
from jl1.runs.evaluator import EvaluationOptions, _identity, evaluate_run
from jl1.runs.reporting import Reporter
from jl1.runs.trained import load_trained
from jl1.runs.verdicts import Verdicts

OPTIONS = EvaluationOptions(
    (0.03, 0.1), attacks=("fgsm", "clean", "pgd_margin", "noise"), pgd_steps=4, batch_size=40, max_points=100
)
NUM_PIECES = 3 * (1 + 3 * 2)  # 40, 40 and 20 points; clean, and three attacks at two radii


class Notices(Reporter):
    """Keeps what it is told, and stops at a chosen report."""

    def __init__(self, stop_at=None):
        self.notices, self.reports, self.kept_ones, self.stop_at = [], [], [], stop_at

    def notice(self, text):
        self.notices.append(text)

    def kept(self, what):
        self.kept_ones.append(what)

    def measured(self, what, done, total):
        self.reports.append((what, done, total))
        if len(self.reports) == self.stop_at:
            raise KeyboardInterrupt


@pytest.fixture(scope="module", autouse=True)
def _quick_compile():
    """As `quick_compile`, for the fixtures of this module and all its tests: the same bits are asked of both."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of one epoch; tests copy it."""
    workdir = tmp_path_factory.mktemp("runs") / "run"
    train_and_evaluate(quick_config(training__num_epochs=1), workdir)
    return workdir


@pytest.fixture(scope="module")
def evaluated(trained, tmp_path_factory):
    """The same run evaluated in one go."""
    workdir = shutil.copytree(trained, tmp_path_factory.mktemp("evaluated") / "run")
    return workdir, evaluate_run(workdir, options=OPTIONS)


@pytest.fixture
def attacked(monkeypatch):
    """Count the batches that are really attacked, to their end."""
    batches = []

    def counted(*arguments, **options):
        result = standard_attack(*arguments, **options)
        batches.append(len(options["labels"]))  # one that is interrupted does not count
        return result

    monkeypatch.setattr(battery, "standard_attack", counted)
    return batches


def stored(workdir, row):
    with np.load(workdir / row["verdicts"], allow_pickle=False) as file:
        return Verdicts(file["stands"], file["broken_by"])


def test_rows_come_weakest_first_with_the_worst_case_last(evaluated):
    workdir, rows = evaluated
    assert [(row["attack"], row["epsilon"]) for row in rows] == [
        ("clean", 0.0),
        *[(name, epsilon) for name in ("noise", "fgsm", "pgd_margin") for epsilon in (0.03, 0.1)],
        ("worst_case", 0.03),
        ("worst_case", 0.1),
    ]
    content = json.loads((workdir / "evaluation.json").read_text())
    assert content == {"schema": "jl1.evaluation/1", "accuracies": rows}
    pgd = rows[5]
    assert (pgd["num_steps"], pgd["num_restarts"], pgd["loss_fn"], pgd["epoch"]) == (4, 1, "margin", 1)
    assert (pgd["points"], pgd["num_examples"], pgd["num_points"]) == ("test", 100, 500)


def test_every_figure_is_that_of_the_stored_verdicts(evaluated):
    workdir, rows = evaluated
    clean = stored(workdir, rows[0])
    assert 0.5 < clean.stands.mean() < 1
    for row in rows:
        verdicts = stored(workdir, row)
        assert (len(verdicts.stands), verdicts.stands.dtype) == (100, bool)
        assert row["accuracy"] == verdicts.stands.mean()
        assert row["interval"] == list(accuracy_interval(int(verdicts.stands.sum()), 100))
        np.testing.assert_array_equal(verdicts.stands, verdicts.broken_by == "")
        np.testing.assert_array_equal(verdicts.broken_by == "clean", ~clean.stands)  # wrong counts as broken
        assert sum(row["broken_by"].values()) == 100 - verdicts.stands.sum()
        if row["attack"] != "worst_case":
            assert set(verdicts.broken_by) <= {"", "clean", row["attack"]}


def test_the_worst_case_stands_where_every_attack_is_stood(evaluated):
    workdir, rows = evaluated
    for epsilon in (0.03, 0.1):
        of_one = [stored(workdir, row) for row in rows[1:-2] if row["epsilon"] == epsilon]
        worst = stored(workdir, next(row for row in rows[-2:] if row["epsilon"] == epsilon))
        np.testing.assert_array_equal(worst.stands, np.all([verdicts.stands for verdicts in of_one], axis=0))
        assert worst.stands.mean() <= min(verdicts.stands.mean() for verdicts in of_one)
    assert worst.stands.mean() < of_one[0].stands.mean()  # noise alone is weaker


def test_a_finished_evaluation_is_read_and_not_repeated(evaluated, attacked):
    workdir, rows = evaluated
    reporter = Notices()
    assert evaluate_run(workdir, options=OPTIONS, reporter=reporter) == rows
    assert attacked == []
    assert records.read_evaluation(workdir) == rows
    assert len(reporter.kept_ones) == 7
    assert reporter.kept_ones[-1] == "pgd_margin 0.1 (7 of 7)"
    assert ("pgd_margin 0.1 (7 of 7)", 80, 100) in reporter.reports
    assert all(done < total for _, done, total in reporter.reports)


def test_an_interrupted_evaluation_goes_on_to_the_same_bits_and_repeats_no_batch(
    evaluated, trained, attacked, tmp_path
):
    straight, rows = evaluated
    workdir = shutil.copytree(trained, tmp_path / "run")
    for stop_at in (7, 30):
        with pytest.raises(KeyboardInterrupt):
            evaluate_run(workdir, options=OPTIONS, reporter=Notices(stop_at))
    begun = len(attacked)
    assert 0 < begun < NUM_PIECES
    assert evaluate_run(workdir, options=OPTIONS) == rows
    assert len(attacked) == NUM_PIECES
    for row in rows:
        assert (workdir / row["verdicts"]).read_bytes() == (straight / row["verdicts"]).read_bytes()


@pytest.mark.parametrize("damage", ["rubbish", "cut", "flipped"])
def test_a_damaged_batch_is_computed_again(evaluated, attacked, tmp_path, damage):
    workdir, rows = evaluated
    workdir = shutil.copytree(workdir, tmp_path / "run")
    piece = workdir / "evaluation" / "pieces" / "fgsm-test40-0.1.npz"
    content = piece.read_bytes()
    middle = len(content) // 2
    changed = {
        "rubbish": b"rubbish",
        "cut": content[:middle],
        "flipped": content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :],
    }
    piece.write_bytes(changed[damage])
    reporter = Notices()
    assert evaluate_run(workdir, options=OPTIONS, reporter=reporter) == rows
    assert attacked == [40]
    assert len(reporter.kept_ones) == 6
    assert "fgsm-test40-0.1.npz is damaged" in reporter.notices[0]
    assert piece.read_bytes() == content


def test_the_source_of_a_transfer_decides_no_other_attack(evaluated, attacked):
    workdir, rows = evaluated
    suite, options = make_suite(pgd_steps=4), {"batch_size": 40, "max_points": 100}
    battery = Battery(workdir, load_trained(workdir), suite, sources={"transfer": "another network"}, **options)
    verdicts = battery.attack("fgsm", 0.1, "fgsm")
    assert attacked == []
    assert verdicts.stands.mean() == next(
        row["accuracy"] for row in rows if row["attack"] == "fgsm" and row["epsilon"] == 0.1
    )


def test_a_figure_takes_the_place_of_one_of_a_version_that_did_not_write_squares_schedule():
    new = {"attack": "square", "num_queries": 5000, "schedule_queries": 10_000, "accuracy": 0.5}
    old = {"attack": "square", "num_queries": 5000, "accuracy": 0.6, "points": "test"}
    both = [{"attack": "worst_case", "attacks": {"fgsm": {}, "square": row}} for row in (old, new)]
    assert _identity(new) == _identity(old) != _identity(old | {"num_queries": 200})
    for row in both:
        row["attacks"]["square"].pop("accuracy", None)
        row["attacks"]["square"].pop("points", None)
    assert _identity(both[0]) == _identity(both[1]) != _identity({"attack": "worst_case", "attacks": {"fgsm": {}}})


def test_attacks_that_differ_in_the_loss_alone_have_files_and_names_of_their_own():
    settings = [settings_of(make_suite(budget=budget)["apgd_t"]) for budget in ("full", "few_classes")]
    assert [file_stem("apgd_t", each) for each in settings] == ["apgd_t-100-9", "apgd_t-100-targeted_margin-9"]
    assert file_stem("pgd_margin", settings_of(make_suite()["pgd_margin"])) == "pgd_margin-100-1"  # as it always was


@pytest.mark.parametrize("change", ["stronger", "checkpoint", "points"])
def test_batches_decided_by_something_else_are_stale(evaluated, attacked, tmp_path, change):
    workdir, rows = evaluated
    workdir, options = shutil.copytree(workdir, tmp_path / "run"), OPTIONS._replace(attacks=("pgd_margin",))
    if change == "stronger":
        options = options._replace(pgd_steps=6)
    elif change == "points":
        options = options._replace(points="validation")
    else:
        shutil.rmtree(workdir / "checkpoints")
        train_and_evaluate(quick_config(training__num_epochs=2), tmp_path / "other")
        shutil.copytree(tmp_path / "other" / "checkpoints", workdir / "checkpoints")
    new = evaluate_run(workdir, options=options)
    assert attacked == [40, 40, 20] * 2
    kept = records.read_evaluation(workdir)
    assert len(kept) == len(rows) + (0 if change == "checkpoint" else 2)  # another checkpoint's figures replace the old
    assert all(row in kept for row in new)


def test_the_ensemble_says_which_of_its_attacks_broke_a_point_and_beats_the_others(evaluated, tmp_path):
    workdir, _ = evaluated
    workdir = shutil.copytree(workdir, tmp_path / "run")
    options = EvaluationOptions((0.1,), attacks=("standard", "noise"), max_points=40)
    reporter = Notices()
    noise, standard, worst = evaluate_run(workdir, options=options, reporter=reporter)
    assert standard["budget"] == "fast"
    assert "apgd_ce" in standard["broken_by"]
    assert standard["accuracy"] < noise["accuracy"]
    assert worst["accuracy"] == standard["accuracy"]
    assert set(worst["attacks"]) == {"noise", "standard"}
    done = [done for what, done, _ in reporter.reports if what.startswith("standard")]
    assert done == sorted(done)
    assert len(set(done)) > 2  # it moves within a batch


def test_a_point_outside_the_ball_is_no_verdict(trained, monkeypatch, tmp_path):
    workdir = shutil.copytree(trained, tmp_path / "run")

    def far(*arguments, **options):
        result = standard_attack(*arguments, **options)
        return result._replace(inputs=np.clip(result.inputs + 0.11, 0, 1))

    monkeypatch.setattr(battery, "standard_attack", far)
    with pytest.raises(RuntimeError, match="fgsm moved a point by"):
        evaluate_run(workdir, options=OPTIONS._replace(attacks=("fgsm",), epsilons=(0.1,)))
    assert records.read_evaluation(workdir) == []


def test_a_broken_order_is_said_with_its_figures():
    rows = [
        {"attack": name, "epsilon": epsilon, "accuracy": accuracy, "num_examples": 1000}
        for name, epsilon, accuracy in (
            ("noise", 0.1, 0.9),
            ("fgsm", 0.1, 0.301),
            ("pgd", 0.1, 0.3),
            ("standard", 0.1, 0.302),
            ("fgsm", 0.3, 0.4),
            ("pgd", 0.3, 0.5),
        )
    ]
    (line,) = order_warnings(rows)
    assert line.startswith("at epsilon 0.3 pgd leaves 50.00%, more than the 40.00% of fgsm")


def test_l2_is_another_measurement_beside_linf_and_stays_in_its_balls(evaluated, monkeypatch, tmp_path):
    workdir, before = evaluated
    workdir = shutil.copytree(workdir, tmp_path / "run")
    lengths = []

    def measured(apply_fn, params, **options):
        result = standard_attack(apply_fn, params, **options)
        lengths.append(np.sqrt(np.sum((result.inputs - options["inputs"]) ** 2, axis=(1, 2, 3))).max())
        return result

    monkeypatch.setattr(battery, "standard_attack", measured)
    names = ("clean", "noise", "fgsm", "pgd", "fab", "square", "standard")
    options = EvaluationOptions((0.5, 2.0), attacks=names, pgd_steps=5, batch_size=40, max_points=40, norm="l2")
    reporter = Notices()
    rows = evaluate_run(workdir, options=options, reporter=reporter)
    assert max(lengths) <= 2 * (1 + 1e-6)
    assert (
        sorted(lengths)[-1] > 1.9
    )  # a ball of L-infinity at 2 would be the whole cube, one at 0.5 is 28 times as wide
    kept = records.read_evaluation(workdir)
    assert kept == before + rows
    assert [row["norm"] for row in rows] == ["linf"] + ["l2"] * (len(rows) - 1)  # `clean` is in both
    accuracies = {(row["attack"], row["epsilon"]): row["accuracy"] for row in rows}
    assert accuracies["standard", 2.0] <= accuracies["standard", 0.5] <= accuracies["clean", 0.0]
    assert accuracies["pgd", 2.0] <= accuracies["fgsm", 2.0] < accuracies["noise", 2.0]
    assert accuracies["worst_case", 2.0] == min(accuracies.values())
    assert "L2 fgsm 0.5 (4 of 13)" in {what for what, *_ in reporter.reports}
    assert (workdir / "evaluation" / "standard-fast-l2-test40-2.0.npz").is_file()
    assert evaluate_run(workdir, options=options) == rows
    assert records.read_evaluation(workdir) == kept


def test_a_run_without_a_checkpoint_is_refused(trained, tmp_path):
    workdir = tmp_path / "run"
    workdir.mkdir()
    shutil.copy(trained / "config.json", workdir)
    with pytest.raises(UserError, match="has no checkpoint yet"):
        evaluate_run(workdir, options=OPTIONS)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"schema": "jl1.evaluation/1", "accura', "is damaged: Unterminated string"),
        ('{"schema": "jl1.evaluation/2", "accuracies": []}', "its schema is jl1.evaluation/2, and this version reads"),
        ("[]", "is damaged: its content has another form"),
        ('{"a": 1}', "is damaged: it has no 'schema'"),
        ('{"schema": "jl1.evaluation/1", "accuracies": 3}', "its 'accuracies' has another form"),
        ('{"schema": "jl1.evaluation/1", "accuracies": [1]}', "an entry of its 'accuracies' has another form"),
    ],
)
def test_rows_that_cannot_be_kept_are_refused_before_the_attacks(content, message, trained, attacked, tmp_path):
    workdir = shutil.copytree(trained, tmp_path / "run")
    (workdir / "evaluation.json").write_text(content)
    with pytest.raises(UserError, match=message):
        evaluate_run(workdir, options=OPTIONS)
    assert attacked == []
    assert (workdir / "evaluation.json").read_text() == content


def test_a_folder_that_cannot_be_written_is_refused_first(trained, attacked, tmp_path):
    workdir = shutil.copytree(trained, tmp_path / "run")
    (workdir / "evaluation").write_text("in the way")
    with pytest.raises(UserError, match="cannot write to"):
        evaluate_run(workdir, options=OPTIONS)
    assert attacked == []
