"""Cells, LOCAL: residuals of every cell over rests and steady charges, how often each is lowest, extremes of the days.

Belongs here: which rows count, averaging, reading the windows back as matrices, the monthly table of all cells. Does
not belong here: lines and decisions (``cells``, ``leakage``).

Kinds of windows: ``rest`` and ``charge`` (values: mean residual from the middle of the pack, mV), ``day_lowest`` and
``day_highest`` (values: share of the day's rest rows in which the cell is the lowest or highest, %, ties shared out),
``day_min`` and ``day_max`` (values: lowest and highest voltage that lasted, mV). Rows under load are never used for
residuals: blocks of 32 cells are read one after another, so that the pack's own ramp looks like a spread.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from baas_dagster.anomaly.detector import WINDOW_SCHEMA
from baas_dagster.anomaly.rows import NO_VALUE, Car, Rows
from baas_dagster.anomaly.rules import RULES, CellRules

__all__ = ["CELL_MONTH_SCHEMA", "COLUMNS", "Evidence", "cell_months", "cell_windows", "evidence", "matrix"]

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
Bools = NDArray[np.bool_]

COLUMNS = (
    "recorded_at", "pack_current_a", "soc_pct", "speed_kmh", "pack_temp_c", "is_current_suspect",
    "is_pack_voltage_suspect", "cell_placeholder_n", "cell_mv",
)  # fmt: skip
"""Staged columns that ``cell_windows`` reads."""

CELL_MONTH_SCHEMA: dict[str, Any] = {
    "cell_no": pl.Int32,
    "residual_rest_mv": pl.Float64,
    "residual_charge_mv": pl.Float64,
    "lowest_share_pct": pl.Float64,
    "highest_share_pct": pl.Float64,
    "n": pl.Int64,  # rest rows with a value of the cell
    "measured_month": pl.String,
}

_BLOCK_ROWS = 4_096  # rows of which a float copy is made at a time: 3 MB at 192 cells
_STEPS = (20, 10, 5, 2)
_NONE = int(NO_VALUE)


def cell_windows(rows: Rows, car: Car, rules: CellRules) -> pl.DataFrame:
    """WINDOW_SCHEMA of one partition; no rows where no cells are delivered."""
    if rows.cell_mv is None or not len(rows):
        return pl.DataFrame(schema=WINDOW_SCHEMA)
    whole = np.zeros(len(rows), dtype=bool)
    limit = rules.full_row_share * rows.cell_mv.shape[1]
    for begin in range(0, len(rows), _BLOCK_ROWS):
        part = slice(begin, begin + _BLOCK_ROWS)
        whole[part] = (rows.cell_mv[part] != NO_VALUE).sum(axis=1) >= limit
    step = _resolution(rows.cell_mv[whole])
    usable = whole & ~(rows["is_current_suspect"] > 0) & ~(rows["is_pack_voltage_suspect"] > 0)
    rest, charge = _rest_rows(rows, usable, car, rules), _charge_rows(rows, usable, rules)
    new_run = rows.gap_s > rules.logging_gap_s
    found = [
        _residuals(rows, "rest", _runs(rest, new_run, 1, 0.0, rows.t_s), step, rules),
        _residuals(rows, "charge", _steady(rows, charge, new_run, rules), step, rules),
        _shares(rows, rest, rules),
        _extremes(rows, rules),
    ]
    return pl.concat([frame for frame in found if frame.height] or [pl.DataFrame(schema=WINDOW_SCHEMA)])


# --- which rows -------------------------------------------------------------------------------------------------------
def _rest_rows(rows: Rows, usable: Bools, car: Car, rules: CellRules) -> Bools:
    """Standing rows with a small current that has been small for a while, or since a silence."""
    limit = max(rules.rest_current_max_a, rules.rest_current_max_share * (car.capacity_nominal_ah or 0.0))
    standing = ~(rows["speed_kmh"] >= rules.standing_kmh)
    quiet = standing & (np.abs(rows["pack_current_a"]) <= limit)
    unknown = (rows.gap_s > rules.logging_gap_s) & (rows.gap_s < rules.silence_s)
    loud_at = np.maximum.accumulate(np.where(~quiet | unknown, rows.t_s, -np.inf))
    return np.asarray(quiet & usable & (rows.t_s - loud_at >= rules.quiet_s))


def _charge_rows(rows: Rows, usable: Bools, rules: CellRules) -> Bools:
    current = rows["pack_current_a"]
    return np.asarray(usable & ~(rows["speed_kmh"] >= rules.standing_kmh) & (current >= rules.charge_current_min_a))


def _steady(rows: Rows, charging: Bools, new_run: Bools, rules: CellRules) -> list[I64]:
    """Stretches of a charge without a step of the current."""
    current = rows["pack_current_a"]
    change = np.abs(np.diff(current, prepend=np.nan))
    steps = ~(change < np.maximum(rules.steady_a, rules.steady_share * np.abs(current)))
    return _runs(charging, new_run | steps, rules.charge_min_rows, rules.charge_min_s, rows.t_s)


def _runs(keep: Bools, breaks: Bools, min_rows: int, min_s: float, t_s: F64) -> list[I64]:
    """Row numbers of each maximal run of ``keep`` without a break in it."""
    at = np.flatnonzero(keep)
    if not len(at):
        return []
    cut = np.flatnonzero((np.diff(at) > 1) | breaks[at[1:]]) + 1
    return [run for run in np.split(at, cut) if len(run) >= min_rows and t_s[run[-1]] - t_s[run[0]] >= min_s]


def _resolution(cell_mv: NDArray[np.int16], share: float = 0.98) -> int:
    """Step of the cell voltages, mV."""
    values = cell_mv[:: max(1, len(cell_mv) // 400)]
    values = values[values != NO_VALUE]
    if not len(values):
        return 1
    return next((step for step in _STEPS if np.mean(values % step == 0) >= share), 1)


# --- residuals --------------------------------------------------------------------------------------------------------
def _residuals(rows: Rows, kind: str, runs: list[I64], step: int, rules: CellRules) -> pl.DataFrame:
    """One window per run: residuals averaged over at most ``window_rows_max`` of its rows, evenly spread."""
    if not runs or rows.cell_mv is None:
        return pl.DataFrame(schema=WINDOW_SCHEMA)
    used = [run[_spread_out(len(run), rules.window_rows_max)] for run in runs]
    cells = rows.cell_mv.shape[1]
    mean, count = np.full((len(runs), cells), np.nan), np.zeros((len(runs), cells), np.int64)
    middle, looks = np.full(len(runs), np.nan), np.ones(len(runs), np.int64)
    first = 0
    while first < len(used):  # as many windows as fit into a block of rows
        sizes = np.cumsum([len(u) for u in used[first : first + _BLOCK_ROWS]])
        last = first + max(1, int(np.searchsorted(sizes, _BLOCK_ROWS, side="right")))
        residual, centre = _from_middle(rows.cell_mv[np.concatenate(used[first:last])], rules)
        valid = ~np.isnan(residual)
        begins = np.concatenate(([0], sizes[: last - first - 1]))
        count[first:last] = np.add.reduceat(valid, begins, axis=0, dtype=np.int64)
        with np.errstate(invalid="ignore"):
            total = np.add.reduceat(np.where(valid, residual, 0.0), begins, axis=0, dtype=np.float64)
            mean[first:last] = np.where(count[first:last] > 0, total / np.maximum(count[first:last], 1), np.nan)
        middle[first:last] = np.add.reduceat(centre, begins) / np.diff(np.append(begins, len(centre)))
        moved = np.maximum.reduceat(centre, begins) - np.minimum.reduceat(centre, begins)
        # rounding averages out where the voltage moves: each step of it is a look of its own
        looks[first:last] = 1 + np.floor(moved / step).astype(np.int64)
        first = last
    frame = pl.DataFrame(
        {
            "from_at": _moments(rows.t_s[[run[0] for run in runs]]),
            "to_at": _moments(rows.t_s[[run[-1] for run in runs]]),
            "n": np.array([len(run) for run in runs], dtype=np.int32),
            "value": np.nanmax(mean, axis=1) - np.nanmin(mean, axis=1) if kind == "charge" else middle,
            "values": _lists(mean),
            "counts": pl.Series(count.astype(np.int32)).arr.to_list(),
            "soc_pct": _means(rows["soc_pct"], runs),
            "current_a": _means(rows["pack_current_a"], runs),
            "temp_c": _means(rows["pack_temp_c"], runs),
            "detail": [json.dumps({"looks": int(k), "step_mv": step}) for k in looks],
        }
    )
    return _as_windows(frame, kind)


def _spread_out(n: int, most: int) -> I64:
    return np.arange(n) if n <= most else np.linspace(0, n - 1, most).astype(np.int64)


def _from_middle(cell_mv: NDArray[np.int16], rules: CellRules) -> tuple[NDArray[np.float32], F64]:
    """Residuals of the cells from the middle of their row, and that middle, mV. NaN: no value, or suspect."""
    volts = cell_mv.astype(np.float32)
    volts[(cell_mv == NO_VALUE) | (volts < rules.cell_min_mv) | (volts > rules.cell_max_mv)] = np.nan
    holes = np.isnan(volts).any(axis=1)
    median = np.full(len(volts), np.nan, dtype=np.float32)
    if not holes.all():
        median[~holes] = np.median(volts[~holes], axis=1)
    for i in np.flatnonzero(holes):
        own = volts[i][~np.isnan(volts[i])]
        if len(own):
            median[i] = np.median(own)
    volts -= median[:, None]
    clip = np.float32(rules.centre_clip_mv)
    clipped = np.clip(volts, -clip, clip)
    n = np.maximum((~np.isnan(volts)).sum(axis=1), 1)
    shift = np.nansum(clipped, axis=1, dtype=np.float32) / n
    volts -= shift[:, None].astype(np.float32)
    return volts, (median + shift).astype(np.float64)


def _means(column: F64, runs: list[I64]) -> list[float | None]:
    found = []
    for run in runs:
        own = column[run]
        own = own[~np.isnan(own)]
        found.append(float(own.mean()) if len(own) else None)
    return found


def _moments(t_s: F64) -> pl.Series:
    return pl.Series((t_s * 1e6).round().astype(np.int64)).cast(pl.Datetime("us"))


def _lists(values: F64) -> pl.Series:
    """A matrix as lists, NaN as NULL."""
    flat = pl.Series(values.astype(np.float32).ravel()).fill_nan(None)
    return flat.reshape((len(values), values.shape[1])).arr.to_list()


def _as_windows(frame: pl.DataFrame, kind: str) -> pl.DataFrame:
    frame = frame.with_columns(detector=pl.lit("cells"), kind=pl.lit(kind))
    missing = [name for name in WINDOW_SCHEMA if name not in frame.columns]
    return frame.with_columns(pl.lit(None).alias(name) for name in missing).select(
        pl.col(name).cast(dtype) for name, dtype in WINDOW_SCHEMA.items()
    )


# --- days -------------------------------------------------------------------------------------------------------------
def _day_frame(rows: Rows, kind: str, values: F64, firsts: I64, lasts: I64, n: I64, **more: Any) -> pl.DataFrame:
    return _as_windows(
        pl.DataFrame(
            {
                "from_at": _moments(rows.t_s[firsts]),
                "to_at": _moments(rows.t_s[lasts]),
                "n": n.astype(np.int32),
                "values": _lists(values),
                **more,
            }
        ),
        kind,
    )


def _shares(rows: Rows, rest: Bools, rules: CellRules) -> pl.DataFrame:
    """How often each cell is the lowest and the highest of the day's rest rows; k equal ones count 1/k each."""
    at = np.flatnonzero(rest)
    if not len(at) or rows.cell_mv is None:
        return pl.DataFrame(schema=WINDOW_SCHEMA)
    days, begins, sizes = np.unique(rows.day[at], return_index=True, return_counts=True)
    used = [at[b + _spread_out(n, rules.window_rows_max)] for b, n in zip(begins, sizes, strict=True)]
    shares = np.zeros((2, len(days), rows.cell_mv.shape[1]))
    for i, own in enumerate(used):
        cells = rows.cell_mv[own]
        no_value = (cells == NO_VALUE) | (cells < rules.cell_min_mv) | (cells > rules.cell_max_mv)
        for side in (0, 1):
            signed = cells.astype(np.int32) * (1 - 2 * side)
            signed[no_value] = np.iinfo(np.int32).max
            is_least = signed == signed.min(axis=1)[:, None]
            is_least &= ~no_value
            shares[side, i] = (is_least / np.maximum(is_least.sum(axis=1), 1)[:, None]).mean(axis=0) * 100
    firsts, lasts = at[begins], at[begins + sizes - 1]
    return pl.concat(
        [
            _day_frame(rows, kind, shares[side], firsts, lasts, sizes)
            for side, kind in enumerate(("day_lowest", "day_highest"))
        ]
    )


