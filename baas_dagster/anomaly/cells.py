"""Cells, STITCHED: outliers, the lowest cell, spread on charge, over- and undervoltage.

Belongs here: readings from the windows of ``cell_windows`` over a device's whole history. Does not belong here: which
rows make a window (``cell_windows``), self-discharge (``leakage``).

A rest of 20 mV steps says little: its residuals are good to 6 mV. Whole days of rests and slow charges are gathered
until the mean is good to ``block_sd_mv`` (a block): a day with a slow charge, two or three with short rests at 20 mV
steps. A block is one independent window.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from baas_dagster.anomaly import leakage
from baas_dagster.anomaly.cell_windows import (
    CELL_MONTH_SCHEMA,
    COLUMNS,
    Bools,
    Evidence,
    cell_months,
    cell_windows,
    evidence,
    from_median,
    matrix,
    usual_width,
    variance,
    weighted_mean,
)
from baas_dagster.anomaly.detector import Context, Detector, readings_frame
from baas_dagster.anomaly.rows import Car, Rows
from baas_dagster.anomaly.rules import AnomalyRules, CellRules

__all__ = ["CELL_MONTH_SCHEMA", "DETECTOR", "cell_months", "false_discovery"]

F64 = NDArray[np.float64]
_Row = dict[str, Any]

CODES = ("CELL_OUTLIER", "CELL_LOWEST", "CELL_SPREAD", "CELL_SELF_DISCHARGE", "CELL_OVERVOLT", "CELL_UNDERVOLT")
_MAD_SD = 1.4826  # median absolute deviation to standard deviation, normal distribution


def windows(rows: Rows, car: Car, rules: AnomalyRules) -> pl.DataFrame:
    """WINDOW_SCHEMA of one partition (LOCAL)."""
    return cell_windows(rows, car, rules.cells)


def readings(found: pl.DataFrame, context: Context) -> pl.DataFrame:
    """READING_SCHEMA of one device from its windows of all months."""
    rules: CellRules = context.rules.cells
    if found.is_empty():
        return readings_frame([])
    found = found.sort("from_at", "to_at", "kind")
    width = usual_width(found, context.car.cell_count)
    found = found.filter(pl.col("values").list.len() == width)
    if found.is_empty() or not width:
        return readings_frame([])
    known = evidence(found, width, context.car.capacity_nominal_ah, rules)
    blocks = gather(known, rules)
    rows = [
        *_outliers(blocks, rules),
        *_lowest(blocks, known, found.filter(pl.col("kind") == "day_lowest"), rules),
        *_spread(found.filter(pl.col("kind") == "charge"), width, rules),
        *_volts(found, width, context.car.chemistry, rules),
        *leakage.leaks(known, context),
    ]
    return readings_frame(rows)


def unjudged(found: pl.DataFrame, context: Context) -> dict[str, str]:
    """Code -> why this car cannot be judged by it."""
    rules: CellRules = context.rules.cells
    width = usual_width(found, context.car.cell_count) if not found.is_empty() else 0
    own = found.filter(pl.col("values").list.len() == width) if width else found.clear()
    if own.is_empty():
        return dict.fromkeys(CODES, "no cell voltages are delivered")
    why: dict[str, str] = {}
    known = evidence(own, width, context.car.capacity_nominal_ah, rules)
    blocks = gather(known, rules)
    if len(blocks) < rules.rest_min_n:
        said = f"too few rests: {len(known)} rests and slow charges make {len(blocks)} of {rules.rest_min_n} judgements"
        why |= dict.fromkeys(("CELL_OUTLIER", "CELL_LOWEST"), said)
    charges = own.filter(pl.col("kind") == "charge").height
    if charges < rules.rest_min_n:
        why["CELL_SPREAD"] = f"too few charges with steady current: {charges} of {rules.rest_min_n}"
    if leak := leakage.unjudged(known, context):
        why["CELL_SELF_DISCHARGE"] = leak
    return why


# --- blocks -----------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Blocks:
    """Mean residuals of blocks of rests and slow charges, in time."""

    t_d: F64  # (n,) days since 1970, middle
    from_at: list[Any]
    to_at: list[Any]
    residual_mv: F64  # (n, cells) from the median cell
    sd_mv: F64  # (n,)
    rests: list[int]  # windows in each
    rows: list[int]
    soc_pct: F64

    def __len__(self) -> int:
        return len(self.t_d)


def gather(known: Evidence, rules: CellRules) -> Blocks:
    """Days in order of time until the mean residual is good to ``block_sd_mv``; what takes too long is given up."""
    spans: list[tuple[int, int]] = []
    begin, precision = 0, 0.0
    wanted = 1 / rules.block_sd_mv**2
    day = np.floor(known.t_d)
    is_last = np.append(np.diff(day) > 0, True)  # of its day
    for i in range(len(known)):
        precision += 1 / known.var_mv2[i]
        while known.t_d[i] - known.t_d[begin] > rules.block_days_max:
            precision -= 1 / known.var_mv2[begin]
            begin += 1
        if precision >= wanted and is_last[i]:
            spans.append((begin, i + 1))
            begin, precision = i + 1, 0.0
    means = [weighted_mean(known.residual_mv[a:b], 1 / known.var_mv2[a:b]) for a, b in spans]
    width = known.residual_mv.shape[1]
    return Blocks(
        t_d=np.array([known.t_d[a:b].mean() for a, b in spans]),
        from_at=[known.from_at[a] for a, _ in spans],
        to_at=[known.to_at[a:b].max() for a, b in spans],
        residual_mv=np.array([from_median(m) for m in means]).reshape(-1, width),
        sd_mv=np.array([(1 / known.var_mv2[a:b]).sum() ** -0.5 for a, b in spans]),
        rests=[b - a for a, b in spans],
        rows=[int(known.rows[a:b].sum()) for a, b in spans],
        soc_pct=np.array([_mean(known.soc_pct[a:b]) for a, b in spans]),
    )


def _mean(values: F64) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")


def spread_of(values: F64) -> float:
    """Robust standard deviation of the known values; 0 of none."""
    known = values[~np.isnan(values)]
    return float(_MAD_SD * np.median(np.abs(known - np.median(known)))) if len(known) else 0.0


def false_discovery(z: F64, q: float) -> Bools:
    """Which of the z (two-sided) are discoveries at a false discovery rate ``q`` (Benjamini and Hochberg 1995).

    NaN is none.
    """
    p = np.array([math.erfc(abs(v) / math.sqrt(2)) if np.isfinite(v) else 1.0 for v in z.tolist()])
    order = np.sort(p)
    under = np.flatnonzero(order <= q * np.arange(1, len(p) + 1) / max(int(np.isfinite(z).sum()), 1))
    return np.asarray((p <= order[under[-1]]) & np.isfinite(z)) if len(under) else np.zeros(len(p), dtype=bool)


def _rounded(value: float, digits: int = 2) -> float | None:
    return round(float(value), digits) if np.isfinite(value) else None


# --- CELL_OUTLIER -----------------------------------------------------------------------------------------------------
def _outliers(blocks: Blocks, rules: CellRules) -> Iterator[_Row]:
    """Residual of each cell that was ever off; watched earlier where it moves away from the pack.

    Value: the residual without its sign. Line: ``outlier_z`` robust standard deviations of the block.
    """
    if not len(blocks):
        return
    residual = blocks.residual_mv
    scale = np.array([max(spread_of(r), rules.sd_floor_mv) for r in residual])
    z = residual / scale[:, None]
    far = np.array([false_discovery(row, rules.false_discovery) for row in z]) & (np.abs(z) >= rules.outlier_z)
    speed = _speeds(blocks, rules)
    moving = (np.abs(speed) >= rules.moving_mv_per_month) & (np.abs(z) >= rules.moving_z) & (speed * residual > 0)
    for cell in np.flatnonzero((far | moving).any(axis=0)).tolist():
        for i in np.flatnonzero(~np.isnan(residual[:, cell])).tolist():
            warn = rules.outlier_z * scale[i]
            value = abs(residual[i, cell])
            if not far[i, cell]:
                value = min(value, rules.unsure_share * warn)
            detail = {
                "residual_mv": _rounded(residual[i, cell]),
                "z": _rounded(z[i, cell]),
                "pack_sd_mv": _rounded(scale[i]),
                "rests": blocks.rests[i],
                "soc_pct": _rounded(blocks.soc_pct[i], 1),
                "mv_per_month": _rounded(speed[i, cell]),
            }
            yield {
                "code": "CELL_OUTLIER", "item_no": cell + 1, "from_at": blocks.from_at[i], "to_at": blocks.to_at[i],
                "n": blocks.rows[i], "value": value, "sd": blocks.sd_mv[i],
                "watch": rules.moving_z * scale[i] if moving[i, cell] else None, "warn": warn,
                "alarm": max(rules.outlier_alarm_mv, 2 * warn), "detail": json.dumps(detail, sort_keys=True),
            }  # fmt: skip


def _speeds(blocks: Blocks, rules: CellRules) -> F64:
    """(blocks, cells) mV a month that a cell moves by at least, over the last ``moving_days`` of each block; 0: unsure.

    The error of a slope is at least its spread over the cells: what moves all cells (charge, temperature) is no news.
    """
    level = _at_one_charge(blocks, rules)
    speed = np.zeros(level.shape)
    for i in range(len(blocks)):
        first = int(np.searchsorted(blocks.t_d, blocks.t_d[i] - rules.moving_days))
        days = blocks.t_d[first : i + 1] - blocks.t_d[i]
        if len(days) < rules.moving_min_blocks or -days[0] < rules.moving_min_days:
            continue
        part = level[first : i + 1]
        weight = 1 / blocks.sd_mv[first : i + 1] ** 2
        centred = days - np.average(days, weights=weight)
        spread = float(weight @ centred**2)
        slope = (weight * centred) @ part / spread  # NaN where a value is missing
        fitted = part - weighted_mean(part, weight) - centred[:, None] * slope
        chi = np.sqrt((weight[:, None] * fitted**2).sum(axis=0) / (len(days) - 2))
        known = chi[~np.isnan(chi)]
        if not len(known):
            continue
        error = np.maximum(chi, max(1.0, float(np.median(known)))) / math.sqrt(spread)
        slope = from_median(slope)
        error = np.maximum(error, spread_of(slope))
        sure = np.sign(slope) * np.maximum(np.abs(slope) - rules.moving_sds * error, 0.0) * 30
        speed[i] = np.where(false_discovery(slope / error, rules.false_discovery), sure, 0.0)
    return speed


def _at_one_charge(blocks: Blocks, rules: CellRules) -> F64:
    """(blocks, cells) residuals without what follows charge: a cell of less capacity is not falling at low charge.

    The factor (mV per %) is taken from the changes between neighbouring blocks, which a fall in time hardly touches.
    """
    change = np.diff(blocks.residual_mv, axis=0)
    soc = np.diff(blocks.soc_pct)
    weight = 1 / (blocks.sd_mv[1:] ** 2 + blocks.sd_mv[:-1] ** 2 + 2 * rules.window_sd_mv**2)
    good = ~np.isnan(soc)
    if not good.any():
        return blocks.residual_mv
    change, soc, weight = np.nan_to_num(change[good]), soc[good], weight[good]
    factor = (weight * soc) @ change / (float(weight @ soc**2) + rules.charge_slope_sd**-2)
    known = blocks.soc_pct[~np.isnan(blocks.soc_pct)]
    off = np.nan_to_num(blocks.soc_pct - np.median(known))
    return np.asarray(blocks.residual_mv - off[:, None] * factor)


# --- CELL_LOWEST ------------------------------------------------------------------------------------------------------
def _lowest(blocks: Blocks, known: Evidence, days: pl.DataFrame, rules: CellRules) -> Iterator[_Row]:
    """Share of the rest rows in which a cell is the lowest, where it also has fallen.

    Some cell is always the lowest, and at 1 mV steps always the same one: what counts is that it came down, from the
    level it had before, by more than chance and ``fall_mv``, and stands apart from the pack.
    """
    if not len(blocks) or days.is_empty():
        return
    share = matrix(days, "values", blocks.residual_mv.shape[1])
    weight = days["n"].cast(pl.Float64).to_numpy()
    day = np.array(days["from_at"].dt.date().to_list())
    fallen = _fallen(blocks, rules)
    scale = np.array([max(spread_of(r), rules.sd_floor_mv) for r in blocks.residual_mv])
    is_off = blocks.residual_mv <= -rules.lowest_z * scale[:, None]
    crosses = is_off & (fallen >= rules.fall_mv)
    found: list[tuple[int, F64, int]] = []
    for i in range(len(blocks)):
        inside = (day >= blocks.from_at[i].date()) & (day <= blocks.to_at[i].date())
        if inside.any():  # a block of a slow charge alone may lie on a day without rest rows
            found.append((i, weighted_mean(share[inside], weight[inside]), int(weight[inside].sum())))
    ever = np.zeros(share.shape[1], dtype=bool)
    for i, own, _ in found:
        ever |= crosses[i] & (own >= rules.lowest_watch_pct)
    for cell in np.flatnonzero(ever).tolist():
        for i, own, n in found:
            if np.isnan(own[cell]):
                continue
            value = float(own[cell])
            if not crosses[i, cell]:
                value = min(value, rules.unsure_share * rules.lowest_watch_pct)
            detail = {
                "residual_mv": _rounded(blocks.residual_mv[i, cell]),
                "fallen_mv": _rounded(fallen[i, cell]),
                "lowest_share_pct": _rounded(own[cell], 1),
            }
            yield {
                "code": "CELL_LOWEST", "item_no": cell + 1, "from_at": blocks.from_at[i], "to_at": blocks.to_at[i],
                "n": n, "value": value, "watch": rules.lowest_watch_pct, "warn": rules.lowest_warn_pct,
                "detail": json.dumps(detail, sort_keys=True),
            }  # fmt: skip


def _fallen(blocks: Blocks, rules: CellRules) -> F64:
    """(blocks, cells) mV below the level before, where significant over the cells, else 0.

    A level is the median of three blocks. The upper ones of many are high by chance, for all cells alike, so that the
    fall of the median cell is taken off.
    """
    residual = _at_one_charge(blocks, rules)
    fallen = np.zeros(residual.shape)
    levels = [np.median(residual[i - 2 : i + 1], axis=0) for i in range(2, len(blocks))]  # of blocks i-2 to i
    for i in range(3, len(blocks)):
        first = max(int(np.searchsorted(blocks.t_d, blocks.t_d[i] - rules.fall_days)) - 2, 0)
        earlier = np.array(levels[first : i - 2])
        if not len(earlier):
            continue
        fall = -from_median(residual[i] - np.quantile(earlier, rules.fall_quantile, axis=0))
        z = fall / max(spread_of(fall), 1.6 * rules.block_sd_mv)  # two means, one of them of three blocks
        found = false_discovery(z, rules.false_discovery) & (fall > 0)
        fallen[i] = np.where(found, fall, 0.0)
    return fallen


# --- CELL_SPREAD ------------------------------------------------------------------------------------------------------
def _spread(charges: pl.DataFrame, width: int, rules: CellRules) -> Iterator[_Row]:
    """Range of the time-averaged residuals of a charge; item: the cell furthest from the median.

    The line rises with the pack's own width: the median over the charges before of the range without its furthest cell,
    so that one bad cell does not raise the line it is judged by.
    """
    if charges.is_empty():
        return
    residual = matrix(charges, "values", width)
    var, _ = variance(charges, rules)
    begin, end = charges["from_at"].to_list(), charges["to_at"].to_list()
    n, current, soc = charges["n"].to_list(), charges["current_a"].to_list(), charges["soc_pct"].to_list()
    pause = timedelta(seconds=rules.session_pause_s)
    cuts = [0, *(i for i in range(1, len(begin)) if begin[i] - end[i - 1] > pause), len(begin)]
    sessions = list(pairwise(cuts))
    means = [from_median(weighted_mean(residual[a:b], 1 / var[a:b])) for a, b in sessions]
    own = [_range_without(mean) for mean in means]
    lines, furthest, values = [], [], []
    for i, (a, _) in enumerate(sessions):
        recent = [own[j] for j in range(i) if begin[a] - begin[sessions[j][0]] <= timedelta(days=rules.spread_own_days)]
        width_mv = float(np.median(recent)) if len(recent) >= rules.spread_own_min else 0.0
        warn = max(rules.spread_warn_mv, rules.spread_own_factor * width_mv)
        lines.append((warn, warn * rules.spread_alarm_mv / rules.spread_warn_mv))
        furthest.append(int(np.nanargmax(np.abs(means[i]))) if np.isfinite(means[i]).any() else -1)
        values.append(float(np.nanmax(means[i]) - np.nanmin(means[i])) if furthest[-1] >= 0 else float("nan"))
    ever = sorted({cell for cell, value, line in zip(furthest, values, lines, strict=True) if value >= line[0]})
    for cell in ever:
        for i, (a, b) in enumerate(sessions):
            # where another cell is furthest, this one is answered for by its own distance from the cell opposite
            mean = means[i]
            if np.isnan(mean[cell]):
                continue
            value = values[i] if furthest[i] == cell else min(values[i], _span_of(mean, cell))
            detail = {
                "residual_mv": _rounded(mean[cell]),
                "own_width_mv": _rounded(own[i]),
                "current_a": _rounded(float(np.mean([c for c in current[a:b] if c is not None] or [np.nan])), 1),
                "soc_pct": _rounded(float(np.mean([s for s in soc[a:b] if s is not None] or [np.nan])), 1),
            }
            yield {
                "code": "CELL_SPREAD", "item_no": cell + 1, "from_at": begin[a], "to_at": end[b - 1],
                "n": sum(n[a:b]), "value": value, "sd": float((1 / var[a:b]).sum() ** -0.5), "warn": lines[i][0],
                "alarm": lines[i][1], "detail": json.dumps(detail, sort_keys=True),
            }  # fmt: skip


def _range_without(mean: F64) -> float:
    """Range of the residuals without the cell furthest from the median."""
    known = mean[~np.isnan(mean)]
    if len(known) < 3:
        return 0.0
    rest = np.delete(known, int(np.abs(known).argmax()))
    return float(rest.max() - rest.min())


def _span_of(mean: F64, cell: int) -> float:
    """Distance of a cell from the middle 98 % of the others on the opposite side."""
    known = mean[~np.isnan(mean)]
    low, high = np.quantile(known, [0.01, 0.99])
    return float(max(mean[cell] - low, high - mean[cell]))


# --- CELL_UNDERVOLT, CELL_OVERVOLT ------------------------------------------------------------------------------------
def _volts(found: pl.DataFrame, width: int, chemistry: str | None, rules: CellRules) -> Iterator[_Row]:
    """Lowest and highest lasting voltage of each day, of every cell that was ever beyond a line.

    Without a known chemistry the wider limits hold: the lower ones of LFP, the upper ones of NMC. Load and fast charge
    move all cells alike; a cell counts where it stands out from them, or is beyond the alarm line.
    """
    is_lfp = (chemistry or "").upper().startswith("LFP")
    high = rules.overvolt_lfp_v if is_lfp else rules.overvolt_nmc_v
    low = rules.undervolt_lfp_v if is_lfp or not chemistry else rules.undervolt_nmc_v
    for kind, code, lines, sign in (("day_min", "CELL_UNDERVOLT", low, -1), ("day_max", "CELL_OVERVOLT", high, 1)):
        days = found.filter(pl.col("kind") == kind)
        if days.is_empty():
            continue
        volts = matrix(days, "values", width) / 1000
        median = np.array([np.median(v[~np.isnan(v)]) if (~np.isnan(v)).any() else np.nan for v in volts])
        shift = np.clip(sign * (median - lines[0]) + rules.volt_apart_v, 0.0, rules.volt_shift_max_v)
        shift = sign * np.nan_to_num(shift)
        with np.errstate(invalid="ignore"):
            beyond = sign * volts >= sign * (lines[0] + shift)[:, None]
            ever = (beyond | (sign * volts >= sign * lines[2])).any(axis=0)
        begin, end, n = days["from_at"].to_list(), days["to_at"].to_list(), days["n"].to_list()
        for cell in np.flatnonzero(ever).tolist():
            for i in np.flatnonzero(~np.isnan(volts[:, cell])).tolist():
                watch, warn = (sign * min(sign * (line + shift[i]), sign * lines[2]) for line in lines[:2])
                yield {
                    "code": code, "item_no": cell + 1, "from_at": begin[i], "to_at": end[i], "n": n[i],
                    "value": round(float(volts[i, cell]), 3), "watch": watch, "warn": warn, "alarm": lines[2],
                    "is_low_bad": sign < 0, "detail": json.dumps({"pack_median_v": _rounded(median[i], 3)}),
                }  # fmt: skip


DETECTOR = Detector("cells", CODES, COLUMNS, windows, readings, unjudged)
