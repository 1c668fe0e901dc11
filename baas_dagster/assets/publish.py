"""Stage 6: what BI tools read. A fresh snapshot file, versioned Parquet and a manifest, each put in place by a rename.

FLEET: reads marts and the platform's own tables, never raw rows. A device whose marts failed their checks keeps its
last published figures and says so (`published_state = 'kept'`).
"""

import hashlib
import json
import shutil
import time
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb

from baas_dagster.durable import make_folder, put_in_place, sync
from baas_dagster.partitions import KST
from baas_dagster.progress import Progress, step
from baas_dagster.released import Releases
from baas_dagster.resources import Lake, Warehouse, insert
from baas_dagster.settings import PROJECT_ROOT, Settings
from baas_dagster.state import FLEET_KEY, Unit, load, mark

__all__ = ["PUBLISHED", "Published", "publish_snapshot", "published_snapshot"]

SNAPSHOT_FORMAT = "v1.0.0"
"""Storage version that DuckDB clients since 1.0 can open; the engine's own newest cannot be opened by older ones."""
_KEPT_VERSIONS = 3
"""Versions of the Parquet tables that stay: a reader that opened the manifest before two publishes still finds them."""


@dataclass(frozen=True)
class Published:
    """One published table: how it is made and ordered; the marts can be held device by device."""

    name: str
    query: str
    order_by: str
    is_mart: bool = False


def _mart(name: str, order_by: str) -> Published:
    return Published(name, f"select * from marts.{name}", order_by, is_mart=True)


