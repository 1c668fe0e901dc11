"""What the car's units write down: samples of the stretches, and rows as the units would quantise them.

Belongs here: sampling, sensor noise and quantisation, the values of every BMS and GPS column. Does not belong here:
wrong odometers (``events``), broken rows and files (``deliveries``).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from baas_dagster.simulator.faults import (
    balancing_period,
    cells_extra_v,
    frozen_rows,
    insulation_kohm,
    temperatures_c,
)
from baas_dagster.simulator.motion import EARTH_RADIUS_M
from baas_dagster.simulator.table import Choice, Column, Lists, Moment, Number, Table
from baas_dagster.simulator.vehicle import ERRORS, Car, Floats, Ints, Stretch, first_order

__all__ = ["Samples", "bms_table", "gps_table", "join", "kept", "sample_bms", "sample_gps", "split_at"]

Samples = dict[str, NDArray[np.float64]]
"""Columns of samples of one length; ``t`` in whole seconds."""

KINDS = ("drive", "ac", "dc", "v2l")
_POLL_S = 0.12
"""Delay of each block of 32 cells behind the one before, s."""


def join(parts: list[Samples]) -> Samples:
    """Samples one after the other."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]} if parts else {}


def kept(samples: Samples, keep: NDArray[np.bool_]) -> Samples:
    """The samples where ``keep``."""
    return {name: values[keep] for name, values in samples.items()}


def split_at(samples: Samples, end_s: int) -> tuple[Samples, Samples]:
    """Samples before ``end_s``, and from it on."""
    if not samples:
        return {}, {}
    before = samples["t"] < end_s
    return kept(samples, before), kept(samples, ~before)


def _rows_at(count: int, dt_s: float) -> Ints:
    """Seconds at which a unit writes: every ``dt_s``, and once more when it goes to sleep."""
    at = np.round(np.arange(0, count, dt_s)).astype(np.int64)
    return np.unique(np.append(at[at < count], count - 1))


def sample_bms(stretch: Stretch, dt_s: float) -> Samples:
    """The stretch at the times of its BMS messages."""
    at = _rows_at(len(stretch.current_a), dt_s)
    before = np.maximum(at - 1, 0)
    constant = np.ones(len(at))
    return {
        "t": (stretch.start_s + at).astype(np.float64),
        "kind": constant * KINDS.index(stretch.kind),
        "active": stretch.is_active[at].astype(np.float64),
        "since_start": at.astype(np.float64),
        "start": constant * stretch.start_s,
        "current": stretch.current_a[at],
        "seen_current": stretch.seen_current_a[at],
        "voltage": stretch.voltage_v[at],
        "cell_v": stretch.cell_v[at],
        "cell_v_before": stretch.cell_v[before],
        "soc": stretch.soc[at],
        "bms_soc": stretch.bms_soc_pct[at],
        "temp": stretch.temp_c[at],
        "ambient": stretch.ambient_c[at],
        "speed": stretch.speed_mps[at],
        "odometer_m": stretch.odometer_m[at],
        "charged_ah": stretch.charged_ah[at],
        "discharged_ah": stretch.discharged_ah[at],
        "charged_kwh": stretch.charged_kwh[at],
        "discharged_kwh": stretch.discharged_kwh[at],
        "plug_kwh": stretch.plug_kwh[at],
        "plug_quick_kwh": stretch.plug_quick_kwh[at],
        "trip_chrg": stretch.charged_kwh[at] - stretch.charged_kwh[0],
        "trip_dischrg": stretch.discharged_kwh[at] - stretch.discharged_kwh[0],
        "charge_count": constant * stretch.charge_count,
        "quick_count": constant * stretch.quick_count,
        "op_time": stretch.op_time_s + at,
        "left_s": len(stretch.current_a) - 1 - at,
    }


