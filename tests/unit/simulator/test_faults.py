"""What faults do to a car's log, and that they do nothing to the others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from baas_dagster.simulator import STANDARD_FLEETS, FleetSpec, PlannedFault, custom_fleet
from baas_dagster.simulator.faults import CODES, Fault
from baas_dagster.simulator.fleet import draw_car, draw_fleet
from baas_dagster.simulator.life import CarLife
from baas_dagster.simulator.table import Choice, Lists, Table
from baas_dagster.simulator.truth import Truth
from tests.unit.simulator.conftest import Simulated
from tests.unit.simulator.test_deliveries import content_of

NIRO, EGMP = 4, 0  # 1 mV cells; 20 mV cells
PLAIN = custom_fleet(6, 3, 60.0, 2.0, quirks=False, plain_cars=True)


@dataclass(frozen=True)
class Log:
    """BMS rows of all months of a car, as numbers."""

    faults: tuple[Fault, ...]
    t: np.ndarray
    cells: np.ndarray
    temps: np.ndarray
    current: np.ndarray
    soc: np.ndarray
    table: Callable[[str], np.ndarray]
    is_charging: np.ndarray
    begun: np.ndarray
    state_soc: float

    def residual(self, cell_no: int | None) -> np.ndarray:
        assert cell_no is not None
        return self.cells[:, cell_no - 1] - np.median(self.cells, axis=1)


def numbers(table: Table, name: str) -> np.ndarray:
    column = table.columns[name]
    if isinstance(column, Lists):
        return column.values.astype(np.float64)
    if isinstance(column, Choice):
        return column.codes.astype(np.float64)
    return table.number(name) / 10.0 ** getattr(column, "decimals", 0)


@lru_cache(maxsize=16)
def lived(index: int, *faults: PlannedFault, oddity: str = "", months: int = 3, dt_s: float = 60.0) -> Log:
    spec = replace(PLAIN, faults=faults, oddities=((index, oddity),) if oddity else (), dt_s=dt_s)
    car = draw_car(spec, 3, index)
    life = CarLife(car, spec, 3, {}, Truth())
    tables = [table for month in range(months) if (table := life.live(month).bms) is not None]

    def column(name: str) -> np.ndarray:
        return np.concatenate([numbers(table, name) for table in tables])

    t = np.concatenate([table.seconds() for table in tables])
    current = column("pack_current")
    return Log(
        car.faults, t, column("cell_volt_list"), column("mod_temp_list"), current, column("soc"), column,
        (column("chrg_cable_conn") > 0) & (current > 3), t >= min((f.onset_s for f in car.faults), default=0),
        life.state.soc,
    )  # fmt: skip


def planned(index: int, code: str, strength: float = 1.0, variant: str = "") -> PlannedFault:
    variant = variant or {"COUNTER_DRIFT": "asymmetry", "FAULT_OR_SENSOR": "hot"}.get(code, "")
    return PlannedFault(index, code, strength, variant, days=(31.0, 32.0))


def runs(mask: np.ndarray, t: np.ndarray) -> list[float]:
    """Minutes of every run of rows (60 s apart)."""
    at = np.flatnonzero(mask)
    return [float(t[part[-1]] - t[part[0]]) / 60 for part in np.split(at, np.flatnonzero(np.diff(t[at]) > 90) + 1)]


@pytest.mark.parametrize("code", sorted(set(CODES) - {"SOH_FADE"}))  # which is there from the beginning on
def test_rows_before_the_onset_are_those_of_the_healthy_car_and_rows_after_are_not(code: str) -> None:
    healthy, sick = lived(NIRO), lived(NIRO, planned(NIRO, code, 2.0))
    (fault,) = sick.faults
    names = ("cell_volt_list", "mod_temp_list", "pack_current", "soc", "cumul_current_chrgd", "insul_resistance")
    assert not all(np.array_equal(healthy.table(name), sick.table(name)) for name in names)
    # one that changes how many rows its month has changes the noise of all of them: the month before is compared
    begun_s = 19_389 * 86_400 if code in ("DEVICE_SILENT", "SOC_LOW") else fault.onset_s
    n = int(np.searchsorted(healthy.t, begun_s))
    assert np.array_equal(healthy.t[:n], sick.t[:n])
    for name in (*names, "pack_volt"):
        assert np.array_equal(healthy.table(name)[:n], sick.table(name)[:n]), name


@pytest.mark.parametrize("strength", [1.0, 4.0])
def test_a_low_cell_is_low_by_its_size(strength: float) -> None:
    log = lived(NIRO, planned(NIRO, "CELL_OUTLIER", strength))
    (fault,) = log.faults
    rest = np.abs(log.current) < 2
    residual = log.residual(fault.cell_no)
    fall = residual[rest & log.begun].mean() - residual[rest & ~log.begun].mean()
    assert fall == pytest.approx(-25 * strength, abs=1.5)


def test_a_cell_of_less_capacity_is_with_the_others_when_full_and_low_by_its_size_at_half_charge() -> None:
    log = lived(NIRO, planned(NIRO, "CELL_OUTLIER", 2.0, "capacity"))
    residual = log.residual(log.faults[0].cell_no)
    rest = (np.abs(log.current) < 2) & log.begun
    before = residual[~log.begun & (np.abs(log.current) < 2)].mean()
    assert residual[rest & (log.soc > 97)].mean() - before == pytest.approx(0, abs=5)
    assert residual[rest & (np.abs(log.soc - 50) < 6)].mean() - before == pytest.approx(-50, abs=15)


def test_a_leaking_cell_falls_by_its_charge_through_the_cars_own_curve() -> None:
    fault = planned(NIRO, "CELL_SELF_DISCHARGE", 2.0)
    log, car = lived(NIRO, fault), draw_car(replace(PLAIN, faults=(fault,)), 3, NIRO)
    (leak,) = log.faults
    at = np.flatnonzero((np.abs(log.current) < 2) & (log.t > leak.onset_s + 20 * 86_400))[:200]
    before = log.residual(leak.cell_no)[(np.abs(log.current) < 2) & ~log.begun].mean()
    lost = 0.040 * (log.t[at] - leak.onset_s) / 3600 / car.capacity_ah(0)
    charge = np.interp(np.median(log.cells[at], axis=1) / 1000, car.ocv_curve_v, np.linspace(0, 1, 501))
    expected = 1000 * (car.ocv(charge - lost) - car.ocv(charge))
    assert expected.mean() < -60
    assert (log.residual(leak.cell_no)[at] - before).mean() == pytest.approx(expected.mean(), rel=0.1)


def test_balancing_at_full_charge_makes_good_a_part_of_a_leak() -> None:
    leak = lived(NIRO, planned(NIRO, "CELL_SELF_DISCHARGE", 2.0))
    balanced = lived(NIRO, planned(NIRO, "CELL_SELF_DISCHARGE", 2.0, "rebalanced"))
    late = leak.t > leak.faults[0].onset_s + 30 * 86_400
    cell_no = leak.faults[0].cell_no
    assert -5 > balanced.residual(cell_no)[late].mean() > 0.7 * leak.residual(cell_no)[late].mean()


def test_a_bad_joint_reads_high_on_charge_low_on_discharge_and_little_at_rest() -> None:
    log = lived(NIRO, planned(NIRO, "CELL_SPREAD", 2.0))
    residual = log.residual(log.faults[0].cell_no)
    slow = log.is_charging & (log.current < 25)
    assert residual[log.begun & slow].mean() == pytest.approx(200, rel=0.15)
    assert residual[log.begun & (log.current < -20)].mean() < -150
    assert abs(residual[log.begun & (np.abs(log.current) < 0.6)].mean()) < 30


@pytest.mark.parametrize(("code", "limit_mv"), [("CELL_OVERVOLT", 4_300), ("CELL_UNDERVOLT", 2_500)])
def test_a_cell_leaves_its_limits_for_some_minutes_at_a_time(code: str, limit_mv: int) -> None:
    log = lived(NIRO, planned(NIRO, code))
    cell = log.cells[:, (log.faults[0].cell_no or 0) - 1]
    out = cell > limit_mv if code == "CELL_OVERVOLT" else cell < limit_mv
    assert not out[~log.begun].any()
    assert len(runs(out, log.t)) >= 5
    assert 3 <= np.median(runs(out, log.t)) <= 15


def test_a_warm_module_is_warm_under_load_and_pack_voltage_stays_the_sum_of_the_cells() -> None:
    log = lived(EGMP, planned(EGMP, "TEMP_SPREAD", 2.0))
    module = log.temps[:, (log.faults[0].module_no or 0) - 1] - np.median(log.temps, axis=1)
    usual = module[~log.begun].mean()
    assert module[log.begun].max() - usual == pytest.approx(16, abs=1.5)
    since = np.concatenate([[0], np.diff(log.t)])
    assert abs(module[log.begun & (since > 7_200)].mean() - usual) < 3
    low = lived(NIRO, planned(NIRO, "CELL_OUTLIER", 4.0))
    difference = low.table("pack_volt") - low.cells.sum(axis=1) / 1000
    quiet = np.abs(low.current) < 2
    assert difference[quiet & low.begun].mean() == pytest.approx(difference[quiet & ~low.begun].mean(), abs=0.05)


def test_the_hottest_module_reaches_its_temperature_for_ten_minutes_and_does_not_leave_the_others_behind() -> None:
    log = lived(NIRO, planned(NIRO, "TEMP_HIGH", 2.0))
    module = log.temps[:, (log.faults[0].module_no or 0) - 1]
    hot = module >= 54.5
    assert not hot[~log.begun].any()
    assert len(runs(hot, log.t)) >= 5
    assert max(runs(hot, log.t)) == pytest.approx(10, abs=2)
    assert module.max() == 55
    assert (module - log.temps.min(axis=1)).max() < 8


def test_a_module_rises_by_its_rate_for_three_minutes() -> None:
    log = lived(NIRO, planned(NIRO, "TEMP_RISE", 2.0), dt_s=30.0)
    module = log.temps[:, (log.faults[0].module_no or 0) - 1] - np.median(log.temps, axis=1)
    step = np.diff(log.t)
    rise = np.array([module[i + 4] - module[i] for i in range(len(module) - 4) if step[i : i + 4].max() <= 31])
    assert rise.max() == pytest.approx(12, abs=1.1)  # in two minutes
    assert module.max() - np.median(module) == pytest.approx(18, abs=1.5)


def test_a_stuck_sensor_keeps_its_value_over_the_months_and_a_jumping_one_reads_more_now_and_then() -> None:
    stuck = lived(NIRO, planned(NIRO, "TEMP_SENSOR"))
    at = (stuck.faults[0].module_no or 0) - 1
    assert len(np.unique(stuck.temps[stuck.begun, at])) == 1
    assert np.ptp(np.delete(stuck.temps[stuck.begun], at, axis=1)) > 5
    jumping = lived(NIRO, planned(NIRO, "TEMP_SENSOR", variant="jump"))
    jumps = np.diff(jumping.temps[:, at]) >= 12
    assert 0.001 < jumps[jumping.begun[1:]].mean() < 0.01


@pytest.mark.parametrize("strength", [1.0, 4.0])
def test_insulation_follows_ohm_per_volt_and_wakes_up_with_zero(strength: float) -> None:
    log = lived(EGMP, planned(EGMP, "INSULATION_LOW", strength))
    kohm = log.table("insul_resistance")
    per_volt = 1000 * kohm / log.table("pack_volt")
    assert per_volt[log.begun & (kohm > 0)] == pytest.approx(300 / strength, rel=0.05)
    assert np.median(kohm[~log.begun]) == 1000
    assert (kohm[log.begun] == 0).any()


def test_charge_jumps_between_two_rows_without_current() -> None:
    log = lived(NIRO, planned(NIRO, "SOC_JUMP", 2.0))
    near = np.diff(log.t) <= 61
    jumps = np.abs(np.diff(log.soc))[near & log.begun[1:]]
    assert (np.abs(jumps[jumps > 5] - 12) <= 1.5).all()
    assert (jumps > 5).sum() >= 5
    assert np.abs(np.diff(log.soc))[near & ~log.begun[1:]].max() < 3


def test_a_pack_that_is_driven_empty_is_truly_empty() -> None:
    healthy, log = lived(EGMP), lived(EGMP, planned(EGMP, "SOC_LOW"))
    assert healthy.soc.min() > 10
    assert (log.soc[log.begun] < 8).sum() > 20
    assert log.cells[log.begun].min() < healthy.cells[healthy.t >= log.faults[0].onset_s].min()


def test_a_drifting_sensor_shows_in_current_counters_and_charge_alike() -> None:
    healthy, log = lived(EGMP), lived(EGMP, planned(EGMP, "COUNTER_DRIFT", 2.0, "asymmetry"))
    (fault,) = log.faults
    out = log.begun & (log.current < -10)
    assert np.array_equal(log.t, healthy.t)
    assert np.median(log.current[out] / healthy.current[out]) == pytest.approx(1 - 0.06 * fault.sign, abs=0.005)
    taken = [x.table("cumul_current_dischrgd") for x in (healthy, log)]
    since = [values[-1] - values[np.argmax(log.begun)] for values in taken]
    assert since[1] / since[0] == pytest.approx(1 - 0.06 * fault.sign, abs=0.01)
    offset = lived(EGMP, planned(EGMP, "COUNTER_DRIFT", 2.0, "offset"))
    difference = (offset.current - healthy.current)[offset.begun]
    assert difference == pytest.approx(0.6 * offset.faults[0].sign, abs=0.101)


def test_counters_start_anew_once_and_go_on() -> None:
    log = lived(NIRO, planned(NIRO, "COUNTER_RESET"))
    for name in ("cumul_current_chrgd", "cumul_pw_dischrgd", "op_time"):
        steps = np.diff(log.table(name))
        assert (steps < 0).sum() == 1, name
        assert log.t[int(np.argmin(steps)) + 1] >= log.faults[0].onset_s


def test_voltage_and_current_stand_still_while_the_car_drives() -> None:
    log = lived(NIRO, planned(NIRO, "SENSOR_FROZEN"))
    volt, speed = log.table("pack_volt"), log.table("emobility_spd")
    still = (np.diff(volt) == 0) & (np.diff(log.current) == 0) & (np.diff(log.t) <= 61) & (speed[1:] > 5)
    assert still[~log.begun[1:]].mean() < 0.01
    assert max(runs(still, log.t[1:])) == pytest.approx(4, abs=1.1)  # five minutes are four steps of a row a minute
    assert len([x for x in runs(still, log.t[1:]) if x >= 2]) >= 4


def test_a_silent_unit_logs_nothing_and_the_car_lives_on(tmp_path: Path) -> None:
    healthy, log = lived(NIRO), lived(NIRO, planned(NIRO, "DEVICE_SILENT"))
    assert not log.begun.any()
    assert log.t[-1] == healthy.t[healthy.t < log.faults[0].onset_s][-1]
    assert log.state_soc == healthy.state_soc


def test_faster_fade_is_in_the_true_capacity() -> None:
    spec = replace(PLAIN, faults=(PlannedFault(NIRO, "SOH_FADE", 2.0),))
    healthy, car = draw_car(PLAIN, 3, NIRO), draw_car(spec, 3, NIRO)
    lost = healthy.capacity_ah(1.0) - car.capacity_ah(1.0)
    assert lost == pytest.approx(0.08 * car.capacity_new_ah)
    assert healthy.capacity_ah(0.0) == car.capacity_ah(0.0)


@pytest.mark.parametrize("variant", ["hot", "cell", "insulation"])
def test_a_burning_car_shows_values_outside_of_physics_that_last(variant: str) -> None:
    log = lived(NIRO, planned(NIRO, "FAULT_OR_SENSOR", variant=variant))
    (fault,) = log.faults
    wrong = {
        "hot": log.temps[:, (fault.module_no or 0) - 1] > 90,
        "cell": log.cells[:, (fault.cell_no or 0) - 1] < 1_500,
        "insulation": (log.table("insul_resistance") == 0) & (np.concatenate([[9e9], np.diff(log.t)]) < 90),
    }[variant]
    assert max(runs(wrong, log.t)) >= {"hot": 4, "cell": 18, "insulation": 25}[variant]
    assert not wrong[~log.begun].any()
    assert log.t[wrong].max() < fault.onset_s + 16 * 86_400


def test_a_balancing_bms_moves_single_cells_by_a_few_millivolts_and_padding_and_rare_use_are_as_said() -> None:
    moved = lived(NIRO, oddity="rebalances").cells - lived(NIRO).cells
    assert 0.01 < (np.abs(moved[-1]) >= 2).mean() < 0.5
    assert np.abs(moved).max() <= 6
    assert (moved[:100] == 0).mean() > 0.9
    assert (lived(NIRO, oddity="padded").temps[:, -12:] == 0).all()
    days = np.unique(lived(NIRO, oddity="rarely").t // 86_400)
    assert 6 <= len(days) <= 18


def test_standard_fleets_have_the_faulty_cars_they_are_meant_to_have() -> None:
    cars = {name: [car for car in draw_fleet(spec, 1) if car.faults] for name, spec in STANDARD_FLEETS.items()}
    assert {name: len(found) for name, found in cars.items()} == {
        "tiny": 0, "demo": 2, "fine": 0, "coarse": 0, "faulty": 15, "year": 0,
    }  # fmt: skip
    assert all(car.has_bms for found in cars.values() for car in found)
    assert {fault.code for car in cars["faulty"] for fault in car.faults} == set(CODES)
    strengths = [fault.strength for car in cars["faulty"] for fault in car.faults if fault.strength]
    assert len([x for x in strengths if x >= 2]) == 11
    leaking, warm = cars["demo"]
    assert (leaking.faults[0].code, warm.faults[0].code) == ("CELL_SELF_DISCHARGE", "TEMP_SPREAD")
    assert all(fault.strength is not None and fault.strength >= 2 for car in (leaking, warm) for fault in car.faults)
    begin = np.datetime64("2023-01").astype("datetime64[s]").astype(int)
    onset = [f.onset_s - begin for car in cars["faulty"] for f in car.faults if f.code != "SOH_FADE"]
    assert 31 * 86_400 <= min(onset) <= max(onset) < 90 * 86_400


def test_faults_leave_the_files_of_healthy_cars_alone(
    tmp_path: Path, simulated: Callable[[FleetSpec, int], Simulated]
) -> None:
    spec = replace(STANDARD_FLEETS["demo"], months=2, dt_s=300.0)
    sick, _ = simulated(spec, 1)
    well, truth = simulated(replace(spec, faults=()), 1)
    first, second = content_of(sick), content_of(well)
    assert first.keys() == second.keys()
    changed = {name for name in first if first[name] != second[name]}
    named = {car.device_no for car in draw_fleet(spec, 1) if car.faults}
    assert changed
    assert all(any(d in name for d in named) or "fleet" in name or "delivery" in name for name in changed)
    assert truth["fault"].height == 0


def test_the_truth_names_every_fault(demo: Simulated) -> None:
    truth = demo[1]["fault"]
    assert truth.columns == [
        "device_no", "code", "variant", "cell_no", "module_no", "strength", "size", "unit", "onset_at", "ended_at",
    ]  # fmt: skip
    leak = truth.row(by_predicate=pl.col("code") == "CELL_SELF_DISCHARGE", named=True)
    assert (leak["strength"], leak["size"], leak["unit"], leak["ended_at"]) == (2.0, 40.0, "mA", None)
    assert leak["cell_no"] is not None
    assert leak["module_no"] is None


@pytest.mark.parametrize(
    ("code", "strength"), [("CELL_BURNT", 1.0), ("CELL_OUTLIER", 0.0), ("COUNTER_DRIFT", 1.0), ("TEMP_HIGH", -1.0)]
)
def test_a_fault_that_cannot_be_is_refused(code: str, strength: float) -> None:
    with pytest.raises((ValueError, KeyError)):
        PlannedFault(0, code, strength)
