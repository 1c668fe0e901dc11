"""Trends and the monthly table."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baas_dagster.battery.capacity import charge_estimates, rest_pair_estimates
from baas_dagster.battery.curve import Curve
from baas_dagster.battery.rests import rest_readings
from baas_dagster.battery.rules import RULES
from baas_dagster.battery.soh import SOH_SCHEMA, Pack, soh_months, throughput
from baas_dagster.battery.trend import Slope, combine, shrink, slope_of
from tests.unit.battery.world import CELLS, a_curve, periods, sessions

PACK = Pack("NMC", "TYPE", CELLS, 100.0, "test")


def table(
    seen: pl.DataFrame,
    charges: pl.DataFrame | None = None,
    curve: Curve | None = None,
    pack: Pack = PACK,
    claims: pl.DataFrame | None = None,
) -> pl.DataFrame:
    rests = rest_readings(seen, CELLS)
    parts = [rest_pair_estimates(rests, curve)] if curve else []
    parts += [charge_estimates(charges)] if charges is not None else []
    estimates = pl.concat(parts) if parts else charge_estimates(sessions(0))
    months = sorted(set(seen["measured_month"]))
    return soh_months("01290000001", months, pack, rests, estimates, curve, claims, throughput(seen))


def points(years: float, slope: float, n: int, noise: float, seed: int = 1) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(seed)
    at = np.sort(rng.uniform(0, years, n))
    return at, 95 + slope * at + rng.normal(0, noise, n), np.full(n, noise), (at * 12).astype(np.int64)


def test_fused_leans_on_the_independent_value() -> None:
    rows = table(periods(150, capacity_ah=90), sessions(70, capacity_ah=98), a_curve())
    last = rows.row(-1, named=True)
    assert last["method"] == "ocv+charge"
    assert last["soh_ocv_pct"] == pytest.approx(90, abs=1)
    assert last["soh_charge_pct"] == pytest.approx(98, abs=0.3)
    assert abs(last["soh_pct"] - last["soh_ocv_pct"]) < abs(last["soh_pct"] - last["soh_charge_pct"])
    assert last["soh_lo_pct"] < last["soh_pct"] < last["soh_hi_pct"]


def test_a_month_sees_nothing_of_the_months_after_it() -> None:
    seen, charges = periods(200, rng=np.random.default_rng(2)), sessions(90)
    whole = table(seen, charges, a_curve())
    cut = seen.filter(pl.col("measured_month") <= "2023-04")
    before = table(cut, charges.filter(pl.col("measured_month") <= "2023-04"), a_curve())
    assert whole.filter(pl.col("measured_month") <= "2023-04").equals(before)


def test_every_missing_value_has_its_reason() -> None:
    seen = periods(60)
    assert table(seen)["soh_ocv_reason"].to_list() == ["no curve"] * 2 + ["no curve"]
    rows = table(seen, sessions(1), a_curve())
    assert rows["soh_charge_reason"][-1] == "too few"
    nothing = table(seen, sessions(20), a_curve(), Pack("NMC", "TYPE", CELLS, None, None))
    assert set(nothing["soh_ocv_reason"]) == {"no capacity"}
    assert table(seen)["soc_bias_reason"].to_list() == ["no curve"] * 3
    few = table(seen.head(2), sessions(1), a_curve())
    assert few["soc_bias_reason"][-1] == "too few"
    assert nothing["soh_pct"].is_null().all()


def test_a_plateau_is_said_to_be_not_identifiable() -> None:
    flat = np.interp(np.arange(101.0), [0, 10, 95, 100], [2.8, 3.25, 3.33, 3.5])
    rows = table(periods(90, ocv_v=flat), sessions(40), a_curve(flat, chemistry="LFP"))
    assert rows["soh_ocv_pct"].is_null().all()
    assert set(rows["soh_ocv_reason"]) == {"not identifiable"}
    assert rows["method"][-1] == "charge"


def test_a_plateau_that_lies_higher_than_the_curve_says_is_no_full_battery() -> None:
    """Just above its plateau a curve is steep again: 15 mV of error there would be 15 points of charge."""
    true, believed = (np.interp(np.arange(101.0), [0, 10, 95, 100], [2.8, 3.25, top, 3.5]) for top in (3.33, 3.27))
    rows = table(periods(90, ocv_v=true), sessions(40), a_curve(believed, chemistry="LFP"))
    assert rows["soc_bias_pct"].is_null().all()
    assert rows["n_soc_bias"].to_list() == [0] * rows.height
    assert set(rows["soc_bias_reason"]) == {"not identifiable"}


def test_the_cars_claim_passes_through() -> None:
    claims = pl.DataFrame({"measured_month": ["2023-01"], "soh_bms_pct": [100.0], "bms_min_deter_pct": [3.2]})
    rows = table(periods(20), claims=claims)
    assert rows["soh_bms_pct"][0] == 100.0
    assert rows["bms_min_deter_pct"][0] == 3.2
    assert rows.schema == pl.Schema(SOH_SCHEMA)


def test_bias_is_the_difference_between_display_and_voltage() -> None:
    seen = periods(40).with_columns(pl.col("rest_soc_pct") + 4)
    last = table(seen, curve=a_curve())
    assert last["soc_bias_pct"][0] == pytest.approx(4, abs=0.4)
    assert (last["soc_bias_lo_pct"] < last["soc_bias_pct"]).all()


def swapped(old: pl.DataFrame, new: pl.DataFrame, at: int) -> pl.DataFrame:
    """The periods of the old pack up to number ``at``, those of another one from there on."""
    return pl.concat([old.head(at), new[at:].with_columns(life_no=pl.lit(1, pl.Int64))])


def test_cycles_begin_anew_with_every_pack_and_a_month_has_those_of_the_pack_it_ends_with() -> None:
    seen = periods(90)
    whole, cut = table(seen), table(swapped(seen, seen, 80))
    a_day = 0.7 / 1.5
    assert whole["equivalent_full_cycles"].to_list() == pytest.approx(
        [30 * a_day, 58 * a_day, 89 * a_day, 90 * a_day], rel=0.04
    )
    assert cut["pack_epoch"].to_list() == [0, 1, 1, 1]
    assert cut["equivalent_full_cycles"].to_list() == pytest.approx(
        [30 * a_day, 18 * a_day, 49 * a_day, 50 * a_day], rel=0.04
    )


def test_a_pack_whose_counters_were_never_read_has_no_cycles() -> None:
    seen = periods(90)
    silent = seen.with_columns(pl.lit(None, pl.Float64).alias(name) for name in ("charged_ah", "discharged_ah"))
    rows = table(swapped(seen, silent, 80))
    assert rows["equivalent_full_cycles"].is_null().to_list() == [False, True, True, True]


def test_estimates_of_an_old_pack_do_not_speak_for_the_new_one() -> None:
    old, new = periods(120, capacity_ah=80), periods(120, capacity_ah=100)
    rows = table(swapped(old, new, 120), curve=a_curve())
    assert rows["soh_ocv_pct"][0] == pytest.approx(80, abs=1)
    assert rows["soh_ocv_pct"][-1] == pytest.approx(100, abs=1)


def test_a_month_that_ends_with_a_new_pack_says_nothing_of_the_old_one() -> None:
    old, new = periods(60, capacity_ah=80), periods(60, capacity_ah=100)
    rows = table(swapped(old, new, 118), curve=a_curve())
    assert rows["soh_ocv_reason"][-1] == "too few"
    assert rows["pack_epoch"][-1] == 1


def test_a_flat_car_and_a_fast_one_stand_apart_within_a_year() -> None:
    flat, fast = (slope_of(*points(1, slope, 120, 2.0)) for slope in (0.0, -6.0))
    assert flat is not None
    assert fast is not None
    assert flat.value - flat.half_90 > RULES.slope_prior_pct_per_year
    assert fast.value + fast.half_90 < RULES.slope_prior_pct_per_year


def test_three_months_identify_nothing() -> None:
    found = slope_of(*points(0.25, -2.0, 60, 2.0))
    assert found is None or found.half_90 > RULES.slope_identifiable


def test_without_data_all_is_prior() -> None:
    trend = shrink(None)
    assert trend.prior_share == 1
    assert trend.value == RULES.slope_prior_pct_per_year


@settings(max_examples=40, deadline=None)
@given(st.floats(-15, 5), st.floats(0.05, 10))
def test_the_shrunk_slope_lies_between_data_and_prior(value: float, half: float) -> None:
    trend = shrink(Slope(value, half / 1.645, half, 50, 12))
    low, high = sorted((value, RULES.slope_prior_pct_per_year))
    assert low - 1e-9 <= trend.value <= high + 1e-9
    assert 0 <= trend.prior_share <= 1
    assert trend.hi - trend.lo <= 2 * half + 1e-9


def test_an_echo_alone_says_little_about_a_slope() -> None:
    echo = slope_of(*points(1, 0.0, 120, 0.5))
    data = combine(None, echo)
    assert data is not None
    assert data.half_90 > RULES.slope_identifiable


def test_one_wild_estimate_does_not_make_a_slope() -> None:
    at, value, sd, month = points(1, -2.0, 100, 1.0)
    wild = value.copy()
    wild[-1] += 40
    one, other = slope_of(at, value, sd, month), slope_of(at, wild, sd, month)
    assert one is not None
    assert other is not None
    assert other.value == pytest.approx(one.value, abs=0.5)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1_000))
def test_the_order_of_points_does_not_matter(seed: int) -> None:
    at, value, sd, month = points(1, -2.0, 40, 1.0, seed)
    order = np.random.default_rng(seed).permutation(len(at))
    assert slope_of(at, value, sd, month) == slope_of(at[order], value[order], sd[order], month[order])


def test_a_nominal_capacity_that_is_a_guess_is_given_up_where_the_pack_speaks_against_it() -> None:
    seen, charges = periods(150, capacity_ah=63), sessions(70, capacity_ah=63)
    known = table(seen, charges, a_curve()).row(-1, named=True)
    guessed = table(seen, charges, a_curve(), replace(PACK, is_nominal_guessed=True)).row(-1, named=True)
    assert known["soh_pct"] == pytest.approx(63, abs=1.5), "a car of a known type keeps its figure"
    assert guessed["soh_pct"] is None
    assert guessed["soh_ocv_reason"] == guessed["soh_charge_reason"] == "nominal capacity in doubt"
    healthy = periods(150, capacity_ah=90), sessions(70, capacity_ah=90)
    assert table(*healthy, a_curve(), replace(PACK, is_nominal_guessed=True)).row(-1, named=True)["soh_pct"] is not None
