"""Simulated fleets: cars with physics, their logs as deliveries with all quirks, and the truth behind them.

Belongs here: the entry points. ``simulate`` writes a landing folder and, where asked for, the truth (documented in
``truth``). The same fleet and seed give the same bytes. Nothing of the platform imports from here except the command
line; nothing here knows how the platform estimates anything.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from baas_dagster.simulator.deliveries import Deliveries, gates_of, in_master
from baas_dagster.simulator.events import Plan, plan_events
from baas_dagster.simulator.faults import Fault, PlannedFault
from baas_dagster.simulator.fleet import STANDARD_FLEETS, FleetSpec, custom_fleet, draw_fleet, months_of
from baas_dagster.simulator.layouts import layout_of
from baas_dagster.simulator.life import CarLife
from baas_dagster.simulator.packs import type_curve
from baas_dagster.simulator.truth import Truth, moment
from baas_dagster.simulator.vehicle import Car

__all__ = ["STANDARD_FLEETS", "FleetSpec", "PlannedFault", "SimulationSummary", "custom_fleet", "simulate"]


@dataclass(frozen=True)
class SimulationSummary:
    """What was written."""

    out: Path
    truth: Path | None
    fleet: str
    seed: int
    devices: int
    months: int
    files: int
    size_bytes: int
    bms_rows: int
    gps_rows: int
    distance_km: float


def simulate(
    out: Path,
    truth: Path | None,
    fleet: FleetSpec,
    seed: int,
    on_progress: Callable[[str, int, int], None] | None = None,
) -> SimulationSummary:
    """Simulate ``fleet`` and write its deliveries to ``out`` and the truth to ``truth``.

    Existing files of the same names are replaced, others are left alone: give an empty folder for a clean landing.
    ``on_progress`` is called with (month, device-months done, device-months in all). Memory: one device-month's rows
    and its text, plus the files of the month that hold several cars.
    """
    cars, months = draw_fleet(fleet, seed), months_of(fleet)
    book = Truth()
    plans, gates = plan_events(fleet, cars), gates_of(fleet)
    lives = [CarLife(car, fleet, seed, plans, book) for car in cars]
    out.mkdir(parents=True, exist_ok=True)
    deliveries = Deliveries(out, fleet, seed, book)
    for month_index, month in enumerate(months):
        for done, life in enumerate(lives):
            korean = layout_of(fleet, life.car.index, month_index).korean
            deliveries.deliver(life.live(month_index, korean))
            if on_progress is not None:
                on_progress(month, month_index * len(lives) + done + 1, len(months) * len(lives))
        deliveries.close_month(month, month_index)
    deliveries.finish(cars, months[-1])
    for life in lives:
        life.finish({months[m]: gate for (index, m), gate in gates.items() if index == life.car.index})
        book.add("truth_device", _device_row(fleet, life.car, plans))
        book.extend("truth_fault", (_fault_row(life.car, fault) for fault in life.car.faults))
    if truth is not None:
        book.write(truth)
    monthly = book.frames()["truth_month"]
    return SimulationSummary(
        out=out,
        truth=truth,
        fleet=fleet.name,
        seed=seed,
        devices=fleet.devices,
        months=fleet.months,
        files=deliveries.files,
        size_bytes=deliveries.size_bytes,
        bms_rows=int(monthly["bms_rows"].sum()),
        gps_rows=int(monthly["gps_rows"].sum()),
        distance_km=float(monthly["distance_km"].sum()),
    )


def _fault_row(car: Car, fault: Fault) -> dict[str, object]:
    return {
        "device_no": car.device_no,
        "code": fault.code,
        "variant": fault.variant,
        "cell_no": fault.cell_no,
        "module_no": fault.module_no,
        "strength": fault.strength,
        "size": None if np.isnan(fault.size) else fault.size,
        "unit": fault.unit,
        "onset_at": moment(fault.onset_s),
        "ended_at": None if fault.ended_s is None else moment(fault.ended_s),
    }


def _device_row(fleet: FleetSpec, car: Car, plans: dict[tuple[int, int], Plan]) -> dict[str, object]:
    last = layout_of(fleet, car.index, fleet.months - 1)
    warp = car.ocv_curve_v - type_curve(car.pack.chemistry)
    codes = [code for (index, _), plan in plans.items() if index == car.index for code, _ in plan.codes]
    return {
        "device_no": car.device_no,
        "car_type": car.car_type,
        "pack_type": car.pack.name,
        "chemistry": car.pack.chemistry,
        "cell_count": car.pack.cell_count,
        "temp_sensor_count": car.pack.temp_sensors,
        "temp_padded_count": len(car.padded_temps),
        "capacity_nominal_ah": car.pack.capacity_ah,
        "capacity_new_ah": car.capacity_new_ah,
        "capacity_now_ah": car.capacity_ah(fleet.months / 12),
        "bms_capacity_ah": car.bms_capacity_ah,
        "soh_start_pct": car.soh_start_pct,
        "fade_pct_per_year": car.fade_pct_per_year,
        "delivered_current_sign": last.current_sign,
        "delivered_voltage_scale": last.voltage_scale,
        "has_bms": car.has_bms,
        "has_gps": car.has_gps,
        "has_odometer": car.has_odometer,
        "odometer_resolution_km": car.odometer_resolution_km,
        "cell_step_mv": car.cell_step_mv,
        "insulation_cap_kohm": car.insulation_cap_kohm,
        "current_gain": car.current_gain,
        "current_offset_a": car.current_offset_a,
        "speed_gain": car.speed_gain,
        "ocv_warp_rms_mv": float(1000 * np.sqrt(np.mean(warp**2))),
        "hysteresis_mv": 1000 * car.hysteresis_v,
        "resistance_mohm": 1000 * car.resistance_ohm,
        "in_vehicle_master": fleet.quirks and in_master(car),
        "has_odometer_events": bool(codes),
    }
