"""Cells against their pack: residuals at rest and on steady charge, spread, self-discharge, limits of voltage.

Belongs here: everything that compares a cell with the other cells of its pack. Does not belong here: temperatures
(``temperature``), single impossible values (``sensors``).

A cell is read in steps of 20 mV and in blocks of 32 that are read one after the other, so a single row says little and
a row under load nothing (DOMAIN 3). Evidence are time averages: over a rest, and over the stretches of a charge on
which the current is steady; the pack's own ramp dithers the steps away. The residual of a cell is its average less that
of the median cell.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from baas_dagster.anomaly.detector import Context, Detector, readings_frame, windows_frame
from baas_dagster.anomaly.rows import NO_VALUE, Car, Rows
from baas_dagster.anomaly.rules import CellRules
from baas_dagster.anomaly.windows import held, listed, mean_of, moment, number

__all__ = ["CELL_MONTH_SCHEMA", "DETECTOR", "cell_months"]

F64 = NDArray[np.float64]
_REST, _CHARGE, _LOWEST, _HIGHEST, _LOW, _HIGH = "rest", "charge", "lowest", "highest", "low_volt", "high_volt"
_BLOCK_ROWS = 16_384  # rows of cells turned into wider numbers at a time: 12 MB of 192 cells

CELL_MONTH_SCHEMA: dict[str, Any] = {
    "measured_month": pl.String,
    "cell_no": pl.Int32,
    "residual_rest_mv": pl.Float64,
    "residual_charge_mv": pl.Float64,
    "lowest_share_pct": pl.Float64,
    "highest_share_pct": pl.Float64,
    "n": pl.Int64,
}


# --- LOCAL ------------------------------------------------------------------------------------------------------------
def _windows(rows: Rows, car: Car, rules: Any) -> pl.DataFrame:
    cells: CellRules = rules.cells
    if rows.cell_mv is None or not len(rows):
        return windows_frame([])
    found = [
        *_residuals(rows, _segments(rows, _is_rest(rows, cells), cells), _REST, cells.rest_min_rows),
        *_residuals(rows, _segments(rows, _is_steady_charge(rows, cells), cells), _CHARGE, cells.charge_min_rows),
        *_limits(rows, cells),
    ]
    return windows_frame(found)


def _is_rest(rows: Rows, rules: CellRules) -> NDArray[np.bool_]:
    """Rows without load that say what the pack rests at: quiet for a while, or the first after hours of silence."""
    quiet = (np.abs(rows["pack_current_a"]) <= rules.rest_current_a) & ~(rows["speed_kmh"] > rules.standing_kmh)
    woken = rows.gap_s >= rules.silence_s
    at = np.arange(len(rows))
    last_load = np.maximum.accumulate(np.where(quiet, -1, at))
    last_wake = np.maximum.accumulate(np.where(woken, at, -1))
    start = np.where(last_load >= 0, rows.t_s[np.maximum(last_load, 0)], -np.inf)
    settled = rows.t_s - start >= rules.settle_s
    # no load since a waking after hours: the first rows still show the rest before
    fresh = (last_wake > last_load) & (last_wake >= 0)
    return np.asarray(quiet & (fresh | (settled & (last_load >= 0))))


def _is_steady_charge(rows: Rows, rules: CellRules) -> NDArray[np.bool_]:
    current = rows["pack_current_a"]
    step = np.abs(np.diff(current, prepend=np.nan))
    standing = ~(rows["speed_kmh"] > rules.standing_kmh)
    return np.asarray(
        (current >= rules.charge_current_a) & (step < rules.steady_step_a) & standing & (rows.gap_s <= rules.gap_s)
    )


def _segments(rows: Rows, chosen: NDArray[np.bool_], rules: CellRules) -> list[NDArray[np.int64]]:
    """Row numbers of each uninterrupted stretch of chosen rows."""
    at = np.flatnonzero(chosen)
    if not len(at):
        return []
    apart = (np.diff(at) > 1) | (np.diff(rows.t_s[at]) > rules.gap_s)
    return np.split(at, np.flatnonzero(apart) + 1)


def _residuals(rows: Rows, segments: list[NDArray[np.int64]], kind: str, min_rows: int) -> Iterator[dict[str, Any]]:
    kept = [s for s in segments if len(s) >= min_rows]
    if not kept or rows.cell_mv is None:
        return
    width = rows.cell_mv.shape[1]
    starts = np.concatenate(([0], np.cumsum([len(s) for s in kept])))
    total, count, low, high = (np.zeros((len(kept), width)) for _ in range(4))
    at = np.concatenate(kept)
    owner = np.repeat(np.arange(len(kept)), np.diff(starts))
    for begin in range(0, len(at), _BLOCK_ROWS):
        part = slice(begin, begin + _BLOCK_ROWS)
        block, own = rows.cell_mv[at[part]], owner[part]
        first = np.flatnonzero(np.diff(own, prepend=-1))
        there = block != NO_VALUE
        whole = bool(there.all())
        wide = block.astype(np.float32)
        if not whole:
            wide[~there] = np.nan
        # relative to the row's mean, so that a cell that misses rows of a ramp is not off
        with np.errstate(invalid="ignore"):
            wide -= (wide.mean(axis=1) if whole else _nanmean(wide, there))[:, None]
        total[own[first]] += np.add.reduceat(
            wide if whole else np.where(there, wide, 0), first, axis=0, dtype=np.float64
        )
        count[own[first]] += (
            np.diff(np.append(first, len(own)))[:, None]
            if whole
            else np.add.reduceat(there, first, axis=0, dtype=np.float64)
        )
        if kind == _REST:
            for edge, extreme in ((low, np.nanmin), (high, np.nanmax)):
                is_edge = (
                    wide <= _row_edge(wide, there, np.min) + 0.5
                    if extreme is np.nanmin
                    else (wide >= _row_edge(wide, there, np.max) - 0.5)
                )
                is_edge &= there
                shared = is_edge / np.maximum(is_edge.sum(axis=1), 1)[:, None]
                edge[own[first]] += np.add.reduceat(shared, first, axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(count > 0, total / count, np.nan)
    for i, segment in enumerate(kept):
        if not np.isfinite(mean[i]).any():
            continue
        residual = mean[i] - np.nanmedian(mean[i])
        common = {
            "detector": DETECTOR.name,
            "from_at": moment(rows.t_s[segment[0]]),
            "to_at": moment(rows.t_s[segment[-1]]),
            "n": len(segment),
            "soc_pct": mean_of(rows["soc_pct"][segment]),
            "current_a": mean_of(rows["pack_current_a"][segment]),
            "temp_c": mean_of(rows["pack_temp_c"][segment]),
        }
        yield {
            **common,
            "kind": kind,
            "value": float(np.nanmax(residual) - np.nanmin(residual)),
            "values": listed(residual),
            "counts": count[i].astype(int).tolist(),
        }
        if kind == _REST:
            for name, share in ((_LOWEST, low[i]), (_HIGHEST, high[i])):
                yield {**common, "kind": name, "values": listed(100 * share / len(segment))}


def _nanmean(wide: NDArray[np.float32], there: NDArray[np.bool_]) -> NDArray[np.float32]:
    n = there.sum(axis=1)
    return np.asarray(np.where(there, wide, 0).sum(axis=1) / np.where(n, n, np.nan), dtype=np.float32)


def _row_edge(wide: NDArray[np.float32], there: NDArray[np.bool_], reduce: Any) -> NDArray[np.float32]:
    far = np.float32(np.inf if reduce is np.min else -np.inf)
    return np.asarray(reduce(np.where(there, wide, far), axis=1)[:, None])


def _limits(rows: Rows, rules: CellRules) -> Iterator[dict[str, Any]]:
    """Per day the lowest and the highest cell voltage that lasted over some messages."""
    for kind, column, sign in ((_LOW, "cell_min_mv", 1.0), (_HIGH, "cell_max_mv", -1.0)):
        level = held(-sign * rows[column], rows, hold_s=0, min_rows=rules.held_rows, gap_s=rules.gap_s)
        for day in np.unique(rows.day[np.isfinite(level)]):
            at = np.flatnonzero((rows.day == day) & np.isfinite(level))
            best = int(at[np.argmax(level[at])])
            yield {
                "detector": DETECTOR.name,
                "kind": kind,
                "from_at": moment(rows.t_s[at[0]]),
                "to_at": moment(rows.t_s[at[-1]]),
                "n": len(at),
                "value": float(-sign * level[best]) / 1000,
                "soc_pct": number(rows["soc_pct"][best]),
                "current_a": number(rows["pack_current_a"][best]),
                "temp_c": number(rows["pack_temp_c"][best]),
                "detail": json.dumps(
                    {"cell": _cell_at(rows, best, lowest=sign > 0), "at": str(moment(rows.t_s[best]))}
                ),
            }


def _cell_at(rows: Rows, row: int, *, lowest: bool) -> int | None:
    if rows.cell_mv is None:
        return None
    there = rows.cell_mv[row] != NO_VALUE
    if not there.any():
        return None
    values = np.where(there, rows.cell_mv[row].astype(np.int64), 10**9 if lowest else -(10**9))
    return int(values.argmin() if lowest else values.argmax()) + 1


# --- STITCHED ---------------------------------------------------------------------------------------------------------
def _matrix(windows: pl.DataFrame, column: str = "values") -> F64:
    """(windows, cells) of the most frequent width; a window of another pack size has NaN."""
    lists = windows[column].to_list()
    if not lists:
        return np.zeros((0, 0))
    widths = [len(x) for x in lists]
    width = max(set(widths), key=lambda w: (widths.count(w), w))
    empty = [None] * width
    return np.array([x if len(x) == width else empty for x in lists], dtype=np.float64)


def _readings(windows: pl.DataFrame, context: Context) -> pl.DataFrame:
    rules: CellRules = context.rules.cells
    rests = windows.filter(pl.col("kind") == _REST)
    charges = windows.filter(pl.col("kind") == _CHARGE)
    found = [
        *_outliers(rests, rules),
        *_outliers(charges, rules),
        *_lowest(windows.filter(pl.col("kind") == _LOWEST), rests, rules),
        *_spread(charges, rules),
        *_leaks(pl.concat([rests, charges]).sort("to_at", "from_at", "kind"), context, rules),
        *_voltages(windows, context, rules),
    ]
    return readings_frame(found)


def _trailing(values: F64, weights: F64, k: int) -> F64:
    """Weighted mean over each window and the k - 1 before it; NaN where fewer than k have a value."""
    out = np.full(values.shape, np.nan)
    if len(values) < k:
        return out
    there = np.isfinite(values)
    w = weights[:, None] * there
    sums = np.cumsum(np.vstack([np.zeros(values.shape[1]), np.where(there, values, 0) * w]), axis=0)
    total = np.cumsum(np.vstack([np.zeros(values.shape[1]), w]), axis=0)
    counts = np.cumsum(np.vstack([np.zeros(values.shape[1]), there]), axis=0)
    mean = (sums[k:] - sums[:-k]) / np.where(total[k:] - total[:-k] > 0, total[k:] - total[:-k], np.nan)
    out[k - 1 :] = np.where(counts[k:] - counts[:-k] >= k, mean, np.nan)
    return out


def _outliers(windows: pl.DataFrame, rules: CellRules) -> Iterator[dict[str, Any]]:
    """Cells off the pack by a robust z above 4, false discoveries over cells controlled; or moving by themselves."""
    residual = _matrix(windows)
    if not len(residual):
        return
    # a long window is no better than its systematic part: weights are capped
    weights = np.minimum(windows["n"].to_numpy().astype(np.float64), rules.weight_cap)
    pooled = _trailing(residual, weights, rules.pooled_windows)
    sigma = _sigma(pooled, rules)
    z = np.abs(pooled) / sigma
    needed = np.maximum(_fdr_z(z, rules.false_discovery_rate), rules.outlier_z)[:, None]
    crossed = z >= needed
    moving = _moving(residual, windows, rules) & (np.abs(pooled) >= rules.moving_min_mv)
    for cell in np.flatnonzero((crossed | moving).any(axis=0)):
        for i in np.flatnonzero(np.isfinite(pooled[:, cell])):
            value = float(abs(pooled[i, cell]))
            line = float(needed[i, 0] * sigma[i, 0])
            yield {
                "code": "CELL_OUTLIER",
                "item_no": int(cell) + 1,
                **_span(windows, i),
                "value": value,
                "sd": float(sigma[i, 0]),
                "watch": min(line, value) if moving[i, cell] else line,
                "warn": max(line, rules.outlier_warn_mv),
                "alarm": max(line, rules.outlier_alarm_mv),
                "detail": json.dumps(
                    {
                        "residual_mv": round(float(pooled[i, cell]), 1),
                        "z": round(float(z[i, cell]), 1),
                        "at": windows["kind"][int(i)],
                        "is_moving": bool(moving[i, cell]),
                        "soc_pct": windows["soc_pct"][int(i)],
                    },
                    sort_keys=True,
                ),
            }


def _sigma(pooled: F64, rules: CellRules) -> F64:
    """(windows, 1) robust standard deviation over the cells of a pack, mV; not below what a step of 20 mV leaves."""
    sigma = np.full((len(pooled), 1), np.nan)
    known = np.isfinite(pooled).any(axis=1)
    if known.any():
        middle = np.nanmedian(pooled[known], axis=1, keepdims=True)
        sigma[known] = 1.4826 * np.nanmedian(np.abs(pooled[known] - middle), axis=1, keepdims=True)
    return np.asarray(np.maximum(sigma, rules.sigma_floor_mv))


def _fdr_z(z: F64, rate: float) -> F64:
    """(windows,) least abs(z) that Benjamini-Hochberg rejects among the cells of each window; infinite: none."""
    found = np.full(len(z), np.inf)
    for i, row in enumerate(z):
        there = np.sort(row[np.isfinite(row)])[::-1]
        if not len(there):
            continue
        p = np.array([math.erfc(x / math.sqrt(2)) for x in there[:32]])
        passed = np.flatnonzero(p <= rate * np.arange(1, len(p) + 1) / len(there))
        if len(passed):
            found[i] = there[passed[-1]]
    return found


def _moving(residual: F64, windows: pl.DataFrame, rules: CellRules) -> NDArray[np.bool_]:
    """Where the residual moves away from the pack by more than 10 mV a month, surely."""
    days = windows["to_at"].to_numpy().astype("datetime64[us]").astype(np.int64) / 86_400e6
    out = np.zeros(residual.shape, np.bool_)
    for i in range(len(residual)):
        first = int(np.searchsorted(days, days[i] - rules.moving_days))
        if i + 1 - first < rules.moving_min_windows or days[i] - days[first] < rules.moving_span_days:
            continue
        slope, error = _slopes(days[first : i + 1], residual[first : i + 1])
        away = slope * np.sign(residual[i])
        out[i] = (away * 30 > rules.moving_mv_per_month) & (away > rules.moving_z * error)
    return out


def _slopes(days: F64, values: F64, weights: F64 | None = None) -> tuple[F64, F64]:
    """Slope per day of each column and its standard error; NaN where values are missing."""
    w = np.ones(len(days)) if weights is None else weights
    centred = days - np.average(days, weights=w)
    around = values - np.average(values, axis=0, weights=w)
    spread = float((w * centred**2).sum())
    if spread <= 0:
        return np.full(values.shape[1], np.nan), np.full(values.shape[1], np.nan)
    slope = (w * centred) @ around / spread
    rest = around - centred[:, None] * slope
    error = np.sqrt((w[:, None] * rest**2).sum(axis=0) / max(len(days) - 2, 1) / spread)
    return slope, error


def _lowest(windows: pl.DataFrame, rests: pl.DataFrame, rules: CellRules) -> Iterator[dict[str, Any]]:
    """Cells that are the pack's minimum in more than a fifth of the rest rows and lie well below it, or fall."""
    share, residual = _matrix(windows), _matrix(rests)
    if not len(share) or share.shape != residual.shape:
        return
    weights = np.minimum(windows["n"].to_numpy().astype(np.float64), rules.weight_cap)
    k = rules.lowest_windows
    pooled, level = _trailing(share, weights, k), _trailing(residual, weights, k)
    falling = _moving(residual, rests, rules) & (residual < 0)
    below = (level <= -np.maximum(rules.lowest_mv, rules.lowest_z * _sigma(level, rules))) | falling
    crossed = (pooled >= rules.lowest_share_pct) & below
    for cell in np.flatnonzero(crossed.any(axis=0)):
        for i in np.flatnonzero(np.isfinite(pooled[:, cell])):
            value = (
                float(pooled[i, cell]) if below[i, cell] else min(float(pooled[i, cell]), 0.5 * rules.lowest_share_pct)
            )
            yield {
                "code": "CELL_LOWEST",
                "item_no": int(cell) + 1,
                **_span(windows, i),
                "value": value,
                "watch": rules.lowest_share_pct,
                "warn": rules.lowest_share_pct if falling[i, cell] else None,
                "detail": json.dumps(
                    {"residual_mv": round(float(level[i, cell]), 1), "is_falling": bool(falling[i, cell])},
                    sort_keys=True,
                ),
            }


