"""A fault of a fixed size put into the healthy log of a car, simulated or real.

Belongs here: what the rows of a car would have read had it had the fault: staged rows (``inject``), and delivered
slices for what only the whole chain can find (``drift_counters``, ``reset_counters``). Does not belong here: reference
sizes (``reference``), who gets which fault (``bench``), and any line of a detector.

What is shifted is rounded to the car's own resolution. A reading says only within which step the truth lay, so where in
its step it lay is drawn, once for as long as the reading stands still: a cell that rests on one step stays on one.
Values stay within what a unit can report (``_BOUNDS``), except where the fault is that they do not. Flags are left.
All functions are pure: the same arguments give the same rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from baas_dagster.anomaly.rows import NO_VALUE, Car, Rows
from baas_dagster.faultbench.reference import size_of

__all__ = [
    "ROW_CODES", "WHOLE_CHAIN", "Counters", "Injection", "drift_counters", "inject", "reset_counters", "resolution",
    "settled",
]  # fmt: skip

F64 = NDArray[np.float64]
Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]

WHOLE_CHAIN = ("COUNTER_DRIFT", "COUNTER_RESET", "SOH_FADE")
"""Codes that are judged from marts: a fault in staged rows would not reach them."""

ROW_CODES = (
    "CELL_OUTLIER", "CELL_LOWEST", "CELL_SELF_DISCHARGE", "CELL_SPREAD", "CELL_OVERVOLT", "CELL_UNDERVOLT",
    "TEMP_SPREAD", "TEMP_HIGH", "TEMP_RISE", "TEMP_SENSOR", "INSULATION_LOW", "SOC_JUMP", "SOC_LOW", "SENSOR_FROZEN",
    "FAULT_OR_SENSOR", "DEVICE_SILENT",
)  # fmt: skip
"""Codes whose fault can be put into staged rows."""

_DAY_S = 86_400
_GAP_S = 180.0  # s; rows further apart belong to different stretches
_REST_S = 7_200.0  # s of silence after which a BMS has re-anchored its SoC
_CHARGE_A = 1.0  # A; a larger current into a standing car, for a minute, is a charge (DOMAIN 5)
_CHARGE_S = 60.0
_MOVING_KMH = 1.0
_LAG_LIMIT = 0.25  # share of the charge a leaking cell is behind when its BMS bleeds the others as fast as it leaks
_LOAD_C = 0.12  # C; load from which a warm module is as warm as it gets
_LOAD_S = 300.0  # s, thermal time constant of a module
_OUT_V = {"LFP": (1.8, 3.95)}
_OUT_NMC_V = (2.2, 4.38)
"""What a cell is driven to, under- and overvoltage, V: beyond what its maker allows (LFP 2.0-3.65, NMC 2.5-4.25)."""
_BOUNDS = {"cell_mv": (1_500, 4_500), "module_temp_dc": (-390, 900)}  # DOMAIN 3: what is still a measurement


@dataclass(frozen=True)
class Injection:
    """A fault to be put into a car's log. Cells and modules count from 1.

    ``slope``: SoC in % -> dOCV/dSoC of a cell, mV per %; a leaking cell needs it and the capacity of the car.
    """

    code: str
    onset_s: float  # seconds since 1970 in naive KST
    strength: float | None = None  # multiple of the reference; None: present or absent
    variant: str = ""  # FAULT_OR_SENSOR: hot, cell, insulation
    cell_no: int | None = None
    module_no: int | None = None
    slope: Callable[[float], float] | None = None
    seed: int = 0
    held_dc: int | None = None  # what a stuck temperature sensor shows (``settled``)

    @property
    def size(self) -> float:
        """Size of the fault in the unit of the reference; NaN: present or absent."""
        size = size_of(self.code, self.strength, self.variant)[0]
        return float("nan") if size is None else size


def inject(rows: Rows, car: Car, fault: Injection) -> Rows:
    """Rows of one partition as the car would have reported them with the fault; rows before the onset stay as they are.

    ValueError for a code that is judged from marts, for a cell or module that is not given, for a leak without slope or
    capacity. A channel the car lacks stays lacking.
    """
    if fault.code not in _MAKE:
        raise ValueError(f"{fault.code} cannot be put into staged rows: {sorted(_MAKE)}")
    if not len(rows) or rows.t_s[-1] < fault.onset_s:
        return rows
    return _MAKE[fault.code](rows, car, fault)


def settled(fault: Injection, rows: Rows) -> Injection:
    """The fault with what it keeps from its onset on: a stuck sensor its last reading. ``rows``: month of the onset."""
    if fault.code != "TEMP_SENSOR" or rows.module_temp_dc is None or fault.module_no is None:
        return fault
    values = rows.module_temp_dc[:, fault.module_no - 1]
    there = np.flatnonzero(values != NO_VALUE)
    if not len(there):
        return fault
    near = there[np.argmin(np.abs(rows.t_s[there] - fault.onset_s))]
    return replace(fault, held_dc=int(values[near]))


# --- resolution -------------------------------------------------------------------------------------------------------
def resolution(values: NDArray[np.integer], steps: tuple[int, ...] = (20, 10, 5, 2, 1)) -> int:
    """Step of whole numbers: the first of ``steps`` that divides them all; the last where there are none."""
    sample = np.unique(values[values != NO_VALUE]).astype(np.int64)
    return next((step for step in steps if len(sample) and not (sample % step).any()), steps[-1])


def _shifted(values: F64, by: F64, step: float, rows: Rows, fault: Injection) -> F64:
    """Readings as they would be with something added, rounded to ``step``. No value stays none."""
    stands = np.append(False, (np.diff(values) == 0) & (rows.gap_s[1:] <= _GAP_S))
    run = np.cumsum(~stands)
    rng = np.random.default_rng([fault.seed, int(rows.t_s[0]), fault.cell_no or 0, fault.module_no or 0])
    within = rng.uniform(-0.5, 0.5, int(run[-1]) + 1)[run]
    moved = np.round(values / step + within + by / step) * step
    return np.where(by == 0, values, moved)


def _with_columns(rows: Rows, changed: dict[str, F64]) -> Rows:
    return replace(rows, columns={**rows.columns, **{k: v for k, v in changed.items() if k in rows.columns}})


def _masked(values: NDArray[np.int16]) -> F64:
    return np.where(values == NO_VALUE, np.nan, values.astype(np.float64))


# --- cells ------------------------------------------------------------------------------------------------------------
def _cell_at(rows: Rows, fault: Injection) -> int | None:
    """Position of the cell; None where the car has no cells."""
    return _position(rows.cell_mv, fault.cell_no, "cell", fault)


def _module_at(rows: Rows, fault: Injection) -> int | None:
    """Position of the module; None where the car has no temperatures."""
    return _position(rows.module_temp_dc, fault.module_no, "module", fault)


def _position(matrix: NDArray[np.int16] | None, number: int | None, what: str, fault: Injection) -> int | None:
    """Column of a numbered item; ValueError where the fault names none, or one that the car does not have."""
    if number is None:
        raise ValueError(f"{fault.code} needs a {what}")
    if matrix is None:
        return None
    if not 1 <= number <= matrix.shape[1]:
        raise ValueError(f"no {what} {number} of {matrix.shape[1]}")
    return number - 1


def _with_cell(rows: Rows, fault: Injection, by_mv: F64, *, is_bounded: bool = True) -> Rows:
    """The cell shifted by ``by_mv`` (n,); per-row figures of the cells and pack voltage follow."""
    at = _cell_at(rows, fault)
    if at is None or rows.cell_mv is None:
        return rows
    by_mv = np.where(rows.t_s >= fault.onset_s, np.nan_to_num(by_mv), 0.0)
    old = _masked(rows.cell_mv[:, at])
    new = _shifted(old, by_mv, resolution(rows.cell_mv[:: max(1, len(rows) // 500)]), rows, fault)
    if is_bounded:
        low, high = _BOUNDS["cell_mv"]
        new = np.where(by_mv == 0, new, np.clip(new, np.minimum(old, low), np.maximum(old, high)))
    touched = np.flatnonzero(np.isfinite(new) & (by_mv != 0))
    matrix = rows.cell_mv.copy()
    matrix[touched, at] = new[touched].astype(np.int16)
    found = {name: rows[name].copy() for name in _CELL_FIGURES if name in rows.columns}
    for begin in range(0, len(touched), 16_384):
        part = touched[begin : begin + 16_384]
        cells = matrix[part]
        none = cells == NO_VALUE
        lowest, highest = np.where(none, 32_767, cells), np.where(none, -32_767, cells)
        figures = {
            "cell_min_mv": lowest.min(axis=1),
            "cell_max_mv": highest.max(axis=1),
            "cell_sum_mv": np.where(none, 0, cells).sum(axis=1),
            "cell_mean_mv": np.where(none, 0, cells).sum(axis=1) / np.maximum((~none).sum(axis=1), 1),
            "bms_cell_min_v": lowest.min(axis=1) / 1000,
            "bms_cell_max_v": highest.max(axis=1) / 1000,
            "bms_cell_min_no": lowest.argmin(axis=1) + 1,
            "bms_cell_max_no": highest.argmax(axis=1) + 1,
            "bms_cell_dispersion_v": (highest.max(axis=1) - lowest.min(axis=1)) / 1000,
        }
        for name, column in found.items():
            column[part] = np.where(np.isfinite(column[part]), figures[name], np.nan)
    volts = _shifted(rows["pack_voltage_v"], np.nan_to_num(new - old) / 1000, 0.1, rows, fault)
    return replace(_with_columns(rows, {**found, "pack_voltage_v": volts}), cell_mv=matrix)


_CELL_FIGURES = (
    "cell_min_mv", "cell_max_mv", "cell_sum_mv", "cell_mean_mv", "bms_cell_min_v", "bms_cell_max_v", "bms_cell_min_no",
    "bms_cell_max_no", "bms_cell_dispersion_v",
)  # fmt: skip


def _low_cell(rows: Rows, car: Car, fault: Injection) -> Rows:
    """One cell low by the size, all the time."""
    return _with_cell(rows, fault, np.full(len(rows), -fault.size))


def _leaking_cell(rows: Rows, car: Car, fault: Injection) -> Rows:
    """One cell that loses charge from the onset on, parked or not, through the slope of the curve at the row's SoC."""
    if fault.slope is None or not car.capacity_nominal_ah:
        raise ValueError("a leak needs the slope of the curve and the capacity of the car")
    hours = np.maximum(rows.t_s - fault.onset_s, 0) / 3600
    behind_pct = 100 * np.minimum(fault.size / 1000 * hours / car.capacity_nominal_ah, _LAG_LIMIT)
    grid = np.arange(0.0, 101.0)
    slopes = np.array([fault.slope(float(soc)) for soc in grid])
    fallen_mv = np.append(0.0, np.cumsum((slopes[1:] + slopes[:-1]) / 2))
    soc = _carried(rows["soc_pct"], 50.0)
    by = np.interp(soc - behind_pct, grid, fallen_mv) - np.interp(soc, grid, fallen_mv)
    beyond = np.minimum(soc - behind_pct, 0.0) * slopes[0]  # an emptied cell goes on falling as steeply
    return _with_cell(rows, fault, by + beyond)


