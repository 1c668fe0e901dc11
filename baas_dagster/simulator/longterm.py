"""Cars over years, at the level where the statistics of the battery live: awake periods, rests, charging sessions.

Belongs here: many cars at once, from drive to drive, with what their units would have written down at the edges of
every awake period. Does not belong here: rows (``vehicle``, ``logger``), deliveries, and anything an estimator assumes.

Physics and error sizes are those of ``vehicle``; the curves those of ``packs``. What years add: capacity falls along a
path (flat, normal, fast, knee), the capacity the BMS counts with wanders around the true one with the fixed 4 %, every
car may belong to a type of its own (curve and maker's table drawn anew), and single sessions and rests are bad. All
arrays have one entry per car; time is whole seconds since 1970 in naive KST.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from baas_dagster.simulator.packs import SOC_GRID, PackType, type_curve
from baas_dagster.simulator.vehicle import ERRORS, PHYSICS

__all__ = ["FADES", "LongCars", "LongHistory", "draw_long_cars", "live"]

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

FADES = ("flat", "normal", "fast", "knee")
"""Paths of capacity: constant; about 2 %/yr; 6 %/yr; 1.5 %/yr and from some month between 10 and 24 on 7 %/yr."""

TYPE_WARP_V = 0.008
"""Root mean square by which the curve of a type drawn anew differs from its chemistry's, V."""

MAKER_ERROR_V = 0.002
"""Size of the maker's error in its table, V, as in ``packs.maker_table``."""

BAD_SESSION_SHARE = 0.01
"""Share of sessions that lost a part of their charge."""

BAD_REST_SHARE = 0.004
"""Share of rests whose voltage is some 30 mV off: a stale row, a load that no current showed."""

BMS_WANDER_YEARS = 3.0
"""Years in which the error of the BMS's capacity forgets where it was."""

_DAY_S, _MONTH_DAYS = 86_400, 30.4375


@dataclass(frozen=True, eq=False)
class LongCars:
    """What the cars are; arrays (cars,) unless said otherwise."""

    device_no: list[str]
    pack: PackType
    nominal_ah: float
    fade: list[str]
    type_no: NDArray[np.int64]
    capacity_new_ah: Floats
    soh_start_pct: Floats
    fade_pct_per_year: Floats
    knee_year: Floats
    knee_pct_per_year: Floats
    bms_error: Floats  # at the beginning, share
    anchor_share: Floats
    gain: Floats
    offset_a: Floats
    hysteresis_v: Floats
    curve_v: Floats  # (cars, SOC_GRID)
    maker_v: Floats  # (cars, SOC_GRID)
    daily_use: Floats  # share of the capacity a day
    charge_below: Floats
    charge_to: Floats
    dc_share: Floats
    charges_at_night: Flags

    def take(self, index: NDArray[np.int64]) -> LongCars:
        """Some of the cars."""
        chosen = {
            f.name: getattr(self, f.name)[index] for f in fields(self) if isinstance(getattr(self, f.name), np.ndarray)
        }
        chosen |= {name: [getattr(self, name)[i] for i in index.tolist()] for name in ("device_no", "fade")}
        return replace(self, **chosen)

    def soh_pct(self, years: Floats | float) -> Floats:
        """True capacity against the car's own new one, %, after ``years``."""
        lost = self.fade_pct_per_year * years + self.knee_pct_per_year * np.maximum(years - self.knee_year, 0)
        return np.asarray(self.soh_start_pct - lost)


@dataclass
class LongHistory:
    """What was written down: ``periods`` as ``int_awake_period``, ``sessions`` as ``fct_charging_session``, and the
    truth."""

    periods: pl.DataFrame
    sessions: pl.DataFrame
    truth: pl.DataFrame  # device_no, measured_month, soh_pct (middle of the month), capacity_ah, bms_capacity_ah


def _wave(rng: np.random.Generator, n: int, rms: float) -> Floats:
    """Smooth random curves of that root mean square, (n, SOC_GRID): as the warp of ``fleet.draw_car``."""
    k = np.arange(1, 6)[None, :, None]
    phase, size = rng.uniform(0, 2 * np.pi, (n, 5, 1)), rng.standard_normal((n, 5, 1)) / k
    wave = (size * np.sin(np.pi * k * SOC_GRID[None, None, :] + phase)).sum(axis=1)
    wave = wave - wave.mean(axis=1, keepdims=True)
    return np.asarray(rms * wave / np.sqrt(np.mean(wave**2, axis=1, keepdims=True)))


