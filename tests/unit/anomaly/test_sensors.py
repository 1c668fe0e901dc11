"""Signals of odd cars: what a SoC may do without being a fault, lists that are padded, faults that come and go."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest

from baas_dagster.anomaly import sensors
from baas_dagster.anomaly.detector import Context
from baas_dagster.anomaly.rows import NO_VALUE, Car, Rows
from baas_dagster.anomaly.rules import RULES
from tests.unit.anomaly.test_signals import CAR, DAYS, DT, PER_DAY, day_rows, judged, rows

N = DAYS * PER_DAY
UNKNOWN = replace(CAR, capacity_nominal_ah=None)


def readings(given: Rows, code: str, car: Car = CAR) -> pl.DataFrame:
    """Readings of a code beyond their lines."""
    assert sensors.DETECTOR.windows is not None
    found = sensors.DETECTOR.readings(sensors.DETECTOR.windows(given, car, RULES), Context(car, RULES))
    return found.filter((pl.col("code") == code) & (pl.col("value") > 0))


def with_cells(given: Rows, cells: np.ndarray, **columns: Any) -> Rows:
    known = np.where(cells == NO_VALUE, 3_700, cells)
    figures = {"cell_min_mv": known.min(axis=1) * 1.0, "cell_max_mv": known.max(axis=1) * 1.0, **columns}
    return Rows(given.t_s, {**given.columns, **figures}, cells.astype(np.int16), given.module_temp_dc)


# --- SOC_JUMP ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("first_s", "last_s"), [(0, 40), (7_160, 7_200)])
def test_a_soc_of_0_at_either_end_of_a_session_is_no_value(first_s: int, last_s: int) -> None:
    given = rows()
    given.columns["soc_pct"][day_rows(first_s, last_s)] = 0.0
    assert judged(sensors.DETECTOR, given) == []


def test_a_car_that_runs_down_to_0_keeps_its_0() -> None:
    soc = np.clip(12 - np.arange(N) % PER_DAY * DT / 500, 0, None)
    assert [f for f in judged(sensors.DETECTOR, rows(soc_pct=soc)) if f[0] == "SOC_LOW"] == [("SOC_LOW", None, 2)]


@pytest.mark.parametrize(("messages", "is_found"), [(1, False), (3, True)])
def test_single_messages_that_are_off_are_noise_unless_they_repeat(messages: int, is_found: bool) -> None:
    given = rows()
    for i in range(messages):
        given.columns["soc_pct"][day_rows(4_000 + 400 * i, 4_000 + 400 * i + DT)] = 10.0
    assert (judged(sensors.DETECTOR, given) != []) == is_found


@pytest.mark.parametrize("dt", [2, 20, 60])
@pytest.mark.parametrize(("by", "is_found"), [(2, False), (6.5, True), (-6.5, True)])
def test_a_step_that_stays_is_as_large_as_it_is(dt: int, by: float, is_found: bool) -> None:
    given = rows(dt=dt)
    given.columns["soc_pct"][day_rows(4_000, 7_200, days=3, dt=dt)] += by
    found = readings(given, "SOC_JUMP")
    assert len(found) == (3 if is_found else 0)
    assert all(abs(value - abs(by)) < 1 for value in found["value"])


@pytest.mark.parametrize("car", [CAR, UNKNOWN])
@pytest.mark.parametrize("has_counters", [True, False])
def test_fast_charging_at_one_message_a_minute_explains_its_own_steps(car: Car, has_counters: bool) -> None:
    # 340 A into 100 Ah that are really 90: 6.3 points a minute, in whole points
    at = np.tile(np.arange(120), DAYS)
    moved_ah = np.minimum(340 / 60 * at, 70)
    amps = np.where(moved_ah < 70, 340.0, 0.0)
    given = rows(
        dt=60, soc_pct=np.floor(15 + moved_ah / 0.9), pack_current_a=amps, speed_kmh=0 * amps,
        charged_total_ah=np.floor(10 * moved_ah) / 10 if has_counters else np.full(len(at), np.nan),
        discharged_total_ah=0 * amps if has_counters else np.full(len(at), np.nan),
    )  # fmt: skip
    assert readings(given, "SOC_JUMP", car).is_empty()


def test_a_step_over_a_quarter_of_an_hour_is_judged_where_the_counters_tell_what_flowed() -> None:
    given = rows(charged_total_ah=np.zeros(N), discharged_total_ah=np.tile(np.arange(PER_DAY) * DT / 360, DAYS))
    keep = np.ones(N, dtype=bool)
    keep[day_rows(4_000, 4_900)] = False
    cut = Rows(given.t_s[keep], {k: v[keep] for k, v in given.columns.items()})
    assert readings(cut, "SOC_JUMP").is_empty()
    stepped = Rows(cut.t_s, {**cut.columns, "soc_pct": cut["soc_pct"] - 8 * (cut.t_s % 86_400 >= 8 * 3_600 + 4_900)})
    assert len(readings(stepped, "SOC_JUMP")) == DAYS
    without = {k: v for k, v in stepped.columns.items() if not k.endswith("_total_ah")}
    assert readings(Rows(cut.t_s, without), "SOC_JUMP").is_empty()


def test_what_the_bms_corrects_over_a_night_is_no_jump() -> None:
    soc = 80 - np.arange(N) % PER_DAY * DT / 360 + 8 * (np.arange(N) // PER_DAY % 2)
    assert readings(rows(soc_pct=soc), "SOC_JUMP").is_empty()


def test_a_charge_that_ends_may_be_led_to_full_with_its_last_message() -> None:
    charging = np.arange(N) % PER_DAY < 200
    given = rows(
        soc_pct=np.where(charging, 96.0, 100.0), pack_current_a=np.where(charging, 5.0, 0.0), speed_kmh=np.zeros(N)
    )
    assert readings(given, "SOC_JUMP").is_empty()


def test_counters_that_start_anew_make_no_step_larger() -> None:
    begins = 3 * PER_DAY + 200
    given = rows(charged_total_ah=np.where(np.arange(N) < begins, 9_000.0, 0.0), discharged_total_ah=np.zeros(N))
    given.columns["soc_pct"][begins : 4 * PER_DAY] -= 4
    assert readings(given, "SOC_JUMP")["value"].to_list() == [pytest.approx(4, abs=0.5)]


# --- FAULT_OR_SENSOR --------------------------------------------------------------------------------------------------
def test_zeros_that_pad_the_list_of_cells_are_no_dead_cells() -> None:
    cells = np.full((N, 6), 3_700)
    cells[:, 4:] = 0
    assert judged(sensors.DETECTOR, with_cells(rows(), cells)) == []


def test_a_dead_cell_is_named_in_a_padded_list_too() -> None:
    cells = np.full((N, 6), 3_700)
    cells[:, 4:] = 0
    cells[400:430, 1] = 1_200
    found = readings(with_cells(rows(), cells), "FAULT_OR_SENSOR")
    assert [pl.Series([d]).str.json_path_match("$.cell_no")[0] for d in found["detail"]] == ["2"]


def test_all_cells_that_are_beyond_are_counted() -> None:
    cells = np.full((N, 4), 3_700)
    cells[400:430, 1], cells[400:430, 2] = 1_200, 1_300
    detail = readings(with_cells(rows(), cells), "FAULT_OR_SENSOR")["detail"][0]
    assert '"beyond": [2, 3], "beyond_n": 2' in detail
    assert '"cell_no": 2' in detail


@pytest.mark.parametrize(("share", "is_found"), [(200, False), (5, True)])
def test_a_cell_that_comes_and_goes_all_day_is_a_fault_and_one_garbled_message_in_200_is_none(
    share: int, is_found: bool
) -> None:
    cells = np.full((N, 4), 3_700)
    cells[::share, 1] = 300
    assert (judged(sensors.DETECTOR, with_cells(rows(), cells)) != []) == is_found


def test_cells_too_high_for_their_list_are_a_fault_when_they_last() -> None:
    unfit = np.zeros(N)
    unfit[400:430] = 1.0
    cells = np.full((N, 4), 3_700)
    cells[400:430, 1] = NO_VALUE
    given = with_cells(rows(), cells, cell_unfit_n=unfit)
    assert judged(sensors.DETECTOR, given) == [("FAULT_OR_SENSOR", None, 3)]


@pytest.mark.parametrize("dt", [2, 10, 30])
@pytest.mark.parametrize(("seconds", "is_found"), [(0, False), (90, True)])
@pytest.mark.parametrize("reads_dc", [970, -450])
def test_a_module_beyond_any_temperature_for_a_minute_and_not_for_a_message(
    dt: int, seconds: int, is_found: bool, reads_dc: int
) -> None:
    given = rows(dt=dt)
    assert given.module_temp_dc is not None
    given.module_temp_dc[400 : 401 + seconds // dt, 4] = reads_dc
    assert (judged(sensors.DETECTOR, given) != []) == is_found


def test_padding_beyond_any_temperature_is_no_module() -> None:
    given = rows()
    assert given.module_temp_dc is not None
    given.module_temp_dc[:, 5] = 1_270
    assert judged(sensors.DETECTOR, given) == []


def test_two_things_on_one_day_are_two_readings() -> None:
    given = rows(pack_current_a=np.where(np.arange(N) // 20 == 30, 900.0, -20.0))
    assert given.module_temp_dc is not None
    given.module_temp_dc[600:620, 4] = 970
    found = readings(given, "FAULT_OR_SENSOR")
    assert sorted(pl.Series(found["detail"]).str.json_path_match("$.what")) == ["current beyond", "module above"]
