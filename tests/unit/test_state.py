"""What needs a run: what would come out different, what is below something pending, what failed."""

from __future__ import annotations

import shutil
from dataclasses import asdict
from pathlib import Path

import duckdb
import pytest

from baas_dagster.partitions import PartitionId
from baas_dagster.resources import insert, platform_tables
from baas_dagster.settings import PROJECT_ROOT, Settings
from baas_dagster.state import State, Unit, code_versions, load, mark, mark_failed

D = "01290005001"
KEY = f"{D}|2023-01"


@pytest.fixture
def warehouse() -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect()
    connection.execute(platform_tables())
    return connection


def deliver(connection: duckdb.DuckDBPyConnection, source: str, device: str = D, month: str = "2023-01") -> None:
    insert(connection, "ops.delivered_file", [(source, "p1", None, "ok", None, None)], or_replace=True)
    row = (source, source, "bms", device, month, f"{source}.parquet", 10, None, None, "l", True, source, None, 0)
    insert(connection, "ops.delivered_slice", [row])
    insert(connection, "ops.landing_file", [(source, 1, 1, source, True)], or_replace=True)


def state(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> State:
    return load(connection, Settings(home=tmp_path))


def names(found: State, **options: bool) -> dict[str, list[tuple[str, str]]]:
    plan = found.plan(**options)
    return {str(unit): [(w.key, w.reason) for w in work] for unit, work in plan.items() if work}


def bring_up_to_date(connection: duckdb.DuckDBPyConnection, tmp_path: Path, *, without: Unit | None = None) -> None:
    for unit in Unit:
        if unit is not without:
            mark(connection, unit, state(connection, tmp_path).made[unit])


def test_an_empty_platform_has_nothing_to_do(warehouse: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    assert names(state(warehouse, tmp_path)) == {}


def test_a_new_slice_makes_everything_above_it_new(warehouse: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    deliver(warehouse, "a")
    found = names(state(warehouse, tmp_path))
    assert found["raw_bms"] == [(KEY, "new")]
    assert found["decision"] == found["device"] == [(D, "new")]
    assert found["fleet"] == [("fleet", "new")]
    bring_up_to_date(warehouse, tmp_path)
    assert names(state(warehouse, tmp_path)) == {}


def test_another_slice_touches_its_own_partition_and_device_alone(
    warehouse: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    other = "01290005002"
    deliver(warehouse, "a")
    deliver(warehouse, "b", device=other)
    deliver(warehouse, "c", month="2023-02")
    bring_up_to_date(warehouse, tmp_path)
    deliver(warehouse, "d")
    found = names(state(warehouse, tmp_path))
    assert found["raw_bms"] == [(KEY, "changed")]
    assert found["local"] == [(KEY, "changed")]
    assert found["device"] == [(D, "changed")]


def test_a_changed_decision_makes_all_months_of_its_device_stale(
    warehouse: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    deliver(warehouse, "a")
    deliver(warehouse, "c", month="2023-02")
    bring_up_to_date(warehouse, tmp_path)
    row = (D, None, None, None, None, None, None, None, None, None, "new content", None)
    insert(warehouse, "ops.device_setting", [row])
    found = names(state(warehouse, tmp_path))
    assert "raw_bms" not in found
    assert [key for key, _ in found["local"]] == [KEY, f"{D}|2023-02"]


def test_an_override_makes_the_decision_stale(warehouse: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    deliver(warehouse, "a")
    bring_up_to_date(warehouse, tmp_path)
    text = f"device_no,decision,layout_id,value\n{D},current_sign,,-1\n"
    (tmp_path / "decision_overrides.csv").write_text(text, encoding="utf-8")
    assert names(state(warehouse, tmp_path))["decision"] == [(D, "changed")]


def test_what_only_waits_for_something_failed_is_not_run_again(
    warehouse: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    deliver(warehouse, "a")
    mark_failed(warehouse, Unit.RAW_BMS, state(warehouse, tmp_path).wanted[Unit.RAW_BMS], "no space left on device")
    bring_up_to_date(warehouse, tmp_path, without=Unit.RAW_BMS)
    found = state(warehouse, tmp_path)
    assert names(found, retry_failed=False) == {}
    assert found.failed() == [(Unit.RAW_BMS, KEY, "no space left on device")]
    again = names(found)
    assert again["raw_bms"] == [(KEY, "failed")]
    assert again["local"] == [(KEY, "changed")], "what is above a unit that is tried again is run too"


def test_a_failed_unit_whose_input_changed_is_changed_not_failed(
    warehouse: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    deliver(warehouse, "a")
    mark_failed(warehouse, Unit.RAW_BMS, state(warehouse, tmp_path).wanted[Unit.RAW_BMS], "no space left on device")
    deliver(warehouse, "b")
    assert names(state(warehouse, tmp_path), retry_failed=False)["raw_bms"] == [(KEY, "changed")]


def test_the_weight_of_a_partition_is_its_delivered_rows(warehouse: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    deliver(warehouse, "a")
    deliver(warehouse, "b")
    assert state(warehouse, tmp_path).weight == {PartitionId(D, "2023-01"): 20}


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the code, to be changed."""
    folder = tmp_path_factory.mktemp("sources")
    for name in ("baas_dagster", "dbt_project"):
        ignored = shutil.ignore_patterns("__pycache__", "target", "logs")
        shutil.copytree(PROJECT_ROOT / name, folder / name, ignore=ignored)
    return folder


def units_that_change_with(sources: Path, name: str) -> set[str]:
    def versions() -> dict[str, str]:
        code_versions.cache_clear()
        return asdict(code_versions(sources / "baas_dagster", sources / "dbt_project"))

    path, before = sources / name, versions()
    kept = path.read_bytes()
    path.write_bytes(kept + b"\n")
    after = versions()
    path.write_bytes(kept)
    return {unit for unit in before if before[unit] != after[unit]}


@pytest.mark.parametrize(
    ("name", "units"),
    [
        ("assets/raw.py", {"raw"}),
        ("assets/decisions.py", {"decision"}),
        ("assets/marts.py", {"local", "device", "health"}),
        ("assets/battery.py", {"health"}),
        ("battery/rules.py", {"health"}),
        ("assets/anomalies.py", {"evidence", "anomaly"}),
        ("assets/queue.py", {"fleet"}),
        ("assets/sites.py", {"fleet"}),
        ("assets/publish.py", {"fleet"}),
        ("../dbt_project/seeds/pack_type.csv", {"decision"}),
        ("../dbt_project/seeds/ocv_reference.csv", {"health"}),
    ],
)
def test_what_makes_a_unit_is_in_its_fingerprint(sources: Path, name: str, units: set[str]) -> None:
    assert units_that_change_with(sources, f"baas_dagster/{name}") == units


def test_every_asset_that_makes_a_unit_and_every_seed_is_in_a_fingerprint(sources: Path) -> None:
    found = [*(sources / "baas_dagster" / "assets").glob("*.py"), *(sources / "dbt_project" / "seeds").glob("*.csv")]
    names = {path.name: path.relative_to(sources).as_posix() for path in found}
    in_none = {name for name, path in names.items() if not units_that_change_with(sources, path)}
    # taking in and releasing make inputs, which count by content; the rest is how any asset runs
    assert in_none == {"__init__.py", "common.py", "landing.py", "release.py"}
