"""`make demo`: a small fleet is simulated and goes through the whole chain; its figures beside what really happened.

Belongs here: the order of the demo, and the comparison that it shows. Does not belong here: anything that a run does
(``cli``, ``runs``) and the targets of accuracy (the package ``acceptance`` beside this one).
"""

from __future__ import annotations

import duckdb
from rich.console import Console
from rich.table import Table

from baas_dagster.cli import release_versions, run_chain, simulate_fleet
from baas_dagster.settings import Settings
from baas_dagster.simulator import STANDARD_FLEETS

__all__ = ["main"]

_FLEET = "demo"
_SEED = 1
_USAGE = 2

console = Console()


def main() -> int:
    """Simulate, run, compare; the exit code of the run."""
    from_environment = Settings()
    # the demo's deliveries go below BAAS_HOME, never into somebody's own landing
    settings = Settings(home=from_environment.home, landing=from_environment.root / "landing")
    truth = settings.root / "truth"
    if settings.landing_dir.is_dir() and any(settings.landing_dir.iterdir()) and not truth.is_dir():
        console.print(
            f"{settings.landing_dir} holds deliveries that are not the demo's: set BAAS_HOME to another folder",
            highlight=False,
        )
        return _USAGE
    summary = simulate_fleet(settings.landing_dir, truth, STANDARD_FLEETS[_FLEET], _SEED)
    console.print(
        f"{summary.devices} cars, {summary.months} months: {summary.files} files, {summary.bms_rows:,} BMS rows and "
        f"{summary.gps_rows:,} GPS rows in {settings.landing_dir}",
        highlight=False,
    )
    code = run_chain(settings)
    # what a monthly close does: learn the fleet's curves, then make anew what they change
    release_versions(settings, activate=True)
    code = max(code, run_chain(settings, is_shown=False))
    if (settings.publish / "fleet.duckdb").exists():  # a run that failed on a fresh machine has published nothing
        _show_against_truth(settings)
        _show_battery_against_truth(settings)
        _show_queue(settings)
    _show_where_to_look(settings)
    return code


def _show_against_truth(settings: Settings) -> None:
    """Every device-month: what was published, what really happened, and whether the stated interval holds it."""
    with duckdb.connect(str(settings.publish / "fleet.duckdb"), read_only=True) as reader:
        rows = reader.execute(
            """
            select
                device_no, measured_month, m.distance_km, t.distance_km as true_km,
                (m.distance_hi_km - m.distance_lo_km) / 2 as half_km,
                t.distance_km between m.distance_lo_km and m.distance_hi_km as is_inside, m.grade, m.distance_source,
            from read_parquet(?) as t left join fct_mileage_monthly as m using (device_no, measured_month)
            order by device_no, measured_month
            """,
            [str(settings.root / "truth" / "truth_month.parquet")],
        ).fetchall()
    table = Table("device", "month", "km", "truth", "+- km", "inside?", "grade", "from", title="Figures and truth")
    for device, month, km, true_km, half, is_inside, grade, source in rows:
        numbers = ["" if v is None else f"{v:,.1f}" for v in (km, true_km, half)]
        table.add_row(device, month, *numbers, "yes" if is_inside else "NO", grade or "", source or "")
    console.print(table)
    inside = sum(bool(row[5]) for row in rows)
    off_km, whole_km = sum(abs((row[2] or 0.0) - row[3]) for row in rows), sum(row[3] for row in rows)
    console.print(
        f"the truth lies inside the stated interval in {inside} of {len(rows)} device-months; "
        f"all months together are {off_km:,.1f} km off, of {whole_km:,.0f} km",
        highlight=False,
    )


