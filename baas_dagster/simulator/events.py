"""What goes wrong between a car and its log: the odometer display, logging gaps, GPS teleports.

Belongs here: the plan of such events over a fleet, and their effect on samples. Does not belong here: broken text and
files (``deliveries``). The truth keeps every event with what the display did (``OdometerEvent``).

Codes are those of DOMAIN 4. Variants: ``ODO_JUMP`` permanent (the display stays N km ahead) or glitch (one to three
rows); ``ODO_FROZEN`` catches_up or stays_short; ``ODO_RESET`` display or with_counters (lifetime counters restart too).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from baas_dagster.simulator.fleet import EVENT_STREAM, FleetSpec, stream
from baas_dagster.simulator.logger import Samples
from baas_dagster.simulator.table import MISSING
from baas_dagster.simulator.vehicle import Car, Floats, Ints

__all__ = [
    "COUNTERS",
    "Display",
    "Gap",
    "OdometerEvent",
    "Plan",
    "cut_gaps",
    "event_stream",
    "missing",
    "plan_events",
    "show_odometer",
    "teleport",
]

COUNTERS = ("charged_ah", "discharged_ah", "charged_kwh", "discharged_kwh", "plug_kwh", "plug_quick_kwh", "op_time")
_ROUND = (
    ("ODO_STALE", ""),
    ("ODO_SMALL_FALL", ""),
    ("ODO_ROLLBACK", ""),
    ("ODO_JUMP", "permanent"),
    ("ODO_JUMP", "glitch"),
    ("ODO_FROZEN", "catches_up"),
    ("ODO_FROZEN", "stays_short"),
    ("ODO_RESET", "display"),
)


@dataclass(frozen=True)
class OdometerEvent:
    """One event as put into a log. ``size_km`` > 0 is how far the display was off, or stood still, or the gap."""

    device_no: str
    code: str
    variant: str
    started_at_s: int
    ended_at_s: int
    size_km: float
    from_km: float
    to_km: float


@dataclass(frozen=True)
class Gap:
    """A time without rows while the car lived on: last row before, first row after, kilometres between them."""

    started_at_s: int
    ended_at_s: int
    size_km: float
    covers_gps: bool


@dataclass
class Display:
    """What the odometer display is off by, and where the counters restarted; carried from month to month."""

    offset_km: float = 0.0
    counter_base: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """Events of a car in a month."""

    codes: tuple[tuple[str, str], ...] = ()
    gaps: int = 0
    lost_charge: bool = False
    zeros: bool = False
    teleports: int = 0


def plan_events(spec: FleetSpec, cars: list[Car]) -> dict[tuple[int, int], Plan]:
    """Which car has which events in which month: (index of the car, index of the month) -> plan.

    Two thirds of the cars with an odometer take the codes in turn; the others have zeros and gaps at most.
    """
    if not (spec.quirks and spec.odometer_events):
        return {}
    able = [car for car in cars if car.has_bms and car.has_odometer]
    eventful = able[: max(1, (len(able) * 2) // 3)]
    fine = [car for car in eventful if car.odometer_resolution_km < 1] or eventful
    found: dict[tuple[int, int], list[tuple[str, str]]] = defaultdict(list)
    for repeat in range(spec.event_rounds):
        for turn, (code, variant) in enumerate(_ROUND):
            place = turn + 3 * repeat
            pool = fine if code == "ODO_SMALL_FALL" else eventful
            car = pool[place % len(pool)]
            month = (repeat * max(1, spec.months // spec.event_rounds) + place // len(pool) + turn // 3) % spec.months
            if code == "ODO_RESET" and repeat % 2:
                variant = "with_counters"
            found[car.index, month].append((code, variant))
    plans: dict[tuple[int, int], Plan] = {}
    for car in cars:
        for month in range(spec.months):
            turn = car.index + month
            plans[car.index, month] = Plan(
                codes=tuple(found[car.index, month]),
                gaps=1 if turn % 3 == 0 else 0,
                lost_charge=turn % 4 == 2,
                zeros=car.index % 3 == 0 and car.has_odometer,
                teleports=1 if car.has_gps and turn % 5 == 1 else 0,
            )
    return plans


def event_stream(seed: int, car: Car, month: int) -> np.random.Generator:
    """Random stream of a car's events in a month."""
    return stream(seed, EVENT_STREAM, car.index, month)


