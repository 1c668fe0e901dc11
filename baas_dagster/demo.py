"""`make demo`: a small fleet is simulated and goes through the whole chain; its figures beside what really happened.

Belongs here: the order of the demo, and the comparison that it shows. Does not belong here: anything that a run does
(``cli``, ``runs``) and the targets of accuracy (the package ``acceptance`` beside this one).
"""

from __future__ import annotations

import duckdb
from rich.console import Console
from rich.table import Table

from baas_dagster.cli import run_chain, simulate_fleet
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
    if (settings.publish / "fleet.duckdb").exists():  # a run that failed on a fresh machine has published nothing
        _show_against_truth(settings)
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
