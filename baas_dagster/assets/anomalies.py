"""Stages of the detectors: LOCAL evidence of partitions, then STITCHED episodes of devices.

Shells over ``anomaly``: they read staged rows once per partition and keep small windows of evidence; episodes are made
from the windows of a device's whole history and its marts. No rule of a detector stands here.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import dagster as dg
import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from baas_dagster import outcomes as ledger
from baas_dagster.anomaly.cells import CELL_MONTH_SCHEMA, cell_months
from baas_dagster.anomaly.detector import WINDOW_SCHEMA, Context
from baas_dagster.anomaly.episodes import EPISODE_SCHEMA, episodes
from baas_dagster.anomaly.outcomes import closing_dates
from baas_dagster.anomaly.registry import DETECTORS
from baas_dagster.anomaly.rows import Car, Rows
from baas_dagster.anomaly.rules import RULES
from baas_dagster.assets.battery import Curves
from baas_dagster.assets.common import (
    asked,
    materialized,
    raw_files,
    replace_devices,
    replace_partitions,
    run_dbt,
    set_scope,
    write_quality,
)
from baas_dagster.battery.curve import SOC_PCT
from baas_dagster.checks import check_spec, report
from baas_dagster.partitions import DEVICES, PARTITIONS, PartitionId
from baas_dagster.progress import Progress, step
from baas_dagster.released import Releases
from baas_dagster.resources import Dbt, Lake, Warehouse, query
from baas_dagster.schemas.anomalies import check_episodes, check_windows
from baas_dagster.schemas.outcome import Outcome
from baas_dagster.settings import Settings
from baas_dagster.state import Unit, load, mark

__all__ = ["anomaly_chain", "anomaly_evidence", "cars", "context_of", "expected_rows", "ocv_slopes", "staged"]

_ALWAYS = ("recorded_at", "cell_placeholder_n", "device_no", "measured_month")
_READ_ROWS = 65_536  # rows fetched at a time: 25 MB of 192 cells
_TO_DEVICE = dg.MultiToSingleDimensionPartitionMapping("device_no")


def car_of(setting: Mapping[str, Any]) -> Car:
    """The device's decisions as detectors see them."""
    kept = json.loads(setting["temp_sensor_map"]) if setting["temp_sensor_map"] else None
    return Car(
        device_no=setting["device_no"],
        chemistry=setting["chemistry"],
        pack_type=setting["pack_type"],
        cell_count=setting["cell_count"],
        temp_sensor_count=setting["temp_sensor_count"],
        temp_sensors=None if kept is None else tuple(i + 1 for i, is_there in enumerate(kept) if is_there),
        insulation_cap_kohm=setting["insulation_cap_kohm"],
        capacity_nominal_ah=setting["capacity_nominal_ah"],
    )


def cars(connection: duckdb.DuckDBPyConnection) -> dict[str, Car]:
    """Every decided device."""
    return {s["device_no"]: car_of(s) for s in query(connection, "select * from ops.device_setting").to_dicts()}


def staged_columns() -> list[str]:
    """Columns of the staging view that the detectors read, each once."""
    return list(dict.fromkeys((*_ALWAYS, *(column for d in DETECTORS for column in d.columns))))


def staged(
    connection: duckdb.DuckDBPyConnection, expected: Mapping[PartitionId, int], device_no: str | None = None
) -> Iterator[tuple[PartitionId, pa.Table]]:
    """Staged rows of whole partitions, one partition after the other, in one pass over the view.

    ``expected``: rows of each partition; it is given once all of them have come, so that memory holds the partitions
    that are being read and no others. ``device_no``: of this device alone.
    """
    of_device = "" if device_no is None else f" where device_no = '{device_no}'"
    query = f"select {', '.join(staged_columns())} from staging.stg_bms{of_device}"
    reader = connection.sql(query).to_arrow_reader(_READ_ROWS)
    pending: dict[PartitionId, list[pa.RecordBatch]] = {}
    for batch in reader:
        table = pa.Table.from_batches([batch])
        keys = table.group_by(["device_no", "measured_month"]).aggregate([])
        for device, month in zip(keys["device_no"].to_pylist(), keys["measured_month"].to_pylist(), strict=True):
            part = PartitionId(device, month)
            if part not in expected:
                continue
            mine = table if keys.num_rows == 1 else _of(table, part)
            pending.setdefault(part, []).extend(mine.to_batches())
            if sum(b.num_rows for b in pending[part]) >= expected[part]:
                yield part, pa.Table.from_batches(pending.pop(part))
    yield from ((part, pa.Table.from_batches(batches)) for part, batches in pending.items())


