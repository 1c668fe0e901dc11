"""Stage 1: what arrives. The catalogue of the landing and the delivered slices in the lake."""

from pathlib import Path

import dagster as dg

from baas_dagster.intake import take_in
from baas_dagster.partitions import DEVICES
from baas_dagster.progress import Progress
from baas_dagster.resources import Lake, Warehouse
from baas_dagster.settings import Settings

__all__ = ["landing_files"]


@dg.asset(group_name="intake", kinds={"parquet"})
def landing_files(
    context: dg.AssetExecutionContext,
    settings: dg.ResourceParam[Settings],
    warehouse: Warehouse,
    lake: dg.ResourceParam[Lake],
    progress: dg.ResourceParam[Progress],
) -> dg.MaterializeResult[None]:
    """Every delivered file, by content: parsed once into typed slices per device and month; bad rows kept aside."""
    with warehouse.open() as connection:
        done = take_in(connection, settings, lake, progress)
    name = str(DEVICES.name)
    known = set(context.instance.get_dynamic_partitions(name))
    new = [d for d in done.devices if d not in known]
    if new:
        context.instance.add_dynamic_partitions(name, new)
    if done.files == 0:
        context.log.warning("the landing %s holds no files", settings.landing_dir)
    for path, reason in done.failed:
        context.log.warning("%s: %s", path, reason)
    failures = "\n".join(["| file | reason |", "|---|---|", *(f"| {p} | {r} |" for p, r in done.failed[:50])])
    return dg.MaterializeResult(
        metadata={
            "landing": dg.MetadataValue.path(str(Path(settings.landing_dir))),
            "files": done.files,
            "parsed_now": done.parsed,
            "same_content": done.duplicates,
            "failed": len(done.failed),
            "rows_read": done.rows_read,
            "rows_rejected": done.rows_rejected,
            "devices": len(done.devices),
            "new_devices": new[:50],
            "failures": dg.MetadataValue.md(failures if done.failed else "none"),
        }
    )
