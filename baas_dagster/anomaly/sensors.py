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
from baas_dagster.anomaly.temperature import padding
from baas_dagster.anomaly.windows import days_of, held, moment, number

__all__ = ["DETECTOR"]

F64 = NDArray[np.float64]
I16 = NDArray[np.int16]
_ZERO = "insulation 0 kOhm beyond waking"
_DAY, _FROZEN, _JUMP, _LOW, _FAULT, _ZEROS = "day", "frozen", "soc_jump", "soc_low", "fault", "zeros"


# --- LOCAL ------------------------------------------------------------------------------------------------------------
def _windows(rows: Rows, car: Car, rules: Any) -> pl.DataFrame:
    mine: SensorRules = rules.sensors
    if not len(rows):
        return windows_frame([])
    soc = _known_soc(rows, mine)
    found = [*_frozen(rows, mine), *_jumps(rows, soc, car, mine), *_low_soc(rows, soc, mine), *_faults(rows, rules)]
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


def _known_soc(rows: Rows, rules: SensorRules) -> F64:
    """SoC in %, without the 0 of the first or last messages of a session, which is no value (DOMAIN 3).

    Staging tells it by the cells; where these are not delivered it is told by what is read beside it.
    """
    soc = rows["soc_pct"].copy()
    there = np.flatnonzero(np.isfinite(soc))
    zero = np.flatnonzero(soc[there] == 0)
    for run in np.split(zero, np.flatnonzero(np.diff(zero) > 1) + 1) if len(zero) else []:
        first, last = run[0], run[-1]
        begins = rows.t_s[there[first]] - (rows.t_s[there[first - 1]] if first else -np.inf)
        ends = (rows.t_s[there[last + 1]] if last + 1 < len(there) else np.inf) - rows.t_s[there[last]]
        beside = [float(soc[there[i]]) for i in (first - 1, last + 1) if 0 <= i < len(there)]
        if max(begins, ends) > rules.gap_s and beside and min(beside) > rules.soc_low_pct:
            soc[there[run]] = np.nan
    return soc


def _jumps(rows: Rows, soc: F64, car: Car, rules: SensorRules) -> Iterator[dict[str, Any]]:
    """Steps of the SoC between two near messages that the charge moved does not explain, and that stay."""
    there = np.flatnonzero(soc > 0)  # one that falls to 0 and stays there is SOC_LOW
    if len(there) < 2:
        return
    values = soc[there]
    seconds = np.diff(rows.t_s[there])
    least, most, is_counted = _moved_ah(rows, there, rules)
    # a longer pair counts where the counters tell what flowed, and where it is too short for the BMS to have anchored
    near = (seconds < rules.jump_s) | ((seconds < rules.jump_counted_s) & is_counted)
    summed = [np.concatenate([[0.0], np.cumsum(ah)]) for ah in (least, most)]

    def unexplained(first: NDArray[np.int64], last: NDArray[np.int64]) -> F64:
        """Points, signed, from one row to another that no charge within its bounds explains."""
        step = values[last] - values[first]
        low, high = _explained(summed[0][last] - summed[0][first], summed[1][last] - summed[1][first], car, rules)
        return np.asarray(np.maximum(step - high, 0) + np.minimum(step - low, 0))

    pairs = np.arange(len(there) - 1)
    size = unexplained(pairs, pairs + 1)
    amps = np.nan_to_num(rows["pack_current_a"][there])
    # a charge that ends at the top is led to 100 by its BMS, which gives up what it had counted wrong
    led_to_full = (size > 0) & (values[1:] >= rules.full_from_pct) & (np.maximum(amps[1:], amps[:-1]) > 0)
    hit = np.flatnonzero(near & (np.abs(np.diff(values)) >= rules.jump_pct) & (size != 0) & ~led_to_full)
    # one message that is off steps twice and leaves nothing behind: noise (DOMAIN 3), unless it goes on all day
    stays = np.ones(len(hit), dtype=np.bool_)
    for first, last in ((np.maximum(hit - 1, 0), hit + 1), (hit, np.minimum(hit + 2, len(there) - 1))):
        close = rows.t_s[there[last]] - rows.t_s[there[first]] < 2 * rules.jump_s
        stays &= ~close | (np.sign(size[hit]) * unexplained(first, last) >= rules.jump_pct)
    hit, stays = hit[large := np.abs(size[hit]) >= rules.jump_pct], stays[large]
    for day in np.unique(rows.day[there[hit + 1]]):
        of_day = rows.day[there[hit + 1]] == day
        mine = hit[of_day & (stays | (of_day.sum() >= 2 * rules.jump_flickers))]
        if not len(mine):
            continue
        worst = mine[np.argmax(np.abs(size[mine]))]
        yield _window(
            rows,
            _JUMP,
            there[worst],
            there[worst + 1],
            len(mine),
            abs(size[worst]),
            from_pct=float(values[worst]),
            to_pct=float(values[worst + 1]),
            moved_ah=round(float(least[worst] + most[worst]) / 2, 2),
        )


