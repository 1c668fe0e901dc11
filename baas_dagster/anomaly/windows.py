"""Small tools of the detectors: what lasted, time stamps, means without missing values.

Belongs here: what several detectors need to cut windows out of rows. Does not belong here: any line or number.
"""

from __future__ import annotations

from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from baas_dagster.anomaly.rows import Rows

__all__ = ["days_of", "held", "listed", "mean_of", "moment", "number"]

F64 = NDArray[np.float64]


def moment(seconds: float) -> datetime:
    """KST time stamp of seconds since 1970."""
    found: datetime = np.datetime64(round(seconds * 1e6), "us").astype(object)
    return found


def mean_of(values: F64) -> float | None:
    """Mean of what is there; None where nothing is."""
    there = values[np.isfinite(values)]
    return float(there.mean()) if len(there) else None


def number(value: float) -> float | None:
    """A number, or None for NaN."""
    return float(value) if np.isfinite(value) else None


def listed(values: F64) -> list[float | None]:
    """A list for a window: three decimals, None for NaN."""
    return [round(float(v), 3) if np.isfinite(v) else None for v in values]


def days_of(rows: Rows) -> list[tuple[int, NDArray[np.int64]]]:
    """(KST day, its row numbers) in time."""
    if not len(rows):
        return []
    edges = np.flatnonzero(np.diff(rows.day)) + 1
    return [(int(rows.day[part[0]]), part) for part in np.split(np.arange(len(rows)), edges)]


def held(values: F64, rows: Rows, *, hold_s: float, min_rows: int, gap_s: float) -> F64:
    """The least level that values (n,) or (n, items) kept up, at the last row of it; NaN where it was not kept up.

    Kept up: over at least ``min_rows`` rows that span at least ``hold_s``, with no gap beyond ``gap_s``. A missing
    value in between ends it. For the greatest level of a low figure, pass it with a minus. Time counts, not rows: a
    log may be written every second while driving and once a minute while charging.
    """
    n = len(rows)
    out = np.full(values.shape, np.nan)
    last = np.arange(n)
    # rows a little faster than usual may not span the whole time: nine tenths of it are enough
    first = np.searchsorted(rows.t_s, rows.t_s - 0.9 * hold_s, side="right") - 1
    first = np.minimum(first, last - (min_rows - 1))
    breaks = np.cumsum(rows.gap_s > gap_s)
    whole = (first >= 0) & (breaks.take(np.maximum(first, 0)) == breaks)
    first, last = first[whole], last[whole]
    if not len(last):
        return out
    # minimum over 1, 2, 4, ... rows: two of them cover a window of any length
    levels = np.frexp(last - first + 1)[1] - 1
    least, size = np.where(np.isfinite(values), values, -np.inf), 1
    for level in range(int(levels.max()) + 1):
        mine = levels == level
        if mine.any():
            kept = np.minimum(least.take(first[mine], axis=0), least.take(last[mine] - size + 1, axis=0))
            kept[kept == -np.inf] = np.nan
            out[last[mine]] = kept
        if len(least) > size:
            least, size = np.minimum(least[size:], least[:-size]), size * 2
    return out
