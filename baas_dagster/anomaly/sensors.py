"""Signals that stand still or jump, a SoC that falls low, and values that could be a fault or a sensor.

Belongs here: SENSOR_FROZEN, SOC_JUMP, SOC_LOW and FAULT_OR_SENSOR. Does not belong here: temperature sensors
(``temperature``), counters (``health``). A suspect value that lasts is never noise (DOMAIN 3).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from baas_dagster.anomaly.detector import Context, Detector, readings_frame, windows_frame
from baas_dagster.anomaly.insulation import zero_days
from baas_dagster.anomaly.rows import NO_VALUE, Car, Rows
from baas_dagster.anomaly.rules import SensorRules
from baas_dagster.anomaly.windows import days_of, held, moment, number

__all__ = ["DETECTOR"]

F64 = NDArray[np.float64]
_ZERO = "insulation 0 kOhm beyond waking"
_DAY, _FROZEN, _JUMP, _LOW, _FAULT, _ZEROS = "day", "frozen", "soc_jump", "soc_low", "fault", "zeros"


# --- LOCAL ------------------------------------------------------------------------------------------------------------
def _windows(rows: Rows, car: Car, rules: Any) -> pl.DataFrame:
    mine: SensorRules = rules.sensors
    if not len(rows):
        return windows_frame([])
    found = [*_frozen(rows, mine), *_jumps(rows, car, mine), *_low_soc(rows, mine), *_faults(rows, mine)]
    for day in zero_days(rows, rules.insulation):
        ends = (day.pop("from_row"), day.pop("to_row"), day.pop("rows"))
        found.append(_window(rows, _ZEROS, *ends, day["longest_s"], **day))
    # every day with rows, so that what is no longer seen can close
    for _, at in days_of(rows):
        found.append(_window(rows, _DAY, at[0], at[-1], len(at), 0.0))
    return windows_frame(found)


def _window(rows: Rows, kind: str, first: Any, last: Any, n: int, figure: float, **detail: Any) -> dict[str, Any]:
    return {
        "detector": DETECTOR.name,
        "kind": kind,
        "from_at": moment(rows.t_s[first]),
        "to_at": moment(rows.t_s[last]),
        "n": int(n),
        "value": float(figure),
        "soc_pct": number(rows["soc_pct"][last]),
        "current_a": number(rows["pack_current_a"][last]),
        "detail": json.dumps(detail, sort_keys=True) if detail else None,
    }


def _frozen(rows: Rows, rules: SensorRules) -> Iterator[dict[str, Any]]:
    """Voltage and current the same for two minutes while the car drives at changing speed."""
    same = (np.diff(rows["pack_voltage_v"], prepend=np.nan) == 0) & (
        np.diff(rows["pack_current_a"], prepend=np.nan) == 0
    )
    same &= (rows.gap_s <= rules.gap_s) & (rows["speed_kmh"] > rules.frozen_kmh)
    at = np.flatnonzero(same)
    for run in np.split(at, np.flatnonzero(np.diff(at) > 1) + 1) if len(at) else []:
        first = run[0] - 1
        speeds = rows["speed_kmh"][run]
        length = rows.t_s[run[-1]] - rows.t_s[first]
        if length >= rules.frozen_s and len(np.unique(speeds)) >= rules.frozen_speeds:
            yield _window(rows, _FROZEN, first, run[-1], len(run) + 1, length / 60)


def _jumps(rows: Rows, car: Car, rules: SensorRules) -> Iterator[dict[str, Any]]:
    """Steps of the SoC between two near messages that the charge moved does not explain."""
    soc = rows["soc_pct"]
    there = np.flatnonzero(np.isfinite(soc))
    if len(there) < 2:
        return
    t, step = rows.t_s[there], np.diff(soc[there])
    near = np.diff(t) < rules.jump_s
    moved_ah = _moved_ah(rows, there)
    capacity = car.capacity_nominal_ah or rules.smallest_capacity_ah
    unexplained = np.abs(step - 100 * moved_ah / capacity)
    # a charge that ends at the top is led to 100 by its BMS, which gives up what it had counted wrong
    led_to_full = (step > 0) & (soc[there][1:] >= rules.full_from_pct) & (rows["pack_current_a"][there[1:]] > 0)
    hit = np.flatnonzero(near & (np.abs(step) >= rules.jump_pct) & (unexplained >= rules.jump_pct) & ~led_to_full)
    for day in np.unique(rows.day[there[hit + 1]]):
        mine = hit[rows.day[there[hit + 1]] == day]
        worst = mine[np.argmax(unexplained[mine])]
        yield _window(
            rows,
            _JUMP,
            there[worst],
            there[worst + 1],
            len(mine),
            unexplained[worst],
            from_pct=float(soc[there[worst]]),
            to_pct=float(soc[there[worst + 1]]),
            moved_ah=round(float(moved_ah[worst]), 2),
        )


def _moved_ah(rows: Rows, there: NDArray[np.int64]) -> F64:
    """Charge between each pair of rows, Ah: by the counters, else by the current."""
    by_counter = np.diff(rows["charged_total_ah"][there]) - np.diff(rows["discharged_total_ah"][there])
    mean = (rows["pack_current_a"][there][1:] + rows["pack_current_a"][there][:-1]) / 2
    by_current = mean * np.diff(rows.t_s[there]) / 3600
    return np.where(np.isfinite(by_counter), by_counter, np.nan_to_num(by_current))


def _low_soc(rows: Rows, rules: SensorRules) -> Iterator[dict[str, Any]]:
    low = -held(-rows["soc_pct"], rows, hold_s=rules.low_s, min_rows=rules.held_rows, gap_s=rules.gap_s)
    for _, at in days_of(rows):
        there = at[np.isfinite(low[at])]
        if len(there):
            best = there[np.argmin(low[there])]
            yield _window(rows, _LOW, at[0], at[-1], len(there), low[best], at=str(moment(rows.t_s[best])))


def _faults(rows: Rows, rules: SensorRules) -> Iterator[dict[str, Any]]:
    """Values outside of what physics allows, that last: what, how far, since when."""
    looks: list[tuple[str, F64, float, float, int]] = [
        ("cell below", -rows["cell_min_mv"] / 1000, -rules.cell_min_v, rules.fault_s, rules.fault_rows),
        ("cell above", rows["cell_max_mv"] / 1000, rules.cell_max_v, rules.fault_s, rules.fault_rows),
        ("current beyond", np.abs(rows["pack_current_a"]), rules.current_max_a, 0.0, rules.held_rows),
    ]
    if rows.module_temp_dc is not None:
        there = rows.module_temp_dc != NO_VALUE
        hottest = np.where(there, rows.module_temp_dc, np.int16(-32_000)).max(axis=1) / 10.0
        coldest = np.where(there, rows.module_temp_dc, np.int16(32_000)).min(axis=1) / 10.0
        some = there.any(axis=1)
        looks.append(("module above", np.where(some, hottest, np.nan), rules.temp_max_c, rules.fault_s, 2))
        looks.append(("module below", np.where(some, -coldest, np.nan), -rules.temp_min_c, rules.fault_s, 2))
    for what, values, limit, hold_s, min_rows in looks:
        if not (values > limit).any():
            continue
        level = held(values, rows, hold_s=hold_s, min_rows=min_rows, gap_s=rules.gap_s)
        hit = np.flatnonzero(level > limit)
        for day in np.unique(rows.day[hit]):
            mine = hit[rows.day[hit] == day]
            worst = mine[np.argmax(level[mine])]
            yield _window(
                rows,
                _FAULT,
                mine[0],
                mine[-1],
                len(mine),
                1.0,
                what=what,
                limit=abs(limit),
                value=round(abs(float(values[worst])), 3),
                **_item(rows, what, int(worst)),
            )


def _item(rows: Rows, what: str, row: int) -> dict[str, Any]:
    """The channel that a value is of, and its cell or module."""
    channel = next((c for word, c in _CHANNELS if what.startswith(word)), "current")
    source = {"cells": rows.cell_mv, "temperature": rows.module_temp_dc}.get(channel)
    if source is None:
        return {"channel": channel}
    there = source[row] != NO_VALUE
    values = source[row].astype(np.int64)
    is_low = what.endswith("below")
    place = np.where(there, values, 10**9).argmin() if is_low else np.where(there, values, -(10**9)).argmax()
    name = "cell_no" if channel == "cells" else "module_no"
    return {"channel": channel, name: int(place) + 1 if there.any() else None}


_CHANNELS = (("cell", "cells"), ("module", "temperature"))


# --- STITCHED ---------------------------------------------------------------------------------------------------------
def _readings(windows: pl.DataFrame, context: Context) -> pl.DataFrame:
    rules: SensorRules = context.rules.sensors
    days = windows.filter(pl.col("kind") == _DAY).to_dicts()
    found: list[dict[str, Any]] = []
    for kind, code, lines in (
        (_FROZEN, "SENSOR_FROZEN", (rules.frozen_s / 60, None, None)),
        (_JUMP, "SOC_JUMP", (rules.jump_pct, rules.jump_warn_pct, None)),
        (_FAULT, "FAULT_OR_SENSOR", (None, None, 1.0)),
    ):
        hits = windows.filter(pl.col("kind") == kind).to_dicts()
        if kind == _FAULT:
            hits += _lasting_zeros(windows, rules)
        if not hits:
            continue
        bad = {row["to_at"].date() for row in hits}
        found += [_reading(code, row, row["value"], lines) for row in hits]
        found += [_reading(code, row, 0.0, lines) for row in days if row["to_at"].date() not in bad]
    low = windows.filter(pl.col("kind") == _LOW).to_dicts()
    if any(row["value"] <= rules.soc_low_pct for row in low):
        lines = (rules.soc_low_pct, rules.soc_empty_pct, None)
        found += [_reading("SOC_LOW", row, row["value"], lines) | {"is_low_bad": True} for row in low]
    return readings_frame(found)


def _lasting_zeros(windows: pl.DataFrame, rules: SensorRules) -> Iterator[dict[str, Any]]:
    """Days on which the insulation had read 0 for too long, counted over days that read nothing else.

    A channel that never read anything else is one that the car does not support, or a fault since ever: not judged.
    """
    days = windows.filter(pl.col("kind") == _ZEROS).to_dicts()
    details = [json.loads(row["detail"]) for row in days]
    if len(days) >= rules.insulation_days and not any(d["reads_more"] for d in details):
        return
    carried = 0.0
    for row, day in zip(days, details, strict=True):
        longest = max(day["longest_s"], carried + day["lead_s"])
        carried = day["trail_s"] if day["reads_more"] else carried + day["trail_s"]
        if longest >= rules.insulation_zero_s and row["n"]:
            what = {"what": _ZERO, "limit": None, "value": 0.0, "channel": "insulation", "minutes": round(longest / 60)}
            yield row | {"value": 1.0, "detail": json.dumps(what, sort_keys=True)}


def _reading(
    code: str, row: dict[str, Any], value: float, lines: tuple[float | None, float | None, float | None]
) -> dict[str, Any]:
    return {
        "code": code,
        "from_at": row["from_at"],
        "to_at": row["to_at"],
        "n": row["n"],
        "value": value,
        "watch": lines[0],
        "warn": lines[1],
        "alarm": lines[2],
        "detail": row["detail"] if value else None,
    }


def _unjudged(windows: pl.DataFrame, context: Context) -> dict[str, str]:
    if windows.is_empty():
        return dict.fromkeys(DETECTOR.codes, "no BMS messages")
    found: dict[str, str] = {}
    if not (windows["kind"] == _LOW).any():
        found |= dict.fromkeys(("SOC_LOW", "SOC_JUMP"), "no SoC delivered")
    return found


DETECTOR = Detector(
    name="sensors",
    codes=("SENSOR_FROZEN", "SOC_JUMP", "SOC_LOW", "FAULT_OR_SENSOR"),
    columns=(
        "pack_voltage_v",
        "pack_current_a",
        "speed_kmh",
        "soc_pct",
        "charged_total_ah",
        "discharged_total_ah",
        "cell_min_mv",
        "cell_max_mv",
        "cell_mv",
        "module_temp_dc",
        "insulation_kohm",
    ),
    windows=_windows,
    readings=_readings,
    unjudged=_unjudged,
)