def _spread(windows: pl.DataFrame, rules: CellRules) -> Iterator[dict[str, Any]]:
    """How far the cells are apart on a steady charge; the watch line follows the pack's own last 90 days."""
    residual = _matrix(windows)
    if not len(residual):
        return
    days = windows["to_at"].to_numpy().astype("datetime64[us]").astype(np.int64) / 86_400e6
    value = windows["value"].to_numpy()
    far = np.nanargmax(np.where(np.isfinite(residual), np.abs(residual), -1), axis=1)
    own = np.array(
        [np.median(value[int(np.searchsorted(days, d - rules.spread_own_days)) : i + 1]) for i, d in enumerate(days)]
    )
    watch = np.clip(rules.spread_own_factor * own, rules.spread_watch_min_mv, rules.spread_warn_mv)
    items = {int(far[i]) for i in np.flatnonzero(value >= watch)}
    for cell in sorted(items):
        for i in range(len(value)):
            # in a window whose furthest cell is another one, this cell is only as far off as it is itself
            mine = float(value[i]) if far[i] == cell else float(abs(residual[i, cell]))
            if np.isfinite(mine):
                yield {
                    "code": "CELL_SPREAD",
                    "item_no": cell + 1,
                    **_span(windows, i),
                    "value": mine,
                    "watch": float(watch[i]),
                    "warn": rules.spread_warn_mv,
                    "alarm": rules.spread_alarm_mv,
                    "detail": json.dumps(
                        {
                            "residual_mv": round(float(residual[i, cell]), 1),
                            "current_a": windows["current_a"][i],
                            "soc_pct": windows["soc_pct"][i],
                        },
                        sort_keys=True,
                    ),
                }


