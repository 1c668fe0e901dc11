"""When a car drives, charges and rests: the stretches of one month.

Belongs here: habits (departure, destinations, when to charge and how far), and the pacing that keeps the mean hours
awake at the fleet's figure. Does not belong here: what happens in a stretch (``vehicle``).
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from baas_dagster.simulator.faults import drives_today, runs_empty
from baas_dagster.simulator.fleet import WEATHER_STREAM, stream
from baas_dagster.simulator.motion import distance_m, ground_path
from baas_dagster.simulator.vehicle import (
    PHYSICS,
    Ambient,
    Car,
    CarState,
    Charge,
    Floats,
    Ints,
    Stretch,
    charge,
    drive,
    rest,
)

__all__ = ["DAY_S", "Pacing", "ambient_of", "month_bounds", "month_stretches", "new_state"]

DAY_S = 86_400
HOME, WORK, FAR = 0, 1, 6
_KWH_PER_M = 0.30e-3  # what the planner reckons with, cold days included


@dataclass
class Pacing:
    """Time awake so far, to keep to the fleet's hours per day."""

    begin_s: int
    hours_per_day: float
    awake_s: float = 0.0
    driving_s: float = 0.0

    def owed_s(self, at_s: int) -> float:
        """Time awake the car is behind its mean (negative: ahead)."""
        return (at_s - self.begin_s) / 24 * self.hours_per_day - self.awake_s

    def driving_wanted_s(self, day_end_s: int) -> float:
        """Driving time that would bring the car to its mean by the end of the day."""
        daily = self.hours_per_day * 3600
        owed = self.owed_s(day_end_s)
        share = (self.driving_s + daily) / (self.awake_s + 1.7 * daily)
        return float(np.clip(owed, 0, 3.0 * daily)) * share


def month_bounds(month: str) -> tuple[int, int]:
    """First second of the month and of the next, seconds since 1970 in naive KST."""
    begin = np.datetime64(month, "M")
    end = begin + np.timedelta64(1, "M")
    return int(begin.astype("datetime64[s]").astype(np.int64)), int(end.astype("datetime64[s]").astype(np.int64))


def ambient_of(car: Car, seed: int, begin_s: int, months: int) -> Ambient:
    """Outside temperature where the car is: season, time of day, weather of the days (the same for the fleet)."""
    days = months * 31 + 40
    weather = stream(seed, WEATHER_STREAM).normal(0, 3.0, days)
    weather = np.convolve(weather, [0.25, 0.5, 0.25], mode="same") * 1.4
    knots = begin_s + (np.arange(days) - 3) * DAY_S

    def ambient(seconds: Ints) -> Floats:
        season = 12.6 - 14.2 * np.cos(2 * np.pi * (seconds / DAY_S - 20) / 365.2425)  # 1970-01-01 is day 0
        hour = 4.2 * np.sin(2 * np.pi * (seconds % DAY_S - 9 * 3600) / DAY_S)
        return np.asarray(season + hour + np.interp(seconds, knots, weather) + car.climate_offset_c)

    return ambient


def new_state(car: Car, rng: np.random.Generator, begin_s: int, ambient: Ambient) -> CarState:
    """The car as the simulated history finds it: asleep at home, relaxed, its counters those of its past."""
    soc = float(rng.uniform(0.55, 0.9))
    capacity = car.capacity_ah(0)
    past_ah = car.odometer_start_km * 0.19 / (car.pack.cell_count * 3.7e-3)
    volts = car.pack.cell_count * 3.7e-3
    return CarState(
        at_s=begin_s,
        soc=soc,
        capacity_ah=capacity,
        rc_v=[0.0, 0.0],
        hysteresis=-0.5,
        temp_c=float(ambient(np.array([begin_s]))[0]),
        odometer_m=car.odometer_start_km * 1000,
        bms_soc_pct=float(np.clip(100 * soc + rng.normal(0, 1.5), 5, 98)),
        charged_ah=past_ah,
        discharged_ah=past_ah * 0.985,
        charged_kwh=past_ah * volts * 1.015,
        discharged_kwh=past_ah * volts * 0.965,
        plug_kwh=past_ah * volts * 0.8,
        plug_quick_kwh=past_ah * volts * 0.8 * car.dc_share * 0.6,
        charge_count=int(car.odometer_start_km / 160),
        quick_count=int(car.odometer_start_km / 160 * car.dc_share * 0.6),
        op_time_s=float(round(car.odometer_start_km / 34 * 3600)),
        place=HOME,
    )


def month_stretches(
    car: Car, state: CarState, rng: np.random.Generator, month: str, last_s: int, pacing: Pacing, ambient: Ambient
) -> Iterator[Stretch]:
    """Every stretch of the car that starts in ``month``, in order; none ends at or after ``last_s``."""
    begin_s, end_s = month_bounds(month)
    days = (end_s - begin_s) // DAY_S
    silent = _silent_days(car, rng, days)
    for day in range(days):
        day_s = begin_s + day * DAY_S
        wanted = pacing.driving_wanted_s(day_s + DAY_S)
        is_last = day == days - 1
        if (
            not drives_today(car.oddities, day)
            or day in silent
            or (wanted < 500 and not (is_last and car.drives_at_midnight))
        ):
            continue
        for stretch in _day(car, state, rng, day_s, wanted, is_last, last_s, pacing, ambient):
            pacing.awake_s += len(stretch.current_a)
            pacing.driving_s += len(stretch.current_a) if stretch.kind == "drive" else 0
            yield stretch


