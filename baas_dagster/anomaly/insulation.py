"""Insulation resistance in Ohm per volt, with readings at the car's own cap taken as "at least".

Belongs here: INSULATION_LOW, and how long a 0 lasts. Does not belong here: what a lasting 0 means (``sensors``).
Limits after ISO 6469-3: 100 Ohm/V for direct, 500 Ohm/V for alternating current.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import polars as pl

from baas_dagster.anomaly.detector import Context, Detector, readings_frame, windows_frame
from baas_dagster.anomaly.rows import Car, Rows
from baas_dagster.anomaly.rules import InsulationRules
from baas_dagster.anomaly.windows import days_of, held, moment

__all__ = ["DETECTOR", "since_wake_s", "zero_days"]


def since_wake_s(rows: Rows, gap_s: float) -> Any:
    """(n,) seconds since the car woke: since the last row after a gap."""
    starts = np.maximum.accumulate(np.where(rows.gap_s > gap_s, np.arange(len(rows)), 0))
    return rows.t_s - rows.t_s[starts]


def zero_days(rows: Rows, rules: InsulationRules) -> list[dict[str, Any]]:
    """How long the insulation read 0 beyond waking, per day with readings, and whether it read anything else.

    ``longest_s``: longest time without another reading in between; ``lead_s`` and ``trail_s``: before the first and
    after the last other reading of the day, so that days can be joined. Silences count for nothing and end nothing.
    """
    kohm = rows["insulation_kohm"]
    known = np.isfinite(kohm)
    if not known.any():
        return []
    zero = known & (kohm == 0) & (since_wake_s(rows, rules.gap_s) > rules.wake_s)
    lasted = np.where(zero & np.append(False, (kohm == 0)[:-1]) & (rows.gap_s <= rules.gap_s), rows.gap_s, 0.0)
    found = []
    for _, at in days_of(rows):
        if not known[at].any():
            continue
        others = np.cumsum(kohm[at] > 0)
        runs = np.bincount(others, lasted[at])
        zeros = at[zero[at]]
        ends = (zeros[0], zeros[-1]) if len(zeros) else (at[0], at[-1])
        found.append(
            {
                "from_row": int(ends[0]),
                "to_row": int(ends[1]),
                "rows": len(zeros),
                "longest_s": float(runs.max()),
                "lead_s": float(runs[0]),
                "trail_s": float(runs[-1]),
                "reads_more": bool(others[-1]),
            }
        )
    return found


def _windows(rows: Rows, car: Car, rules: Any) -> pl.DataFrame:
    """Per day: the lowest resistance that lasted, whether it stands at the cap, and how long it read 0.

    A 0 is no resistance: just after waking it is not measured yet (DOMAIN 3), later it has a code of its own
    (``sensors``), and messages that read 0 in between do not hide a low resistance.
    """
    mine: InsulationRules = rules.insulation
    read = Rows(
        rows.t_s[(at := np.flatnonzero(rows["insulation_kohm"] > 0))],
        {name: rows[name][at] for name in ("insulation_kohm", "pack_voltage_v", "is_pack_voltage_suspect")},
    )
    kohm, volts = read["insulation_kohm"], read["pack_voltage_v"]
    fit = (volts > mine.min_voltage_v) & ~(read["is_pack_voltage_suspect"] > 0)
    # the voltage may be missing or wrong in a row: the pack's own level of the month does
    usual = float(np.median(volts[fit])) if fit.any() else np.nan
    ohm_per_v = 1000 * kohm / np.where(fit, volts, usual)
    low = -held(-ohm_per_v, read, hold_s=0, min_rows=mine.held_rows, gap_s=mine.gap_s)
    by_time = -held(-ohm_per_v, read, hold_s=mine.held_s, min_rows=2, gap_s=mine.gap_s)
    low = np.fmin(low, by_time)
    capped = kohm >= (car.insulation_cap_kohm if car.insulation_cap_kohm is not None else np.inf)
    zeros = {int(rows.day[day["from_row"]]): day for day in zero_days(rows, mine)}
    found = []
    for day, of_day in days_of(rows):
        if day not in zeros:
            continue
        mine_at = np.flatnonzero(read.day == day)
        detail: dict[str, Any] = {
            "zero_s": zeros[day]["longest_s"],
            "reads_only_zero": not zeros[day]["reads_more"],
        }
        there = mine_at[np.isfinite(low[mine_at])]
        value = None
        if len(there):
            best = there[np.argmin(low[there])]
            value = float(low[best])
            detail |= {
                "kohm": float(kohm[best]),
                "at": str(moment(read.t_s[best])),
                "is_capped": bool(capped[best]),
                "capped_share": round(float(capped[mine_at].mean()), 3),
            }
        found.append(
            {
                "detector": DETECTOR.name,
                "kind": "day",
                "from_at": moment(rows.t_s[of_day[0]]),
                "to_at": moment(rows.t_s[of_day[-1]]),
                "n": len(mine_at),
                "value": value,
                "detail": json.dumps(detail, sort_keys=True),
            }
        )
    return windows_frame(found)


# --- STITCHED ---------------------------------------------------------------------------------------------------------
def _readings(windows: pl.DataFrame, context: Context) -> pl.DataFrame:
    rules: InsulationRules = context.rules.insulation
    if _never_measured(windows):
        return readings_frame([])
    found = []
    for row in windows.to_dicts():
        detail = json.loads(row["detail"])
        reading = {
            "code": "INSULATION_LOW",
            "from_at": row["from_at"],
            "to_at": row["to_at"],
            "n": row["n"],
            "value": row["value"],
            "warn": rules.warn_ohm_per_v,
            "alarm": rules.alarm_ohm_per_v,
            "is_low_bad": True,
            "detail": row["detail"],
        }
        is_low = row["value"] is not None and row["value"] < rules.warn_ohm_per_v and not detail["is_capped"]
        if detail["zero_s"] >= rules.zero_watch_s and not is_low:
            # nobody can tell whether it was measured: watched, and no more
            found.append(reading | {"value": 0.0, "watch": rules.warn_ohm_per_v, "warn": None, "alarm": None})
        elif row["value"] is not None and (is_low or row["value"] >= rules.warn_ohm_per_v):
            found.append(reading)
        # else: "at least" a value below the line, which says nothing
    return readings_frame(found)


def _never_measured(windows: pl.DataFrame) -> bool:
    return all(json.loads(detail)["reads_only_zero"] for detail in windows["detail"].to_list())


def _unjudged(windows: pl.DataFrame, context: Context) -> dict[str, str]:
    if windows.is_empty():
        return {"INSULATION_LOW": "no insulation resistance delivered"}
    if _never_measured(windows):
        return {"INSULATION_LOW": "insulation reads 0 throughout: not supported by this car, or broken since ever"}
    if windows["value"].is_null().all():
        return {"INSULATION_LOW": "no insulation resistance that lasts, or no pack voltage"}
    if _readings(windows, context).is_empty():
        line = context.rules.insulation.warn_ohm_per_v
        return {
            "INSULATION_LOW": f"insulation stands at its end of scale, {context.car.insulation_cap_kohm:g} kOhm, which "
            f"is below {line:g} Ohm/V: that end, or a fault since ever"
        }
    return {}


DETECTOR = Detector(
    name="insulation",
    codes=("INSULATION_LOW",),
    columns=("insulation_kohm", "pack_voltage_v", "is_pack_voltage_suspect"),
    windows=_windows,
    readings=_readings,
    unjudged=_unjudged,
)