def _leaks(windows: pl.DataFrame, context: Context, rules: CellRules) -> Iterator[dict[str, Any]]:
    """Cells that lose charge against the pack: I = C x dr/dt / (dOCV/dSoC), from the residuals of the last days.

    Only a cell that lies below the pack and falls: a BMS that balances lets cells fall that lie above it.
    """
    capacity, slope_at = context.car.capacity_nominal_ah, context.ocv_slope
    if capacity is None or slope_at is None or windows.is_empty():
        return
    small = rules.leak_charge_c * capacity
    usable = windows.filter(
        pl.col("soc_pct").is_not_null() & ((pl.col("kind") == _REST) | (pl.col("current_a") <= small))
    )
    slopes = np.array([slope_at(soc) for soc in usable["soc_pct"].to_list()])
    steep = slopes >= rules.leak_min_mv_per_pct
    usable, slopes = usable.filter(pl.Series(steep)), slopes[steep]
    residual = _matrix(usable)
    if len(residual) < rules.leak_min_windows:
        return
    deficit_ah = residual / slopes[:, None] / 100 * capacity
    days = usable["to_at"].to_numpy().astype("datetime64[us]").astype(np.int64) / 86_400e6
    weights = np.minimum(usable["n"].to_numpy().astype(np.float64), rules.weight_cap)
    last_of_day = np.flatnonzero(np.diff(np.floor(days), append=np.inf))
    found: dict[int, list[dict[str, Any]]] = {}
    crossed: set[int] = set()
    for i in last_of_day.tolist():
        for span in rules.leak_days:
            first = int(np.searchsorted(days, days[i] - span))
            if i + 1 - first < rules.leak_min_windows or days[i] - days[first] < rules.leak_span_share * span:
                continue
            slope, error = _slopes(days[first : i + 1], deficit_ah[first : i + 1], weights[first : i + 1])
            # what fits too well by chance: no better than the steps of the voltage allow
            floor = rules.leak_floor_mv / np.median(slopes[first : i + 1]) / 100 * capacity
            centred = days[first : i + 1] - days[first : i + 1].mean()
            error = np.maximum(
                error,
                floor / math.sqrt(float((weights[first : i + 1] / weights[first : i + 1].max() * centred**2).sum())),
            )
            leak, sd = -slope / 24 * 1000, error / 24 * 1000
            fell = residual[max(first, i - 2) : i + 1].mean(axis=0) - residual[first : first + 3].mean(axis=0)
            lies = residual[max(first, i - 2) : i + 1].mean(axis=0)
            is_sure = (leak > rules.leak_z * sd) & (lies <= -rules.leak_below_mv) & (fell <= -rules.leak_fell_mv)
            looked_at = is_sure | np.isin(np.arange(len(leak)), list(crossed))
            for cell in np.flatnonzero(np.isfinite(leak) & looked_at).tolist():
                if is_sure[cell] and leak[cell] >= rules.leak_watch_ma:
                    crossed.add(cell)
                value = float(leak[cell]) if is_sure[cell] else min(float(leak[cell]), 0.9 * rules.leak_watch_ma)
                reading = {
                    "code": "CELL_SELF_DISCHARGE",
                    "item_no": int(cell) + 1,
                    **_span(usable, int(i)),
                    "from_at": usable["from_at"][first],
                    "n": int(i + 1 - first),
                    "value": value,
                    "sd": float(sd[cell]),
                    "watch": rules.leak_watch_ma,
                    "warn": rules.leak_warn_ma,
                    "alarm": rules.leak_alarm_ma,
                    "detail": json.dumps(
                        {
                            "leak_ma": round(float(leak[cell]), 1),
                            "fell_mv": round(float(fell[cell]), 1),
                            "lo_ma": round(float(leak[cell] - 1.645 * sd[cell]), 1),
                            "hi_ma": round(float(leak[cell] + 1.645 * sd[cell]), 1),
                            "days": span,
                        },
                        sort_keys=True,
                    ),
                }
                mine = found.setdefault(int(cell), [])
                if mine and mine[-1]["to_at"] == reading["to_at"]:
                    if reading["value"] > mine[-1]["value"]:
                        mine[-1] = reading
                else:
                    mine.append(reading)
    for leaking in sorted(crossed):
        yield from found[leaking]