PUBLISHED: tuple[Published, ...] = (
    _mart("dim_device", "device_no"),
    _mart("fct_mileage_daily", "device_no, service_date"),
    _mart("fct_mileage_monthly", "device_no, measured_month"),
    _mart("fct_odometer_event", "device_no, occurred_at, event_id"),
    _mart("fct_trip", "device_no, started_at, trip_id"),
    _mart("fct_energy_daily", "device_no, service_date"),
    _mart("fct_soc_daily", "device_no, service_date"),
    _mart("fct_counter_audit_monthly", "device_no, measured_month"),
    _mart("fct_efficiency_monthly", "device_no, measured_month, band_kind, band"),
    _mart("fct_power_monthly", "device_no, measured_month, temperature_from_c nulls first, soc_from_pct nulls first"),
    _mart("fct_exposure_monthly", "device_no, measured_month, kind, band_from nulls first"),
    _mart("fct_charge_curve", "device_no, mode, soc_from_pct, temperature_from_c nulls first"),
    _mart("fct_parked_loss", "device_no, measured_month"),
    _mart("fct_capacity_estimate", "device_no, estimated_at, method, estimate_id"),
    _mart("fct_soh_monthly", "device_no, measured_month"),
    Published(
        "fct_charging_session",
        """
        select s.*, x.site_id
        from marts.fct_charging_session as s left join stitched.session_site as x using (session_id)
        """,
        "device_no, started_at, session_id",
        is_mart=True,
    ),
    Published("dim_site", "select * from stitched.site", "site_id"),
    Published(
        "fct_anomaly",
        """
        with everything as (
            select * from stitched.anomaly union all by name select * from stitched.fleet_anomaly
        )
        select
            anomaly_id, device_no, measured_month, code, severity, first_crossed_at, opened_at, last_seen_at, closed_at,
            closed_by, cell_no, module_no, value, worst_value, unit, score, growth_per_day, window_count, evidence,
            clears_when,
        from everything
        """,
        "device_no, opened_at, code, anomaly_id",
    ),
    Published(
        "fct_cell_monthly",
        """
        select
            device_no, measured_month, cell_no, residual_rest_mv, residual_charge_mv, lowest_share_pct,
            highest_share_pct, n,
        from stitched.cell_month
        """,
        "device_no, measured_month, cell_no",
    ),
    Published("anomaly_coverage", "select device_no, code, reason from stitched.anomaly_coverage", "device_no, code"),
    Published("inspection_queue", "select * from stitched.inspection_queue", "rank"),
    Published("inspection_outcome", "select * from stitched.inspection_outcome", "device_no, inspected_on, outcome_id"),
    Published("inspection_precision", "select * from stitched.inspection_precision", "scope"),
    Published(
        "rejected_outcome", "select * from stitched.rejected_outcome", "file_name, source_row nulls first, reason"
    ),
    Published("fct_site_usage", "select * from stitched.site_usage", "site_id, weekday, hour"),
    Published("released_version", "select * from ops.released_version", "kind, chemistry, pack_type, version_id"),
    Published(
        "device_decision",
        """
        select device_no, decision, layout_id, measured_month, value, confidence, n, evidence, is_overridden,
        from ops.device_decision
        """,
        "device_no, decision, layout_id nulls first, measured_month nulls first",
    ),
    Published(
        "partition_quality",
        """
        select
            measured_month, device_no, table_name, check_name, severity, is_passed, rows_checked, rows_failed, example,
        from ops.partition_quality
        """,
        "device_no, measured_month, table_name, check_name",
    ),
    Published(
        "delivery",
        """
        with paths as (
            select l.sha256, l.path, l.is_present, f.path as first_path
            from ops.landing_file as l inner join ops.first_path as f using (sha256)
        ),
        spread as (
            select
                source_file,
                list(distinct device_no order by device_no) as devices,
                list(distinct measured_month order by measured_month) as months,
            from ops.delivered_slice group by source_file
        ),
        used as (
            select
                source_file, sum(kept)::bigint as kept, sum(duplicates)::bigint as duplicates,
                sum(superseded)::bigint as superseded,
            from ops.raw_source group by source_file
        ),
        first_copy as (
            select
                p.path as file_name, m.member, m.source_file, p.sha256, m.kind, s.devices, s.months,
                m.rows_read, m.rows_rejected, coalesce(u.kept, 0) as rows_kept,
                coalesce(u.duplicates, 0) as rows_duplicate, coalesce(u.superseded, 0) as rows_superseded,
                m.delivered_at, m.status, m.reason, m.unknown_columns, m.layout_id, m.encoding, p.is_present,
            from paths as p
            inner join ops.delivered_member as m using (sha256)
            left join spread as s using (source_file)
            left join used as u using (source_file)
            where p.path = p.first_path
        ),
        whole_file as (
            select
                p.path, null, null, p.sha256, null, null, null, 0, 0, 0, 0, 0, null::timestamp,
                coalesce(f.status, 'failed'), f.reason, null, null, null, p.is_present,
            from paths as p
            left join ops.delivered_file as f using (sha256)
            where p.path = p.first_path and p.sha256 not in (select sha256 from ops.delivered_member)
        ),
        copies as (
            select
                path, null, null, sha256, null, null, null, 0, 0, 0, 0, 0, null::timestamp,
                'duplicate', 'same content as ' || first_path, null, null, null, is_present,
            from paths where path <> first_path
        )
        from first_copy union all from whole_file union all from copies
        """,
        "file_name, member nulls first",
    ),
    Published(
        "rejected_row",
        """
        select
            p.path || case when r.file_member is null or r.file_member = '' then '' else ': ' || r.file_member end
                as file_name,
            r.source_file, r.source_row, r.reason, r.text, r.device_no, r.measured_month,
        from rejected_rows as r
        inner join ops.first_path as p
            on left(p.sha256, 12) = left(r.source_file, 12)
        """,
        "file_name, source_row nulls first, reason",
    ),
)
"""The published contract (DESIGN 4), as far as it is delivered. Names and grains are fixed; columns may be added."""


@lru_cache(maxsize=1)
def _git_revision() -> str | None:
    """Revision of the project's checkout, read from its files; None outside a checkout."""
    git = PROJECT_ROOT / ".git"
    try:
        head = (git / "HEAD").read_text(encoding="utf-8").strip()
        if not head.startswith("ref: "):
            return head
        reference = git / head.removeprefix("ref: ")
        if reference.exists():
            return reference.read_text(encoding="utf-8").strip()
        packed = (git / "packed-refs").read_text(encoding="utf-8").splitlines()
        return next((line.split()[0] for line in packed if line.endswith(head.removeprefix("ref: "))), None)
    except OSError:
        return None