def draw_long_cars(
    rng: np.random.Generator,
    pack: PackType,
    n_types: int,
    cars_per_type: int,
    fades: Sequence[str] = ("normal",),
    nominal_ah: float | None = None,
    prefix: str = "0130",
    own_types: bool = True,
) -> LongCars:
    """Cars of ``n_types`` types of one pack, ``cars_per_type`` each (cars of one type lie together).

    ``own_types``: each type has its own curve and table; else all share the pack's. ``fades`` go round.
    """
    n = n_types * cars_per_type
    flat_share = 0.25 if pack.chemistry == "LFP" else 1.0
    base = np.tile(type_curve(pack.chemistry), (n_types, 1))
    if own_types:
        base = base + _wave(rng, n_types, TYPE_WARP_V * flat_share)
    phase = rng.uniform(0, 2 * np.pi, (n_types, 1)) if own_types else np.full((n_types, 1), 0.6)
    maker = base + MAKER_ERROR_V * np.sin(7.3 * SOC_GRID + phase)
    rising = 1e-6 * SOC_GRID
    maker = np.repeat(np.maximum.accumulate(maker, axis=1) + rising, cars_per_type, axis=0)
    curve = np.repeat(base, cars_per_type, axis=0) + _wave(rng, n, ERRORS.ocv_warp_v * flat_share)
    fade = [fades[i % len(fades)] for i in range(n)]
    rate = {"flat": 0.0, "normal": 2.0, "fast": 6.0, "knee": 1.5}
    yearly = np.array([rate[name] for name in fade])
    normal = np.array([name == "normal" for name in fade])
    yearly = np.where(normal, np.clip(rng.normal(2.0, 0.6, n), 0.5, 4), yearly)
    to_pct = (100.0,) if pack.chemistry == "LFP" else (100.0, 90.0, 80.0, 100.0)
    return LongCars(
        device_no=[f"{prefix}{i:07d}" for i in range(n)],
        pack=pack,
        nominal_ah=nominal_ah or pack.capacity_ah,
        fade=fade,
        type_no=np.repeat(np.arange(n_types), cars_per_type),
        capacity_new_ah=(nominal_ah or pack.capacity_ah) * (1 + ERRORS.capacity_new * rng.standard_normal(n)),
        soh_start_pct=np.clip(rng.normal(95, 3, n), 84, 100),
        fade_pct_per_year=yearly,
        knee_year=np.where([name == "knee" for name in fade], rng.uniform(10, 24, n) / 12, 1e9),
        knee_pct_per_year=np.full(n, 5.5),
        bms_error=ERRORS.bms_capacity * rng.standard_normal(n),
        anchor_share=rng.uniform(0.3, 0.9, n),
        gain=ERRORS.current_gain * rng.standard_normal(n),
        offset_a=ERRORS.current_offset_a * rng.standard_normal(n),
        hysteresis_v=ERRORS.hysteresis_v * rng.normal(1, 0.15, n),
        curve_v=np.maximum.accumulate(curve, axis=1) + rising,
        maker_v=maker,
        daily_use=rng.uniform(0.06, 0.30, n),
        charge_below=rng.uniform(0.22, 0.55, n),
        charge_to=np.array([to_pct[i % len(to_pct)] for i in rng.permutation(n)]) / 100,
        dc_share=rng.uniform(0.1, 0.9, n),
        charges_at_night=rng.uniform(size=n) < 0.35,
    )


def _at(grid_v: Floats, rows: NDArray[np.int64], soc: Floats) -> Floats:
    """Each car's own curve at its SoC (share of 1)."""
    place = np.clip(soc, 0, 1) * (len(SOC_GRID) - 1)
    left = np.minimum(place.astype(np.int64), len(SOC_GRID) - 2)
    low, high = grid_v[rows, left], grid_v[rows, left + 1]
    return np.asarray(low + (place - left) * (high - low))


def _read(grid_v: Floats, rows: NDArray[np.int64], volts: Floats) -> Floats:
    """SoC (share of 1) that each car's table gives for a voltage."""
    table = grid_v[rows]
    right = np.clip((table < volts[:, None]).sum(axis=1), 1, len(SOC_GRID) - 1)
    every = np.arange(len(rows))
    low, high = table[every, right - 1], table[every, right]
    return np.asarray((right - 1 + np.clip((volts - low) / (high - low), 0, 1)) / (len(SOC_GRID) - 1))


