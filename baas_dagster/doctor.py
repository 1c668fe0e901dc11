"""Looking after the platform's own files: what is broken, what a killed run left behind, and making it good.

Belongs here: examining lake, warehouse, snapshot and locks. Does not belong here: rebuilding figures; what is broken is
marked as such, and `baas run` rebuilds it like anything else that is not up to date.
"""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from baas_dagster.automation import free_dead_runs
from baas_dagster.resources import Warehouse, WarehouseBusy
from baas_dagster.runs import instance_of
from baas_dagster.settings import Settings

__all__ = ["Findings", "examine"]


@dataclass
class Findings:
    """What is broken, and what is worth knowing."""

    broken: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def examine(settings: Settings, *, repair: bool) -> Findings:
    """Look at everything; with `repair` remove leftovers and mark what is broken as not up to date."""
    found = Findings()
    warehouse = Warehouse.of(settings)
    try:
        with warehouse.locked(timeout_s=5):
            is_usable = _warehouse_file(settings, warehouse, found, repair=repair)
            if is_usable:
                with warehouse.open() as connection:
                    _raw_files(connection, settings, found, repair=repair)
                    _slices(connection, settings, found, repair=repair)
            _leftovers(settings, found, repair=repair)
            _snapshot(settings, warehouse, found, repair=repair)
    except WarehouseBusy as busy:
        found.notes.append(f"a run is at work, nothing examined: {busy}")
        return found
    with instance_of(settings) as instance:
        freed = free_dead_runs(instance)
    if freed:
        found.notes.append(f"{len(freed)} runs whose process is gone were marked as failed")
    return found


def _warehouse_file(settings: Settings, warehouse: Warehouse, found: Findings, *, repair: bool) -> bool:
    """True where the warehouse can be read, or has been moved aside for a new one."""
    if not settings.warehouse.exists():
        found.notes.append("no warehouse yet: nothing has been run")
        return False
    try:
        with warehouse.open() as connection:
            connection.execute("select count(*) from ops.unit_state").fetchall()
    except (
        duckdb.IOException,
        duckdb.SerializationException,
        duckdb.FatalException,
        duckdb.InternalException,
    ) as error:
        found.broken.append(f"the warehouse cannot be opened: {error}")
        if repair:
            aside = settings.warehouse.with_suffix(f".broken-{int(time.time())}")
            settings.warehouse.replace(aside)
            settings.warehouse.with_suffix(".duckdb.wal").unlink(missing_ok=True)
            found.notes.append(f"moved aside to {aside.name}; everything in it is made again from the landing")
        return repair
    return True


def _raw_files(connection: duckdb.DuckDBPyConnection, settings: Settings, found: Findings, *, repair: bool) -> None:
    for kind, device, month, rows, path in connection.execute(
        "select kind, device_no, measured_month, row_count, path from ops.raw_partition where path is not null"
    ).fetchall():
        problem = _parquet_problem(settings.lake / path, rows)
        if problem:
            found.broken.append(f"raw {kind} {device} {month}: {problem}")
            if repair:
                connection.execute(
                    "delete from ops.unit_state where unit = ? and key = ?", [f"raw_{kind}", f"{device}|{month}"]
                )


def _slices(connection: duckdb.DuckDBPyConnection, settings: Settings, found: Findings, *, repair: bool) -> None:
    for sha, path, rows in connection.execute(
        "select sha256, path, row_count from ops.delivered_slice where row_count > 0"
    ).fetchall():
        problem = _parquet_problem(settings.lake / path, rows)
        if problem:
            found.broken.append(f"delivered slice {path}: {problem}")
            if repair:  # an unknown parser makes the next intake read the file again
                connection.execute("update ops.delivered_file set parser = 'broken' where sha256 = ?", [sha])
    known = {path for (path,) in connection.execute("select path from ops.delivered_slice").fetchall()}
    folder = settings.lake / "delivered"
    for kind in ("bms", "gps"):
        for path in (folder / kind).rglob("*.parquet"):
            if path.relative_to(settings.lake).as_posix() not in known:
                found.broken.append(f"{path.relative_to(settings.lake)} is in no delivery: left by a killed run")
                if repair:
                    path.unlink()


def _parquet_problem(path: Path, rows: int) -> str | None:
    if not path.exists():
        return "the file is missing"
    try:
        there = pq.ParquetFile(path).metadata.num_rows
    except (pa.ArrowInvalid, OSError) as error:
        return f"the file cannot be read: {error}"
    return None if there == rows else f"the file holds {there} rows, {rows} were written"


def _leftovers(settings: Settings, found: Findings, *, repair: bool) -> None:
    leftovers = list(settings.lake.rglob(".tmp-*")) + list(settings.publish.glob(".new-*"))
    for path in leftovers:
        found.broken.append(f"{path.relative_to(settings.root)} was left by a killed run")
        if repair:
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def _snapshot(settings: Settings, warehouse: Warehouse, found: Findings, *, repair: bool) -> None:
    manifest = settings.publish / "manifest.json"
    if not manifest.exists():
        found.notes.append("nothing has been published yet")
        return
    problems = []
    try:
        with duckdb.connect(str(settings.publish / "fleet.duckdb"), read_only=True) as reader:
            for name, table in json.loads(manifest.read_text(encoding="utf-8"))["tables"].items():
                (rows,) = reader.execute(f"select count(*) from {name}").fetchall()[0]
                if rows != table["rows"]:
                    problems.append(f"{name} holds {rows} rows, the manifest says {table['rows']}")
                if not (settings.publish / table["path"]).exists():
                    problems.append(f"{table['path']} is missing")
    except (duckdb.Error, ValueError, KeyError) as error:
        problems.append(str(error))
    for problem in problems:
        found.broken.append(f"snapshot: {problem}")
    if problems and repair:
        with warehouse.open() as connection:
            connection.execute("delete from ops.unit_state where unit = 'fleet'")
