"""Slope of capacity against time or cycles: from one car's data alone, and shrunk to what fleets do.

Belongs here: robust slopes of single estimates with an interval that holds when errors last for weeks. Does not belong
here: what an estimate is (``capacity``), the monthly table (``soh``).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import hypot

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from baas_dagster.battery.rules import RULES, BatteryRules

__all__ = ["Slope", "Trend", "combine", "shrink", "slope_of"]

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Slope:
    """A slope of one car's data: per unit of x, its standard error, and half the width of its 90 % interval."""

    value: float
    sd: float
    half_90: float
    n: int
    groups: int


@dataclass(frozen=True)
class Trend:
    """What is published: the shrunk slope, and how much of it is prior (1: nothing but prior)."""

    value: float
    lo: float
    hi: float
    prior_share: float


def slope_of(
    x: Floats, value: Floats, sd: Floats, group: NDArray[np.int64], rules: BatteryRules = RULES
) -> Slope | None:
    """Slope of ``value`` against ``x`` by weighted Huber regression; None where too few months or estimates.

    ``sd``: random error of each value, taken as no smaller than ``trend_sd_floor_share`` of their median. ``group``:
    month of each: errors within a month go together (one season, one habit), so the standard error is that of a
    cluster-robust sandwich (Liang and Zeger 1986) with Student's t on months - 2, and never below what the random
    errors alone give.
    """
    groups = np.unique(group)
    if len(value) < rules.trend_min_estimates or len(groups) < rules.trend_min_months:
        return None
    sd = np.maximum(sd, rules.trend_sd_floor_share * np.median(sd))
    order = np.lexsort((sd, value, x))
    x, value, sd, group = x[order], value[order], sd[order], group[order]
    centre = np.median(x)
    design = np.column_stack([np.ones(len(x)), x - centre])
    scatter = 1.0
    huber: Floats = np.ones(len(x))
    beta: Floats = np.zeros(2)
    for _ in range(30):
        weight = huber / sd**2
        gram = design.T @ (design * weight[:, None])
        if np.linalg.cond(gram) > 1e12:
            return None
        new = np.linalg.solve(gram, design.T @ (weight * value))
        z = (value - design @ new) / sd
        scatter = max(float(np.median(np.abs(z))) * 1.4826, 1.0)
        huber = np.asarray(np.minimum(1.0, rules.trend_huber * scatter / np.maximum(np.abs(z), 1e-9)), dtype=np.float64)
        done = bool(np.allclose(new, beta, rtol=1e-9, atol=1e-12))
        beta = np.asarray(new, dtype=np.float64)
        if done:
            break
    weight = huber / sd**2
    inverse = np.linalg.inv(design.T @ (design * weight[:, None]))
    score = design * (weight * (value - design @ beta))[:, None]
    summed = np.vstack([score[group == g].sum(axis=0) for g in groups])
    m = len(groups)
    sandwich = inverse @ (summed.T @ summed) @ inverse * (m / max(m - 2, 1))
    plain = inverse[1, 1] * scatter**2
    error = float(np.sqrt(max(sandwich[1, 1], plain)))
    return Slope(float(beta[1]), error, error * float(stdtrit(max(m - 2, 1), 0.95)), len(x), m)


def combine(ocv: Slope | None, charge: Slope | None, rules: BatteryRules = RULES) -> Slope | None:
    """One slope of a car from both methods, weighted by their total variance.

    A BMS whose capacity lags hides the fade or catches up with it, so the echo's slope carries ``echo_slope_sd``.
    """
    if charge is not None:
        sd = hypot(charge.sd, rules.echo_slope_sd)
        charge = Slope(
            charge.value, sd, hypot(charge.half_90, rules.z90 * rules.echo_slope_sd), charge.n, charge.groups
        )
    if ocv is None or charge is None:
        return ocv or charge
    a, b = 1 / ocv.half_90**2, 1 / charge.half_90**2
    value, half = (a * ocv.value + b * charge.value) / (a + b), (a + b) ** -0.5
    return Slope(value, half / rules.z90, half, ocv.n + charge.n, max(ocv.groups, charge.groups))


def shrink(data: Slope | None, rules: BatteryRules = RULES) -> Trend:
    """The slope led towards the fleet's prior, points a year; nothing but prior without data."""
    prior = 1 / rules.slope_prior_sd**2
    says = 0.0 if data is None else (rules.z90 / max(data.half_90, 1e-6)) ** 2
    value = (prior * rules.slope_prior_pct_per_year + says * (data.value if data else 0.0)) / (prior + says)
    half = rules.z90 * (prior + says) ** -0.5
    return Trend(value, value - half, value + half, prior / (prior + says))
