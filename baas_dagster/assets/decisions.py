"""Stage 3: what each device is, decided from the evidence of all its partitions. STITCHED."""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg
import duckdb

from baas_dagster.assets.common import asked, materialized, write_quality
from baas_dagster.partitions import DEVICES, PartitionId
from baas_dagster.resources import Warehouse, insert
from baas_dagster.schemas.outcome import Outcome, Severity
from baas_dagster.settings import Settings
from baas_dagster.state import Unit, load, mark
from baas_dagster.telemetry.decisions import Decision, DeviceDecisions, Evidence, decide, read_overrides

__all__ = ["device_decision"]


def _evidence(connection: duckdb.DuckDBPyConnection, device_no: str) -> dict[str, dict[str, Evidence]]:
    """Layout -> month -> evidence of every partition that its checks let in."""
    rows = connection.execute(
        """
        select e.layout_id, e.measured_month, e.evidence from ops.decision_evidence as e
        where e.device_no = ? and not exists (
            select 1 from ops.partition_gate as g
            where g.device_no = e.device_no and g.measured_month = e.measured_month
        )
        order by e.measured_month
        """,
        [device_no],
    ).fetchall()
    found: dict[str, dict[str, Evidence]] = {}
    for layout, month, text in rows:
        found.setdefault(layout, {})[month] = json.loads(text)
    return found


def _car_type(connection: duckdb.DuckDBPyConnection, device_no: str) -> str | None:
    """The vehicle master's word: of several deliveries the newest, then the one with the greatest hash."""
    row = connection.execute(
        """
        select car_type from ops.vehicle_master where device_no = ?
        order by delivered_at desc nulls last, source_file desc limit 1
        """,
        [device_no],
    ).fetchone()
    return str(row[0]).strip().upper().replace(" ", "") if row and row[0] else None


def _store(connection: duckdb.DuckDBPyConnection, made: DeviceDecisions) -> str:
    """Write one device's decisions; returns the hash of their values, which is part of later fingerprints."""
    device = made.device_no
    for table in ("device_decision", "device_setting", "layout_setting", "month_setting"):
        connection.execute(f"delete from ops.{table} where device_no = ?", [device])
    insert(
        connection,
        "ops.device_decision",
        [
            (
                device, d.decision, d.layout_id, d.value, d.confidence, d.n,
                json.dumps(d.evidence, sort_keys=True), d.is_overridden, d.measured_month,
            )
            for d in made.decisions
        ],
    )  # fmt: skip

    def number(decision: str, layout: str | None = None) -> float | None:
        value = made.value(decision, layout)
        return None if value is None else float(value)

    def whole(decision: str, layout: str | None = None) -> int | None:
        value = number(decision, layout)
        return None if value is None else int(value)

    sources = [d.evidence.get("source") for d in made.decisions if d.decision == "capacity_nominal_ah"]
    setting: list[Any] = [
        made.value("car_type"), made.value("pack_type"), made.value("chemistry"), whole("cell_count"),
        whole("temp_sensor_count"), made.value("temp_sensor_map"), number("insulation_cap_kohm"),
        number("capacity_nominal_ah"), sources[0] if sources else None,
    ]  # fmt: skip
    layouts = [
        (
            device,
            layout,
            whole("current_sign", layout),
            number("voltage_scale", layout),
            number("soc_scale", layout),
        )
        for layout in sorted({d.layout_id for d in made.decisions if d.layout_id})
    ]
    months = [
        (device, d.layout_id, d.measured_month, None if d.value is None else int(d.value))
        for d in made.decisions
        if d.measured_month
    ]
    unsupported = made.value("unsupported_channels")
    content = hashlib.sha256(json.dumps([setting, unsupported, layouts, months]).encode()).hexdigest()[:24]
    insert(connection, "ops.device_setting", [(device, *setting, content, unsupported)])
    insert(connection, "ops.layout_setting", layouts)
    insert(connection, "ops.month_setting", months)
    return content


