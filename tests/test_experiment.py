"""Whole runs on real digits: what they leave, that they repeat, and how they end when something goes wrong."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick import final_params, quick_config, same_bits

from jl1 import records
from jl1.attacks.fgsm import fgsm_random_start
from jl1.data import epoch_indices, load_dataset
from jl1.devices import Devices
from jl1.errors import InterruptedEarlyError, UserError
from jl1.experiment import train_and_evaluate
from jl1.penalties import ESTIMATORS
from jl1.runs import objective
from jl1.runs.evaluator import EvaluationOptions, evaluate_run
from jl1.runs.problems import create_problem
from jl1.runs.reporting import Reporter
from jl1.runs.trainer import DivergedError

DEFENDED = {"penalty__name": "class_sum_l1", "penalty__lam": 1.0, "adversarial__epsilon": 0.1}
"""Every branch of the loss but the slow one: the penalty needs one reverse pass instead of ten."""


class Recorder(Reporter):
    """Keeps all it is told."""

    def __init__(self):
        self.epochs, self.pieces, self.notices, self.measurements = [], 0, [], set()

    def trained(self, epoch, done, total, row):
        self.pieces += 1

    def finished_epoch(self, row):
        self.epochs.append(row["epoch"])

    def measured(self, what, done, total):
        self.measurements.add(what)

    def notice(self, text):
        self.notices.append(text)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run with penalty, twins and best weights kept; tests copy it before they change it."""
    workdir = tmp_path_factory.mktemp("runs") / "finished"
    result = train_and_evaluate(quick_config("quickstart", **DEFENDED, training__weights="best"), workdir)
    return workdir, result


def test_a_result_has_the_documented_fields(finished):
    workdir, result = finished
    assert json.loads((workdir / "result.json").read_text()) == result
    assert set(result) == {
        *(
            "schema",
            "config",
            "seed",
            "num_params",
            "gradient_form",
            "num_epochs",
            "stopped_because",
            "validation_accuracy",
        ),
        *("accuracies", "l1_jacobian_norm", "at_epochs", "seconds", "versions", "earlier_versions"),
        *("device", "processor"),
    }
    assert (result["schema"], result["num_params"], result["num_epochs"]) == ("jl1.result/1", 567434, 3)
    assert result["stopped_because"] == "num_epochs"
    assert set(result["seconds"]) == {"compile", "train", "evaluate"}
    assert all(seconds > 0 for seconds in result["seconds"].values())
    assert set(result["l1_jacobian_norm"]) == {"logits", "probs"}
    rows = [(row["attack"], row["epsilon"], row["labels"]) for row in result["accuracies"]]
    expected = [("clean", 0.0, "true"), ("fgsm", 0.1, "true"), ("fgsm", 0.1, "predicted"), ("pgd", 0.1, "true")]
    assert rows == expected
    assert all(0 <= row["accuracy"] <= 1 and row["num_examples"] == 500 for row in result["accuracies"])


def test_a_run_learns_and_its_metrics_say_so(finished):
    workdir, result = finished
    metrics = records.read_metrics(workdir)
    assert [row["epoch"] for row in metrics] == [1, 2, 3]
    assert metrics[-1]["cross_entropy"] < metrics[0]["cross_entropy"]
    for row in metrics:
        assert row["loss"] == pytest.approx(row["cross_entropy"] + 1.0 * row["penalty"], rel=1e-5)
    assert result["accuracies"][0]["accuracy"] > 0.7
    # neither counts compilation, and the run's seconds have the validation too
    assert 0 < sum(row["seconds"] for row in metrics) <= result["seconds"]["train"]


def test_the_same_seed_gives_the_same_bits_and_another_seed_others(finished, tmp_path):
    workdir, result = finished
    again = train_and_evaluate(quick_config("quickstart", **DEFENDED, training__weights="best"), tmp_path / "again")
    assert same_bits(final_params(workdir), final_params(tmp_path / "again"))
    assert again["accuracies"] == result["accuracies"]
    assert again["l1_jacobian_norm"] == result["l1_jacobian_norm"]
    other = quick_config("quickstart", **DEFENDED, training__weights="best", seed=1)
    train_and_evaluate(other, tmp_path / "other")
    assert not same_bits(final_params(workdir), final_params(tmp_path / "other"))


