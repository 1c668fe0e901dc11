"""Does the audit of counters find what it should? Cars simulated as awake periods, judged by the published model.

Belongs here: counters of cars with and without a fault, and the rates of false alarms and of detections of
``fct_counter_audit_monthly`` on them. Does not belong here: the audit itself (dbt), rows of a fleet (``simulator``).

A car rests, anchors its SoC and loses charge while parked as the simulator's cars do; only driving and charging are
coarser: one step each. Faults are those of DOMAIN 7, COUNTER_DRIFT: an asymmetry of charge and discharge, or an offset
of the current, each on top of the car's own healthy errors.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl

from acceptance.figures import Figure, Section
from baas_dagster.resources import Dbt, Warehouse
from baas_dagster.settings import Settings
from baas_dagster.simulator.fleet import custom_fleet, draw_car, stream
from baas_dagster.simulator.vehicle import ERRORS, Car, CarState, Floats, Ints, rest

__all__ = ["Fault", "audit", "counters_section", "drive_months"]

_START = datetime(2023, 1, 1)
_EPOCH = datetime(1970, 1, 1)
_STREAM = 77
"""First key of the random streams of this page."""


@dataclass(frozen=True)
class Fault:
    """What is wrong with a car's current sensor or counters, from a day of a month of its history on (0, 0: always)."""

    name: str
    asymmetry: float = 0.0
    offset_a: float = 0.0
    from_month: int = 0
    from_day: int = 0
    is_reset: bool = False  # the counters begin anew, once

    @property
    def onset_at(self) -> datetime:
        """When it begins."""
        year, month = divmod(self.from_month, 12)
        return datetime(_START.year + year, 1 + month, 1) + timedelta(days=self.from_day)


def _second(at: datetime) -> int:
    return round((at - _EPOCH).total_seconds())


def _mild(at: Ints) -> Floats:
    return np.full(len(at), 12.0)


@dataclass
class _Counters:
    """The lifetime counters of one car as its sensor fills them, and the awake periods that show them."""

    car: Car
    state: CarState
    rows: list[dict[str, object]]

    def awake(self, hours: float, out_ah: float, in_ah: float, offset_a: float, asymmetry: float) -> None:
        """An awake period in which so much charge leaves and enters the pack."""
        car, state = self.car, self.state
        begin = state.at_s
        before = (state.charged_ah, state.discharged_ah, state.charged_kwh, state.bms_soc_pct)
        gain = 1 + car.current_gain
        extra = offset_a * hours
        # the offset is counted where the current already flows
        seen_in = max(in_ah * gain + (extra if in_ah >= out_ah else 0.0), 0.0)
        seen_out = max(out_ah * gain * (1 - asymmetry) - (extra if in_ah < out_ah else 0.0), 0.0)
        net = in_ah - out_ah
        state.soc = float(np.clip(state.soc + net / state.capacity_ah, 0.0, 1.0))
        state.bms_soc_pct = float(
            np.clip(state.bms_soc_pct + 100 * (seen_in - seen_out) / car.bms_capacity_ah, 0.6, 100.0)
        )
        state.hysteresis = float(np.sign(net) or state.hysteresis)
        state.charged_ah += seen_in
        state.discharged_ah += seen_out
        state.charged_kwh += seen_in * car.pack.cell_count * float(car.ocv(state.soc)) / 1000
        state.at_s += round(hours * 3600)
        if net > 0 and state.soc >= 0.995:
            state.bms_soc_pct = 100.0
        from_at, to_at = (_EPOCH + timedelta(seconds=s) for s in (begin, state.at_s))
        self.rows.append(
            {
                "source": "bms",
                "awake_no": len(self.rows) + 1,
                "from_at": from_at,
                "to_at": to_at,
                "message_count": round(hours * 360),
                "soc_first_pct": round(before[3] * 2) / 2,
                "soc_first_at": from_at,
                "soc_last_pct": round(state.bms_soc_pct * 2) / 2,
                "charged_total_first_ah": np.floor(before[0] * 10) / 10,
                "charged_total_last_ah": np.floor(state.charged_ah * 10) / 10,
                "discharged_total_first_ah": np.floor(before[1] * 10) / 10,
                "discharged_total_last_ah": np.floor(state.discharged_ah * 10) / 10,
                "charged_total_first_kwh": np.floor(before[2] * 10) / 10,
                "charged_total_last_kwh": np.floor(state.charged_kwh * 10) / 10,
                "discharged_total_first_kwh": None,
                "discharged_total_last_kwh": None,
                "odometer_first_km": None,
                "odometer_last_km": None,
                "operating_first_s": float(begin),
                "operating_last_s": float(state.at_s),
                "cell_slot_count": car.pack.cell_count,
                "pack_voltage_last_v": car.pack.cell_count * float(car.ocv(state.soc)),
                "device_no": car.device_no,
                "measured_month": f"{from_at:%Y-%m}",
            }
        )