def _voltages(windows: pl.DataFrame, context: Context, rules: CellRules) -> Iterator[dict[str, Any]]:
    """Cells beyond the limits of their chemistry, per day, where it lasted."""
    limits = rules.lfp_limits_v if context.car.chemistry == "LFP" else rules.nmc_limits_v
    for kind, code, sign, lines in ((_LOW, "CELL_UNDERVOLT", -1, limits[0]), (_HIGH, "CELL_OVERVOLT", 1, limits[1])):
        days = windows.filter(pl.col("kind") == kind).to_dicts()
        if not any(sign * (d["value"] - lines[0]) >= 0 for d in days):
            continue
        items = {json.loads(d["detail"])["cell"] for d in days if sign * (d["value"] - lines[0]) >= 0}
        for cell in sorted(items, key=lambda c: c or 0):
            for d in days:
                crossed = sign * (d["value"] - lines[0]) >= 0
                if crossed and json.loads(d["detail"])["cell"] != cell:
                    continue
                yield {
                    "code": code,
                    "item_no": cell,
                    "from_at": d["from_at"],
                    "to_at": d["to_at"],
                    "n": d["n"],
                    "value": d["value"],
                    "watch": lines[0],
                    "warn": lines[1],
                    "alarm": lines[2],
                    "is_low_bad": sign < 0,
                    "detail": d["detail"],
                }


