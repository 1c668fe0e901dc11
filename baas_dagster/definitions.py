"""The only wiring: assets, checks, jobs, sensor, schedule and resources become one Dagster code location.

Belongs here: putting the parts together. Does not belong here: anything that a part does. A test passes settings; it
never patches a global.
"""

from __future__ import annotations

from dataclasses import dataclass

import dagster as dg

from baas_dagster.assets.anomalies import anomaly_chain, anomaly_evidence
from baas_dagster.assets.battery import battery_chain
from baas_dagster.assets.decisions import device_decision
from baas_dagster.assets.landing import landing_files
from baas_dagster.assets.marts import build_health_models, build_local_models, build_mart_models, odometer_chain
from baas_dagster.assets.publish import published_snapshot
from baas_dagster.assets.queue import inspection_queue
from baas_dagster.assets.raw import raw_bms, raw_gps
from baas_dagster.assets.release import released_versions
from baas_dagster.assets.sites import charging_sites
from baas_dagster.automation import Stage, build_jobs, build_stages, landing_sensor, monthly_close, self_healing
from baas_dagster.progress import Progress, Silent
from baas_dagster.resources import Dbt, Lake, Warehouse, dbt_manifest
from baas_dagster.settings import Settings

__all__ = ["Platform", "build", "build_definitions", "defs"]


@dataclass(frozen=True)
class Platform:
    """The code location, and the stages its jobs run in."""

    definitions: dg.Definitions
    stages: tuple[Stage, ...]


def build_definitions(settings: Settings) -> dg.Definitions:
    """What Dagster loads, on the paths and numbers of `settings`."""
    return build(settings).definitions


def build(settings: Settings, progress: Progress | None = None) -> Platform:
    """Everything, on the paths and numbers of `settings`."""
    manifest = dbt_manifest(settings)
    local_models, mart_models = build_local_models(manifest), build_mart_models(manifest)
    health_models = build_health_models(manifest)
    stages = build_stages(
        local=[key.to_user_string() for key in sorted(local_models.keys)],
        stitched=[key.to_user_string() for key in sorted({*odometer_chain.keys, *mart_models.keys})],
        health=[key.to_user_string() for key in sorted({*battery_chain.keys, *health_models.keys})],
    )
    warehouse = Warehouse.of(settings)
    definitions = dg.Definitions(
        assets=[
            landing_files,
            raw_bms,
            raw_gps,
            device_decision,
            local_models,
            odometer_chain,
            mart_models,
            battery_chain,
            health_models,
            anomaly_evidence,
            anomaly_chain,
            charging_sites,
            inspection_queue,
            released_versions,
            published_snapshot,
        ],
        jobs=build_jobs(stages),
        sensors=[landing_sensor(settings, warehouse, stages)],
        schedules=[self_healing(settings, warehouse, stages), monthly_close()],
        executor=dg.in_process_executor,  # the multiprocess executor imports everything again in every step
        resources={
            "settings": settings,
            "warehouse": warehouse,
            "lake": Lake(settings.lake),
            "dbt": Dbt(settings, warehouse),
            "progress": progress or Silent(),
        },
    )
    return Platform(definitions, stages)


@dg.definitions
def defs() -> dg.Definitions:
    """What `dagster dev -w workspace.yaml` loads: the settings of the environment."""
    return build_definitions(Settings())
