"""Certified points that were broken."""

import numpy as np

from jl1.audit.certificate_check import certificate_check


def verdicts(*standing):
    return np.array(standing, bool)


STANDING = {("clean", 0.0): verdicts(1, 1, 1), ("fgsm", 0.1): verdicts(1, 1, 0), ("standard", 0.2): verdicts(0, 0, 0)}


def test_certified_points_that_stand_pass():
    check = certificate_check(
        STANDING, {("certified", 0.1): verdicts(1, 0, 0), ("certified", 0.2): verdicts(0, 0, 0)}, 0.1
    )
    assert check.outcome == "PASS"
    assert check.figure == "certified 33.3% at 0.1, 0.0% at 0.2; 0 certified points were broken"


def test_a_broken_certified_point_fails_at_any_radius():
    for certified in ({("certified", 0.1): verdicts(1, 0, 1)}, {("certified", 0.2): verdicts(1, 0, 0)}):
        check = certificate_check(STANDING, {("certified", 0.1): verdicts(0, 0, 0)} | certified, 0.1)
        assert check.outcome == "FAIL"
        assert check.values["broken"] == 1
