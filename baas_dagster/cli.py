"""The `baas` command: thin. It reads arguments, calls the chain, and shows what came out.

Exit codes: 0 all good, 1 something failed its checks or could not be read, 2 usage.
"""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

os.environ.setdefault("DAGSTER_DISABLE_TELEMETRY", "1")
os.environ.setdefault("DO_NOT_TRACK", "1")

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from baas_dagster.settings import PROJECT_ROOT, Settings

if TYPE_CHECKING:  # a command imports what it needs when it runs: `baas --help` need not wait for the simulator
    from baas_dagster.simulator import FleetSpec, SimulationSummary

__all__ = ["app", "run_chain", "simulate_fleet"]

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)
outcome_app = typer.Typer(no_args_is_help=True, help="What workshops found: the ledger that closes cases.")
app.add_typer(outcome_app, name="outcome")
console = Console()
errors = Console(stderr=True)

_USAGE = 2


class Bars:
    """Progress bars on a terminal, one plain line per step elsewhere."""

    def __init__(self) -> None:
        columns = [SpinnerColumn(), TextColumn("{task.description:<20}"), BarColumn(), MofNCompleteColumn()]
        self._bars = Progress(*columns, TextColumn("{task.fields[unit]}"), TimeElapsedColumn(), console=errors)
        self._task: object | None = None
        self._is_live = errors.is_terminal

    def start(self, step: str, total: int, unit: str) -> None:
        """A step begins."""
        if self._is_live:
            self._bars.start()
            self._task = self._bars.add_task(step, total=total or None, unit=unit)
        else:
            errors.print(f"{step}{f' ({total:,} {unit})' if total else ''}", highlight=False)

    def advance(self, amount: int) -> None:
        """So much of the step is done."""
        if self._is_live and self._task is not None:
            self._bars.advance(self._task, amount)  # type: ignore[arg-type]

    def done(self) -> None:
        """The step is over."""
        if self._is_live:
            self._bars.stop()
            self._task = None


def _settings() -> Settings:
    """Settings of the environment; what cannot be used there is a usage error with its reason."""
    from baas_dagster.telemetry.decisions import read_overrides

    try:
        settings = Settings()
        read_overrides(settings.overrides)
    except ValueError as error:
        if not isinstance(error, ValidationError):
            errors.print(str(error), style="red", highlight=False)
            raise typer.Exit(_USAGE) from None
        for problem in error.errors():
            name = "BAAS_" + "_".join(str(part) for part in problem["loc"]).upper()
            errors.print(f"{name}: {problem['msg']} (is {problem['input']!r})", style="red", highlight=False)
        raise typer.Exit(_USAGE) from None
    return settings


def _quiet() -> None:
    """A person at a terminal need not read that an API of Dagster is in beta; the pins and tests keep watch on that."""
    from dagster import BetaWarning, PreviewWarning

    for category in (BetaWarning, PreviewWarning):
        warnings.simplefilter("ignore", category)


@app.command()
def run(
    month: Annotated[str | None, typer.Option(help="One month or a span: 2023-01 or 2023-01..2023-03.")] = None,
    device: Annotated[
        list[str] | None, typer.Option(help="Device number, 11 digits; may be given several times.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every partition anew, whatever its state.")] = False,
) -> None:
    """Intake, then every partition that is new, changed or failed (or the ones named), then publish."""
    settings = _settings()
    from baas_dagster.partitions import is_device_no, month_span

    try:
        months = month_span(month) if month else None
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--month") from None
    for number in device or []:
        if not is_device_no(number):
            raise typer.BadParameter(f"{number!r} is not 11 digits", param_hint="--device")
    raise typer.Exit(run_chain(settings, months, tuple(device or ()), everything=everything))


def run_chain(
    settings: Settings,
    months: tuple[str, str] | None = None,
    devices: tuple[str, ...] = (),
    *,
    everything: bool = False,
    is_shown: bool = True,
) -> int:
    """Run the chain with progress, show where things stand; the exit code of `baas run`."""
    _quiet()
    from baas_dagster.definitions import build
    from baas_dagster.runs import Asked, Chain, instance_of

    with instance_of(settings) as instance:
        done = Chain(settings, build(settings, Bars()), instance).run(Asked(months, devices, everything))
    for text in done.errors:
        errors.print(text, style="red", highlight=False)
    if not is_shown:
        return 1 if done.errors else 0
    return _summary(settings, failed=bool(done.errors))