def _span(windows: pl.DataFrame, i: Any) -> dict[str, Any]:
    row = int(i)
    return {"from_at": windows["from_at"][row], "to_at": windows["to_at"][row], "n": windows["n"][row]}


def cell_months(windows: pl.DataFrame) -> pl.DataFrame:
    """CELL_MONTH_SCHEMA: every cell of every month with a rest or a steady charge. ``windows`` have measured_month."""
    made: list[pl.DataFrame] = []
    named = {
        _REST: "residual_rest_mv",
        _CHARGE: "residual_charge_mv",
        _LOWEST: "lowest_share_pct",
        _HIGHEST: "highest_share_pct",
    }
    chosen = windows.filter(pl.col("kind").is_in(list(named)))
    for (month,), of_month in sorted(chosen.partition_by("measured_month", as_dict=True).items()):
        columns: dict[str, Any] = {}
        rows = 0
        for kind, name in named.items():
            mine = of_month.filter(pl.col("kind") == kind)
            values = _matrix(mine)
            if not len(values):
                continue
            weight = np.where(np.isfinite(values), mine["n"].to_numpy()[:, None], 0)
            total = weight.sum(axis=0)
            with np.errstate(invalid="ignore", divide="ignore"):
                mean = np.nansum(np.nan_to_num(values) * weight, axis=0) / np.where(total, total, np.nan)
            columns[name] = pl.Series(mean, dtype=pl.Float64).fill_nan(None)
            rows += int(mine["n"].sum()) if kind in (_REST, _CHARGE) else 0
        if not columns:
            continue
        width = max(len(c) for c in columns.values())
        frame = pl.DataFrame({"cell_no": np.arange(1, width + 1)})
        for name, series in columns.items():
            frame = frame.with_columns(
                (series if len(series) == width else pl.Series([None] * width, dtype=pl.Float64)).alias(name)
            )
        made.append(frame.with_columns(measured_month=pl.lit(month), n=pl.lit(rows)))
    if not made:
        return pl.DataFrame(schema=CELL_MONTH_SCHEMA)
    found = pl.concat(made, how="diagonal")
    return found.select(
        (pl.col(name) if name in found.columns else pl.lit(None)).cast(kind).alias(name)
        for name, kind in CELL_MONTH_SCHEMA.items()
    )