def cut_gaps(
    bms: Samples, gps: Samples, plan: Plan, rng: np.random.Generator
) -> tuple[NDArray[np.bool_], NDArray[np.bool_], list[Gap]]:
    """Rows of BMS and GPS that are logged, and the gaps. A driving gap takes 12 to 45 km, a lost charge its session."""
    reference = bms or gps
    t, odometer = reference["t"].astype(np.int64), reference["odometer_m"] / 1000
    keep = np.ones(len(t), dtype=bool)
    gaps: list[Gap] = []
    spans: list[tuple[int, int]] = []
    for _ in range(plan.gaps):
        for _ in range(20):
            size = rng.uniform(12, 45)
            first = int(rng.integers(len(t) // 20, max(len(t) * 9 // 10, len(t) // 20 + 1)))
            after = int(np.searchsorted(odometer, odometer[first] + size))
            if after < len(t) - 5 and t[after] - t[first] < 3 * 86_400 and keep[first - 1 : after + 2].all():
                spans.append((first, after))
                keep[first + 1 : after] = False
                break
    if plan.lost_charge and bms:
        starts = np.unique(bms["start"][(bms["kind"] == 1) | (bms["kind"] == 2)])
        if len(starts):
            chosen = starts[int(rng.integers(len(starts)))]
            rows = np.flatnonzero(bms["start"] == chosen)
            first, after = int(rows[0]) - 1, int(rows[-1]) + 1
            if first > 0 and after < len(t) and keep[first : after + 1].all():
                spans.append((first, after))
                keep[first + 1 : after] = False
    keep_gps = np.ones(len(gps["t"]) if gps else 0, dtype=bool)
    for first, after in spans:
        covers = bool(rng.uniform() < 0.7) or not bms
        gaps.append(Gap(int(t[first]), int(t[after]), float(odometer[after] - odometer[first]), covers))
        if gps and covers:
            keep_gps &= (gps["t"] <= t[first]) | (gps["t"] >= t[after])
    return (keep if bms else np.ones(0, dtype=bool)), keep_gps, gaps


def show_odometer(
    car: Car, s: Samples, plan: Plan, display: Display, rng: np.random.Generator, dt_s: float
) -> tuple[Ints, list[OdometerEvent], NDArray[np.bool_]]:
    """Odometer as displayed (units of its resolution, ``MISSING`` never), the events, and the rows they touch.

    Lifetime counters in ``s`` are restarted in place where a reset takes them along.
    """
    t, true_km = s["t"].astype(np.int64), s["odometer_m"] / 1000
    n = len(t)
    offset = np.full(n, display.offset_km)
    held: list[tuple[slice, float]] = []
    events: list[OdometerEvent] = []
    touched = np.zeros(n, dtype=bool)
    for name, base in display.counter_base.items():
        s[name] = s[name] - base
    step_s, step_km = np.diff(t, prepend=t[0] - 10**6), np.diff(true_km, prepend=true_km[0])
    begin_km, span_km = true_km[0], true_km[-1] - true_km[0]
    count = len(plan.codes)
    for slot, (code, variant) in enumerate(plan.codes):
        low, high = begin_km + span_km * (slot + 0.15) / count, begin_km + span_km * (slot + 0.85) / count
        inside = (true_km > low) & (true_km < high)
        close = inside & (step_s <= 2 * dt_s)
        rows = np.flatnonzero(close & ((step_km == 0) if code == "ODO_SMALL_FALL" else (step_km > 0)))
        if not len(rows):
            continue
        row = int(rows[int(rng.integers(max(1, len(rows) // 2)))])
        event = _Event(car, t, true_km, offset, held, display, row, true_km[-1] if slot == count - 1 else high, rng)
        made = event.make(code, variant, s)
        for item, first, last in made:
            events.append(item)
            touched[max(0, first - 3) : last + 4] = True
    unit = car.odometer_resolution_km
    shown_km = true_km + offset
    for rows_held, value in held:
        shown_km[rows_held] = value
    shown = np.floor(shown_km / unit + 1e-9).astype(np.int64)
    if plan.zeros:
        zero = (s["since_start"] < dt_s) & (rng.uniform(size=n) < 0.3) & ~touched
        zero |= (rng.uniform(size=n) < 0.002) & ~touched
        zero[[0, -1]] = False
        begins = np.flatnonzero(zero & ~np.append(False, zero[:-1]))
        ends = np.flatnonzero(zero & ~np.append(zero[1:], False))
        events += [
            OdometerEvent(car.device_no, "ODO_ZERO", "", int(t[a]), int(t[b]), 0.0, float(shown[a - 1] * unit), 0.0)
            for a, b in zip(begins, ends, strict=True)
        ]
        shown[zero] = 0
        touched |= zero
    return shown, events, touched


Made = list[tuple[OdometerEvent, int, int]]
"""Events with their first and last row."""


@dataclass
class _Event:
    """Puts one event at ``row`` into offset, held readings and counters."""

    car: Car
    t: Ints
    true_km: Floats
    offset: Floats
    held: list[tuple[slice, float]]
    display: Display
    row: int
    until_km: float
    rng: np.random.Generator

    def make(self, code: str, variant: str, s: Samples) -> Made:
        """The events made (a stale value comes several times), with their first and last row."""
        made: dict[str, Callable[[], Made]] = {
            "ODO_STALE": self._stale,
            "ODO_SMALL_FALL": lambda: self._shift(code, variant, -float(self.rng.integers(2, 9)) / 10),
            "ODO_ROLLBACK": self._rollback,
            "ODO_FROZEN": lambda: self._freeze(variant),
            "ODO_RESET": lambda: self._reset(variant, s),
            "ODO_JUMP": lambda: (
                self._glitch() if variant == "glitch" else self._shift(code, variant, float(self.rng.uniform(40, 400)))
            ),
        }
        return made[code]()

    def _event(
        self, code: str, variant: str, first: int, last: int, size: float, from_km: float, to_km: float
    ) -> tuple[OdometerEvent, int, int]:
        unit = self.car.odometer_resolution_km
        event = OdometerEvent(
            self.car.device_no,
            code,
            variant,
            int(self.t[first]),
            int(self.t[last]),
            size,
            float(np.floor(from_km / unit + 1e-9) * unit),
            float(np.floor(to_km / unit + 1e-9) * unit),
        )
        return event, first, last

    def _shown(self, row: int) -> float:
        return float(self.true_km[row] + self.offset[row])

    def _rollback(self) -> Made:
        size = float(self.rng.uniform(4, 120))
        return self._shift("ODO_ROLLBACK", "", -size) if self._shown(self.row) > size + 150 else []  # else a reset

    def _shift(self, code: str, variant: str, by_km: float) -> Made:
        row, before = self.row, self._shown(self.row - 1)
        self.offset[row:] += by_km
        self.display.offset_km += by_km
        return [self._event(code, variant, row, row, abs(by_km), before, self._shown(row))]

    def _reset(self, variant: str, s: Samples) -> Made:
        row, before = self.row, self._shown(self.row - 1)
        by_km = float(self.rng.uniform(0, 20)) - self._shown(row)
        self.offset[row:] += by_km
        self.display.offset_km += by_km
        if variant == "with_counters":
            for name in COUNTERS:
                base = float(s[name][row])
                s[name][row:] -= base
                self.display.counter_base[name] = self.display.counter_base.get(name, 0.0) + base
        return [self._event("ODO_RESET", variant, row, row, abs(by_km), before, self._shown(row))]

    def _glitch(self) -> Made:
        first, last = self.row, min(self.row + int(self.rng.integers(1, 4)), len(self.t) - 2) - 1
        last = max(first, last)
        before, value = self._shown(first - 1), self._shown(first) + float(self.rng.uniform(300, 9_000))
        self.held.append((slice(first, last + 1), value))
        return [self._event("ODO_JUMP", "glitch", first, last, value - before, before, value)]

    def _freeze(self, variant: str) -> Made:
        size = float(self.rng.uniform(10.5, 24))
        first = self.row
        last = int(np.searchsorted(self.true_km, self.true_km[first] + size))
        if last >= len(self.t) - 2 or self.true_km[last] > self.until_km + size:
            return []
        if np.diff(self.true_km[first : last + 1]).max() > 3.5:  # across a gap it would be no freeze
            return []
        value = self._shown(first - 1)
        self.held.append((slice(first, last + 1), value))
        stood = float(self.true_km[last + 1] - self.true_km[first - 1])
        if variant == "stays_short":
            self.offset[last + 1 :] -= stood
            self.display.offset_km -= stood
        return [self._event("ODO_FROZEN", variant, first, last, stood, value, self._shown(last + 1))]

    def _stale(self) -> Made:
        wanted = self.true_km[self.row] - self.rng.uniform(4, 30)
        cached_row = int(np.searchsorted(self.true_km, wanted))
        if not 0 < cached_row < self.row - 2 or self.offset[cached_row] != self.offset[self.row]:
            cached_row = 0
        if self.true_km[self.row] - self.true_km[cached_row] < 2 or self.offset[cached_row] != self.offset[self.row]:
            return []
        value = self._shown(cached_row)
        made = []
        row = self.row
        for _ in range(int(self.rng.integers(1, 4))):
            last = row + int(self.rng.integers(1, 6)) - 1
            if last + 2 >= len(self.t) or self.true_km[last] > self.until_km:
                break
            self.held.append((slice(row, last + 1), value))
            before = self._shown(row - 1)
            made.append(self._event("ODO_STALE", "", row, last, before - value, before, value))
            row = last + int(self.rng.integers(20, 60))
        return made


def teleport(gps: Samples, plan: Plan, rng: np.random.Generator) -> Ints:
    """Put fixes thousands of kilometres away and back, in place: the rows touched."""
    rows: list[int] = []
    for _ in range(plan.teleports):
        if len(gps["t"]) < 50:
            break
        first = int(rng.integers(20, len(gps["t"]) - 12))
        size = int(rng.integers(1, 6))
        gps["lat"][first : first + size] -= rng.uniform(18, 40)
        gps["lng"][first : first + size] -= rng.uniform(20, 90)
        rows += range(first, first + size)
    return np.array(sorted(set(rows)), dtype=np.int64)


def missing(n: int) -> Ints:
    """Odometer column of a car without one."""
    return np.full(n, MISSING, dtype=np.int64)
