"""In a range run each partition has its own check result, and a partition that fails is kept out by data."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import dagster as dg
import duckdb

from baas_dagster.runs import Asked
from baas_dagster.settings import Settings
from tests.conftest import Homes
from tests.deliveries import Row, bms_rows, gps_rows, psql, put_zip

GOOD, BAD = "01290003001", "01290003002"


def put(landing: Path, device: str, month: int, rows: list[Row], name: str = "") -> None:
    stem = f"bms_{device}_2023-{month:02d}{name}"
    put_zip(landing / f"{stem}.zip", f"{stem}.csv", psql(rows))


def interleaved(month: int) -> list[Row]:
    one = bms_rows(BAD, datetime(2023, month, 5, 8), odometer_km=1000)
    two = bms_rows(BAD, datetime(2023, month, 5, 8, 0, 30), odometer_km=52_000)
    return sorted(one + two, key=lambda r: str(r["time"]))


def rows_of(home: Settings, query: str) -> list[tuple[object, ...]]:
    with duckdb.connect(str(home.publish / "fleet.duckdb"), read_only=True) as reader:
        return reader.sql(query).fetchall()


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


def test_each_partition_of_a_range_run_has_its_own_result(homes: Homes) -> None:
    home = homes.new()
    put(home.landing_dir, GOOD, 1, bms_rows(GOOD, datetime(2023, 1, 5, 8)))
    put(home.landing_dir, BAD, 1, interleaved(1))
    with homes.chain(home) as chain:
        done = chain.run(Asked())
        assert done.errors == [], "bad data are no error of the run"
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


def test_a_gated_month_stays_visible_and_its_kilometres_are_a_gap_of_its_neighbours(homes: Homes) -> None:
    home = homes.new()
    put(home.landing_dir, BAD, 1, bms_rows(BAD, datetime(2023, 1, 31, 8), odometer_km=1000))
    put(home.landing_dir, BAD, 2, interleaved(2))
    put(home.landing_dir, BAD, 3, bms_rows(BAD, datetime(2023, 3, 1, 8), odometer_km=1500))
    with homes.chain(home) as chain:
        chain.run(Asked())
    months = rows_of(
        home, "select measured_month, distance_km, grade, verdict, published_state from fct_mileage_monthly order by 1"
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
    checks = rows_of(home, "select check_name from partition_quality where not is_passed and severity = 'gate'")
    assert ("interleaved_share",) in checks


def test_a_month_of_rejected_rows_alone_is_gated(homes: Homes) -> None:
    home = homes.new()
    rows = bms_rows(BAD, datetime(2023, 1, 5, 8))
    put(home.landing_dir, BAD, 1, [{**row, "pack_volt": "n.a."} for row in rows])
    with homes.chain(home) as chain:
        chain.run(Asked())
    assert rows_of(home, "select grade, distance_km from fct_mileage_monthly") == [("D", None)]
    assert rows_of(home, "select count(*) from rejected_row") == [(60,)]


def test_times_delivered_twice_with_different_content_gate_the_month(homes: Homes) -> None:
    home = homes.new()
    start = datetime(2023, 1, 5, 8)
    put(home.landing_dir, BAD, 1, bms_rows(BAD, start), name="_a")
    put(home.landing_dir, BAD, 1, bms_rows(BAD, start, speed_kmh=72), name="_b")
    with homes.chain(home) as chain:
        chain.run(Asked())
    found = rows_of(home, "select check_name from partition_quality where severity = 'gate' and not is_passed")
    assert found == [("conflicting_share",)]


def test_a_correction_lifts_the_gate(homes: Homes) -> None:
    home = homes.new()
    put(home.landing_dir, BAD, 1, interleaved(1))
    with homes.chain(home) as chain:
        chain.run(Asked())
        assert rows_of(home, "select published_state from fct_mileage_monthly") == [("gated",)]
        stem = f"bms_{BAD}_2023-01"
        rows = bms_rows(BAD, datetime(2023, 1, 5, 8), n=62)
        put_zip(home.landing_dir / "again" / f"{stem}.zip", f"{stem}.csv", psql(rows), datetime(2023, 4, 1))
        chain.run(Asked())
    found = rows_of(home, "select published_state, round(distance_km, 6) from fct_mileage_monthly")
    assert found == [("current", 36.6)], "61 minutes at 36 km/h"


def test_a_month_with_positions_alone_is_no_verified_standstill(homes: Homes) -> None:
    home = homes.new()
    put(home.landing_dir, GOOD, 1, bms_rows(GOOD, datetime(2023, 1, 5, 8)))
    for month in (1, 2):
        stem = f"gps_{GOOD}_2023-{month:02d}"
        rows = gps_rows(GOOD, datetime(2023, month, 5, 8), from_km=35.4 * (month - 1))
        put_zip(home.landing_dir / f"{stem}.zip", f"{stem}.csv", psql(rows))
    with homes.chain(home) as chain:
        assert chain.run(Asked()).errors == []
    found = rows_of(
        home, "select distance_km, grade, verdict, message_count from fct_mileage_monthly order by measured_month"
    )
    assert found[1][3] == 0
    assert isinstance(found[1][0], float)
    assert abs(found[1][0] - 35.4) < 1.5, "59 minutes at 36 km/h, seen by GPS"
    assert found[1][1] == "C"
    assert "positions alone" in str(found[1][2])