def _summary(settings: Settings, *, failed: bool) -> int:
    """Show where things stand; the exit code."""
    from baas_dagster.report import overview
    from baas_dagster.resources import Warehouse

    with Warehouse.of(settings).open() as connection:
        view = overview(connection, settings)
    table = Table(title="Chain", show_header=False)
    table.add_column(style="bold")
    table.add_column(justify="right")
    for name, value in view.figures:
        table.add_row(name, f"{value:,}" if isinstance(value, int) else f"{value:,.1f}")
    console.print(table)
    if view.is_landing_empty:
        console.print(
            f"the landing {settings.landing_dir} holds no files", style="yellow", highlight=False, soft_wrap=True
        )
    if view.months:
        months = Table("device", "month", "km", "+- km", "coverage %", "grade", "why", title="Mileage")
        for row in view.months[-40:]:
            months.add_row(*row)
        console.print(months)
        if len(view.months) > 40:
            console.print(f"... and {len(view.months) - 40} earlier rows in fct_mileage_monthly")
    for text in view.problems[:30]:
        console.print(f"- {text}", style="yellow", highlight=False)
    if len(view.problems) > 30:
        console.print(f"... and {len(view.problems) - 30} more: tables delivery and partition_quality")
    console.print(f"snapshot: {settings.publish / 'fleet.duckdb'}", highlight=False)
    console.print("`baas status` says what is up to date; `make dev` opens the Dagster UI.", highlight=False)
    return 1 if failed or view.problems else 0


@app.command()
def status() -> None:
    """What has been delivered, what is up to date, what failed and why."""
    settings = _settings()
    from baas_dagster.intake import changed_paths
    from baas_dagster.report import overview
    from baas_dagster.resources import Warehouse, WarehouseBusy
    from baas_dagster.state import load

    try:
        with Warehouse.of(settings).open(timeout_s=5) as connection:
            state = load(connection, settings)
            waiting = changed_paths(connection, settings)
            view = overview(connection, settings)
    except WarehouseBusy as busy:
        errors.print(f"a run is at work: {busy}", highlight=False)
        raise typer.Exit(1) from None
    table = Table("unit", "known", "up to date", "new", "changed", "failed", title="State")
    for unit, work in state.plan().items():
        by_reason = {reason: sum(w.reason == reason for w in work) for reason in ("new", "changed", "failed")}
        known = len(state.wanted[unit])
        table.add_row(str(unit), *(f"{n:,}" for n in (known, known - len(work), *by_reason.values())))
    console.print(table)
    console.print(f"files in the landing that wait for intake: {waiting:,}", highlight=False)
    for unit, key, reason in state.failed():
        console.print(f"- {unit} {key}: {reason}", style="red", highlight=False)
    for text in view.problems:
        console.print(f"- {text}", style="yellow", highlight=False)
    raise typer.Exit(1 if view.problems or state.failed() else 0)


@app.command()
def publish() -> None:
    """Write the snapshot anew."""
    settings = _settings()
    _quiet()
    from baas_dagster.definitions import build
    from baas_dagster.runs import Chain, instance_of

    with instance_of(settings) as instance:
        done = Chain(settings, build(settings, Bars()), instance).publish()
    for text in done.errors:
        errors.print(text, style="red", highlight=False)
    console.print(f"snapshot: {settings.publish / 'fleet.duckdb'}", highlight=False)
    raise typer.Exit(1 if done.errors else 0)


@app.command()
def release(
    activate: Annotated[
        bool, typer.Option(help="Make what was learnt the active versions; the next run makes anew what they change.")
    ] = False,
) -> None:
    """Learn fleet versions (OCV curves) from everything that is up to date."""
    settings = _settings()
    raise typer.Exit(release_versions(settings, activate=activate))


def release_versions(settings: Settings, *, activate: bool) -> int:
    """Learn fleet versions, show them; the exit code."""
    _quiet()
    from baas_dagster.definitions import build
    from baas_dagster.released import Releases
    from baas_dagster.runs import Chain, instance_of

    with instance_of(settings) as instance:
        done = Chain(settings, build(settings, Bars()), instance).release(activate=activate)
    for text in done.errors:
        errors.print(text, style="red", highlight=False)
    releases = Releases(settings.released)
    active = set(releases.active().values())
    table = Table("kind", "chemistry", "pack type", "version", "active", "made from", "quality", title="Versions")
    for v in releases.versions():
        says = [
            ", ".join(f"{k} {x:g}" for k, x in part.items() if isinstance(x, int | float))
            for part in (v.made_from, v.quality)
        ]
        table.add_row(
            v.kind, v.chemistry, v.pack_type or "all", v.version_id, "yes" if v.version_id in active else "", *says
        )
    console.print(table)
    return 1 if done.errors else 0


