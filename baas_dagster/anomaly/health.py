"""Battery health, power, SoC bias, counters and gated months: codes that are judged from the marts.

Belongs here: readings from monthly marts, compared with the car's own start, with its pack type's released baseline, or
with the outside values of DOMAIN where the fleet is too small for one. Does not belong here: how the marts are made.

A month is one window. What is an estimate crosses a line only where its interval does, or the code says it is the
estimate alone (SOH_LOW at severity 1).
"""

from __future__ import annotations

import calendar
import json
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
from scipy.special import stdtrit

from baas_dagster.anomaly.detector import Context, Detector, readings_frame
from baas_dagster.anomaly.rules import HealthRules

__all__ = ["DETECTOR", "power_reference"]

_Row = dict[str, Any]


def _span(month: str) -> tuple[datetime, datetime]:
    """First and last second of a month."""
    year, number = int(month[:4]), int(month[5:])
    first = datetime(year, number, 1)
    return first, first + timedelta(days=calendar.monthrange(year, number)[1]) - timedelta(seconds=1)


def _mart(context: Context, name: str) -> list[_Row]:
    frame = context.marts.get(name)
    return [] if frame is None or frame.is_empty() else frame.sort("measured_month").to_dicts()


def _reading(code: str, month: str, value: float, lines: tuple[float | None, ...], **more: Any) -> _Row:
    first, last = _span(month)
    detail = more.pop("detail", None)
    return {
        "code": code, "from_at": first, "to_at": last, "value": value, "watch": lines[0], "warn": lines[1],
        "alarm": lines[2], "detail": json.dumps(detail, sort_keys=True) if detail else None, **more,
    }  # fmt: skip


def _soh_low(months: list[_Row], rules: HealthRules) -> Iterator[_Row]:
    """The estimate below the contract's line is watched; its whole interval below it is a warning (DOMAIN 7)."""
    for row in months:
        value, high = row.get("soh_pct"), row.get("soh_hi_pct")
        if value is None or high is None:
            continue
        is_sure = high < rules.soh_line_pct
        # one line for both: what is sure stands beyond the warn line, what is not only beyond the watch line
        lines = (rules.soh_line_pct, rules.soh_line_pct if is_sure else None, None)
        detail = {
            "soh_lo_pct": row.get("soh_lo_pct"), "soh_hi_pct": high, "method": row.get("method"), "n": row.get("n"),
            "second_line_pct": rules.soh_second_line_pct, "is_below_second_line": value < rules.soh_second_line_pct,
        }  # fmt: skip
        yield _reading("SOH_LOW", row["measured_month"], value, lines, is_low_bad=True, n=row.get("n"), detail=detail)


def _soh_fade(months: list[_Row], context: Context, rules: HealthRules) -> Iterator[_Row]:
    """The car's own slope (no prior in it) worse than the type's 90th percentile, interval off the type's median.

    90 % of the interval off it is watched, 99 % is a warning: every month of every car is looked at. The slope's error
    is known from its months alone, so 99 % is by Student's t, which a few months widen much more than 90 %.
    """
    said = (context.baseline or {}).get("slope_pct_per_year")
    median, worst = (
        (said["p50"], said["p10"]) if said else (rules.slope_typical_pct_per_year, rules.slope_p90_pct_per_year)
    )
    known: list[_Row] = []
    for row in months:
        known = [*(r for r in known if r.get("pack_epoch") == row.get("pack_epoch")), row]
        slope, low, high = (row.get(f"slope_data_{k}pct_per_year") for k in ("", "lo_", "hi_"))
        if slope is None or low is None or high is None:
            continue
        # fade is a loss: positive is bad; it counts where the interval excludes the median, and tells something
        sd = (high - low) / 2 / rules.z90
        fade, is_sure = -slope, high < median and (high - low) / 2 <= rules.slope_half_width_max
        freedom = max(min(len(known), rules.slope_months) - 2, 1)
        wider = float(stdtrit(freedom, 0.995) / stdtrit(freedom, 0.95))
        is_surer = slope + wider * (high - low) / 2 < median
        lines: tuple[float | None, ...] = (-worst, -worst if is_surer else None, None)
        detail = {
            "slope_lo_pct_per_year": low, "slope_hi_pct_per_year": high, "type_median_pct_per_year": median,
            "type_p90_pct_per_year": worst, "baseline": context.baseline_version or "outside values (DOMAIN 6)",
        }  # fmt: skip
        value = fade if is_sure else min(fade, rules.unsure_share * -worst)
        yield _reading("SOH_FADE", row["measured_month"], value, lines, sd=sd, detail=detail)