@dataclass
class _Book:
    """Columns of what is written down, in pieces."""

    columns: dict[str, list[NDArray[np.float64]]] = field(default_factory=dict)

    def write(self, **values: NDArray[Any]) -> None:
        for name, value in values.items():
            self.columns.setdefault(name, []).append(np.asarray(value, dtype=np.float64))

    def all(self) -> dict[str, NDArray[np.float64]]:
        return {name: np.concatenate(parts) for name, parts in self.columns.items()}


@dataclass
class _State:
    """Where all cars are."""

    at_s: Floats
    soc: Floats
    bms_pct: Floats
    hysteresis: Floats
    charged_ah: Floats
    discharged_ah: Floats
    capacity_ah: Floats
    bms_ah: Floats


def live(
    cars: LongCars, months: int, rng: np.random.Generator, first_month: str = "2021-01", bms_wanders: bool = True
) -> LongHistory:
    """Let the cars live for ``months``. A day: out, back, sometimes a charge after it, days off and silences.

    ``bms_wanders``: the error of the BMS's capacity moves on from where it began; else it stays.
    """
    n = len(cars.device_no)
    begin_day = int(np.datetime64(first_month, "M").astype("datetime64[D]").astype(np.int64))
    end_month = np.datetime64(first_month, "M") + np.timedelta64(months, "M")
    days = int(end_month.astype("datetime64[D]").astype(np.int64)) - begin_day
    error = cars.bms_error.copy()
    state = _State(
        at_s=np.full(n, begin_day * _DAY_S, dtype=np.float64),
        soc=rng.uniform(0.55, 0.9, n),
        bms_pct=np.zeros(n),
        hysteresis=np.full(n, -0.5),
        charged_ah=rng.uniform(3e3, 2e4, n),
        discharged_ah=rng.uniform(3e3, 2e4, n),
        capacity_ah=cars.capacity_new_ah * cars.soh_pct(0.0) / 100,
        bms_ah=cars.capacity_new_ah * cars.soh_pct(0.0) / 100 * (1 + error),
    )
    state.bms_pct = 100 * state.soc + rng.normal(0, 1.5, n)
    periods, sessions = _Book(), _Book()
    everyone = np.arange(n)
    keep = float(np.exp(-(_MONTH_DAYS / 365.25) / BMS_WANDER_YEARS))
    truth: list[pl.DataFrame] = []
    month_now = None
    waits_until = np.zeros(n)
    for day in range(days):
        years = day / 365.25
        month = str(np.datetime64(begin_day + day, "D").astype("datetime64[M]"))
        state.capacity_ah = cars.capacity_new_ah * cars.soh_pct(years) / 100
        if month != month_now:
            if month_now is not None and bms_wanders:
                error = keep * error + ERRORS.bms_capacity * np.sqrt(1 - keep**2) * rng.standard_normal(n)
            month_now = month
            state.bms_ah = state.capacity_ah * (1 + error)  # a BMS learns in steps
            middle = cars.soh_pct(years + _MONTH_DAYS / 730.5)
            truth.append(
                pl.DataFrame(
                    {
                        "device_no": cars.device_no,
                        "measured_month": [month] * n,
                        "soh_pct": middle,
                        "capacity_ah": cars.capacity_new_ah * middle / 100,
                        "bms_capacity_ah": state.bms_ah,
                    }
                )
            )
        midnight = (begin_day + day) * _DAY_S
        waits_until = np.where(rng.uniform(size=n) < 0.01, midnight + rng.uniform(3, 9, n) * _DAY_S, waits_until)
        out = (rng.uniform(size=n) < 0.82) & (waits_until < midnight)
        for hour, share in ((7.6, 0.45), (17.6, 0.55)):
            use = cars.daily_use * share * rng.gamma(4, 0.25, n)
            goes = out & (state.soc - use > 0.07)
            who = everyone[goes]
            start = np.maximum(midnight + (hour + rng.normal(0, 0.5, n)) * 3600, state.at_s + 400)[who]
            hours = np.clip(use[who] * cars.nominal_ah * cars.pack.cell_count * 3.7e-3 / 7.5, 0.15, 6)
            _move(cars, state, who, start, hours, -use[who], False, rng, periods)
        needs = state.soc < np.where(rng.uniform(size=n) < 0.12, 0.75, cars.charge_below)
        needs &= waits_until < midnight
        who = everyone[needs]
        quick = rng.uniform(size=len(who)) < cars.dc_share[who]
        goal = np.where(
            quick, np.minimum(cars.charge_to[who], rng.choice([0.8, 0.85, 0.95], len(who))), cars.charge_to[who]
        )
        gain = np.maximum(goal - state.soc[who], 0.01)
        pack_kwh = cars.nominal_ah * cars.pack.cell_count * 3.7e-3
        hours = gain * pack_kwh / np.where(quick, 0.6 * cars.pack.dc_kw, 0.93 * cars.pack.ac_kw)
        late = np.maximum(midnight + 23 * 3600, state.at_s[who] + 7_500)
        soon = state.at_s[who] + rng.uniform(300, 1200, len(who))
        start = np.where(cars.charges_at_night[who] & ~quick, late, soon)
        _move(cars, state, who, start, hours, gain, True, rng, periods, sessions, quick)
    return LongHistory(_periods(cars, periods.all()), _sessions(cars, sessions.all(), rng), pl.concat(truth))