@outcome_app.command("add")
def outcome_add(
    device: Annotated[str, typer.Option(help="Device number, 11 digits.")],
    date: Annotated[str, typer.Option(help="Day of the inspection (KST), YYYY-MM-DD.")],
    finding: Annotated[str, typer.Option(help="confirmed, replaced, repaired, no_fault or inconclusive.")],
    code: Annotated[str | None, typer.Option(help="Anomaly code that was looked for, as in fct_anomaly.")] = None,
    cell: Annotated[str | None, typer.Option(help="Number of the cell, or of the module for a TEMP_ code.")] = None,
    note: Annotated[str | None, typer.Option(help="Anything else the workshop says.")] = None,
) -> None:
    """Append what a workshop found to the ledger; the next run takes it in."""
    settings = _settings()
    from datetime import datetime

    from baas_dagster.outcomes import BadOutcome, add, outcome_of
    from baas_dagster.partitions import KST

    texts = {
        "device_no": device, "inspected_on": date, "finding": finding, "code": code, "cell_no": cell, "note": note,
    }  # fmt: skip
    options = {"device_no": "--device", "inspected_on": "--date", "cell_no": "--cell"}
    try:
        outcome = outcome_of(texts)
        if outcome.inspected_on > datetime.now(KST).date():
            raise BadOutcome("inspected_on", f"inspected_on {date!r} is in the future")
    except BadOutcome as problem:
        hint = options.get(problem.column, f"--{problem.column}")
        raise typer.BadParameter(str(problem), param_hint=hint) from None
    path = add(settings.outcomes, outcome)
    console.print(f"added to {path}" if path else "the ledger says so already", highlight=False, soft_wrap=True)


@outcome_app.command("list")
def outcome_list(
    device: Annotated[str | None, typer.Option(help="Only this device number.")] = None,
) -> None:
    """What the ledger says, and its lines that cannot be used (exit code 1 where there are some)."""
    settings = _settings()
    import polars as pl

    from baas_dagster.outcomes import read
    from baas_dagster.partitions import is_device_no

    if device is not None and not is_device_no(device):
        raise typer.BadParameter(f"{device!r} is not 11 digits", param_hint="--device")
    ledger = read(settings.outcomes)
    shown = ledger.outcomes if device is None else ledger.outcomes.filter(pl.col("device_no") == device)
    table = Table(title="Outcomes")
    for name in ("day", "device", "finding", "code", "cell", "note", "from"):
        table.add_column(name, no_wrap=name in ("day", "device"), overflow="fold")
    for row in shown.sort("inspected_on", "device_no", "outcome_id").iter_rows(named=True):
        texts = (row[name] for name in ("inspected_on", "device_no", "finding", "code", "cell_no", "note"))
        cells = ["" if text is None else escape(str(text)) for text in texts]
        table.add_row(*cells, escape(f"{row['source_file']}:{row['source_row']}"))
    console.print(table)
    for name, line, reason, text in ledger.rejected.iter_rows():
        where = name if line is None else f"{name} line {line}"
        errors.print(f"- {where}: {reason}: {text}", style="yellow", highlight=False, markup=False, soft_wrap=True)
    raise typer.Exit(1 if ledger.rejected.height else 0)


@app.command()
def faultbench(
    count: Annotated[
        int, typer.Option(help="Faults of each code and strength; 20 are the least that say something.")
    ] = 24,
    device: Annotated[list[str] | None, typer.Option(help="Only these cars: healthy ones. Default: all.")] = None,
    seed: Annotated[int, typer.Option(help="Who gets which fault.")] = 1,
) -> None:
    """Put faults of known size into your own logs and count what the detectors find; nothing is published."""
    settings = _settings()
    _quiet()
    from baas_dagster.faultbench.bench import Plan
    from baas_dagster.faults_injected import bench_home

    if not settings.warehouse.exists():
        raise typer.BadParameter(f"{settings.root} has no logs yet: run `baas run` first", param_hint="BAAS_HOME")

    def told(what: str, done: int, of: int) -> None:
        if done % 50 == 0:
            errors.print(f"{what}: {done}{f' of {of}' if of else ''}", highlight=False)

    found = bench_home(settings, Plan(count=count, seed=seed), device, told)
    table = Table("fault", "strength", "n", "found", "right", "delay d", "severity >= 2", title="Faults injected")
    for row in found.summary.iter_rows(named=True):
        shares = ["" if row[k] is None else f"{row[k]:.0%}" for k in ("found_share", "right_share")]
        strength = "" if row["strength"] is None else f"{row['strength']:g} x"
        delay = "" if row["delay_days"] is None else f"{row['delay_days']:g}"
        table.add_row(
            f"{row['code']} {row['variant']}", strength, str(row["n"]), *shares, delay, f"{row['severe_share']:.0%}"
        )
    console.print(table)
    console.print(
        f"untouched logs, {found.car_months} car-months: {found.false_per_100(2):.2f} episodes of severity 2 and more "
        f"per 100, {found.false_per_100(3):.2f} of severity 3",
        highlight=False,
    )
    for code, reason, n in found.unjudged.iter_rows():
        errors.print(f"- {code}: {n} cars got none: {reason}", style="yellow", highlight=False)