def _moved_ah(rows: Rows, there: NDArray[np.int64], rules: SensorRules) -> tuple[F64, F64, NDArray[np.bool_]]:
    """Charge between each pair of rows, Ah: the least and the most it can be, and whether the counters tell."""
    seconds = np.diff(rows.t_s[there])
    counted = np.diff(rows["charged_total_ah"][there]) - np.diff(rows["discharged_total_ah"][there])
    # counters that started anew tell nothing
    told = np.abs(counted) <= rules.current_max_a * seconds / 3600 + rules.counter_step_ah
    amps = np.nan_to_num(rows["pack_current_a"][there])
    flows = [extreme(amps[1:], amps[:-1]) * seconds / 3600 for extreme in (np.minimum, np.maximum)]
    least, most = (
        np.where(told, counted + side * rules.counter_step_ah, flow) for side, flow in zip((-1, 1), flows, strict=True)
    )
    return least, most, told


def _explained(least_ah: F64, most_ah: F64, car: Car, rules: SensorRules) -> tuple[F64, F64]:
    """Points of SoC that so much charge can be: the capacity is known within bounds, or hardly at all."""
    nominal = car.capacity_nominal_ah
    bounds = rules.capacities_ah if nominal is None else tuple(share * nominal for share in rules.capacity_shares)
    points = np.stack([100 * ah / capacity for ah in (least_ah, most_ah) for capacity in bounds])
    return points.min(axis=0), points.max(axis=0)


def _low_soc(rows: Rows, soc: F64, rules: SensorRules) -> Iterator[dict[str, Any]]:
    low = -held(-soc, rows, hold_s=rules.low_s, min_rows=rules.held_rows, gap_s=rules.gap_s)
    for _, at in days_of(rows):
        there = at[np.isfinite(low[at])]
        if len(there):
            best = there[np.argmin(low[there])]
            yield _window(rows, _LOW, at[0], at[-1], len(there), low[best], at=str(moment(rows.t_s[best])))


