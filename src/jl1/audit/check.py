"""Figures of the audit as lines that pass or fail, each threshold with its source.

A failed check with `shows_masking` says that gradients are masked: attacks by gradient then prove nothing, whatever
accuracy they leave.

References:
    [1] Carlini et al. 2019, "On evaluating adversarial robustness", arXiv:1902.06705.
    [2] Athalye, Carlini, Wagner 2018, "Obfuscated gradients give a false sense of security", arXiv:1802.00420.
    [3] Croce, Hein 2020, "Reliable evaluation of adversarial robustness ...", arXiv:2003.01690.
    [4] Andriushchenko, Flammarion 2020, "Understanding and improving fast adversarial training", arXiv:2007.02617.
    [5] Zimmermann, Brendel, Tramer, Carlini 2022, "Increasing confidence in adversarial robustness evaluations",
        arXiv:2206.13991.
"""

from collections.abc import Mapping
from typing import Literal, NamedTuple

Outcome = Literal["PASS", "WARN", "FAIL", "SKIP"]

Topic = Literal["hygiene", "order", "gradients", "unit test", "defence"]


class Check(NamedTuple):
    """One line of an audit.

    Attributes:
        name: What was checked, in a few words.
        topic: The part of the audit that it belongs to.
        outcome: PASS; WARN where the figure needs a look; FAIL where the evaluation cannot be trusted; SKIP where it
            does not apply.
        figure: One line with its number and unit.
        advice: One sentence: what to do.
        shows_masking: Whether a failure means that gradients are masked, so that attacks by gradient say nothing.
        values: The numbers behind it, by name.
    """

    name: str
    topic: Topic
    outcome: Outcome
    figure: str
    advice: str
    shows_masking: bool
    values: Mapping[str, float]


def outcome_above(value: float, *, warn: float, fail: float) -> Outcome:
    """Judge a number that is to be small: a value above a bound meets it, NaN fails.

    Example:
        >>> [outcome_above(value, warn=0.01, fail=0.05) for value in (0.01, 0.02, 0.06, float("nan"))]
        ['PASS', 'WARN', 'FAIL', 'FAIL']
    """
    if value <= warn:
        return "PASS"
    return "WARN" if value <= fail else "FAIL"
