"""Self-discharge of a cell: its residual against time, in mA with standard error.

Belongs here: the regression, and what tells a leak from balancing and from a step. Does not belong here: residuals of
rests (``cell_windows``).

A leak I takes 2.4 I / C % of charge from a cell each day (mA, Ah), so its residual falls by that times dOCV/dSoC
(DOMAIN 7). It works all the time, not only while parked: the residual is fitted against elapsed days, times the slope
of the curve at the charge of each rest, so that rests on a plateau say little and those on a steep part much. What
follows charge (cells of unlike capacity) and current (resistance) is fitted beside it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from baas_dagster.anomaly.cell_windows import Evidence
from baas_dagster.anomaly.detector import Context
from baas_dagster.anomaly.rules import CellRules

__all__ = ["leaks", "unjudged"]

F64 = NDArray[np.float64]
_Row = dict[str, Any]

_MA_PER_PCT_PER_DAY = 1 / 2.4  # mA per (% a day x Ah): 1 mA over 24 h is 0.024 Ah, of C Ah 2.4 / C %


@dataclass(frozen=True)
class _Fit:
    """Leak of every cell over one window."""

    days: float
    first: int
    last: int
    leak_ma: F64
    sd_ma: F64
    level_mv: F64  # at the end of the window, from the median cell


def leaks(known: Evidence, context: Context) -> Iterator[_Row]:
    """A reading a day of each cell that ever leaked: the best known of the sliding windows that end there.

    Lines are those of the rules plus ``leak_sds`` standard errors, so that the lower end of the interval is judged.
    """
    rules: CellRules = context.rules.cells
    slope = _slopes(known, context, rules)
    capacity = context.car.capacity_nominal_ah
    if slope is None or not capacity or len(known) < rules.leak_min_rests:
        return
    ends = np.flatnonzero(np.append(np.diff(np.floor(known.t_d)) > 0, True))  # last window of each day
    fits = [[f for d in rules.leak_windows_d if (f := _fit(known, slope, int(e), d, capacity, rules))] for e in ends]
    cells = known.residual_mv.shape[1]
    # what each cell would be read as, and whether it holds what it claims
    best: list[tuple[int, F64, F64, list[_Fit]]] = []
    for e, options in zip(ends.tolist(), fits, strict=True):
        if options:
            lower = np.array([f.leak_ma - rules.leak_sds * f.sd_ma for f in options])
            lower = np.where(np.isnan(lower), -np.inf, lower)
            best.append((e, lower.argmax(axis=0).astype(np.float64), lower.max(axis=0), options))
    borne_out: dict[tuple[int, int], bool] = {}
    ever = np.zeros(cells, dtype=bool)
    for at, (_, choice, lower, options) in enumerate(best):
        for cell in np.flatnonzero(lower >= rules.leak_ma[0]).tolist():
            fit = options[int(choice[cell])]
            good = bool(fit.level_mv[cell] <= -rules.leak_level_mv) and _is_ramp(known, slope, fit, cell, rules)
            borne_out[at, cell] = good
            ever[cell] |= good
    for cell in np.flatnonzero(ever).tolist():
        for at, (e, choice, _, options) in enumerate(best):
            fit = options[int(choice[cell])]
            leak, sd = float(fit.leak_ma[cell]), float(fit.sd_ma[cell])
            if not np.isfinite(leak) or sd > rules.leak_sd_max_ma:
                continue
            watch, warn, alarm = (line + rules.leak_sds * sd for line in rules.leak_ma)
            value = leak if borne_out.get((at, cell), True) else min(leak, rules.unsure_share * watch)
            detail = {
                "leak_ma": round(leak, 1),
                "leak_lo_ma": round(leak - rules.leak_sds * sd, 1),
                "residual_mv": round(float(fit.level_mv[cell]), 1),
                "window_d": fit.days,
                "slope_mv_per_pct": round(float(np.mean(slope[fit.first : fit.last])), 2),
                "capacity_ah": capacity,
            }
            yield {
                "code": "CELL_SELF_DISCHARGE", "item_no": cell + 1, "from_at": known.from_at[fit.first],
                "to_at": known.to_at[e], "n": fit.last - fit.first, "value": value, "sd": sd, "watch": watch,
                "warn": warn, "alarm": alarm, "detail": json.dumps(detail, sort_keys=True),
            }  # fmt: skip


def unjudged(known: Evidence, context: Context) -> str | None:
    """Why self-discharge cannot be judged; None: it can."""
    rules: CellRules = context.rules.cells
    if not context.car.capacity_nominal_ah:
        return "the capacity is not known"
    slope = _slopes(known, context, rules)
    if slope is None:
        return "the slope of its voltage curve is not known"
    longest = max(rules.leak_windows_d)
    found = [_fit(known, slope, int(e), longest, context.car.capacity_nominal_ah, rules) for e in range(len(known))]
    if not any(found):
        return f"too few rests: {len(known)} rests and slow charges"
    best = min(float(np.nanmedian(f.sd_ma)) for f in found if f)
    if best > rules.leak_sd_max_ma:
        return f"its voltage is too flat or too coarse: a leak is known to {best:.0f} mA (1 sigma) at best"
    return None


def _slopes(known: Evidence, context: Context, rules: CellRules) -> F64 | None:
    """dOCV/dSoC of each rest, mV per %; None: nothing is known of the chemistry."""
    curve = context.ocv_slope
    if curve is None:
        is_nmc = (context.car.chemistry or "").upper().startswith(("NMC", "NCM"))
        return np.full(len(known), rules.slope_nmc_mv_per_pct) if is_nmc else None
    mid = float(curve(50.0))
    found = np.array([mid if np.isnan(soc) else float(curve(soc)) for soc in known.soc_pct.tolist()])
    return np.asarray(np.clip(np.nan_to_num(found, nan=mid), 0.0, rules.slope_max_mv_per_pct))


def _design(known: Evidence, slope: F64, part: slice) -> F64:
    """Columns: constant, slope x days (its factor is % a day), charge, current; centred."""
    days = known.t_d[part] - known.t_d[part].mean()
    return np.column_stack(
        [np.ones(len(days)), slope[part] * days, _centred(known.soc_pct[part]), _centred(known.current_a[part])]
    )


def _centred(values: F64) -> F64:
    known = values[~np.isnan(values)]
    return np.asarray(np.nan_to_num(values - known.mean(), nan=0.0)) if len(known) else np.zeros(len(values))


def _prior(rules: CellRules) -> F64:
    return np.array([0.0, 0.0, rules.leak_soc_sd**-2, rules.leak_current_sd**-2])


def _fit(known: Evidence, slope: F64, end: int, days: float, capacity: float, rules: CellRules) -> _Fit | None:
    """Weighted least squares of all cells over the window that ends with rest ``end``; None: too few rests."""
    first = int(np.searchsorted(known.t_d, known.t_d[end] - days))
    part = slice(first, end + 1)
    t = known.t_d[part]
    if (
        len(t) < rules.leak_min_rests
        or t[-1] - t[0] < rules.leak_min_span * days
        or len(np.unique(np.floor(t))) < rules.leak_min_days
    ):
        return None
    x, y, w = _design(known, slope, part), known.residual_mv[part], 1 / known.var_mv2[part]
    # a missing value takes the mean of its cell: rows with few cells were left out, so that they are rare
    holes = np.isnan(y)
    if holes.any():
        counts = np.maximum((~holes).sum(axis=0), 1)
        y = np.where(holes, np.where(holes, 0.0, y).sum(axis=0) / counts, y)
    normal = (x * w[:, None]).T @ x + np.diag(_prior(rules))
    if np.linalg.cond(normal) > 1e14:
        return None
    inverse = np.linalg.inv(normal)
    beta = inverse @ ((x * w[:, None]).T @ y)
    chi = np.sqrt((w[:, None] * (y - x @ beta) ** 2).sum(axis=0) / max(len(t) - 2, 1))
    error = np.sqrt(inverse[1, 1]) * np.maximum(np.maximum(chi, np.median(chi)), 1.0)
    fall = -(beta[1] - np.median(beta[1]))  # % a day
    # the spread over the cells is what chance, and what moves all of them, does to a slope
    error = np.maximum(error, 1.4826 * np.median(np.abs(fall - np.median(fall))))
    level = beta[0] + beta[1] * float(np.mean(slope[part])) * (t[-1] - t.mean())
    to_ma = capacity * _MA_PER_PCT_PER_DAY
    missing = holes.mean(axis=0) > 0.3
    return _Fit(
        days, first, end + 1, np.where(missing, np.nan, fall * to_ma), error * to_ma,
        level - float(np.median(level)),
    )  # fmt: skip


def _is_ramp(known: Evidence, slope: F64, fit: _Fit, cell: int, rules: CellRules) -> bool:
    """True where a steady fall (from some time on) explains the cell at least as well as one step, and holds robustly.

    A BMS that re-balances, a changed cell or a new firmware shift a residual in a step.
    """
    part = slice(fit.first, fit.last)
    x, w = _design(known, slope, part), 1 / known.var_mv2[part]
    others = np.delete(known.residual_mv[part], cell, axis=1)
    y = known.residual_mv[part, cell] - np.nanmedian(others, axis=1)
    good = ~np.isnan(y)
    x, y, w = x[good], y[good], w[good]
    days = x[:, 1] / np.maximum(slope[part][good], 1e-6)
    if len(y) < rules.leak_min_rests:
        return False
    ramp = step = np.inf
    onsets = np.unique(np.linspace(0, len(y) - 3, min(len(y) - 2, rules.leak_onsets)).astype(np.int64))
    for k in onsets.tolist():
        ramp = min(ramp, _misfit(np.where(days > days[k], slope[part][good] * (days - days[k]), 0.0), x, y, w, rules))
        if k >= 1:
            step = min(step, _misfit((np.arange(len(y)) > k).astype(np.float64), x, y, w, rules))
    return ramp <= step


def _misfit(shape: F64, x: F64, y: F64, w: F64, rules: CellRules) -> float:
    """Weighted squares left by a shape in place of the steady fall, outliers weighted down once."""
    design = np.column_stack([x[:, 0], shape, x[:, 2], x[:, 3]])
    prior = np.diag(_prior(rules) + 1e-9)
    weight = w
    left = y
    for _ in range(2):
        beta = np.linalg.solve((design * weight[:, None]).T @ design + prior, (design * weight[:, None]).T @ y)
        left = (y - design @ beta) * np.sqrt(w)
        weight = w * np.minimum(1.0, rules.leak_huber / np.maximum(np.abs(left), 1e-9))
    size = np.abs(left)
    huber = np.where(size <= rules.leak_huber, size**2, rules.leak_huber * (2 * size - rules.leak_huber))
    return float(huber.sum())
