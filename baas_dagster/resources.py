"""The three things that assets reach the outside through: the warehouse file, the lake of Parquet files, and dbt.

Belongs here: the only place that opens the warehouse (one process at a time; a kernel file lock that a killed
process lets go of), the only place that writes Parquet files (a temporary file, then a rename), and running dbt in this
process. Does not belong here: what is read or written (``assets``), and what a fingerprint is (``state``).
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import pickle
import shutil
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from dagster_duckdb import DuckDBResource

from baas_dagster.durable import make_folder, put_in_place, sync
from baas_dagster.partitions import PartitionId
from baas_dagster.settings import DBT_PROJECT, Settings
from baas_dagster.telemetry.columns import TableKind, lake_schema

__all__ = [
    "Dbt", "DbtFailed", "Lake", "Warehouse", "WarehouseBusy", "code_hash", "dbt_manifest", "insert", "query",
    "replace_frame", "replace_table",
]  # fmt: skip


class WarehouseBusy(TimeoutError):
    """Another process holds the warehouse for longer than we are willing to wait."""


class DbtFailed(RuntimeError):
    """dbt could not build a model: an infrastructure error or an error in the SQL, never bad data."""


class _FileLock:
    """A kernel lock on a file, re-entrant in this process: a killed process lets go of it by itself."""

    def __init__(self) -> None:
        self._thread_lock = threading.RLock()
        self._depth = 0
        self._handle: IO[str] | None = None

    @contextmanager
    def held(self, path: Path, timeout_s: float) -> Iterator[None]:
        with self._thread_lock:
            if self._depth == 0:
                self._handle = self._acquire(path, timeout_s)
            self._depth += 1
            try:
                yield
            finally:
                self._depth -= 1
                if self._depth == 0 and self._handle is not None:
                    self._handle.close()
                    self._handle = None

    @staticmethod
    def _acquire(path: Path, timeout_s: float) -> IO[str]:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = path.open("a+", encoding="utf-8")
        deadline = time.monotonic() + timeout_s
        told = False
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                handle.seek(0)
                holder = handle.read().strip() or "unknown"
                if time.monotonic() >= deadline:
                    handle.close()
                    raise WarehouseBusy(
                        f"the warehouse is in use by process {holder} for more than {timeout_s:g} s ({path})"
                    ) from None
                if not told:
                    print(f"waiting for the warehouse, in use by process {holder}", file=sys.stderr, flush=True)
                    told = True
                time.sleep(0.1)
        handle.seek(0)
        handle.truncate()
        handle.write(str(os.getpid()))
        handle.flush()
        return handle


_LOCK = _FileLock()


class Warehouse(DuckDBResource):
    """The private DuckDB file: opened by one process at a time, and never by a reader."""

    memory_limit: str = "1GB"
    threads: int = 2
    lock_timeout_s: float = 600.0

    @classmethod
    def of(cls, settings: Settings) -> Warehouse:
        """The warehouse of these settings."""
        return cls(
            database=str(settings.warehouse),
            memory_limit=settings.duckdb_memory,
            threads=settings.duckdb_threads,
            lock_timeout_s=settings.lock_timeout_s,
        )

    @property
    def path(self) -> Path:
        """The file."""
        return Path(self.database)

    @contextmanager
    def locked(self, timeout_s: float | None = None) -> Iterator[None]:
        """Hold the warehouse against other processes; WarehouseBusy when it cannot be had in time."""
        timeout = self.lock_timeout_s if timeout_s is None else timeout_s
        with _LOCK.held(self.path.with_suffix(".lock"), timeout):
            yield

    @contextmanager
    def open(self, timeout_s: float | None = None) -> Iterator[duckdb.DuckDBPyConnection]:
        """A connection, with the platform's own tables in place. Not to be held while dbt runs."""
        with self.locked(timeout_s):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # the lock has been waited for: retrying to open, as the resource would, only delays a real error
            with duckdb.connect(self.database) as connection:
                connection.execute(f"set memory_limit = '{self.memory_limit}'")
                connection.execute(f"set threads = {self.threads}")
                connection.execute("set preserve_insertion_order = false")
                connection.execute(f"set temp_directory = '{self.path.parent / 'tmp'}'")
                connection.execute(platform_tables())
                yield connection