@app.command()
def dev(port: Annotated[int, typer.Option(help="Port of the web server.")] = 3000) -> None:
    """The Dagster UI with sensor and schedule, on this machine alone."""
    settings = _settings()
    from baas_dagster.runs import instance_of

    with instance_of(settings):
        pass  # puts dagster.yaml in place
    os.environ.setdefault("DAGSTER_HOME", str(settings.dagster_home))
    os.environ["BAAS_HOME"] = str(settings.root)
    os.environ["BAAS_LANDING"] = str(settings.landing_dir)
    workspace = str(PROJECT_ROOT / "workspace.yaml")
    command = [sys.executable, "-m", "dagster", "dev", "-w", workspace, "-h", "127.0.0.1", "-p", str(port)]
    raise typer.Exit(subprocess.run(command, check=False).returncode)


@app.command()
def doctor(
    repair: Annotated[
        bool, typer.Option(help="Remove leftovers and mark what is broken, so that a run rebuilds it.")
    ] = False,
) -> None:
    """Check lake, warehouse, snapshot and locks."""
    settings = _settings()
    _quiet()
    from baas_dagster.doctor import examine

    found = examine(settings, repair=repair)
    for text in found.notes:
        console.print(text, highlight=False)
    for text in found.broken:
        console.print(f"- {text}", style="yellow", highlight=False)
    if found.broken and repair:
        console.print("repaired; `baas run` rebuilds what is missing")
    elif not found.broken:
        console.print("all good")
    raise typer.Exit(1 if found.broken and not repair else 0)


@app.command()
def simulate(
    out: Annotated[Path, typer.Option(help="Folder for the deliveries.")],
    truth: Annotated[Path | None, typer.Option(help="Folder for what really happened (Parquet).")] = None,
    fleet: Annotated[str | None, typer.Option(help="A standard fleet: tiny, demo, fine, coarse, faulty, year.")] = None,
    devices: Annotated[int | None, typer.Option(min=1, help="Cars of a fleet of your own.")] = None,
    months: Annotated[int | None, typer.Option(min=1, help="Months of a fleet of your own.")] = None,
    dt: Annotated[float | None, typer.Option(min=0.5, help="Seconds between rows.")] = None,
    hours_per_day: Annotated[float | None, typer.Option(min=0.1, max=24, help="Powered hours a day.")] = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same bytes.")] = 1,
) -> None:
    """Deliveries of simulated cars in the real layout, and the truth behind them."""
    from baas_dagster.simulator import STANDARD_FLEETS, custom_fleet

    if (fleet is None) == (devices is None):
        raise typer.BadParameter("give either --fleet or --devices (with --months, --dt, --hours-per-day)")
    if fleet is not None and fleet not in STANDARD_FLEETS:
        raise typer.BadParameter(f"{fleet!r} is none of {', '.join(STANDARD_FLEETS)}", param_hint="--fleet")
    if fleet is not None:
        spec = STANDARD_FLEETS[fleet]
    else:
        spec = custom_fleet(devices or 1, months or 1, dt or 10.0, hours_per_day or 3.0)
    console.print(simulate_fleet(out, truth, spec, seed), highlight=False)


def simulate_fleet(out: Path, truth: Path | None, spec: FleetSpec, seed: int) -> SimulationSummary:
    """Simulate a fleet with progress."""
    from baas_dagster.simulator import simulate as write_deliveries

    bars = Bars()
    bars.start(f"simulating {spec.name}", spec.devices * spec.months, "device-months")
    before = 0

    def show(_: str, number: int, total: int) -> None:
        nonlocal before
        bars.advance(number - before)
        before = number

    summary = write_deliveries(out, truth, spec, seed, show)
    bars.done()
    return summary


if __name__ == "__main__":
    app()
