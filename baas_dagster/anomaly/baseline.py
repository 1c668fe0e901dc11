"""Baselines: what a healthy car of a pack type looks like, learnt from the fleet.

Belongs here: figures of a type from the marts of its cars, robust against the few that are ill. Does not belong here:
which baseline is active (``released``), what is judged by it (``health``).

Each car counts once however much it drove; medians of cars, so that some may be ill without moving a line far. A type
with too few cars has no baseline: its cars are judged by the outside values of DOMAIN and by their own start.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from baas_dagster.anomaly.rules import RULES, HealthRules

__all__ = ["learn"]


def learn(power: pl.DataFrame, soh: pl.DataFrame, rules: HealthRules = RULES.health) -> dict[str, Any] | None:
    """Content of a baseline of one pack type; None where the fleet is too small to say anything.

    ``power``: rows of fct_power_monthly, ``soh``: rows of fct_soh_monthly, both of the cars of the type.
    """
    content: dict[str, Any] = {}
    for figure in ("resistance_mohm", "acceptable_discharge_p90_kw", "acceptable_charge_p90_kw"):
        found = _by_band(power, figure, rules)
        if found:
            content[figure] = found
    last = soh.filter(pl.col("slope_data_pct_per_year").is_not_null()).sort("device_no", "measured_month")
    slopes = last.group_by("device_no", maintain_order=True).last()["slope_data_pct_per_year"].to_numpy()
    if len(slopes) >= rules.baseline_min_slopes:
        content["slope_pct_per_year"] = {
            "p50": _rounded(np.median(slopes)), "p10": _rounded(np.quantile(slopes, 0.1)), "n": len(slopes),
        }  # fmt: skip
    return content or None


def _by_band(power: pl.DataFrame, figure: str, rules: HealthRules) -> dict[str, dict[str, Any]]:
    """ "temperature/SoC" of a band -> median over cars, its 90th percentile and the number of cars."""
    there = (
        pl.col(figure).is_not_null() & pl.col("temperature_from_c").is_not_null() & pl.col("soc_from_pct").is_not_null()
    )
    if figure == "resistance_mohm":
        there &= pl.col("n") >= rules.power_min_n
    cars = power.filter(there).group_by("temperature_from_c", "soc_from_pct", "device_no").agg(pl.col(figure).median())
    bands = (
        cars.group_by("temperature_from_c", "soc_from_pct")
        .agg(
            pl.col(figure).median().alias("p50"),
            pl.col(figure).quantile(0.9, "linear").alias("p90"),
            pl.len().alias("n"),
        )
        .filter(pl.col("n") >= rules.baseline_min_cars)
        .sort("temperature_from_c", "soc_from_pct")
    )
    return {
        f"{t:g}/{s:g}": {"p50": _rounded(p50), "p90": _rounded(p90), "n": n} for t, s, p50, p90, n in bands.iter_rows()
    }


def _rounded(value: Any) -> float:
    """Six digits: the name of a version must not hang on the last bit of a sum."""
    return float(f"{float(value):.6g}")
