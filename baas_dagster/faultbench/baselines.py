"""Two simple scores of a car that the inspection queue has to beat, and how scores are compared.

Belongs here: the baselines of issue 5 and the area under the ROC curve. Does not belong here: the queue's own score.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from baas_dagster.anomaly.rows import NO_VALUE, Car, Rows

__all__ = ["GBT_BITS", "GbtLimits", "auroc", "gbt_alarms", "gbt_score", "spread_score"]

F64 = NDArray[np.float64]
Flags = NDArray[np.bool_]

_BLOCK = 16_384


@dataclass(frozen=True)
class GbtLimits:
    """Fixed limits for the alarm bits of GB/T 32960.3. The standard names the bits and leaves the limits to the maker:
    these are common ones, the warn lines of DOMAIN 7 where it has them [prop]."""

    temperature_difference_k: float = 10.0
    high_temperature_c: float = 55.0
    cell_over_v: float = 4.25
    cell_under_v: float = 2.8
    lfp_cell_over_v: float = 3.65
    lfp_cell_under_v: float = 2.5
    soc_low_pct: float = 5.0
    soc_jump_pct: float = 5.0  # points between two rows ...
    soc_jump_s: float = 120.0  # ... less than this apart
    insulation_ohm_per_v: float = 500.0
    cell_difference_v: float = 0.3


GBT_BITS = (
    "temperature difference", "high temperature", "cell overvoltage", "cell undervoltage", "SoC low", "SoC jump",
    "insulation", "cell consistency",
)  # fmt: skip


def _lowest_highest(values: NDArray[np.int16] | None, n: int) -> tuple[F64, F64]:
    """Least and greatest value of each row; NaN where there is none."""
    low, high = np.full(n, np.nan), np.full(n, np.nan)
    if values is None or not values.shape[1]:
        return low, high
    for begin in range(0, n, _BLOCK):
        part = values[begin : begin + _BLOCK]
        none = part == NO_VALUE
        there = ~none.all(axis=1)
        least, most = np.where(none, 32_767, part).min(axis=1), np.where(none, -32_767, part).max(axis=1)
        low[begin : begin + _BLOCK] = np.where(there, least, np.nan)
        high[begin : begin + _BLOCK] = np.where(there, most, np.nan)
    return low, high


def gbt_alarms(rows: Rows, car: Car, limits: GbtLimits | None = None) -> Flags:
    """Which bit each row raises, (n, bits) in the order of ``GBT_BITS``; a missing value raises nothing."""
    limits = limits or GbtLimits()
    is_lfp = car.chemistry == "LFP"
    cell_low, cell_high = (x / 1000 for x in _lowest_highest(rows.cell_mv, len(rows)))
    cold, hot = (x / 10 for x in _lowest_highest(rows.module_temp_dc, len(rows)))
    soc, kohm, volts = rows["soc_pct"], rows["insulation_kohm"], rows["pack_voltage_v"]
    with np.errstate(invalid="ignore", divide="ignore"):
        step = np.abs(np.diff(soc, prepend=np.nan))
        found = [
            hot - cold >= limits.temperature_difference_k,
            hot >= limits.high_temperature_c,
            cell_high > (limits.lfp_cell_over_v if is_lfp else limits.cell_over_v),
            cell_low < (limits.lfp_cell_under_v if is_lfp else limits.cell_under_v),
            soc < limits.soc_low_pct,
            (step >= limits.soc_jump_pct) & (rows.gap_s < limits.soc_jump_s),
            (kohm > 0) & (1000 * kohm / volts < limits.insulation_ohm_per_v),
            cell_high - cell_low >= limits.cell_difference_v,
        ]
    return np.column_stack(found)


def gbt_score(months: Iterable[Rows], car: Car, limits: GbtLimits | None = None) -> float:
    """Score of a car by GB/T 32960 alone: bits it ever raised, and the share of its rows that raised any."""
    ever, raised, n = np.zeros(len(GBT_BITS), dtype=bool), 0, 0
    for rows in months:
        alarms = gbt_alarms(rows, car, limits)
        ever |= alarms.any(axis=0)
        raised += int(alarms.any(axis=1).sum())
        n += len(rows)
    return float(ever.sum()) + (raised / n if n else 0.0)


def spread_score(months: Iterable[Rows]) -> float:
    """Score of a car by its cells' instantaneous spread: the largest z-score of a row's spread against all its rows.

    0 where there are no cells or nothing varies.
    """
    spreads = [high - low for low, high in (_lowest_highest(rows.cell_mv, len(rows)) for rows in months)]
    spread = np.concatenate([np.zeros(0), *spreads])
    spread = spread[np.isfinite(spread)]
    if len(spread) < 2 or not spread.std() > 0:
        return 0.0
    return float((spread.max() - spread.mean()) / spread.std())


def auroc(scores: Sequence[float], labels: Sequence[bool]) -> float:
    """Area under the ROC curve: how often a faulty car's score is above a healthy one's, ties half (Mann-Whitney).

    Both in the same order, ``labels`` True for a faulty car. ValueError where one of the classes is empty, a score is
    NaN, or they are not as many.
    """
    values, is_faulty = np.asarray(scores, dtype=np.float64), np.asarray(labels, dtype=bool)
    if values.shape != is_faulty.shape or np.isnan(values).any():
        raise ValueError("a score for every label, and none missing")
    faulty, healthy = values[is_faulty], np.sort(values[~is_faulty])
    if not len(faulty) or not len(healthy):
        raise ValueError("faulty and healthy cars are needed")
    below, up_to = np.searchsorted(healthy, faulty, "left"), np.searchsorted(healthy, faulty, "right")
    return float((below + up_to).sum() / 2 / len(faulty) / len(healthy))