def test_seeds_can_be_set_one_by_one(tmp_path):
    runs = {}
    for name, seeds in {"all": {"seed": 5}, "each": {"seeds__init": 5, "seeds__order": 5, "seeds__attack": 5}}.items():
        train_and_evaluate(quick_config(training__num_epochs=1, **seeds), tmp_path / name)
        runs[name] = final_params(tmp_path / name)
    train_and_evaluate(quick_config(training__num_epochs=1, seed=5, seeds__order=6), tmp_path / "order")
    assert same_bits(runs["all"], runs["each"])
    assert not same_bits(runs["all"], final_params(tmp_path / "order"))


def test_a_finished_run_is_refused_before_anything_is_touched(finished):
    workdir, _ = finished
    before = {path: path.stat().st_mtime_ns for path in workdir.rglob("*")}
    with pytest.raises(UserError, match="holds the finished run"):
        train_and_evaluate(quick_config("quickstart", **DEFENDED, training__weights="best"), workdir)
    assert {path: path.stat().st_mtime_ns for path in workdir.rglob("*")} == before


def test_a_run_whose_evaluation_was_lost_is_only_evaluated_again(finished, tmp_path):
    workdir, result = finished
    copy = shutil.copytree(workdir, tmp_path / "copy")
    (copy / "result.json").unlink()
    recorder = Recorder()
    again = train_and_evaluate(
        quick_config("quickstart", **DEFENDED, training__weights="best"), copy, reporter=recorder
    )
    assert recorder.epochs == []
    assert again["accuracies"] == result["accuracies"]


def test_an_interrupted_run_is_evaluated_as_it_is_and_goes_on_to_the_same_bits(tmp_path):
    config = quick_config()
    straight = train_and_evaluate(config, tmp_path / "straight")
    recorder = Recorder()
    stopped = train_and_evaluate(
        config, tmp_path / "stopped", reporter=recorder, should_stop=lambda: len(recorder.epochs) == 2
    )
    assert (stopped["stopped_because"], stopped["num_epochs"]) == ("interrupted", 2)
    resumed = train_and_evaluate(config, tmp_path / "stopped", reporter=recorder)
    assert recorder.epochs == [1, 2, 3]
    assert same_bits(final_params(tmp_path / "straight"), final_params(tmp_path / "stopped"))
    assert resumed["accuracies"] == straight["accuracies"]
    assert [row["epoch"] for row in records.read_metrics(tmp_path / "stopped")] == [1, 2, 3]


def test_a_run_that_goes_on_with_other_versions_says_and_records_them(tmp_path, monkeypatch):
    recorder, now = Recorder(), records.versions()
    before = now | {"jax": "0.0.1"}
    with monkeypatch.context() as patch:
        patch.setattr(records, "versions", lambda: before)
        stop = {"should_stop": lambda: len(recorder.epochs) == 1}
        assert train_and_evaluate(quick_config(), tmp_path, reporter=recorder, **stop)["earlier_versions"] == []
    result = train_and_evaluate(quick_config(), tmp_path, reporter=recorder)
    assert (result["versions"], result["earlier_versions"]) == (now, [before])
    notes = [note for note in recorder.notices if "another version" in note]
    assert notes == [f"going on with another version than before: versions.jax: '0.0.1' -> '{now['jax']}'"]


def test_on_an_accelerator_a_run_says_that_it_compiles(tmp_path, monkeypatch):
    monkeypatch.setattr(Devices, "platform", "gpu")
    monkeypatch.setattr(Devices, "kind", "Some GPU")
    recorder = Recorder()
    train_and_evaluate(quick_config(training__num_epochs=1), tmp_path, reporter=recorder)
    assert [note for note in recorder.notices if note.startswith("compiling for Some GPU: minutes before")]


def test_an_interruption_within_the_warmup_of_epsilon_changes_no_bit(tmp_path):
    robust = {"adversarial__method": "pgd", "adversarial__num_steps": 1, "adversarial__warmup_epochs": 3}
    config = quick_config(adversarial__epsilon=0.1, **robust)
    train_and_evaluate(config, tmp_path / "straight")
    recorder = Recorder()
    train_and_evaluate(config, tmp_path / "stopped", reporter=recorder, should_stop=lambda: len(recorder.epochs) == 1)
    train_and_evaluate(config, tmp_path / "stopped", reporter=recorder)
    assert recorder.epochs == [1, 2, 3]
    assert same_bits(final_params(tmp_path / "straight"), final_params(tmp_path / "stopped"))
    config.adversarial.warmup_epochs = 0
    train_and_evaluate(config, tmp_path / "at_once")
    assert not same_bits(final_params(tmp_path / "straight"), final_params(tmp_path / "at_once"))


