"""docs/evaluate.md: its flags, attacks and strengths are those of the program."""

import re
from pathlib import Path

import pytest
from absl import flags

from jl1.attack_names import attack_name
from jl1.attacks.budgets import BUDGETS
from jl1.attacks.suite import ATTACKS, make_suite, settings_of
from jl1.commands.evaluate import _define_attacks

PAGE = (Path(__file__).parents[1] / "docs" / "evaluate.md").read_text()
HEADER, *STRENGTHS = re.findall(
    r"^\| `?(\w+)`? \| (.+) \| (.+) \| (.+) \|$", PAGE.partition("`--budget` also")[2], re.M
)


@pytest.mark.parametrize("budget", BUDGETS)
def test_the_page_gives_every_attack_its_strength(budget):
    column = HEADER.index(f"`{budget}`")
    for name, stages in make_suite(budget=budget).items():
        written = [row[column] for row in STRENGTHS if row[0] == name]
        strength = ", ".join(stages) if name == "standard" else attack_name({"attack": name} | settings_of(stages))
        assert written == ([] if name == "clean" else [strength])


def test_the_page_names_every_attack():
    assert [name for name in ATTACKS if f"\n| `{name}` | " not in PAGE.partition("## The attacks")[2]] == []


def test_the_page_gives_every_flag_its_default():
    values = flags.FlagValues()
    _define_attacks(values)
    documented = dict(re.findall(r"^\| `--(\w+)=\S+` \| (.+?) \|", PAGE, re.M))
    for name in values:
        default = values[name].default_as_str
        assert documented[name] == ("all" if default is None else f"`{default.strip(chr(39))}`")
