"""Which cars to call in first: silent cars, the inspection queue, and what workshops reported. FLEET.

A shell over ``anomaly.ranking`` and ``anomaly.outcomes``: reads the episodes of all devices, replaces its own tables.
"""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import dagster as dg
import polars as pl

from baas_dagster import outcomes as ledger
from baas_dagster.anomaly.fleet import silent_episodes
from baas_dagster.anomaly.outcomes import inspection_outcome, precision, unreported
from baas_dagster.anomaly.ranking import ranking
from baas_dagster.anomaly.rules import RULES
from baas_dagster.checks import check_spec, report_whole
from baas_dagster.resources import Warehouse, query, replace_frame
from baas_dagster.schemas.anomalies import check_queue
from baas_dagster.settings import Settings

__all__ = ["inspection_queue"]

_FLEET = """
    select device_no, max(last_at) filter (where row_count > 0) as last_seen_at
    from ops.raw_partition group by device_no
"""
_EXPOSURE = """
    with soc as (
        select
            device_no,
            sum(high_soc_h) / nullif(sum(logged_h + silent_h - unknown_h), 0) as high_soc_share,
        from marts.fct_soc_daily group by device_no
    ),
    hot as (
        select
            device_no,
            sum(hours) filter (where band_from >= ?)
            / nullif(sum(hours) filter (where band <> 'unknown'), 0) as hot_share,
        from marts.fct_exposure_monthly where kind = 'temperature' group by device_no
    )
    select device_no, soc.high_soc_share, hot.hot_share
    from soc full outer join hot using (device_no)
"""
_SEEN = """
    with unjudged as (
        select device_no, list(code order by code) as unjudged from stitched.anomaly_coverage group by device_no
    ),
    seen as (
        select device_no, count(*) as data_days_90
        from marts.fct_soc_daily where logged_h > 0 and service_date > cast(?::timestamp as date) - 90
        group by device_no
    )
    select device_no, cast(coalesce(data_days_90, 0) as integer) as data_days_90, unjudged
    from seen full outer join unjudged using (device_no)
"""
_NEEDED = {"stitched.anomaly", "marts.fct_soc_daily", "marts.fct_exposure_monthly"}


@dg.asset(
    deps=[dg.AssetDep("anomaly_chain", partition_mapping=dg.AllPartitionMapping())],
    group_name="fleet",
    kinds={"polars", "duckdb"},
    check_specs=[check_spec("inspection_queue", None, "Ranks and scores are numbers, every car has a reason.")],
)
def inspection_queue(
    context: dg.AssetExecutionContext, settings: dg.ResourceParam[Settings], warehouse: Warehouse
) -> Iterator[Any]:
    """The ranked inspection list with reasons in English and Korean, silent cars, and outcomes with their lead time."""
    with warehouse.open() as connection:
        there = {
            f"{schema}.{name}"
            for schema, name in connection.execute("select schema_name, table_name from duckdb_tables()").fetchall()
        }
        fleet = query(connection, _FLEET)
        last_seen = fleet.drop_nulls("last_seen_at")
        if not there.issuperset(_NEEDED) or last_seen.is_empty():
            yield dg.MaterializeResult(metadata={"dagster/row_count": 0})
            yield report_whole("inspection_queue", [])
            return
        found = query(connection, "select * from stitched.anomaly")
        as_of: datetime = max(last_seen["last_seen_at"])
        opened = found.filter(pl.col("closed_at").is_null())["device_no"].unique().to_list()
        silent = silent_episodes(last_seen, opened, as_of, RULES.health)
        everything = pl.concat([found, silent.select(found.columns)])
        exposure = query(connection, _EXPOSURE, [RULES.queue.hot_from_c])
        seen = query(connection, _SEEN, [as_of])
        coverage = fleet.join(seen, on="device_no", how="left").with_columns(pl.col("data_days_90").fill_null(0))
        # an outcome may be younger than the last delivery: what it closed is closed
        current = everything.with_columns(
            pl.when(pl.col("closed_at").is_not_null()).then(pl.min_horizontal("closed_at", pl.lit(as_of)))
        )
        reported = ledger.read(settings.outcomes)
        severe = unreported(reported.outcomes, everything)
        order = ranking(current, exposure, coverage, as_of, RULES.queue, severe)
        # cars without a finding are no queue; those beyond the length of the list stay in their order
        queue = order.filter((pl.col("top_severity") > 0) | pl.col("is_listed"))
        outcomes = inspection_outcome(reported.outcomes, everything)
        right = precision(outcomes)
        connection.execute("begin")
        replace_frame(connection, "stitched.fleet_anomaly", silent.select(found.columns))
        replace_frame(connection, "stitched.inspection_queue", queue)
        replace_frame(connection, "stitched.inspection_outcome", outcomes)
        replace_frame(connection, "stitched.inspection_precision", right)
        replace_frame(connection, "stitched.rejected_outcome", reported.rejected)
        connection.execute("commit")
    rows = "\n".join(
        f"| {r['rank']} | {r['device_no']} | {r['score']:.1f} | {r['reasons']} |"
        for r in queue.filter(pl.col("is_listed")).head(20).iter_rows(named=True)
    )
    yield dg.MaterializeResult(
        metadata={
            "dagster/row_count": queue.height,
            "listed": int(queue["is_listed"].sum()),
            "silent": silent.height,
            "queue": dg.MetadataValue.md(f"| rank | car | score | reasons |\n|---|---|---|---|\n{rows}"),
            "outcomes": outcomes.height,
            "outcomes_rejected": reported.rejected.height,
            "precision_so_far": f"{right['confirmed'][0]} of {right['n'][0]} visits that an episode preceded",
        }
    )
    yield report_whole("inspection_queue", check_queue(queue))
