"""What several assets share: the keys and the scope of a run, running dbt, and how a partition's rows are replaced."""

import gc
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

import dagster as dg
import duckdb
import polars as pl

from baas_dagster.partitions import PartitionId
from baas_dagster.resources import Dbt, DbtFailed, Lake, Warehouse, insert
from baas_dagster.schemas.outcome import Outcome
from baas_dagster.settings import Settings
from baas_dagster.state import Unit, load, mark_failed
from baas_dagster.telemetry.columns import TableKind

__all__ = [
    "asked", "in_parallel", "log_good_partitions", "materialized", "only_new_garbage", "raw_files", "replace_devices",
    "replace_partitions", "run_dbt", "set_scope", "table_schema", "write_quality",
]  # fmt: skip

T = TypeVar("T")
R = TypeVar("R")


def asked(context: dg.AssetExecutionContext) -> list[str]:
    """The partition keys of this run; a run that covers none would succeed silently, so it is refused."""
    keys = list(context.partition_keys)
    if not keys:
        raise dg.Failure(
            "the run covers no partition: its range runs against the order in which devices were registered"
        )
    return keys


@contextmanager
def only_new_garbage() -> Iterator[None]:
    """Let garbage collection look at nothing that is there already, while many small objects are made.

    Dagster and dbt hold millions of objects for good; walking through all of them again was a third of stitching.
    """
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def in_parallel(function: Callable[[T], R], items: Sequence[T], threads: int) -> list[R]:
    """Apply `function` on threads (readers and writers of Parquet let go of the interpreter); order is kept."""
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(function, items))


def materialized(
    context: dg.AssetExecutionContext, asset: str, metadata: Mapping[str, Mapping[str, Any]]
) -> dg.MaterializeResult[None]:
    """The result of an asset all of whose keys were made; each partition's event carries its own metadata."""
    key = dg.AssetKey(asset)
    for partition, values in metadata.items():
        if values:
            context.add_asset_metadata(dict(values), asset_key=key, partition_key=partition)
    return dg.MaterializeResult(asset_key=key)


def log_good_partitions(
    context: dg.AssetExecutionContext, asset: str, metadata: Mapping[str, Mapping[str, Any]]
) -> None:
    """Materializations of the keys that were made, for a run that fails because others could not be."""
    for partition, values in metadata.items():
        context.log_event(dg.AssetMaterialization(asset, partition=partition, metadata=dict(values)))


def table_schema(columns: Iterable[tuple[str, str, str | None]]) -> dg.TableSchema:
    """Dagster's table schema of (name, type, description)."""
    return dg.TableSchema([dg.TableColumn(n, t, description=d) for n, t, d in columns])


def set_scope(
    connection: duckdb.DuckDBPyConnection,
    partitions: Sequence[PartitionId],
    files: Mapping[str, Sequence[str]],
) -> None:
    """Write what the coming dbt run replaces into the scope tables, which macros/scope.sql reads."""
    connection.execute("begin")
    for table in ("scope_partition", "scope_device", "scope_file"):
        connection.execute(f"delete from ops.{table}")
    insert(connection, "ops.scope_partition", [(p.device_no, p.measured_month) for p in partitions])
    insert(connection, "ops.scope_device", [(d,) for d in sorted({p.device_no for p in partitions})])
    insert(connection, "ops.scope_file", [(kind, path) for kind, paths in files.items() for path in paths])
    connection.execute("commit")


def raw_files(connection: duckdb.DuckDBPyConnection, lake: Lake, parts: Sequence[PartitionId]) -> dict[str, list[str]]:
    """The raw files of these partitions, and one typed empty file per kind."""
    wanted = {(p.device_no, p.measured_month) for p in parts}
    files = {str(kind): [str(lake.empty_path(kind))] for kind in TableKind}
    rows = connection.execute(
        "select kind, device_no, measured_month, path from ops.raw_partition where path is not null"
    ).fetchall()
    for kind, device, month, path in rows:
        if (device, month) in wanted:
            files[kind].append(str(lake.path / path))
    return files


