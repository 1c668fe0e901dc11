"""Stages 4 and 5: the dbt models, and the stitching of the odometer between them.

LOCAL models (staging views and pieces) read one partition's rows alone and replace exactly the partitions of the run;
`odometer_chain` and the marts are STITCHED: they read a device's pieces and replace the device. dbt runs inside the
process on the scope that stands in the scope tables.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from graphlib import TopologicalSorter
from typing import Any

import dagster as dg
import duckdb
from dagster_dbt import DagsterDbtTranslator, DagsterDbtTranslatorSettings, build_dbt_asset_specs

from baas_dagster.assets.common import (
    asked,
    materialized,
    only_new_garbage,
    raw_files,
    replace_devices,
    run_dbt,
    set_scope,
    write_quality,
)
from baas_dagster.checks import check_spec, report
from baas_dagster.mileage.odometer import EVENT_SCHEMA, SEGMENT_SCHEMA, OdometerRules, stitch
from baas_dagster.partitions import DEVICES, PARTITIONS, PartitionId
from baas_dagster.progress import Progress, step
from baas_dagster.resources import Dbt, Lake, Warehouse, insert, query
from baas_dagster.schemas.marts import MART_CHECKS, check_devices
from baas_dagster.schemas.outcome import Outcome, Severity
from baas_dagster.settings import Settings, sql_vars
from baas_dagster.state import Unit, load, mark

__all__ = ["build_health_models", "build_local_models", "build_mart_models", "odometer_chain"]

_LOCAL = "tag:local"
_STITCHED = "tag:stitched"
_HEALTH = "tag:health"
_ONE_RUN = dg.BackfillPolicy.single_run()


class _Translator(DagsterDbtTranslator):
    """Names, groups and upstream assets of dbt nodes."""

    def __init__(self) -> None:
        super().__init__(
            DagsterDbtTranslatorSettings(enable_asset_checks=False, enable_duplicate_source_asset_keys=True)
        )

    def get_asset_key(self, dbt_resource_props: Mapping[str, Any]) -> dg.AssetKey:
        """A model's name alone; a source is the asset that writes it."""
        if dbt_resource_props["resource_type"] != "source":
            return dg.AssetKey(dbt_resource_props["name"])
        name = dbt_resource_props["name"]
        if dbt_resource_props["source_name"] == "stitched":
            return dg.AssetKey("odometer_chain" if name.startswith("odometer") else "battery_chain")
        decided = {"device_setting", "layout_setting", "month_setting"}
        return dg.AssetKey("device_decision" if name in decided else "raw_bms")

    def get_group_name(self, dbt_resource_props: Mapping[str, Any]) -> str | None:
        """The folder of the model."""
        return str(dbt_resource_props["fqn"][1])

    def get_asset_spec(self, manifest: Mapping[str, Any], unique_id: str, project: Any) -> dg.AssetSpec:
        """A staging view reads the lake through a macro that dbt cannot see: its raw partition is upstream.

        What is local may read the device's decisions, but is not declared below them: a device maps to all months there
        are, so a backfill of two months would run all of them. That a decision changed is seen by the fingerprints.
        """
        spec = super().get_asset_spec(manifest, unique_id, project)
        upstream = {"stg_bms": "raw_bms", "stg_gps": "raw_gps"}.get(spec.key.to_user_string())
        if upstream is not None:
            return spec.replace_attributes(deps=[dg.AssetDep(upstream)])
        if "local" in manifest["nodes"].get(unique_id, {}).get("tags", ()):
            decided = dg.AssetKey("device_decision")
            return spec.replace_attributes(deps=[dep for dep in spec.deps if dep.asset_key != decided])
        return spec


def _specs(manifest: Mapping[str, Any], select: str) -> list[dg.AssetSpec]:
    """Assets of the selected models, with descriptions, columns and upstream assets from the manifest."""
    found = build_dbt_asset_specs(manifest=manifest, dagster_dbt_translator=_Translator(), select=select)
    return [spec.replace_attributes(skippable=True) for spec in found]


