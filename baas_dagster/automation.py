"""Jobs, the landing sensor and the self-healing schedule.

Belongs here: which assets run together, and turning the work that ``state`` names into runs. Does not belong here:
deciding what needs a run. A job has one partitions definition, so the chain is a job per kind of run.

Sensor and schedule request the runs of all stages at once, in the order of the chain; the run queue (dagster.yaml, one
run at a time) keeps that order, and where it does not, fingerprints show it and the next tick repairs it.
"""

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import dagster as dg

from baas_dagster.intake import changed_paths
from baas_dagster.partitions import DEVICES, PartitionId, device_range_tags, range_tags, rectangles, runs_of
from baas_dagster.resources import Warehouse, WarehouseBusy
from baas_dagster.settings import Settings
from baas_dagster.state import State, Unit, WorkItem, load

__all__ = [
    "INTAKE",
    "REASON_TAG",
    "RELEASE",
    "Batch",
    "Stage",
    "batches",
    "build_jobs",
    "build_stages",
    "free_dead_runs",
    "landing_sensor",
    "monthly_close",
    "next_requests",
    "self_healing",
]

REASON_TAG = "baas/reason"
_PRIORITY_TAG = "dagster/priority"
_ALL_ASSETS_JOB = "__ASSET_JOB"  # Dagster's own job over every asset: the only one that mixes partitions definitions
_AT_WORK = [dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED]


@dataclass(frozen=True)
class Stage:
    """One kind of run: its job, the units it brings up to date, and the assets it runs."""

    job: str
    units: tuple[Unit, ...]
    assets: tuple[str, ...]
    description: str


INTAKE = Stage("intake", (), ("landing_files",), "What arrived: catalogue and delivered slices.")
RELEASE = Stage("release", (), ("released_versions",), "Learn fleet versions (OCV curves); activate them where asked.")
_BY_PARTITION = {Unit.RAW_BMS, Unit.RAW_GPS, Unit.LOCAL, Unit.EVIDENCE}


def build_stages(local: Sequence[str], stitched: Sequence[str], health: Sequence[str]) -> tuple[Stage, ...]:
    """The stages in their order. `local`, `stitched` and `health` are the asset names of the dbt stages."""
    return (
        Stage("raw", (Unit.RAW_BMS, Unit.RAW_GPS), ("raw_bms", "raw_gps"), "Raw partitions, checked."),
        Stage("decide", (Unit.DECISION,), ("device_decision",), "What each device is."),
        Stage("local", (Unit.LOCAL,), tuple(local), "Staging views and local pieces."),
        Stage("evidence", (Unit.EVIDENCE,), ("anomaly_evidence",), "What the detectors see in each month, checked."),
        Stage("stitch", (Unit.DEVICE,), tuple(stitched), "Marts of whole devices, checked."),
        Stage("health", (Unit.HEALTH,), tuple(health), "Capacity and state of health of whole devices, checked."),
        Stage("anomalies", (Unit.ANOMALY,), ("anomaly_chain",), "Episodes of whole devices, checked."),
        Stage(
            "publish",
            (Unit.FLEET,),
            ("charging_sites", "inspection_queue", "published_snapshot"),
            "Sites, the inspection queue, and what BI tools read.",
        ),
    )


def build_jobs(stages: Sequence[Stage]) -> list[Any]:
    """One job per stage."""
    return [
        dg.define_asset_job(stage.job, list(stage.assets), description=stage.description)
        for stage in (INTAKE, *stages, RELEASE)
    ]


@dataclass(frozen=True)
class Batch:
    """One run: its stage, the keys it covers (none for the fleet), its tags, and the fingerprint of its work."""

    stage: Stage
    keys: tuple[str, ...]
    tags: dict[str, str]
    work: str


def batches(
    stage: Stage,
    items: Sequence[WorkItem],
    registered: Sequence[str],
    weight: dict[PartitionId, int],
    settings: Settings,
) -> list[Batch]:
    """Cut the work of one stage into runs that cover exactly its keys: rectangles, stretches of devices, or one run.

    Each is tagged with its reason; keys with different reasons do not share a run.
    """
    by_reason: dict[str, dict[str, str]] = {}
    seen: set[str] = set()
    for item in items:
        if item.key not in seen:
            by_reason.setdefault(item.reason, {})[item.key] = item.fingerprint
            seen.add(item.key)
    found: list[Batch] = []
    for reason, work in sorted(by_reason.items()):
        blocks: list[tuple[tuple[str, ...], dict[str, str]]] = []
        if stage.units[0] is Unit.FLEET:
            blocks = [((), {})]
        elif stage.units[0] in _BY_PARTITION:
            parts = [PartitionId.parse(key) for key in work]
            for block in rectangles(parts, registered, weight, settings.max_keys_per_run, settings.max_rows_per_run):
                blocks.append((tuple(p.key for p in block), range_tags(block)))
        else:
            for first, last in runs_of(registered, work):
                stretch = registered[registered.index(first) : registered.index(last) + 1]
                for i in range(0, len(stretch), settings.max_keys_per_run):
                    part = tuple(stretch[i : i + settings.max_keys_per_run])
                    blocks.append((part, device_range_tags(part[0], part[-1])))
        for keys, tags in blocks:
            text = "|".join(f"{k}={work.get(k, '')}" for k in keys or sorted(work))
            digest = hashlib.sha256(text.encode()).hexdigest()[:16]
            found.append(Batch(stage, keys, {**tags, REASON_TAG: reason}, f"{stage.job}-{digest}"))
    return found