def run_dbt(
    dbt: Dbt, warehouse: Warehouse, settings: Settings, unit: Unit, models: Sequence[str], keys: Sequence[str]
) -> Mapping[str, float]:
    """Run dbt; when it fails, the units of this run are recorded as failed with dbt's words."""
    try:
        return dbt.run(models)
    except DbtFailed as error:
        with warehouse.open() as connection:
            wanted = load(connection, settings).wanted[unit]
            mark_failed(connection, unit, {key: wanted[key] for key in keys if key in wanted}, str(error))
        raise dg.Failure(f"dbt: {error}") from error


def replace_devices(
    connection: duckdb.DuckDBPyConnection,
    devices: Sequence[str],
    tables: Mapping[str, tuple[Sequence[pl.DataFrame], Mapping[str, Any]]],
) -> None:
    """Replace the rows of these devices in tables of the schema `stitched`, in one transaction.

    `tables`: name -> (frames of new rows, schema of the columns).
    """
    connection.execute("begin")
    for table, (frames, schema) in tables.items():
        new = pl.concat([pl.DataFrame(schema=dict(schema)), *frames])
        connection.register("new_rows", new.to_arrow())
        _create(connection, f"stitched.{table}")
        connection.execute(f"delete from stitched.{table} where device_no in (select unnest(?::varchar[]))", [devices])
        connection.execute(f"insert into stitched.{table} by name select * from new_rows")
        connection.unregister("new_rows")
    connection.execute("commit")


def replace_partitions(
    connection: duckdb.DuckDBPyConnection, table: str, partitions: Sequence[PartitionId], rows: pl.DataFrame
) -> None:
    """Replace the rows of these partitions in a table with columns device_no and measured_month, in one transaction."""
    connection.execute("create or replace temp table replaced_scope (device_no varchar, measured_month varchar)")
    insert(connection, "replaced_scope", [(p.device_no, p.measured_month) for p in partitions])
    connection.execute("begin")
    connection.register("new_rows", rows.to_arrow())
    _create(connection, table)
    connection.execute(
        f"delete from {table} where (device_no, measured_month) in "
        "(select device_no, measured_month from replaced_scope)"
    )
    connection.execute(f"insert into {table} by name select * from new_rows")
    connection.unregister("new_rows")
    connection.execute("commit")


def _create(connection: duckdb.DuckDBPyConnection, table: str) -> None:
    """An empty table with the columns of `new_rows`. One with other columns is from older code: all of it is stale."""
    connection.execute(f"create table if not exists {table} as select * from new_rows where false")
    described = "select string_agg(column_name || column_type, ',') from (describe select * from {})"
    old, new = (connection.execute(described.format(name)).fetchall() for name in (table, "new_rows"))
    if old != new:
        connection.execute(f"create or replace table {table} as select * from new_rows where false")


def write_quality(
    connection: duckdb.DuckDBPyConnection,
    table_name: str,
    found: Mapping[PartitionId, Sequence[Outcome]],
    *,
    devices: Sequence[str] | None = None,
) -> None:
    """Replace the rows of ops.partition_quality of one table: for these partitions, or for all months of `devices`."""
    if devices is None:
        connection.execute("create or replace temp table quality_scope (device_no varchar, measured_month varchar)")
        insert(connection, "quality_scope", [(p.device_no, p.measured_month) for p in found])
        connection.execute(
            "delete from ops.partition_quality where table_name = ? "
            "and (device_no, measured_month) in (select device_no, measured_month from quality_scope)",
            [table_name],
        )
    else:
        connection.execute(
            "delete from ops.partition_quality where table_name = ? and device_no in (select unnest(?::varchar[]))",
            [table_name, list(devices)],
        )
    insert(
        connection,
        "ops.partition_quality",
        [
            (
                p.measured_month, p.device_no, table_name, o.check_name, str(o.severity), o.is_passed, o.rows_checked,
                o.rows_failed, o.example,
            )
            for p, outcomes in found.items()
            for o in outcomes
        ],
    )  # fmt: skip
