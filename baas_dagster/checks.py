"""From outcomes of pandera checks to Dagster asset checks, one result per partition also in a range run.

Belongs here: how a check is declared on an asset and reported per partition. Does not belong here: what is checked
(``schemas``) and what a failure does (``assets``: data gates by data, never by a blocking check, because a blocking
check stops all partitions of its run and no later run).

A check result returned from a range run is stored without a partition and its partitions show "skipped". So each
partition's evaluation is logged by itself, aimed at the partition's newest materialization, and a summary is returned.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import dagster as dg
from dagster._core.definitions.asset_checks.asset_check_evaluation import (
    AssetCheckEvaluationTargetMaterializationData as _Target,
)

from baas_dagster.schemas.outcome import Outcome, Severity

__all__ = ["check_spec", "report", "report_whole"]


def check_spec(asset: str, partitions: dg.PartitionsDefinition[str] | None, description: str) -> dg.AssetCheckSpec:
    """The one pandera check of an asset. `partitions` is None for one of the whole fleet."""
    return dg.AssetCheckSpec(f"{asset}_schema", asset=asset, partitions_def=partitions, description=description)


def _latest(context: dg.AssetExecutionContext, asset: dg.AssetKey, keys: Sequence[str]) -> dict[str, _Target]:
    found: dict[str, _Target] = {}
    records = context.instance.fetch_materializations(
        dg.AssetRecordsFilter(asset_key=asset, asset_partitions=list(keys)), limit=max(100, 3 * len(keys))
    ).records
    for record in records:  # newest first
        if record.partition_key is not None and record.partition_key not in found:
            found[record.partition_key] = _Target(
                storage_id=record.storage_id, run_id=record.run_id, timestamp=record.timestamp
            )
    return found


def report(
    context: dg.AssetExecutionContext, asset: str, found: Mapping[str, Sequence[Outcome]]
) -> dg.AssetCheckResult:
    """Log one evaluation per partition key; returns the summary of the run."""
    key, name = dg.AssetKey(asset), f"{asset}_schema"
    targets = _latest(context, key, list(found))
    worst: str = Severity.FLAG
    failed_keys = []
    for partition, outcomes in found.items():
        failed = [o for o in outcomes if not o.is_passed]
        severe = [o for o in failed if o.severity is not Severity.FLAG]
        if failed:
            failed_keys.append(partition)
        if severe:
            worst = severe[0].severity
        # the signature does not list check evaluations, the event log takes them; a test keeps watch
        context.op_execution_context.log_event(
            dg.AssetCheckEvaluation(  # type: ignore[arg-type]
                asset_key=key,
                check_name=name,
                passed=not failed,
                severity=dg.AssetCheckSeverity.ERROR if severe else dg.AssetCheckSeverity.WARN,
                partition=partition,
                target_materialization_data=targets.get(partition),
                metadata={
                    "checks": len(outcomes),
                    "failed": len(failed),
                    "rows_checked": max((o.rows_checked for o in outcomes), default=0),
                    "outcomes": dg.MetadataValue.md(_table(failed) if failed else "all passed"),
                },
            )
        )
    return dg.AssetCheckResult(
        asset_key=key,
        check_name=name,
        passed=not failed_keys,
        severity=dg.AssetCheckSeverity.WARN if worst is Severity.FLAG else dg.AssetCheckSeverity.ERROR,
        metadata={"partitions": len(found), "partitions_failed": len(failed_keys), "failing": failed_keys[:20]},
    )


def report_whole(asset: str, outcomes: Sequence[Outcome]) -> dg.AssetCheckResult:
    """The result of an asset without partitions."""
    failed = [o for o in outcomes if not o.is_passed]
    is_severe = any(o.severity is not Severity.FLAG for o in failed)
    return dg.AssetCheckResult(
        asset_key=dg.AssetKey(asset),
        check_name=f"{asset}_schema",
        passed=not failed,
        severity=dg.AssetCheckSeverity.ERROR if is_severe else dg.AssetCheckSeverity.WARN,
        metadata={
            "checks": len(outcomes),
            "failed": len(failed),
            "outcomes": dg.MetadataValue.md(_table(failed) if failed else "all passed"),
        },
    )


def _table(outcomes: Sequence[Outcome]) -> str:
    lines = ["| check | severity | failed | of | example |", "|---|---|---|---|---|"]
    for o in outcomes:
        example = (o.example or "").replace("|", "/")
        lines.append(f"| {o.check_name} | {o.severity} | {o.rows_failed} | {o.rows_checked} | {example} |")
    return "\n".join(lines)