def _models(context: dg.AssetExecutionContext, manifest: Mapping[str, Any]) -> list[str]:
    """The selected models, each after those it reads: Dagster wants results in that order."""
    selected = {key.to_user_string() for key in context.selected_asset_keys}
    order = TopologicalSorter(manifest["parent_map"]).static_order()
    names = [unique_id.split(".")[-1] for unique_id in order if unique_id.startswith("model.")]
    return [name for name in names if name in selected]


def _row_counts(connection: duckdb.DuckDBPyConnection, table: str, by: str) -> dict[str, int]:
    scope = "ops.scope_partition" if "measured_month" in by else "ops.scope_device"
    rows = connection.execute(
        f"select {by} as key, count(*) from {table} inner join {scope} using ({_join_columns(by)}) group by key"
    ).fetchall()
    return dict(rows)


def _join_columns(by: str) -> str:
    return "device_no, measured_month" if "measured_month" in by else "device_no"


def build_local_models(manifest: Mapping[str, Any]) -> dg.AssetsDefinition:
    """Staging views and local pieces as one multi-asset over device x month."""

    @dg.multi_asset(
        name="local_models",
        specs=_specs(manifest, _LOCAL),
        can_subset=True,
        partitions_def=PARTITIONS,
        backfill_policy=_ONE_RUN,
    )
    def local_models(
        context: dg.AssetExecutionContext,
        settings: dg.ResourceParam[Settings],
        warehouse: Warehouse,
        lake: dg.ResourceParam[Lake],
        dbt: dg.ResourceParam[Dbt],
        progress: dg.ResourceParam[Progress],
    ) -> Iterator[Any]:
        keys = asked(context)
        parts = [PartitionId.parse(key) for key in keys]
        models = _models(context, manifest)
        # locked from the scope to the state, so that no other run changes the scope in between
        with warehouse.locked(), step(progress, "local pieces", len(parts), "partitions"):
            with warehouse.open() as connection:
                set_scope(connection, parts, raw_files(connection, lake, parts))
            run_dbt(dbt, warehouse, settings, Unit.LOCAL, models, keys)
            with warehouse.open() as connection:
                counts = _counted(connection, manifest, models, "device_no || '|' || measured_month")
                if "int_value_count" in models:
                    _write_value_counts(connection, parts)
                if set(models) == {k.to_user_string() for k in local_models.keys}:
                    made = load(connection, settings).made[Unit.LOCAL]
                    mark(connection, Unit.LOCAL, {key: made[key] for key in keys if key in made})
            progress.advance(len(parts))
        for model in models:
            yield materialized(context, model, {k: _metadata(counts, model, k) for k in keys})

    return local_models


def _metadata(counts: Mapping[str, Mapping[str, int]], model: str, key: str) -> dict[str, Any]:
    return {"dagster/row_count": counts[model].get(key, 0)} if model in counts else {}


def _counted(
    connection: duckdb.DuckDBPyConnection, manifest: Mapping[str, Any], models: Sequence[str], by: str
) -> dict[str, dict[str, int]]:
    """Model -> key -> rows, of the models that are tables."""
    found = {}
    for node in manifest["nodes"].values():
        is_wanted = node["resource_type"] == "model" and node["name"] in models
        if is_wanted and node["config"]["materialized"] in {"incremental", "table"}:
            found[node["name"]] = _row_counts(connection, f"{node['schema']}.{node['name']}", by)
    return found


def _write_value_counts(connection: duckdb.DuckDBPyConnection, parts: Sequence[PartitionId]) -> None:
    """What is no measurement, counted per device, month and rule, beside the checks."""
    rows = connection.execute(
        """
        select
            c.measured_month, c.device_no, 'stg_' || c.source_kind as table_name,
            c.rule, c.kind, c.rows_hit = 0 as is_passed, c.rows_checked, c.rows_hit, c.example,
        from intermediate.int_value_count as c inner join ops.scope_partition using (device_no, measured_month)
        """
    ).fetchall()
    for table in ("stg_bms", "stg_gps"):
        found: dict[PartitionId, list[Outcome]] = {part: [] for part in parts}
        for month, device, name, *outcome in rows:
            if name == table:
                found[PartitionId(device, month)].append(Outcome(*outcome))
        write_quality(connection, table, found)