def _of(table: pa.Table, part: PartitionId) -> pa.Table:
    is_device = pc.equal(table["device_no"], part.device_no)
    return table.filter(pc.and_(is_device, pc.equal(table["measured_month"], part.measured_month)))


def windows_of(rows: Rows, car: Car) -> pl.DataFrame:
    """Evidence windows of all LOCAL detectors, WINDOW_SCHEMA."""
    made = [detector.windows(rows, car, RULES) for detector in DETECTORS if detector.windows is not None]
    return pl.concat([pl.DataFrame(schema=WINDOW_SCHEMA), *made])


@dg.asset(
    partitions_def=PARTITIONS,
    deps=["stg_bms"],
    group_name="anomalies",
    kinds={"numpy", "duckdb"},
    backfill_policy=dg.BackfillPolicy.single_run(),
    check_specs=[check_spec("anomaly_evidence", PARTITIONS, "Windows lie in their month, numbers are numbers.")],
)
def anomaly_evidence(
    context: dg.AssetExecutionContext,
    settings: dg.ResourceParam[Settings],
    warehouse: Warehouse,
    lake: dg.ResourceParam[Lake],
    dbt: dg.ResourceParam[Dbt],
    progress: dg.ResourceParam[Progress],
) -> Iterator[Any]:
    """Windows of evidence of all detectors from one month's rows: rests, steady charges, days. No line is applied."""
    keys = asked(context)
    parts = [PartitionId.parse(key) for key in keys]
    shown: dict[str, dict[str, Any]] = {part.key: {"dagster/row_count": 0} for part in parts}
    made: list[pl.DataFrame] = []
    with warehouse.locked(), step(progress, "evidence", len(parts), "partitions"):
        with warehouse.open() as connection:
            files = raw_files(connection, lake, parts)
            is_staged = _covers(connection, files["bms"])
            if not is_staged:
                set_scope(connection, parts, files)
        if not is_staged:
            run_dbt(dbt, warehouse, settings, Unit.EVIDENCE, ["stg_bms"], keys)
        with warehouse.open() as connection:
            known = cars(connection)
            for part, table in staged(connection, expected_rows(connection, parts)):
                car = known.get(part.device_no, Car(part.device_no))
                found = windows_of(Rows.of(table, car), car)
                made.append(
                    found.with_columns(device_no=pl.lit(part.device_no), measured_month=pl.lit(part.measured_month))
                )
                shown[part.key] = {
                    "dagster/row_count": found.height,
                    "rows": table.num_rows,
                    **dict(found.group_by("detector").len().sort("detector").iter_rows()),
                }
                progress.advance(1)
            windows = pl.concat([pl.DataFrame(schema=_WINDOWS), *made])
            replace_partitions(connection, "evidence.anomaly_window", parts, windows)
            outcomes = check_windows(windows, [(p.device_no, p.measured_month) for p in parts])
            write_quality(connection, "anomaly_evidence", {p: outcomes[p.key] for p in parts})
            fingerprints = load(connection, settings).made[Unit.EVIDENCE]
            mark(connection, Unit.EVIDENCE, {key: fingerprints[key] for key in keys if key in fingerprints})
    yield materialized(context, "anomaly_evidence", shown)
    yield report(context, "anomaly_evidence", outcomes)


_WINDOWS = {**WINDOW_SCHEMA, "device_no": pl.String, "measured_month": pl.String}


