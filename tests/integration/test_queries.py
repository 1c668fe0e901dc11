"""The queries of docs/queries.md run on a published snapshot, and the dictionary describes what is in it."""

from __future__ import annotations

import re

import duckdb
import pytest

from baas_dagster.dictionary import published_tables
from baas_dagster.resources import dbt_manifest
from baas_dagster.settings import PROJECT_ROOT, Settings

PAGE = (PROJECT_ROOT / "docs" / "queries.md").read_text(encoding="utf-8")
QUERIES: dict[str, str] = dict(re.findall(r"^## (.+?)\n.*?```sql\n(.+?)```", PAGE, flags=re.DOTALL | re.MULTILINE))

NOTHING_TO_SAY = {
    3: "no month is missing",
    16: "no counter drifts",
    21: "a row a minute makes no current steps",
    22: "two months, and no current steps",
    26: "three cars of three types",
}
"""Number of a query -> why the fleet `tiny` has no answer to it."""


@pytest.fixture
def reader(ran: Settings) -> duckdb.DuckDBPyConnection:
    return duckdb.connect(str(ran.publish / "fleet.duckdb"), read_only=True)


def test_every_query_of_the_page_is_found() -> None:
    assert len(QUERIES) == PAGE.count("```sql") >= 10


@pytest.mark.parametrize("title", QUERIES)
def test_a_query_of_the_page_runs(reader: duckdb.DuckDBPyConnection, title: str) -> None:
    rows = reader.execute(QUERIES[title]).fetchall()
    assert bool(rows) == (int(title.partition(". ")[0]) not in NOTHING_TO_SAY)


def test_a_counter_that_was_reset_is_not_listed_as_unbelievable(ran: Settings) -> None:
    title = next(title for title in QUERIES if title.startswith("16. "))
    columns = "device_no, measured_month, verdict, reason, charge_balance_ratio, current_offset_a"
    with duckdb.connect() as connection:
        connection.execute(f"attach '{ran.publish / 'fleet.duckdb'}' as fleet (read_only)")
        connection.execute(
            f"create table fct_counter_audit_monthly as select {columns}, implied_voltage_v, op_time_ratio "
            "from fleet.fct_counter_audit_monthly limit 0"
        )
        for month, verdict in enumerate(("ok", "drift", "reset", "insufficient"), start=1):
            values = f"'01290001001', '2023-0{month}', '{verdict}', 'why'"
            connection.execute(f"insert into fct_counter_audit_monthly values ({values}, 1, 0, 350, 1)")
        assert [row[1:3] for row in connection.execute(QUERIES[title]).fetchall()] == [("2023-02", "why")]


def test_a_pack_keeps_its_last_figure_in_the_list_of_the_worst(ran: Settings) -> None:
    title = next(title for title in QUERIES if title.startswith("11. "))
    with duckdb.connect() as connection:
        connection.execute(f"attach '{ran.publish / 'fleet.duckdb'}' as fleet (read_only)")
        connection.execute("create table fct_soh_monthly as select * from fleet.fct_soh_monthly")
        asked = "select device_no, max(measured_month) from fct_soh_monthly group by 1 having count(soh_pct) > 1"
        device, newest = connection.execute(asked).fetchall()[0]
        connection.execute(
            "update fct_soh_monthly set soh_pct = null where device_no = ? and measured_month = ?", [device, newest]
        )
        found = {row[0]: row[1:3] for row in connection.execute(QUERIES[title]).fetchall()}
    month, soh = found[device]
    assert month < newest
    assert soh is not None


def test_every_published_column_is_described(reader: duckdb.DuckDBPyConnection, ran: Settings) -> None:
    described = {table.name: table for table in published_tables(dbt_manifest(ran))}
    published: dict[str, list[tuple[str, str]]] = {}
    for table, column, data_type in reader.execute(
        "select table_name, column_name, lower(data_type) from duckdb_columns() where not internal"
    ).fetchall():
        published.setdefault(table, []).append((column, data_type))
    assert sorted(published) == sorted(described)
    for name, columns in published.items():
        assert sorted(columns) == sorted((c.name, c.data_type) for c in described[name].columns), name
