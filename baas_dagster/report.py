"""The figures that a person sees after a run: read from the warehouse, never computed a second way."""

from __future__ import annotations

from dataclasses import dataclass

import duckdb

from baas_dagster.settings import Settings

__all__ = ["Overview", "overview"]


@dataclass(frozen=True)
class Overview:
    """Counts of the chain, the mileage of every device-month, and what needs a person's eye."""

    figures: tuple[tuple[str, int | float], ...]
    months: tuple[tuple[str, ...], ...]
    problems: tuple[str, ...]

    @property
    def is_landing_empty(self) -> bool:
        """True where no file is in the landing now."""
        return self.figures[0][1] == 0


def overview(connection: duckdb.DuckDBPyConnection, settings: Settings) -> Overview:
    """Where things stand."""

    def one(sql: str) -> int:
        return int(connection.execute(sql).fetchall()[0][0] or 0)

    figures: list[tuple[str, int | float]] = [
        ("files in the landing", one("select count(*) from ops.landing_file where is_present")),
        ("files that could not be read", one("select count(*) from ops.delivered_file where status = 'failed'")),
        ("rows read", one("select sum(rows_read) from ops.delivered_member")),
        ("rows kept", one("select sum(kept) from ops.raw_source")),
        ("rows twice", one("select sum(duplicates) from ops.raw_source")),
        ("rows superseded", one("select sum(superseded) from ops.raw_source")),
        ("rows rejected", one("select sum(rows_rejected) from ops.delivered_member")),
        ("devices", one("select count(distinct device_no) from ops.delivered_slice")),
        ("device-months", one("select count(distinct (device_no, measured_month)) from ops.delivered_slice")),
        ("device-months kept out", one("select count(distinct (device_no, measured_month)) from ops.partition_gate")),
        ("units that failed", one("select count(*) from ops.unit_state where status = 'failed'")),
    ]
    months: list[tuple[str, ...]] = []
    if one("select count(*) from duckdb_tables() where schema_name = 'marts' and table_name = 'fct_mileage_monthly'"):
        (kilometres,) = connection.execute("select sum(distance_km) from marts.fct_mileage_monthly").fetchall()[0]
        figures.append(("kilometres", float(kilometres or 0.0)))
        rows = connection.execute(
            """
            select
                device_no, measured_month, distance_km, (distance_hi_km - distance_lo_km) / 2, coverage_pct, grade,
                verdict,
            from marts.fct_mileage_monthly order by measured_month, device_no
            """
        ).fetchall()
        for device, month, km, half, coverage, grade, verdict in rows:
            numbers = ["" if v is None else f"{v:,.1f}" for v in (km, half, coverage)]
            months.append((device, month, *numbers, grade, verdict or ""))
    return Overview(tuple(figures), tuple(months), tuple(_problems(connection)))


def _problems(connection: duckdb.DuckDBPyConnection) -> list[str]:
    found = [
        f"{path}{f': {member}' if member else ''}: {reason}"
        for path, member, reason in connection.execute(
            """
            select p.path, m.member, m.reason
            from ops.delivered_member as m inner join ops.first_path as p using (sha256)
            where m.status = 'failed'
            union all
            select p.path, null, f.reason
            from ops.delivered_file as f inner join ops.first_path as p using (sha256)
            where f.status = 'failed' and f.sha256 not in (select sha256 from ops.delivered_member)
            order by 1, 2 nulls first
            """
        ).fetchall()
    ]
    found += [
        f"{device} {month} is kept out by {checks}"
        for device, month, checks in connection.execute(
            """
            select device_no, measured_month, string_agg(check_name, ', ' order by check_name)
            from ops.partition_gate group by 1, 2 order by 1, 2
            """
        ).fetchall()
    ]
    found += [
        f"{device} keeps its last published figures: {check} {reason}"
        for device, check, reason in connection.execute(
            "select device_no, check_name, reason from ops.device_hold order by 1, 2"
        ).fetchall()
    ]
    return found