def _carried(values: F64, otherwise: float) -> F64:
    """Values with the last one before carried over missing ones."""
    known = np.isfinite(values)
    if not known.any():
        return np.full(len(values), otherwise)
    last = np.maximum.accumulate(np.where(known, np.arange(len(values)), 0))
    filled = values[last]
    return np.where(np.isfinite(filled), filled, values[int(np.argmax(known))])


def _apart_on_charge(rows: Rows, car: Car, fault: Injection) -> Rows:
    """One cell high by the size while the car charges."""
    return _with_cell(rows, fault, np.where(_is_charging(rows), fault.size, 0.0))


def _is_charging(rows: Rows) -> Flags:
    """Rows of a charging current into a standing car that lasts for a minute."""
    into = (rows["pack_current_a"] > _CHARGE_A) & ~(rows["speed_kmh"] > _MOVING_KMH)
    out = np.zeros(len(rows), dtype=bool)
    for first, last in _runs(into, rows):
        out[first : last + 1] = rows.t_s[last] - rows.t_s[first] >= _CHARGE_S
    return out


def _limits_v(car: Car) -> tuple[float, float]:
    return _OUT_V.get(car.chemistry or "", _OUT_NMC_V)


def _to_mv(rows: Rows, fault: Injection, where: Flags, target_mv: float, *, is_bounded: bool = True) -> Rows:
    at = _cell_at(rows, fault)
    if at is None or rows.cell_mv is None:
        return rows
    by = np.where(where, target_mv - _masked(rows.cell_mv[:, at]), 0.0)
    return _with_cell(rows, fault, by, is_bounded=is_bounded)


