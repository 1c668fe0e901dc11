"""Standard fleets, and the cars drawn for them.

Belongs here: how many cars for how long, which car plays which part (no GPS, no BMS, integer odometer, ...), and the
draw of every car's own figures. Does not belong here: physics (``vehicle``), journeys (``schedule``).

Every car draws from its own random stream (seed, index of the car).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from baas_dagster.simulator.faults import ODDITIES, PlannedFault, draw_faults, rebalancing_v
from baas_dagster.simulator.motion import Site
from baas_dagster.simulator.packs import PACK_ORDER, PACKS, SOC_GRID, PackType, pack_with_cells, type_curve
from baas_dagster.simulator.vehicle import ERRORS, Car, Floats

__all__ = ["STANDARD_FLEETS", "FleetSpec", "custom_fleet", "draw_car", "draw_fleet", "months_of", "stream"]


@dataclass(frozen=True)
class FleetSpec:
    """What to simulate. ``hours_per_day`` is the mean time awake; rows per device-month follow from it and ``dt_s``."""

    name: str
    devices: int
    months: int
    dt_s: float
    hours_per_day: float
    first_month: str = "2023-01"
    gps_dt_s: float | None = None  # while moving; None: as dt_s
    quirks: bool = True  # False: one ZIP with one plain psql dump per device, month and kind
    odometer_events: bool = True  # needs no quirks
    event_rounds: int = 1  # how often every odometer code occurs in the fleet
    gated: tuple[str, ...] = ()  # of GATES: one device-month each that must be kept out
    broken_files: bool = False  # truncated, not a ZIP, bad CRC, encrypted, escaping name, nested too deep
    cell_count: int | None = None  # forces one pack type
    has_gps: bool = True
    plain_cars: bool = False  # every car with BMS, GPS (as has_gps) and odometer
    faults: tuple[PlannedFault, ...] = ()  # cars not named are healthy
    oddities: tuple[tuple[int, str], ...] = ()  # (index of the car, of faults.ODDITIES): no fault

    def __post_init__(self) -> None:
        """Refuse what cannot be simulated."""
        if self.devices < 1 or self.months < 1 or self.dt_s < 1 or not 0.1 <= self.hours_per_day <= 12:
            raise ValueError("a fleet needs devices >= 1, months >= 1, dt_s >= 1 s and 0.1 to 12 hours per day")
        if unknown := set(self.gated) - set(GATES):
            raise ValueError(f"unknown gates {sorted(unknown)}: {GATES}")
        if unknown := {name for _, name in self.oddities} - set(ODDITIES):
            raise ValueError(f"unknown oddities {sorted(unknown)}: {ODDITIES}")

    @property
    def rows_per_device_month(self) -> int:
        """BMS rows a device-month has on average."""
        return round(self.hours_per_day * 3600 / self.dt_s * 30.4)


GATES = ("interleaved", "rejected", "conflicting")
"""Two cars under one number; more than 5 % rows rejected; more than 20 % of times twice with different content."""

_DAYS = 30.4


def _standard(name: str, devices: int, months: int, dt_s: float, rows: int, **options: Any) -> FleetSpec:
    spec = FleetSpec(name, devices, months, dt_s, hours_per_day=rows * dt_s / 3600 / _DAYS)
    return replace(spec, **options)


_FAULTS = (
    PlannedFault(1, "CELL_SELF_DISCHARGE", 2.0),
    PlannedFault(3, "TEMP_SPREAD", 2.0),
    PlannedFault(4, "CELL_OUTLIER", 1.0),
    PlannedFault(7, "CELL_OUTLIER", 2.0, "capacity"),
    PlannedFault(8, "CELL_LOWEST", 2.0),
    PlannedFault(11, "TEMP_HIGH", 2.0),
    PlannedFault(14, "CELL_SPREAD", 2.0),
    PlannedFault(16, "INSULATION_LOW", 4.0),
    PlannedFault(21, "COUNTER_DRIFT", 2.0, "asymmetry"),
    PlannedFault(24, "TEMP_RISE", 2.0),
    PlannedFault(28, "SOC_JUMP", 2.0),
    PlannedFault(33, "SOH_FADE", 2.0),
    PlannedFault(36, "FAULT_OR_SENSOR", 1.0, "hot"),
    # a weak cell of a car that is driven empty
    PlannedFault(38, "CELL_OVERVOLT"),
    PlannedFault(38, "CELL_UNDERVOLT"),
    PlannedFault(38, "SOC_LOW"),
    # a unit that fails bit by bit
    PlannedFault(44, "TEMP_SENSOR"),
    PlannedFault(44, "COUNTER_RESET"),
    PlannedFault(44, "SENSOR_FROZEN"),
    PlannedFault(44, "DEVICE_SILENT", days=(79.0, 88.0)),
)
"""15 cars of ``faulty``; the others are healthy."""

_ODDITIES = ((6, "padded"), (10, "rebalances"), (12, "rarely"), (20, "rebalances"), (27, "rarely"), (34, "rebalances"))
"""Healthy cars of ``faulty`` that look odd."""

_DEMO_FAULTS = (
    PlannedFault(0, "CELL_SELF_DISCHARGE", 2.0, days=(31.0, 38.0)),
    PlannedFault(1, "TEMP_SPREAD", 2.0, days=(31.0, 38.0)),
)
"""The two faulty cars of ``demo``: both have BMS, cells and GPS."""

STANDARD_FLEETS: dict[str, FleetSpec] = {
    fleet.name: fleet
    for fleet in (
        _standard("tiny", 3, 2, 60, 2_000),
        _standard("demo", 6, 3, 10, 15_000, faults=_DEMO_FAULTS),
        _standard("fine", 12, 3, 2, 60_000, event_rounds=3),
        _standard("coarse", 20, 6, 10, 25_000, event_rounds=3, gated=("interleaved",)),
        _standard("faulty", 60, 6, 30, 8_000, faults=_FAULTS, oddities=_ODDITIES),
        _standard("year", 10, 12, 60, 5_000, event_rounds=2, gated=("interleaved",), broken_files=True),
    )
}
"""The fleets of DESIGN 7."""


def custom_fleet(devices: int, months: int, dt_s: float, hours_per_day: float, **options: Any) -> FleetSpec:
    """A fleet of any size; ``options`` are further fields of ``FleetSpec`` (``name`` included)."""
    spec = FleetSpec("custom", devices, months, dt_s, hours_per_day)
    return replace(spec, **options)


def months_of(spec: FleetSpec) -> list[str]:
    """Months of the fleet, ``YYYY-MM``."""
    first = np.datetime64(spec.first_month, "M")
    return [str(first + np.timedelta64(i, "M")) for i in range(spec.months)]


def stream(seed: int, *key: int) -> np.random.Generator:
    """Random stream of its own for ``key``; no two keys share numbers."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=key)))