def _silent_days(car: Car, rng: np.random.Generator, days: int) -> range:
    """A hole of several days without a row, for cars that have such."""
    length, first = int(rng.integers(3, 7)), int(rng.integers(2, days - 9))
    return range(first, first + length) if car.goes_silent else range(0)


def _day(
    car: Car,
    state: CarState,
    rng: np.random.Generator,
    day_s: int,
    wanted_s: float,
    is_last: bool,
    last_s: int,
    pacing: Pacing,
    ambient: Ambient,
) -> Iterator[Stretch]:
    weekday = (day_s // DAY_S + 3) % 7  # 1970-01-01 was a Thursday
    hour = (7.4 if weekday < 5 else 10.2) + rng.normal(0, 0.5)
    if car.drives_at_midnight:
        hour = 23.75 + rng.uniform(-0.1, 0.05) if is_last or rng.uniform() < 0.6 else 18.0 + rng.normal(0, 0.8)
    leave_s = max(day_s + int(hour * 3600), state.at_s + 900)
    if leave_s > day_s + 26 * 3600:
        return
    first = True
    while True:
        goal = _goal(car, state, rng, wanted_s, weekday, far=first and is_last and car.drives_at_midnight)
        direct_m = distance_m(car.sites[state.place], car.sites[goal])
        length_m = direct_m * float(rng.uniform(1.16, 1.38))
        needed = length_m * _KWH_PER_M / (car.pack.cell_count * 3.65e-3 * state.capacity_ah)
        is_late = runs_empty(car.faults, leave_s)
        if state.soc - needed < (0.02 if is_late else 0.13):
            until = min(1.0, max(car.charge_to_pct / 100, needed + 0.3))
            yield from _kept(car, state, rng, leave_s, _charge_plan(car, state, rng, until), last_s, ambient)
            leave_s = max(leave_s, state.at_s + 120)
        before = copy.deepcopy(state)
        rest(car, state, max(leave_s, state.at_s + 60), ambient)
        path = ground_path(rng, car.sites[state.place], car.sites[goal], length_m)
        stretch = drive(car, state, rng, length_m, path, ambient, wait_s=int(rng.integers(25, 150)))
        if stretch.end_s >= last_s:
            vars(state).update(vars(before))
            return
        state.place = goal
        wanted_s -= len(stretch.current_a)
        first = False
        yield stretch
        is_home_done = goal == HOME and wanted_s < 900
        at_charger = goal == HOME or not car.site_has_home_charger
        is_ahead = pacing.owed_s(state.at_s) < -3 * 3600
        is_wanted = state.soc * 100 < car.charge_below_pct and at_charger and not is_ahead
        if state.soc < (0.04 if is_late else 0.3) or (is_wanted and not is_late):
            plan = _charge_plan(car, state, rng, car.charge_to_pct / 100)
            yield from _kept(car, state, rng, state.at_s + int(rng.integers(90, 900)), plan, last_s, ambient)
        elif car.pack.has_v2l and goal > WORK and state.soc > 0.55 and rng.uniform() < 0.12:
            plan = Charge("v2l", PHYSICS.v2l_w / 1000, 0.0, 40, 60, limit_s=int(rng.integers(2400, 6000)))
            yield from _kept(car, state, rng, state.at_s + 300, plan, last_s, ambient)
        if is_home_done or state.at_s > day_s + 30 * 3600:
            return
        dwell_h = 8.2 + rng.normal(0, 0.6) if goal == WORK else rng.uniform(0.4, 3.2)
        if car.drives_at_midnight:
            dwell_h = rng.uniform(0.3, 1.2)
        leave_s = state.at_s + int(dwell_h * 3600)


def _goal(car: Car, state: CarState, rng: np.random.Generator, wanted_s: float, weekday: int, far: bool) -> int:
    """Where to go next."""
    if far and state.place != FAR:
        return FAR
    if state.place != HOME and (wanted_s < 1_500 or rng.uniform() < 0.25):
        return HOME
    if wanted_s > 7_000 and state.place != FAR and rng.uniform() < 0.5:
        return FAR
    if state.place == HOME and weekday < 5 and wanted_s > 2_500 and rng.uniform() < 0.7:
        return WORK
    choices = [place for place in range(2, FAR) if place != state.place]
    return int(choices[int(rng.integers(len(choices)))])


def _charge_plan(car: Car, state: CarState, rng: np.random.Generator, until: float) -> Charge:
    lead, tail = int(rng.integers(20, 90)), int(rng.integers(60, 600))
    quick = state.place != HOME and car.sites[state.place].has_dc and rng.uniform() < car.dc_share
    if quick or (state.place == HOME and not car.site_has_home_charger and rng.uniform() < car.dc_share):
        power = min(car.pack.dc_kw, float(rng.choice([47.0, 95.0, 190.0], p=[0.3, 0.5, 0.2])))
        return Charge("dc", power, min(until, float(rng.choice([0.8, 0.85, 0.95]))), lead, tail)
    power = car.pack.ac_kw * (0.93 if rng.uniform() < 0.9 else 0.5)
    return Charge("ac", power, until, lead, tail)


def _kept(
    car: Car,
    state: CarState,
    rng: np.random.Generator,
    start_s: int,
    plan: Charge,
    last_s: int,
    ambient: Ambient,
) -> Iterator[Stretch]:
    """The charge, unless it would outlast the fleet's history."""
    before = copy.deepcopy(state)
    rest(car, state, max(start_s, state.at_s + 30), ambient)
    stretch = charge(car, state, rng, plan, ambient)
    if stretch.end_s >= last_s:
        vars(state).update(vars(before))
        return
    yield stretch