def _overcharged_cell(rows: Rows, car: Car, fault: Injection) -> Rows:
    """One cell too high over the last 10 min of every charge that lasts as long."""
    where = np.zeros(len(rows), dtype=bool)
    for first, last in _runs(_is_charging(rows), rows):
        if rows.t_s[last] - rows.t_s[first] >= 600:
            where[first : last + 1] = rows.t_s[first : last + 1] >= rows.t_s[last] - 600
    return _to_mv(rows, fault, where, 1000 * _limits_v(car)[1])


def _emptied_cell(rows: Rows, car: Car, fault: Injection) -> Rows:
    """One cell too low for 5 min of discharge a day."""
    where = np.zeros(len(rows), dtype=bool)
    for first, last in _daily(rows, fault, 300.0, rows["pack_current_a"] < 0):
        begin_s = (rows.t_s[first] + rows.t_s[last] - 300) / 2
        where |= _between(rows, first, last, begin_s, begin_s + 300)
    return _to_mv(rows, fault, where, 1000 * _limits_v(car)[0])


# --- stretches --------------------------------------------------------------------------------------------------------
def _runs(mask: Flags, rows: Rows) -> Iterator[tuple[int, int]]:
    """First and last row of every run of ``mask`` without a gap."""
    goes_on = np.append(False, mask[:-1] & mask[1:] & (rows.gap_s[1:] <= _GAP_S))
    begins = np.flatnonzero(mask & ~goes_on)
    ends = np.flatnonzero(mask & ~np.append(goes_on[1:], False))
    yield from zip(begins.tolist(), ends.tolist(), strict=True)


