"""A car's log built in code, and the pieces that the local models make of it.

`pieces` follows the rules of ``int_odometer_run`` and ``int_mileage_day`` row by row, in plain Python: the SQL has unit
tests of its own beside the models.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, fields, replace
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl

from baas_dagster.mileage import OdometerRules
from baas_dagster.settings import sql_vars

DEVICE = "01290001001"
RULES = OdometerRules(**{f.name: sql_vars()[f.name] for f in fields(OdometerRules)})

RUN_SCHEMA: dict[str, Any] = {
    "run_kind": pl.String,
    "run_no": pl.Int64,
    "service_date": pl.Date,
    "start_reason": pl.String,
    "from_at": pl.Datetime("us"),
    "to_at": pl.Datetime("us"),
    "from_km": pl.Float64,
    "to_km": pl.Float64,
    "row_count": pl.Int64,
    "resolution_km": pl.Float64,
    "change_count": pl.Int64,
    "first_change_at": pl.Datetime("us"),
    "last_change_at": pl.Datetime("us"),
    "speed_km": pl.Float64,
    "before_speed_km": pl.Float64,
    "before_silent_s": pl.Float64,
    "head_speed_km": pl.Float64,
    "tail_speed_km": pl.Float64,
    "after_speed_km": pl.Float64,
    "after_silent_s": pl.Float64,
    "charged_total_from_ah": pl.Float64,
    "charged_total_to_ah": pl.Float64,
    "cell_slot_count": pl.Int32,
    "device_no": pl.String,
    "measured_month": pl.String,
}
DAY_SCHEMA: dict[str, Any] = {
    "service_date": pl.Date,
    "first_at": pl.Datetime("us"),
    "last_at": pl.Datetime("us"),
    "message_count": pl.Int64,
    "speed_count": pl.Int64,
    "speed_km": pl.Float64,
    "paired_speed_km": pl.Float64,
    "paired_gps_speed_km": pl.Float64,
    "gps_speed_km": pl.Float64,
    "fix_interval_median_s": pl.Float64,
    "silent_s": pl.Float64,
    "first_speed_kmh": pl.Float64,
    "last_speed_kmh": pl.Float64,
    "device_no": pl.String,
    "measured_month": pl.String,
}
GPS_SCHEMA: dict[str, Any] = {
    "run_no": pl.Int64,
    "from_at": pl.Datetime("us"),
    "to_at": pl.Datetime("us"),
    "is_after_jump": pl.Boolean,
    "from_lat": pl.Float64,
    "from_lng": pl.Float64,
    "to_lat": pl.Float64,
    "to_lng": pl.Float64,
    "km": pl.Float64,
    "device_no": pl.String,
    "measured_month": pl.String,
}


@dataclass(frozen=True)
class Log:
    """Messages of a car: time, true kilometres, odometer (0: zero, NaN: none), speed (NaN: none), counter, cells."""

    at: list[datetime]
    true_km: np.ndarray
    shown_km: np.ndarray
    speed_kmh: np.ndarray
    counter_ah: np.ndarray
    cells: np.ndarray
    resolution_km: float = 0.1

    def __len__(self) -> int:
        return len(self.at)

    def showing(self, shown_km: np.ndarray) -> Log:
        """The same car with another odometer, cut to its resolution."""
        return replace(self, shown_km=np.floor(shown_km / self.resolution_km + 1e-6) * self.resolution_km)

    def without(self, rows: slice) -> Log:
        """The log without these rows."""
        keep = np.ones(len(self), dtype=bool)
        keep[rows] = False
        return replace(
            self,
            at=[t for t, k in zip(self.at, keep, strict=True) if k],
            **{name: getattr(self, name)[keep] for name in ("true_km", "shown_km", "speed_kmh", "counter_ah", "cells")},
        )

    @property
    def driven_km(self) -> float:
        """Kilometres between the first and the last message."""
        return float(self.true_km[-1] - self.true_km[0])

    def row_at(self, at: datetime) -> int:
        """The first row at or after a time."""
        return next(row for row, t in enumerate(self.at) if t >= at)


def drive(
    trips: Collection[tuple[datetime, float]],
    *,
    dt_s: float = 20.0,
    kmh: float = 54.0,
    start_km: float = 5_000.0,
    resolution_km: float = 0.1,
    idle_min: float = 3.0,
) -> Log:
    """A log of trips (start, minutes of driving) at a speed that swings by a third; the car stands at either end."""
    at: list[datetime] = []
    speeds: list[float] = []
    km: list[float] = []
    total = start_km
    for start, minutes in sorted(trips):
        moving, standing = int(minutes * 60 / dt_s), int(idle_min * 60 / dt_s)
        phase = np.linspace(0, 4 * np.pi, moving)
        swing = (
            kmh * (1 + np.sin(phase) / 3) * np.minimum(1, np.minimum(np.arange(moving), np.arange(moving)[::-1]) / 3)
        )
        speed = np.concatenate([np.zeros(standing), swing, np.zeros(standing)])
        way = np.concatenate([[0.0], np.cumsum((speed[1:] + speed[:-1]) / 2 * dt_s / 3600)])
        at += [start + timedelta(seconds=dt_s * i) for i in range(len(speed))]
        speeds += speed.tolist()
        km += (total + way).tolist()
        total += float(way[-1])
    true = np.array(km)
    n = len(at)
    log = Log(at, true, true, np.array(speeds), np.linspace(900, 950, n), np.full(n, 90), resolution_km)
    return log.showing(true)


def commute(first: datetime, days: int, minutes: float = 40.0, **options: Any) -> Log:
    """Two trips a day, at 08:00 and 18:00 of the days from `first`."""
    starts = [first.replace(hour=hour) + timedelta(days=day) for day in range(days) for hour in (8, 18)]
    return drive([(start, minutes) for start in starts], **options)


def pieces(log: Log, cuts: Collection[int] = ()) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """Runs, days and (no) GPS runs of a log. `cuts` are rows where a run is cut although nothing is wrong."""
    runs: list[dict[str, Any]] = []
    days: list[dict[str, Any]] = []
    months: dict[str, list[int]] = {}
    for row, at in enumerate(log.at):
        months.setdefault(f"{at:%Y-%m}", []).append(row)
    for month, rows in months.items():
        runs += _month_runs(log, rows, month, set(cuts))
        days += _month_days(log, rows, month)
    return (
        pl.DataFrame(runs, schema=RUN_SCHEMA, orient="row"),
        pl.DataFrame(days, schema=DAY_SCHEMA, orient="row"),
        pl.DataFrame(schema=GPS_SCHEMA),
    )


def _pair(log: Log, before: int, row: int) -> tuple[float, float]:
    """Kilometres by speed and silent seconds of a pair of messages."""
    seconds = (log.at[row] - log.at[before]).total_seconds()
    if seconds > RULES.logging_gap_s:
        return 0.0, seconds
    km = (log.speed_kmh[before] + log.speed_kmh[row]) / 2 * seconds / 3600
    return (0.0 if np.isnan(km) else float(km)), 0.0


def _month_runs(log: Log, rows: list[int], month: str, cuts: set[int]) -> list[dict[str, Any]]:
    common = {"device_no": DEVICE, "measured_month": month}
    found: list[dict[str, Any]] = []
    zeros: list[int] = []
    run: dict[str, Any] | None = None
    last: int | None = None  # row of the last reading
    seen = silent = 0.0  # since the last reading
    silences = 0

    def close_zeros(touches: str) -> None:
        if zeros:
            a, b = zeros[0], zeros[-1]
            number = sum(r["run_kind"] == "zero" for r in found)
            found.append(
                {
                    **common,
                    "run_kind": "zero",
                    "run_no": number,
                    "service_date": log.at[a].date(),
                    "from_at": log.at[a],
                    "to_at": log.at[b],
                    "row_count": len(zeros),
                    "start_reason": touches or None,
                }
            )
            zeros.clear()

    for position, row in enumerate(rows):
        if position:
            km, gap = _pair(log, rows[position - 1], row)
            seen, silent = seen + km, silent + gap
            if gap:
                silences += 1
                found.append(
                    {
                        **common,
                        "run_kind": "silence",
                        "run_no": silences,
                        "service_date": log.at[rows[position - 1]].date(),
                        "from_at": log.at[rows[position - 1]],
                        "to_at": log.at[row],
                        "row_count": 0,
                        "start_reason": "gap",
                    }
                )
        shown = float(log.shown_km[row])
        if np.isnan(shown) or shown == 0:
            if shown == 0:
                zeros.append(row)
            continue
        close_zeros("start" if last is None else "")
        reason = None
        if last is None:
            reason = "start"
        else:
            step = shown - float(log.shown_km[last])
            seconds = (log.at[row] - log.at[last]).total_seconds()
            undriven = max(RULES.witness_gain * seen, seen + RULES.witness_slack_kmh * seconds / 3600)
            if step < 0:
                reason = "fall"
            elif step > RULES.odometer_max_kmh * seconds / 3600 + RULES.odometer_slack_km:
                reason = "jump"
            elif silent:
                reason = "gap"
            elif not np.isnan(log.speed_kmh[row]) and step > undriven + 1.05 * log.resolution_km:
                reason = "undriven"
            elif log.at[row].date() != log.at[last].date():
                reason = "midnight"
            elif step > 0 and run is not None and run["tail_speed_km"] > RULES.odometer_frozen_km:
                reason = "thaw"
            elif row in cuts:
                reason = "cut"
        if reason is not None or run is None:
            run = {
                **common,
                "run_kind": "reading",
                "run_no": sum(r["run_kind"] == "reading" for r in found) + 1,
                "service_date": log.at[row].date(),
                "start_reason": reason,
                "from_at": log.at[row],
                "from_km": shown,
                "row_count": 0,
                "resolution_km": log.resolution_km,
                "change_count": 0,
                "first_change_at": None,
                "last_change_at": log.at[row],
                "speed_km": 0.0,
                "before_speed_km": seen,
                "before_silent_s": silent,
                "head_speed_km": 0.0,
                "tail_speed_km": 0.0,
                "after_speed_km": 0.0,
                "after_silent_s": 0.0,
                "charged_total_from_ah": float(log.counter_ah[row]),
                "cell_slot_count": int(log.cells[row]),
            }
            found.append(run)
        else:
            run["speed_km"] += seen
            if shown > run["to_km"]:
                run["change_count"] += 1
                run["first_change_at"] = run["first_change_at"] or log.at[row]
                run["last_change_at"], run["tail_speed_km"] = log.at[row], 0.0
            else:
                run["tail_speed_km"] += seen
                if not run["change_count"]:
                    run["head_speed_km"] += seen
        run |= {"to_at": log.at[row], "to_km": shown, "charged_total_to_ah": float(log.counter_ah[row])}
        run["row_count"] += 1
        last, seen, silent = row, 0.0, 0.0
    close_zeros("start_end" if last is None else "end")
    if run is not None:
        run |= {"after_speed_km": seen, "after_silent_s": silent}
    return found


def _month_days(log: Log, rows: list[int], month: str) -> list[dict[str, Any]]:
    by_day: dict[Any, list[int]] = {}
    for row in rows:
        by_day.setdefault(log.at[row].date(), []).append(row)
    found = []
    for day, its_rows in by_day.items():
        pairs = [_pair(log, a, b) for a, b in pairwise(its_rows)]
        speeds = [float(log.speed_kmh[row]) for row in its_rows if not np.isnan(log.speed_kmh[row])]
        found.append(
            {
                "service_date": day,
                "first_at": log.at[its_rows[0]],
                "last_at": log.at[its_rows[-1]],
                "message_count": len(its_rows),
                "speed_count": len(speeds),
                "speed_km": sum(km for km, _ in pairs),
                "paired_speed_km": 0.0,
                "paired_gps_speed_km": 0.0,
                "gps_speed_km": 0.0,
                "silent_s": sum(gap for _, gap in pairs),
                "first_speed_kmh": speeds[0] if speeds else None,
                "last_speed_kmh": speeds[-1] if speeds else None,
                "device_no": DEVICE,
                "measured_month": month,
            }
        )
    return found
