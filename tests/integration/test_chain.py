"""The whole chain on the fleet `tiny`: real Dagster, dbt and DuckDB, figures against the simulator's truth."""

from __future__ import annotations

from pathlib import Path

import duckdb
import polars as pl

from baas_dagster.runs import Asked, Chain
from baas_dagster.settings import Settings
from baas_dagster.state import Unit
from tests.conftest import Homes


def published(settings: Settings, query: str) -> pl.DataFrame:
    with duckdb.connect(str(settings.publish / "fleet.duckdb"), read_only=True) as reader:
        found = pl.from_arrow(reader.sql(query).to_arrow_table())
    assert isinstance(found, pl.DataFrame)
    return found


def test_every_month_of_every_car_is_within_its_stated_uncertainty(ran: Settings, tiny: tuple[Path, Path]) -> None:
    truth = pl.read_parquet(tiny[1] / "truth_month.parquet").select(
        "device_no", "measured_month", true_km="distance_km", gated="gated_because"
    )
    months = published(ran, "select * from fct_mileage_monthly")
    joined = truth.join(months, on=["device_no", "measured_month"], how="full", coalesce=True)
    assert joined.height == truth.height == months.height, "a row for every month that was delivered, and no other"
    judged = joined.filter(pl.col("published_state") != "gated")
    outside = judged.filter(
        ~pl.col("true_km").is_between(pl.col("distance_lo_km") - 1e-6, pl.col("distance_hi_km") + 1e-6)
    )
    assert outside.select("device_no", "measured_month", "true_km", "distance_km").rows() == []


def test_days_add_up_to_months(ran: Settings) -> None:
    found = published(
        ran,
        """
        select
            m.device_no, m.measured_month, m.distance_km, m.unlogged_km,
            sum(d.distance_km) as days_km, sum(d.unlogged_km) as days_un,
        from fct_mileage_monthly as m inner join fct_mileage_daily as d using (device_no, measured_month)
        where m.published_state <> 'gated' group by all
        """,
    )
    assert found.height > 0
    assert (found["distance_km"] - found["days_km"]).abs().max() < 1e-6
    assert (found["unlogged_km"] - found["days_un"]).abs().max() < 1e-6


def test_sign_and_scale_of_every_car_are_right(ran: Settings, tiny: tuple[Path, Path]) -> None:
    truth = pl.read_parquet(tiny[1] / "truth_device.parquet")
    found = published(
        ran, "select device_no, delivered_current_sign, delivered_voltage_scale, cell_count from dim_device"
    )
    joined = truth.join(found, on="device_no", suffix="_found")
    assert joined.height == truth.height
    for column in ("delivered_current_sign", "delivered_voltage_scale", "cell_count"):
        assert joined[column].to_list() == joined[f"{column}_found"].to_list(), column


def test_channels_that_a_car_lacks_are_known_and_counted_as_no_value(ran: Settings) -> None:
    # the simulated cars of odd index lack power and cabin temperature, those of every third the mean of the modules
    lacking = {"01291": {"batt_pw", "int_temp", "mod_avg_temp"}, "01290": set(), "01292": set()}
    found = published(ran, "select * from device_decision where decision = 'unsupported_channels'")
    values = dict(found.select("device_no", "value").rows())
    assert len(values) == len(lacking)
    for device, value in values.items():
        assert set(value.split()) & {"batt_pw", "int_temp", "mod_avg_temp"} == lacking[device[:5]], device
    counted = published(ran, "select * from partition_quality where check_name = 'unsupported_channel'")
    assert (counted["rows_failed"] == counted["rows_checked"]).all()
    assert set(counted["example"]) == set(values.values()) - {"none"}


def test_every_delivered_row_is_accounted_for(ran: Settings, tiny: tuple[Path, Path]) -> None:
    files = published(ran, "select * from delivery where kind in ('bms', 'gps')")
    lost = files.filter(
        pl.col("rows_read")
        != pl.col("rows_kept") + pl.col("rows_duplicate") + pl.col("rows_superseded") + pl.col("rows_rejected")
    )
    assert lost.select("file_name", "rows_read", "rows_kept").rows() == []
    truth = pl.read_parquet(tiny[1] / "truth_file.parquet")
    is_table = pl.col("is_data") & pl.col("kind").is_in(["bms", "gps"])
    written = truth.filter(is_table & ~pl.col("quirks").list.contains("byte_identical_copy"))
    assert files["rows_read"].sum() == written["data_rows"].sum()
    assert files["rows_rejected"].sum() == written["broken_rows"].sum()


def test_rejected_rows_name_file_row_and_reason(ran: Settings) -> None:
    rejected = published(ran, "select * from rejected_row")
    assert rejected.height > 0
    assert rejected.filter(pl.any_horizontal(pl.col("file_name", "reason").is_null())).height == 0
    assert rejected.filter(pl.col("source_row").is_null()).height == 0


def test_a_second_run_finds_nothing_to_do(ran: Settings, homes: Homes) -> None:
    with homes.chain(ran) as chain:
        before = (ran.publish / "manifest.json").read_bytes()
        done = chain.run(Asked())
        assert done.keys == {"intake": 0}
        assert (ran.publish / "manifest.json").read_bytes() == before
        assert all(not chain.state().work(unit) for unit in Unit)


def test_an_older_client_can_open_the_snapshot(ran: Settings) -> None:
    header = (ran.publish / "fleet.duckdb").read_bytes()[:64]
    # bytes 8..11: magic; the storage version number follows as a 64-bit integer: 64 is what 1.0 writes
    assert header[8:12] == b"DUCK"
    assert int.from_bytes(header[12:20], "little") == 64


def test_the_parquet_tables_are_those_of_the_manifest(ran: Settings) -> None:
    import json

    manifest = json.loads((ran.publish / "manifest.json").read_text())
    for name, table in manifest["tables"].items():
        rows = pl.read_parquet(ran.publish / "parquet" / name / "data.parquet").height
        assert rows == table["rows"] == published(ran, f"select count(*) as n from {name}")["n"][0], name


def one_partition(chain: Chain) -> str:
    return chain.state().partitions[0].key


def test_a_named_partition_runs_alone(homes: Homes, tiny: tuple[Path, Path]) -> None:
    settings = homes.new(tiny[0])
    with homes.chain(settings) as chain:
        chain.run(Asked(months=("2023-01", "2023-01"), devices=("01290001001",)))
        state = chain.state()
        made = {unit: sorted(state.held[unit]) for unit in Unit}
    assert made[Unit.RAW_BMS] == made[Unit.LOCAL] == ["01290001001|2023-01"]
    assert made[Unit.DEVICE] == ["01290001001"]
    months = published(
        settings, "select device_no, measured_month from fct_mileage_monthly where distance_km is not null"
    )
    assert months.rows() == [("01290001001", "2023-01")]


def test_no_check_fails_on_cars_of_which_nothing_is_wrong(ran: Settings) -> None:
    with duckdb.connect(str(ran.publish / "fleet.duckdb"), read_only=True) as reader:
        failed = reader.sql(
            "select distinct table_name, check_name, severity from partition_quality "
            "where severity in ('gate', 'hold', 'flag') and not is_passed order by all"
        ).fetchall()
    assert failed == []