@dg.asset(
    partitions_def=DEVICES,
    deps=[
        dg.AssetDep("raw_bms", partition_mapping=dg.MultiToSingleDimensionPartitionMapping("device_no")),
        dg.AssetDep("raw_gps", partition_mapping=dg.MultiToSingleDimensionPartitionMapping("device_no")),
    ],
    group_name="raw",
    kinds={"duckdb"},
    backfill_policy=dg.BackfillPolicy.single_run(),
)
def device_decision(
    context: dg.AssetExecutionContext, settings: dg.ResourceParam[Settings], warehouse: Warehouse
) -> dg.MaterializeResult[None]:
    """Current sign and voltage scale per export layout, months that differ; sensors, channels, cells, pack, cap."""
    devices = asked(context)
    overrides = read_overrides(settings.overrides)
    shown = {}
    quality: dict[PartitionId, list[Outcome]] = {}
    with warehouse.open() as connection:
        before = dict(connection.execute("select device_no, content from ops.device_setting").fetchall())
        connection.execute("begin")
        for device in devices:
            pieces = _evidence(connection, device)
            made = decide(
                device,
                pieces,
                _car_type(connection, device),
                overrides.get(device, {}),
                settings.min_sign_evidence,
                settings.min_sign_confidence,
            )
            content = _store(connection, made)
            quality |= _quality(made, pieces)
            shown[device] = {
                "changed": before.get(device) not in {None, content},
                "decisions": dg.MetadataValue.md(_table(made)),
            }
        write_quality(connection, "device_decision", quality, devices=devices)
        state = load(connection, settings)
        made_from = state.made[Unit.DECISION]
        mark(connection, Unit.DECISION, {d: made_from[d] for d in devices if d in made_from})
        connection.execute("commit")
    return materialized(context, "device_decision", shown)


def _quality(made: DeviceDecisions, pieces: Mapping[str, Mapping[str, Evidence]]) -> dict[PartitionId, list[Outcome]]:
    """Per month: rows whose current has no sign or another than the rest of their export, or whose SoC is not in %."""
    soc_scales = {d.layout_id: d for d in made.decisions if d.decision == "soc_scale"}
    signs = {(d.layout_id, d.measured_month): d for d in made.decisions if d.decision == "current_sign"}
    rows: Counter[str] = Counter()
    soc_rows: Counter[str] = Counter()
    unknown: dict[str, list[tuple[int, Decision]]] = {}
    differs: dict[str, list[tuple[int, Decision]]] = {}
    scaled: dict[str, list[tuple[int, Decision]]] = {}
    for layout, months in pieces.items():
        for month, found in months.items():
            rows[month] += (count := found.get("current_rows", 0))
            soc_rows[month] += found.get("soc_rows", 0)
            scale = soc_scales.get(layout)
            if scale is not None and scale.value not in {None, "1"} and found.get("soc_rows", 0):
                scaled.setdefault(month, []).append((found["soc_rows"], scale))
            decision = signs.get((layout, month)) or signs.get((layout, None))
            if decision is None or not count:
                continue
            if decision.value is None:
                unknown.setdefault(month, []).append((count, decision))
            elif decision.measured_month:
                differs.setdefault(month, []).append((count, decision))

    def outcome(name: str, checked: int, hit: Sequence[tuple[int, Decision]]) -> Outcome:
        example = "; ".join(
            f"{d.layout_id}: {d.decision} {d.value or 'unknown'}, confidence {d.confidence} from {d.n}" for _, d in hit
        )
        failed = sum(count for count, _ in hit)
        return Outcome(name, Severity.FLAG, not failed, checked, failed, example or None)

    return {
        PartitionId(made.device_no, month): [
            outcome("current_has_a_sign", rows[month], unknown.get(month, [])),
            outcome("current_sign_of_its_export", rows[month], differs.get(month, [])),
            outcome("soc_in_percent", soc_rows[month], scaled.get(month, [])),
        ]
        for month in sorted(rows)
    }


def _table(made: DeviceDecisions) -> str:
    lines = ["| decision | layout | month | value | confidence | n | by hand |", "|---|---|---|---|---|---|---|"]
    lines += [
        f"| {d.decision} | {d.layout_id or ''} | {d.measured_month or ''} | {d.value} | {d.confidence} | {d.n} "
        f"| {d.is_overridden or ''} |"
        for d in made.decisions
    ]
    return "\n".join(lines)
