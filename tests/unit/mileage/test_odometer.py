"""Each rule of DOMAIN 4 on a log built in code."""

from __future__ import annotations

from datetime import date, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from baas_dagster.mileage import Stitched, stitch
from tests.unit.mileage.logbook import DEVICE, RULES, Log, commute, drive, pieces

MONDAY = datetime(2023, 1, 30)


def stitched(log: Log, **options: object) -> Stitched:
    return stitch(*pieces(log), RULES, **options)  # type: ignore[arg-type]  # options are stitch's own


def kilometres(found: Stitched, column: str = "km") -> float:
    return float(found.segments.filter(pl.col("source") == "odometer")[column].sum())


def codes(found: Stitched) -> list[tuple[str, str]]:
    return [(row["code"], row["action"]) for row in found.events.iter_rows(named=True)]


def on_day(found: Stitched, day: date) -> float:
    """Kilometres of the odometer on a day, segments cut at midnight by time."""
    begin = datetime(day.year, day.month, day.day)
    end = begin + timedelta(days=1)
    total = 0.0
    for row in found.segments.filter(pl.col("source") == "odometer").iter_rows(named=True):
        duration = (row["to_at"] - row["from_at"]).total_seconds()
        inside = (min(row["to_at"], end) - max(row["from_at"], begin)).total_seconds()
        if duration == 0:
            total += row["km"] if begin <= row["from_at"] < end else 0.0
        elif inside > 0:
            total += row["km"] * inside / duration
    return total


def test_a_clean_log_has_its_kilometres_and_no_event() -> None:
    log = commute(MONDAY, 4)
    found = stitched(log)
    assert codes(found) == []
    assert kilometres(found) == pytest.approx(log.shown_km[-1] - log.shown_km[0], abs=1e-6)


def test_kilometres_of_an_odometer_with_whole_kilometres_need_no_event() -> None:
    log = commute(MONDAY, 4, resolution_km=1.0)
    found = stitched(log)
    assert codes(found) == []
    assert kilometres(found) == pytest.approx(log.driven_km, abs=1)


def test_a_stretch_of_zeros_is_one_event_and_loses_no_kilometre() -> None:
    log = commute(MONDAY, 1)
    shown = log.shown_km.copy()
    shown[30:60] = 0
    found = stitched(Log(**{**vars(log), "shown_km": shown}))
    assert codes(found) == [("ODO_ZERO", "counted")]
    assert found.events["row_count"].to_list() == [30]
    assert kilometres(found) == pytest.approx(log.shown_km[-1] - log.shown_km[0], abs=1e-6)


def test_zeros_over_the_edge_of_a_month_are_one_event() -> None:
    log = drive([(datetime(2023, 1, 31, 23, 40), 40)], idle_min=0)
    edge = log.row_at(datetime(2023, 2, 1))
    shown = log.shown_km.copy()
    shown[edge - 5 : edge + 7] = 0
    found = stitched(Log(**{**vars(log), "shown_km": shown}))
    assert codes(found) == [("ODO_ZERO", "counted")]
    assert found.events["row_count"].to_list() == [12]
    assert kilometres(found) == pytest.approx(log.shown_km[-1] - log.shown_km[0], abs=1e-6)


def test_zeros_at_both_ends_of_the_history_keep_the_kilometres_of_the_speed() -> None:
    log = commute(MONDAY, 1)
    shown = log.shown_km.copy()
    shown[:60] = 0
    shown[-60:] = 0
    found = stitched(Log(**{**vars(log), "shown_km": shown}))
    assert codes(found) == [("ODO_ZERO", "counted")] * 2
    assert kilometres(found) == pytest.approx(log.driven_km, abs=0.3)
    assert kilometres(found, "repaired_km") > 10


@pytest.mark.parametrize("rows", [1, 4, 40])
def test_a_stale_value_that_comes_back_is_removed(rows: int) -> None:
    log = commute(MONDAY, 2)
    shown = log.shown_km.copy()
    shown[100 : 100 + rows] = shown[100] - 17.3
    found = stitched(log.showing(shown))
    assert codes(found) == [("ODO_STALE", "removed")]
    assert found.events["row_count"].to_list() == [rows]
    assert found.events["distance_km"].to_list() == [pytest.approx(17.3, abs=0.5)]
    assert kilometres(found) == pytest.approx(log.shown_km[-1] - log.shown_km[0], abs=1e-6)