CAR_STREAM, LIFE_STREAM, LOG_STREAM, EVENT_STREAM, DELIVERY_STREAM, WEATHER_STREAM, CITY_STREAM, FAULT_STREAM = range(8)
"""First key of every stream: what the numbers are drawn for."""

_CITIES = ((37.55, 127.03), (36.35, 127.38), (37.28, 127.02), (35.87, 128.60))
"""Seoul, Daejeon, Suwon, Daegu: latitude, longitude."""


def _begin_s(spec: FleetSpec) -> int:
    return int(np.datetime64(spec.first_month, "M").astype("datetime64[s]").astype(np.int64))


def _is_first_no_gps(spec: FleetSpec) -> int:
    return 2 if spec.devices < 6 else 3


def draw_fleet(spec: FleetSpec, seed: int) -> list[Car]:
    """The cars of the fleet."""
    return [draw_car(spec, seed, index) for index in range(spec.devices)]


def draw_car(spec: FleetSpec, seed: int, index: int, pack: PackType | None = None) -> Car:
    """The car with that index. Which part it plays follows from the index, its figures from the seed."""
    rng = stream(seed, CAR_STREAM, index)
    if pack is None:
        pack = pack_with_cells(spec.cell_count) if spec.cell_count else PACKS[PACK_ORDER[index % len(PACK_ORDER)]]
    large = spec.devices >= 6 and not spec.plain_cars
    gps_only = large and index % 20 == 5
    without_gps = not spec.has_gps or (not spec.plain_cars and index == _is_first_no_gps(spec) and spec.devices > 2)
    without_odometer = gps_only or (large and index == 17)
    capacity_new = pack.capacity_ah * (1 + ERRORS.capacity_new * rng.standard_normal())
    soh_start = float(np.clip(rng.normal(94, 3.5), 84, 100))
    curve = type_curve(pack.chemistry)
    wave = sum(rng.normal() / k * np.sin(np.pi * k * SOC_GRID + rng.uniform(0, 2 * np.pi)) for k in range(1, 6))
    wave = np.asarray(wave) - np.mean(wave)
    warp_v = ERRORS.ocv_warp_v * (0.25 if pack.chemistry == "LFP" else 1.0)  # a plateau cannot be bent by more
    curve = curve + warp_v * wave / np.sqrt(np.mean(wave**2))
    curve = np.maximum.accumulate(curve) + 1e-6 * SOC_GRID
    cells = pack.cell_count
    sensors = pack.temp_sensors
    padded: tuple[int, ...] = ()
    if not spec.plain_cars and spec.quirks:
        padded = ((), (0, 0), (-40,), (215, 215), (471,), (21,))[index % 6]  # tail sensors that do not exist
    oddities = tuple(name for at, name in spec.oddities if at == index)
    if "padded" in oddities:
        padded = (0,) * 12
    wrong = stream(seed, FAULT_STREAM, index)
    planned = [plan for plan in spec.faults if plan.index == index]
    city = index % len(_CITIES)
    return Car(
        index=index,
        device_no=f"0129{index % 10}{1001 + index:06d}" if index < 10 else f"01290{2001 + index:06d}",
        car_type=pack.car_types[(index // len(PACK_ORDER)) % len(pack.car_types)],
        pack=pack,
        capacity_new_ah=float(capacity_new),
        soh_start_pct=soh_start,
        fade_pct_per_year=float(np.clip(rng.normal(2.0, 0.6), 0.5, 4)),
        bms_capacity_ah=float(capacity_new * soh_start / 100 * (1 + ERRORS.bms_capacity * rng.standard_normal())),
        bms_anchor_share=float(rng.uniform(0.3, 0.9)),
        current_gain=float(ERRORS.current_gain * rng.standard_normal()),
        current_offset_a=float(ERRORS.current_offset_a * rng.standard_normal()),
        speed_gain=float(ERRORS.speed_gain * rng.standard_normal()),
        ocv_curve_v=curve,
        hysteresis_v=float(ERRORS.hysteresis_v * rng.normal(1, 0.15)),
        resistance_ohm=float(cells * pack.cell_resistance_mohm / 1000 * rng.uniform(0.95, 1.35)),
        cell_offset_v=_centred(ERRORS.cell_offset_v * rng.standard_normal(cells)),
        cell_resistance=_centred(ERRORS.cell_resistance * rng.standard_normal(cells)),
        temp_offset_c=np.sort(rng.uniform(-0.8, 1.6, sensors)),
        cell_step_mv=1 if index % 5 == 4 else 20,
        padded_temps=padded,
        insulation_cap_kohm=(1000, 3000)[index % 2],
        odometer_start_km=float(np.round(rng.uniform(4_000, 90_000), 1)),
        odometer_resolution_km=1.0 if index % 4 == 1 else 0.1,
        has_bms=not gps_only,
        has_gps=not without_gps,
        has_odometer=not without_odometer,
        sites=_draw_sites(rng, seed, city),
        site_has_home_charger=index % 3 != 2,
        dc_share=float(rng.uniform(0.2, 0.9)),
        charge_below_pct=float(rng.uniform(35, 65)),
        charge_to_pct=100.0 if pack.chemistry == "LFP" else (100.0, 90.0, 80.0, 100.0)[index % 4],
        drives_at_midnight=index % 3 == 1,
        goes_silent=index % 4 == 3,
        climate_offset_c=float(rng.normal(0, 1.0)) + (0.0, 0.4, 0.2, 1.8)[city],
        faults=draw_faults(planned, wrong, _begin_s(spec), cells, sensors),
        oddities=oddities,
        rebalancing_v=rebalancing_v(wrong, cells, _begin_s(spec), spec.months) if "rebalances" in oddities else None,
    )


def _centred(values: Floats) -> Floats:
    return np.asarray(values - values.mean())


def _draw_sites(rng: np.random.Generator, seed: int, city: int) -> tuple[Site, ...]:
    """Home, work, four public places of the city (shared with its other cars) and a far one. No two are close."""
    lat, lng = _CITIES[city]
    town = stream(seed, CITY_STREAM, city)
    bearings = 2 * np.pi * (np.arange(8) + town.uniform(0, 0.6, 8)) / 8
    radius_km = town.uniform(5, 13, 8)
    public = [_site(lat, lng, b, r, i % 2 == 0) for i, (b, r) in enumerate(zip(bearings, radius_km, strict=True))]
    chosen = rng.permutation(8)[:4]
    home = _site(lat, lng, rng.uniform(0, 6.28), rng.uniform(0.5, 2.2), False)
    work = _site(lat, lng, rng.uniform(0, 6.28), rng.uniform(14, 21), False)
    far = _site(lat, lng, rng.uniform(-0.9, 0.9), rng.uniform(32, 60), True)  # east: not into the sea
    return (home, work, *(public[i] for i in chosen), far)


def _site(lat: float, lng: float, bearing: float, radius_km: float, has_dc: bool) -> Site:
    north, east = radius_km * np.sin(bearing), radius_km * np.cos(bearing)
    return Site(float(lat + north / 111.195), float(lng + east / (111.195 * np.cos(np.radians(lat)))), has_dc)
