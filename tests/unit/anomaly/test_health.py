"""Health, power, counters and gated months as readings of monthly marts; baselines of a pack type; silent cars."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import polars as pl
import pytest

from baas_dagster.anomaly.baseline import learn
from baas_dagster.anomaly.detector import Context
from baas_dagster.anomaly.episodes import episodes
from baas_dagster.anomaly.fleet import silent_episodes
from baas_dagster.anomaly.health import DETECTOR
from baas_dagster.anomaly.rows import Car
from baas_dagster.anomaly.rules import RULES
from baas_dagster.battery.rules import RULES as BATTERY

CAR = "01290007004"
MONTHS = ("2023-01", "2023-02", "2023-03", "2023-04", "2023-05", "2023-06")
NOTHING = pl.DataFrame(schema={"detector": pl.String})


def context(**marts: list[dict[str, Any]]) -> Context:
    frames = {name: pl.DataFrame(rows, infer_schema_length=None) for name, rows in marts.items()}
    return Context(Car(CAR), RULES, MONTHS, frames, last_seen_at=datetime(2023, 6, 20))


def found(given: Context) -> list[tuple[str, int]]:
    made = episodes(CAR, DETECTOR.readings(NOTHING, given))
    return [(code, severity) for code, severity in made.select("code", "severity").sort("code").iter_rows()]


def soh(**figures: float) -> list[dict[str, Any]]:
    return [{"measured_month": month, "method": "ocv", "n": 10, **figures} for month in MONTHS]


@pytest.mark.parametrize(
    ("value", "high", "expected"), [(90, 93, []), (78, 83, [("SOH_LOW", 1)]), (74, 78, [("SOH_LOW", 2)])]
)
def test_low_health_is_watched_and_warned_of_when_its_whole_interval_is_low(
    value: float, high: float, expected: list[tuple[str, int]]
) -> None:
    assert found(context(fct_soh_monthly=soh(soh_pct=value, soh_lo_pct=2 * value - high, soh_hi_pct=high))) == expected


def test_a_slope_is_judged_over_the_months_that_the_battery_takes() -> None:
    assert RULES.health.slope_months == BATTERY.trend_months


@pytest.mark.parametrize(("half", "expected"), [(2.0, [("SOH_FADE", 2)]), (5.0, [("SOH_FADE", 1)]), (8.0, [])])
def test_a_fade_counts_where_its_interval_tells_something(half: float, expected: list[tuple[str, int]]) -> None:
    slope = {"slope_data_pct_per_year": -11.0}
    interval = {"slope_data_lo_pct_per_year": -11 - half, "slope_data_hi_pct_per_year": -11 + half}
    assert found(context(fct_soh_monthly=soh(**slope, **interval))) == expected


@pytest.mark.parametrize(("half", "expected"), [(1.0, [("SOC_BIAS", 2)]), (4.5, [("SOC_BIAS", 1)]), (6.0, [])])
def test_a_bias_beyond_five_points_whose_interval_excludes_three(half: float, expected: list[tuple[str, int]]) -> None:
    assert (
        found(context(fct_soh_monthly=soh(soc_bias_pct=-8, soc_bias_lo_pct=-8 - half, soc_bias_hi_pct=-8 + half)))
        == expected
    )


def power(factor: float) -> list[dict[str, Any]]:
    return [
        {
            "measured_month": month, "temperature_from_c": t, "soc_from_pct": 50.0, "n": 100,
            "resistance_mohm": 100.0 * (factor if month > "2023-03" else 1), "acceptable_discharge_p90_kw": 80.0,
            "acceptable_charge_p90_kw": 60.0,
        }
        for month in MONTHS
        for t in (10.0, 20.0)
    ]  # fmt: skip


def test_resistance_against_the_cars_own_start() -> None:
    assert found(context(fct_power_monthly=power(1.1))) == []
    assert found(context(fct_power_monthly=power(1.7))) == [("POWER_FADE", 2)]


def test_resistance_against_a_released_baseline() -> None:
    fleet = pl.DataFrame([{"device_no": f"car {i}", **row} for i in range(6) for row in power(1.0)])
    learnt = learn(
        fleet,
        pl.DataFrame(
            schema={"device_no": pl.String, "measured_month": pl.String, "slope_data_pct_per_year": pl.Float64}
        ),
    )
    assert learnt is not None
    assert learnt["resistance_mohm"]["10/50"] == {"p50": 100.0, "p90": 100.0, "n": 6}
    old = [row | {"resistance_mohm": 180.0} for row in power(1.0)]
    plain = context(fct_power_monthly=old)
    assert found(plain) == [], "a car that is old from its first month on shows only against its type"
    with_type = Context(Car(CAR), RULES, MONTHS, plain.marts, learnt, "version", last_seen_at=plain.last_seen_at)
    assert found(with_type) == [("POWER_FADE", 2)]


def test_a_fleet_too_small_has_no_baseline() -> None:
    fleet = pl.DataFrame([{"device_no": f"car {i}", **row} for i in range(3) for row in power(1.0)])
    nothing = pl.DataFrame(
        schema={"device_no": pl.String, "measured_month": pl.String, "slope_data_pct_per_year": pl.Float64}
    )
    assert learn(fleet, nothing) is None


def test_a_reset_opens_when_it_is_seen_and_closes_after_clear_months() -> None:
    at = datetime(2023, 2, 11, 8)
    audit = [
        {
            "measured_month": m,
            "verdict": "reset" if m == "2023-02" else "ok",
            "reset_at": at if m == "2023-02" else None,
        }
        for m in MONTHS
    ]
    made = episodes(CAR, DETECTOR.readings(NOTHING, context(fct_counter_audit_monthly=audit)))
    assert made["code"].to_list() == ["COUNTER_RESET"]
    assert made["opened_at"].to_list() == [at]
    assert made["closed_at"].null_count() == 0


def test_verdicts_of_the_audit_and_gated_months_open_at_once_and_hide_nothing_alone() -> None:
    audit = [
        {
            "measured_month": m,
            "verdict": "drift" if m == "2023-04" else "ok",
            "charge_balance_ratio": 1.03,
            "reason": "x",
        }
        for m in MONTHS
    ]
    gates = [{"measured_month": "2023-02", "check_name": "raw_bms.rejected_share"}]
    assert found(context(fct_counter_audit_monthly=audit, partition_gate=gates)) == [
        ("COUNTER_DRIFT", 1), ("PARTITION_GATED", 1),
    ]  # fmt: skip


def test_what_the_marts_do_not_tell_is_not_judged() -> None:
    assert set(DETECTOR.unjudged(NOTHING, context())) == {
        "SOH_LOW",
        "SOH_FADE",
        "SOC_BIAS",
        "POWER_FADE",
        "COUNTER_DRIFT",
    }


def test_silence_counts_to_the_last_row_of_the_fleet_and_weighs_more_on_an_open_case() -> None:
    seen = pl.DataFrame({"device_no": ["a", "b", "c"], "last_seen_at": [datetime(2023, 3, d) for d in (1, 1, 25)]})
    made = silent_episodes(seen, ["b"], datetime(2023, 3, 30), RULES.health)
    assert made.select("device_no", "severity").rows() == [("a", 1), ("b", 2)]
    later = silent_episodes(seen, ["b"], datetime(2023, 3, 31), RULES.health)
    assert later["anomaly_id"].to_list() == made["anomaly_id"].to_list(), "a silence that goes on is the same episode"
