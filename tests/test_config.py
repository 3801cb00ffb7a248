"""Defaults, and what is refused before a run starts."""

import pytest
from ml_collections import ConfigDict

from jl1.config import default_config
from jl1.configuration.checks import validate_config
from jl1.configuration.fields import field_names, read_field
from jl1.errors import UserError
from jl1.experiment import train_and_evaluate
from jl1.models import MODELS
from jl1.penalties import DRAW_CLASSES, ESTIMATORS, OUTPUTS, PENALTIES

ALWAYS_ZERO = [("class_sum_l1", "probs"), ("class_sum_l1", "centred_logits")]
OPTIONAL = [name for name in field_names(default_config()) if read_field(default_config(), name) is None]


def test_the_defaults_are_the_papers_protocol():
    config = default_config()
    validate_config(config)
    assert dict(config.optimizer) == {"learning_rate": 1e-3, "b1": 0.9, "b2": 0.999, "eps": 1e-8}
    assert (config.training.smoothing, config.training.batch_size, config.data.validation_size) == (0.1, 128, 5000)
    assert (config.training.stopping_tolerance, config.training.stopping_epochs) == (1e-4, 10)


@pytest.mark.parametrize("penalty", PENALTIES)
@pytest.mark.parametrize("outputs", OUTPUTS)
def test_every_penalty_on_all_outputs_is_valid(penalty, outputs):
    config = default_config()
    config.penalty.name, config.penalty.outputs, config.adversarial.epsilon = penalty, outputs, 0.1
    config.penalty.lam = 0.0 if (penalty, outputs) in ALWAYS_ZERO else 50.0
    validate_config(config)


@pytest.mark.parametrize(("penalty", "outputs"), ALWAYS_ZERO)
def test_a_penalty_that_is_zero_on_any_network_is_refused_where_it_is_on(penalty, outputs):
    config = default_config()
    config.penalty.name, config.penalty.outputs, config.penalty.lam = penalty, outputs, 0.1
    message = rf"config\.penalty\.outputs='{outputs}': .* {penalty} is 0 on any network; take logits or log_probs"
    with pytest.raises(UserError, match=message):
        validate_config(config)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("penalty.lam", -1.0, r"in \[0, 1e30\]"),
        ("penalty.lam", float("nan"), r"in \[0, 1e30\]"),
        ("penalty.lam", float("inf"), r"in \[0, 1e30\]"),
        ("penalty.name", "jacobian_l2", r"must be one of none, jacobian_l1.*did you mean jacobian_l1\?"),
        (
            "penalty.name",
            "output_change",
            "needs config.adversarial.epsilon above 0 and config.adversarial.method=twins",
        ),
        ("penalty.num_draws", 0, "at least 1"),
        ("penalty.num_draws", 2, "jacobian_l1 draws nothing; estimators are jacobian_l1_sampled_classes"),
        ("penalty.memory_mb", 0, "at least 1"),
        ("penalty.every", 0, "at least 1"),
        ("penalty.every", 2**31, "below 2"),
        ("penalty.outputs", "softmax", "logits, centred_logits, probs, log_probs"),
        ("penalty.scale", "average", "sum, mean"),
        ("adversarial.epsilon", -0.1, r"in \[0, 1\]"),
        ("adversarial.epsilon", 8.0, r"8 grey levels are 8/255"),
        ("adversarial.labels", "guessed", "true, predicted"),
        ("adversarial.random_start", True, "needs config.adversarial.epsilon above 0"),
        ("adversarial.warmup_epochs", 3, "needs config.adversarial.epsilon above 0"),
        ("adversarial.labels", "predicted", "needs config.adversarial.epsilon above 0"),
        ("adversarial.coupling", "sum", "needs config.adversarial.epsilon above 0"),
        ("adversarial.warmup_epochs", -1, r"in \[0, 10,000\]"),
        ("adversarial.warmup_epochs", 10**8, r"in \[0, 10,000\]"),
        ("adversarial.method", "pgd", "needs config.adversarial.epsilon above 0"),
        ("adversarial.method", "madry", "twins, pgd, trades"),
        ("adversarial.num_steps", 0, "at least 1"),
        ("adversarial.step_size", 0.0, "above 0"),
        ("adversarial.clean_weight", 1.5, r"in \[0, 1\]"),
        ("adversarial.beta", -1.0, r"in \[0, 1e30\]"),
        ("optimizer.b1", 1.0, r"in \[0, 1\)"),
        ("optimizer.b2", 1.0, r"in \[0, 1\)"),
        ("optimizer.eps", 0.0, "above 0"),
        ("model.name", "D", ", ".join(MODELS)),
        ("model.activation", "relu6", "leaky_relu"),
        ("data.name", "mnsit", r"did you mean mnist\?"),
        ("data.tiles", 0, "1 to 3 images side by side"),
        ("data.tiles", 4, "1 to 3 images side by side"),
        ("data.validation_size", 0, "at least 1"),
        ("training.num_epochs", 0, "at least 1"),
        ("training.batch_size", 0, "at least 1"),
        ("training.smoothing", 1.0, r"in \[0, 1\)"),
        ("training.stopping", "early", "fixed, patience, successive_difference"),
        ("evaluation.epsilons", (0.1, 1.5), r"numbers in \[0, 1\]"),
        ("evaluation.epsilons", (), r"numbers in \[0, 1\]"),
        ("evaluation.pgd_steps", 0, "at least 1"),
        ("evaluation.attacks", ("fgsm", "standart"), "did you mean standard"),
        ("evaluation.epochs", (0,), "whole numbers, at least 1"),
        ("evaluation.epochs", (1.5,), "whole numbers, at least 1"),
        ("evaluation.budget", "fats", "full, few_classes, fast; did you mean fast"),
        ("evaluation.max_points", 0, "at least 1"),
        ("log.traced_points", -1, r"in \[0, 100\]"),
        ("log.traced_points", 500, r"in \[0, 100\]"),
        ("seed", -1, r"in \[0, 2\*\*32\)"),
    ],
)
def test_a_bad_value_is_refused_by_name(field, value, message):
    config = default_config()
    config.update_from_flattened_dict({field: value})
    with pytest.raises(UserError, match=message) as caught:
        validate_config(config)
    assert f"config.{field}=" in str(caught.value)