def sample_gps(stretch: Stretch, dt_s: float, rng: np.random.Generator) -> Samples:
    """The stretch at the times of its fixes: as asked while driving, once a minute at most beside a charger."""
    at = _rows_at(len(stretch.current_a), dt_s if stretch.kind == "drive" else max(dt_s, 60.0))
    driven = stretch.odometer_m[at] - stretch.odometer_m[0]
    if stretch.path is not None:
        lat, lng, direction = stretch.path.position(driven)
    else:
        lat, lng = np.full(len(at), stretch.place.lat), np.full(len(at), stretch.place.lng)
        direction = np.zeros(len(at))
    speed = stretch.speed_mps[at]
    # the error wanders while the car moves and holds while it stands, as receivers do
    wander_s = 90.0 / max(dt_s, 1.0)
    east, north = (
        first_order(rng.standard_normal(len(at)) * np.sqrt(2 * max(wander_s, 0.5)), max(wander_s, 0.5), 0.0)
        for _ in range(2)
    )
    moving = (speed > 0.3) | (np.append(0.0, np.diff(driven)) > 1)
    last = np.maximum.accumulate(np.where(moving, np.arange(len(at)), 0))
    noise = np.where(moving, ERRORS.gps_noise_m, 0.0)
    east = ERRORS.gps_wander_m * east[last] + noise * rng.standard_normal(len(at))
    north = ERRORS.gps_wander_m * north[last] + noise * rng.standard_normal(len(at))
    return {
        "t": (stretch.start_s + at).astype(np.float64),
        "kind": np.full(len(at), float(KINDS.index(stretch.kind))),
        "lat": lat + np.degrees(north / EARTH_RADIUS_M),
        "lng": lng + np.degrees(east / (EARTH_RADIUS_M * np.cos(np.radians(lat)))),
        "direction": direction,
        "speed": np.maximum(speed * 3.6 + rng.normal(0, 0.25, len(at)) * (speed > 0), 0.0),
        "fuel": stretch.bms_soc_pct[at],
        "odometer_m": stretch.odometer_m[at],
    }


def _number(values: Floats, decimals: int = 0, step: int = 1) -> Number:
    """Values in units of 10**-decimals, rounded to multiples of ``step`` units."""
    return Number((np.round(values * 10**decimals / step) * step).astype(np.int64), decimals)


def _down(values: Floats, decimals: int = 0) -> Number:
    """Values in units of 10**-decimals, cut off as counters do."""
    return Number(np.floor(values * 10**decimals + 1e-6).astype(np.int64), decimals)


def _flag(values: NDArray[np.bool_]) -> Choice:
    return Choice(values.astype(np.int64), ("0", "1"))


def _same(n: int, value: int, decimals: int = 0) -> Number:
    return Number(np.full(n, value, dtype=np.int64), decimals)