def _car(index: int, months: int, seed: int) -> Car:
    return draw_car(custom_fleet(1_000, months, 10.0, 2.5, plain_cars=True), seed, index)


def drive_months(index: int, months: int, seed: int, fault: Fault) -> tuple[Car, list[dict[str, object]]]:
    """The awake periods of a car over so many months, as rows of `int_awake_period`."""
    car = _car(index, months, seed)
    rng = stream(seed, _STREAM, index)
    volts = 3.7 * car.pack.cell_count
    state = CarState(
        at_s=_second(_START) + 7 * 3600, soc=0.7, capacity_ah=car.capacity_ah(0), rc_v=[0.0, 0.0], hysteresis=1.0,
        temp_c=12.0, odometer_m=1e7, bms_soc_pct=70.0, charged_ah=9_000.0, discharged_ah=8_700.0,
        charged_kwh=9 * volts, discharged_kwh=8.7 * volts, plug_kwh=0.0, plug_quick_kwh=0.0, charge_count=0,
        quick_count=0, op_time_s=0.0, place=0,
    )  # fmt: skip
    life = _Counters(car, state, [])
    usual_ah = rng.uniform(10, 26)  # 300-800 Ah a month
    use = rng.uniform(0.6, 1.4, months + 1)  # no month is like the other
    sign = 1.0 if rng.uniform() < 0.5 else -1.0
    day = 0
    while True:
        begin = _START + timedelta(days=day)
        month = (begin.year - _START.year) * 12 + begin.month - _START.month
        if month >= months:
            return car, life.rows
        wrong = sign * (begin >= fault.onset_at)
        if fault.is_reset and begin == fault.onset_at:
            state.charged_ah = state.discharged_ah = state.charged_kwh = 0.0
        offset = car.current_offset_a + wrong * fault.offset_a
        asymmetry = wrong * fault.asymmetry
        if rng.uniform() < 0.12:  # stands all day
            day += 1
            continue
        for hour in (7.5, 17.5):
            leave = _second(begin) + round((hour + rng.uniform(-0.5, 0.8)) * 3600)
            if leave - state.at_s < 900:
                continue
            rest(car, state, leave, _mild)
            taken = min(
                usual_ah / 2 * use[month] * rng.uniform(0.4, 1.6), max((state.soc - 0.06) * state.capacity_ah, 0.0)
            )
            life.awake(use[month] * rng.uniform(0.5, 0.9), taken * 1.22, taken * 0.22, offset, asymmetry)
        if 100 * state.soc < car.charge_below_pct:
            plug = state.at_s + round(rng.uniform(0.3, 2.5) * 3600)
            rest(car, state, plug, _mild)
            need = max(car.charge_to_pct / 100 - state.soc, 0.01) * state.capacity_ah
            is_dc = rng.uniform() < car.dc_share
            amps = 1000 * (0.6 * car.pack.dc_kw if is_dc else car.pack.ac_kw) / volts
            life.awake(need / amps + 0.3, 0.0, need, offset, asymmetry)
        day += 1


def audit(cars: dict[str, tuple[int, Fault]], months: int, seed: int, home: Path) -> pl.DataFrame:
    """Rows of `fct_counter_audit_monthly` for cars of these names, each an index and its fault."""
    frames, devices = [], []
    for name, (index, fault) in cars.items():
        car, rows = drive_months(index, months, seed, fault)
        frames.append(pl.DataFrame(rows, infer_schema_length=None).with_columns(device_no=pl.lit(name)))
        devices.append((name, car.pack.chemistry[:3], car.pack.cell_count, car.pack.capacity_ah))
    settings = Settings(home=home)
    warehouse = Warehouse.of(settings)
    with warehouse.open() as connection:
        periods = pl.concat(frames)  # noqa: F841  # DuckDB reads it by its name
        connection.execute("create schema if not exists intermediate")
        connection.execute("create or replace table intermediate.int_awake_period as select * from periods")
        for table in ("scope_device", "scope_partition", "device_setting"):
            connection.execute(f"delete from ops.{table}")
        connection.execute("insert into ops.scope_device select distinct device_no from periods")
        connection.executemany(
            "insert into ops.device_setting (device_no, chemistry, cell_count, capacity_nominal_ah) "
            "values (?, ?, ?, ?)",
            devices,
        )
    Dbt(settings, warehouse).run(["int_counter_life", "fct_counter_audit_monthly"])
    with warehouse.open() as connection:
        found = pl.from_arrow(
            connection.execute(
                "select * from marts.fct_counter_audit_monthly order by device_no, measured_month"
            ).to_arrow_table()
        )
    if not isinstance(found, pl.DataFrame):
        raise TypeError("a query gives a table")
    return found