def publish_snapshot(connection: duckdb.DuckDBPyConnection, settings: Settings, lake: Lake) -> dict[str, Any]:
    """Write snapshot, Parquet and manifest; returns the manifest.

    Everything is written beside the old one and put in place by a rename, so a reader finds the old or the new
    snapshot and nothing between. Tables whose content has not changed keep their Parquet file (a hard link).
    """
    folder = settings.publish
    folder.mkdir(parents=True, exist_ok=True)
    _sweep(folder)
    old = _read_manifest(folder)
    stamp = f"{time.time_ns():020d}"
    fresh = folder / f".new-{stamp}"
    fresh.mkdir()
    _rejected_view(connection, lake)
    _released_rows(connection, settings)
    holds = [d for (d,) in connection.execute("select distinct device_no from ops.device_hold").fetchall()]
    snapshot = folder / "fleet.duckdb"
    if holds and snapshot.exists():
        connection.execute(f"attach '{snapshot}' as last_published (read_only)")
    tables: dict[str, dict[str, Any]] = {}
    connection.execute("set preserve_insertion_order = true")
    connection.execute(f"attach '{fresh / 'fleet.duckdb'}' as fleet (storage_version '{SNAPSHOT_FORMAT}')")
    try:
        made = _made(connection)
        for table in made:
            connection.execute(
                f"create table fleet.main.{table.name} as select * from ({_query(connection, table, holds)}) "
                f"order by {table.order_by}"
            )
        described = _columns(connection)
        for table in made:
            tables[table.name] = _write_parquet(connection, table, described[table.name], fresh, folder, old)
        connection.execute("checkpoint fleet")
    finally:
        connection.execute("detach fleet")
        connection.execute("set preserve_insertion_order = false")
        if holds and snapshot.exists():
            connection.execute("detach last_published")
    manifest = {
        "published_at": datetime.now(KST).isoformat(timespec="seconds"),
        "version": stamp,
        "git_revision": _git_revision(),
        "versions": {name: version(name) for name in ("baas-dagster", "dagster", "dbt-core", "dbt-duckdb", "duckdb")},
        "tables": tables,
        "partitions_covered": connection.execute(
            "select count(distinct (device_no, measured_month)) from ops.raw_partition"
        ).fetchall()[0][0],
        "kept_devices": sorted(holds),
    }
    _put_in_place(folder, fresh, stamp, manifest)
    return manifest


_LATER = {
    "fct_anomaly", "fct_cell_monthly", "anomaly_coverage", "inspection_queue", "inspection_outcome",
    "inspection_precision", "rejected_outcome",
}  # fmt: skip
"""Tables that the first episodes bring."""


def _made(connection: duckdb.DuckDBPyConnection) -> list[Published]:
    """The tables that can be published: before the first device there are no marts."""
    tables = connection.execute("select schema_name, table_name from duckdb_tables()").fetchall()
    marts = {name for schema, name in tables if schema == "marts"}
    has_queue = ("stitched", "inspection_queue") in tables
    return [
        table
        for table in PUBLISHED
        if (table.name in marts if table.is_mart else table.name not in _LATER or has_queue)
    ]


def _query(connection: duckdb.DuckDBPyConnection, table: Published, held: list[str]) -> str:
    """The table's rows; of a mart, for held devices, the rows of the last publish instead.

    The other tables always show what is: among them the check that holds a device.
    """
    if not held or not table.is_mart:
        return table.query
    listed = ", ".join(f"'{d}'" for d in held)
    current = f"select * from ({table.query}) where device_no not in ({listed})"
    there = connection.execute(
        "select count(*) from duckdb_tables() where database_name = 'last_published' and table_name = ?", [table.name]
    ).fetchall()[0][0]
    if not there:
        return current
    old = f"select * from last_published.main.{table.name} where device_no in ({listed})"
    if table.name == "fct_mileage_monthly":
        old = f"select * replace ('kept' as published_state) from ({old})"
    return f"{current} union all by name {old}"


def _rejected_view(connection: duckdb.DuckDBPyConnection, lake: Lake) -> None:
    known = {s for (s,) in connection.execute("select left(sha256, 12) from ops.delivered_file").fetchall()}
    folder = lake.path / "rejected"
    files = sorted(p for p in folder.glob("*.parquet") if p.stem in known) if folder.is_dir() else []
    if files:
        listed = ", ".join(f"'{p}'" for p in files)
        connection.execute(f"create or replace temp view rejected_rows as select * from read_parquet([{listed}])")
    else:
        connection.execute(
            """
            create or replace temp view rejected_rows as
            select
                ''::varchar as file_member, ''::varchar as source_file, 0::bigint as source_row, ''::varchar as reason,
                ''::varchar as text, ''::varchar as device_no, ''::varchar as measured_month,
            where false
            """
        )


def _released_rows(connection: duckdb.DuckDBPyConnection, settings: Settings) -> None:
    releases = Releases(settings.released)
    active = set(releases.active().values())
    connection.execute("delete from ops.released_version")
    insert(
        connection,
        "ops.released_version",
        [
            (
                v.version_id, v.kind, v.chemistry, v.pack_type, v.version_id in active,
                *(json.dumps(part, sort_keys=True) for part in (v.content, v.made_from, v.quality)),
            )
            for v in releases.versions()
        ],
    )  # fmt: skip


