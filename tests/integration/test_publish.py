"""The published snapshot: a device whose marts fail their checks keeps its last good figures and says so."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

import duckdb
import pandera.polars as pa
import polars as pl
import pytest

from baas_dagster.runs import Asked
from baas_dagster.schemas.marts import MART_CHECKS
from baas_dagster.settings import Settings
from tests.conftest import Homes
from tests.deliveries import bms_rows, psql, put_zip

ONE, TWO = "01290006001", "01290006002"


def deliver(landing: Path, device: str, n: int, delivered: datetime) -> None:
    stem = f"bms_{device}_2023-01"
    rows = bms_rows(device, datetime(2023, 1, 5, 8), n=n)
    put_zip(landing / f"{delivered:%Y%m%d}" / f"{stem}.zip", f"{stem}.csv", psql(rows), delivered)


def months(home: Settings) -> list[tuple[object, ...]]:
    query = "select device_no, round(distance_km, 3), published_state from fct_mileage_monthly order by 1"
    with duckdb.connect(str(home.publish / "fleet.duckdb"), read_only=True) as reader:
        return reader.sql(query).fetchall()


@pytest.fixture(scope="module")
def two_cars(tmp_path_factory: pytest.TempPathFactory, parsed_dbt: Path) -> Settings:
    """A home after a run over one month of two cars, to be copied."""
    home = Homes(tmp_path_factory.mktemp("two"), parsed_dbt).new()
    deliver(home.landing_dir, ONE, 61, datetime(2023, 2, 1))
    deliver(home.landing_dir, TWO, 61, datetime(2023, 2, 1))
    with Homes.chain(home) as chain:
        assert chain.run(Asked()).errors == []
    return home


def test_a_device_that_fails_its_checks_keeps_its_last_good_figures(
    homes: Homes, two_cars: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = homes.copy(two_cars)
    too_far = pa.DataFrameSchema(
        {"distance_km": pa.Column(pl.Float64, pa.Check.le(50, error="month_distance_possible"), nullable=True)}
    )
    with homes.chain(home) as chain:
        assert months(home) == [(ONE, 36.0, "current"), (TWO, 36.0, "current")]
        deliver(home.landing_dir, ONE, 101, datetime(2023, 3, 1))
        deliver(home.landing_dir, TWO, 71, datetime(2023, 3, 1))
        with monkeypatch.context() as patch:
            patch.setitem(MART_CHECKS, "fct_mileage_monthly", too_far)
            chain.run(Asked())
        assert months(home) == [(ONE, 36.0, "kept"), (TWO, 42.0, "current")]
        quality = "select count(*) from partition_quality where device_no = '01290006001' and severity = 'hold'"
        with duckdb.connect(str(home.publish / "fleet.duckdb"), read_only=True) as reader:
            assert reader.sql(f"{quality} and not is_passed").fetchall() == [(1,)], "the reason is published"
        manifest = json.loads((home.publish / "manifest.json").read_text())
        assert manifest["kept_devices"] == [ONE]
        chain.run(Asked(devices=(ONE,)))
    assert months(home) == [(ONE, 60.0, "current"), (TWO, 42.0, "current")]


def test_an_unchanged_table_keeps_its_parquet_file(homes: Homes, two_cars: Settings) -> None:
    home = homes.copy(two_cars)
    with homes.chain(home) as chain:
        first = (home.publish / "parquet" / "dim_device" / "data.parquet").stat().st_ino
        folder = (home.publish / "parquet").resolve()
        assert chain.publish().errors == []
    assert (home.publish / "parquet").resolve() != folder
    assert (home.publish / "parquet" / "dim_device" / "data.parquet").stat().st_ino == first
    assert (folder / "dim_device" / "data.parquet").exists(), "a reader of the manifest before still finds its files"
