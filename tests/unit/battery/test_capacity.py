"""Capacity estimates and their pooling."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baas_dagster.battery.capacity import charge_estimates, pool, pool_estimates, rest_pair_estimates
from baas_dagster.battery.rests import rest_readings
from baas_dagster.battery.rules import RULES
from tests.unit.battery.world import CELLS, a_curve, linear_ocv, periods, sessions


def ocv_estimates(**options: object) -> pl.DataFrame:
    seen = periods(60, rng=np.random.default_rng(7), **options)  # type: ignore[arg-type]
    return rest_pair_estimates(rest_readings(seen, CELLS), a_curve())


def test_rest_pairs_find_the_true_capacity_whatever_the_bms_counts_with() -> None:
    found = pool_estimates(ocv_estimates(bms_capacity_ah=108.0, anchor_share=0.5))
    assert found is not None
    assert found.capacity_ah == pytest.approx(100.0, abs=1.0)


def test_a_charge_is_an_echo_of_the_bms() -> None:
    found = pool_estimates(charge_estimates(sessions(10, capacity_ah=108.0)))
    assert found is not None
    assert found.capacity_ah == pytest.approx(108.0, abs=0.2)
    assert found.systematic_sd_ah >= RULES.bms_capacity_sd * 108.0


def test_steps_of_soc_are_preferred_to_its_rounded_ends() -> None:
    rows = sessions(5).with_columns(soc_end_pct=pl.col("soc_end_pct") + 2)
    assert charge_estimates(rows)["capacity_ah"].to_list() == pytest.approx([100.0] * 5)
    assert set(charge_estimates(rows)["charge_source"]) == {"steps"}
    plain = charge_estimates(rows.select(pl.exclude("^step_.*$")))
    assert set(plain["charge_source"]) == {"counter"}
    assert (plain["random_sd_ah"] > charge_estimates(rows)["random_sd_ah"]).all()


def test_small_charges_inferred_ones_and_v2l_make_no_estimate() -> None:
    assert charge_estimates(sessions(3, delta_pct=15)).is_empty()
    assert charge_estimates(sessions(3).with_columns(is_inferred=pl.lit(True))).is_empty()
    assert charge_estimates(sessions(3).with_columns(mode=pl.lit("V2L"))).is_empty()
    assert charge_estimates(sessions(0)).is_empty()


def test_the_shared_error_does_not_shrink_with_the_number_of_estimates() -> None:
    few, many = (pool_estimates(charge_estimates(sessions(n))) for n in (3, 60))
    assert few is not None
    assert many is not None
    assert many.random_sd_ah < few.random_sd_ah / 2
    assert many.systematic_sd_ah == pytest.approx(few.systematic_sd_ah, rel=0.01)


def test_rests_at_the_same_two_voltages_repeat_the_error_of_the_curve() -> None:
    curve = a_curve(sd_pct=2.0)
    short, long = (
        pool_estimates(rest_pair_estimates(rest_readings(periods(days), CELLS), curve)) for days in (20, 120)
    )
    assert short is not None
    assert long is not None
    assert long.n > 3 * short.n
    assert long.systematic_sd_ah > 0.85 * short.systematic_sd_ah


@settings(max_examples=25, deadline=None)
@given(st.floats(0.3, 4.0))
def test_one_bad_session_does_not_move_the_pool(factor: float) -> None:
    rows = charge_estimates(sessions(12))
    bad = rows.with_columns(
        charge_ah=pl.when(pl.int_range(pl.len()) == 4).then(pl.col("charge_ah") * factor).otherwise(pl.col("charge_ah"))
    )
    found = pool_estimates(bad)
    assert found is not None
    assert found.capacity_ah == pytest.approx(100.0, abs=1.0)


@settings(max_examples=10, deadline=None)
@given(st.floats(0.01, 1_000))
def test_capacity_scales_with_the_unit_of_charge(unit: float) -> None:
    rows = charge_estimates(sessions(8))
    rules = replace(RULES, counter_step_ah=0.1 * unit)
    scaled = charge_estimates(sessions(8, capacity_ah=100 * unit), rules)
    one, other = pool_estimates(rows), pool_estimates(scaled, rules)
    assert one is not None
    assert other is not None
    assert other.capacity_ah == pytest.approx(one.capacity_ah * unit, rel=1e-6)
    assert other.sd_ah == pytest.approx(one.sd_ah * unit, rel=1e-3)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 25), st.integers(0, 10_000))
def test_no_variance_is_negative_and_nothing_is_nan(n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.uniform(20, 90, n) * rng.choice([-1, 1], n)
    y = x * rng.uniform(0.5, 2.0, n)
    shared = rng.normal(0, 2, (n, 3))
    found = pool(
        x, y, np.diag(rng.uniform(0, 4, n)), shared @ shared.T, np.diag(rng.uniform(0, 1, n)), np.zeros((n, n)), 0.005
    )
    assert found is None or (found.capacity_ah > 0 and found.random_sd_ah >= 0 and np.isfinite(found.sd_ah))


def test_the_order_of_estimates_does_not_matter() -> None:
    rows = ocv_estimates()
    for seed in range(3):
        assert pool_estimates(rows.sample(fraction=1, shuffle=True, seed=seed)) == pool_estimates(rows)


def test_pairs_never_span_two_epochs() -> None:
    seen = periods(60, rng=np.random.default_rng(7))
    swapped = seen.with_columns(life_no=pl.when(pl.int_range(pl.len()) >= 40).then(1).otherwise(0))
    rests = rest_readings(swapped, CELLS)
    found = rest_pair_estimates(rests, a_curve())
    border = seen["from_at"][40]
    assert found["epoch"].n_unique() == 2
    assert found.filter((pl.col("from_at") < border) & (pl.col("to_at") > border)).is_empty()


def test_a_pair_does_not_span_weeks_of_silence() -> None:
    seen = periods(60)
    late = pl.int_range(pl.len()) >= 50
    apart = seen.with_columns(
        pl.when(late).then(pl.col(name) + timedelta(days=60)).otherwise(pl.col(name))
        for name in ("from_at", "to_at", "rest_at")
    )
    found = rest_pair_estimates(rest_readings(apart, CELLS), a_curve())
    assert ((found["to_at"] - found["from_at"]) <= timedelta(days=RULES.pair_max_days)).all()


def test_without_counters_the_integral_is_used_unless_it_has_a_hole() -> None:
    seen = periods(40).with_columns(
        pl.lit(None, pl.Float64).alias(name)
        for name in ("charged_total_first_ah", "charged_total_last_ah", "discharged_total_first_ah")
    )
    whole = rest_pair_estimates(rest_readings(seen, CELLS), a_curve())
    assert set(whole["charge_source"]) == {"integral"}
    assert float(whole["capacity_ah"].median()) == pytest.approx(100, abs=1)  # type: ignore[arg-type]
    holes = seen.with_columns(integrated_s=pl.lit(1_000.0))
    assert rest_pair_estimates(rest_readings(holes, CELLS), a_curve()).is_empty()


def test_a_plateau_gives_no_estimate() -> None:
    flat = np.interp(np.arange(101.0), [0, 10, 95, 100], [2.8, 3.25, 3.33, 3.5])
    rests = rest_readings(periods(60, ocv_v=flat, low_pct=5, high_pct=99), CELLS)
    assert rest_pair_estimates(rests, a_curve(flat, chemistry="LFP")).is_empty()


def test_an_uncertain_curve_gives_no_estimate_rather_than_a_wide_one() -> None:
    rests = rest_readings(periods(60), CELLS)
    assert rest_pair_estimates(rests, a_curve(sd_pct=8.0)).is_empty()
    assert not rest_pair_estimates(rests, a_curve(linear_ocv(), sd_pct=1.0)).is_empty()