def _covers(connection: duckdb.DuckDBPyConnection, files: Sequence[str]) -> bool:
    """True where the staging view reads exactly these files, as right after the local models of this run."""
    found = connection.execute(
        "select sql from duckdb_views() where schema_name = 'staging' and view_name = 'stg_bms'"
    ).fetchall()
    return bool(found) and found[0][0].count(".parquet'") == len(files) and all(f"'{f}'" in found[0][0] for f in files)


def expected_rows(connection: duckdb.DuckDBPyConnection, parts: Sequence[PartitionId]) -> dict[PartitionId, int]:
    """Rows of each partition that its structure checks let in."""
    rows = connection.execute(
        """
        select device_no, measured_month, row_count from ops.raw_partition
        where
            kind = 'bms' and row_count > 0
            and (device_no, measured_month) not in (select device_no, measured_month from ops.partition_gate)
        """
    ).fetchall()
    wanted = set(parts)
    return {part: count for device, month, count in rows if (part := PartitionId(device, month)) in wanted}


@dataclass(frozen=True)
class _Made:
    episodes: pl.DataFrame
    cells: pl.DataFrame
    coverage: pl.DataFrame


_MARTS = {
    "fct_soh_monthly": "marts.fct_soh_monthly",
    "fct_power_monthly": "marts.fct_power_monthly",
    "fct_counter_audit_monthly": "marts.fct_counter_audit_monthly",
    "partition_gate": "ops.partition_gate",
}
_ALL_MONTHS = "select distinct measured_month from ops.raw_partition where device_no = ? order by 1"
_COVERAGE: dict[str, Any] = {"code": pl.String, "reason": pl.String, "device_no": pl.String}


def context_of(
    connection: duckdb.DuckDBPyConnection, car: Car, releases: Releases, slopes: Mapping[Any, Any]
) -> Context:
    """What stitching may know of a car: its months, marts, baseline, and the slope of its curve."""
    device = car.device_no
    last = connection.execute(
        "select max(last_at) from ops.raw_partition where device_no = ? and row_count > 0", [device]
    ).fetchall()
    version = releases.for_pack("baseline", car.chemistry, car.pack_type)
    return Context(
        car=car,
        rules=RULES,
        months=tuple(query(connection, _ALL_MONTHS, [device])["measured_month"].to_list()),
        marts={
            name: query(connection, f"select * from {table} where device_no = ?", [device])
            for name, table in _MARTS.items()
        },
        baseline=None if version is None else version.content,
        baseline_version=None if version is None else version.version_id,
        ocv_slope=slopes.get((car.chemistry, car.pack_type)),
        last_seen_at=last[0][0],
    )


def _made(connection: duckdb.DuckDBPyConnection, context: Context, closings: pl.DataFrame) -> _Made:
    """Episodes, cell months and what cannot be judged, of one device."""
    device = context.car.device_no
    windows = query(
        connection,
        "select * exclude (device_no) from evidence.anomaly_window where device_no = ? "
        "order by from_at, to_at, detector, kind",
        [device],
    )
    readings, unjudged = [], {}
    for detector in DETECTORS:
        mine = windows.filter(pl.col("detector") == detector.name)
        readings.append(detector.readings(mine, context))
        unjudged.update(detector.unjudged(mine, context))
    found = episodes(device, pl.concat(readings), closings, RULES.episodes)
    with_device = pl.lit(device).alias("device_no")
    return _Made(
        found.with_columns(with_device, measured_month=pl.col("opened_at").dt.strftime("%Y-%m")),
        cell_months(windows.filter(pl.col("detector") == "cells")).with_columns(with_device),
        pl.DataFrame(
            [{"code": c, "reason": r, "device_no": device} for c, r in sorted(unjudged.items())], schema=_COVERAGE
        ),
    )