def test_a_stale_value_before_a_silence_is_removed_when_the_level_comes_back() -> None:
    log = commute(MONDAY, 2)
    last = log.row_at(MONDAY.replace(hour=12)) - 1
    shown = log.shown_km.copy()
    shown[last - 2 : last + 1] -= 20
    found = stitched(log.showing(shown))
    assert codes(found) == [("ODO_STALE", "removed")]
    assert kilometres(found) == pytest.approx(log.shown_km[-1] - log.shown_km[0], abs=1e-6)


def test_the_same_stale_value_twelve_times_is_twelve_events() -> None:
    log = commute(MONDAY, 2)
    shown = log.shown_km.copy()
    for row in range(200, 440, 20):
        shown[row : row + 3] = log.shown_km[0]
    found = stitched(log.showing(shown))
    assert codes(found) == [("ODO_STALE", "removed")] * 12
    assert kilometres(found) == pytest.approx(log.shown_km[-1] - log.shown_km[0], abs=1e-6)


def test_a_small_fall_that_stays_is_counted_and_no_distance() -> None:
    log = commute(MONDAY, 2)
    standing = log.row_at(MONDAY.replace(hour=18)) + 4
    shown = log.shown_km.copy()
    shown[standing:] -= 0.4
    found = stitched(log.showing(shown))
    assert codes(found) == [("ODO_SMALL_FALL", "counted")]
    assert kilometres(found) == pytest.approx(log.driven_km, abs=0.2)
    assert kilometres(found, "uncertain_km") == pytest.approx(0.4)


def test_a_rollback_stays_and_takes_no_kilometre_away() -> None:
    log = commute(MONDAY, 3)
    shown = log.shown_km.copy()
    shown[300:] -= 60
    found = stitched(log.showing(shown))
    assert codes(found) == [("ODO_ROLLBACK", "excluded")]
    assert found.events["from_km"][0] - found.events["to_km"][0] == pytest.approx(60, abs=0.5)
    assert kilometres(found) == pytest.approx(log.driven_km, abs=0.5)


def test_a_level_that_is_reached_again_by_driving_is_still_a_rollback() -> None:
    log = commute(MONDAY, 3)
    shown = log.shown_km.copy()
    shown[100:] -= 5
    found = stitched(log.showing(shown))
    assert codes(found) == [("ODO_ROLLBACK", "excluded")]
    assert kilometres(found) == pytest.approx(log.driven_km, abs=0.5)


@pytest.mark.parametrize("rows", [1, 3, 60])
def test_a_glitch_upwards_is_removed(rows: int) -> None:
    log = commute(MONDAY, 2)
    shown = log.shown_km.copy()
    shown[100 : 100 + rows] += 3_000
    found = stitched(log.showing(shown))
    assert codes(found) == [("ODO_JUMP", "removed")]
    assert kilometres(found) == pytest.approx(log.shown_km[-1] - log.shown_km[0], abs=1e-6)


def test_a_jump_that_stays_is_no_distance() -> None:
    log = commute(MONDAY, 2)
    shown = log.shown_km.copy()
    shown[100:] += 250
    found = stitched(log.showing(shown))
    assert codes(found) == [("ODO_JUMP", "excluded")]
    assert kilometres(found) == pytest.approx(log.driven_km, abs=0.5)
    assert 0 < kilometres(found, "uncertain_km") < 1


def test_a_rollback_and_a_later_jump_are_two_events() -> None:
    log = commute(MONDAY, 6)
    shown = log.shown_km.copy()
    shown[200:] -= 60
    shown[900:] += 400
    found = stitched(log.showing(shown))
    assert codes(found) == [("ODO_ROLLBACK", "excluded"), ("ODO_JUMP", "excluded")]
    assert kilometres(found) == pytest.approx(log.driven_km, abs=1)


def test_kilometres_over_a_silence_are_a_gap_and_no_jump() -> None:
    log = drive([(MONDAY.replace(hour=8), 40), (MONDAY.replace(hour=10), 90), (MONDAY.replace(hour=14), 40)])
    first, after = log.row_at(MONDAY.replace(hour=9)), log.row_at(MONDAY.replace(hour=13))
    found = stitched(log.without(slice(first, after)))
    assert codes(found) == [("ODO_GAP", "unlogged")]
    assert found.events["distance_km"][0] == pytest.approx(kilometres(found, "unlogged_km"))
    assert kilometres(found) == pytest.approx(log.driven_km, abs=0.2)
    assert kilometres(found, "unlogged_km") > 60


