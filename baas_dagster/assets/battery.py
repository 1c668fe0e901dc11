"""Stage 6: rests, capacity and state of health of whole devices. STITCHED.

A shell over ``battery``: reads a device's awake periods, sessions and claims, replaces its rests, estimates and months.
"""

from dataclasses import dataclass
from typing import Any

import dagster as dg
import duckdb
import polars as pl
from threadpoolctl import threadpool_limits

from baas_dagster.assets.common import asked, materialized, replace_devices
from baas_dagster.battery.capacity import ESTIMATE_SCHEMA, charge_estimates, rest_pair_estimates
from baas_dagster.battery.curve import Curve
from baas_dagster.battery.ocv import outside_curve
from baas_dagster.battery.rests import REST_SCHEMA, rest_readings
from baas_dagster.battery.rules import RULES
from baas_dagster.battery.soh import SOH_SCHEMA, Pack, soh_months, throughput
from baas_dagster.partitions import DEVICES
from baas_dagster.progress import Progress, step
from baas_dagster.released import Releases, Version
from baas_dagster.resources import Warehouse, query
from baas_dagster.settings import DBT_PROJECT, Settings, sql_vars

__all__ = ["Curves", "battery_chain", "outside_for"]

_NOT_GATED = "(device_no, measured_month) not in (select device_no, measured_month from ops.partition_gate)"
_PERIODS = """
    select p.*, l.life_no, l.charged_ah, l.discharged_ah,
    from intermediate.int_awake_period as p
    inner join intermediate.int_counter_life as l using (device_no, measured_month, awake_no)
    where device_no = ?
"""
"""A gated month has no counter life."""
_SESSIONS = "select * from marts.fct_charging_session where device_no = ?"
_CLAIMS = f"select * from intermediate.int_bms_claim where device_no = ? and {_NOT_GATED}"
_MONTHS = "select measured_month from marts.fct_mileage_monthly where device_no = ?"
_DISTRUSTED = """
    select measured_month from marts.fct_counter_audit_monthly
    where device_no = ? and verdict in (select unnest(?::varchar[]))
"""


@dataclass(frozen=True)
class _Made:
    rests: pl.DataFrame
    estimates: pl.DataFrame
    months: pl.DataFrame


def outside_for(chemistry: str) -> Curve:
    """The outside curve of a chemistry. NMC cells of all mixtures share one: no outside curve is of just their cell."""
    reference = pl.read_csv(DBT_PROJECT / "seeds" / "ocv_reference.csv")
    return outside_curve(reference, "LFP" if chemistry == "LFP" else "NMC")


def _curve_of(version: Version) -> Curve:
    """The curve that a released version holds."""
    said = version.content
    return Curve(
        chemistry=version.chemistry,
        pack_type=version.pack_type or "",
        ocv_v=pl.Series(said["ocv_v"], dtype=pl.Float64).to_numpy(),
        sd_soc_pct=pl.Series(said["sd_soc_pct"], dtype=pl.Float64).to_numpy(),
        hysteresis_v=said["hysteresis_v"],
        hysteresis_sd_v=said["hysteresis_sd_v"],
        correlation_pct=said["correlation_pct"],
        origin="fleet",
    )


class Curves:
    """The curve of each pack: the released one that is active, else the outside one."""

    def __init__(self, releases: Releases) -> None:
        self.releases = releases
        self.found: dict[tuple[str | None, str | None], Curve | None] = {}

    def of(self, chemistry: str | None, pack_type: str | None) -> Curve | None:
        """None where the chemistry is not known."""
        key = (chemistry, pack_type)
        if key not in self.found:
            version = self.releases.for_pack("ocv", chemistry, pack_type)
            outside = None if chemistry is None else outside_for(chemistry)
            self.found[key] = outside if version is None else _curve_of(version)
        return self.found[key]