def _extremes(rows: Rows, rules: CellRules) -> pl.DataFrame:
    """Lowest and highest voltage of each cell that lasted, for every day."""
    if rows.cell_mv is None:
        return pl.DataFrame(schema=WINDOW_SCHEMA)
    days, begins, sizes = np.unique(rows.day, return_index=True, return_counts=True)
    ends = begins + sizes
    low, high = (np.full((len(days), rows.cell_mv.shape[1]), np.nan) for _ in range(2))
    for i, (begin, end) in enumerate(zip(begins, ends, strict=True)):
        gaps = rows.gap_s[begin + 1 : end]
        typical = float(np.median(gaps)) if len(gaps) else 60.0
        lasting = int(np.clip(np.ceil(rules.lasting_s / max(typical, 1.0)) + 1, rules.lasting_rows, 16))
        # a value that began before midnight lasts into the day
        own = rows.cell_mv[max(begin - lasting + 1, 0) : end]
        held = rows.gap_s[max(begin - lasting + 1, 0) : end] <= rules.logging_gap_s
        low[i] = _lasting(own, held, lasting, -1)
        high[i] = _lasting(own, held, lasting, 1)
    with np.errstate(invalid="ignore"):
        frames = [
            _day_frame(rows, kind, values, begins, ends - 1, sizes, value=_extreme(values, sign))
            for kind, values, sign in (("day_min", low, -1), ("day_max", high, 1))
        ]
    return pl.concat(frames)