def test_more_kilometres_than_a_silence_has_time_for_are_a_jump() -> None:
    log = drive([(MONDAY.replace(hour=8), 40), (MONDAY.replace(hour=9), 40)])
    shown = log.shown_km.copy()
    shown[log.row_at(MONDAY.replace(hour=8, minute=55)) :] += 500
    found = stitched(log.showing(shown))
    assert codes(found) == [("ODO_JUMP", "excluded")]


def test_a_frozen_odometer_that_catches_up_loses_nothing() -> None:
    log = commute(MONDAY, 2)
    shown = log.shown_km.copy()
    shown[40:100] = shown[40]
    found = stitched(log.showing(shown))
    assert codes(found) == [("ODO_FROZEN", "spread")]
    assert found.events["distance_km"][0] > RULES.odometer_frozen_km
    assert kilometres(found) == pytest.approx(log.shown_km[-1] - log.shown_km[0], abs=1e-6)
    assert kilometres(found, "repaired_km") == 0


def test_a_frozen_odometer_that_never_catches_up_is_repaired_by_the_speed() -> None:
    log = commute(MONDAY, 2)
    shown = log.shown_km.copy()
    lost = shown[100] - shown[40]
    shown[40:100] = shown[40]
    shown[100:] -= lost
    found = stitched(log.showing(shown))
    assert codes(found) == [("ODO_FROZEN", "repaired")]
    assert kilometres(found) == pytest.approx(log.driven_km, abs=0.03 * lost + 0.2)
    assert kilometres(found, "repaired_km") == pytest.approx(lost, abs=0.03 * lost + 0.2)


def test_a_freeze_over_days_and_a_month_edge_is_one_event_and_each_day_keeps_its_kilometres() -> None:
    log = commute(datetime(2023, 1, 30), 4)
    first, after = log.row_at(datetime(2023, 1, 31)), log.row_at(datetime(2023, 2, 2))
    shown = log.shown_km.copy()
    shown[first:after] = shown[first - 1]
    found = stitched(log.showing(shown))
    assert codes(found) == [("ODO_FROZEN", "spread")]
    for day in (date(2023, 1, 31), date(2023, 2, 1)):
        rows = [row for row, at in enumerate(log.at) if at.date() == day]
        assert on_day(found, day) == pytest.approx(log.true_km[rows[-1]] - log.true_km[rows[0]], rel=0.02)


def test_a_short_standstill_is_no_freeze() -> None:
    log = commute(MONDAY, 1)
    shown = log.shown_km.copy()
    until = int(np.searchsorted(log.true_km, log.true_km[40] + 2.0))
    shown[40:until] = shown[40]
    assert codes(stitched(log.showing(shown))) == []


def test_a_fall_below_a_hundred_kilometres_is_a_reset() -> None:
    log = commute(MONDAY, 3)
    shown = log.shown_km.copy()
    shown[300:] -= shown[300] - 3.0
    found = stitched(log.showing(shown))
    assert codes(found) == [("ODO_RESET", "excluded")]
    assert kilometres(found) == pytest.approx(log.driven_km, abs=0.5)


def test_a_fall_with_counters_that_start_anew_is_a_reset() -> None:
    log = commute(MONDAY, 3)
    shown, counter = log.shown_km.copy(), log.counter_ah.copy()
    shown[300:] -= 1_000
    counter[300:] -= counter[300]
    found = stitched(Log(**{**vars(log.showing(shown)), "counter_ah": counter}))
    assert codes(found) == [("ODO_RESET", "excluded")]


def test_a_fall_with_another_number_of_cells_is_a_reset() -> None:
    log = commute(MONDAY, 3)
    shown, cells = log.shown_km.copy(), log.cells.copy()
    at = log.row_at(MONDAY + timedelta(days=1))
    shown[at:] -= 1_000
    cells[at:] = 180
    found = stitched(Log(**{**vars(log.showing(shown)), "cells": cells}))
    assert codes(found) == [("ODO_RESET", "excluded")]


