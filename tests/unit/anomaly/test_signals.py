"""Temperatures, insulation and signals: what lasts is found, what flickers, pads or is not there is not."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

from baas_dagster.anomaly import insulation, sensors, temperature
from baas_dagster.anomaly.detector import Context, Detector
from baas_dagster.anomaly.episodes import episodes
from baas_dagster.anomaly.rows import NO_VALUE, Car, Rows
from baas_dagster.anomaly.rules import RULES

CAR = Car("01290007003", "NMC622", "TYPE", 4, 6, None, 3000.0, 100.0)
DAYS, DT = 8, 20
PER_DAY = 2 * 3600 // DT


def rows(*, days: int = DAYS, dt: int = DT, **columns: Any) -> Rows:
    """Two hours a day from eight on: half an hour of rest, then a drive; six modules that warm by 8 K."""
    per_day = 2 * 3600 // dt
    second = np.tile(np.arange(per_day) * dt, days)
    t = np.repeat(np.arange(days) * 86_400.0 + 8 * 3600, per_day) + second
    driving = second >= 1800
    given = {
        "pack_voltage_v": 360 + (second // dt % 7) * 0.1,
        "pack_current_a": np.where(driving, -20.0 - second // dt % 5, 0.0),
        "speed_kmh": np.where(driving, 40.0 + second // dt % 9, 0.0),
        "soc_pct": 80 - second / 3600 * 10,
        "insulation_kohm": np.where(second < 40, 0.0, 3000.0),
        "cell_min_mv": np.full(len(t), 3700.0),
        "cell_max_mv": np.full(len(t), 3720.0),
    } | columns
    temps = (10 * np.round(10 + second[:, None] / 900 + np.arange(6) % 2)).astype(np.int16)
    return Rows(t, {k: np.asarray(v, dtype=float) for k, v in given.items()}, None, temps)


def judged(detector: Detector, given: Rows) -> list[tuple[Any, ...]]:
    assert detector.windows is not None
    context = Context(CAR, RULES)
    made = detector.windows(given, CAR, RULES)
    found = episodes(CAR.device_no, detector.readings(made, context))
    return found.select("code", pl.coalesce("cell_no", "module_no"), "severity").sort("code").rows()


def day_rows(first_s: int, last_s: int, days: int = DAYS, dt: int = DT) -> NDArray[np.int64]:
    """Row numbers between two seconds of every day's log."""
    per_day = 2 * 3600 // dt
    return np.concatenate([day * per_day + np.arange(first_s // dt, last_s // dt) for day in range(days)])


@pytest.mark.parametrize("detector", [temperature.DETECTOR, insulation.DETECTOR, sensors.DETECTOR])
@pytest.mark.parametrize("dt", [2, 20, 60])
def test_a_healthy_car_has_no_episode(detector: Detector, dt: int) -> None:
    assert judged(detector, rows(dt=dt)) == []


@pytest.mark.parametrize("dt", [2, 20, 60])
@pytest.mark.parametrize(("kelvin", "severity"), [(5, None), (8, 1), (12, 2), (16, 3)])
def test_a_module_that_is_warmer_under_load(dt: int, kelvin: int, severity: int | None) -> None:
    given = rows(dt=dt)
    assert given.module_temp_dc is not None
    given.module_temp_dc[day_rows(3600, 7200, dt=dt), 2] += 10 * kelvin
    found = [f for f in judged(temperature.DETECTOR, given) if f[0] == "TEMP_SPREAD"]
    assert found == ([] if severity is None else [("TEMP_SPREAD", 3, severity)])


def test_a_hot_pack_is_one_episode_of_its_hottest_module() -> None:
    given = rows()
    assert given.module_temp_dc is not None
    at = day_rows(3600, 4200)
    given.module_temp_dc[at] += 400
    given.module_temp_dc[at, 4] += 20
    found = [f for f in judged(temperature.DETECTOR, given) if f[0] == "TEMP_HIGH"]
    assert [f[:2] for f in found] == [("TEMP_HIGH", 5)]


@pytest.mark.parametrize("dt", [10, 30, 60])
def test_a_rise_of_three_kelvin_a_minute_is_found_and_a_single_step_is_not(dt: int) -> None:
    given = rows(dt=dt)
    assert given.module_temp_dc is not None
    per_day = 2 * 3600 // dt
    minutes = np.clip((np.arange(per_day) * dt - 3600) / 60, 0, 3)
    given.module_temp_dc[:per_day, 1] += (10 * np.round(3.2 * minutes)).astype(np.int16)
    assert ("TEMP_RISE", 2, 2) in judged(temperature.DETECTOR, given)
    step = rows(dt=dt)
    assert step.module_temp_dc is not None
    step.module_temp_dc[per_day // 2 : per_day, 1] += 70
    assert [f for f in judged(temperature.DETECTOR, step) if f[0] == "TEMP_RISE"] == []


def test_a_sensor_that_sticks_is_found_within_days_and_one_that_never_moved_is_absent() -> None:
    given = rows()
    assert given.module_temp_dc is not None
    given.module_temp_dc[3 * PER_DAY :, 3] = 130
    assert ("TEMP_SENSOR", 4, 1) in judged(temperature.DETECTOR, given)
    padded = rows()
    assert padded.module_temp_dc is not None
    padded.module_temp_dc[:, 3:] = 210
    assert judged(temperature.DETECTOR, padded) == []


@pytest.mark.parametrize(("ohm_per_v", "severity"), [(600, None), (300, 2), (75, 3)])
def test_insulation_below_its_lines(ohm_per_v: float, severity: int | None) -> None:
    given = rows()
    kohm = given.columns["insulation_kohm"]
    kohm[2 * PER_DAY :] = np.where(kohm[2 * PER_DAY :] > 0, ohm_per_v * 360 / 1000, 0)
    assert judged(insulation.DETECTOR, given) == ([] if severity is None else [("INSULATION_LOW", None, severity)])


def test_two_rows_of_low_insulation_are_noise_and_a_channel_of_zeros_is_not_judged() -> None:
    given = rows()
    given.columns["insulation_kohm"][day_rows(1000, 1000 + 2 * DT)] = 1.0
    given = Rows(np.arange(len(given)) * 6.0 + given.day * 86_400, given.columns, None, None)
    assert judged(insulation.DETECTOR, rows()) == []
    zeros = rows(insulation_kohm=np.zeros(DAYS * PER_DAY))
    assert judged(insulation.DETECTOR, zeros) == []
    assert insulation.DETECTOR.windows is not None
    windows = insulation.DETECTOR.windows(zeros, CAR, RULES)
    assert "INSULATION_LOW" in insulation.DETECTOR.unjudged(windows, Context(CAR, RULES))


def test_signals_that_stand_still_while_driving() -> None:
    given = rows()
    for day in range(2, DAYS):
        at = day * PER_DAY + np.arange(3600 // DT, 3900 // DT)
        given.columns["pack_voltage_v"][at] = 355.0
        given.columns["pack_current_a"][at] = -33.0
    assert judged(sensors.DETECTOR, given) == [("SENSOR_FROZEN", None, 1)]


def test_a_soc_that_jumps_without_charge_is_found_and_one_led_to_full_is_not() -> None:
    given = rows()
    for day in range(2, DAYS):
        given.columns["soc_pct"][day * PER_DAY + 4000 // DT : (day + 1) * PER_DAY] -= 6.5
    assert judged(sensors.DETECTOR, given) == [("SOC_JUMP", None, 2)]
    soc = np.where(np.arange(DAYS * PER_DAY) % PER_DAY < 100, 94.0, 100.0)
    full = rows(soc_pct=soc, pack_current_a=np.full(DAYS * PER_DAY, 5.0), speed_kmh=np.zeros(DAYS * PER_DAY))
    assert judged(sensors.DETECTOR, full) == []


def test_a_soc_of_zero_in_the_first_rows_is_no_value() -> None:
    given = rows()
    given.columns["soc_pct"][day_rows(0, 6 * DT)] = 0.0
    assert judged(sensors.DETECTOR, given) == []


def test_a_low_soc_is_watched_where_it_lasts() -> None:
    given = rows()
    given.columns["soc_pct"][day_rows(5000, 7200)] = 3.0
    assert [f for f in judged(sensors.DETECTOR, given) if f[0] == "SOC_LOW"] == [("SOC_LOW", None, 1)]


@pytest.mark.parametrize("n", [1, 3, 30])
def test_what_physics_does_not_allow_is_severity_three_when_it_lasts(n: int) -> None:
    given = rows()
    given.columns["cell_min_mv"][400 : 400 + n] = 1200.0
    cells = np.full((len(given), 4), 3700, np.int16)
    cells[400 : 400 + n, 2] = 1200
    with_cells = Rows(given.t_s, given.columns, cells, given.module_temp_dc)
    assert judged(sensors.DETECTOR, with_cells) == ([("FAULT_OR_SENSOR", None, 3)] if n == 30 else [])


def test_values_that_are_none_are_no_temperature() -> None:
    given = rows()
    assert given.module_temp_dc is not None
    given.module_temp_dc[:, 5] = NO_VALUE
    assert judged(temperature.DETECTOR, given) == []
