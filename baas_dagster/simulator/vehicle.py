"""Physics of one car: pack, battery management, counters, odometer, second by second while it is awake.

Belongs here: what a car is (``Car``), what it carries from hour to hour (``CarState``), and what happens to it while
it drives, charges, feeds a load or rests. Does not belong here: when that happens (``schedule``), what its odometer
display does wrong (``events``), how rows are delivered (``deliveries``).

Signs: current and power at the pack terminals are charge positive. Time is whole seconds since 1970 in naive KST.
A sample ``k`` holds from its second to the next: charge of a stretch is ``sum(current[:-1])``.

Pack: open-circuit voltage + hysteresis + R0 + two RC links (20 s, 600 s), resistance falling with temperature after
Arrhenius (2500 K) and rising towards both ends of the charge; one thermal mass. The BMS sees the current through a
sensor with gain and offset, counts with its own capacity, anchors at full charge and partly after a rest.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from baas_dagster.simulator.faults import Fault, extra_fade, seen_current, soc_steps
from baas_dagster.simulator.motion import Path, Site, speed_profile
from baas_dagster.simulator.packs import SOC_GRID, PackType, maker_table

__all__ = [
    "ERRORS",
    "PHYSICS",
    "Car",
    "CarState",
    "Charge",
    "ErrorSizes",
    "Physics",
    "Stretch",
    "charge",
    "drive",
    "rest",
]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class ErrorSizes:
    """Error sizes, one sigma unless said otherwise. Fixed by DESIGN 7: changing one is a decision."""

    current_gain: float = 0.005
    current_offset_a: float = 0.1
    bms_capacity: float = 0.04
    ocv_warp_v: float = 0.005  # root mean square over the curve
    hysteresis_v: float = 0.010  # half gap
    capacity_new: float = 0.01
    # sizes DESIGN leaves open
    speed_gain: float = 0.004  # wheel speed message against true speed
    cell_offset_v: float = 0.003  # lasting difference of a cell at rest
    cell_resistance: float = 0.03  # share of the mean
    cell_noise_v: float = 0.0012  # per reading
    gps_wander_m: float = 2.5  # slow error of a fix
    gps_noise_m: float = 0.25  # fast error of a fix


ERRORS = ErrorSizes()


@dataclass(frozen=True)
class Physics:
    """Constants of the car models, plausible for the types of ``packs``; none is used outside the simulator."""

    rc_seconds: tuple[float, float] = (20.0, 600.0)
    rc_share: tuple[float, float] = (0.35, 0.45)  # resistance of the RC links as a share of R0
    arrhenius_k: float = 2500.0
    rolling: float = 0.009
    air_kg_m3: float = 1.2
    drive_efficiency: float = 0.87
    regen_efficiency: float = 0.68
    regen_limit_w: float = 70_000.0
    regen_from_mps: float = 2.5
    aux_w: float = 380.0
    hvac_w_per_k: float = 55.0  # cabin, per degree off 20 degC
    hvac_limit_w: float = 3_500.0
    parked_w: float = 6.0  # charging the 12 V battery, telematics
    awake_w: float = 180.0
    thermal_j_per_k_ah: float = 22.0  # per cell and Ah
    thermal_seconds_parked: float = 36_000.0
    thermal_seconds_awake: float = 9_000.0
    anchor_after_s: int = 7_200
    v2l_w: float = 1_600.0


PHYSICS = Physics()


@dataclass(frozen=True, eq=False)
class Car:
    """What a car is: fixed for its life."""

    index: int
    device_no: str
    car_type: str
    pack: PackType
    capacity_new_ah: float
    soh_start_pct: float
    fade_pct_per_year: float
    bms_capacity_ah: float
    bms_anchor_share: float
    current_gain: float
    current_offset_a: float
    speed_gain: float
    ocv_curve_v: Floats  # on SOC_GRID, warped and aged: this car's own
    hysteresis_v: float
    resistance_ohm: float  # pack at 25 degC today
    cell_offset_v: Floats
    cell_resistance: Floats
    temp_offset_c: Floats
    cell_step_mv: int
    padded_temps: tuple[int, ...]
    insulation_cap_kohm: int
    odometer_start_km: float
    odometer_resolution_km: float
    has_bms: bool
    has_gps: bool
    has_odometer: bool
    sites: tuple[Site, ...]
    site_has_home_charger: bool
    dc_share: float
    charge_below_pct: float
    charge_to_pct: float
    drives_at_midnight: bool
    goes_silent: bool
    climate_offset_c: float
    faults: tuple[Fault, ...] = ()  # of battery, sensors and units
    oddities: tuple[str, ...] = ()  # of ``faults.ODDITIES``
    rebalancing_v: Floats | None = None  # (periods of nine days, cells), what its BMS's balancing adds

    def capacity_ah(self, years: float) -> float:
        """True capacity after ``years`` of the simulated history, Ah."""
        fade = self.fade_pct_per_year + extra_fade(self.faults)
        return self.capacity_new_ah * (self.soh_start_pct - fade * years) / 100

    def ocv(self, soc: Floats | float) -> Floats:
        """Open-circuit voltage of the mean cell, V."""
        return np.asarray(np.interp(soc, SOC_GRID, self.ocv_curve_v))


@dataclass
class CarState:
    """What a car carries from hour to hour."""

    at_s: int
    soc: float
    capacity_ah: float
    rc_v: list[float]
    hysteresis: float
    temp_c: float
    odometer_m: float
    bms_soc_pct: float
    charged_ah: float
    discharged_ah: float
    charged_kwh: float
    discharged_kwh: float
    plug_kwh: float
    plug_quick_kwh: float
    charge_count: int
    quick_count: int
    op_time_s: float
    place: int
    charged_out_ah: float = 0.0  # what left the pack while parked: true, seen by no counter


@dataclass
class Stretch:
    """One waking of a car, second by second. Arrays have one entry per second from ``start_s``."""

    kind: str  # drive, ac, dc, v2l
    start_s: int
    current_a: Floats
    voltage_v: Floats
    cell_v: Floats
    soc: Floats
    temp_c: Floats
    ambient_c: Floats
    speed_mps: Floats
    odometer_m: Floats
    seen_current_a: Floats
    bms_soc_pct: Floats
    charged_ah: Floats
    discharged_ah: Floats
    charged_kwh: Floats
    discharged_kwh: Floats
    plug_kwh: Floats
    is_active: NDArray[np.bool_]  # moving trip, or charging period
    charge_count: int
    quick_count: int
    plug_quick_kwh: Floats
    op_time_s: float
    path: Path | None
    place: Site
    path_start_m: float = 0.0

    @property
    def seconds(self) -> Ints:
        """Time of every sample."""
        return self.start_s + np.arange(len(self.current_a), dtype=np.int64)

    @property
    def end_s(self) -> int:
        """Time of the last sample."""
        return self.start_s + len(self.current_a) - 1


@dataclass(frozen=True)
class Charge:
    """A connection: how, and up to which true charge."""

    mode: str
    power_kw: float
    until_soc: float
    lead_s: int
    tail_s: int
    limit_s: int = field(default=14 * 3600)


Ambient = Callable[[Ints], Floats]


def first_order(target: Floats, seconds: float, start: float) -> Floats:
    """Response of a first-order lag of ``seconds`` to ``target`` (one value per second), beginning at ``start``."""
    n, block = len(target), int(np.clip(12.8 * seconds, 8, 4_096))  # powers within a block stay small
    keep = float(np.exp(-1.0 / seconds))
    padded = np.zeros(-(-n // block) * block)
    padded[:n] = target
    grown = keep ** -np.arange(1, block + 1.0)
    falls = keep ** np.arange(1, block + 1.0)
    inner = np.cumsum(padded.reshape(-1, block) * grown, axis=1) * falls * (1 - keep)
    begins = np.empty(len(inner))
    value = start
    for i, last in enumerate(inner[:, -1].tolist()):
        begins[i] = value
        value = value * falls[-1] + last
    reached = (inner + begins[:, None] * falls).ravel()
    return np.concatenate([[start], reached[: n - 1]])


def rest(car: Car, state: CarState, until_s: int, ambient: Ambient) -> None:
    """Let the car sleep until ``until_s``: relaxation, cooling, trickle into the 12 V battery, the BMS's anchoring."""
    span = until_s - state.at_s
    if span <= 0:
        return
    for i, tau in enumerate(PHYSICS.rc_seconds):
        state.rc_v[i] *= float(np.exp(-span / tau))
    middle = ambient(np.array([state.at_s + span // 2, until_s], dtype=np.int64))
    state.temp_c = float(
        middle.mean() + (state.temp_c - middle.mean()) * np.exp(-span / PHYSICS.thermal_seconds_parked)
    )
    volts = car.pack.cell_count * float(car.ocv(state.soc))
    lost_ah = PHYSICS.parked_w * span / 3600 / volts
    state.charged_out_ah += lost_ah
    state.soc -= lost_ah / state.capacity_ah
    if span >= PHYSICS.anchor_after_s:
        cell_v = float(car.ocv(state.soc)) + car.hysteresis_v * state.hysteresis
        table = maker_table(car.pack.chemistry)
        believed = 100 * float(np.interp(cell_v, table, SOC_GRID))
        flat = car.pack.chemistry == "LFP" and 12 < believed < 97
        if not flat:
            state.bms_soc_pct += car.bms_anchor_share * (believed - state.bms_soc_pct)
    state.at_s = until_s


def drive(
    car: Car, state: CarState, rng: np.random.Generator, length_m: float, path: Path, ambient: Ambient, wait_s: int
) -> Stretch:
    """Drive ``length_m`` along ``path``: wake, stand ``wait_s``, drive, stand again. Leaves ``state`` at the end."""
    moving = speed_profile(rng, length_m)
    after_s = int(rng.integers(20, 90))
    speed = np.concatenate([np.zeros(wait_s), moving, np.zeros(after_s)])
    seconds = state.at_s + np.arange(len(speed), dtype=np.int64)
    air = ambient(seconds)
    physics, pack = PHYSICS, car.pack
    grade = 0.012 * np.sin(np.cumsum(speed) / rng.uniform(400, 900) + rng.uniform(0, 6.28))
    push = np.append(np.diff(speed), 0.0)
    wheel_w = speed * (
        pack.mass_kg * (push + 9.81 * (physics.rolling + grade))
        + 0.5 * physics.air_kg_m3 * pack.drag_area_m2 * speed**2
    )
    back_w = np.where(speed >= physics.regen_from_mps, np.maximum(wheel_w, -physics.regen_limit_w), 0.0)
    motor_w = np.where(wheel_w >= 0, wheel_w / physics.drive_efficiency, back_w * physics.regen_efficiency)
    # the inverter holds back: about 2 C, less in a cold pack
    limit_w = 2.0 * pack.cell_count * pack.capacity_ah * 3.7 * float(np.interp(state.temp_c, [-15, 12], [0.45, 1.0]))
    motor_w = np.minimum(motor_w, limit_w)
    hvac_w = np.minimum(physics.hvac_w_per_k * np.abs(air - 20.0), physics.hvac_limit_w)
    ready = np.arange(len(speed)) >= max(wait_s // 2, 1)  # the relay closes half-way through the wait
    power_w = -np.where(ready, motor_w + physics.aux_w + hvac_w, physics.awake_w)
    full = state.soc > 0.97
    power_w = np.minimum(power_w, 0.0) if full else power_w
    active = np.zeros(len(speed), dtype=bool)
    active[wait_s : wait_s + len(moving)] = True
    current = _current_for(car, state, power_w)
    return _advance(car, state, rng, "drive", current, speed, active, air, path, 0.0)


def charge(car: Car, state: CarState, rng: np.random.Generator, plan: Charge, ambient: Ambient) -> Stretch:
    """Charge (or feed a load, mode ``v2l``) as planned: plug in, wait, charge, stay connected for a while."""
    current = (_load_current if plan.mode == "v2l" else _charge_current)(car, state, plan)
    aux = -PHYSICS.awake_w / (car.pack.cell_count * 3.6)
    whole = np.concatenate([np.full(plan.lead_s, aux), current, np.full(plan.tail_s, aux)])
    active = np.zeros(len(whole), dtype=bool)
    active[plan.lead_s : plan.lead_s + len(current)] = True
    air = ambient(state.at_s + np.arange(len(whole), dtype=np.int64))
    state.charge_count += plan.mode != "v2l"
    state.quick_count += plan.mode == "dc"
    filled = 1.0 if plan.mode != "v2l" and plan.until_soc >= 0.999 else 0.0
    return _advance(car, state, rng, plan.mode, whole, np.zeros(len(whole)), active, air, None, filled)


def _resistance(car: Car, soc: Floats | float, temp_c: float) -> Floats:
    """R0 of the pack, Ohm."""
    warm = np.exp(PHYSICS.arrhenius_k * (1 / (273.15 + temp_c) - 1 / 298.15))
    edge = 1 + 1.2 * np.exp(-np.asarray(soc) / 0.06) + 0.3 * np.exp((np.asarray(soc) - 1) / 0.05)
    return np.asarray(car.resistance_ohm * warm * edge)


def _voltages(car: Car, state: CarState, current: Floats, soc: Floats) -> tuple[Floats, list[float]]:
    """Terminal voltage of the pack and where its RC links end up, V; without touching the state."""
    r0 = _resistance(car, soc, state.temp_c)
    swing = _hysteresis(state, current)
    ends: list[float] = []
    volts = car.pack.cell_count * (car.ocv(soc) + car.hysteresis_v * swing) + current * r0
    for tau, share, begin in zip(PHYSICS.rc_seconds, PHYSICS.rc_share, state.rc_v, strict=True):
        link = first_order(current * r0 * share, tau, begin)
        volts, ends = volts + link, [*ends, float(link[-1])]
    return volts, ends


def _hysteresis(state: CarState, current: Floats) -> Floats:
    """Hysteresis state in -1..1: follows the direction of the net charge moved, within about 3 % of the capacity."""
    moved = np.concatenate([[0.0], np.cumsum(current[:-1])]) / 3600 / state.capacity_ah
    direction = 1.0 if moved[-1] >= 0 else -1.0
    reach = np.maximum.accumulate(direction * moved)
    return direction + (state.hysteresis - direction) * np.exp(-np.maximum(reach, 0.0) / 0.03)


def _soc(state: CarState, current: Floats) -> Floats:
    return state.soc + np.concatenate([[0.0], np.cumsum(current[:-1])]) / 3600 / state.capacity_ah


def _current_for(car: Car, state: CarState, power_w: Floats) -> Floats:
    """Current that gives ``power_w`` at the terminals: fixed point over voltage, two rounds."""
    volts: Floats = np.full(len(power_w), car.pack.cell_count * float(car.ocv(state.soc)))
    current = power_w / volts
    for _ in range(2):
        volts, _ = _voltages(car, state, current, _soc(state, current))
        current = power_w / volts
    return current


def _charge_current(car: Car, state: CarState, plan: Charge) -> Floats:
    """Current over a charge, A per second, from the power curve over charge: DC steps down with charge, both taper."""
    stop = max(plan.until_soc, state.soc + 0.01)
    soc = np.arange(state.soc, stop, 0.0005)
    kw = np.full(len(soc), plan.power_kw)
    if plan.mode == "dc":
        kw = kw * np.interp(soc, [0.0, 0.08, 0.5, 0.55, 0.72, 0.8, 0.9, 1.0], [0.75, 1, 1, 0.78, 0.7, 0.42, 0.2, 0.08])
        kw = kw * np.interp(state.temp_c, [-15, 5, 20, 40], [0.3, 0.6, 1.0, 1.0])
    one_c_kw = car.pack.cell_count * car.capacity_new_ah * 3.7e-3
    kw = np.minimum(kw, one_c_kw * np.interp(soc, [0.92, 0.975, 1.0], [2.5, 0.22, 0.03]))
    volts = car.pack.cell_count * car.ocv(soc)
    amps = kw * 1000 / (volts + kw * 1000 / volts * _resistance(car, soc, state.temp_c) * 1.6)
    elapsed = np.concatenate([[0.0], np.cumsum(0.0005 * state.capacity_ah * 3600 / amps)])
    length = int(min(elapsed[-1], plan.limit_s))
    ramp = np.minimum(np.arange(length) / 12.0, 1.0)
    return np.asarray(np.interp(np.arange(length), elapsed[:-1], amps) * np.maximum(ramp, 0.02))


def _load_current(car: Car, state: CarState, plan: Charge) -> Floats:
    """Current of a load on the car's socket, A per second, for ``limit_s``."""
    volts = car.pack.cell_count * float(car.ocv(state.soc))
    return np.full(plan.limit_s, -plan.power_kw * 1000 / volts)


def _advance(
    car: Car,
    state: CarState,
    rng: np.random.Generator,
    kind: str,
    current: Floats,
    speed: Floats,
    active: NDArray[np.bool_],
    air: Floats,
    path: Path | None,
    filled: float,
) -> Stretch:
    """Let ``current`` flow: everything the car is and shows meanwhile. Leaves ``state`` at the end."""
    soc = _soc(state, current)
    volts, rc_ends = _voltages(car, state, current, soc)
    r0 = _resistance(car, soc, state.temp_c)
    heat_w = current**2 * r0 * 1.5
    mass = PHYSICS.thermal_j_per_k_ah * car.pack.cell_count * car.pack.capacity_ah
    cooling_w_per_k = mass / PHYSICS.thermal_seconds_awake
    temp = first_order(air + heat_w / cooling_w_per_k, PHYSICS.thermal_seconds_awake, state.temp_c)
    driven = np.concatenate([[0.0], np.cumsum((speed[1:] + speed[:-1]) / 2)])
    seen = current * (1 + car.current_gain) + car.current_offset_a
    seconds = state.at_s + np.arange(len(current), dtype=np.int64)
    seen = seen_current(car.faults, seconds, seen)
    bms_soc = state.bms_soc_pct + np.concatenate([[0.0], np.cumsum(seen[:-1])]) / 36 / car.bms_capacity_ah
    steps = soc_steps(car.faults, kind, seconds, state.bms_soc_pct)
    if steps is not None:
        bms_soc = bms_soc + steps
    if filled:  # the BMS is led to 100 where the charge is complete
        progress = np.clip(np.cumsum(active) / max(int(active.sum()), 1), 0, 1)
        bms_soc = bms_soc + (100.0 - bms_soc[int(np.flatnonzero(active)[-1])]) * progress**4
    bms_soc = np.clip(bms_soc, 0.6, 100.0)
    power_w = seen * volts
    on_plug = np.where(active & (kind in ("ac", "dc")), np.maximum(power_w, 0), 0.0)

    def counter(flow: Floats, start: float, unit: float) -> Floats:
        return start + np.concatenate([[0.0], np.cumsum(flow[:-1])]) / unit

    plug = counter(on_plug, state.plug_kwh, 3.6e6)
    stretch = Stretch(
        kind=kind,
        start_s=state.at_s,
        current_a=current,
        voltage_v=volts,
        cell_v=volts / car.pack.cell_count,
        soc=soc,
        temp_c=temp,
        ambient_c=air,
        speed_mps=speed,
        odometer_m=state.odometer_m + driven,
        seen_current_a=seen,
        bms_soc_pct=bms_soc,
        charged_ah=counter(np.maximum(seen, 0), state.charged_ah, 3600),
        discharged_ah=counter(np.maximum(-seen, 0), state.discharged_ah, 3600),
        charged_kwh=counter(np.maximum(power_w, 0), state.charged_kwh, 3.6e6),
        discharged_kwh=counter(np.maximum(-power_w, 0), state.discharged_kwh, 3.6e6),
        plug_kwh=plug,
        is_active=active,
        charge_count=state.charge_count,
        quick_count=state.quick_count,
        plug_quick_kwh=plug - state.plug_kwh + state.plug_quick_kwh
        if kind == "dc"
        else np.full(len(plug), state.plug_quick_kwh),
        op_time_s=state.op_time_s,
        path=path,
        place=car.sites[state.place],
    )
    state.rc_v = rc_ends
    state.hysteresis = float(_hysteresis(state, current)[-1])
    state.at_s = stretch.end_s
    state.soc = float(soc[-1])
    state.temp_c = float(temp[-1])
    state.odometer_m = float(stretch.odometer_m[-1])
    state.bms_soc_pct = float(bms_soc[-1])
    state.charged_ah, state.discharged_ah = float(stretch.charged_ah[-1]), float(stretch.discharged_ah[-1])
    state.charged_kwh, state.discharged_kwh = float(stretch.charged_kwh[-1]), float(stretch.discharged_kwh[-1])
    state.plug_kwh, state.plug_quick_kwh = float(plug[-1]), float(stretch.plug_quick_kwh[-1])
    state.op_time_s += len(current)
    return stretch