def test_the_warmup_ends_with_the_last_step_of_its_last_epoch():
    config = quick_config(adversarial__epsilon=0.1, adversarial__warmup_epochs=2, training__batch_size=300)
    data = load_dataset("mnist_5k")
    given = create_problem(config, data).hyperparameters
    assert given.warmup_steps == 2 * len(epoch_indices(len(data.train.labels), 300, seed=0, epoch=1))
    assert float(given.epsilon) == float(np.float32(0.1))


def test_figures_on_the_way_are_those_of_a_run_that_ends_there_and_survive_a_kill(tmp_path):
    shorter = train_and_evaluate(quick_config(training__num_epochs=1), tmp_path / "shorter")
    config = quick_config(training__num_epochs=2, evaluation__epochs=(1,))
    longer = train_and_evaluate(config, tmp_path / "longer")
    (row,) = longer["at_epochs"]
    assert row == {"epoch": 1, "accuracies": shorter["accuracies"], "l1_jacobian_norm": shorter["l1_jacobian_norm"]}

    class KilledAtFgsm(Recorder):
        def measured(self, what, done, total):
            super().measured(what, done, total)
            if what.startswith("fgsm"):
                raise KeyboardInterrupt

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            train_and_evaluate(config, tmp_path / "killed", reporter=KilledAtFgsm())
    assert len(records.read_metrics(tmp_path / "killed")) == 1
    assert train_and_evaluate(config, tmp_path / "killed")["at_epochs"] == longer["at_epochs"]


def test_the_attacks_of_the_config_run_after_training_and_go_on_after_a_kill(tmp_path):
    attacks = {"evaluation__attacks": ("fgsm", "pgd"), "evaluation__max_points": 20, "evaluation__batch_size": 10}
    config = quick_config(training__num_epochs=1, **attacks)

    class KilledAtPgd(Recorder):
        def measured(self, what, done, total):
            super().measured(what, done, total)
            if what.startswith("pgd"):
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_and_evaluate(config, tmp_path / "run", reporter=KilledAtPgd())
    assert records.read_result(tmp_path / "run") is None
    pieces = {path: path.stat().st_mtime_ns for path in (tmp_path / "run/evaluation/pieces").glob("fgsm*")}
    assert len(pieces) == 2
    recorder = Recorder()
    train_and_evaluate(config, tmp_path / "run", reporter=recorder)
    assert recorder.epochs == []
    assert {path: path.stat().st_mtime_ns for path in pieces} == pieces
    rows = records.read_evaluation(tmp_path / "run")
    assert [(row["attack"], row["num_examples"], row.get("num_steps")) for row in rows] == [
        ("fgsm", 20, None),
        ("pgd", 20, 2),
        ("worst_case", 20, None),
    ]


def test_an_interruption_before_the_first_epoch_says_so(tmp_path):
    with pytest.raises(InterruptedEarlyError, match="before the first epoch was over"):
        train_and_evaluate(quick_config(), tmp_path / "run", should_stop=lambda: True)


def test_a_damaged_newest_checkpoint_costs_one_epoch_and_nothing_else(finished, tmp_path):
    workdir, result = finished
    copy = shutil.copytree(workdir, tmp_path / "copy")
    (copy / "result.json").unlink()
    arrays = max((copy / "checkpoints" / "3" / "arrays").rglob("*"), key=lambda path: path.stat().st_size)
    arrays.write_bytes(b"rubbish")
    recorder = Recorder()
    again = train_and_evaluate(
        quick_config("quickstart", **DEFENDED, training__weights="best"), copy, reporter=recorder
    )
    assert "checkpoint of epoch 3 is damaged" in recorder.notices[0]
    assert recorder.epochs == [3]
    assert again["accuracies"] == result["accuracies"]
    assert same_bits(final_params(workdir), final_params(copy))


def test_the_checkpoint_of_another_model_is_refused(finished, tmp_path):
    workdir, _ = finished
    copy = shutil.copytree(workdir, tmp_path / "copy")
    config = json.loads((copy / "config.json").read_text())
    config["training"]["weights"] = "last"
    config["model"]["name"] = "A"
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="is of another model"):
        evaluate_run(copy, options=EvaluationOptions((0.1,)))