def _lasting(cells: NDArray[np.int16], held: Bools, lasting: int, sign: int) -> F64:
    """Highest (sign 1) or lowest (-1) voltage of each cell that ``lasting`` rows in a row reach; NaN: none."""
    n = len(cells) - lasting + 1
    if n < 1:
        return np.full(cells.shape[1], np.nan)
    absent = np.int16(_NONE if sign > 0 else -_NONE - 1)
    shown = cells if sign > 0 else np.where(cells == NO_VALUE, absent, cells)
    least = np.minimum if sign > 0 else np.maximum
    run, width = shown, 1
    while width < lasting:  # doubling: the least of 2k rows from those of k
        more = min(width, lasting - width)
        run = least(run[:-more], run[more:])
        width += more
    broken = np.concatenate(([0], np.cumsum(~held)))
    whole = broken[lasting:] - broken[1 : n + 1] == 0  # no silence inside
    run = run[whole]
    if not len(run):
        return np.full(cells.shape[1], np.nan)
    found = run.max(axis=0) if sign > 0 else run.min(axis=0)
    return np.where(found == absent, np.nan, found.astype(np.float64))


def _extreme(values: F64, sign: int) -> F64:
    filled = np.where(np.isnan(values), -np.inf, sign * values).max(axis=1)
    return np.where(np.isfinite(filled), sign * filled, np.nan)


