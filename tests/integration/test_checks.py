"""In a range run each partition has its own check result, and a partition that fails is kept out by data."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import dagster as dg
import duckdb
import pytest

from baas_dagster.runs import Asked
from baas_dagster.settings import Settings
from tests.conftest import Homes
from tests.deliveries import Row, bms_rows, gps_rows, psql, put_zip

GOOD, BAD, BETWEEN, REJECTED, TWICE, POSITIONS = (f"0129000300{number}" for number in range(1, 7))


def put(landing: Path, device: str, month: int, rows: list[Row], name: str = "") -> None:
    stem = f"bms_{device}_2023-{month:02d}{name}"
    put_zip(landing / f"{stem}.zip", f"{stem}.csv", psql(rows))


def interleaved(device: str, month: int) -> list[Row]:
    one = bms_rows(device, datetime(2023, month, 5, 8), odometer_km=1000)
    two = bms_rows(device, datetime(2023, month, 5, 8, 0, 30), odometer_km=52_000)
    return sorted(one + two, key=lambda r: str(r["time"]))


@pytest.fixture(scope="module")
def checked(tmp_path_factory: pytest.TempPathFactory, parsed_dbt: Path) -> Settings:
    """One run over a good car and five that fail a check each in their own way."""
    homes = Homes(tmp_path_factory.mktemp("checked"), parsed_dbt)
    home = homes.new()
    landing, start = home.landing_dir, datetime(2023, 1, 5, 8)
    put(landing, GOOD, 1, bms_rows(GOOD, start))
    put(landing, BAD, 1, interleaved(BAD, 1))
    put(landing, BETWEEN, 1, bms_rows(BETWEEN, datetime(2023, 1, 31, 8), odometer_km=1000))
    put(landing, BETWEEN, 2, interleaved(BETWEEN, 2))
    put(landing, BETWEEN, 3, bms_rows(BETWEEN, datetime(2023, 3, 1, 8), odometer_km=1500))
    put(landing, REJECTED, 1, [{**row, "pack_volt": "n.a."} for row in bms_rows(REJECTED, start)])
    put(landing, TWICE, 1, bms_rows(TWICE, start), name="_a")
    put(landing, TWICE, 1, bms_rows(TWICE, start, speed_kmh=72), name="_b")
    put(landing, POSITIONS, 1, bms_rows(POSITIONS, start))
    for month in (1, 2):
        stem = f"gps_{POSITIONS}_2023-{month:02d}"
        rows = gps_rows(POSITIONS, datetime(2023, month, 5, 8), from_km=35.4 * (month - 1))
        put_zip(landing / f"{stem}.zip", f"{stem}.csv", psql(rows))
    with homes.chain(home) as chain:
        assert chain.run(Asked()).errors == [], "bad data are no error of the run"
    return home


def rows_of(home: Settings, query: str, device: str) -> list[tuple[object, ...]]:
    """Rows of a query on the published tables that asks for one device."""
    with duckdb.connect(str(home.publish / "fleet.duckdb"), read_only=True) as reader:
        return reader.execute(query, [device]).fetchall()


def latest(instance: dg.DagsterInstance, asset: str, partition: str) -> dg.AssetCheckEvaluation:
    key = dg.AssetCheckKey(dg.AssetKey(asset), f"{asset}_schema")
    records = instance.event_log_storage.get_asset_check_execution_history(key, limit=50)
    for record in records:
        event = record.event
        if event is None or event.dagster_event is None:
            continue
        made = event.dagster_event.event_specific_data
        if isinstance(made, dg.AssetCheckEvaluation) and made.partition == partition:
            return made
    raise AssertionError(f"no evaluation of {asset} for {partition}")


def test_each_partition_of_a_range_run_has_its_own_result(homes: Homes, checked: Settings) -> None:
    home = homes.copy(checked)
    with homes.chain(home) as chain:
        good = latest(chain.instance, "raw_bms", f"{GOOD}|2023-01")
        bad = latest(chain.instance, "raw_bms", f"{BAD}|2023-01")
        assert (good.passed, bad.passed) == (True, False)
        assert bad.severity is dg.AssetCheckSeverity.ERROR
        assert "interleaved_share" in str(bad.metadata["outcomes"].value)
        assert good.target_materialization_data is not None
        # the same partition again: the newest evaluation counts, and nothing is stored twice
        chain.run(Asked(devices=(BAD,)))
        assert latest(chain.instance, "raw_bms", f"{BAD}|2023-01").target_materialization_data != (
            bad.target_materialization_data
        )


def test_devices_and_sites_are_checked_like_every_mart(checked: Settings) -> None:
    query = "select count(*), bool_and(is_passed) from partition_quality where table_name = 'dim_device' "
    for device in (GOOD, BAD, REJECTED):
        count, is_passed = rows_of(checked, query + "and device_no = ?", device)[0]
        assert (bool(count), is_passed) == (True, True), device
    with Homes.chain(checked) as chain:
        for asset in ("charging_sites", "inspection_queue"):
            key = dg.AssetCheckKey(dg.AssetKey(asset), f"{asset}_schema")
            records = chain.instance.event_log_storage.get_asset_check_execution_history(key, limit=1)
            assert [str(record.status.value) for record in records] == ["SUCCEEDED"], asset


def test_a_gated_month_stays_visible_and_its_kilometres_are_a_gap_of_its_neighbours(checked: Settings) -> None:
    months = rows_of(
        checked,
        "select measured_month, distance_km, grade, verdict, published_state from fct_mileage_monthly "
        "where device_no = ? order by 1",
        BETWEEN,
    )
    assert [m[0] for m in months] == ["2023-01", "2023-02", "2023-03"]
    assert months[1][1:3] == (None, "D")
    assert "interleaved_share" in str(months[1][3])
    assert months[1][4] == "gated"
    # 36 km are logged on both sides; 464.6 km lie between the last row of January and the first of March
    january, march = months[0][1], months[2][1]
    assert isinstance(january, float)
    assert isinstance(march, float)
    assert january + march > 35.4 * 2
    assert january + march < 35.4 * 2 + 464.6
    assert gates(checked, BETWEEN) == {"interleaved_share"}


def gates(home: Settings, device: str) -> set[object]:
    query = "select check_name from partition_quality where device_no = ? and severity = 'gate' and not is_passed"
    return {name for (name,) in rows_of(home, query, device)}


def test_a_month_of_rejected_rows_alone_is_gated(checked: Settings) -> None:
    figures = rows_of(checked, "select grade, distance_km from fct_mileage_monthly where device_no = ?", REJECTED)
    assert figures == [("D", None)]
    assert rows_of(checked, "select count(*) from rejected_row where device_no = ?", REJECTED) == [(60,)]


def test_times_delivered_twice_with_different_content_gate_the_month(checked: Settings) -> None:
    assert gates(checked, TWICE) == {"conflicting_share"}
    assert gates(checked, GOOD) == set()


def test_a_correction_lifts_the_gate(homes: Homes, checked: Settings) -> None:
    home = homes.copy(checked)
    state = "select published_state, round(distance_km, 6) from fct_mileage_monthly where device_no = ?"
    assert rows_of(home, state, BAD) == [("gated", None)]
    stem = f"bms_{BAD}_2023-01"
    rows = bms_rows(BAD, datetime(2023, 1, 5, 8), n=62)
    put_zip(home.landing_dir / "again" / f"{stem}.zip", f"{stem}.csv", psql(rows), datetime(2023, 4, 1))
    with homes.chain(home) as chain:
        chain.run(Asked())
    assert rows_of(home, state, BAD) == [("current", 36.6)], "61 minutes at 36 km/h"


def test_a_month_with_positions_alone_is_no_verified_standstill(checked: Settings) -> None:
    found = rows_of(
        checked,
        "select distance_km, grade, verdict, message_count from fct_mileage_monthly where device_no = ? "
        "order by measured_month",
        POSITIONS,
    )
    assert found[1][3] == 0
    assert isinstance(found[1][0], float)
    assert abs(found[1][0] - 35.4) < 1.5, "59 minutes at 36 km/h, seen by GPS"
    assert found[1][1] == "C"
    assert "positions alone" in str(found[1][2])
