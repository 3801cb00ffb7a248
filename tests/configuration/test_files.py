"""Config files by name and path, and configs as stored JSON."""

import json
import re
from pathlib import Path

import jax
import pytest

from jl1.config import default_config
from jl1.configuration.checks import validate_config
from jl1.configuration.fields import field_names
from jl1.configuration.files import config_from_dict, config_to_dict, load_config, run_name
from jl1.configuration.folder import config_folder
from jl1.configuration.stored import differences
from jl1.errors import UserError

ALL_CONFIGS = [
    *(path.stem for path in sorted(config_folder().glob("*.py"))),
    "quickstart:plain",
    "many_classes:100",
    "robust:trades",
    "robust:fgsm_rs",
    *(f"{name}:{model}" for name in ("table2", "table3") for model in "ABC"),
    "train:A",
    "train:B",
    "train:C",
]


@pytest.mark.parametrize("name", ALL_CONFIGS)
def test_every_config_loads_is_locked_and_valid(name):
    config = load_config(name)
    validate_config(config)
    with pytest.raises(AttributeError, match="locked"):
        config.new_field = 1
    assert set(field_names(config)) == set(field_names(default_config()))


@pytest.mark.parametrize("path", sorted(config_folder().glob("*.py")), ids=lambda path: path.stem)
def test_every_config_says_what_of_the_paper_it_is_and_how_to_run_it(path):
    docstring = path.read_text().split('"""')[1]
    for heading in ("Paper:", "Command:", "Time:", "Expected:"):
        assert heading in docstring


def test_a_file_anywhere_is_loaded_with_its_argument(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "from jl1.config import default_config\n"
        "def get_config(arg='7'):\n"
        "    config = default_config()\n"
        "    config.seed = int(arg)\n"
        "    return config\n"
    )
    assert load_config(str(file)).seed == 7
    assert load_config(f"{file}:11").seed == 11
    with pytest.raises(UserError, match=r"mine\.py line 4 fails with ValueError: invalid literal.*'x'"):
        load_config(f"{file}:x")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("c.penalty.lamda = 3", "4: there is no field config.penalty.lamda; did you mean config.penalty.lam?"),
        ("c['penalty'].update({'lamda': 3})", "4: there is no field config.lamda; did you mean config.penalty.lam?"),
        ("c.penalti.lam = 3", "4: there is no field config.penalti; did you mean config.penalty.lam?"),
        ("c.penalty.lam = 'much'", "4: config.penalty.lam=much: must be of the type of its default, 50.0"),
        ("c.penalty.lam: int = no", "4 fails with NameError: name 'no' is not defined"),
        ("c.penalty.lam = (", "4 fails with SyntaxError: "),
        ("return {}", ": get_config() returns {}, which is no config: start from jl1.config.default_config()"),
    ],
)
@pytest.mark.parametrize("is_whole", [True, False])
def test_a_mistake_in_a_file_is_named_with_its_line(is_whole, body, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "mine.py" if is_whole else Path("mine.py")
    start = "from jl1.config import default_config\ndef get_config():\n    c = default_config()\n"
    file.write_text(f"{start}    {body}\n    return c\n")
    with pytest.raises(UserError) as refusal:
        load_config(str(file))
    place, _, _ = message.partition(":")
    assert f"{file}{' line ' * bool(place)}{message}" in str(refusal.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("config = 1", "has no get_config()"),
        ("from ml_collections import ConfigDict as get_config", "the config lacks config.adversarial.beta: start from"),
        (
            "def get_config():\n    from ml_collections import ConfigDict\n    return ConfigDict({'sed': 1})",
            "mine.py: there is no field config.sed; did you mean config.seed?",
        ),
    ],
)
def test_a_file_without_a_config_is_refused(text, message, tmp_path):
    (tmp_path / "mine.py").write_text(text)
    with pytest.raises(UserError) as refusal:
        load_config(f"{tmp_path / 'mine.py'}")
    assert message in str(refusal.value)


def test_unknown_names_and_arguments_are_explained():
    with pytest.raises(UserError, match=r"quickstart, readings, robust, table2.*; did you mean quickstart\?"):
        load_config("quickstrat")
    with pytest.raises(UserError, match="train:A, train:B or train:C"):
        load_config("train:D")
    with pytest.raises(UserError, match="robust:pgd, robust:trades or robust:fgsm_rs"):
        load_config("robust:fgsm")


def test_a_stored_config_comes_back_equal():
    config = load_config("quickstart")
    stored = json.loads(json.dumps(config_to_dict(config)))
    assert config_to_dict(config_from_dict(stored)) == stored
    assert config_from_dict(stored).evaluation.epsilons == (0.1, 0.2, 0.3)


def test_a_stored_config_of_an_older_version_gets_the_new_defaults():
    stored = config_to_dict(default_config())
    del stored["log"], stored["training"]["weights"]
    assert config_from_dict(stored).training.weights == "last"


def test_a_stored_config_with_a_field_of_another_type_is_refused():
    stored = config_to_dict(default_config())
    stored["penalty"]["lam"] = "much"
    with pytest.raises(UserError, match="does not fit this version"):
        config_from_dict(stored)


@pytest.mark.parametrize("place", ["config.novelty", "config.penalty.novelty"])
def test_a_stored_config_with_a_field_of_a_newer_version_is_refused(place):
    stored = config_to_dict(default_config())
    *_, group, field = place.split(".")
    (stored if group == "config" else stored[group])[field] = 1
    with pytest.raises(UserError, match=f"has {place}, which this version"):
        config_from_dict(stored)


def test_a_stored_config_with_a_number_for_a_group_is_refused():
    with pytest.raises(UserError, match="does not fit this version"):
        config_from_dict(config_to_dict(default_config()) | {"penalty": 5})


def test_run_names_are_readable_and_differ_wherever_the_config_does():
    base = load_config("quickstart")
    assert re.fullmatch(r"mnist_5k-C-jacobian_l1-logits-mean-lam[\d.]+-fgsm0\.1-seed0-[0-9a-f]{6}", run_name(base))
    other = load_config("quickstart")
    other.training.smoothing = 0.0
    assert run_name(base) != run_name(other)
    assert "plain" in run_name(load_config("quickstart:plain"))
    assert "mnist-C-plain-trades0.1-seed0" in run_name(load_config("robust:trades"))


def test_a_field_that_has_its_default_changes_no_name_and_neither_does_the_place_of_the_data():
    config = load_config("quickstart")
    name = run_name(config)
    assert name == "mnist_5k-C-jacobian_l1-logits-mean-lam50-fgsm0.1-seed0-4f882b"  # whatever fields come later
    config.evaluation.attacks, config.data.dir = (), "elsewhere"
    assert run_name(config) == name


def test_differences_name_the_field_and_both_values():
    one, other = config_to_dict(default_config()), config_to_dict(load_config("train:B"))
    assert differences(one, other) == ["config.model.name: 'C' -> 'B'"]
    assert differences(one, one) == []


def test_the_documents_name_every_field():
    documented = (Path(__file__).parents[2] / "docs" / "configs.md").read_text()
    missing = [name for name in field_names(default_config()) if f"`config.{name}`" not in documented]
    assert missing == []


def test_loading_configs_leaves_jax_as_it_was():
    assert not jax.config.jax_enable_x64
