"""Temperatures of odd cars: lists that are mostly padding, short logs, sensors of steps of 1 K, real heat."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from baas_dagster.anomaly import temperature
from baas_dagster.anomaly.detector import Context
from baas_dagster.anomaly.rows import Rows
from baas_dagster.anomaly.rules import RULES
from tests.unit.anomaly.test_signals import CAR, DAYS, day_rows, judged, rows


def seen(given: Rows) -> pl.DataFrame:
    assert temperature.DETECTOR.windows is not None
    return temperature.DETECTOR.windows(given, CAR, RULES)


def padded(given: Rows, n: int, value_dc: int) -> Rows:
    assert given.module_temp_dc is not None
    pads = np.full((len(given), n), value_dc, np.int16)
    return Rows(given.t_s, given.columns, None, np.concatenate([given.module_temp_dc, pads], axis=1))


@pytest.mark.parametrize(("pads", "value_dc"), [(2, 210), (12, 210), (12, 600), (12, 1000)])
def test_padding_of_any_number_and_value_is_no_module(pads: int, value_dc: int) -> None:
    assert judged(temperature.DETECTOR, padded(rows(), pads, value_dc)) == []


@pytest.mark.parametrize(("pads", "value_dc", "glitch_dc"), [(12, 0, 450), (2, 210, 990), (12, 600, 0)])
def test_padding_that_glitches_is_still_no_module(pads: int, value_dc: int, glitch_dc: int) -> None:
    given = padded(rows(), pads, value_dc)
    assert given.module_temp_dc is not None
    given.module_temp_dc[day_rows(3600, 3660)[:1], -pads:] = glitch_dc
    assert judged(temperature.DETECTOR, given) == []


@pytest.mark.parametrize("pads", [0, 12])
def test_a_warm_module_is_found_whatever_pads_the_list(pads: int) -> None:
    given = rows()
    assert given.module_temp_dc is not None
    given.module_temp_dc[day_rows(3600, 7200), 2] += 120
    found = judged(temperature.DETECTOR, padded(given, pads, 210))
    assert [f for f in found if f[0] == "TEMP_SPREAD"] == [("TEMP_SPREAD", 3, 2)]


def test_a_month_too_short_to_tell_padding_is_not_compared_with_it() -> None:
    long, context = padded(rows(), 12, 210), Context(CAR, RULES)
    day = rows(days=1)
    assert day.module_temp_dc is not None
    # a quarter of an hour, in which no sensor moves
    few = Rows(
        day.t_s[:40] + 40 * 86_400.0,
        {k: v[:40] for k, v in day.columns.items()},
        None,
        day.module_temp_dc[:1].repeat(40, 0),
    )
    parts = [seen(part) for part in (long, padded(few, 12, 210))]
    found = temperature.DETECTOR.readings(parts[0].vstack(parts[1]), context)
    assert found.filter(found["code"] == "TEMP_SPREAD").is_empty()


def test_one_module_that_heats_up_alone_makes_no_padding_of_the_others() -> None:
    given = rows()
    assert given.module_temp_dc is not None
    given.module_temp_dc[:] = 250
    given.module_temp_dc[day_rows(3600, 7200), 2] = 420
    found = judged(temperature.DETECTOR, given)
    assert [f for f in found if f[0] == "TEMP_SPREAD"] == [("TEMP_SPREAD", 3, 3)]


def test_a_sensor_that_sticks_for_a_whole_month_is_a_fault_when_it_moved_before() -> None:
    before, after = rows(), rows()
    assert after.module_temp_dc is not None
    after.module_temp_dc[:, 3] = 130
    later = Rows(after.t_s + 31 * 86_400.0, after.columns, None, after.module_temp_dc)
    parts = [seen(part) for part in (before, later)]
    found = temperature.DETECTOR.readings(parts[0].vstack(parts[1]), Context(CAR, RULES))
    stuck = found.filter((found["code"] == "TEMP_SENSOR") & (found["value"] > 0))
    assert set(stuck["item_no"]) == {4}
    assert len(stuck) >= DAYS - 1


def test_fewer_than_three_modules_are_not_compared_and_it_is_said() -> None:
    given = rows()
    assert given.module_temp_dc is not None
    two = padded(Rows(given.t_s, given.columns, None, given.module_temp_dc[:, :2]), 12, 210)
    windows = seen(two)
    assert set(temperature.DETECTOR.unjudged(windows, Context(CAR, RULES))) == {
        "TEMP_SPREAD",
        "TEMP_RISE",
        "TEMP_SENSOR",
    }
    assert judged(temperature.DETECTOR, two) == []


@pytest.mark.parametrize("dt", [2, 10, 30, 60])
def test_a_rise_of_the_reference_size_is_always_watched_and_none_of_a_healthy_car_is(dt: int) -> None:
    rng = np.random.default_rng(dt)
    t_s = np.arange(0, 3_600, dt) + 0.0
    line = RULES.temperature.rise_lines_k_per_min[0]
    assert line is not None
    for _ in range(20):
        smooth = (
            20 + t_s[:, None] / 900 + np.sort(rng.uniform(-0.8, 1.6, 12))
            + 0.004 * np.abs(rng.normal(0, 100, len(t_s)))[:, None] * np.linspace(0, 1, 12)
        )  # fmt: skip
        module, minutes = int(rng.integers(12)), np.clip((t_s - 1_500 - rng.uniform(0, 60)) / 60, 0, 3)
        for size, is_found in ((0.0, False), (3.0, True)):
            temps = smooth.copy()
            temps[:, module] += size * minutes
            found = seen(Rows(t_s, {}, None, (10 * np.round(temps)).astype(np.int16)))
            rise = found.filter(found["kind"] == "rise")["values"].to_list()[0][module]
            assert (rise >= line) == is_found


def test_heat_that_goes_on_is_a_rise_and_no_jump_of_its_sensor() -> None:
    given = rows(dt=60)
    assert given.module_temp_dc is not None
    minutes = np.clip((np.arange(120) * 60 - 3_620) / 60, 0, 3)
    for day in (2, 4):
        given.module_temp_dc[day * 120 : (day + 1) * 120, 1] += (10 * np.round(12 * minutes)).astype(np.int16)
    codes = {f[0] for f in judged(temperature.DETECTOR, given)}
    assert "TEMP_RISE" in codes
    assert "TEMP_SENSOR" not in codes


@pytest.mark.parametrize("dt", [2, 30, 60])
def test_a_sensor_that_jumps_in_single_rows_is_one(dt: int) -> None:
    given = rows(dt=dt)
    assert given.module_temp_dc is not None
    per_day = 7_200 // dt
    for day in (1, 3, 5):
        given.module_temp_dc[day * per_day + per_day // 2, 4] += 150
    assert judged(temperature.DETECTOR, given) == [("TEMP_SENSOR", 5, 1)]