def test_other_data_under_the_same_name_are_refused(finished, tmp_path, monkeypatch):
    workdir, _ = finished
    data = load_dataset("mnist_5k")
    changed = data._replace(fingerprint="0" * 64)
    monkeypatch.setattr("jl1.runs.problems.load_dataset", lambda *_, **__: changed)
    with pytest.raises(UserError, match="not those that the checkpoint of epoch 3 was trained on"):
        evaluate_run(workdir, options=EvaluationOptions((0.1,)))


def test_a_loss_that_is_not_finite_ends_the_run_with_step_checkpoint_and_cause(tmp_path):
    config = quick_config("quickstart", penalty__name="jacobian_frobenius", optimizer__learning_rate=1e5)
    message = r"not finite at step \d+ \(epoch 1\); there is no checkpoint.*the penalty overflowed.*penalty\.lam"
    with pytest.raises(DivergedError, match=message):
        train_and_evaluate(config, tmp_path / "run")
    assert records.read_result(tmp_path / "run") is None


def test_divergence_in_a_later_epoch_names_the_last_good_checkpoint(tmp_path):
    config = quick_config(optimizer__learning_rate=1e17, training__num_epochs=9, training__batch_size=4000)
    with pytest.raises(DivergedError, match=r"the last good checkpoint is that of epoch \d.*learning_rate"):
        train_and_evaluate(config, tmp_path / "run")


def test_stopping_early_is_recorded_with_its_rule(tmp_path):
    config = quick_config(training__stopping="patience", training__stopping_epochs=1, optimizer__learning_rate=0.0)
    result = train_and_evaluate(config, tmp_path / "run")
    assert (result["stopped_because"], result["num_epochs"]) == ("patience", 2)


def test_the_best_weights_are_those_of_the_best_epoch(tmp_path):
    config = quick_config(training__weights="best", optimizer__learning_rate=0.6, training__num_epochs=4)
    result = train_and_evaluate(config, tmp_path / "run")
    accuracies = [row["validation_accuracy"] for row in records.read_metrics(tmp_path / "run")]
    assert max(accuracies) > accuracies[-1]  # at such a rate the network dies
    config.evaluation.points = "validation"
    shutil.copytree(tmp_path / "run", tmp_path / "copy")
    (tmp_path / "copy" / "result.json").unlink()
    (tmp_path / "copy" / "config.json").write_text(
        (tmp_path / "run" / "config.json").read_text().replace('"points": "test"', '"points": "validation"')
    )
    again = train_and_evaluate(config, tmp_path / "copy")
    assert again["accuracies"][0]["accuracy"] == pytest.approx(max(accuracies), abs=1e-12)
    assert result["validation_accuracy"] == pytest.approx(max(accuracies), abs=1e-12)


def test_a_run_is_evaluated_again_with_stronger_attacks_and_rows_are_kept_by_what_they_measure(finished, tmp_path):
    workdir, result = finished
    copy = shutil.copytree(workdir, tmp_path / "copy")
    same = EvaluationOptions((0.1,), attacks=("clean", "fgsm"))
    again = {row["attack"]: row["accuracy"] for row in evaluate_run(copy, options=same)}
    assert again["clean"] == result["accuracies"][0]["accuracy"]
    assert again["fgsm"] == result["accuracies"][1]["accuracy"]
    recorder = Recorder()
    stronger = EvaluationOptions((0.1,), attacks=("pgd",), pgd_steps=8, pgd_restarts=2)
    (row,) = evaluate_run(copy, options=stronger, reporter=recorder)
    assert recorder.measurements == {"pgd 0.1 (1 of 1)"}
    assert row["accuracy"] <= result["accuracies"][-1]["accuracy"]
    assert len(records.read_evaluation(copy)) == 3
    evaluate_run(copy, options=same)
    assert len(records.read_evaluation(copy)) == 3
    assert json.loads((copy / "result.json").read_text()) == result


