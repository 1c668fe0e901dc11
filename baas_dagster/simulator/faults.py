"""What is wrong with a car: faults of cells, modules, insulation, current sensor, BMS and logging unit.

Belongs here: which fault a car has from when on and how large, and what it does to current, charge, voltages and
temperatures before anything is polled, rounded or written. Does not belong here: rounding and columns (``logger``), and
how anybody finds it. Sizes are multiples of the reference sizes (``faultbench.reference``); shapes are the car's own: a
leak integrates current over parked and driven time and shows through the car's own voltage curve, a bad joint follows
the kinetics of a cell, heat lags behind the load. A fault follows from nothing but the plan, the seed and the car.

========================= =============================================================================================
code, variant             what happens from the onset on
========================= =============================================================================================
CELL_OUTLIER              one cell low by the size, at any charge
CELL_OUTLIER capacity     one cell of less capacity, full with the others: low by the size at half charge
CELL_LOWEST               one cell falls to the size below the others within 30 days
CELL_SELF_DISCHARGE       one cell leaks; nothing balances it until it is 25 points behind
... rebalanced            the same, and each full charge makes good 60 % of what it is behind
CELL_SPREAD               a bad joint: the cell reads high on charge (by the size at AC current), low on discharge
CELL_OVERVOLT             one cell too high over the last 12 min of charges
CELL_UNDERVOLT            one cell too low for 5 min of every second day's drives
TEMP_SPREAD               one module warmer, growing with the load up to the size
TEMP_HIGH                 cooling fails: in long drives and charges the pack heats, one module to the size for 10 min
TEMP_RISE                 one module rises by the size for 3 min on every second day, and cools slowly
TEMP_SENSOR               one sensor keeps the value it had
TEMP_SENSOR jump          one sensor reads 15 K more in single rows, one in 250
INSULATION_LOW            insulation of that many Ohm per volt, moving by 2 % with the hours
SOC_JUMP                  the BMS's charge steps by the size in drives of every fourth day, towards the middle
SOC_LOW                   the driver no longer charges before the pack is all but empty
COUNTER_DRIFT asymmetry   the sensor sees discharge smaller or larger by the size
COUNTER_DRIFT offset      the sensor is off by the size
COUNTER_RESET             lifetime counters start anew, once
SENSOR_FROZEN             pack voltage and current keep their value for 5 min of drives on every third day
DEVICE_SILENT             nothing is logged any more, BMS and GPS
SOH_FADE                  capacity falls faster, from the beginning of the history
FAULT_OR_SENSOR hot       a module at 97 degC for 5 min, twice within 14 days
FAULT_OR_SENSOR cell      a cell at 1.2 V for 20 min, twice within 14 days
FAULT_OR_SENSOR insulation insulation 0 for an hour after waking, twice within 14 days
========================= =============================================================================================

Oddities are no faults: ``rebalances`` (every nine days single cells step by a few mV), ``padded`` (12 sensors that do
not exist), ``rarely`` (driven on three days a month).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from baas_dagster.faultbench.reference import PRESENT_OR_ABSENT, REFERENCE, size_of

__all__ = [
    "CODES", "ODDITIES", "Course", "Fault", "PlannedFault", "balancing_period", "cells_extra_v", "draw_faults",
    "drives_today", "extra_fade", "frozen_rows", "insulation_kohm", "rebalancing_v", "runs_empty", "seen_current",
    "soc_steps", "temperatures_c",
]  # fmt: skip

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Samples = dict[str, Floats]

CODES = (*dict.fromkeys(code for code, _ in REFERENCE), *PRESENT_OR_ABSENT)
"""Codes a car can have a fault of."""

ODDITIES = ("rebalances", "padded", "rarely")

_DAY_S = 86_400
_PERIOD_S = 9 * _DAY_S
_DRIVE, _AC, _DC = 0, 1, 2  # kinds of stretch, as ``logger.KINDS``
_LAG_LIMIT = 0.25  # share of the charge a leaking cell is behind when the BMS bleeds the others as fast as it leaks
_MADE_GOOD = 0.6  # share of it that a full charge makes good, where the BMS balances
_FULL_SOC = 0.985
_JOINT = 8.0  # AC current over exchange current of a bad joint: below it is linear, above it grows slowly (asinh)
_LOAD_C = 0.12  # C; current from which a warm module is as warm as it gets
_LOAD_S = 300.0  # s; its thermal time constant
_LIMITS_V = {"LFP": (1.8, 3.95)}
_LIMITS_NMC_V = (2.2, 4.38)
"""What a cell is driven to, under- and overvoltage, V: beyond what its maker allows (LFP 2.0-3.65, NMC 2.5-4.25)."""


@dataclass(frozen=True)
class PlannedFault:
    """A fault of the car with that index: which, how strong, between which days of the history it begins."""

    index: int
    code: str
    strength: float = 1.0
    variant: str = ""
    days: tuple[float, float] = (31.0, 78.0)  # month 2 to the 19th of month 3

    def __post_init__(self) -> None:
        """Refuse what no car can have."""
        if self.code not in CODES:
            raise ValueError(f"unknown fault {self.code!r}: {CODES}")
        size_of(self.code, self.strength, self.variant)


@dataclass(frozen=True)
class Fault:
    """A fault as a car has it. Times are seconds since 1970 in naive KST; cells and modules count from 1."""

    code: str
    variant: str
    strength: float | None  # None: present or absent
    size: float  # at that strength, in ``unit``; NaN: present or absent
    unit: str
    onset_s: int
    ended_s: int | None = None  # None: it lasts
    cell_no: int | None = None
    module_no: int | None = None
    sign: float = 1.0


def draw_faults(
    planned: Iterable[PlannedFault], rng: np.random.Generator, begin_s: int, cells: int, sensors: int
) -> tuple[Fault, ...]:
    """The faults of one car as planned; onset, cell, module and sign are drawn. One weak cell has all of them."""
    cell_no, module_no = int(rng.integers(cells)) + 1, int(rng.integers(sensors)) + 1
    found = []
    for plan in planned:
        size, unit = size_of(plan.code, plan.strength, plan.variant)
        onset_s = begin_s + int(rng.uniform(*plan.days) * _DAY_S)
        if plan.code == "SOH_FADE":
            onset_s = begin_s
        is_cell = plan.code.startswith("CELL_") or plan.variant == "cell"
        found.append(
            Fault(
                code=plan.code,
                variant=plan.variant,
                strength=None if size is None else plan.strength,
                size=float("nan") if size is None else size,
                unit=unit,
                onset_s=onset_s,
                ended_s={"FAULT_OR_SENSOR": onset_s + 14 * _DAY_S, "COUNTER_RESET": onset_s}.get(plan.code),
                cell_no=cell_no if is_cell else None,
                module_no=module_no if plan.code.startswith("TEMP_") or plan.variant == "hot" else None,
                sign=float(rng.choice([-1.0, 1.0])),
            )
        )
    return tuple(found)


def rebalancing_v(rng: np.random.Generator, cells: int, begin_s: int, months: int) -> Floats:
    """What a BMS that re-balances adds to each cell, V, (periods, cells): every nine days a few cells step.

    Row ``balancing_period`` holds; the history of ``months`` from ``begin_s`` meets every row at most once.
    """
    table = np.zeros((months * 31 * _DAY_S // _PERIOD_S + 2, cells))
    for period in range(1, len(table)):
        table[period] = table[period - 1]
        moved = rng.choice(cells, size=max(1, cells // 20), replace=False)
        table[period, moved] = rng.uniform(-0.005, 0.005, len(moved))
    return np.roll(table, begin_s // _PERIOD_S % len(table), axis=0)


def balancing_period(seconds: Ints, periods: int) -> Ints:
    """Row of ``rebalancing_v`` (which has so many) that holds at a time."""
    return seconds // _PERIOD_S % periods


def drives_today(oddities: tuple[str, ...], day: int) -> bool:
    """Whether a car is driven on that day of its month (from 0)."""
    return "rarely" not in oddities or day in (4, 13, 22)


# --- physics: what the car itself does --------------------------------------------------------------------------------
def _of(faults: tuple[Fault, ...], code: str) -> list[Fault]:
    return [fault for fault in faults if fault.code == code]


def extra_fade(faults: tuple[Fault, ...]) -> float:
    """Points of state of health a year lost beside the car's own fade."""
    return sum(fault.size for fault in _of(faults, "SOH_FADE"))