def next_requests(
    state: State,
    registered: Sequence[str],
    stages: Sequence[Stage],
    settings: Settings,
    *,
    retry_failed: bool,
    run_key_suffix: str = "",
) -> list[dg.RunRequest]:
    """Run requests for exactly what the state names, stage by stage."""
    found = []
    plan = state.plan(retry_failed=retry_failed)
    for number, stage in enumerate(stages):
        items = [item for unit in stage.units for item in plan[unit]]
        found += [
            dg.RunRequest(
                run_key=f"{batch.work}{run_key_suffix}" if run_key_suffix else None,
                asset_selection=[dg.AssetKey(name) for name in stage.assets],
                tags={**batch.tags, _PRIORITY_TAG: str(-number)},
            )
            for batch in batches(stage, items, registered, state.weight, settings)
        ]
    return found


def free_dead_runs(instance: dg.DagsterInstance) -> list[str]:
    """Mark runs as failed whose process is gone: a killed run would hold its place in the queue for ever."""
    freed = []
    started = [dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED]
    for run in instance.get_runs(dg.RunsFilter(statuses=started)):
        pids = []
        for event in instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ENGINE_EVENT):
            data = event.dagster_event.event_specific_data if event.dagster_event else None
            pid = getattr(data, "metadata", {}).get("pid")
            if pid is not None:
                pids.append(int(str(pid.value)))
        if pids and not _is_alive(pids[-1]):
            instance.report_run_failed(run, f"process {pids[-1]} of this run is gone")
            freed.append(run.run_id)
    return freed


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _tick(
    instance: dg.DagsterInstance,
    settings: Settings,
    warehouse: Warehouse,
    stages: Sequence[Stage],
    *,
    retry_failed: bool,
    run_key_suffix: str = "",
) -> Iterator[dg.RunRequest | dg.SkipReason]:
    """New files first: what they hold is known after intake. Else everything that the state names."""
    free_dead_runs(instance)
    at_work = instance.get_runs_count(dg.RunsFilter(statuses=_AT_WORK))
    if at_work:
        yield dg.SkipReason(f"{at_work} runs are at work or queued")
        return
    try:
        with warehouse.open(timeout_s=0) as connection:
            changed = changed_paths(connection, settings)
            state = load(connection, settings)
    except WarehouseBusy as busy:
        yield dg.SkipReason(str(busy))
        return
    if changed:
        yield dg.RunRequest(
            run_key=f"intake{run_key_suffix}" if run_key_suffix else None,
            asset_selection=[dg.AssetKey(name) for name in INTAKE.assets],
            tags={REASON_TAG: f"{changed} new or changed files"},
        )
        return
    registered = list(instance.get_dynamic_partitions(str(DEVICES.name)))
    requests = next_requests(
        state, registered, stages, settings, retry_failed=retry_failed, run_key_suffix=run_key_suffix
    )
    yield from requests
    if not requests:
        yield dg.SkipReason("everything is up to date")


def landing_sensor(settings: Settings, warehouse: Warehouse, stages: Sequence[Stage]) -> dg.SensorDefinition:
    """Looks at the landing and at the state every minute; what failed waits for the daily schedule."""

    @dg.sensor(
        name="landing_sensor",
        asset_selection=dg.AssetSelection.all(),
        minimum_interval_seconds=60,
        default_status=dg.DefaultSensorStatus.STOPPED,
        description="Launches exactly what the state names as new or changed, tagged with the reason.",
    )
    def tick(context: dg.SensorEvaluationContext) -> Iterator[dg.RunRequest | dg.SkipReason]:
        yield from _tick(context.instance, settings, warehouse, stages, retry_failed=False)

    return tick


def monthly_close() -> dg.ScheduleDefinition:
    """Once a month, when the deliveries of the last one are in: learn fleet versions and activate them.

    What they change is stale then; the sensor or the next night makes it anew.
    """

    @dg.schedule(
        name="monthly_close",
        cron_schedule="0 7 5 * *",
        execution_timezone="Asia/Seoul",
        job_name=RELEASE.job,
        default_status=dg.DefaultScheduleStatus.STOPPED,
        description="Learns OCV curves from the whole fleet and activates them, on the fifth of each month.",
    )
    def tick(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
        config = {"ops": {RELEASE.assets[0]: {"config": {"activate": True}}}}
        return dg.RunRequest(run_config=config, tags={REASON_TAG: "monthly close"})

    return tick


def self_healing(settings: Settings, warehouse: Warehouse, stages: Sequence[Stage]) -> dg.ScheduleDefinition:
    """Every night everything that is new, changed or failed."""

    @dg.schedule(
        name="self_healing",
        cron_schedule="0 5 * * *",
        execution_timezone="Asia/Seoul",
        job_name=_ALL_ASSETS_JOB,
        default_status=dg.DefaultScheduleStatus.STOPPED,
        description="Launches exactly what the state names as new, changed or failed, tagged with the reason.",
    )
    def tick(context: dg.ScheduleEvaluationContext) -> Iterator[dg.RunRequest | dg.SkipReason]:
        suffix = f"-{context.scheduled_execution_time:%Y%m%d%H%M}"
        yield from _tick(context.instance, settings, warehouse, stages, retry_failed=True, run_key_suffix=suffix)

    return tick