def test_events_in_a_row_do_not_hide_each_other() -> None:
    log = commute(MONDAY, 6)
    shown = log.shown_km.copy()
    shown[100:104] -= 12
    shown[400:402] += 5_000
    shown[600:] += 90
    shown[800:] -= 0.5
    shown[1_100:] -= 40
    found = stitched(log.showing(shown))
    assert codes(found) == [
        ("ODO_STALE", "removed"),
        ("ODO_JUMP", "removed"),
        ("ODO_JUMP", "excluded"),
        ("ODO_SMALL_FALL", "counted"),
        ("ODO_ROLLBACK", "excluded"),
    ]
    assert kilometres(found) == pytest.approx(log.driven_km, abs=1.5)


def test_a_catch_up_does_not_explain_a_later_rollback() -> None:
    log = commute(MONDAY, 3)
    shown = log.shown_km.copy()
    frozen = shown[100] - shown[40]
    shown[40:100] = shown[40]
    shown[200:] -= frozen
    found = stitched(log.showing(shown))
    assert codes(found) == [("ODO_FROZEN", "spread"), ("ODO_ROLLBACK", "excluded")]


def test_a_gated_month_is_a_silence_to_its_neighbours() -> None:
    log = commute(datetime(2023, 1, 30), 32)
    found = stitched(log, gated_months=["2023-02"])
    assert kilometres(found) == pytest.approx(log.shown_km[-1] - log.shown_km[0], abs=1e-6)
    gaps = found.segments.filter(pl.col("kind") == "gap", pl.col("km") > 0)
    assert gaps["from_at"].dt.month().to_list() == [1]
    assert gaps["to_at"].dt.month().to_list() == [3]
    assert kilometres(found, "unlogged_km") == pytest.approx(float(gaps["km"].sum()))


def test_a_month_whose_readings_are_all_missing_is_bridged_by_the_readings_around_it() -> None:
    log = commute(datetime(2023, 1, 30), 31)
    shown = log.shown_km.copy()
    february = [row for row, at in enumerate(log.at) if at.month == 2]
    shown[february] = np.nan
    found = stitched(Log(**{**vars(log), "shown_km": shown}))
    assert kilometres(found) == pytest.approx(log.shown_km[-1] - log.shown_km[0], abs=1e-6)


def test_a_device_without_anything_has_neither_segments_nor_events() -> None:
    runs, days, gps_runs = pieces(commute(MONDAY, 1))
    found = stitch(runs.clear(), days.clear(), gps_runs, RULES)
    assert found.segments.is_empty()
    assert found.events.is_empty()


def test_pieces_of_two_devices_are_refused() -> None:
    runs, days, gps_runs = pieces(commute(MONDAY, 1))
    other = days.with_columns(device_no=pl.lit("01290001002"))
    with pytest.raises(ValueError, match="01290001001"):
        stitch(runs, other, gps_runs, RULES)


def test_results_name_their_device() -> None:
    found = stitched(commute(MONDAY, 1))
    assert set(found.segments["device_no"]) == {DEVICE}


def test_sixty_months_are_stitched_within_seconds() -> None:
    runs, days, gps_runs = pieces(commute(datetime(2023, 1, 1), 28, dt_s=60))
    months = [f"{2018 + m // 12}-{m % 12 + 1:02d}" for m in range(60)]
    first = runs["from_at"].min()
    assert isinstance(first, datetime)
    long_runs, long_days = [], []
    for number, month in enumerate(months):
        shift = datetime.strptime(month, "%Y-%m") - datetime(2023, 1, 1)
        km = pl.lit(2_500.0 * number)
        times = [pl.col(c) + shift for c in ("from_at", "to_at", "first_change_at", "last_change_at")]
        long_runs.append(
            runs.with_columns(*times, pl.col("from_km") + km, pl.col("to_km") + km, measured_month=pl.lit(month))
        )
        edges = [pl.col(c) + shift for c in ("first_at", "last_at", "service_date")]
        long_days.append(days.with_columns(*edges, measured_month=pl.lit(month)))
    began = datetime.now()
    stitch(pl.concat(long_runs), pl.concat(long_days), gps_runs, RULES)
    assert (datetime.now() - began).total_seconds() < 3  # 0.3 s on an idle core
