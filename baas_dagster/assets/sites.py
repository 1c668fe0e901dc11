"""Where our cars charge: sites from the charging sessions of the whole fleet. FLEET.

A shell over ``battery.sites``: reads the sessions of all devices, replaces the three tables of sites.
"""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from baas_dagster.battery.sites import SiteRules, site_usage, sites, sites_of_sessions
from baas_dagster.checks import check_spec, report_whole
from baas_dagster.resources import Warehouse, query, replace_table
from baas_dagster.schemas.marts import check_sites
from baas_dagster.settings import Settings

__all__ = ["charging_sites"]

_SESSIONS = """
    select
        session_id, device_no, mode, started_at, ended_at, connected_at, disconnected_at, energy_kwh, charging_min,
        connected_min, power_max_kw, lat, lng,
    from marts.fct_charging_session
    where mode <> 'V2L' and not is_inferred and device_no not in (select device_no from ops.device_hold)
"""
"""Sessions whose place and time are known. A load on the car's socket is no charger."""


@dg.asset(
    deps=[dg.AssetDep("fct_charging_session", partition_mapping=dg.AllPartitionMapping())],
    group_name="fleet",
    kinds={"polars", "duckdb"},
    check_specs=[check_spec("charging_sites", None, "Sites are on earth, their use is not negative.")],
)
def charging_sites(
    context: dg.AssetExecutionContext, settings: dg.ResourceParam[Settings], warehouse: Warehouse
) -> Iterator[Any]:
    """Sites (stop points of at least three sessions) and our fleet's use of each by weekday and hour."""
    rules = SiteRules(settings.site_radius_m, settings.site_min_sessions)
    with warehouse.open() as connection:
        if not connection.execute("select 1 from duckdb_tables() where table_name = 'fct_charging_session'").fetchall():
            yield dg.MaterializeResult(metadata={"sites": 0})
            yield report_whole("charging_sites", [])
            return
        sessions = query(connection, _SESSIONS)
        at = sites_of_sessions(sessions, rules)
        found, usage = sites(sessions, at), site_usage(sessions, at)
        connection.execute("begin")
        for table, frame in (("session_site", at), ("site", found), ("site_usage", usage)):
            replace_table(connection, f"stitched.{table}", frame)
        connection.execute("commit")
    largest = found.sort("energy_kwh", "site_id", descending=[True, False]).head(10)
    rows = "\n".join(
        f"| {r['site_id']} | {r['session_count']} | {r['device_count']} | {r['energy_kwh']:,.0f} |"
        for r in largest.iter_rows(named=True)
    )
    yield dg.MaterializeResult(
        metadata={
            "dagster/row_count": found.height,
            "sessions": sessions.height,
            "sessions_at_a_site": at.height,
            "largest": dg.MetadataValue.md(f"| site | sessions | cars | kWh |\n|---|---|---|---|\n{rows}"),
        }
    )
    yield report_whole("charging_sites", check_sites(found, usage))