def _rules() -> OdometerRules:
    numbers = sql_vars()
    return OdometerRules(**{f.name: numbers[f.name] for f in fields(OdometerRules)})


@dg.asset(
    partitions_def=DEVICES,
    deps=[
        dg.AssetDep(name, partition_mapping=dg.MultiToSingleDimensionPartitionMapping("device_no"))
        for name in ("int_odometer_run", "int_mileage_day", "int_gps_run")
    ],
    group_name="marts",
    kinds={"polars", "duckdb"},
    backfill_policy=_ONE_RUN,
)
def odometer_chain(
    context: dg.AssetExecutionContext, warehouse: Warehouse, progress: dg.ResourceParam[Progress]
) -> dg.MaterializeResult[None]:
    """Kilometres in time and odometer events of whole devices, stitched from the pieces of all their months."""
    devices = asked(context)
    rules = _rules()
    shown = {}
    with warehouse.open() as connection, step(progress, "stitching", len(devices), "devices"), only_new_garbage():
        gates: dict[str, list[str]] = {}
        for device, month in connection.execute(
            "select distinct device_no, measured_month from ops.partition_gate"
        ).fetchall():
            gates.setdefault(device, []).append(month)
        segments, events = [], []
        for device in devices:
            runs, days, gps_runs = (
                query(connection, f"select * from intermediate.{name} where device_no = ?", [device])
                for name in ("int_odometer_run", "int_mileage_day", "int_gps_run")
            )
            found = stitch(runs, days, gps_runs, rules, gates.get(device, ()))
            segments.append(found.segments)
            events.append(found.events)
            shown[device] = {"segments": found.segments.height, "events": found.events.height}
            progress.advance(1)
        replace_devices(
            connection,
            devices,
            {"odometer_segment": (segments, SEGMENT_SCHEMA), "odometer_event": (events, EVENT_SCHEMA)},
        )
    return materialized(context, "odometer_chain", shown)


def build_mart_models(manifest: Mapping[str, Any]) -> dg.AssetsDefinition:
    """The marts as one multi-asset over devices, with their pandera checks."""
    return _device_models("mart_models", manifest, _STITCHED, Unit.DEVICE)


def build_health_models(manifest: Mapping[str, Any]) -> dg.AssetsDefinition:
    """The marts above `battery_chain` as one multi-asset over devices, with their pandera checks."""
    return _device_models("health_models", manifest, _HEALTH, Unit.HEALTH)


def _device_models(name: str, manifest: Mapping[str, Any], select: str, unit: Unit) -> dg.AssetsDefinition:
    specs = _specs(manifest, select)
    made_here = {spec.key.to_user_string() for spec in specs}

    @dg.multi_asset(
        name=name,
        specs=specs,
        check_specs=[
            check_spec(table, DEVICES, "A device that fails keeps its last figures.")
            for table in MART_CHECKS
            if table in made_here
        ],
        can_subset=True,
        partitions_def=DEVICES,
        backfill_policy=_ONE_RUN,
    )
    def device_models(
        context: dg.AssetExecutionContext,
        settings: dg.ResourceParam[Settings],
        warehouse: Warehouse,
        dbt: dg.ResourceParam[Dbt],
        progress: dg.ResourceParam[Progress],
    ) -> Iterator[Any]:
        devices = asked(context)
        models = _models(context, manifest)
        with warehouse.locked(), step(progress, name.replace("_", " "), len(devices), "devices"):
            with warehouse.open() as connection:
                known = load(connection, settings).partitions
                set_scope(connection, [p for p in known if p.device_no in set(devices)], {})
            run_dbt(dbt, warehouse, settings, unit, models, devices)
            with warehouse.open() as connection:
                counts = _counted(connection, manifest, models, "device_no")
                outcomes = _check(connection, models, devices)
                if set(models) == made_here:
                    made = load(connection, settings).made[unit]
                    mark(connection, unit, {d: made[d] for d in devices if d in made})
            progress.advance(len(devices))
        for model in models:
            yield materialized(context, model, {d: _metadata(counts, model, d) for d in devices})
        for table, found in outcomes.items():
            yield report(context, table, found)

    return device_models