def _pack(connection: duckdb.DuckDBPyConnection, device: str) -> Pack:
    rows = connection.execute(
        """
        select
            s.chemistry, s.pack_type, s.cell_count, s.capacity_nominal_ah, s.capacity_source,
            not exists (
                select 1 from ops.device_decision as d
                where
                    d.device_no = s.device_no and d.decision in ('pack_type', 'capacity_nominal_ah')
                    and (d.confidence >= ? or d.is_overridden)
            ) as is_nominal_guessed,
        from ops.device_setting as s where s.device_no = ?
        """,
        [RULES.sure_of_type, device],
    ).fetchall()
    return Pack(*(rows[0] if rows else (None, None, None, None, None)))


def _made(connection: duckdb.DuckDBPyConnection, device: str, curves: Curves) -> _Made:
    """Rests, estimates and months of one device."""
    pack = _pack(connection, device)
    periods, sessions, claims = (query(connection, sql, [device]) for sql in (_PERIODS, _SESSIONS, _CLAIMS))
    verdicts = sql_vars()["distrusted_verdicts"]
    distrusted = query(connection, _DISTRUSTED, [device, verdicts])["measured_month"].to_list()
    months = query(connection, _MONTHS, [device])["measured_month"].to_list()
    curve = curves.of(pack.chemistry, pack.pack_type)
    rests = rest_readings(periods, pack.cell_count)
    # counters that failed their audit are not believed: these rests go by the integral of the current
    counters = ("charged_total_ah", "discharged_total_ah")
    is_distrusted = pl.col("measured_month").is_in(distrusted)
    rests = rests.with_columns(pl.when(~is_distrusted).then(pl.col(name)).alias(name) for name in counters)
    sessions = sessions.sort("started_at").join_asof(
        periods.select("from_at", epoch="life_no").sort("from_at"),
        left_on="started_at",
        right_on="from_at",
        strategy="backward",
    )
    found = [charge_estimates(sessions.with_columns(pl.col("epoch").fill_null(0)))]
    if curve is not None:
        found.append(rest_pair_estimates(rests, curve))
    estimates = pl.concat(found)
    made = soh_months(device, months, pack, rests, estimates, curve, claims, throughput(periods))
    return _Made(rests, estimates, made)


@dg.asset(
    partitions_def=DEVICES,
    deps=[
        dg.AssetDep("int_awake_period", partition_mapping=dg.MultiToSingleDimensionPartitionMapping("device_no")),
        dg.AssetDep("int_bms_claim", partition_mapping=dg.MultiToSingleDimensionPartitionMapping("device_no")),
        "fct_charging_session",
        "fct_counter_audit_monthly",
        "int_counter_life",
        "fct_mileage_monthly",
    ],
    group_name="battery",
    kinds={"polars", "duckdb"},
    backfill_policy=dg.BackfillPolicy.single_run(),
)
def battery_chain(
    context: dg.AssetExecutionContext,
    settings: dg.ResourceParam[Settings],
    warehouse: Warehouse,
    progress: dg.ResourceParam[Progress],
) -> dg.MaterializeResult[None]:
    """Rest voltages, capacity estimates and state of health of whole devices, from the pieces of all their months."""
    devices = asked(context)
    curves = Curves(Releases(settings.released))
    shown: dict[str, dict[str, Any]] = {}
    made = []
    with warehouse.open() as connection, step(progress, "battery", len(devices), "devices"), threadpool_limits(1):
        for device in devices:
            found = _made(connection, device, curves)
            made.append(found)
            shown[device] = {
                "rests": found.rests.height,
                "estimates": found.estimates.height,
                "months": found.months.height,
                "curve": next(iter(found.months["curve_version"].drop_nulls()), "none"),
            }
            progress.advance(1)
        replace_devices(
            connection,
            devices,
            {
                "rest": ([m.rests for m in made], REST_SCHEMA),
                "capacity_estimate": ([m.estimates for m in made], ESTIMATE_SCHEMA),
                "soh_month": ([m.months for m in made], SOH_SCHEMA),
            },
        )
    return materialized(context, "battery_chain", shown)
