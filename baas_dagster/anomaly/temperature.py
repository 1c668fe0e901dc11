"""Module temperatures: spread, heat, rise, and sensors that stick or jump.

Belongs here: everything that module sensors say. Does not belong here: temperatures that no sensor can read
(``sensors``, FAULT_OR_SENSOR). Windows are KST days, values by sensor position; sensors that do not exist have none.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from baas_dagster.anomaly.detector import Context, Detector, readings_frame, windows_frame
from baas_dagster.anomaly.rows import NO_VALUE, Car, Rows
from baas_dagster.anomaly.rules import TemperatureRules
from baas_dagster.anomaly.windows import days_of, held, listed, mean_of, moment

__all__ = ["DETECTOR", "padding"]

F64 = NDArray[np.float64]
I16 = NDArray[np.int16]
_HIGH, _HOT_MEAN, _APART, _RISE, _RANGE = "high", "hot_mean", "apart", "rise", "range"
_STUCK, _JUMP = "stuck", "jump"


# --- LOCAL ------------------------------------------------------------------------------------------------------------
def _windows(rows: Rows, car: Car, rules: Any) -> pl.DataFrame:
    mine: TemperatureRules = rules.temperature
    if rows.module_temp_dc is None or not len(rows):
        return windows_frame([])
    there = rows.module_temp_dc != NO_VALUE
    temps = np.where(there, rows.module_temp_dc / 10.0, np.nan)
    exists = there.any(axis=0)
    if not exists.any():
        return windows_frame([])
    measures = exists & ~padding(rows.module_temp_dc, mine)
    middle = _others(temps[:, measures])
    apart = temps - middle[:, None] if measures.sum() >= mine.min_sensors else None
    found = [*_days(rows, temps, apart, measures, mine)]
    if apart is not None:
        found += [*_stuck(rows, temps, middle, mine), *_jumps(rows, temps, middle, mine)]
    return windows_frame(found)


def padding(module_temp_dc: I16, rules: TemperatureRules) -> NDArray[np.bool_]:
    """(sensors,) True for a position of the list that reads one value, but for a glitch, while others move.

    It must not be what others are compared with: most positions can be padding. Where little moves nobody can tell,
    and none is.
    """
    there = module_temp_dc != NO_VALUE
    # padding is nearly all one value, so that some rows tell which
    usual = np.median(module_temp_dc[:: max(1, len(module_temp_dc) // 1_000)], axis=0)
    off = ((module_temp_dc != usual) & there).sum(axis=0)
    high = np.where(there, module_temp_dc, np.int16(-32_000)).max(axis=0, initial=-32_000)
    low = np.where(there, module_temp_dc, np.int16(32_000)).min(axis=0, initial=32_000)
    moved = np.where(off < rules.sensor_moves_share * there.sum(axis=0), 0.0, (high.astype(np.float64) - low) / 10)
    return _stand_still(moved, high >= low, rules)


def _stand_still(moved: F64, known: NDArray[np.bool_], rules: TemperatureRules) -> NDArray[np.bool_]:
    """Sensors that do not move although at least two others do, and these by enough."""
    moving = known & (moved >= rules.sensor_exists_k)
    enough = moving.sum() >= 2 and float(np.median(moved[moving])) >= rules.others_move_k
    return known & ~moving & enough


def _others(temps: F64) -> F64:
    """Median of the sensors of each row; one sensor that is off moves it by no more than its neighbour's distance."""
    if np.isfinite(temps).all():
        return np.asarray(np.median(temps, axis=1))
    filled = np.full(len(temps), np.nan)
    some = np.isfinite(temps).any(axis=1)
    filled[some] = np.nanmedian(temps[some], axis=1)
    return filled