@lru_cache(maxsize=1)
def platform_tables() -> str:
    """DDL of the platform's own tables (schema ops and stitched)."""
    return (Path(__file__).parent / "platform_tables.sql").read_text(encoding="utf-8")


@dataclass(frozen=True)
class Lake:
    """Delivered slices and raw partitions as Parquet files. A file is whole or absent, never half written."""

    path: Path

    def raw_path(self, kind: TableKind, part: PartitionId) -> Path:
        """Where the raw rows of a partition are."""
        folder = self.path / "raw" / str(kind) / f"measured_month={part.measured_month}"
        return folder / f"device_no={part.device_no}" / "part.parquet"

    def empty_path(self, kind: TableKind) -> Path:
        """A typed file without rows, so that a list of files is never empty."""
        path = self.path / "raw" / str(kind) / "empty.parquet"
        if not path.exists():
            self.write(path, lake_schema(kind).empty_table())
        return path

    @staticmethod
    def write(path: Path, table: pa.Table) -> None:
        """Write a table whole or not at all; when this returns it survives a power loss."""
        make_folder(path.parent)
        temporary = path.with_name(f".tmp-{os.getpid()}-{path.name}")
        try:
            pq.write_table(table, temporary, compression="zstd", compression_level=1)
            put_in_place(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)

    @staticmethod
    def link(source: Path, target: Path) -> None:
        """Give a file that never changes a second name, atomically and without copying it."""
        make_folder(target.parent)
        temporary = target.with_name(f".tmp-{os.getpid()}-{target.name}")
        temporary.unlink(missing_ok=True)
        try:
            os.link(source, temporary)
        except OSError as error:
            if error.errno not in {errno.EPERM, errno.EXDEV, errno.EMLINK, errno.ENOTSUP}:
                raise
            shutil.copyfile(source, temporary)  # a file system without hard links
            sync(temporary)
        # a rename between two names of the same file does nothing and would leave the temporary name behind
        temporary.replace(target)
        temporary.unlink(missing_ok=True)
        sync(target.parent)

    @staticmethod
    def remove(path: Path) -> None:
        """Remove a partition's file; nothing happens where there is none."""
        path.unlink(missing_ok=True)


def insert(
    connection: duckdb.DuckDBPyConnection, table: str, rows: Sequence[tuple[Any, ...]], *, or_replace: bool = False
) -> None:
    """Insert rows in one statement; one value a time costs DuckDB a millisecond each."""
    if not rows:
        return
    described: pa.Schema = connection.sql(f"select * from {table} limit 0").to_arrow_table().schema
    arrays = [pa.array([row[i] for row in rows], type=column.type) for i, column in enumerate(described)]
    new_rows = pa.Table.from_arrays(arrays, schema=described)
    connection.register("new_rows", new_rows)
    verb = "insert or replace into" if or_replace else "insert into"
    connection.execute(f"{verb} {table} select * from new_rows")
    connection.unregister("new_rows")


def replace_table(connection: duckdb.DuckDBPyConnection, table: str, rows: pl.DataFrame) -> None:
    """Replace all rows of a platform table by those of a frame with the same columns."""
    connection.register("new_rows", rows.to_arrow())
    connection.execute(f"delete from {table}")
    connection.execute(f"insert into {table} by name select * from new_rows")
    connection.unregister("new_rows")


def replace_frame(connection: duckdb.DuckDBPyConnection, table: str, rows: pl.DataFrame) -> None:
    """Replace a platform table by a frame: rows and columns."""
    connection.register("new_rows", rows.to_arrow())
    connection.execute(f"create or replace table {table} as select * from new_rows")
    connection.unregister("new_rows")


def query(connection: duckdb.DuckDBPyConnection, sql: str, parameters: Sequence[Any] = ()) -> pl.DataFrame:
    """The result of a query as a polars frame."""
    found = pl.from_arrow(connection.sql(sql, params=list(parameters) or None).to_arrow_table())
    if not isinstance(found, pl.DataFrame):
        raise TypeError("a query gives a table")
    return found