_ONSET = 6
"""Months without the fault before it begins: what a car's counters were like is then known."""
_FAULTS = (
    ("3 % asymmetry", Fault("3 % asymmetry", asymmetry=0.03), 1),
    ("1 % asymmetry", Fault("1 % asymmetry", asymmetry=0.01), 6),
    ("0.3 A offset", Fault("0.3 A offset", offset_a=0.3), 2),
)
"""Fault, and the months within which it is to be found."""
_FOUND = 0.9
_Z99 = 2.576
"""Standard normal quantile of a two-sided 99 % interval: one false alarm in 100 is allowed."""


def counters_section(seed: int, healthy: int = 160, faulty: int = 40, months: int = 15) -> Section:
    """Rates of false alarms and detections, at the level of awake periods."""
    section = Section(
        "Counters audit",
        f"{healthy} cars without a fault and {faulty} for each fault, {months} months each, simulated at the level of "
        "awake periods and judged by the published model. A fault begins in the seventh month, or was always there.",
    )
    cars: dict[str, tuple[int, Fault]] = {}
    cases = [("healthy", Fault("healthy"))]
    cases += [
        (f"{name} from {start}", replace(fault, from_month=start))
        for name, fault, _ in _FAULTS
        for start in (_ONSET, 0)
    ]
    for name, fault in cases:
        for number in range(healthy if name == "healthy" else faulty):
            cars[f"{name}|{number:04d}"] = (len(cars), fault)
    with tempfile.TemporaryDirectory(prefix="counters-") as folder:
        found = audit(cars, months, seed, Path(folder))
    found = found.with_columns(
        pl.col("device_no").str.replace(r"\|.*", "").alias("case"),
        (pl.col("measured_month").rank("dense").over("device_no") - 1).alias("month"),
        (pl.col("verdict") == "drift").alias("is_drift"),
    )
    quiet = found.filter(pl.col("case") == "healthy")
    share, cars_flagged = (
        quiet.filter("is_drift").height / quiet.height,
        quiet.group_by("device_no").agg(pl.col("is_drift").mean()),
    )
    worse = cars_flagged.filter(pl.col("is_drift") > 0.01).height
    text = f"{100 * share:.2f} % of months, on {worse} of {cars_flagged.height} cars"
    section.figures.append(Figure("months of cars without fault that are flagged", "<= 1 %", text, share <= 0.01))
    for name, fault, within in _FAULTS:
        for start, words in ((_ONSET, "begins"), (0, "was always there")):
            mine = found.filter(pl.col("case") == f"{name} from {start}")
            hit = (
                mine.filter(pl.col("month").is_between(start, start + within - 1))
                .group_by("device_no")
                .agg(pl.col("is_drift").any())["is_drift"]
            )
            rate = hit.sum() / hit.len()
            section.figures.append(
                Figure(
                    f"{name} that {words}: found within {within} month{'s' if within > 1 else ''}",
                    f">= {_FOUND:.0%}",
                    f"{hit.sum()} of {hit.len()} ({100 * rate:.0f} %)",
                    rate >= _FOUND,
                )
            )
            if start == 0:
                offsets = {
                    device: _car(cars[device][0], months, seed).current_offset_a
                    for device in mine["device_no"].unique()
                }
                best = _best_share(fault, mine.filter(pl.col("month") < within), offsets)
                section.figures.append(
                    Figure(
                        f"{name} that {words}: as far off balance as not one healthy car in 100 is",
                        "",
                        f"{100 * best:.0f} % of cars: more cannot be found, were the balance known exactly",
                        None,
                    )
                )
    return section


def _best_share(fault: Fault, seen: pl.DataFrame, offsets: dict[str, float]) -> float:
    """Share of cars whose counters are further off balance than those of 99 % of healthy cars.

    The fault and the car's own offset add up, or cancel: a fault has either sign.
    """
    limit = _Z99 * ERRORS.current_offset_a
    per_car = seen.group_by("device_no").agg(pl.col("discharged_ah").sum(), pl.col("awake_h").sum())
    beyond: list[bool] = [
        abs(offsets[device] + sign * (fault.offset_a + fault.asymmetry * discharged_ah / awake_h)) > limit
        for device, discharged_ah, awake_h in per_car.iter_rows()
        for sign in (1, -1)
    ]
    return sum(beyond) / len(beyond)
