"""Certificates beside attacks: a point that is certified and broken is an error of one of the two."""

import numpy as np

from jl1.audit.check import Check, Outcome
from jl1.audit.order import Standing


def certificate_check(standing: Standing, certified: Standing, epsilon: float) -> Check:
    """Look for points that no attack can break and an attack has broken.

    Args:
        standing: Verdicts by attack and radius.
        certified: Which points are certified, by `("certified", radius)`, at radii of `standing`.
        epsilon: The radius that is asked about.

    Returns:
        FAIL if there is such a point, which would be an error of jl1; how much is certified is a figure.
    """
    broken = sum(
        int(np.sum(points & ~stands))
        for (_, radius), points in certified.items()
        for (_, attacked_at), stands in standing.items()
        if radius == attacked_at
    )
    outcome: Outcome = "FAIL" if broken else "PASS"
    shares = ", ".join(f"{points.mean():.1%} at {radius:g}" for (_, radius), points in sorted(certified.items()))
    figure = f"certified {shares}; {broken} certified points were broken"
    advice = "A certified point cannot be broken: report this as an error of jl1."
    values = {"broken": float(broken), "certified": float(certified["certified", epsilon].mean())}
    return Check("certificates hold", "defence", outcome, figure, advice, False, values)