def code_hash(*paths: Path) -> str:
    """Content hash of source files and folders; part of fingerprints, so that changed code makes figures stale."""
    digest = hashlib.sha256()
    for path in paths:
        files = (
            sorted(p for p in path.rglob("*") if p.suffix in {".py", ".sql", ".yml", ".csv"})
            if path.is_dir()
            else [path]
        )
        for file in files:
            digest.update(file.name.encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def _quiet_dbt(settings: Settings) -> None:
    os.environ.setdefault("DO_NOT_TRACK", "1")
    os.environ["DBT_SEND_ANONYMOUS_USAGE_STATS"] = "false"
    os.environ["BAAS_WAREHOUSE"] = str(settings.warehouse)
    os.environ["BAAS_DUCKDB_MEMORY"] = settings.duckdb_memory
    os.environ["BAAS_DUCKDB_THREADS"] = str(settings.duckdb_threads)


def _project_hash() -> str:
    return code_hash(
        *(DBT_PROJECT / name for name in ("models", "macros", "seeds", "tests", "dbt_project.yml", "profiles.yml"))
    )


def _manifest_path(settings: Settings) -> Path:
    return settings.root / "dbt" / f"manifest-{_project_hash()}.json"


def dbt_manifest(settings: Settings) -> dict[str, Any]:
    """The parsed dbt project. Parsed once per state of the project and kept below BAAS_HOME."""
    kept = _manifest_path(settings)
    if not kept.exists():
        from dbt.cli.main import dbtRunner

        _quiet_dbt(settings)
        kept.parent.mkdir(parents=True, exist_ok=True)
        target = kept.parent / f"parse-{os.getpid()}"
        result = dbtRunner().invoke(["--quiet", "parse", "--no-partial-parse", *_dbt_paths(target)])
        if not result.success:
            raise DbtFailed(f"the dbt project does not parse: {result.exception}")
        (target / "manifest.json").replace(kept)
        shutil.rmtree(target, ignore_errors=True)
    manifest: dict[str, Any] = json.loads(kept.read_text(encoding="utf-8"))
    return manifest


@lru_cache(maxsize=1)
def _parsed(path: Path) -> bytes:
    """The manifest as dbt holds it, pickled: dbt marks nodes while it runs, so every run needs a fresh one."""
    from dbt.contracts.graph.manifest import Manifest, WritableManifest

    return pickle.dumps(Manifest.from_writable_manifest(WritableManifest.read_and_check_versions(str(path))))


def _dbt_paths(target: Path) -> list[str]:
    return [
        "--project-dir", str(DBT_PROJECT), "--profiles-dir", str(DBT_PROJECT),
        "--target-path", str(target), "--log-path", str(target),
    ]  # fmt: skip


@dataclass(frozen=True)
class Dbt:
    """Runs dbt inside this process with the manifest that is already parsed: 1-2 s a run instead of 10."""

    settings: Settings
    warehouse: Warehouse

    def run(self, select: Sequence[str]) -> Mapping[str, float]:
        """Build the selected models on the scope that stands in ops.scope_*; model name -> seconds.

        Raises DbtFailed with dbt's own words. The caller has closed its connections.
        """
        from dbt.adapters.duckdb.connections import DuckDBConnectionManager
        from dbt.adapters.factory import reset_adapters
        from dbt.cli.main import dbtRunner

        dbt_manifest(self.settings)
        _quiet_dbt(self.settings)
        target = self.settings.root / "dbt" / "target"
        # nobody reads what dbt writes about a run: the manifest is ours, the results are returned
        arguments = ["--quiet", "--no-write-json", "run", "--threads", "1", "--select", *select, *_dbt_paths(target)]
        with self.warehouse.locked():
            try:
                outcome = dbtRunner(manifest=pickle.loads(_parsed(_manifest_path(self.settings)))).invoke(arguments)
            finally:
                # dbt-duckdb keeps the file open: another connection could not be opened beside it
                DuckDBConnectionManager.close_all_connections()
                reset_adapters()
        results = getattr(outcome.result, "results", [])
        if not outcome.success:
            failed = [f"{r.node.name}: {r.message}" for r in results if str(r.status) not in {"success", "skipped"}]
            raise DbtFailed("\n".join(failed) or str(outcome.exception))
        return {r.node.name: r.execution_time for r in results}