def _days(
    rows: Rows, temps: F64, apart: F64 | None, measures: NDArray[np.bool_], rules: TemperatureRules
) -> Iterator[dict[str, Any]]:
    kept = partial(held, rows=rows, hold_s=rules.hold_s, min_rows=rules.hold_rows, gap_s=rules.gap_s)
    high = kept(temps)
    if apart is not None:
        above, below = kept(apart), kept(-apart)
        rise = _rises(rows, apart, rules)
    for _, at in days_of(rows):
        common = {
            "detector": DETECTOR.name,
            "from_at": moment(rows.t_s[at[0]]),
            "to_at": moment(rows.t_s[at[-1]]),
            "n": len(at),
            "temp_c": mean_of(temps[at].ravel()),
        }
        hottest = _greatest(high[at])
        figures: list[tuple[str, F64]] = [(_HIGH, hottest)]
        if np.isfinite(hottest).any():
            # readings tie in steps of 1 K: the mean over the hot rows tells the hottest module
            warm = at[
                np.nan_to_num(temps[at].max(axis=1, initial=-np.inf, where=np.isfinite(temps[at])))
                >= np.nanmax(hottest) - rules.hot_within_k
            ]
            figures.append((_HOT_MEAN, _means(temps[warm]) if len(warm) else hottest))
        figures.append((_RANGE, _greatest(temps[at]) + _greatest(-temps[at])))
        if apart is not None:
            up, down = _greatest(above[at]), _greatest(below[at])
            is_up = ~(np.nan_to_num(down, nan=-np.inf) > np.nan_to_num(up, nan=-np.inf))
            figures.append((_APART, np.where(is_up, up, -down)))
            figures.append((_RISE, _greatest(rise[at])))
        for kind, values in figures:
            if np.isfinite(values).any():
                yield {
                    **common,
                    "kind": kind,
                    "value": float(np.nanmax(np.abs(values))),
                    "values": listed(values),
                    # 1: a sensor that the others are compared with
                    "counts": measures.astype(np.int32).tolist(),
                }


def _greatest(values: F64) -> F64:
    """Greatest of each column; NaN where a column has none."""
    found = np.max(np.where(np.isfinite(values), values, -np.inf), axis=0)
    return np.where(np.isfinite(found), found, np.nan)


def _means(values: F64) -> F64:
    """Mean of each column over what is there; NaN where a column has nothing."""
    n = np.isfinite(values).sum(axis=0)
    return np.asarray(np.where(np.isfinite(values), values, 0).sum(axis=0) / np.where(n, n, np.nan))


def _rises(rows: Rows, apart: F64, rules: TemperatureRules) -> F64:
    """Rise of each sensor against the others over the last two minutes, K/min; a single step is none.

    The row that it is compared with lies at least ``rise_s`` back and no gap in between.
    """
    n = len(rows)
    back = np.searchsorted(rows.t_s, rows.t_s - rules.rise_s, side="right") - 1
    known = back >= 0
    back = np.maximum(back, 0)
    breaks = np.cumsum(rows.gap_s > rules.gap_s)
    span = rows.t_s - rows.t_s[back]
    known &= (breaks == breaks[back]) & (span <= 2 * rules.rise_s) & (np.arange(n) - back >= rules.rise_rows)
    rise = apart - apart[back]
    # the largest step within: a rise by one step alone is a jump of the sensor
    steps = np.diff(apart, axis=0, prepend=apart[:1])
    k = int(np.max((np.arange(n) - back)[known], initial=1))
    largest = np.full(apart.shape, -np.inf)
    filled = np.where(np.isfinite(steps), steps, -np.inf)
    candidates = np.flatnonzero(
        known & np.nan_to_num(np.nanmax(np.where(np.isfinite(rise), rise, -np.inf), axis=1) >= rules.rise_s / 60)
    )
    for row in candidates:  # few: a rise of 2 K against the others within two minutes is rare
        largest[row] = filled[max(back[row] + 1, row - k + 1) : row + 1].max(axis=0)
    spread_out = largest <= rules.rise_step_share * rise
    with np.errstate(invalid="ignore", divide="ignore"):
        rate = rise / np.where(span > 0, span, np.nan)[:, None] * 60
    return np.where(known[:, None] & spread_out, rate, np.where(np.isfinite(apart), 0.0, np.nan))


def _stuck(rows: Rows, temps: F64, middle: F64, rules: TemperatureRules) -> Iterator[dict[str, Any]]:
    """Days on which a sensor goes on reading what it has read for hours while the others move.

    A day begins with the last row before it, so that what moved overnight counts.
    """
    for sensor in np.flatnonzero(np.isfinite(temps).any(axis=0)):
        at = np.flatnonzero(np.isfinite(temps[:, sensor]))
        starts = np.flatnonzero(np.diff(temps[at, sensor], prepend=np.nan) != 0)
        ends = np.append(starts[1:], len(at)) - 1
        for i in np.flatnonzero(rows.t_s[at[ends]] - rows.t_s[at[starts]] >= rules.stuck_s):
            run = at[starts[i] : ends[i] + 1]
            cuts = np.flatnonzero(np.diff(rows.day[run])) + 1
            for day in np.split(run, cuts):
                first = max(day[0] - 1, run[0])
                seen = middle[first : day[-1] + 1]
                moved = float(np.nanmax(seen) - np.nanmin(seen)) if np.isfinite(seen).any() else 0.0
                if moved >= rules.stuck_moved_k and rows.t_s[day[-1]] - rows.t_s[run[0]] >= rules.stuck_s:
                    yield {
                        "detector": DETECTOR.name,
                        "kind": _STUCK,
                        "from_at": moment(rows.t_s[first]),
                        "to_at": moment(rows.t_s[day[-1]]),
                        "n": len(day),
                        "value": moved,
                        "detail": json.dumps({"module": int(sensor) + 1, "reads_c": float(temps[day[0], sensor])}),
                    }


