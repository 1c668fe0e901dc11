"""Curves, and the state of charge read from them."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baas_dagster.battery.curve import SOC_PCT, Curve, soc_from_rest
from baas_dagster.battery.ocv import learn, outside_curve
from baas_dagster.battery.rests import rest_readings
from baas_dagster.settings import DBT_PROJECT
from tests.unit.battery.world import CELLS, a_curve, linear_ocv, periods

REFERENCE = pl.read_csv(DBT_PROJECT / "seeds" / "ocv_reference.csv")


def nmc_like(shift_v: float = 0.0) -> np.ndarray:
    outside = outside_curve(REFERENCE, "NMC").ocv_v
    bend = 0.03 * np.sin(np.pi * SOC_PCT / 100) + shift_v
    return np.asarray(np.maximum.accumulate(outside + bend) + 1e-5 * SOC_PCT)


def fleet(cars: int, curve: np.ndarray, pack_type: str = "TYPE", seed: int = 1, days: int = 120) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    parts = []
    for i in range(cars):
        seen = periods(
            days,
            ocv_v=curve,
            device_no=f"{pack_type}{i:03d}",
            anchor_share=rng.uniform(0.3, 0.9),
            bms_capacity_ah=100 * (1 + 0.04 * rng.standard_normal()),
            rng=rng,
            legs=3,
        )
        parts.append(rest_readings(seen, CELLS).with_columns(pack_type=pl.lit(pack_type)))
    return pl.concat(parts)


@settings(max_examples=50, deadline=None)
@given(st.floats(5, 95), st.sampled_from([-1.0, 1.0]), st.floats(0, 0.03))
def test_soc_comes_back_from_the_voltage_it_made(soc: float, way: float, half_gap_v: float) -> None:
    curve = a_curve(hysteresis_v=half_gap_v)
    volt = np.interp([soc], SOC_PCT, curve.ocv_v) + half_gap_v * way
    read = soc_from_rest(volt, np.array([way]), curve)
    assert read.soc_pct[0] == pytest.approx(soc, abs=1e-6)
    assert read.sd_random_pct[0] > 0


def test_an_unknown_direction_costs_the_half_gap() -> None:
    curve = a_curve(hysteresis_v=0.02)
    known, unknown = soc_from_rest(np.array([3.7, 3.7]), np.array([1.0, 0.0]), curve).sd_random_pct
    assert unknown > 1.9 > known


def test_a_plateau_is_not_identifiable_and_neither_is_a_step_inside_it() -> None:
    volts = np.interp(SOC_PCT, [0, 15, 45, 50, 55, 90, 100], [2.8, 3.24, 3.28, 3.28, 3.31, 3.33, 3.5])
    curve = a_curve(volts)
    assert curve.is_flat[20:85].all()
    assert not curve.is_flat[[5, 97]].any()
    read = soc_from_rest(np.array([3.30, 3.45, 3.0]), np.zeros(3), curve)
    assert read.is_identifiable.tolist() == [False, True, True]
    assert np.isnan(read.soc_pct[0])


def test_a_voltage_outside_of_the_curve_is_not_identifiable() -> None:
    assert not soc_from_rest(np.array([2.5, 4.5, np.nan]), np.zeros(3), a_curve()).is_identifiable.any()


def test_a_curve_survives_being_stored() -> None:
    curve = a_curve()
    again = Curve.from_frame(curve.frame())
    assert again.version_id == curve.version_id
    with pytest.raises(ValueError, match="one row"):
        Curve.from_frame(curve.frame().head(50))


def test_the_version_changes_with_what_an_estimate_can_depend_on() -> None:
    names = {a_curve().version_id, a_curve(linear_ocv(3.21)).version_id, a_curve(sd_pct=0.6).version_id}
    assert len(names | {a_curve(hysteresis_v=0.001).version_id}) == 4


def test_outside_curves_alone_leave_ten_percent_or_more_on_a_pair() -> None:
    spread = outside_curve(REFERENCE, "NMC").covariance
    sd = np.sqrt(spread[30, 30] + spread[80, 80] - 2 * spread[30, 80]) / 50
    assert sd > 0.09
    with pytest.raises(ValueError, match="no outside curve"):
        outside_curve(REFERENCE, "LTO")


def test_lfp_is_flat_and_is_never_learnt() -> None:
    outside = outside_curve(REFERENCE, "LFP")
    assert outside.is_flat[40:90].all()
    assert learn(fleet(2, outside.ocv_v, days=40), "LFP", "TYPE", outside) is None


def test_the_makers_table_is_found_from_partial_anchoring() -> None:
    truth = nmc_like()
    found = learn(fleet(3, truth), "NMC", "TYPE", outside_curve(REFERENCE, "NMC"))
    assert found is not None
    off = np.interp(found.ocv_v, truth, SOC_PCT) - SOC_PCT
    assert np.abs(off[20:91]).max() < 1.0
    assert (found.sd_soc_pct > 0).all()
    assert (np.diff(found.ocv_v) > 0).all()


def test_a_car_whose_display_is_wrong_does_not_pull_the_curve() -> None:
    truth = nmc_like()
    rests = fleet(6, truth)
    wrong = (pl.col("device_no") == "TYPE003").cast(pl.Float64) * 12
    bent = rests.with_columns(pl.col("soc_bms_pct") + wrong, pl.col("soc_before_pct") + wrong)
    found = learn(bent, "NMC", "TYPE", outside_curve(REFERENCE, "NMC"))
    assert found is not None
    off = np.interp(found.ocv_v, truth, SOC_PCT) - SOC_PCT
    assert np.abs(off[25:86]).max() < 1.5


def test_any_order_of_rows_gives_the_same_version() -> None:
    rests = fleet(3, nmc_like(), days=60)
    outside = outside_curve(REFERENCE, "NMC")
    first = learn(rests, "NMC", "TYPE", outside)
    for seed in (1, 2):
        again = learn(rests.sample(fraction=1.0, shuffle=True, seed=seed), "NMC", "TYPE", outside)
        assert first is not None
        assert again is not None
        assert again.version_id == first.version_id
        assert again.quality == first.quality


def test_too_few_rests_teach_nothing() -> None:
    rests = fleet(1, nmc_like(), days=6)
    assert learn(rests, "NMC", "TYPE", outside_curve(REFERENCE, "NMC")) is None


def test_a_type_with_little_data_borrows_from_its_siblings() -> None:
    truth = nmc_like()
    outside = outside_curve(REFERENCE, "NMC")
    few = fleet(1, truth, "FEW", seed=5, days=22)
    alone = learn(few, "NMC", "FEW", outside)
    together = learn(pl.concat([few, fleet(4, truth, "MANY")]), "NMC", "FEW", outside)
    assert alone is not None
    assert together is not None
    assert together.quality["siblings"] == 4

    def worst(curve: Curve) -> float:
        return float(np.abs(np.interp(curve.ocv_v, truth, SOC_PCT) - SOC_PCT)[12:95].max())

    assert worst(together) <= worst(alone)


def test_hysteresis_is_learnt_from_coulombs() -> None:
    rng = np.random.default_rng(4)
    truth = nmc_like()
    parts = [
        rest_readings(
            periods(120, ocv_v=truth, device_no=f"H{i}", anchor_share=0.6, hysteresis_v=0.020, rng=rng, legs=3), CELLS
        )
        for i in range(6)
    ]
    found = learn(
        pl.concat(parts).with_columns(pack_type=pl.lit("TYPE")), "NMC", "TYPE", outside_curve(REFERENCE, "NMC")
    )
    assert found is not None
    assert found.hysteresis_v == pytest.approx(0.020, abs=0.004)