@dg.asset(
    partitions_def=DEVICES,
    deps=[
        dg.AssetDep("anomaly_evidence", partition_mapping=_TO_DEVICE),
        "fct_soh_monthly",
        "fct_power_monthly",
        "fct_counter_audit_monthly",
    ],
    group_name="anomalies",
    kinds={"polars", "duckdb"},
    backfill_policy=dg.BackfillPolicy.single_run(),
    check_specs=[check_spec("anomaly_chain", DEVICES, "Episodes follow each other, codes and severities are known.")],
)
def anomaly_chain(
    context: dg.AssetExecutionContext,
    settings: dg.ResourceParam[Settings],
    warehouse: Warehouse,
    progress: dg.ResourceParam[Progress],
) -> Iterator[Any]:
    """Episodes of whole devices, every cell of every month, and what each car cannot be judged on."""
    devices = asked(context)
    shown: dict[str, dict[str, Any]] = {}
    made = []
    with warehouse.open() as connection, step(progress, "episodes", len(devices), "devices"):
        known = cars(connection)
        slopes = ocv_slopes(known.values(), settings)
        reported = ledger.read(settings.outcomes).outcomes
        before = _open_episodes(connection, devices)
        releases = Releases(settings.released)
        for device in devices:
            car = known.get(device, Car(device))
            found = _made(connection, context_of(connection, car, releases, slopes), closing_dates(reported, device))
            made.append(found)
            opened = set(found.episodes.filter(pl.col("closed_at").is_null())["anomaly_id"])
            shown[device] = {
                "episodes": found.episodes.height,
                "open": len(opened),
                "opened_by_this_run": len(opened - before.get(device, set())),
                "closed_by_this_run": len(before.get(device, set()) - opened),
                "not_judged": found.coverage.height,
            }
            progress.advance(1)
        tables = {
            "anomaly": ([m.episodes for m in made], _EPISODES),
            "cell_month": ([m.cells for m in made], _CELLS),
            "anomaly_coverage": ([m.coverage for m in made], _COVERAGE),
        }
        replace_devices(connection, devices, tables)
        outcomes_of = _check_devices(
            connection, devices, pl.concat([pl.DataFrame(schema=_EPISODES), *tables["anomaly"][0]])
        )
        fingerprints = load(connection, settings).made[Unit.ANOMALY]
        mark(connection, Unit.ANOMALY, {d: fingerprints[d] for d in devices if d in fingerprints})
    yield materialized(context, "anomaly_chain", shown)
    yield report(context, "anomaly_chain", outcomes_of)


_EPISODES = {**EPISODE_SCHEMA, "device_no": pl.String, "measured_month": pl.String}
_CELLS = {**CELL_MONTH_SCHEMA, "device_no": pl.String}


def ocv_slopes(known: Iterable[Car], settings: Settings) -> dict[Any, Any]:
    """(chemistry, pack type) -> slope of the cell's open-circuit voltage, mV per point, at a SoC in %."""
    curves = Curves(Releases(settings.released))
    found: dict[Any, Any] = {}
    for key in {(car.chemistry, car.pack_type) for car in known}:
        curve = curves.of(*key)
        if curve is not None:
            found[key] = partial(_slope, curve.slope_mv_per_pct)
    return found


def _slope(slopes: Any, soc_pct: float) -> float:
    return float(np.interp(soc_pct, SOC_PCT, slopes))


def _open_episodes(connection: duckdb.DuckDBPyConnection, devices: Sequence[str]) -> dict[str, set[str]]:
    if not connection.execute(
        "select 1 from duckdb_tables() where schema_name = 'stitched' and table_name = 'anomaly'"
    ).fetchall():
        return {}
    found: dict[str, set[str]] = {}
    for device, anomaly in connection.execute(
        "select device_no, anomaly_id from stitched.anomaly "
        "where closed_at is null and device_no in (select unnest(?::varchar[]))",
        [list(devices)],
    ).fetchall():
        found.setdefault(device, set()).add(anomaly)
    return found


def _check_devices(
    connection: duckdb.DuckDBPyConnection, devices: Sequence[str], found: pl.DataFrame
) -> dict[str, list[Outcome]]:
    """Check episodes; results per month go to the quality table, those per device to the UI."""
    by_device, by_month = check_episodes(found, devices)
    by_partition = {PartitionId(device, month): outcomes for (device, month), outcomes in sorted(by_month.items())}
    write_quality(connection, "fct_anomaly", by_partition, devices=devices)
    return by_device
