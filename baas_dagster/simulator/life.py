"""A car's life month by month: stretches, what is logged of them, and their truth.

Belongs here: carrying a car from month to month, rows that spill over a month's end, truth of trips, sessions, days.
Does not belong here: physics (``vehicle``), the delivered files (``deliveries``).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from baas_dagster.simulator.events import (
    COUNTERS,
    Display,
    Gap,
    Plan,
    cut_gaps,
    event_stream,
    missing,
    show_odometer,
    teleport,
)
from baas_dagster.simulator.faults import Course
from baas_dagster.simulator.fleet import LIFE_STREAM, LOG_STREAM, FleetSpec, months_of, stream
from baas_dagster.simulator.logger import Samples, bms_table, gps_table, join, kept, sample_bms, sample_gps, split_at
from baas_dagster.simulator.schedule import DAY_S, Pacing, ambient_of, month_bounds, month_stretches, new_state
from baas_dagster.simulator.table import Table
from baas_dagster.simulator.truth import DayBook, Truth, moment
from baas_dagster.simulator.vehicle import PHYSICS, Car, Stretch, rest

__all__ = ["CarLife", "CarMonth"]

_SESSION_MODES = {"ac": "AC", "dc": "DC", "v2l": "V2L"}
_TRACK_S = 60


@dataclass(frozen=True)
class CarMonth:
    """What a car logged in a month, before delivery. ``*_touched`` rows carry an event: no quirk may hide it."""

    car: Car
    month: str
    month_index: int
    bms: Table | None
    gps: Table | None
    bms_touched: NDArray[np.bool_]
    gps_touched: NDArray[np.bool_]
    starts: NDArray[np.bool_]  # first BMS row of a waking
    teleport_fixes: int


@dataclass
class CarLife:
    """One car, from the first month of the fleet to the last: ``live`` for each month in order, then ``finish``."""

    car: Car
    spec: FleetSpec
    seed: int
    plans: dict[tuple[int, int], Plan]
    truth: Truth
    book: DayBook = field(default_factory=DayBook)
    display: Display = field(default_factory=Display)
    gaps: list[Gap] = field(default_factory=list)
    _spill: tuple[Samples, Samples] = field(default_factory=lambda: ({}, {}))

    def __post_init__(self) -> None:
        self.months = months_of(self.spec)
        self.begin_s, self.end_s = month_bounds(self.months[0])[0], month_bounds(self.months[-1])[1]
        self.ambient = ambient_of(self.car, self.seed, self.begin_s, self.spec.months)
        self.rng = stream(self.seed, LIFE_STREAM, self.car.index)
        self.state = new_state(self.car, self.rng, self.begin_s, self.ambient)
        self.pacing = Pacing(self.begin_s, self.spec.hours_per_day)
        self._trips: list[dict[str, object]] = []
        self._sessions: list[dict[str, object]] = []
        self._track_t: list[NDArray[np.float64]] = [np.array([float(self.begin_s)])]
        self._track_soc: list[NDArray[np.float64]] = [np.array([self.state.soc])]
        self._rows: dict[str, tuple[int, int]] = {}
        self._last_s = self.begin_s
        self.course = Course(self.car.faults, self.state.capacity_ah, self.car.temp_offset_c)

    def live(self, month_index: int, korean: bool = False) -> CarMonth:
        """The car's next month."""
        month, car, spec = self.months[month_index], self.car, self.spec
        self.state.capacity_ah = car.capacity_ah(month_index / 12)
        log_rng = stream(self.seed, LOG_STREAM, car.index, month_index)
        bms_parts, gps_parts = ([part] if part else [] for part in self._spill)
        for stretch in month_stretches(car, self.state, self.rng, month, self.end_s, self.pacing, self.ambient):
            self._record(stretch)
            silent_s = self.course.silent_from_s
            if stretch.end_s >= silent_s:
                self._record_silence(stretch, int(silent_s))
            if stretch.start_s >= silent_s:
                continue
            if car.has_bms:
                samples = sample_bms(stretch, spec.dt_s)
                self.course.add_columns(samples, stretch.current_a, stretch.soc, stretch.temp_c, stretch.start_s)
                bms_parts.append(kept(samples, samples["t"] < silent_s))
            if car.has_gps:
                fixes = sample_gps(stretch, spec.gps_dt_s or spec.dt_s, log_rng)
                gps_parts.append(kept(fixes, fixes["t"] < silent_s))
        month_end = month_bounds(month)[1]
        bms, bms_spill = split_at(join(bms_parts), month_end)
        gps, gps_spill = split_at(join(gps_parts), month_end)
        self._spill = (
            bms_spill if bms_spill and len(bms_spill["t"]) else {},
            gps_spill if gps_spill and len(gps_spill["t"]) else {},
        )
        return self._log(month, month_index, bms, gps, log_rng, korean)

    def _log(
        self, month: str, month_index: int, bms: Samples, gps: Samples, rng: np.random.Generator, korean: bool
    ) -> CarMonth:
        car, plan = self.car, self.plans.get((self.car.index, month_index), Plan())
        chance = event_stream(self.seed, car, month_index)
        if bms or gps:
            keep_bms, keep_gps, gaps = cut_gaps(bms, gps, plan, chance)
            self._record_gaps(month, bms or gps, gaps)
            bms, gps = kept(bms, keep_bms) if bms else {}, kept(gps, keep_gps) if gps else {}
        bms_rows, gps_rows, touched = None, None, np.zeros(0, dtype=bool)
        starts = np.zeros(0, dtype=bool)
        if bms and len(bms["t"]):
            self.course.restart_counters(bms, COUNTERS)
            if car.has_odometer:
                odometer, events, touched = show_odometer(car, bms, plan, self.display, chance, self.spec.dt_s)
                self.truth.extend("truth_odometer_event", (_event_row(event, month) for event in events))
            else:
                odometer, touched = missing(len(bms["t"])), np.zeros(len(bms["t"]), dtype=bool)
            starts = bms["since_start"] == 0
            bms_rows = bms_table(car, bms, odometer, rng, month)
        fixes = np.zeros(0, dtype=np.int64)
        if gps and len(gps["t"]):
            fixes = teleport(gps, plan, chance)
            gps_rows = gps_table(car, gps, rng, korean)
        gps_touched = np.zeros(len(gps_rows) if gps_rows else 0, dtype=bool)
        gps_touched[fixes] = True
        self._rows[month] = (len(bms_rows) if bms_rows else 0, len(gps_rows) if gps_rows else 0)
        return CarMonth(car, month, month_index, bms_rows, gps_rows, touched, gps_touched, starts, len(fixes))

    def _record_gaps(self, month: str, samples: Samples, gaps: list[Gap]) -> None:
        """Gaps into the truth; their kilometres to the days they fell on."""
        self.gaps += gaps
        for gap in gaps:
            first, last = gap.started_at_s // DAY_S, gap.ended_at_s // DAY_S
            edges = [gap.started_at_s, *((day + 1) * DAY_S for day in range(first, last)), gap.ended_at_s]
            km = np.diff(np.interp(edges, samples["t"], samples["odometer_m"])) / 1000
            for day, value in zip(range(first, last + 1), km, strict=True):
                self.book.add(day, unlogged_km=float(value))
            if gap.size_km > 0.05 and self.car.has_bms and self.car.has_odometer:
                row = np.searchsorted(samples["t"], gap.started_at_s)
                begin_km = float(samples["odometer_m"][row]) / 1000
                self.truth.add(
                    "truth_odometer_event",
                    {
                        "device_no": self.car.device_no,
                        "measured_month": month,
                        "code": "ODO_GAP",
                        "variant": "with_gps" if gap.covers_gps else "gps_goes_on",
                        "started_at": moment(gap.started_at_s),
                        "ended_at": moment(gap.ended_at_s),
                        "size_km": gap.size_km,
                        "from_km": begin_km,
                        "to_km": begin_km + gap.size_km,
                    },
                )

    def _record_silence(self, stretch: Stretch, silent_s: int) -> None:
        """A stretch of which nothing is logged from ``silent_s`` on. Its kilometres stay unlogged."""
        days = stretch.seconds[:-1] // DAY_S
        km = np.where(stretch.seconds[:-1] >= silent_s, np.diff(stretch.odometer_m) / 1000, 0.0)
        for day in range(int(days[0]), int(days[-1]) + 1):
            self.book.add(day, unlogged_km=float(km[days == day].sum()))
        begin_s = max(stretch.start_s, silent_s)
        self.gaps.append(Gap(begin_s, stretch.end_s, float(km.sum()), covers_gps=True))

    def _record_parked(self, until_s: int) -> None:
        volts = self.car.pack.cell_count * float(self.car.ocv(float(self._track_soc[-1][-1])))
        self.book.add_parked(self._last_s, until_s, PHYSICS.parked_w, volts)

    def _record(self, stretch: Stretch) -> None:
        """A stretch into days, trips, sessions and the track of true charge."""
        self._record_parked(stretch.start_s)
        self._last_s = stretch.end_s
        self.book.add_stretch(stretch)
        midnight = (stretch.start_s // DAY_S + 1) * DAY_S - stretch.start_s
        edges = [len(stretch.soc) - 1, min(midnight, len(stretch.soc) - 1)]
        at = np.unique(np.append(np.arange(0, len(stretch.soc), _TRACK_S), edges))
        self._track_t.append((stretch.start_s + at).astype(np.float64))
        self._track_soc.append(stretch.soc[at])
        moving = np.flatnonzero(stretch.is_active)
        first, last = int(moving[0]), int(moving[-1])
        inside = slice(first, last)
        watt = stretch.current_a[inside] * stretch.voltage_v[inside]
        common: dict[str, object] = {
            "device_no": self.car.device_no,
            "started_at": moment(stretch.start_s + first),
            "ended_at": moment(stretch.start_s + last),
            "soc_start": float(stretch.soc[first]),
            "soc_end": float(stretch.soc[last]),
            "span": (stretch.start_s + first, stretch.start_s + last),
        }
        if stretch.kind == "drive":
            self._trips.append(
                {
                    **common,
                    "distance_km": float(stretch.odometer_m[-1] - stretch.odometer_m[0]) / 1000,
                    "energy_out_kwh": float(np.maximum(-watt, 0).sum() / 3.6e6),
                    "energy_regen_kwh": float(np.maximum(watt, 0).sum() / 3.6e6),
                }
            )
            return
        self._sessions.append(
            {
                **common,
                "connected_at": moment(stretch.start_s),
                "disconnected_at": moment(stretch.end_s),
                "mode": _SESSION_MODES[stretch.kind],
                "energy_kwh": float(watt.sum() / 3.6e6),
                "charge_ah": float(stretch.current_a[inside].sum() / 3600),
                "power_max_kw": float(np.abs(watt).max() / 1000),
                "temp_start_c": float(stretch.temp_c[first]),
                "lat": stretch.place.lat,
                "lng": stretch.place.lng,
            }
        )

    def finish(self, gated: dict[str, str]) -> None:
        """Close the books: ``gated`` names the gate of a month that has one."""
        rest(self.car, self.state, self.end_s, self.ambient)
        self._record_parked(self.end_s)
        self.truth.extend("truth_trip", (self._logged(row) for row in self._trips))
        self.truth.extend("truth_charging_session", (self._logged(row) for row in self._sessions))
        track_t = np.concatenate([*self._track_t, [float(self.end_s)]])
        track_soc = np.concatenate([*self._track_soc, [self.state.soc]])
        for index, month in enumerate(self.months):
            begin, end = month_bounds(month)
            sums: dict[str, float] = {}
            for day in range(begin // DAY_S, end // DAY_S):
                self.book.add(day)
                flows = self.book.days[day]
                date = moment(day * DAY_S).date()
                self.truth.add(
                    "truth_day",
                    {"device_no": self.car.device_no, "service_date": date, "measured_month": month, **flows},
                )
                for name, value in flows.items():
                    sums[name] = sums.get(name, 0.0) + value
            capacity = self.car.capacity_ah(index / 12)
            soc = np.interp([begin, end], track_t, track_soc)
            distance = sums["distance_km"]
            self.truth.add(
                "truth_month",
                {
                    "device_no": self.car.device_no,
                    "measured_month": month,
                    **sums,
                    "logged_share": 1 - sums["unlogged_km"] / distance if distance > 0 else 1.0,
                    "capacity_ah": capacity,
                    "soh_pct": 100 * capacity / self.car.capacity_new_ah,
                    "soc_start": float(soc[0]),
                    "soc_end": float(soc[1]),
                    "gated_because": gated.get(month, ""),
                    "bms_rows": self._rows[month][0],
                    "gps_rows": self._rows[month][1],
                },
            )

    def _logged(self, row: dict[str, object]) -> dict[str, object]:
        """The row with the share of its time outside of gaps instead of its span."""
        span = row.pop("span")
        assert isinstance(span, tuple)
        begin, end = int(span[0]), int(span[1])
        lost = sum(max(0, min(end, gap.ended_at_s) - max(begin, gap.started_at_s)) for gap in self.gaps)
        return {**row, "logged_share": 1 - lost / max(end - begin, 1)}


def _event_row(event: object, month: str) -> dict[str, object]:
    values = dict(vars(event))
    return {
        **{name: values[name] for name in ("device_no", "code", "variant", "size_km", "from_km", "to_km")},
        "measured_month": month,
        "started_at": moment(values["started_at_s"]),
        "ended_at": moment(values["ended_at_s"]),
    }