def _show_battery_against_truth(settings: Settings) -> None:
    """Every car: state of health, energy charged and consumption as published, each beside what really happened."""
    with duckdb.connect(str(settings.publish / "fleet.duckdb"), read_only=True) as reader:
        rows = reader.execute(
            """
            with truth_soh as (
                select device_no, max_by(soh_pct, measured_month) as true_soh_pct
                from read_parquet($truth || '/truth_month.parquet') group by 1
            ),
            truth_energy as (
                select
                    device_no, sum(charged_kwh - charged_dc_kwh) as true_ac_kwh, sum(charged_dc_kwh) as true_dc_kwh,
                    100 * sum(energy_out_kwh - energy_regen_kwh) / sum(distance_km) as true_kwh_per_100km,
                from read_parquet($truth || '/truth_day.parquet') group by 1
            ),
            soh as (
                select
                    device_no, max_by(soh_pct, measured_month) as soh_pct, max_by(soh_lo_pct, measured_month) as lo,
                    max_by(soh_hi_pct, measured_month) as hi, max_by(method, measured_month) as method,
                from fct_soh_monthly where soh_pct is not null group by 1
            ),
            energy as (
                -- sessions whose energy nobody metered leave the sum open
                select
                    device_no,
                    case when sum(unmetered_session_count) = 0 then sum(charged_kwh - charged_dc_kwh) end as ac_kwh,
                    case when sum(unmetered_session_count) = 0 then sum(charged_dc_kwh) end as dc_kwh,
                from fct_energy_daily group by 1
            ),
            driving as (
                select device_no, 100 * sum(energy_net_kwh) / sum(distance_km) as kwh_per_100km
                from fct_efficiency_monthly where band_kind = 'all' group by 1
            )
            select
                device_no, soh_pct, lo, hi, method, true_soh_pct, ac_kwh, true_ac_kwh, dc_kwh, true_dc_kwh,
                kwh_per_100km, true_kwh_per_100km,
            from truth_soh left join soh using (device_no) left join energy using (device_no)
            left join driving using (device_no) left join truth_energy using (device_no)
            order by device_no
            """,
            {"truth": str(settings.root / "truth")},
        ).fetchall()
        (site_count,) = reader.execute("select count(*) from dim_site").fetchall()[0]
    # two tables: one of all columns is cut on a terminal of 80
    health = Table("device", "SoH %", "90 % interval", "truth", "method", title="Battery beside the truth")
    energy = Table(
        "device",
        "AC kWh",
        "truth",
        "DC kWh",
        "truth",
        "kWh/100 km",
        "truth",
        title="Charging and driving beside the truth",
    )
    for device, soh, lo, hi, method, true_soh, *flows in rows:
        interval = "" if lo is None else f"{lo:.1f}-{hi:.1f}"
        shown = "not identifiable" if soh is None else f"{soh:.1f}"
        health.add_row(device, shown, interval, f"{true_soh:.1f}", method or "")
        energy.add_row(device, *("" if v is None else f"{v:,.1f}" for v in flows))
    console.print(health)
    console.print(energy)
    known = [row for row in rows if row[1] is not None]
    inside = sum(row[2] <= row[5] <= row[3] for row in known)
    console.print(
        f"the true state of health lies inside the stated interval in {inside} of {len(known)} cars; "
        f"our cars' charging sessions make {site_count} sites",
        highlight=False,
    )


def _show_queue(settings: Settings) -> None:
    """The inspection list with its reasons, each car beside the faults that the simulator gave it."""
    with duckdb.connect(str(settings.publish / "fleet.duckdb"), read_only=True) as reader:
        rows = reader.execute(
            """
            with truth as (
                select
                    device_no,
                    string_agg(
                        code || case when cell_no is not null then ' cell ' || cell_no else '' end
                        || case when module_no is not null then ' module ' || module_no else '' end
                        || ' ' || size || ' ' || unit || ' since ' || cast(onset_at as date), '; ' order by onset_at
                    ) as fault,
                from read_parquet(?) group by 1
            )
            select coalesce(q.rank, 99), device_no, q.score, q.action, q.reasons, q.reasons_ko, truth.fault
            from inspection_queue as q full outer join truth using (device_no)
            order by 1, 2
            """,
            [str(settings.root / "truth" / "truth_fault.parquet")],
        ).fetchall()
    table = Table("rank", "device", "score", "do", "why", "truth", title="Cars to call in first")
    for rank, device, score, action, reasons, _, fault in rows:
        shown = "" if score is None else f"{score:.1f}"
        table.add_row(
            "" if score is None else str(rank), device, shown, action or "", reasons or "", fault or "healthy"
        )
    console.print(table)
    faulty = [row for row in rows if row[6]]
    first = sum(row[0] <= len(faulty) for row in faulty)
    console.print(
        f"{first} of {len(faulty)} faulty cars stand in the first {len(faulty)} places. "
        "Monthly batch analysis, not a safety system; no anomaly does not mean safe.",
        highlight=False,
    )
    if rows and rows[0][5]:
        console.print(f"In Korean: {rows[0][5]}", highlight=False)


def _show_where_to_look(settings: Settings) -> None:
    publish = settings.publish
    console.print("\nWhere to look:", highlight=False)
    for what, where in (
        ("snapshot for BI tools", f"{publish / 'fleet.duckdb'} (read-only; example queries: docs/queries.md)"),
        ("the same as Parquet", f"{publish / 'parquet'}"),
        ("what every column means", "docs/data_dictionary.md"),
        ("asset graph, runs, checks", "make dev, then http://127.0.0.1:3000"),
        ("your own deliveries", "BAAS_HOME=my_fleet BAAS_LANDING=/path/to/deliveries .venv/bin/baas run"),
    ):
        console.print(f"  {what:<27} {where}", highlight=False, soft_wrap=True)


if __name__ == "__main__":
    raise SystemExit(main())
