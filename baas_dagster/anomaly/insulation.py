"""Insulation resistance in Ohm per volt, with readings at the car's own cap taken as "at least".

Belongs here: INSULATION_LOW. Does not belong here: an insulation that reads 0 for an hour (``sensors``).
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

__all__ = ["DETECTOR", "since_wake_s"]


def since_wake_s(rows: Rows, gap_s: float) -> Any:
    """(n,) seconds since the car woke: since the last row after a gap."""
    starts = np.maximum.accumulate(np.where(rows.gap_s > gap_s, np.arange(len(rows)), 0))
    return rows.t_s - rows.t_s[starts]


def _windows(rows: Rows, car: Car, rules: Any) -> pl.DataFrame:
    """Per day: the lowest resistance that lasted, whether it stands at the cap, and the share of rows at the cap."""
    mine: InsulationRules = rules.insulation
    kohm, volts = rows["insulation_kohm"].copy(), rows["pack_voltage_v"]
    # 0 in the first rows after waking: not measured yet (DOMAIN 3); later a 0 is a reading
    kohm[(kohm == 0) & (since_wake_s(rows, mine.gap_s) <= mine.wake_s)] = np.nan
    # the voltage may be missing in a row: the pack's own level of the day does
    usual = np.nanmedian(volts) if np.isfinite(volts).any() else np.nan
    level = np.where(volts > mine.min_voltage_v, volts, usual)
    with np.errstate(invalid="ignore", divide="ignore"):
        ohm_per_v = np.where(level > mine.min_voltage_v, 1000 * kohm / level, np.nan)
    low = -held(-ohm_per_v, rows, hold_s=0, min_rows=mine.held_rows, gap_s=mine.gap_s)
    by_time = -held(-ohm_per_v, rows, hold_s=mine.held_s, min_rows=2, gap_s=mine.gap_s)
    low = np.fmin(low, by_time)
    capped = kohm >= (car.insulation_cap_kohm if car.insulation_cap_kohm is not None else np.inf)
    found = []
    for _, at in days_of(rows):
        there = at[np.isfinite(low[at])]
        if not len(there):
            continue
        best = there[np.argmin(low[there])]
        read = at[np.isfinite(kohm[at])]
        found.append(
            {
                "detector": DETECTOR.name,
                "kind": "day",
                "from_at": moment(rows.t_s[at[0]]),
                "to_at": moment(rows.t_s[at[-1]]),
                "n": len(read),
                "value": float(low[best]),
                "detail": json.dumps(
                    {
                        "kohm": float(kohm[best]) if np.isfinite(kohm[best]) else None,
                        "at": str(moment(rows.t_s[best])),
                        "capped_share": round(float(capped[read].mean()), 3),
                        "zero_share": round(float((kohm[read] == 0).mean()), 3),
                    },
                    sort_keys=True,
                ),
            }
        )
    return windows_frame(found)


def _never_measured(windows: pl.DataFrame) -> bool:
    return not windows.is_empty() and all(json.loads(d)["zero_share"] >= 1 for d in windows["detail"].to_list())


def _readings(windows: pl.DataFrame, context: Context) -> pl.DataFrame:
    rules: InsulationRules = context.rules.insulation
    if _never_measured(windows) or windows.is_empty():
        return readings_frame([])
    found = [
        {
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
        for row in windows.to_dicts()
    ]
    return readings_frame(found)


def _unjudged(windows: pl.DataFrame, context: Context) -> dict[str, str]:
    if windows.is_empty():
        return {"INSULATION_LOW": "no insulation resistance delivered"}
    if _never_measured(windows):
        return {"INSULATION_LOW": "insulation reads 0 throughout: not supported by this car, or broken since ever"}
    return {}


DETECTOR = Detector(
    name="insulation",
    codes=("INSULATION_LOW",),
    columns=("insulation_kohm", "pack_voltage_v"),
    windows=_windows,
    readings=_readings,
    unjudged=_unjudged,
)