def power_reference(rows: list[_Row], min_n: int) -> dict[tuple[float, float], list[_Row]]:
    """(temperature band, SoC band) -> its months with a resistance, of one device, in time."""
    found: dict[tuple[float, float], list[_Row]] = {}
    for row in rows:
        temperature, soc = row.get("temperature_from_c"), row.get("soc_from_pct")
        if temperature is None or soc is None or row.get("resistance_mohm") is None:
            continue
        if (row.get("n") or 0) >= min_n:
            found.setdefault((temperature, soc), []).append(row)
    return found


def _power_fade(rows: list[_Row], context: Context, rules: HealthRules) -> Iterator[_Row]:
    """Resistance against the type's at the same temperature and SoC, or against the car's own start.

    The ratio of a month is the weighted median over its bands, so that a band with few steps decides nothing.
    """
    said: Mapping[str, Any] = (context.baseline or {}).get("resistance_mohm", {})
    bands = power_reference(rows, rules.power_min_n)
    by_month: dict[str, list[tuple[float, float, str]]] = {}
    for band, months in bands.items():
        own = months[: rules.own_start_months]
        start = float(np.median([r["resistance_mohm"] for r in own])) if len(months) > len(own) else None
        typical = said.get(f"{band[0]:g}/{band[1]:g}", {}).get("p50")
        for i, row in enumerate(months):
            ratios = [(row["resistance_mohm"] / typical, "type")] if typical else []
            if start and i >= len(own):
                ratios.append((row["resistance_mohm"] / start, "its own start"))
            if ratios:
                ratio, against = max(ratios)
                by_month.setdefault(row["measured_month"], []).append((ratio, float(row["n"]), against))
    for month in sorted(by_month):
        found = sorted(by_month[month])
        weight = np.cumsum([n for _, n, _ in found])
        ratio, _, against = found[int(np.searchsorted(weight, weight[-1] / 2))]
        yield _reading(
            "POWER_FADE", month, ratio, (rules.power_watch, rules.power_warn, None), n=len(found),
            detail={"against": against, "bands": len(found), "steps": int(weight[-1]),
                    "baseline": context.baseline_version or "none: against its own start only"},
        )  # fmt: skip


def _power_limit(rows: list[_Row], context: Context, rules: HealthRules) -> Iterator[_Row]:
    """Discharge power that the BMS allows, against the type's at the same temperature and SoC; told as 1 / share."""
    said: Mapping[str, Any] = (context.baseline or {}).get("acceptable_discharge_p90_kw", {})
    by_month: dict[str, list[float]] = {}
    for row in rows:
        typical = said.get(f"{row['temperature_from_c'] or 0:g}/{row['soc_from_pct'] or 0:g}", {}).get("p50")
        allowed, in_band = row.get("acceptable_discharge_p90_kw"), row.get("temperature_from_c") is not None
        if typical and allowed and in_band and row.get("soc_from_pct") is not None:
            by_month.setdefault(row["measured_month"], []).append(typical / allowed)
    for month in sorted(by_month):
        ratio = float(np.median(by_month[month]))
        detail = {"against": "type", "figure": "acceptable discharge power", "bands": len(by_month[month])}
        yield _reading("POWER_FADE", month, ratio, (None, 1 / rules.power_limit_share, None), detail=detail)


def _worse(readings: list[_Row]) -> list[_Row]:
    """Of the two figures of a month the worse: a good one must not close what the other one shows."""
    by_month: dict[datetime, _Row] = {}
    for reading in readings:
        known = by_month.get(reading["from_at"])
        if known is None or reading["value"] / reading["warn"] > known["value"] / known["warn"]:
            by_month[reading["from_at"]] = reading
    return [by_month[month] for month in sorted(by_month)]


