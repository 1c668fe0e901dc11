"""The catalogue of the landing: which files are there, which content is new, and reading what is new, once.

Belongs here: scanning, hashing, calling the parser, and writing the catalogue. Does not belong here: how a file is read
(``telemetry``), and Dagster (``assets``).

A file's content is its identity. A path whose size and modification time have not changed is not read again; content
that is known is not parsed again. A file that leaves the landing keeps its rows and is marked absent.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import duckdb
import polars as pl

from baas_dagster.partitions import KST, current_month
from baas_dagster.progress import Progress, step
from baas_dagster.resources import Lake, insert
from baas_dagster.settings import Settings
from baas_dagster.state import parser_version
from baas_dagster.telemetry.archives import ByteCounter, IntakeLimits
from baas_dagster.telemetry.delivery import FileReport, read_landing_file, sha256_of

__all__ = ["Intake", "changed_paths", "take_in"]


@dataclass(frozen=True)
class Found:
    """One file in the landing."""

    path: str
    size: int
    mtime_ns: int


@dataclass(frozen=True)
class Intake:
    """What one intake did."""

    files: int
    parsed: int
    duplicates: int
    failed: tuple[tuple[str, str], ...]
    rows_read: int
    rows_rejected: int
    devices: tuple[str, ...]


def scan(landing: Path) -> list[Found]:
    """Every file below the landing, by path. Hidden files and files still being copied (.part, .tmp) wait."""
    found: list[Found] = []
    if not landing.is_dir():
        return found
    for folder, folders, names in os.walk(landing):
        folders[:] = sorted(f for f in folders if not f.startswith((".", "__MACOSX")))
        for name in sorted(names):
            if name.startswith(".") or name.endswith((".part", ".tmp", ".crdownload")):
                continue
            path = Path(folder) / name
            stat = path.stat()
            found.append(Found(path.relative_to(landing).as_posix(), stat.st_size, stat.st_mtime_ns))
    return sorted(found, key=lambda f: f.path)


def changed_paths(connection: duckdb.DuckDBPyConnection, settings: Settings) -> int:
    """How many files in the landing are new, changed or to be parsed anew. Looks at names and times only."""
    parser = parser_version(settings)
    kept = {
        (path, size, mtime)
        for path, size, mtime in connection.execute(
            """
            select l.path, l.size, l.mtime_ns
            from ops.landing_file as l inner join ops.delivered_file as f using (sha256)
            where l.is_present and f.parser = ?
            """,
            [parser],
        ).fetchall()
    }
    return sum((f.path, f.size, f.mtime_ns) not in kept for f in scan(settings.landing_dir))


def take_in(connection: duckdb.DuckDBPyConnection, settings: Settings, lake: Lake, progress: Progress) -> Intake:
    """Bring the catalogue up to date with the landing; each new content is parsed once, in one pass."""
    landing = settings.landing_dir
    found = scan(landing)
    hashes = _hashes(connection, landing, found, settings.worker_threads)
    _write_paths(connection, found, hashes)

    parser = parser_version(settings)
    known = {
        sha: (kept_parser, read_as)
        for sha, kept_parser, read_as in connection.execute(
            "select sha256, parser, read_as from ops.delivered_file"
        ).fetchall()
    }
    first_path: dict[str, Found] = {}
    for item in sorted(found, key=lambda f: (Path(f.path).name, f.path)):
        first_path.setdefault(hashes[item.path], item)
    # of copies under several names the first name counts, whichever came first; inside an archive no outer name counts
    new = {
        sha: item
        for sha, item in first_path.items()
        if sha not in known or known[sha][0] != parser or known[sha][1] not in (None, Path(item.path).name)
    }
    # content that has left the landing cannot be read again: what an older parser made of it stays
    limits = IntakeLimits(
        max_member_bytes=settings.max_member_bytes,
        max_file_bytes=settings.max_file_bytes,
        max_run_bytes=settings.max_run_bytes,
        max_depth=settings.max_archive_depth,
    )
    run_bytes = ByteCounter()
    reports: list[FileReport] = []
    # two pools: a file waits for its chunks, and must not take the place of a chunk while it waits
    with (
        step(progress, "reading deliveries", sum(i.size for i in new.values()), "bytes"),
        ThreadPoolExecutor(settings.worker_threads, "file") as files,
        ThreadPoolExecutor(settings.worker_threads, "chunk") as chunks,
    ):
        futures = {
            files.submit(
                read_landing_file,
                landing / item.path,
                sha,
                lake.path,
                limits,
                latest_month=current_month(),
                earliest_month=settings.first_month,
                pool=chunks,
                run_bytes=run_bytes,
            ): item
            for sha, item in sorted(new.items(), key=lambda pair: pair[1].path)
        }
        try:
            for future in as_completed(futures):
                report = future.result()
                # a file that only waits for the byte limit of the next run stays new
                kept_parser = parser if report.status != "deferred" else "deferred"
                _write_report(connection, lake, report, kept_parser, Path(futures[future].path).name)
                reports.append(report)
                progress.advance(futures[future].size)
        except BaseException:
            for future in futures:
                future.cancel()
            raise
    failed = [(first_path[r.sha256].path, r.reason or "") for r in reports if r.status == "failed"]
    failed += [
        (f"{first_path[r.sha256].path}: {m.member}", m.reason or "")
        for r in reports
        for m in r.members
        if m.status == "failed" and r.status != "failed"
    ]
    devices = connection.execute("select distinct device_no from ops.delivered_slice order by 1").fetchall()
    return Intake(
        files=len(found),
        parsed=len(reports),
        duplicates=len(found) - len(first_path),
        failed=tuple(sorted(failed)),
        rows_read=sum(m.rows_read for r in reports for m in r.members),
        rows_rejected=sum(m.rows_rejected for r in reports for m in r.members),
        devices=tuple(d for (d,) in devices),
    )


def _hashes(
    connection: duckdb.DuckDBPyConnection, landing: Path, found: Iterable[Found], threads: int
) -> dict[str, str]:
    """Path -> content hash; files whose size and time are as they were are not read."""
    kept = {
        (path, size, mtime): sha
        for path, size, mtime, sha in connection.execute(
            "select path, size, mtime_ns, sha256 from ops.landing_file"
        ).fetchall()
    }
    hashes = {f.path: kept[f.path, f.size, f.mtime_ns] for f in found if (f.path, f.size, f.mtime_ns) in kept}
    new = [f.path for f in found if f.path not in hashes]
    with ThreadPoolExecutor(threads, "hash") as pool:
        hashes.update(zip(new, pool.map(lambda p: sha256_of(landing / p), new), strict=True))
    return hashes


def _write_paths(connection: duckdb.DuckDBPyConnection, found: list[Found], hashes: dict[str, str]) -> None:
    connection.execute("begin")
    connection.execute("update ops.landing_file set is_present = false")
    rows = [(f.path, f.size, f.mtime_ns, hashes[f.path], True) for f in found]
    insert(connection, "ops.landing_file", rows, or_replace=True)
    connection.execute("commit")


def _write_report(
    connection: duckdb.DuckDBPyConnection, lake: Lake, report: FileReport, parser: str, name: str
) -> None:
    """Write what one file held into the catalogue, in one transaction: a file is known whole or not at all."""
    now = datetime.now(KST).replace(tzinfo=None)
    connection.execute("begin")
    for table in ("delivered_file", "delivered_member", "delivered_slice", "vehicle_master"):
        connection.execute(f"delete from ops.{table} where sha256 = ?", [report.sha256])
    read_as = name if [m.member for m in report.members] == [name] else None
    insert(connection, "ops.delivered_file", [(report.sha256, parser, read_as, report.status, report.reason, now)])
    insert(
        connection,
        "ops.delivered_member",
        [
            (
                m.source_file, report.sha256, m.member, m.kind, m.status, m.reason, m.rows_read, m.rows_rejected,
                m.rejected_unattributed, list(m.unknown_columns), m.layout_id, m.delivered_at, m.logical_name,
                m.encoding, m.bytes_unpacked,
            )
            for m in report.members
        ],
    )  # fmt: skip
    insert(
        connection,
        "ops.delivered_slice",
        [
            (
                s.source_file, report.sha256, str(s.kind), s.device_no, s.measured_month, s.path.as_posix(), s.rows,
                s.first_time, s.last_time, s.layout_id, s.is_sorted_unique, s.logical_name, s.delivered_at,
                s.rows_rejected,
            )
            for m in report.members
            for s in m.slices
        ],
    )  # fmt: skip
    masters = []
    for m in report.members:
        if m.kind == "master" and m.master_path is not None:
            for device, car in pl.read_parquet(lake.path / m.master_path).select("device_no", "car_type").iter_rows():
                masters.append((device, car, m.source_file, report.sha256, m.delivered_at))
    insert(connection, "ops.vehicle_master", masters)
    connection.execute("commit")
