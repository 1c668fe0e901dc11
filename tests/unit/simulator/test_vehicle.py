"""The physics of one car."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from baas_dagster.simulator.fleet import LIFE_STREAM, custom_fleet, draw_car, stream
from baas_dagster.simulator.motion import EARTH_RADIUS_M, Site, ground_path, speed_profile
from baas_dagster.simulator.packs import PACK_ORDER, PACKS
from baas_dagster.simulator.schedule import Pacing, ambient_of, month_bounds, month_stretches, new_state
from baas_dagster.simulator.vehicle import ERRORS, Car, CarState, Stretch, first_order, rest

FLEET = custom_fleet(7, 1, 60.0, 1.6)


@dataclass(frozen=True)
class Month:
    car: Car
    begin: CarState
    end: CarState
    soc_begin: float
    stretches: list[Stretch]


def lived(index: int) -> Month:
    car = draw_car(FLEET, 3, index)
    begin_s, end_s = month_bounds("2023-01")
    ambient = ambient_of(car, 3, begin_s, 1)
    rng = stream(3, LIFE_STREAM, index)
    state = new_state(car, rng, begin_s, ambient)
    soc_begin = state.soc
    stretches = list(month_stretches(car, state, rng, "2023-01", end_s, Pacing(begin_s, 1.6), ambient))
    return Month(car, new_state(car, rng, begin_s, ambient), state, soc_begin, stretches)


@pytest.fixture(scope="module", params=range(len(PACK_ORDER)), ids=PACK_ORDER)
def month(request: pytest.FixtureRequest) -> Month:
    return lived(request.param)


def test_true_charge_is_the_integral_of_the_true_current(month: Month) -> None:
    moved_ah = sum(float(s.current_a[:-1].sum()) / 3600 for s in month.stretches)
    moved_ah -= month.end.charged_out_ah
    assert month.end.soc - month.soc_begin == pytest.approx(moved_ah / month.end.capacity_ah, abs=1e-9)


def test_odometer_is_the_integral_of_speed(month: Month) -> None:
    for stretch in month.stretches:
        driven = float(np.sum((stretch.speed_mps[1:] + stretch.speed_mps[:-1]) / 2))
        assert stretch.odometer_m[-1] - stretch.odometer_m[0] == pytest.approx(driven, abs=1e-3)


def test_stretches_follow_each_other_and_odometer_and_counters_go_on(month: Month) -> None:
    for before, after in zip(month.stretches, month.stretches[1:], strict=False):
        assert after.start_s > before.end_s
        assert after.odometer_m[0] == before.odometer_m[-1]
        assert after.charged_ah[0] == before.charged_ah[-1]
        assert after.discharged_kwh[0] == before.discharged_kwh[-1]
    for stretch in month.stretches:
        for counter in (stretch.charged_ah, stretch.discharged_ah, stretch.charged_kwh, stretch.plug_kwh):
            assert np.all(np.diff(counter) >= 0)


def test_speed_current_voltage_and_charge_stay_within_what_cars_do(month: Month) -> None:
    low_v, high_v = (2.2, 3.75) if month.car.pack.chemistry == "LFP" else (2.5, 4.35)
    for stretch in month.stretches:
        assert stretch.speed_mps.min() >= 0
        assert stretch.speed_mps.max() * 3.6 < 125
        assert np.abs(np.diff(stretch.speed_mps)).max(initial=0) < 3.5
        assert np.abs(stretch.current_a).max() < 600
        assert stretch.cell_v.min() > low_v
        assert stretch.cell_v.max() < high_v
        assert stretch.soc.min() > 0.04
        assert stretch.soc.max() <= 1.005
        assert stretch.temp_c.min() > -20
        assert stretch.temp_c.max() < 55


def test_a_car_drives_and_charges_and_uses_a_plausible_amount(month: Month) -> None:
    drives = [s for s in month.stretches if s.kind == "drive"]
    km = sum(float(s.odometer_m[-1] - s.odometer_m[0]) for s in drives) / 1000
    kwh = -sum(float((s.current_a * s.voltage_v)[:-1].sum()) for s in drives) / 3.6e6
    assert {s.kind for s in month.stretches} & {"ac", "dc"}
    assert 12 < 100 * kwh / km < 36


def test_error_sizes_are_those_of_the_design() -> None:
    sizes = (ERRORS.current_gain, ERRORS.current_offset_a, ERRORS.bms_capacity, ERRORS.ocv_warp_v)
    assert sizes == (0.005, 0.1, 0.04, 0.005)
    assert (ERRORS.hysteresis_v, ERRORS.capacity_new) == (0.010, 0.01)


def test_drawn_errors_have_the_sizes_of_the_design() -> None:
    cars = [draw_car(custom_fleet(200, 1, 60.0, 1.0), 1, index) for index in range(200)]
    assert np.std([car.current_gain for car in cars]) == pytest.approx(0.005, rel=0.2)
    assert np.std([car.current_offset_a for car in cars]) == pytest.approx(0.1, rel=0.2)
    wrong = [car.bms_capacity_ah / (car.capacity_new_ah * car.soh_start_pct / 100) for car in cars]
    assert np.std(wrong) == pytest.approx(0.04, rel=0.2)
    assert len({car.device_no for car in cars}) == 200
    assert all(len(car.device_no) == 11 and car.device_no.startswith("0") for car in cars)


def test_pack_types_cover_90_to_192_cells_and_one_is_lfp() -> None:
    assert {90, 96, 98, 144, 180, 192} <= {pack.cell_count for pack in PACKS.values()}
    assert sum(pack.chemistry == "LFP" for pack in PACKS.values()) == 1


def test_a_rest_relaxes_the_pack_and_draws_it_into_the_bms_table() -> None:
    month = lived(0)
    state, at = month.end, month.end.at_s
    state.rc_v, state.bms_soc_pct, before = [3.0, 3.0], 100 * state.soc + 20, state.soc
    rest(month.car, state, at + 8 * 3600, lambda t: np.full(len(t), 5.0))
    assert max(state.rc_v) < 1e-6
    assert 0 < before - state.soc < 0.002
    assert abs(state.bms_soc_pct - 100 * state.soc) < 18


@pytest.mark.parametrize("seconds", [1.5, 20.0, 600.0, 9000.0])
def test_first_order_lag_equals_its_recursion(seconds: float) -> None:
    rng = np.random.default_rng(1)
    target, keep, value, expected = rng.normal(size=3000), np.exp(-1 / seconds), 0.7, []
    for x in target:
        expected.append(value)
        value = keep * value + (1 - keep) * x
    assert np.allclose(first_order(target, seconds, 0.7), expected, atol=1e-9)


@pytest.mark.parametrize("length_m", [1_500.0, 9_000.0, 40_000.0])
def test_a_speed_profile_has_exactly_its_length_and_stands_at_both_ends(length_m: float) -> None:
    for seed in range(5):
        speed = speed_profile(np.random.default_rng(seed), length_m)
        assert speed.sum() == pytest.approx(length_m)
        assert speed[0] == speed[-1] == 0


def test_a_track_ends_at_its_goal_is_as_long_as_driven_and_chords_cut_little() -> None:
    start, end = Site(37.5, 127.0, True), Site(37.6, 127.25, False)
    path = ground_path(np.random.default_rng(4), start, end, 30_000.0)
    driven = np.cumsum(np.full(1_800, 30_000 / 1_800))
    lat, lng, _ = path.position(np.concatenate([[0.0], driven]))
    assert (lat[-1], lng[-1]) == (pytest.approx(end.lat, abs=1e-5), pytest.approx(end.lng, abs=1e-5))
    assert length_m(lat, lng) == pytest.approx(30_000, rel=0.002)
    assert 0.96 < length_m(lat[::60], lng[::60]) / 30_000 < 0.995


def length_m(lat: np.ndarray, lng: np.ndarray) -> float:
    a, b = np.radians(lat), np.radians(lng)
    half = np.sin(np.diff(a) / 2) ** 2 + np.cos(a[1:]) * np.cos(a[:-1]) * np.sin(np.diff(b) / 2) ** 2
    return float(2 * EARTH_RADIUS_M * np.arcsin(np.sqrt(half)).sum())
