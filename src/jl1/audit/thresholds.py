"""The bounds that the audit judges by, each with its source.

References:
    [1] Carlini et al. 2019, "On evaluating adversarial robustness", arXiv:1902.06705.
    [2] Athalye, Carlini, Wagner 2018, "Obfuscated gradients give a false sense of security", arXiv:1802.00420.
    [3] Croce, Hein 2020, "Reliable evaluation of adversarial robustness ...", arXiv:2003.01690, and the flags of its
        code (AutoAttack), which warn of any point without a gradient.
    [4] Andriushchenko, Flammarion 2020, "Understanding and improving fast adversarial training", arXiv:2007.02617.
    [5] Zimmermann, Brendel, Tramer, Carlini 2022, "Increasing confidence in adversarial robustness evaluations",
        arXiv:2206.13991.
    [6] Pintor et al. 2022, "Indicators of attack failure", arXiv:2106.09947.
"""

VANISHING = {"warn": 0.0, "fail": 0.05}
"""Share of points without a usable gradient: [3] warns of any; a twentieth is more than attacks differ by."""

UNMOVED = 0.5
"""Mean share of features that a sign step leaves: a look is due above a half (own choice)."""

ALIGNMENT = 0.2
"""Mean cosine of the gradients in the ball below which a single step says nothing: [4], where training by FGSM has
overfitted to it. A plain network comes below it too where the ball is large (0.06 on MNIST at 0.3, all points broken by
PGD), so it is a warning and no proof that gradients are masked."""

LATE_RISE = 0.05
"""A walk has not converged if the last tenth of its steps brings more of its rise than this, half of its part (own
choice, for the question of [1], Sec. 5.4, and [6])."""

STILL_RISING = {"warn": 0.05, "fail": 0.5}
"""Share of the points that stand whose walk has not converged (own choice)."""

LOST = {"warn": 0.01, "fail": 0.05}
"""Share of points whose adversarial example the last iterate has lost, [6]: what it adds to the accuracy."""

HIDDEN = {"warn": 0.01, "fail": 0.05}
"""Share of points that only a variant of the attack breaks. Another walk breaks some by luck: half a point between
restarts is usual, five are not ([3], table 2)."""

FOUND = 0.95
"""Share of the planted examples that an attack must find, [5]."""

EASY = 0.5
"""Where noise finds more of the planted examples than this, the unit test is too easy to say much."""

GAUGE_CHANGE = 1e-2
"""Relative change of a penalty, or of the centred logits, that the gauge must not change."""

GAP = 0.1
"""FGSM may leave so much more than the ensemble before it overstates the accuracy (own choice)."""

CONVERGED = 0.005
"""Of accuracy, that more steps and restarts may take: [1], Sec. 5.4, asks that they take next to none (own number)."""

WIDE = 0.06
"""Width of a 95 % interval from which on an accuracy is no more than a first look (own choice)."""

GUESSING = 0.1
"""A network that gets no more than this share of the way from chance to all points right does not
classify (own choice)."""

WITHSTOOD = 0.8
"""Share of the accuracy without attack that FGSM must leave before a network is called robust to single
steps (own choice)."""