def _jumps(rows: Rows, temps: F64, middle: F64, rules: TemperatureRules) -> Iterator[dict[str, Any]]:
    """Steps of 10 K between two messages that the other sensors do not share, and that do not go on: heat does."""
    near = rows.gap_s <= rules.jump_gap_s
    signed = np.diff(temps, axis=0, prepend=np.nan)
    step = np.abs(signed)
    alone = np.abs(np.diff(middle, prepend=np.nan)) < rules.stuck_moved_k
    hit = near[:, None] & alone[:, None] & (step >= rules.jump_k)
    at, sensors = np.nonzero(hit)
    for beside in (at - 1, np.minimum(at + 1, len(rows) - 1)):
        other = np.where(beside != at, signed[beside, sensors], 0.0)
        hit[at, sensors] &= ~(other * np.sign(signed[at, sensors]) >= rules.jump_goes_on_k)
    for sensor in np.flatnonzero(hit.any(axis=0)):
        at = np.flatnonzero(hit[:, sensor])
        for day in np.unique(rows.day[at]):
            mine = at[rows.day[at] == day]
            yield {
                "detector": DETECTOR.name,
                "kind": _JUMP,
                "from_at": moment(rows.t_s[mine[0] - 1]),
                "to_at": moment(rows.t_s[mine[-1]]),
                "n": len(mine),
                "value": float(step[mine, sensor].max()),
                "detail": json.dumps({"module": int(sensor) + 1}),
            }


# --- STITCHED ---------------------------------------------------------------------------------------------------------
def _readings(windows: pl.DataFrame, context: Context) -> pl.DataFrame:
    rules: TemperatureRules = context.rules.temperature
    absent = _absent(_moved(windows, rules), rules)
    found: list[dict[str, Any]] = []
    found += _hottest(windows, rules, absent)
    for kind, code, lines in (
        (_APART, "TEMP_SPREAD", rules.spread_lines_k),
        (_RISE, "TEMP_RISE", rules.rise_lines_k_per_min),
    ):
        found += _by_module(_compared(windows.filter(pl.col("kind") == kind), absent), code, lines, absent)
    found += _sensors(windows, rules)
    return readings_frame(found)


def _hottest(windows: pl.DataFrame, rules: TemperatureRules, absent: set[int]) -> Iterator[dict[str, Any]]:
    """One reading a day, of the hottest module: a hot pack is one finding, not one of every module.

    Days on which another module is the hottest count for this one too: that they are cool closes it.
    """
    lowest = min(line for line in rules.high_lines_c if line is not None)
    means = {row["from_at"]: row["values"] for row in windows.filter(pl.col("kind") == _HOT_MEAN).to_dicts()}
    days = []
    for row in windows.filter(pl.col("kind") == _HIGH).to_dicts():
        values = {i + 1: v for i, v in enumerate(row["values"]) if v is not None and i + 1 not in absent}
        if values:
            mean = means.get(row["from_at"], [])
            level = max(values.values())
            near = [i for i, v in values.items() if v >= level - rules.hot_within_k]
            item = max(near, key=lambda i: ((mean[i - 1] if i <= len(mean) else None) or 0.0, -i))
            days.append((row, item, level))
    for module in sorted({item for _, item, level in days if level >= lowest}):
        for row, item, level in days:
            if item == module or level < lowest:
                yield {
                    "code": "TEMP_HIGH",
                    "item_no": module,
                    "from_at": row["from_at"],
                    "to_at": row["to_at"],
                    "n": row["n"],
                    "value": level,
                    "watch": rules.high_lines_c[0],
                    "warn": rules.high_lines_c[1],
                    "alarm": rules.high_lines_c[2],
                    "detail": json.dumps({"pack_mean_c": row["temp_c"]}, sort_keys=True),
                }


def _compared(windows: pl.DataFrame, absent: set[int]) -> pl.DataFrame:
    """Days whose median is one of sensors that exist: in a short log padding cannot be told, in the history it can."""
    if not absent or windows.is_empty():
        return windows
    compared = [{i + 1 for i, count in enumerate(counts) if count} for counts in windows["counts"].to_list()]
    return windows.filter(pl.Series([2 * len(of & absent) < len(of) for of in compared], dtype=pl.Boolean))