def _columns(connection: duckdb.DuckDBPyConnection) -> dict[str, str]:
    """Names and types of the columns of every table of the snapshot; one look at the catalogue costs milliseconds."""
    return dict(
        connection.execute(
            "select table_name, string_agg(column_name || ' ' || data_type, ',' order by column_index) "
            "from duckdb_columns() where database_name = 'fleet' group by all"
        ).fetchall()
    )


def _write_parquet(
    connection: duckdb.DuckDBPyConnection,
    table: Published,
    columns: str,
    fresh: Path,
    folder: Path,
    old: dict[str, Any],
) -> dict[str, Any]:
    rows, content = connection.execute(
        f"select count(*), sum(md5_number_lower(t::varchar)::hugeint) from fleet.main.{table.name} as t"
    ).fetchall()[0]
    content = hashlib.sha256(f"{columns}|{content}".encode()).hexdigest()[:24]
    target = fresh / "parquet" / table.name / "data.parquet"
    target.parent.mkdir(parents=True)
    before = old.get("tables", {}).get(table.name, {})
    unchanged = folder / before["path"] if before.get("content") == content else None
    if unchanged is not None and unchanged.exists():
        Lake.link(unchanged, target)
    else:
        connection.execute(
            f"copy (select * from fleet.main.{table.name} order by {table.order_by}) to '{target}' "
            "(format parquet, compression zstd)"
        )
        sync(target)
    sync(target.parent)
    return {"rows": rows, "content": content}


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / "manifest.json"
    if not path.exists():
        return {}
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def _put_in_place(folder: Path, fresh: Path, stamp: str, manifest: dict[str, Any]) -> None:
    """Snapshot, then Parquet, then manifest: what the manifest names is always there."""
    for name, table in manifest["tables"].items():
        table["path"] = f"versions/{stamp}/{name}/data.parquet"
    versions = folder / "versions"
    make_folder(versions)
    put_in_place(fresh / "parquet", versions / stamp)
    put_in_place(fresh / "fleet.duckdb", folder / "fleet.duckdb")
    link = fresh / "parquet"
    link.symlink_to(Path("versions") / stamp)
    link.replace(folder / "parquet")
    text = fresh / "manifest.json"
    text.write_text(json.dumps(manifest, indent=1, ensure_ascii=False), encoding="utf-8")
    put_in_place(text, folder / "manifest.json")
    _sweep(folder)
    for outdated in sorted(p for p in versions.iterdir() if p.is_dir())[:-_KEPT_VERSIONS]:
        shutil.rmtree(outdated, ignore_errors=True)


def _sweep(folder: Path) -> None:
    """Remove what a killed publish left behind."""
    for leftover in folder.glob(".new-*"):
        shutil.rmtree(leftover, ignore_errors=True)


@dg.asset(
    deps=[
        "charging_sites",
        "inspection_queue",
        *(dg.AssetDep(t.name, partition_mapping=dg.AllPartitionMapping()) for t in PUBLISHED if t.is_mart),
    ],
    group_name="publish",
    kinds={"duckdb", "parquet"},
)
def published_snapshot(
    context: dg.AssetExecutionContext,
    settings: dg.ResourceParam[Settings],
    warehouse: Warehouse,
    lake: dg.ResourceParam[Lake],
    progress: dg.ResourceParam[Progress],
) -> dg.MaterializeResult[None]:
    """The read-only snapshot fleet.duckdb, the same tables as versioned Parquet, and manifest.json."""
    with warehouse.open() as connection, step(progress, "publishing", 0, "tables"):
        manifest = publish_snapshot(connection, settings, lake)
        state = load(connection, settings)
        mark(connection, Unit.FLEET, {FLEET_KEY: state.made[Unit.FLEET][FLEET_KEY]})
    rows = "\n".join(f"| {name} | {table['rows']} |" for name, table in manifest["tables"].items())
    return dg.MaterializeResult(
        metadata={
            "snapshot": dg.MetadataValue.path(str(settings.publish / "fleet.duckdb")),
            "tables": dg.MetadataValue.md(f"| table | rows |\n|---|---|\n{rows}"),
            "partitions_covered": manifest["partitions_covered"],
            "kept_devices": manifest["kept_devices"],
        }
    )
