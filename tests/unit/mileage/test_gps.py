"""The track: glitches of the receiver out, chords between what is left, kilometres between any two times."""

from __future__ import annotations

from datetime import datetime, timedelta
from math import cos, radians

import pytest

from baas_dagster.mileage.gps import EARTH_RADIUS_KM, GpsRun, Travelled, haversine_km, track
from tests.unit.mileage.logbook import RULES

START = datetime(2023, 1, 31, 8)
LAT, LNG = 37.5, 127.0
KM_PER_DEG = 111.195


def run(minute: float, minutes: float, from_km: float, to_km: float, *, after_jump: bool = False) -> GpsRun:
    """A run on a road to the north: place in km along it."""
    return GpsRun(
        from_at=START + timedelta(minutes=minute),
        to_at=START + timedelta(minutes=minute + minutes),
        is_after_jump=after_jump,
        from_lat=LAT + from_km / KM_PER_DEG,
        from_lng=LNG,
        to_lat=LAT + to_km / KM_PER_DEG,
        to_lng=LNG,
        km=to_km - from_km,
    )


def elsewhere(minute: float, minutes: float) -> GpsRun:
    return run(minute, minutes, 0, 0, after_jump=True)._replace(from_lat=1.0, from_lng=1.0, to_lat=1.0, to_lng=1.0)


def kilometres(runs: list[GpsRun]) -> float:
    return sum(piece.km for piece in track(runs, RULES.gps))


def test_a_quarter_of_a_meridian_is_its_length() -> None:
    assert haversine_km(0, 10, 90, 10) == pytest.approx(EARTH_RADIUS_KM * 3.14159265 / 2)


def test_a_degree_of_longitude_shrinks_with_latitude() -> None:
    ratio = haversine_km(60, 10, 60, 10.01) / haversine_km(0, 10, 0, 10.01)
    assert ratio == pytest.approx(cos(radians(60)), rel=1e-6)


def test_runs_that_go_on_from_each_other_add_up() -> None:
    assert kilometres([run(0, 10, 0, 10), run(10, 10, 10, 20)]) == pytest.approx(20)


def test_a_glitch_of_one_fix_is_taken_out_and_its_way_bridged() -> None:
    runs = [run(0, 10, 0, 10), elsewhere(10.5, 0), run(11, 9, 11, 20, after_jump=True)]
    assert kilometres(runs) == pytest.approx(20, abs=0.01)


def test_a_glitch_of_many_fixes_is_taken_out() -> None:
    runs = [run(0, 10, 0, 10), elsewhere(11, 30), run(42, 10, 30, 40, after_jump=True)]
    assert kilometres(runs) == pytest.approx(40, abs=0.01)


def test_a_glitch_that_alternates_with_the_track_is_taken_out() -> None:
    runs = [run(0, 10, 0, 10)]
    for minute in range(11, 21, 2):
        runs += [elsewhere(minute, 0), run(minute + 1, 0, minute - 1, minute - 1, after_jump=True)]
    runs.append(run(21, 9, 20, 29))
    assert kilometres(runs) == pytest.approx(29, abs=0.1)


def test_a_glitch_before_a_silence_is_taken_out() -> None:
    near = elsewhere(10.2, 0)._replace(from_lat=LAT + 5, to_lat=LAT + 5, from_lng=LNG, to_lng=LNG)
    runs = [run(0, 10, 0, 10), near, run(900, 10, 10, 20)]
    assert kilometres(runs) == pytest.approx(20, abs=0.01)


def test_a_position_that_moved_for_good_adds_no_kilometre() -> None:
    moved = run(400, 10, 0, 10)._replace(from_lat=LAT + 40, to_lat=LAT + 40 + 10 / KM_PER_DEG, is_after_jump=True)
    assert kilometres([run(0, 10, 0, 10), moved]) == pytest.approx(20, abs=0.01)


def test_a_chord_over_a_long_silence_is_bridged_and_a_short_one_is_not() -> None:
    pieces = track([run(0, 10, 0, 10), run(11, 9, 11, 20), run(40, 10, 35, 45)], RULES.gps)
    links = [piece for piece in pieces if piece.kind == "link"]
    assert [piece.km for piece in links] == [pytest.approx(1, abs=0.01), pytest.approx(15, abs=0.01)]
    assert [piece.bridged_km for piece in links] == [0, pytest.approx(15, abs=0.01)]


def test_scatter_of_a_parked_receiver_is_no_distance() -> None:
    runs = [run(0, 10, 0, 10), run(600, 0, 10.02, 10.02), run(700, 10, 10, 20)]
    assert kilometres(runs) == pytest.approx(20, abs=0.001)


def test_kilometres_between_two_times_are_linear_inside_a_piece() -> None:
    travelled = Travelled(track([run(0, 10, 0, 10), run(60, 10, 10, 16)], RULES.gps))
    assert travelled.between(START + timedelta(minutes=5), START + timedelta(minutes=65)) == pytest.approx(8, abs=0.01)


def test_kilometres_outside_the_track_are_none() -> None:
    travelled = Travelled(track([run(0, 10, 0, 10)], RULES.gps))
    assert travelled.between(START - timedelta(days=2), START - timedelta(days=1)) == 0
    assert travelled.between(START + timedelta(days=1), START + timedelta(days=2)) == 0
    assert Travelled([]).between(START, START + timedelta(days=1)) == 0
