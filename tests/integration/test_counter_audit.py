"""The audit of counters on cars simulated as awake periods: faults that begin are found, healthy cars are not."""

from __future__ import annotations

import polars as pl
import pytest

from acceptance.counters import Fault, audit, drive_months
from tests.conftest import Homes

MONTHS = 9
HEALTHY = 12
ONSET = 5
FAULTS = {
    "asymmetry": Fault("3 % asymmetry", asymmetry=0.03, from_month=ONSET),
    "offset": Fault("0.3 A offset", offset_a=0.3, from_month=ONSET),
}


@pytest.fixture(scope="module")
def audited(tmp_path_factory: pytest.TempPathFactory, parsed_dbt: object) -> pl.DataFrame:
    homes = Homes(tmp_path_factory.mktemp("audited"), parsed_dbt)  # type: ignore[arg-type]
    cars = {f"healthy|{i:02d}": (i, Fault("healthy")) for i in range(HEALTHY)}
    for name, fault in FAULTS.items():
        cars |= {f"{name}|{i}": (HEALTHY + i, fault) for i in range(3)}
    found = audit(cars, MONTHS, seed=1, home=homes.new().home)
    return found.with_columns(month=pl.col("measured_month").rank("dense").over("device_no") - 1)


def test_counters_of_a_car_only_rise_and_its_fault_changes_nothing_before_it_begins() -> None:
    healthy, faulty = (
        pl.DataFrame(drive_months(3, 2, 1, fault)[1], infer_schema_length=None)
        for fault in (Fault("healthy"), Fault("late", offset_a=0.3, from_month=1))
    )
    assert healthy["charged_total_last_ah"].is_sorted()
    assert healthy["discharged_total_last_ah"].is_sorted()
    first = pl.col("measured_month") == "2023-01"
    assert healthy.filter(first).equals(faulty.filter(first))
    assert not healthy.equals(faulty)


@pytest.mark.parametrize("name", sorted(FAULTS))
def test_a_fault_that_begins_is_found_within_two_months_and_not_before(audited: pl.DataFrame, name: str) -> None:
    mine = audited.filter(pl.col("device_no").str.starts_with(name))
    assert mine.filter(pl.col("month") < ONSET)["verdict"].unique().to_list() == ["ok"]
    found = mine.filter(pl.col("month").is_between(ONSET, ONSET + 1)).group_by("device_no").agg(pl.col("verdict"))
    assert all("drift" in verdicts for verdicts in found["verdict"].to_list())
    assert found.height == 3


def test_healthy_cars_are_not_flagged(audited: pl.DataFrame) -> None:
    healthy = audited.filter(pl.col("device_no").str.starts_with("healthy"))
    assert healthy["verdict"].unique().to_list() == ["ok"]
    inside = healthy.select(pl.col("charge_balance_ratio").is_between("charge_balance_lo", "charge_balance_hi").all())
    assert inside.item()


def test_the_expected_offset_is_that_of_the_cars_sensor_and_none_where_the_counters_failed(
    audited: pl.DataFrame,
) -> None:
    last = audited.filter(pl.col("month") == MONTHS - 1)
    healthy = last.filter(pl.col("device_no").str.starts_with("healthy")).sort("device_no")
    true = [drive_months(i, 1, 1, Fault("healthy"))[0].current_offset_a for i in range(HEALTHY)]
    off = healthy["expected_offset_a"] - pl.Series(true)
    assert (off.abs() <= 3 * healthy["expected_offset_sd_a"]).all()
    assert off.pow(2).mean() < 0.5 * pl.Series(true).pow(2).mean(), "it says more than that sensors are good to 0.1 A"
    failed = audited.filter(pl.col("verdict") == "drift")
    assert failed.height
    assert failed["expected_offset_a"].is_null().all()


def test_counters_that_begin_anew_fall_once_and_rise_from_there() -> None:
    fault = Fault("reset", from_month=1, from_day=14, is_reset=True)
    rows = pl.DataFrame(drive_months(3, 3, 1, fault)[1], infer_schema_length=None)
    for column in ("charged_total_first_ah", "discharged_total_first_ah"):
        falls = rows.filter(pl.col(column) < pl.col(column).shift(1))
        assert falls["from_at"].dt.date().to_list() == [fault.onset_at.date()]