def _move(
    cars: LongCars,
    state: _State,
    who: NDArray[np.int64],
    start_s: Floats,
    hours: Floats,
    moved: Floats,
    is_charge: bool,
    rng: np.random.Generator,
    periods: _Book,
    sessions: _Book | None = None,
    quick: Flags | None = None,
) -> None:
    """One awake period of the cars ``who``: asleep until ``start_s``, then ``moved`` (share of the capacity) in
    ``hours``."""
    n = len(who)
    if not n:
        return
    start_s = np.round(start_s)
    capacity, cells = state.capacity_ah[who], cars.pack.cell_count
    asleep_h = np.maximum(start_s - state.at_s[who], 0) / 3600
    ocv = _at(cars.curve_v, who, state.soc[who])
    state.soc[who] -= PHYSICS.parked_w * asleep_h / (cells * ocv) / capacity
    cell_v = _at(cars.curve_v, who, state.soc[who]) + cars.hysteresis_v[who] * state.hysteresis[who]
    rested = asleep_h * 3600 >= PHYSICS.anchor_after_s
    believed = 100 * _read(cars.maker_v, who, cell_v)
    if cars.pack.chemistry == "LFP":
        rested &= (believed <= 12) | (believed >= 97)
    state.bms_pct[who] += np.where(rested, cars.anchor_share[who] * (believed - state.bms_pct[who]), 0.0)
    bad = rng.uniform(size=n) < BAD_REST_SHARE
    seen_v = cell_v + np.where(bad, rng.normal(0, 0.03, n), 0.0)
    pack_v = np.round(seen_v * cells + rng.normal(0, 0.04, n), 1)
    first = {
        "soc_first": np.round(state.bms_pct[who] * 2) / 2,
        "charged_first": np.floor(state.charged_ah[who] * 10 + 1e-6) / 10,
        "discharged_first": np.floor(state.discharged_ah[who] * 10 + 1e-6) / 10,
    }
    net = moved * capacity
    regen = np.zeros(n) if is_charge else -net * rng.uniform(0.1, 0.3, n)
    seen_net = net * (1 + cars.gain[who]) + cars.offset_a[who] * hours
    seen_back = regen * (1 + cars.gain[who])
    charged = seen_net if is_charge else seen_back
    discharged = np.zeros(n) if is_charge else np.maximum(seen_back - seen_net, 0)
    before_pct = state.bms_pct[who].copy()
    full = is_charge & (state.soc[who] + moved >= 0.999)
    state.soc[who] = state.soc[who] + moved
    counted = before_pct + 100 * seen_net / state.bms_ah[who]
    after_pct = np.clip(np.where(full, 100.0, counted), 0.6, 100.0)
    state.bms_pct[who] = after_pct
    way = np.sign(moved)
    state.hysteresis[who] = way + (state.hysteresis[who] - way) * np.exp(-np.abs(moved) / 0.03)
    state.charged_ah[who] += np.maximum(charged, 0)
    state.discharged_ah[who] += discharged
    end_s = start_s + np.round(hours * 3600)
    state.at_s[who] = end_s
    periods.write(
        car=who,
        from_s=start_s,
        to_s=end_s,
        **first,
        soc_last=np.round(after_pct * 2) / 2,
        charged_last=np.floor(state.charged_ah[who] * 10 + 1e-6) / 10,
        discharged_last=np.floor(state.discharged_ah[who] * 10 + 1e-6) / 10,
        charge=np.maximum(charged, 0),
        discharge=discharged,
        pack_v=pack_v,
        cell_mean_mv=1000 * seen_v + rng.normal(0, 1.0, n),
        current=np.round(-PHYSICS.awake_w / (cells * cell_v) + cars.offset_a[who] + rng.normal(0, 0.06, n), 1),
        temp=np.round(12.6 - 14.2 * np.cos(2 * np.pi * (start_s / _DAY_S - 20) / 365.2425) + rng.normal(0, 4, n)),
    )
    if sessions is None or quick is None:
        return
    step_first, step_last = np.round(before_pct * 2) / 2 + 0.5, np.round(after_pct * 2) / 2
    share = np.clip((step_last - step_first) / np.maximum(after_pct - before_pct, 0.1), 0, 1)
    slack_ah = np.abs(seen_net) / np.maximum(hours, 0.05) * 10 / 3600  # rows every 10 s
    timed = seen_net * share + slack_ah * (rng.uniform(size=n) - rng.uniform(size=n))
    sessions.write(
        car=who,
        from_s=start_s,
        to_s=end_s,
        quick=quick.astype(np.float64),
        soc_start=np.round(before_pct * 2) / 2,
        soc_end=np.round(after_pct * 2) / 2,
        charge=seen_net,
        step_first=step_first,
        step_last=step_last,
        step_charge=timed,
        temp=np.full(n, 20.0),
    )