def _unjudged(windows: pl.DataFrame, context: Context) -> dict[str, str]:
    rules: CellRules = context.rules.cells
    codes = ("CELL_OUTLIER", "CELL_LOWEST", "CELL_SPREAD", "CELL_SELF_DISCHARGE")
    if windows.is_empty():
        reason = "no cell voltages at rest, on charge or at all"
        return dict.fromkeys((*codes, "CELL_OVERVOLT", "CELL_UNDERVOLT"), reason)
    rests = windows.filter(pl.col("kind") == _REST)
    charges = windows.filter(pl.col("kind") == _CHARGE)
    found = {}
    if max(rests.height, charges.height) < rules.pooled_windows:
        found["CELL_OUTLIER"] = f"fewer than {rules.pooled_windows} rests and steady charges"
    if rests.height < rules.lowest_windows:
        found["CELL_LOWEST"] = f"fewer than {rules.lowest_windows} rests with cell voltages"
    if charges.is_empty():
        found["CELL_SPREAD"] = "no charge at a steady current"
    slope = context.ocv_slope
    socs = [s for s in [*rests["soc_pct"].to_list(), *charges["soc_pct"].to_list()] if s is not None]
    if context.car.capacity_nominal_ah is None or slope is None:
        found["CELL_SELF_DISCHARGE"] = "capacity or chemistry not known"
    elif sum(slope(s) >= rules.leak_min_mv_per_pct for s in socs) < rules.leak_min_windows:
        found["CELL_SELF_DISCHARGE"] = "too few rests where the voltage tells the charge (flat curve, or no SoC)"
    return found


DETECTOR = Detector(
    name="cells",
    codes=("CELL_OUTLIER", "CELL_LOWEST", "CELL_SPREAD", "CELL_SELF_DISCHARGE", "CELL_OVERVOLT", "CELL_UNDERVOLT"),
    columns=("cell_mv", "cell_min_mv", "cell_max_mv", "pack_current_a", "speed_kmh", "soc_pct", "pack_temp_c"),
    windows=_windows,
    readings=_readings,
    unjudged=_unjudged,
)