def _faults(rows: Rows, all_rules: Any) -> Iterator[dict[str, Any]]:
    """Values outside of what physics allows, that last or come again and again: what, how far, since when."""
    rules: SensorRules = all_rules.sensors
    low_mv, cells_absent = _lowest_mv(rows, rules)
    temps = _modules(rows, all_rules)
    looks: list[tuple[str, F64, float, float, int]] = [
        ("cell below", -low_mv / 1000, -rules.cell_min_v, rules.fault_s, rules.fault_rows),
        ("cell above", rows["cell_max_mv"] / 1000, rules.cell_max_v, rules.fault_s, rules.fault_rows),
        ("current beyond", np.abs(rows["pack_current_a"]), rules.current_max_a, 0.0, rules.held_rows),
        # a value that does not fit into a list is not in it
        (_UNFIT, rows["cell_unfit_n"], 0.0, rules.fault_s, rules.fault_rows),
    ]
    if temps is not None:
        there = temps != NO_VALUE
        hottest = np.where(there, temps, np.int16(-32_000)).max(axis=1, initial=-32_000) / 10.0
        coldest = np.where(there, temps, np.int16(32_000)).min(axis=1, initial=32_000) / 10.0
        some = there.any(axis=1)
        looks.append(("module above", np.where(some, hottest, np.nan), rules.temp_max_c, rules.fault_s, 2))
        looks.append(("module below", np.where(some, -coldest, np.nan), -rules.temp_min_c, rules.fault_s, 2))
    for what, values, limit, hold_s, min_rows in looks:
        beyond = values > limit
        if not beyond.any():
            continue
        level = held(values, rows, hold_s=hold_s, min_rows=min_rows, gap_s=rules.gap_s)
        lasts = level > limit
        for _, at in days_of(rows):
            mine = at[lasts[at]]
            again = at[beyond[at]]
            if not len(mine) and len(again) >= max(rules.fault_repeats, rules.fault_repeat_share * len(at)):
                mine = again
            if not len(mine):
                continue
            worst = mine[np.argmax(values[mine])]
            yield _window(
                rows,
                _FAULT,
                again[0],
                mine[-1],
                len(again),
                1.0,
                what=what,
                limit=None if what == _UNFIT else abs(limit),
                value=round(abs(float(values[worst])), 3),
                **_items(rows.cell_mv, temps, cells_absent, what, int(worst), limit),
            )


def _lowest_mv(rows: Rows, rules: SensorRules) -> tuple[F64, int]:
    """(n,) lowest cell in mV, and how many positions at the end of the list pad it with 0 throughout."""
    low, cells = rows["cell_min_mv"], rows.cell_mv
    at = np.flatnonzero(low < 1000 * rules.cell_min_v)
    if cells is None or not len(at):
        return low, 0
    absent = 0
    while absent < cells.shape[1] and bool((cells[:, -1 - absent] == 0).all()):
        absent += 1
    if absent in (0, cells.shape[1]):
        return low, 0
    low = low.copy()
    for part in np.array_split(at, -(-len(at) // 8_192)):
        kept = cells[part, : cells.shape[1] - absent]
        lowest = np.where(kept == NO_VALUE, np.int16(32_000), kept).min(axis=1)
        low[part] = np.where(lowest < 32_000, lowest, np.nan)
    return low, absent


def _modules(rows: Rows, all_rules: Any) -> I16 | None:
    """Module temperatures without what pads the list."""
    temps = rows.module_temp_dc
    if temps is None:
        return None
    pads = padding(temps, all_rules.temperature)
    return temps if not pads.any() else np.where(pads, NO_VALUE, temps)


def _items(cells: I16 | None, temps: I16 | None, absent: int, what: str, row: int, limit: float) -> dict[str, Any]:
    """The channel of a value, its cell or module, and how many of them are beyond the limit in that row."""
    channel = next((c for word, c in _CHANNELS if what.startswith(word)), "current")
    source = {"cells": cells, "temperature": temps}.get(channel)
    if source is None or what == _UNFIT:
        return {"channel": channel}
    values = source[row, : source.shape[1] - (absent if channel == "cells" else 0)].astype(np.float64)
    values[values == NO_VALUE] = np.nan
    if not np.isfinite(values).any():
        return {"channel": channel}
    signed = (-values if what.endswith("below") else values) / (1000 if channel == "cells" else 10)
    beyond = np.flatnonzero(signed > limit) + 1
    name = "cell_no" if channel == "cells" else "module_no"
    found: dict[str, Any] = {"channel": channel, name: int(np.nanargmax(signed)) + 1}
    return found if len(beyond) < 2 else found | {"beyond": beyond[:_SHOWN].tolist(), "beyond_n": len(beyond)}


_CHANNELS = (("cell", "cells"), ("module", "temperature"))
_UNFIT = "cell far beyond any voltage"
_SHOWN = 10


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
        "cell_unfit_n",
        "cell_mv",
        "module_temp_dc",
        "insulation_kohm",
    ),
    windows=_windows,
    readings=_readings,
    unjudged=_unjudged,
)