@pytest.mark.parametrize("field", [name for name in field_names(default_config()) if name not in OPTIONAL])
def test_none_is_refused_where_the_default_is_a_value(field):
    config = default_config()
    config.update_from_flattened_dict({field: None})
    with pytest.raises(UserError, match=rf"config\.{field}=None: must be of type"):
        validate_config(config)


@pytest.mark.parametrize(("field", "value"), [("penalty.lam", "50"), ("seed", True), ("seed", 1.0), ("data.name", 5)])
def test_another_type_is_refused_however_it_got_there(field, value):
    config = ConfigDict(default_config().to_dict())  # one's own, not locked and without types
    with config.ignore_type():
        config.update_from_flattened_dict({field: value})
    with pytest.raises(UserError, match=rf"config\.{field}={value!r}: must be of type"):
        validate_config(config)


@pytest.mark.parametrize(
    ("method", "field", "value", "users"),
    [
        ("twins", "num_steps", 20, "pgd or trades"),
        ("twins", "beta", 1.0, "trades"),
        ("pgd", "coupling", "sum", "twins"),
        ("pgd", "random_start", True, "twins"),
        ("trades", "labels", "predicted", "twins or pgd"),
        ("trades", "clean_weight", 0.5, "pgd"),
    ],
)
def test_a_setting_that_the_method_does_not_use_is_refused(method, field, value, users):
    config = default_config()
    config.adversarial.method, config.adversarial.epsilon, config.adversarial[field] = method, 0.1, value
    message = rf"config\.adversarial\.{field}={value!r}: is for method {users}, not {method}$"
    with pytest.raises(UserError, match=message):
        validate_config(config)
    config.adversarial.method = users.split(" or ", maxsplit=1)[0]
    validate_config(config)


@pytest.mark.parametrize(
    ("fields", "other", "why"),
    [
        ({"data.name": "mnist_5k", "data.validation_size": 400}, {"data.name": "mnist"}, "has a split of its own"),
        ({"data.name": "mnist_5k", "data.split": "random"}, {"data.name": "mnist"}, "has a split of its own"),
        ({"data.split_seed": 1}, {"data.split": "random"}, "needs config.data.split=random"),
        (
            {"training.stopping": "fixed", "training.stopping_epochs": 3},
            {"training.stopping": "patience"},
            "has no effect with config.training.stopping=fixed",
        ),
    ],
)
def test_a_setting_that_nothing_looks_at_is_refused(fields, other, why):
    config = default_config()
    config.update_from_flattened_dict(fields)
    *_, (field, value) = fields.items()
    with pytest.raises(UserError, match=rf"config\.{field}={value!r}: .*{why}"):
        validate_config(config)
    config.update_from_flattened_dict(other)
    validate_config(config)


@pytest.mark.parametrize("method", ["pgd", "trades"])
def test_the_change_of_the_outputs_needs_twins(method):
    config = default_config()
    config.adversarial.method, config.adversarial.epsilon, config.penalty.name = method, 0.1, "output_change"
    with pytest.raises(
        UserError, match=r"needs config\.adversarial\.epsilon above 0 and config\.adversarial\.method=twins"
    ):
        validate_config(config)


@pytest.mark.parametrize("penalty", ESTIMATORS)
def test_only_estimators_that_draw_classes_are_bound_by_their_number(penalty):
    config = default_config()
    config.penalty.name, config.penalty.num_draws = penalty, 10
    validate_config(config)
    config.penalty.num_draws = 11
    if penalty not in DRAW_CLASSES:
        validate_config(config)
        return
    with pytest.raises(UserError, match=f"num_draws=11: {penalty} draws different classes, and there are 10"):
        validate_config(config)
    config.data.tiles = 2
    validate_config(config)


def test_all_problems_are_listed_at_once():
    config = default_config()
    config.penalty.lam, config.model.name = -1.0, "Z"
    with pytest.raises(UserError, match=r"(?s)config\.model\.name.*config\.penalty\.lam"):
        validate_config(config)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("model.activation", "gelu"),
        ("penalty.name", "jacobian_l1_sampled_classes"),
        ("adversarial.method", "pgd"),
        ("adversarial.method", "trades"),
    ],
)
def test_asking_for_a_closed_form_where_there_is_none_is_refused(field, value, tmp_path):
    config = default_config()
    config.data.name, config.penalty.gradient, config.adversarial.epsilon = "mnist_5k", "closed_form", 0.1
    config.update_from_flattened_dict({field: value})
    with pytest.raises(UserError, match=f"closed_form: there is none with config.{field}={value}; take auto"):
        train_and_evaluate(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