def cell_readings(car: Car, s: Samples, rng: np.random.Generator) -> NDArray[np.int32]:
    """Cell voltages as the BMS reports them, (rows, cells) mV: spread at rest and of resistance, polling, noise, steps.

    Block ``b`` of 32 cells is read ``b`` times the polling delay before the message, so under load the blocks disagree.
    """
    n, cells = len(s["t"]), car.pack.cell_count
    readings = np.empty((n, cells), dtype=np.int32)
    per_cell_ohm = (car.resistance_ohm / cells * car.cell_resistance).astype(np.float32)
    offset = car.cell_offset_v.astype(np.float32)
    delay = ((np.arange(cells) // 32) * _POLL_S).astype(np.float32)
    warm = np.exp(2500.0 * (1 / (273.15 + s["temp"]) - 1 / 298.15))
    amps = (s["current"] * warm).astype(np.float32)
    fall = (s["cell_v_before"] - s["cell_v"]).astype(np.float32)
    mean = s["cell_v"].astype(np.float32)
    step = np.float32(car.cell_step_mv / 1000)
    extra = _cells_extra_v(car, s)
    for begin in range(0, n, 8_192):
        rows = slice(begin, begin + 8_192)
        volts = rng.standard_normal((len(mean[rows]), cells), dtype=np.float32)
        volts *= np.float32(ERRORS.cell_noise_v)
        volts += mean[rows, None] + offset
        volts += amps[rows, None] * per_cell_ohm
        volts += fall[rows, None] * delay
        for at, values in extra.items():
            volts[:, at] += values[rows].astype(np.float32)
        if car.rebalancing_v is not None:
            period = balancing_period(s["t"][rows].astype(np.int64), len(car.rebalancing_v))
            volts += car.rebalancing_v[period].astype(np.float32)
        volts /= step
        readings[rows] = np.rint(volts) * car.cell_step_mv
    return readings


def _cells_extra_v(car: Car, s: Samples) -> dict[int, Floats]:
    """What faults add to single cells, V."""
    ac_a = car.pack.ac_kw * 1000 / (car.pack.cell_count * 3.75)
    return cells_extra_v(car.faults, s, car.ocv, car.pack.chemistry, car.pack.capacity_ah, ac_a)


def bms_table(car: Car, s: Samples, odometer: Ints, rng: np.random.Generator, month: str) -> Table:
    """BMS rows of a month in canonical columns: current charge positive, voltage in V; ``odometer`` as displayed."""
    n = len(s["t"])
    t = s["t"].astype(np.int64)
    kind = s["kind"].astype(np.int64)
    plugged, quick, feeding = (kind == 1) | (kind == 2), kind == 2, kind == 3
    charging = plugged & (s["active"] > 0)
    driving = kind == 0
    ready = (driving & (s["seen_current"] < -0.8)) | (s["active"] > 0)
    cells = cell_readings(car, s, rng)
    low, high = cells.min(axis=1), cells.max(axis=1)
    temps_c = (
        s["temp"][:, None]
        + car.temp_offset_c
        + 0.004 * np.abs(s["current"])[:, None] * np.linspace(0, 1, len(car.temp_offset_c))
    )
    temps_c = temperatures_c(car.faults, s, temps_c)
    temps = np.round(temps_c).astype(np.int32)
    pads = np.tile(np.array(car.padded_temps, dtype=np.int32), (n, 1))
    soc = np.round(s["bms_soc"] * 2) * 5
    shown = np.clip(np.round((s["bms_soc"] - 4.0) / 0.93 * 2) * 5, 0, 1000)
    speed_kmh = s["speed"] * 3.6 * (1 + car.speed_gain)
    kw_now = car.pack.dc_kw * np.clip((100 - s["bms_soc"]) / 25, 0.03, 1) * np.interp(s["temp"], [-15, 15], [0.35, 1])
    out_kw = car.pack.cell_count * car.pack.capacity_ah * 7.4e-3 * np.interp(s["temp"], [-15, 12], [0.45, 1])
    insulation = np.where(s["since_start"] < 3, 0, car.insulation_cap_kohm).astype(np.float64)
    insulation = insulation_kohm(car.faults, s, insulation)
    voltage = s["voltage"] + sum(_cells_extra_v(car, s).values())
    held = frozen_rows(car.faults, s)
    left = np.minimum(s["left_s"] / 60, 1200) * charging
    columns: dict[str, Column] = {
        "device_no": Choice(np.zeros(n, dtype=np.int64), (car.device_no,)),
        "measured_month": Choice(np.zeros(n, dtype=np.int64), (month,)),
        "time": Moment(t),
        "msg_time": Moment(t + (np.arange(n) % 7 == 3)),
        "acceptable_chrg_pw": _number(kw_now, 2),
        "acceptable_dischrg_pw": _number(out_kw, 2),
        "airbag_hwire_duty": _same(n, 80),
        "batt_coolant_inlet_temp": _number(s["temp"] - 1.0),
        "batt_fan_running": _flag(s["temp"] > 33),
        "batt_internal_temp": _same(n, 0),
        "batt_ltr_rear_temp": _number(0.6 * s["temp"] + 0.4 * s["ambient"]),
        "batt_pra_busbar_temp": _number(s["temp"] + 0.02 * np.abs(s["current"])),
        "batt_pw": _same(n, 0) if car.index % 2 else _number(s["voltage"] * s["seen_current"] / 1000, 2),
        "bms_running": _flag(np.ones(n, dtype=bool)),
        "cell_volt_dispersion": _number((high - low) / 1000, 2 if car.cell_step_mv == 20 else 3),
        "cell_volt_list": Lists(cells, milli=True, decimals=2 if car.cell_step_mv == 20 else 3),
        "chrg_cable_conn": _flag(plugged),
        "chrg_cnt": _number(s["charge_count"]),
        "chrg_cnt_q": _number(s["quick_count"]),
        "cumul_current_chrgd": _down(s["charged_ah"], 1),
        "cumul_current_dischrgd": _down(s["discharged_ah"], 1),
        "cumul_energy_chrgd": _down(s["plug_kwh"], 1),
        "cumul_energy_chrgd_q": _down(s["plug_quick_kwh"], 1),
        "cumul_pw_chrgd": _down(s["charged_kwh"], 1),
        "cumul_pw_dischrgd": _down(s["discharged_kwh"], 1),
        "drive_motor_spd1": _number(speed_kmh * 89.0),
        "drive_motor_spd2": _same(n, 0),
        "emobility_spd": _number(speed_kmh),
        "est_chrg_time": _number(left),
        "ext_temp": _number(s["ambient"], 1, 5),
        "fast_chrg_port_conn": _flag(quick & (car.index % 3 != 0)),  # constant 0 on some cars
        "fast_chrg_relay_on": _flag(quick & charging),
        "hvac_list1": Choice(driving.astype(np.int64), ("0,0,0", "1,22,3")),
        "hvac_list2": Choice(np.zeros(n, dtype=np.int64), ("",)),
        "insul_resistance": _number(insulation),
        "int_temp": _same(n, 0) if car.index % 2 else _number(s["ambient"] + 6 * driving),
        "inverter_capacity_volt": _number(s["voltage"] * ready),
        "main_relay_conn": _flag(ready),
        "max_cell_volt": _number(high / 1000, 2 if car.cell_step_mv == 20 else 3),
        "max_cell_volt_no": _number(cells.argmax(axis=1) + 1.0),
        "max_deter_cell_no": _same(n, int(car.cell_resistance.argmax()) + 1),
        "min_cell_volt": _number(low / 1000, 2 if car.cell_step_mv == 20 else 3),
        "min_cell_volt_no": _number(cells.argmin(axis=1) + 1.0),
        "min_deter": _same(n, 0, 1),
        "min_deter_cell_no": _same(n, int(car.cell_resistance.argmin()) + 1),
        "mod_avg_temp": _same(n, 0) if car.index % 3 == 1 else _number(temps_c.mean(axis=1)),
        "mod_max_temp": _number(temps.max(axis=1).astype(np.float64)),
        "mod_min_temp": _number(temps.min(axis=1).astype(np.float64)),
        "mod_temp_list": Lists(np.hstack([temps, pads]), milli=False),
        "msg_id": Choice(np.zeros(n, dtype=np.int64), ("0x7EC",)),
        "odometer": Number(odometer, 0 if car.odometer_resolution_km == 1 else 1),
        "op_time": _number(s["op_time"]),
        "pack_current": _number((s["seen_current"] + rng.normal(0, 0.06, n))[held], 1),
        "pack_volt": _number((voltage + rng.normal(0, 0.04, n))[held], 1),
        "seq": Number(np.arange(1, n + 1, dtype=np.int64)),
        "slow_chrg_port_conn": _flag(plugged & ~quick),
        "soc": Number(soc.astype(np.int64), 1),
        "socd": Number(shown.astype(np.int64), 1),
        "soh": _number(np.full(n, min(100.0, np.ceil(car.soh_start_pct + 4.5))), 1),  # saturated, optimistic
        "start_time": Choice(np.zeros(n, dtype=np.int64), ("",)),
        "sub_batt_volt": _number(np.where(ready, 14.2, 12.6), 1),
        "trip_chrg_pw": _number(s["trip_chrg"], 1),
        "trip_dischrg_pw": _number(s["trip_dischrg"], 1),
        "v2l": _flag(feeding & (s["active"] > 0)),
    }
    return Table(columns)


def gps_table(car: Car, s: Samples, rng: np.random.Generator, korean: bool) -> Table:
    """GPS rows of a month in canonical columns."""
    n = len(s["t"])
    t = s["t"].astype(np.int64)
    kind = s["kind"].astype(np.int64)
    hdop = np.where(rng.uniform(size=n) < 0.003, rng.uniform(5.5, 12, n), rng.uniform(0.6, 2.1, n))
    moving = (s["speed"] > 1).astype(np.int64)
    states = ("정차", "운행", "충전") if korean else ("stop", "drive", "charge")
    state = np.where((kind == 1) | (kind == 2), 2, moving)
    return Table(
        {
            "device_no": Choice(np.zeros(n, dtype=np.int64), (car.device_no,)),
            "time": Moment(t),
            "direction": Number((np.round(s["direction"]) % 360).astype(np.int64)),
            "fuel_pct": Number((np.round(s["fuel"] * 2) * 5).astype(np.int64), 1),
            "hdop": _number(hdop, 1),
            "lat": _number(s["lat"], 6),
            "lng": _number(s["lng"], 6),
            "mode": Choice(moving, ("N", "D")),
            "source": Choice(np.zeros(n, dtype=np.int64), ("GPS",)),
            "speed": _number(s["speed"], 1),
            "state": Choice(state, states),
        }
    )