@pytest.mark.parametrize(
    "fields",
    [
        {"penalty__name": "loss_gradient_l2", "penalty__lam": 1.0},
        {"penalty__name": "loss_gradient_l1", "penalty__lam": 0.1, "model__activation": "gelu"},
        {"adversarial__epsilon": 0.1, "adversarial__labels": "predicted", "adversarial__coupling": "sum"},
        {"adversarial__epsilon": 0.1, "adversarial__random_start": True, "adversarial__smoothing": 0.1},
        {"adversarial__epsilon": 0.1, "penalty__name": "output_change", "penalty__lam": 1.0, "penalty__every": 2},
        {"adversarial__epsilon": 0.1, "adversarial__method": "pgd", "adversarial__clean_weight": 0.5},
        {"adversarial__epsilon": 0.1, "adversarial__method": "pgd", "adversarial__labels": "predicted"},
        {"adversarial__epsilon": 0.1, "adversarial__method": "trades", "penalty__name": "class_sum_l1"},
        {"training__smoothing_form": "off_label", "model__init": "fan_in_normal"},
        {"training__stopping": "successive_difference", "training__stopping_epochs": 1},
    ],
    ids=lambda fields: "+".join(field.partition("__")[2] for field in fields),
)
def test_every_reading_of_the_paper_trains(fields, tmp_path):
    result = train_and_evaluate(quick_config(training__num_epochs=2, **fields), tmp_path / "run")
    assert result["accuracies"][0]["accuracy"] > 0.5
    assert np.isfinite(result["l1_jacobian_norm"]["logits"])


def test_both_forms_of_the_gradient_train_alike_and_the_result_says_which_ran(tmp_path):
    results = {}
    for form in ("closed_form", "automatic"):
        config = quick_config("quickstart", training__num_epochs=1, penalty__gradient=form)
        results[form] = train_and_evaluate(config, tmp_path / form)
        assert results[form]["gradient_form"] == form
    one, other = (records.read_metrics(tmp_path / form)[0] for form in results)
    assert one["loss"] == pytest.approx(other["loss"], rel=1e-4)
    norms = [result["l1_jacobian_norm"]["logits"] for result in results.values()]
    assert norms[0] == pytest.approx(norms[1], rel=1e-2)


@pytest.mark.parametrize(
    ("penalty", "form"), [("jacobian_l1", "closed_form"), ("jacobian_l1_sampled_classes", "automatic")]
)
def test_a_lazy_penalty_of_all_or_of_sampled_classes_trains_like_the_exact_one(penalty, form, tmp_path):
    config = quick_config("quickstart", penalty__name=penalty, penalty__every=2, adversarial__random_start=False)
    result = train_and_evaluate(config, tmp_path / "run")
    assert result["gradient_form"] == form
    assert result["accuracies"][0]["accuracy"] > 0.7
    assert result["l1_jacobian_norm"]["logits"] < 150  # without the penalty 262 after as many epochs
    for row in records.read_metrics(tmp_path / "run"):
        assert row["loss"] == pytest.approx(row["cross_entropy"] + 50.0 * row["penalty"], rel=1e-4)
        assert row["penalty"] > 0


def test_attacks_and_estimators_draw_from_keys_of_their_own(monkeypatch):
    keys = {}

    def recorded(name, function):
        def with_key(*arguments, key, **options):
            keys[name] = jax.random.key_data(key).tolist()
            return function(*arguments, key=key, **options)

        return with_key

    monkeypatch.setattr(objective, "fgsm_random_start", recorded("attack", fgsm_random_start))
    sampled = recorded("penalty", ESTIMATORS["jacobian_l1_sampled_classes"])
    monkeypatch.setitem(ESTIMATORS, "jacobian_l1_sampled_classes", sampled)
    config = quick_config("quickstart", penalty__name="jacobian_l1_sampled_classes", adversarial__random_start=True)
    data = load_dataset("mnist_5k")
    problem, key = create_problem(config, data), jax.random.key(5)
    batch = {"labels": jnp.asarray(data.train.labels[:4]), "mask": jnp.ones(4, bool), "lam": 1.0, "epsilon": 0.1}
    problem.gradient_fn(problem.state.params, jnp.asarray(data.train.inputs[:4]), key=key, **batch)
    assert len({str(each) for each in (*keys.values(), jax.random.key_data(key).tolist())}) == 3


def test_event_files_are_written_when_asked_for(tmp_path):
    train_and_evaluate(quick_config(log__tensorboard=True, training__num_epochs=1), tmp_path / "run")
    (events,) = (tmp_path / "run" / "tensorboard").iterdir()
    assert b"validation_accuracy" in events.read_bytes()
