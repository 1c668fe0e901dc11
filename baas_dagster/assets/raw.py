"""Stage 2: raw partitions, one Parquet file per device and month, checked; and the evidence for the device's decisions.

LOCAL: reads the delivered slices of its own partition, replaces exactly that partition. A partition that cannot be
written is recorded as failed and the others go on; the run fails at its end.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import dagster as dg
import duckdb
import polars as pl
import pyarrow as pa

from baas_dagster.assets.common import (
    asked,
    in_parallel,
    log_good_partitions,
    materialized,
    table_schema,
    write_quality,
)
from baas_dagster.checks import check_spec, report
from baas_dagster.partitions import PARTITIONS, PartitionId
from baas_dagster.progress import Progress, step
from baas_dagster.resources import Lake, Warehouse, insert
from baas_dagster.schemas.outcome import Outcome, Severity
from baas_dagster.schemas.raw import CHECKED_COLUMNS, RawPartition, check_partitions
from baas_dagster.settings import Settings
from baas_dagster.state import Unit, load, mark, mark_failed
from baas_dagster.telemetry.clean import Delivered, SourceCount, merge
from baas_dagster.telemetry.columns import TableKind, lake_schema
from baas_dagster.telemetry.decisions import EVIDENCE_COLUMNS, evidence

__all__ = ["raw_bms", "raw_gps"]


@dataclass
class _Made:
    """One raw partition as it was made."""

    part: PartitionId
    rows: int = 0
    sources: Sequence[SourceCount] = ()
    conflicting: int = 0
    rejected: int = 0
    first_at: Any = None
    last_at: Any = None
    path: str | None = None
    checked: pl.DataFrame | None = None
    outcomes: list[Outcome] = field(default_factory=list)
    evidence: dict[str, dict[str, Any]] = field(default_factory=dict)
    error: str | None = None


def _slices(connection: duckdb.DuckDBPyConnection, kind: TableKind) -> dict[PartitionId, list[tuple[Delivered, int]]]:
    """Slices of every partition with the rejected rows that count against it.

    Rejected rows whose device or month could not be read count where their file holds one partition only.
    """
    rows = connection.execute(
        """
        select
            s.device_no, s.measured_month, s.source_file, s.logical_name, s.delivered_at, s.first_at, s.last_at,
            s.row_count, s.is_sorted_unique, s.path, s.sha256,
            s.rows_rejected
            + case when count(*) over (partition by s.source_file) = 1 then m.rejected_unattributed else 0 end
        from ops.delivered_slice as s inner join ops.delivered_member as m using (source_file)
        where s.kind = ?
        order by s.source_file
        """,
        [str(kind)],
    ).fetchall()
    found: dict[PartitionId, list[tuple[Delivered, int]]] = {}
    for device, month, source, logical, delivered, first, last, count, is_sorted, path, sha, rejected in rows:
        item = Delivered(source, logical, delivered, first, last, count, is_sorted, path, sha)
        found.setdefault(PartitionId(device, month), []).append((item, rejected))
    return found


def _make(
    kind: TableKind,
    lake: Lake,
    settings: Settings,
    slices: dict[PartitionId, list[tuple[Delivered, int]]],
    progress: Progress,
    part: PartitionId,
) -> _Made:
    """Write one raw partition and look at it. A file system error is recorded, so that the others go on."""
    made = _Made(part, rejected=sum(n for _, n in slices.get(part, [])))
    delivered = [d for d, _ in slices.get(part, []) if d.row_count]
    target = lake.raw_path(kind, part)
    try:
        if not delivered:
            lake.remove(target)
            if made.rejected:
                made.outcomes = [
                    Outcome("rejected_share", Severity.GATE, False, made.rejected, made.rejected, "no row came in")
                ]
            return made
        if len(delivered) == 1 and delivered[0].is_sorted_unique:
            # nothing to merge: the slice is the partition, under a second name
            lake.link(lake.path / delivered[0].path, target)
            made.sources = (SourceCount(delivered[0].source_file, delivered[0].row_count, 0, 0),)
        else:
            frames = [
                pl.read_parquet(lake.path / d.path, use_statistics=False, hive_partitioning=False) for d in delivered
            ]
            merged = merge(delivered, frames)
            made.sources, made.conflicting = merged.sources, merged.conflicting
            lake.write(target, _as_lake_table(kind, merged.rows))
        made.path = target.relative_to(lake.path).as_posix()
        columns = list(dict.fromkeys(CHECKED_COLUMNS[kind] + (EVIDENCE_COLUMNS if kind is TableKind.BMS else [])))
        rows = pl.read_parquet(target, columns=columns, hive_partitioning=False)
        made.rows = rows.height
        made.first_at, made.last_at = rows["time"][0], rows["time"][-1]
        made.checked = rows.select(CHECKED_COLUMNS[kind])
        if kind is TableKind.BMS:
            made.evidence = evidence(rows)
    except OSError as error:
        made.error = f"{type(error).__name__}: {error}"
    finally:
        progress.advance(1)
    return made


def _check(kind: TableKind, made: Sequence[_Made], settings: Settings) -> None:
    """The checks of all partitions of a run."""
    limits = {
        "rejected_share": settings.max_rejected_share,
        "conflicting_share": settings.max_conflicting_share,
        "interleaved_share": settings.max_interleaved_share,
    }
    there = [
        RawPartition(m.part.device_no, m.part.measured_month, m.checked, m.rejected, m.conflicting)
        for m in made
        if m.checked is not None and m.error is None
    ]
    found = check_partitions(kind, there, limits)
    for m in made:
        m.outcomes = m.outcomes or found.get((m.part.device_no, m.part.measured_month), [])
        m.checked = None


def _as_lake_table(kind: TableKind, rows: pl.DataFrame) -> pa.Table:
    schema = lake_schema(kind)
    table = rows.select(schema.names).to_arrow(compat_level=pl.CompatLevel.oldest())
    return table.cast(schema)


def _record(
    connection: duckdb.DuckDBPyConnection, kind: TableKind, made: Sequence[_Made], fingerprints: dict[str, str]
) -> None:
    """Write what is known of these partitions, and their state, in one transaction."""
    good = [m for m in made if m.error is None]
    connection.execute("create or replace temp table raw_scope (device_no varchar, measured_month varchar)")
    insert(connection, "raw_scope", [(m.part.device_no, m.part.measured_month) for m in good])
    in_scope = "(device_no, measured_month) in (select device_no, measured_month from raw_scope)"
    connection.execute("begin")
    connection.execute(f"delete from ops.raw_partition where kind = ? and {in_scope}", [str(kind)])
    connection.execute(f"delete from ops.raw_source where kind = ? and {in_scope}", [str(kind)])
    insert(
        connection,
        "ops.raw_partition",
        [
            (
                str(kind), m.part.device_no, m.part.measured_month, m.rows, sum(s.duplicates for s in m.sources),
                sum(s.superseded for s in m.sources), m.conflicting, m.rejected, m.first_at, m.last_at, m.path,
            )
            for m in good if m.path is not None
        ],
    )  # fmt: skip
    insert(
        connection,
        "ops.raw_source",
        [
            (str(kind), m.part.device_no, m.part.measured_month, s.source_file, s.kept, s.duplicates, s.superseded)
            for m in good
            for s in m.sources
        ],
    )
    table = str(Unit.raw(kind))
    write_quality(connection, table, {m.part: m.outcomes for m in good})
    gates = f"check_name like '{table}.%' and {in_scope}"
    connection.execute(f"delete from ops.partition_gate where {gates}")
    insert(
        connection,
        "ops.partition_gate",
        [
            (m.part.device_no, m.part.measured_month, f"{table}.{o.check_name}")
            for m in good
            for o in m.outcomes
            if o.severity is Severity.GATE and not o.is_passed
        ],
    )
    if kind is TableKind.BMS:
        connection.execute(f"delete from ops.decision_evidence where {in_scope}")
        insert(
            connection,
            "ops.decision_evidence",
            [
                (m.part.device_no, m.part.measured_month, layout, json.dumps(found, sort_keys=True))
                for m in good
                for layout, found in m.evidence.items()
            ],
        )
    # a partition that was never delivered can be asked for in the UI; it stays unknown
    known = [m for m in made if m.part.key in fingerprints]
    mark(connection, Unit.raw(kind), {m.part.key: fingerprints[m.part.key] for m in known if m.error is None})
    for m in known:
        if m.error is not None:
            mark_failed(connection, Unit.raw(kind), {m.part.key: fingerprints[m.part.key]}, m.error)
    connection.execute("commit")


def _run(
    context: dg.AssetExecutionContext,
    kind: TableKind,
    settings: Settings,
    warehouse: Warehouse,
    lake: Lake,
    progress: Progress,
) -> Iterator[dg.MaterializeResult[None] | dg.AssetCheckResult]:
    keys = asked(context)
    parts = [PartitionId.parse(key) for key in keys]
    name = str(Unit.raw(kind))
    with warehouse.open() as connection, step(progress, name, len(parts), "partitions"):
        state = load(connection, settings)
        slices = _slices(connection, kind)
        make = partial(_make, kind, lake, settings, slices, progress)
        made = in_parallel(make, parts, settings.worker_threads)
        lake.empty_path(kind)
        _check(kind, made, settings)
        _record(connection, kind, made, state.made[Unit.raw(kind)])
    good = [m for m in made if m.error is None]
    shown = {
        m.part.key: {
            "dagster/row_count": m.rows,
            "duplicates": sum(s.duplicates for s in m.sources),
            "superseded": sum(s.superseded for s in m.sources),
            "rejected": m.rejected,
            "files": len(m.sources),
            "path": str(m.path),
        }
        for m in good
    }
    bad = [f"{m.part.key}: {m.error}" for m in made if m.error is not None]
    if bad:
        log_good_partitions(context, name, shown)
    else:
        yield materialized(context, name, shown)
    # the results aim at the materializations, which are stored by now
    summary = report(context, name, {m.part.key: m.outcomes for m in good})
    if bad:
        raise dg.Failure(f"{len(bad)} of {len(made)} partitions could not be written", metadata={"errors": bad[:50]})
    yield summary


def _asset_metadata(kind: TableKind) -> dict[str, Any]:
    columns = table_schema((f.name, str(f.type), None) for f in lake_schema(kind))
    return {"dagster/column_schema": columns, "dagster/table_name": f"lake/raw/{kind}"}


_DEPS = [dg.AssetDep("landing_files", partition_mapping=dg.AllPartitionMapping())]
_ONE_RUN = dg.BackfillPolicy.single_run()


@dg.asset(
    name="raw_bms",
    partitions_def=PARTITIONS,
    deps=_DEPS,
    group_name="raw",
    kinds={"parquet"},
    backfill_policy=_ONE_RUN,
    metadata=_asset_metadata(TableKind.BMS),
    check_specs=[check_spec("raw_bms", PARTITIONS, "Structure gates a month, values out of range are flagged.")],
)
def raw_bms(
    context: dg.AssetExecutionContext,
    settings: dg.ResourceParam[Settings],
    warehouse: Warehouse,
    lake: dg.ResourceParam[Lake],
    progress: dg.ResourceParam[Progress],
) -> Iterator[dg.MaterializeResult[None] | dg.AssetCheckResult]:
    """BMS messages of one device and month: typed, one row per time, ascending, each traceable to file and row."""
    yield from _run(context, TableKind.BMS, settings, warehouse, lake, progress)


@dg.asset(
    name="raw_gps",
    partitions_def=PARTITIONS,
    deps=_DEPS,
    group_name="raw",
    kinds={"parquet"},
    backfill_policy=_ONE_RUN,
    metadata=_asset_metadata(TableKind.GPS),
    check_specs=[check_spec("raw_gps", PARTITIONS, "Structure gates a month, values out of range are flagged.")],
)
def raw_gps(
    context: dg.AssetExecutionContext,
    settings: dg.ResourceParam[Settings],
    warehouse: Warehouse,
    lake: dg.ResourceParam[Lake],
    progress: dg.ResourceParam[Progress],
) -> Iterator[dg.MaterializeResult[None] | dg.AssetCheckResult]:
    """GPS fixes of one device and month: typed, one row per time, ascending, each traceable to file and row."""
    yield from _run(context, TableKind.GPS, settings, warehouse, lake, progress)