_MINE = "device_no in (select unnest(?::varchar[]))"
_CHECKED = {
    # dated by its last delivered month, so that a failed check has a month to stand in
    "dim_device": f"""
        with months as (
            select device_no, measured_month from ops.delivered_slice
            union all
            select device_no, measured_month from ops.raw_partition
        ),
        delivered as (
            select device_no, max(measured_month) as measured_month from months group by device_no
        )
        select d.*, delivered.measured_month
        from marts.dim_device as d inner join delivered using (device_no)
        where {_MINE}
    """,
    "fct_mileage_daily": f"select * from marts.fct_mileage_daily where {_MINE}",
    "fct_mileage_monthly": f"""
        with days as (
            select device_no, measured_month, sum(distance_km) as days_distance_km
            from marts.fct_mileage_daily group by device_no, measured_month
        )
        select m.*, days.days_distance_km
        from marts.fct_mileage_monthly as m left join days using (device_no, measured_month)
        where {_MINE}
    """,
    "fct_odometer_event": f"select * from marts.fct_odometer_event where {_MINE}",
    "fct_charging_session": f"select * from marts.fct_charging_session where {_MINE}",
    "fct_trip": f"select * from marts.fct_trip where {_MINE}",
    "fct_energy_daily": f"""
        with sessions as (
            select device_no, sum(energy_kwh) as session_charged_kwh
            from marts.fct_charging_session where mode <> 'V2L' group by device_no
        ),
        days as (
            select device_no, sum(charged_kwh) as days_charged_kwh
            from marts.fct_energy_daily group by device_no
        )
        select d.*, sessions.session_charged_kwh, days.days_charged_kwh
        from marts.fct_energy_daily as d
        left join sessions using (device_no)
        left join days using (device_no)
        where {_MINE}
    """,
    "fct_soc_daily": f"select * from marts.fct_soc_daily where {_MINE}",
    "fct_exposure_monthly": f"""
        with days as (
            select device_no, measured_month, sum(logged_h + silent_h) as span_h
            from marts.fct_soc_daily group by device_no, measured_month
        )
        select e.*, sum(e.hours) over (partition by device_no, measured_month, e.kind) as kind_h, days.span_h
        from marts.fct_exposure_monthly as e left join days using (device_no, measured_month)
        where {_MINE}
    """,
    # dated by its last pass, so that a failed check has a month to stand in
    "fct_charge_curve": f"""
        select *, strftime(last_at, '%Y-%m') as measured_month from marts.fct_charge_curve where {_MINE}
    """,
    **{
        table: f"select * from marts.{table} where {_MINE}"
        for table in (
            "fct_efficiency_monthly",
            "fct_power_monthly",
            "fct_parked_loss",
            "fct_counter_audit_monthly",
            "fct_capacity_estimate",
            "fct_soh_monthly",
        )
    },
}


def _check(
    connection: duckdb.DuckDBPyConnection, models: Sequence[str], devices: Sequence[str]
) -> dict[str, dict[str, list[Outcome]]]:
    """Check the marts of these devices; a device that fails a severe check keeps its last good figures."""
    found: dict[str, dict[str, list[Outcome]]] = {}
    listed = list(devices)
    for table in (name for name in MART_CHECKS if name in models):
        frame = query(connection, _CHECKED[table], [listed])
        by_device, by_month = check_devices(table, frame, listed)
        found[table] = by_device
        write_quality(connection, table, {PartitionId(*key): o for key, o in by_month.items()}, devices=listed)
    connection.execute(
        f"delete from ops.device_hold where {_MINE} "
        "and split_part(check_name, '.', 1) in (select unnest(?::varchar[]))",
        [listed, list(found)],
    )
    insert(
        connection,
        "ops.device_hold",
        [
            (device, f"{table}.{o.check_name}", o.example or "")
            for table, by_device in found.items()
            for device, outcomes in by_device.items()
            for o in outcomes
            if o.severity is Severity.HOLD and not o.is_passed
        ],
    )
    return found
