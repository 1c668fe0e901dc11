"""Insulation: what is not measured, what is only "at least", and a 0 that lasts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from baas_dagster.anomaly import insulation, sensors
from baas_dagster.anomaly.detector import Context
from baas_dagster.anomaly.episodes import episodes
from baas_dagster.anomaly.rows import Car, Rows
from baas_dagster.anomaly.rules import RULES
from tests.unit.anomaly.test_signals import CAR, DAYS, DT, PER_DAY, day_rows, judged, rows

VOLT = 360.3


def only(given: Rows, keep: np.ndarray) -> Rows:
    return Rows(given.t_s[keep], {name: values[keep] for name, values in given.columns.items()})


def read_as(car: Car, given: Rows) -> tuple[pl.DataFrame, dict[str, str]]:
    """Readings of the insulation of a car, and what is said where there can be none."""
    assert insulation.DETECTOR.windows is not None
    windows, context = insulation.DETECTOR.windows(given, car, RULES), Context(car, RULES)
    return insulation.DETECTOR.readings(windows, context), insulation.DETECTOR.unjudged(windows, context)


def test_a_reading_is_the_lowest_resistance_that_lasted_over_the_voltage() -> None:
    given = rows(days=1)
    given.columns["insulation_kohm"][100:103] = 200.0
    given.columns["insulation_kohm"][200:201] = 5.0
    found, _ = read_as(CAR, given)
    assert found["value"].to_list() == [pytest.approx(1000 * 200 / VOLT, rel=0.01)]


@pytest.mark.parametrize("dt", [1, 2, 20, 60])
def test_a_self_test_that_reads_0_for_a_minute_is_no_low_resistance(dt: int) -> None:
    given = rows(dt=dt)
    given.columns["insulation_kohm"][day_rows(3_000, 3_090, dt=dt)] = 0.0
    assert judged(insulation.DETECTOR, given) == judged(sensors.DETECTOR, given) == []


def test_messages_of_0_in_between_do_not_hide_a_low_resistance() -> None:
    given = rows()
    kohm = given.columns["insulation_kohm"]
    kohm[2 * PER_DAY :] = np.where(np.arange(len(kohm) - 2 * PER_DAY) % 2, 0.0, 20.0)
    assert judged(insulation.DETECTOR, given) == [("INSULATION_LOW", None, 3)]


def test_a_quarter_of_an_hour_of_0_a_day_is_watched() -> None:
    given = rows()
    given.columns["insulation_kohm"][day_rows(3_000, 3_900)] = 0.0
    assert judged(insulation.DETECTOR, given) == [("INSULATION_LOW", None, 1)]
    assert judged(sensors.DETECTOR, given) == []


@pytest.mark.parametrize("dt", [2, 30, 60])
def test_an_hour_of_0_once_is_a_fault_or_a_sensor_at_once(dt: int) -> None:
    given = rows(dt=dt)
    given.columns["insulation_kohm"][day_rows(0, 3_600, days=1, dt=dt)] = 0.0
    assert judged(sensors.DETECTOR, given) == [("FAULT_OR_SENSOR", None, 3)]


def test_an_insulation_that_turns_0_is_found_in_a_car_that_is_never_awake_for_long() -> None:
    given = rows()
    given.columns["insulation_kohm"][3 * PER_DAY :] = 0.0
    short = only(given, np.arange(len(given)) % PER_DAY * DT < 900)
    assert judged(sensors.DETECTOR, short) == [("FAULT_OR_SENSOR", None, 3)]


def test_another_reading_in_between_ends_what_a_0_has_lasted() -> None:
    given = rows()
    given.columns["insulation_kohm"][day_rows(100, 900)] = 0.0
    short = only(given, np.arange(len(given)) % PER_DAY * DT < 1_000)
    assert judged(sensors.DETECTOR, short) == []


@pytest.mark.parametrize("cut", [DAYS * PER_DAY, 2 * PER_DAY + 30])
def test_a_channel_that_never_read_anything_but_0_is_no_fault_however_short_a_day(cut: int) -> None:
    zeros = rows(insulation_kohm=np.zeros(DAYS * PER_DAY))
    given = only(zeros, np.arange(len(zeros)) < cut)
    assert judged(sensors.DETECTOR, given) == judged(insulation.DETECTOR, given) == []
    assert "0 throughout" in read_as(CAR, given)[1]["INSULATION_LOW"]


def test_an_unsupported_channel_hides_no_other_fault() -> None:
    given = rows(insulation_kohm=np.zeros(DAYS * PER_DAY))
    given.columns["cell_min_mv"][400:430] = 1_200.0
    assert judged(sensors.DETECTOR, given) == [("FAULT_OR_SENSOR", None, 3)]


def test_a_reading_at_the_cap_is_never_low_and_a_cap_below_the_line_is_said() -> None:
    car = replace(CAR, insulation_cap_kohm=20.0)
    found, why = read_as(car, rows(insulation_kohm=np.full(DAYS * PER_DAY, 20.0)))
    assert found.is_empty()
    assert "end of scale, 20 kOhm" in why["INSULATION_LOW"]


def test_what_lies_below_a_low_cap_is_judged() -> None:
    car, kohm = replace(CAR, insulation_cap_kohm=150.0), np.full(DAYS * PER_DAY, 150.0)
    kohm[4 * PER_DAY :] = 20.0
    found, why = read_as(car, rows(insulation_kohm=kohm))
    assert [e["severity"] for e in episodes("x", found).to_dicts()] == [3]
    assert why == {}


def test_a_cap_above_the_line_gives_readings_so_that_episodes_close() -> None:
    found, why = read_as(replace(CAR, insulation_cap_kohm=3_000.0), rows())
    assert len(found) == DAYS
    assert why == {}


def test_a_voltage_that_does_not_fit_the_cells_makes_no_low_resistance() -> None:
    given = rows(is_pack_voltage_suspect=np.zeros(DAYS * PER_DAY))
    at = day_rows(4_000, 4_100)
    given.columns["pack_voltage_v"][at] = 8_000.0
    given.columns["is_pack_voltage_suspect"][at] = 1.0
    assert judged(insulation.DETECTOR, given) == []