def runs_empty(faults: tuple[Fault, ...], at_s: int) -> bool:
    """Whether the driver charges only when the pack is all but empty."""
    return any(at_s >= fault.onset_s for fault in _of(faults, "SOC_LOW"))


def seen_current(faults: tuple[Fault, ...], seconds: Ints, seen_a: Floats) -> Floats:
    """Current as a faulty sensor shows it, A, from what a healthy one would show; one value per second."""
    for fault in _of(faults, "COUNTER_DRIFT"):
        begun = seconds >= fault.onset_s
        if fault.variant == "offset":
            seen_a = seen_a + begun * fault.sign * fault.size
        else:
            seen_a = np.where(begun & (seen_a < 0), seen_a * (1 - fault.sign * fault.size / 100), seen_a)
    return seen_a


def soc_steps(faults: tuple[Fault, ...], kind: str, seconds: Ints, soc_pct: float) -> Floats | None:
    """What the BMS's charge is off by in a stretch that began at ``soc_pct``, points, per second; None: nothing."""
    for fault in _of(faults, "SOC_JUMP"):
        if kind == "drive" and len(seconds) >= 900 and _is_due(fault, seconds[:1].astype(np.float64), 4)[0]:
            step = np.zeros(len(seconds))
            step[len(seconds) * 2 // 5 :] = fault.size * (-1.0 if soc_pct > 50 else 1.0)
            return step
    return None


def _is_due(fault: Fault, start_s: Floats, every_days: int) -> NDArray[np.bool_]:
    """Stretches (by their start) in which the fault shows, where it shows on every so many days only."""
    begun = (start_s >= fault.onset_s) & (start_s < (np.inf if fault.ended_s is None else fault.ended_s))
    days = np.floor_divide(start_s.astype(np.int64) - fault.onset_s, _DAY_S)
    return np.asarray(begun & (days % every_days == 0))


@dataclass
class Course:
    """Faults that carry something from stretch to stretch: how far a cell is behind, counters, a stuck value."""

    faults: tuple[Fault, ...]
    capacity_ah: float
    temp_offset_c: Floats
    lag: float = 0.0  # share of the charge by which the leaking cell is behind
    lag_at_s: float = field(default=float("nan"))
    stuck_c: float = field(default=float("nan"))
    counter_base: dict[str, float] = field(default_factory=dict)

    @property
    def silent_from_s(self) -> float:
        """From when on nothing is logged; infinite: never."""
        return min((float(fault.onset_s) for fault in _of(self.faults, "DEVICE_SILENT")), default=np.inf)

    def add_columns(self, samples: Samples, current_a: Floats, soc: Floats, temp_c: Floats, start_s: int) -> None:
        """Add to the samples of a stretch, in place, what rows alone do not tell. The arrays have a value per second.

        ``lag``: share of the charge the leaking cell is behind. ``load``: share of the warm module's excess.
        ``stuck_c``: what the stuck sensor shows, NaN before it sticks.
        """
        t = samples["t"]
        for fault in _of(self.faults, "CELL_SELF_DISCHARGE"):
            if np.isnan(self.lag_at_s):
                self.lag_at_s = float(fault.onset_s)
            per_s = fault.size / 1000 / 3600 / self.capacity_ah
            samples["lag"] = np.minimum(self.lag + per_s * np.maximum(t - self.lag_at_s, 0), _LAG_LIMIT)
            if t[-1] >= fault.onset_s:
                self.lag, self.lag_at_s = float(samples["lag"][-1]), float(t[-1])
                if fault.variant == "rebalanced" and soc[-1] >= _FULL_SOC > soc[0]:
                    self.lag *= 1 - _MADE_GOOD
        for fault in _of(self.faults, "TEMP_SPREAD"):
            push = np.minimum(np.abs(current_a) / (_LOAD_C * self.capacity_ah), 1.0)
            samples["load"] = _lagging(push, _LOAD_S)[(t - start_s).astype(np.int64)] * (t >= fault.onset_s)
        for fault in _of(self.faults, "TEMP_SENSOR"):
            if fault.variant != "jump":
                begun = t >= fault.onset_s
                if np.isnan(self.stuck_c) and begun.any():
                    at = int(t[int(np.argmax(begun))] - start_s)
                    self.stuck_c = float(np.round(temp_c[at] + self.temp_offset_c[_module(fault)]))
                samples["stuck_c"] = np.where(begun, self.stuck_c, np.nan)

    def restart_counters(self, samples: Samples, names: Iterable[str]) -> None:
        """Let lifetime counters start anew at the onset, in place."""
        for fault in _of(self.faults, "COUNTER_RESET"):
            begun = samples["t"] >= fault.onset_s
            if not begun.any():
                continue
            for name in names:
                base = self.counter_base.setdefault(name, float(samples[name][int(np.argmax(begun))]))
                samples[name] = samples[name] - base * begun


def _lagging(target: Floats, seconds: float) -> Floats:
    """First-order lag of a value per second, from 0; by steps of 10 s."""
    steps, out, value, keep = target[::10], np.empty(len(target)), 0.0, float(np.exp(-10 / seconds))
    for i, wanted in enumerate(steps.tolist()):
        out[10 * i : 10 * i + 10] = value
        value = keep * value + (1 - keep) * wanted
    return out


# --- units: what is there to be measured ------------------------------------------------------------------------------
def _module(fault: Fault) -> int:
    assert fault.module_no is not None
    return fault.module_no - 1


def _since(
    samples: Samples, fault: Fault, kinds: tuple[int, ...], every_days: int, min_s: float, at_s: float
) -> Floats:
    """Seconds since a spell began in each row's stretch; negative before, NaN where the stretch has none."""
    length = samples["since_start"] + samples["left_s"]
    due = _is_due(fault, samples["start"], every_days) & np.isin(samples["kind"], kinds) & (length >= min_s)
    return np.where(due, samples["since_start"] - at_s, np.nan)


def _within(since: Floats, first_s: float, last_s: float) -> NDArray[np.bool_]:
    return np.asarray((since >= first_s) & (since < last_s))


def cells_extra_v(
    faults: tuple[Fault, ...],
    samples: Samples,
    ocv: Callable[[Floats], Floats],
    chemistry: str,
    capacity_ah: float,
    ac_a: float,
) -> dict[int, Floats]:
    """What faults add to single cells, V: position -> a value per row. ``ac_a``: the car's AC charging current."""
    found: dict[int, Floats] = {}
    low_v, high_v = _LIMITS_V.get(chemistry, _LIMITS_NMC_V)
    t, soc, cell_v = samples["t"], samples["soc"], samples["cell_v"]
    for fault in faults:
        if fault.cell_no is None:
            continue
        begun = (t >= fault.onset_s).astype(np.float64)
        size_v = fault.size / 1000
        if fault.code == "CELL_SELF_DISCHARGE":
            extra = ocv(np.maximum(soc - samples["lag"], 0.0)) - ocv(soc)
        elif fault.code == "CELL_OUTLIER" and fault.variant == "capacity":
            half = float(ocv(np.array([0.5]))[0])
            grid = np.linspace(0.0, 0.5, 251)
            behind = (0.5 - float(np.interp(half - size_v, ocv(grid), grid))) / 0.5
            extra = begun * (ocv(np.clip(1 - (1 - soc) * (1 + behind), 0.0, 1.0)) - ocv(np.clip(soc, 0.0, 1.0)))
        elif fault.code == "CELL_OUTLIER":
            extra = -begun * size_v
        elif fault.code == "CELL_LOWEST":
            extra = -size_v * np.clip((t - fault.onset_s) / (30 * _DAY_S), 0.0, 1.0)
        elif fault.code == "CELL_SPREAD":
            kinetic = np.arcsinh(_JOINT * samples["current"] / ac_a) / np.arcsinh(_JOINT)
            extra = begun * size_v * kinetic
        elif fault.code == "CELL_OVERVOLT":
            is_end = np.isfinite(_since(samples, fault, (_AC, _DC), 1, 1_500, 0)) & (samples["left_s"] < 720)
            extra = is_end * (high_v - cell_v)
        elif fault.code == "CELL_UNDERVOLT":
            extra = _within(_since(samples, fault, (_DRIVE,), 2, 600, 240), 0, 300) * (low_v - cell_v)
        else:  # FAULT_OR_SENSOR cell
            extra = _within(_since(samples, fault, (_DRIVE, _AC, _DC), 6, 1_800, 300), 0, 1_200) * (1.2 - cell_v)
        at = fault.cell_no - 1
        found[at] = found[at] + extra if at in found else np.asarray(extra, dtype=np.float64)
    return found


def temperatures_c(faults: tuple[Fault, ...], samples: Samples, temps_c: Floats) -> Floats:
    """Module temperatures with their faults, degC, (rows, modules)."""
    t = samples["t"]
    for fault in faults:
        if fault.module_no is None:
            continue
        at, temps_c = _module(fault), temps_c.copy()
        if fault.code == "TEMP_SPREAD":
            temps_c[:, at] += fault.size * samples["load"]
        elif fault.code == "TEMP_HIGH":
            since = _since(samples, fault, (_DRIVE, _AC, _DC), 1, 2_700, 60)
            share = np.interp(np.nan_to_num(since, nan=-1.0), [0, 1_800, 2_400, 4_800], [0, 1, 1, 0])
            missing = np.maximum(fault.size - temps_c, 0.0)
            others = np.minimum(0.92 * missing[:, [at]], np.maximum(missing - 2.0, 0.0))
            others[:, at] = missing[:, at]  # the hottest by 2 K at least
            temps_c += share[:, None] * others
        elif fault.code == "TEMP_RISE":
            since = np.nan_to_num(_since(samples, fault, (_DRIVE, _AC, _DC), 2, 1_200, 480), nan=-1.0)
            rise = np.clip(since / 60, 0.0, 3.0) * fault.size
            temps_c[:, at] += rise * np.exp(-np.maximum(since - 180, 0) / 720)
        elif fault.code == "TEMP_SENSOR" and fault.variant == "jump":
            scattered = (t.astype(np.int64) * 2_654_435_761) % 2**32 < 2**32 // 250
            temps_c[:, at] += 15.0 * (scattered & (t >= fault.onset_s))
        elif fault.code == "TEMP_SENSOR":
            temps_c[:, at] = np.where(np.isnan(samples["stuck_c"]), temps_c[:, at], samples["stuck_c"])
        else:  # FAULT_OR_SENSOR hot
            since = _since(samples, fault, (_DRIVE, _AC, _DC), 6, 1_200, 300)
            share = np.interp(np.nan_to_num(since, nan=-1.0), [0, 240, 540, 2_400], [0, 1, 1, 0])
            temps_c[:, at] += share * (97.0 - temps_c[:, at])
    return temps_c


def insulation_kohm(faults: tuple[Fault, ...], samples: Samples, kohm: Floats) -> Floats:
    """Insulation resistance with its faults, kOhm; ``kohm`` is what a healthy car shows (0 just after waking)."""
    t = samples["t"]
    for fault in _of(faults, "INSULATION_LOW"):
        low = fault.size * samples["voltage"] / 1000 * (1 + 0.02 * np.sin(t / 20_000))
        kohm = np.where((t >= fault.onset_s) & (kohm > 0), np.minimum(kohm, low), kohm)
    for fault in _of(faults, "FAULT_OR_SENSOR"):
        if fault.variant == "insulation":
            kohm = np.where(_within(_since(samples, fault, (_DRIVE, _AC, _DC), 6, 1_800, 0), 0, 3_600), 0.0, kohm)
    return kohm


def frozen_rows(faults: tuple[Fault, ...], samples: Samples) -> Ints:
    """Row whose pack voltage and current each row shows: its own, or the one at which they froze."""
    shown = np.arange(len(samples["t"]))
    for fault in _of(faults, "SENSOR_FROZEN"):
        held = _within(_since(samples, fault, (_DRIVE,), 3, 720, 240), 0, 300)
        begins = held & ~(np.append(False, held[:-1]) & (np.append(np.nan, samples["start"][:-1]) == samples["start"]))
        first = np.maximum.accumulate(np.where(begins, shown, 0))
        shown = np.where(held, first, shown)
    return shown
