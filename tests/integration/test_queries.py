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


@pytest.fixture
def reader(ran: Settings) -> duckdb.DuckDBPyConnection:
    return duckdb.connect(str(ran.publish / "fleet.duckdb"), read_only=True)


def test_every_query_of_the_page_is_found() -> None:
    assert len(QUERIES) == PAGE.count("```sql") >= 10


@pytest.mark.parametrize("title", QUERIES)
def test_a_query_of_the_page_runs(reader: duckdb.DuckDBPyConnection, title: str) -> None:
    rows = reader.execute(QUERIES[title]).fetchall()
    # the fleet lacks no month; to everything else its quirks give an answer
    assert rows or "missing" in title


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