# --- reading the windows back -----------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Evidence:
    """Residuals of rests and slow charges of a device in time; ``cells`` wide as its pack is today."""

    t_d: F64  # (n,) days since 1970, middle of the window
    from_at: pl.Series
    to_at: pl.Series
    residual_mv: F64  # (n, cells), NaN: no value
    var_mv2: F64  # (n,) variance of one residual by rounding and chance
    soc_pct: F64
    current_a: F64
    temp_c: F64
    rows: I64
    step_mv: int  # coarsest resolution met

    def __len__(self) -> int:
        return len(self.t_d)


def matrix(windows: pl.DataFrame, column: str, width: int) -> F64:
    """A list column as (windows, width), NULL as NaN; ValueError where a list is of another length."""
    if windows.is_empty():
        return np.zeros((0, width))
    flat = windows[column].explode().cast(pl.Float64).fill_null(float("nan")).to_numpy()
    if len(flat) != windows.height * width:
        raise ValueError(f"lists of {column} are not all {width} long")
    return np.asarray(flat.reshape(-1, width), dtype=np.float64)


def usual_width(windows: pl.DataFrame, cell_count: int | None) -> int:
    """Cells of the pack: as decided, else the most frequent length."""
    if cell_count:
        return cell_count
    lengths = windows["values"].list.len().drop_nulls()
    return int(lengths.mode().sort()[0] or 0) if len(lengths) else 0


def _floats(windows: pl.DataFrame, column: str) -> F64:
    return np.asarray(windows[column].cast(pl.Float64).fill_null(float("nan")).to_numpy(), dtype=np.float64)


def looks_and_step(windows: pl.DataFrame) -> tuple[F64, F64]:
    """Independent looks behind each window, and the resolution of its cells in mV."""
    said = [json.loads(text) if text else {} for text in windows["detail"].to_list()]
    return (
        np.array([float(d.get("looks", 1)) for d in said]),
        np.array([float(d.get("step_mv", 20)) for d in said]),
    )