def _daily(
    rows: Rows, fault: Injection, min_s: float, mask: Flags | None = None, every: int = 1
) -> Iterator[tuple[int, int]]:
    """Longest stretch (of rows in ``mask``) of every so many days from the onset on, at least ``min_s`` long.

    A drive with short stops is one stretch: ``mask`` may fail for up to three minutes.
    """
    part = np.arange(len(rows)) if mask is None else np.flatnonzero(mask)
    part = part[rows.t_s[part] >= fault.onset_s]
    if not len(part):
        return
    t = rows.t_s[part]
    edges = np.flatnonzero(np.diff(t) > _GAP_S) + 1
    first, last = np.append(0, edges), np.append(edges, len(part)) - 1
    day = (t[first] // _DAY_S).astype(np.int64) - int(fault.onset_s // _DAY_S)
    length = t[last] - t[first]
    for due in np.unique(day[(day % every == 0) & (length >= min_s)]):
        at = int(np.argmax(np.where(day == due, length, -1.0)))
        yield int(part[first[at]]), int(part[last[at]])


def _between(rows: Rows, first: int, last: int, begin_s: float, end_s: float) -> Flags:
    """Rows from ``first`` to ``last`` that lie in a span of time."""
    index = np.arange(len(rows))
    return np.asarray((index >= first) & (index <= last) & (rows.t_s >= begin_s) & (rows.t_s <= end_s))


# --- module temperatures ----------------------------------------------------------------------------------------------
def _with_modules(rows: Rows, fault: Injection, by_k: dict[int, F64], *, is_bounded: bool = True) -> Rows:
    """Modules (by position) shifted by so many K (n,); per-row figures of the modules follow."""
    if rows.module_temp_dc is None:
        return rows
    matrix = rows.module_temp_dc.copy()
    step = resolution(rows.module_temp_dc[:: max(1, len(rows) // 5_000)], (10, 5, 1))
    touched = np.zeros(len(rows), dtype=bool)
    for at, by in by_k.items():
        by_dc = np.where(rows.t_s >= fault.onset_s, 10 * by, 0.0)
        old = _masked(matrix[:, at])
        new = _shifted(old, by_dc, step, rows, replace(fault, module_no=at + 1))
        if is_bounded:
            low, high = _BOUNDS["module_temp_dc"]
            new = np.where(by_dc == 0, new, np.clip(new, np.minimum(old, low), np.maximum(old, high)))
        moved = np.isfinite(new) & (by_dc != 0)
        matrix[moved, at] = new[moved].astype(np.int16)
        touched |= moved
    part = np.flatnonzero(touched)
    if not len(part):
        return rows
    before, after = _masked(rows.module_temp_dc[part]) / 10, _masked(matrix[part]) / 10
    mean, was = np.nanmean(after, axis=1), np.nanmean(before, axis=1)
    low, high = np.nanmin(after, axis=1), np.nanmax(after, axis=1)
    figures = {
        "module_min_c": low, "module_max_c": high, "module_mean_c": mean, "bms_module_min_c": low,
        "bms_module_max_c": high, "bms_module_mean_c": mean,
    }  # fmt: skip
    changed = {name: rows[name].copy() for name in (*figures, "pack_temp_c") if name in rows.columns}
    for name, column in changed.items():
        new = column[part] + mean - was if name == "pack_temp_c" else figures[name]
        column[part] = np.where(np.isfinite(column[part]), new, np.nan)
    return replace(_with_columns(rows, changed), module_temp_dc=matrix)


def _warm_module(rows: Rows, car: Car, fault: Injection) -> Rows:
    """One module warmer by the size under load; it follows the load with a time constant of five minutes."""
    at = _module_at(rows, fault)
    if at is None:
        return rows
    amps = np.nan_to_num(np.abs(rows["pack_current_a"]))
    full = _LOAD_C * car.capacity_nominal_ah if car.capacity_nominal_ah else float(np.percentile(amps, 75)) or 1.0
    target = np.minimum(amps / full, 1.0)
    keep = np.exp(-np.where(np.isfinite(rows.gap_s), rows.gap_s, 1e9) / _LOAD_S)
    share, value = np.empty(len(rows)), 0.0
    for i, (kept, wanted) in enumerate(zip(keep.tolist(), np.append(0.0, target[:-1]).tolist(), strict=True)):
        value = value * kept + (1 - kept) * (wanted if kept > 0.5 else 0.0)  # over a silence it cools
        share[i] = value
    return _with_modules(rows, fault, {at: fault.size * share})


def _hot_pack(rows: Rows, car: Car, fault: Injection) -> Rows:
    """The pack heats until the module is at the size for 10 min, once a day; the others stay at least 2 K behind."""
    at = _module_at(rows, fault)
    if at is None or rows.module_temp_dc is None:
        return rows
    share = np.zeros(len(rows))
    for first, last in _daily(rows, fault, 900.0):
        length = rows.t_s[last] - rows.t_s[first]
        ramp = min((length - 600) / 2, 1_800.0)
        middle = (rows.t_s[first] + rows.t_s[last]) / 2
        shape = np.interp(rows.t_s, middle + np.array([-300 - ramp, -300, 300, 300 + ramp]), [0, 1, 1, 0])
        share = np.maximum(share, shape * _between(rows, first, last, -np.inf, np.inf))
    delivered = _masked(rows.module_temp_dc) / 10
    missing = np.maximum(fault.size - np.nan_to_num(delivered, nan=fault.size), 0.0)
    # a sensor that never moves is padding: there is nothing in it to heat
    is_there = np.fmax.reduce(delivered, axis=0) > np.fmin.reduce(delivered, axis=0)
    others = {
        i: share * np.minimum(0.92 * missing[:, at], np.maximum(missing[:, i] - 2.0, 0.0))
        for i in np.flatnonzero(is_there).tolist()
        if i != at
    }
    return _with_modules(rows, fault, {**others, at: share * missing[:, at]})


def _rising_module(rows: Rows, car: Car, fault: Injection) -> Rows:
    """One module rises by the rate for 3 min once a day, and cools within half an hour."""
    at = _module_at(rows, fault)
    if at is None:
        return rows
    by = np.zeros(len(rows))
    for first, last in _daily(rows, fault, 600.0):
        since = rows.t_s - (rows.t_s[first] + 240)
        shape = np.clip(since / 60, 0, 3) * np.exp(-np.maximum(since - 180, 0) / 720)
        by += fault.size * shape * _between(rows, first, last, -np.inf, np.inf)
    return _with_modules(rows, fault, {at: by})


def _stuck_sensor(rows: Rows, car: Car, fault: Injection) -> Rows:
    """One sensor keeps what it showed at the onset (``settled``; else its first value from there on)."""
    at = _module_at(rows, fault)
    if at is None or rows.module_temp_dc is None:
        return rows
    held = fault.held_dc if fault.held_dc is not None else settled(fault, rows).held_dc
    if held is None:
        return rows
    return _with_modules(rows, fault, {at: np.nan_to_num((held - _masked(rows.module_temp_dc[:, at])) / 10)})


# --- insulation, charge, sensors --------------------------------------------------------------------------------------
def _low_insulation(rows: Rows, car: Car, fault: Injection) -> Rows:
    """So many Ohm per volt of the pack, in kOhm; 0 after waking stays 0, what is lower stays."""
    kohm = rows["insulation_kohm"]
    low = np.round(fault.size * _carried(rows["pack_voltage_v"], np.nan) / 1000)
    where = (rows.t_s >= fault.onset_s) & (kohm > 0) & np.isfinite(low)
    return _with_columns(rows, {"insulation_kohm": np.where(where, np.minimum(kohm, low), kohm)})


def _jumping_soc(rows: Rows, car: Car, fault: Injection) -> Rows:
    """SoC steps by the size in the middle of a stretch of every fourth day, and is right again after a rest."""
    soc, by = rows["soc_pct"], np.zeros(len(rows))
    rests = np.flatnonzero(rows.gap_s >= _REST_S)
    quiet = np.isfinite(soc) & (rows["pack_current_a"] < _CHARGE_A)
    for first, last in _daily(rows, fault, 600.0, quiet, every=4):
        row = (first + last) // 2
        after = rests[rests > row]
        until = int(after[0]) if len(after) else len(rows)
        by[row:until] = fault.size * (-1.0 if soc[row] > 50 else 1.0)
    return _with_soc(rows, by)


def _with_soc(rows: Rows, by: F64) -> Rows:
    """SoC and displayed SoC shifted by so many points, rounded to their half points, within 0.5 and 100."""
    changed = {}
    for name in ("soc_pct", "soc_display_pct"):
        values = rows[name]
        changed[name] = np.where(by == 0, values, np.clip(np.round(2 * (values + by)) / 2, 0.5, 100.0))
    return _with_columns(rows, changed)


def _empty_soc(rows: Rows, car: Car, fault: Injection) -> Rows:
    """SoC falls to 3 % over a stretch a day and stays there for its last ten minutes.

    At most 2 points a minute: a pack that was fuller has lost the rest in the silence before. Only where silence lies
    around the stretch, so that no step shows between near rows.
    """
    soc, by = rows["soc_pct"], np.zeros(len(rows))
    silence = np.append(rows.gap_s, np.inf) > _GAP_S
    for first, last in _daily(rows, fault, 900.0, ~_is_charging(rows) & np.isfinite(soc)):
        if not (silence[first] and silence[last + 1]):
            continue
        ramp_s = rows.t_s[last] - rows.t_s[first] - 600
        begins = min(float(soc[first]), 3.0 + 2.0 * ramp_s / 60)
        falling = np.interp(rows.t_s, rows.t_s[first] + np.array([0.0, ramp_s]), [begins, 3.0])
        by = np.where(_between(rows, first, last, -np.inf, np.inf), np.minimum(falling - soc, 0.0), by)
    return _with_soc(rows, np.nan_to_num(by))


def _frozen_sensor(rows: Rows, car: Car, fault: Injection) -> Rows:
    """Pack voltage and current keep their value for 5 min of driving a day."""
    volts, amps = rows["pack_voltage_v"].copy(), rows["pack_current_a"].copy()
    for first, last in _daily(rows, fault, 300.0, rows["speed_kmh"] > 5.0):
        begin_s = (rows.t_s[first] + rows.t_s[last] - 300) / 2
        held = np.flatnonzero(_between(rows, first, last, begin_s, begin_s + 300))
        volts[held], amps[held] = volts[held[0]], amps[held[0]]
    return _with_columns(rows, {"pack_voltage_v": volts, "pack_current_a": amps})


def _burning(rows: Rows, car: Car, fault: Injection) -> Rows:
    """A value outside of physics that lasts: a module at 97 degC, a cell at 1.2 V, insulation 0; every sixth day."""
    if fault.variant == "hot":
        at = _module_at(rows, fault)
        if at is None or rows.module_temp_dc is None:
            return rows
        by, temps = np.zeros(len(rows)), np.nan_to_num(_masked(rows.module_temp_dc[:, at]) / 10, nan=97.0)
        for first, last in _daily(rows, fault, 900.0, every=6):
            since = (rows.t_s - rows.t_s[first]) * _between(rows, first, last, -np.inf, np.inf)
            by += np.interp(since, [60, 300, 600, 900], [0, 1, 1, 0]) * (97.0 - temps)
        return _with_modules(rows, fault, {at: by}, is_bounded=False)
    where = np.zeros(len(rows), dtype=bool)
    if fault.variant == "cell":
        for first, last in _daily(rows, fault, 1_200.0, every=6):
            begin_s = rows.t_s[first] + 120
            where |= _between(rows, first, last, begin_s, begin_s + 1_080)
        return _to_mv(rows, fault, where, 1_200.0, is_bounded=False)
    if fault.variant == "insulation":
        for first, last in _daily(rows, fault, 2_400.0, every=6):
            where |= _between(rows, first, last, -np.inf, rows.t_s[first] + 3_600)
        kohm = rows["insulation_kohm"]
        return _with_columns(rows, {"insulation_kohm": np.where(where & np.isfinite(kohm), 0.0, kohm)})
    raise ValueError(f"FAULT_OR_SENSOR is hot, cell or insulation, not {fault.variant!r}")


def _silent(rows: Rows, car: Car, fault: Injection) -> Rows:
    """No rows from the onset on."""
    kept = int(np.searchsorted(rows.t_s, fault.onset_s))
    return Rows(
        rows.t_s[:kept],
        {name: values[:kept] for name, values in rows.columns.items()},
        None if rows.cell_mv is None else rows.cell_mv[:kept],
        None if rows.module_temp_dc is None else rows.module_temp_dc[:kept],
    )


_MAKE: dict[str, Callable[[Rows, Car, Injection], Rows]] = {
    "CELL_OUTLIER": _low_cell,
    "CELL_LOWEST": _low_cell,
    "CELL_SELF_DISCHARGE": _leaking_cell,
    "CELL_SPREAD": _apart_on_charge,
    "CELL_OVERVOLT": _overcharged_cell,
    "CELL_UNDERVOLT": _emptied_cell,
    "TEMP_SPREAD": _warm_module,
    "TEMP_HIGH": _hot_pack,
    "TEMP_RISE": _rising_module,
    "TEMP_SENSOR": _stuck_sensor,
    "INSULATION_LOW": _low_insulation,
    "SOC_JUMP": _jumping_soc,
    "SOC_LOW": _empty_soc,
    "SENSOR_FROZEN": _frozen_sensor,
    "FAULT_OR_SENSOR": _burning,
    "DEVICE_SILENT": _silent,
}


# --- counters, in delivered slices ------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Counters:
    """What a fault of the counters has come to by the end of a slice: the healthy counters there, and what to add.

    All in the order of ``_COUNTERS``; empty before the first slice.
    """

    last: tuple[float, ...] = ()
    added: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0)
    last_s: float = float("nan")


_COUNTERS = ("cumul_current_chrgd", "cumul_current_dischrgd", "cumul_pw_chrgd", "cumul_pw_dischrgd")


def drift_counters(
    slice_: pa.Table, onset_s: float, strength: float, variant: str, sign: float, current_sign: float,
    state: Counters | None = None,
) -> tuple[pa.Table, Counters]:  # fmt: skip
    """A delivered slice of a car whose current sensor drifts from the onset on, and the state for its next slice.

    ``slice_``: rows of one device in ``lake_schema``, in any order; ``variant``: asymmetry (discharge is seen smaller
    by the size; larger where ``sign`` is -1) or offset (so many A more); ``current_sign``: +1 where the delivery writes
    charging current positive. Current and counters drift, kWh with Ah; SoC is left: after rests its BMS anchors it
    anyway. The slices of a car must come in order of time.
    """
    size = size_of("COUNTER_DRIFT", strength, variant)[0]
    assert size is not None
    state = state or Counters()
    order, t = _in_time(slice_)
    if not len(t):
        return slice_, state
    counters = np.array([_filled(_floats(slice_, name)[order]) for name in _COUNTERS])
    last = np.array(state.last) if state.last else counters[:, 0]
    steps = np.diff(counters, axis=1, prepend=last[:, None])
    steps = np.where(np.isfinite(steps) & (steps > 0), steps, 0.0)
    begun = t >= onset_s
    amps = _floats(slice_, "pack_current")[order] * current_sign
    if variant == "offset":
        gap_s = np.diff(t, prepend=t[0] if np.isnan(state.last_s) else state.last_s)
        hours = np.where((gap_s > 0) & (gap_s <= _GAP_S), gap_s, 0.0) / 3600
        into = np.nan_to_num(amps) > 0
        ah = sign * size * hours
        volts = [_ratio(steps[2].sum(), steps[0].sum()), _ratio(steps[3].sum(), steps[1].sum())]  # kWh per Ah
        extra = np.array([ah * into, -ah * ~into, ah * into * volts[0], -ah * ~into * volts[1]])
        seen = amps + sign * size
    else:
        extra = np.array([0 * steps[0], -sign * size / 100 * steps[1], 0 * steps[2], -sign * size / 100 * steps[3]])
        seen = np.where(amps < 0, amps * (1 - sign * size / 100), amps)
    # a counter never runs backwards
    extra = np.maximum(extra * begun, -steps)
    added = np.array(state.added)[:, None] + np.cumsum(extra, axis=1)
    changed = {
        name: np.where(np.isfinite(values), np.floor(10 * (values + more) + 1e-6) / 10, np.nan)
        for name, values, more in zip(_COUNTERS, counters, added, strict=True)
    }
    changed["pack_current"] = np.where(begun, np.round(10 * seen) / 10, amps) * current_sign
    ends = Counters(tuple(counters[:, -1].tolist()), tuple(added[:, -1].tolist()), float(t[-1]))
    return _put(slice_, order, changed), ends


def reset_counters(
    slice_: pa.Table, onset_s: float, state: Counters | None = None
) -> tuple[pa.Table, Counters]:  # fmt: skip
    """A delivered slice of a car whose lifetime counters start anew at the onset, and the state for its next slice."""
    state = state or Counters()
    order, t = _in_time(slice_)
    begun = t >= onset_s
    if not begun.any():
        return slice_, state
    values = {name: _floats(slice_, name)[order] for name in (*_COUNTERS, "op_time")}
    if state.last:
        base = dict(zip(values, state.last, strict=True))
    else:
        base = {name: float(_filled(column)[int(np.argmax(begun))]) for name, column in values.items()}
    changed = {name: np.where(begun, np.round(column - base[name], 1), column) for name, column in values.items()}
    return _put(slice_, order, changed), Counters(tuple(base.values()), state.added, float(t[-1]))


def _ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole > 0 else 0.0


def _in_time(slice_: pa.Table) -> tuple[Ints, F64]:
    seconds = slice_.column("time").cast(pa.timestamp("us")).cast(pa.int64()).to_numpy() / 1e6
    order = np.argsort(seconds, kind="stable")
    return order, np.asarray(seconds[order], dtype=np.float64)


def _floats(slice_: pa.Table, name: str) -> F64:
    return np.asarray(slice_.column(name).cast(pa.float64()).to_numpy(zero_copy_only=False), dtype=np.float64)


def _filled(values: F64) -> F64:
    """Values with missing ones taken from before, the first ones from after."""
    return _carried(values, np.nan)


def _put(slice_: pa.Table, order: Ints, changed: dict[str, F64]) -> pa.Table:
    for name, values in changed.items():
        field = slice_.schema.field(name)
        back = np.empty(len(values))
        back[order] = values
        was_null = np.asarray(slice_.column(name).is_null().to_numpy(zero_copy_only=False), dtype=bool)
        column = pa.array(back, pa.float64(), mask=was_null | ~np.isfinite(back)).cast(field.type)
        slice_ = slice_.set_column(slice_.schema.get_field_index(name), field, column)
    return slice_