def _by_module(
    windows: pl.DataFrame, code: str, lines: tuple[float | None, float | None, float | None], absent: set[int]
) -> Iterator[dict[str, Any]]:
    lowest = min(line for line in lines if line is not None)
    rows = windows.to_dicts()
    items = {i for row in rows for i, value in enumerate(row["values"]) if value is not None and abs(value) >= lowest}
    for item in sorted(i for i in items if i + 1 not in absent):
        for row in rows:
            value = row["values"][item] if item < len(row["values"]) else None
            if value is not None:
                yield {
                    "code": code,
                    "item_no": item + 1,
                    "from_at": row["from_at"],
                    "to_at": row["to_at"],
                    "n": row["n"],
                    "value": abs(value),
                    "watch": lines[0],
                    "warn": lines[1],
                    "alarm": lines[2],
                    "detail": json.dumps({"signed": value, "pack_mean_c": row["temp_c"]}, sort_keys=True),
                }


def _moved(windows: pl.DataFrame, rules: TemperatureRules) -> dict[int, float]:
    """Sensor -> what it moved on the day that counts, K: the one most moved, or of many days the next ones, so that a
    glitch or two in the life of a car is no movement."""
    by_sensor: dict[int, list[float]] = {}
    for values in windows.filter(pl.col("kind") == _RANGE)["values"].to_list():
        for i, value in enumerate(values):
            if value is not None:
                by_sensor.setdefault(i + 1, []).append(value)
    moved = {}
    for sensor, days in by_sensor.items():
        nth = 1 if len(days) < 3 else max(2, math.ceil(rules.sensor_moves_days_share * len(days)))
        moved[sensor] = sorted(days, reverse=True)[nth - 1]
    return moved


def _absent(moved: dict[int, float], rules: TemperatureRules) -> set[int]:
    """Sensors that never moved while others did: exports fill absent ones with any constant."""
    sensors = np.array(sorted(moved), dtype=np.int64)
    most = np.array([moved[i] for i in sensors.tolist()])
    return set(sensors[_stand_still(most, np.ones(len(sensors), dtype=np.bool_), rules)].tolist())


def _sensors(windows: pl.DataFrame, rules: TemperatureRules) -> Iterator[dict[str, Any]]:
    """Sensors that stick or jump; one that never moved in the car's life does not exist and is none."""
    moved = _moved(windows, rules)
    days: list[dict[str, Any]] = windows.filter(pl.col("kind") == _RANGE).to_dicts()
    hits = windows.filter(pl.col("kind").is_in([_STUCK, _JUMP])).to_dicts()
    by_module: dict[int, list[dict[str, Any]]] = {}
    for row in hits:
        module = json.loads(row["detail"])["module"]
        if moved.get(module, 0.0) >= rules.sensor_exists_k:
            by_module.setdefault(module, []).append(row)
    for module in sorted(by_module):
        bad_days = set()
        for row in by_module[module]:
            bad_days |= {row["from_at"].date(), row["to_at"].date()}
            line = rules.stuck_moved_k if row["kind"] == _STUCK else rules.jump_k
            yield {
                "code": "TEMP_SENSOR",
                "item_no": module,
                "from_at": row["from_at"],
                "to_at": row["to_at"],
                "n": row["n"],
                "value": row["value"],
                "watch": line,
                "detail": json.dumps({"kind": row["kind"], **json.loads(row["detail"])}, sort_keys=True),
            }
        for row in days:
            moves = row["values"][module - 1] if module <= len(row["values"]) else None
            if row["to_at"].date() not in bad_days and moves:  # a day on which it moves is a good one
                yield {
                    "code": "TEMP_SENSOR",
                    "item_no": module,
                    "from_at": row["from_at"],
                    "to_at": row["to_at"],
                    "n": row["n"],
                    "value": 0.0,
                    "watch": rules.stuck_moved_k,
                }


def _unjudged(windows: pl.DataFrame, context: Context) -> dict[str, str]:
    kinds = set(windows["kind"].to_list())
    if _HIGH not in kinds and _RANGE not in kinds:
        return dict.fromkeys(DETECTOR.codes, "no module temperatures delivered")
    if _APART not in kinds:
        few = f"fewer than {context.rules.temperature.min_sensors} module temperatures"
        return dict.fromkeys(("TEMP_SPREAD", "TEMP_RISE", "TEMP_SENSOR"), few)
    return {}


DETECTOR = Detector(
    name="temperature",
    codes=("TEMP_SPREAD", "TEMP_HIGH", "TEMP_RISE", "TEMP_SENSOR"),
    columns=("module_temp_dc",),
    windows=_windows,
    readings=_readings,
    unjudged=_unjudged,
)