def _soc_bias(months: list[_Row], rules: HealthRules) -> Iterator[_Row]:
    """BMS SoC after rest off the rest-voltage SoC by more than 5 points, interval clear of 3 (DOMAIN 7)."""
    for row in months:
        bias, low, high = (row.get(f"soc_bias_{k}pct") for k in ("", "lo_", "hi_"))
        if bias is None or low is None or high is None:
            continue
        nearest = 0.0 if low <= 0 <= high else min(abs(low), abs(high))
        is_sure = nearest > rules.soc_bias_excludes_pct
        line = rules.soc_bias_pct
        # every month of every car is looked at: a next visit is asked for where 99 % lie beyond as well
        sd = (high - low) / 2 / rules.z90
        is_surer = abs(bias) - rules.z99 * sd > rules.soc_bias_excludes_pct
        value = abs(bias) if is_sure else min(abs(bias), rules.unsure_share * line)
        detail = {"soc_bias_pct": bias, "soc_bias_lo_pct": low, "soc_bias_hi_pct": high}
        yield _reading(
            "SOC_BIAS", row["measured_month"], value, (line, line if is_surer else None, None), sd=sd, detail=detail
        )


def _counters(rows: list[_Row], rules: HealthRules) -> Iterator[_Row]:
    """The audit's verdict; its reason names what does not balance."""
    for row in rows:
        verdict = row.get("verdict")
        if verdict in (None, "insufficient"):
            continue
        ratio, line = row.get("charge_balance_ratio"), rules.drift_line_pct
        detail = {k: row.get(k) for k in ("reason", "charge_balance_ratio", "current_offset_a", "op_time_ratio", "n")}
        off_pct = 100 * abs(ratio - 1) if ratio is not None else line
        month = row["measured_month"]
        # a drift without a balance (operating time, implied voltage) still stands at its line
        drift = max(off_pct, line) if verdict == "drift" else 0.0
        yield _reading("COUNTER_DRIFT", month, drift, (line, None, None), detail=detail if drift else None)
        reset = 1.0 if verdict == "reset" else 0.0
        reading = _reading("COUNTER_RESET", month, reset, (1.0, None, None), detail=detail if reset else None)
        # a reset is an event: it is known when it is seen, not when its month ends
        yield reading | (
            {"from_at": row["reset_at"], "to_at": row["reset_at"]} if reset and row.get("reset_at") else {}
        )


def _gated(context: Context) -> Iterator[_Row]:
    gates: dict[str, list[str]] = {}
    for row in _mart(context, "partition_gate"):
        gates.setdefault(row["measured_month"], []).append(row["check_name"])
    for month in context.months:
        checks = gates.get(month, [])
        yield _reading(
            "PARTITION_GATED", month, float(bool(checks)), (1.0, None, None),
            detail={"checks": sorted(checks)} if checks else None,
        )  # fmt: skip


def _readings(_windows: pl.DataFrame, context: Context) -> pl.DataFrame:
    rules: HealthRules = context.rules.health
    months = _mart(context, "fct_soh_monthly")
    power = _mart(context, "fct_power_monthly")
    audit = _mart(context, "fct_counter_audit_monthly")
    found = readings_frame(
        [
            *_soh_low(months, rules),
            *_soh_fade(months, context, rules),
            *_worse([*_power_fade(power, context, rules), *_power_limit(power, context, rules)]),
            *_soc_bias(months, rules),
            *_counters(audit, rules),
            *_gated(context),
        ]
    )
    # the running month is not over yet
    return found.with_columns(pl.min_horizontal("to_at", pl.lit(context.last_seen_at, pl.Datetime("us"))))


def _unjudged(_windows: pl.DataFrame, context: Context) -> dict[str, str]:
    months = _mart(context, "fct_soh_monthly")
    power = _mart(context, "fct_power_monthly")
    audit = _mart(context, "fct_counter_audit_monthly")
    found = {}
    if not any(r.get("soh_pct") is not None for r in months):
        found["SOH_LOW"] = "state of health not identifiable"
    if not any(r.get("slope_data_pct_per_year") is not None for r in months):
        found["SOH_FADE"] = "no slope from the car's own data yet"
    if not any(r.get("soc_bias_pct") is not None for r in months):
        found["SOC_BIAS"] = "too few rest voltages whose SoC is identifiable"
    if not power_reference(power, context.rules.health.power_min_n):
        found["POWER_FADE"] = "no resistance: rows too far apart, or no current steps"
    if not any(r.get("verdict") not in (None, "insufficient") for r in audit):
        found["COUNTER_DRIFT"] = "counters missing, or too little data to audit them"
    return found


DETECTOR = Detector(
    name="health",
    codes=(
        "SOH_LOW", "SOH_FADE", "POWER_FADE", "SOC_BIAS", "COUNTER_DRIFT", "COUNTER_RESET", "PARTITION_GATED",
    ),
    columns=(),
    windows=None,
    readings=_readings,
    unjudged=_unjudged,
)  # fmt: skip