def variance(windows: pl.DataFrame, rules: CellRules) -> tuple[F64, int]:
    """Variance of the mean residual of each window in mV2, and the coarsest resolution met in mV."""
    looks, step = looks_and_step(windows)
    rows = np.maximum(windows["n"].cast(pl.Float64).fill_null(1.0).to_numpy(), 1.0)
    found = (rules.step_sd * step) ** 2 / looks + rules.window_sd_mv**2 + rules.row_sd_mv**2 / rows
    return found, int(step.max()) if len(step) else 1


def evidence(windows: pl.DataFrame, cell_count: int | None, capacity_ah: float | None, rules: CellRules) -> Evidence:
    """Rests and slow charges of the pack as it is now."""
    width = usual_width(windows, cell_count)
    slow_a = rules.slow_charge_share * capacity_ah if capacity_ah else rules.slow_charge_a
    own = windows.filter(
        ((pl.col("kind") == "rest") | ((pl.col("kind") == "charge") & (pl.col("current_a") <= slow_a)))
        & (pl.col("values").list.len() == width)
    ).sort("from_at", "to_at", "kind")
    var, step = variance(own, rules)
    begin, end = (own[name].dt.epoch("us").to_numpy() / 86_400e6 for name in ("from_at", "to_at"))
    return Evidence(
        (begin + end) / 2, own["from_at"], own["to_at"], matrix(own, "values", width), var, _floats(own, "soc_pct"),
        _floats(own, "current_a"), _floats(own, "temp_c"), own["n"].fill_null(0).cast(pl.Int64).to_numpy(), step,
    )  # fmt: skip


def weighted_mean(values: F64, weight: F64) -> F64:
    """Mean over axis 0 of (n, cells) with (n,) weights, NaN left out."""
    valid = ~np.isnan(values)
    total = (weight[:, None] * valid).sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((weight[:, None] * np.where(valid, values, 0.0)).sum(axis=0) / total)


def from_median(values: F64) -> F64:
    """Residuals from the median cell."""
    known = values[~np.isnan(values)]
    return values - np.median(known) if len(known) else values


# --- every cell and month ---------------------------------------------------------------------------------------------
def cell_months(windows: pl.DataFrame, cell_count: int | None = None, rules: CellRules = RULES.cells) -> pl.DataFrame:
    """CELL_MONTH_SCHEMA of one device from its windows of all months: one row per cell and month with any window.

    Residuals are from the median cell of the month, weighted by what a window knows; shares are of the month's rest
    rows. A month counts the cells that most of its windows have, or ``cell_count``.
    """
    found: list[pl.DataFrame] = [pl.DataFrame(schema=CELL_MONTH_SCHEMA)]
    months = windows.with_columns(_month=pl.col("from_at").dt.strftime("%Y-%m")).partition_by("_month", as_dict=True)
    for (month,), every in sorted(months.items()):
        width = usual_width(every, cell_count)
        part = every.filter(pl.col("values").list.len() == width)
        if not width or part.is_empty():
            continue
        kinds = {str(kind): frame for (kind,), frame in part.partition_by("kind", as_dict=True).items()}
        rest = kinds.get("rest")
        rows = np.zeros(width)
        if rest is not None:
            counts = matrix(rest, "counts", width)
            rows = (counts / np.maximum(counts.max(axis=1), 1)[:, None] * rest["n"].to_numpy()[:, None]).sum(axis=0)
        found.append(
            pl.DataFrame(
                {
                    "cell_no": np.arange(1, width + 1),
                    "residual_rest_mv": _month_residual(rest, width, rules),
                    "residual_charge_mv": _month_residual(kinds.get("charge"), width, rules),
                    "lowest_share_pct": _month_share(kinds.get("day_lowest"), width),
                    "highest_share_pct": _month_share(kinds.get("day_highest"), width),
                    "n": np.round(rows).astype(np.int64),
                    "measured_month": [str(month)] * width,
                }
            )
            .with_columns(pl.col(pl.Float64).fill_nan(None))
            .select(pl.col(name).cast(dtype) for name, dtype in CELL_MONTH_SCHEMA.items())
        )
    return pl.concat(found)


def _month_residual(part: pl.DataFrame | None, width: int, rules: CellRules) -> F64:
    if part is None:
        return np.full(width, np.nan)
    return from_median(weighted_mean(matrix(part, "values", width), 1 / variance(part, rules)[0]))


def _month_share(part: pl.DataFrame | None, width: int) -> F64:
    if part is None:
        return np.full(width, np.nan)
    return weighted_mean(matrix(part, "values", width), part["n"].cast(pl.Float64).to_numpy())