def _times(seconds: Floats) -> pl.Series:
    return pl.Series((seconds * 1e6).astype(np.int64)).cast(pl.Datetime("us"))


def _names(cars: LongCars, index: Floats) -> pl.Series:
    return pl.Series(np.array(cars.device_no, dtype=object)[index.astype(np.int64)].tolist(), dtype=pl.String)


def _periods(cars: LongCars, c: dict[str, Floats]) -> pl.DataFrame:
    from_at = _times(c["from_s"])
    return (
        pl.DataFrame(
            {
                "device_no": _names(cars, c["car"]),
                "source": ["bms"] * len(from_at),
                "from_at": from_at,
                "to_at": _times(c["to_s"]),
                "soc_first_pct": c["soc_first"],
                "soc_last_pct": c["soc_last"],
                "charged_total_first_ah": c["charged_first"],
                "charged_total_last_ah": c["charged_last"],
                "discharged_total_first_ah": c["discharged_first"],
                "discharged_total_last_ah": c["discharged_last"],
                "charge_ah": c["charge"],
                "discharge_ah": c["discharge"],
                "integrated_s": c["to_s"] - c["from_s"],
                "charged_ah": c["charged_last"] - c["charged_first"],
                "discharged_ah": c["discharged_last"] - c["discharged_first"],
                "life_no": np.zeros(len(from_at), dtype=np.int64),
                "rest_at": from_at,
                "rest_pack_voltage_v": c["pack_v"],
                "rest_current_a": c["current"],
                "rest_cell_mean_mv": c["cell_mean_mv"],
                "rest_soc_pct": c["soc_first"],
                "rest_temp_c": c["temp"],
            }
        )
        .with_columns(measured_month=pl.col("from_at").dt.strftime("%Y-%m"))
        .sort("device_no", "from_at")
    )


def _sessions(cars: LongCars, c: dict[str, Floats], rng: np.random.Generator) -> pl.DataFrame:
    started = _times(c["from_s"])
    lost = np.where(rng.uniform(size=len(started)) < BAD_SESSION_SHARE, rng.uniform(0.5, 0.9, len(started)), 1.0)
    return (
        pl.DataFrame(
            {
                "device_no": _names(cars, c["car"]),
                "started_at": started,
                "ended_at": _times(c["to_s"]),
                "mode": np.where(c["quick"] > 0, "DC", "AC"),
                "is_inferred": np.zeros(len(started), dtype=bool),
                "soc_start_pct": c["soc_start"],
                "soc_end_pct": c["soc_end"],
                "charge_ah": c["charge"] * lost,
                "energy_method": ["counter"] * len(started),
                "step_soc_first_pct": c["step_first"],
                "step_soc_last_pct": c["step_last"],
                "step_soc_delta_pct": c["step_last"] - c["step_first"],
                "step_charge_ah": c["step_charge"] * lost,
                "temp_mean_c": c["temp"],
            }
        )
        .with_columns(
            measured_month=pl.col("started_at").dt.strftime("%Y-%m"),
            session_id=pl.col("device_no") + "-" + pl.col("started_at").dt.epoch("s").cast(pl.String),
        )
        .sort("device_no", "started_at")
    )
