"""Rests out of awake periods."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from baas_dagster.battery.rests import REST_SCHEMA, rest_readings
from tests.unit.battery.world import CELLS, periods


def test_a_silence_of_two_hours_makes_a_rest_and_a_shorter_one_does_not() -> None:
    seen = periods(10)
    short = seen.with_columns(
        to_at=pl.when(pl.int_range(pl.len()) == 4)
        .then(pl.col("from_at") + pl.duration(hours=11))
        .otherwise(pl.col("to_at"))
    )
    assert rest_readings(seen, CELLS).height == seen.height - 1  # what was before the first period nobody knows
    assert rest_readings(short, CELLS).height == seen.height - 2


def test_the_direction_is_that_of_the_last_long_move() -> None:
    found = rest_readings(periods(20), CELLS)
    assert set(found["direction"]) <= {"charge", "discharge"}
    after_charge = found.filter(pl.col("direction") == "charge")
    assert after_charge["soc_bms_pct"].min() > 80
    assert found.filter(pl.col("direction") == "discharge")["soc_bms_pct"].max() < 80


def test_a_short_way_back_leaves_the_direction_unknown() -> None:
    seen = periods(20, legs=14)  # legs of 5 points
    found = rest_readings(seen, CELLS)
    after = found.filter(pl.col("soc_bms_pct").is_between(82, 88))  # one leg below the charge's end
    assert after.height
    assert set(after["direction"]) == {"unknown"}


def test_a_period_with_charge_and_load_says_nothing_of_its_order() -> None:
    seen = periods(10).with_columns(
        discharge_ah=pl.when(pl.col("charge_ah") > 0).then(0.4 * pl.col("charge_ah")).otherwise(pl.col("discharge_ah"))
    )
    assert "charge" not in set(rest_readings(seen, CELLS)["direction"])


def test_the_first_rest_of_another_life_of_the_pack_is_none_and_the_later_ones_are_its_own() -> None:
    seen = periods(20)
    swapped = seen.with_columns(life_no=pl.when(pl.int_range(pl.len()) >= 12).then(1).otherwise(0))
    found = rest_readings(swapped, CELLS)
    assert found["epoch"].to_list() == [0] * 11 + [1] * (seen.height - 13)
    assert found.filter(pl.col("epoch") == 1)["rest_at"].min() == seen["rest_at"][13]


def test_a_voltage_that_the_cells_contradict_is_no_rest() -> None:
    seen = periods(10)
    wrong = seen.with_columns(
        rest_cell_mean_mv=pl.when(pl.int_range(pl.len()) == 5)
        .then(pl.col("rest_cell_mean_mv") + 40)
        .otherwise(pl.col("rest_cell_mean_mv"))
    )
    assert rest_readings(wrong, CELLS).height == rest_readings(seen, CELLS).height - 1


def test_without_cells_or_counters_the_rest_stays() -> None:
    seen = periods(10).with_columns(
        pl.lit(None, pl.Float64).alias(name)
        for name in (
            "rest_cell_mean_mv",
            "charged_total_first_ah",
            "discharged_total_first_ah",
            "charged_total_last_ah",
        )
    )
    found = rest_readings(seen, CELLS)
    assert found.height == seen.height - 1
    assert found["charged_total_ah"].is_null().all()
    assert np.isfinite(found["net_ah"].to_numpy()).all()


def test_periods_of_gps_alone_are_not_read() -> None:
    seen = periods(6)
    gps = seen.with_columns(source=pl.lit("gps"))
    assert rest_readings(gps, CELLS).equals(pl.DataFrame(schema=REST_SCHEMA))


def test_a_hole_in_the_integration_begins_a_new_segment() -> None:
    seen = periods(10).with_columns(
        integrated_s=pl.when(pl.int_range(pl.len()) == 7).then(3_000.0).otherwise(pl.col("integrated_s"))
    )
    assert rest_readings(seen, CELLS)["net_segment"].n_unique() == 2


@settings(max_examples=15, deadline=None)
@given(st.randoms(use_true_random=False))
def test_the_order_of_periods_does_not_matter(random: object) -> None:
    seen = periods(12, rng=np.random.default_rng(3))
    order = list(range(seen.height))
    random.shuffle(order)  # type: ignore[attr-defined]
    assert rest_readings(seen[order], CELLS).equals(rest_readings(seen, CELLS))


def test_rests_keep_their_time() -> None:
    seen = periods(4)
    found = rest_readings(seen, CELLS)
    assert found["rest_h"].to_list() == [10.0] * found.height
    assert found["rest_at"][0] - seen["from_at"][0] == timedelta(hours=12)


def test_a_car_without_bms_rows_has_no_rest() -> None:
    assert rest_readings(periods(3).with_columns(source=pl.lit("gps")), CELLS).is_empty()
