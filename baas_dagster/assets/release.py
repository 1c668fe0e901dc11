"""Fleet versions: OCV curves and baselines learnt from all devices. FLEET, run by its own job.

A shell over ``battery.ocv`` and ``anomaly.baseline``: reads the rests that `battery_chain` keeps and the marts, writes
the versions as files, and activates them where asked. What an active version changes is stale by its fingerprint; this
asset makes nothing anew itself.
"""

import hashlib
import json

import dagster as dg
import duckdb
import polars as pl
from threadpoolctl import threadpool_limits

from baas_dagster.anomaly.baseline import learn as learn_baseline
from baas_dagster.assets.battery import outside_for
from baas_dagster.battery.curve import Curve
from baas_dagster.battery.ocv import learn
from baas_dagster.released import Releases, Version
from baas_dagster.resources import Warehouse, query
from baas_dagster.settings import Settings

__all__ = ["ReleaseConfig", "released_versions"]

_RESTS = """
    select r.*, d.chemistry, d.pack_type
    from stitched.rest as r inner join ops.device_setting as d using (device_no)
    where d.chemistry = ? and d.pack_type is not null
    order by r.device_no, r.rest_at
"""


class ReleaseConfig(dg.Config):
    """What a release does beside learning."""

    activate: bool = False


def _version(curve: Curve, rests: pl.DataFrame) -> Version:
    own = rests.filter(pl.col("pack_type") == curve.pack_type)
    digest = hashlib.sha256(own.write_csv().encode()).hexdigest()[:16]
    months = own["measured_month"]
    return Version(
        kind="ocv",
        chemistry=curve.chemistry,
        pack_type=curve.pack_type,
        content={
            "ocv_v": curve.ocv_v.tolist(),
            "sd_soc_pct": curve.sd_soc_pct.tolist(),
            "hysteresis_v": curve.hysteresis_v,
            "hysteresis_sd_v": curve.hysteresis_sd_v,
            "correlation_pct": curve.correlation_pct,
        },
        made_from={
            "cars": own["device_no"].n_unique(),
            "rests": own.height,
            "first_month": months.min(),
            "last_month": months.max(),
            "data": digest,
        },
        quality=dict(curve.quality),
    )


_OF_TYPE = """
    select m.* from marts.{} as m inner join ops.device_setting as d using (device_no)
    where d.chemistry = ? and d.pack_type = ?
    order by m.device_no, m.measured_month
"""


def _baselines(connection: duckdb.DuckDBPyConnection) -> list[Version]:
    """A baseline of every pack type that has cars enough."""
    found = []
    for chemistry, pack_type in connection.execute(
        "select distinct chemistry, pack_type from ops.device_setting "
        "where chemistry is not null and pack_type is not null order by all"
    ).fetchall():
        power, soh = (
            query(connection, _OF_TYPE.format(table), [chemistry, pack_type])
            for table in ("fct_power_monthly", "fct_soh_monthly")
        )
        content = learn_baseline(power, soh)
        if content is not None:
            digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
            cars = power["device_no"].n_unique()
            quality = {name: len(figures) for name, figures in content.items()}
            found.append(Version("baseline", chemistry, pack_type, content, {"cars": cars, "data": digest}, quality))
    return found


@dg.asset(
    deps=[dg.AssetDep("battery_chain", partition_mapping=dg.AllPartitionMapping())],
    group_name="fleet",
    kinds={"polars", "json"},
)
def released_versions(
    context: dg.AssetExecutionContext,
    config: ReleaseConfig,
    settings: dg.ResourceParam[Settings],
    warehouse: Warehouse,
) -> dg.MaterializeResult[None]:
    """OCV curves and baselines per chemistry and pack type, learnt from the fleet itself; named by content."""
    found: list[Version] = []
    with warehouse.open() as connection:
        there = connection.execute(
            "select 1 from duckdb_tables() where schema_name = 'stitched' and table_name = 'rest'"
        ).fetchall()
        chemistries = connection.execute(
            "select distinct chemistry from ops.device_setting where chemistry is not null order by 1"
        ).fetchall()
        for (chemistry,) in chemistries if there else []:
            rests = query(connection, _RESTS, [chemistry])
            outside = outside_for(chemistry)
            for pack_type in sorted(rests["pack_type"].unique()):
                with threadpool_limits(1):  # small matrices: threads of the linear algebra only wait for each other
                    curve = learn(rests, chemistry, pack_type, outside)
                if curve is not None:
                    found.append(_version(curve, rests))
        if there:
            found += _baselines(connection)
    releases = Releases(settings.released)
    releases.add(found)
    activated = releases.activate(found) if config.activate else []
    rows = "\n".join(
        f"| {v.kind} | {v.chemistry} | {v.pack_type} | {v.version_id} | {v.made_from['cars']} | "
        f"{', '.join(f'{k} {x:g}' for k, x in v.quality.items())} |"
        for v in found
    )
    return dg.MaterializeResult(
        metadata={
            "versions": len(found),
            "activated": activated,
            "learnt": dg.MetadataValue.md(
                f"| kind | chemistry | pack type | version | cars | quality |\n|---|---|---|---|---|---|\n{rows}"
            ),
        }
    )
