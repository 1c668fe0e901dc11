"""PART anomalies: faults found in the fleet `faulty` and in healthy logs they were put into, false episodes, the queue.

Belongs here: comparing episodes and queue with the faults that cars had. Does not belong here: what a fault looks like
(``simulator.faults``, ``faultbench``).
"""

from __future__ import annotations

import math
from typing import Any

import polars as pl

from acceptance.figures import Figure, Plot, Section
from acceptance.plots import plot_bench
from acceptance.runs import Ran, Runs, Snapshot
from acceptance.slow_faults import SlowBench, slow_bench
from baas_dagster.faultbench.baselines import auroc, gbt_score, spread_score
from baas_dagster.faultbench.bench import BenchResult, Plan
from baas_dagster.faultbench.inject import ROW_CODES
from baas_dagster.faults_injected import bench_home, rows_of_home, staged_home

__all__ = ["accept", "bench_section", "fleet_section", "healthy_section", "slow_section"]

_FOUND_AT: dict[float | None, float] = {1.0: 0.5, 2.0: 0.95, None: 0.95}
"""Share that must be found at a strength (issue); None: present or absent."""
_RIGHT = 0.95
_DELAY_D = {"CELL_SELF_DISCHARGE": 7, "COUNTER_DRIFT": 45}
_DELAY_OTHERS_D = 14
_FALSE_PER_100 = 1.0
_AUROC = 0.95
_STRONG = 2.0
_COUNT = 22
"""Injections of a code and strength: at least 20 (issue), and some that change no row."""


def accept(runs: Runs) -> list[Section]:
    """All sections of this part."""
    faulty = runs.fleet("faulty")
    sections = [fleet_section(faulty)]
    ill = faulty.truth["truth_fault"]["device_no"].unique().to_list()
    healthy = sorted(set(faulty.truth["truth_device"]["device_no"]) - set(ill))
    plan = Plan(codes=ROW_CODES, count=_COUNT, seed=runs.seed)
    by_rows, slow = bench_home(faulty.snapshot.settings, plan, healthy), slow_bench(runs.seed, _COUNT)
    sections += [bench_section(by_rows, slow.summary), slow_section(slow)]
    sections += [healthy_section(name, runs.fleet(name)) for name in ("fine", "coarse")]
    real = runs.real_logs()
    if real is not None:
        sections.append(real_section(real.snapshot))
    return sections


def healthy_section(name: str, ran: Ran) -> Section:
    """Episodes of cars that have no fault."""
    section = Section(f"Fleet `{name}`: healthy cars", "No car of this fleet has a fault: every episode is false.")
    months = ran.snapshot.rows("select count(*) as n from fct_mileage_monthly where message_count > 0")["n"].item()
    _false(section, _episodes(ran.snapshot), int(months))
    return section


def _episodes(snapshot: Snapshot) -> pl.DataFrame:
    # silent cars and months that were kept out are what they say, in healthy fleets too
    return snapshot.rows(
        "select device_no, code, severity, opened_at, closed_at, cell_no, module_no, value, unit from fct_anomaly "
        "where code not in ('DEVICE_SILENT', 'PARTITION_GATED') order by all"
    )


def _false(section: Section, found: pl.DataFrame, car_months: int) -> None:
    for severity, target in ((2, _FALSE_PER_100), (3, 0.0)):
        n = found.filter(pl.col("severity") >= severity).height
        per_100 = 100 * n / max(car_months, 1)
        section.figures.append(
            Figure(
                f"false episodes of severity >= {severity}" if severity == 2 else "false episodes of severity 3",
                f"<= {target:g} per 100 car-months" if target else "none",
                f"{n} in {car_months} car-months ({per_100:.2f} per 100)",
                per_100 <= target,
            )
        )
    watched = found.filter(pl.col("severity") == 1).height
    section.figures.append(Figure("... of severity 1", "", f"{watched} in {car_months} car-months", None))
    section.detail("Episodes", found.sort("severity", descending=True).head(40))


def fleet_section(ran: Ran) -> Section:
    """The fleet with faults: every fault against the episodes of its car, the queue, the area under the curve."""
    section = Section(
        "Fleet `faulty`: 60 cars, 15 with faults",
        "Faults of the simulator act before quantisation and polling; the chain sees deliveries alone. A fault counts "
        "as found where an episode of its code opens after its onset (CELL_OUTLIER and CELL_LOWEST are one fault).",
    )
    faults = ran.truth["truth_fault"]
    found = _episodes(ran.snapshot)
    rows = [_judged(fault, found, ran.snapshot) for fault in faults.sort("device_no", "onset_at").to_dicts()]
    judged = pl.DataFrame(rows, infer_schema_length=None)
    strong = judged.filter(pl.col("strength").is_null() | (pl.col("strength") >= _STRONG))
    hits, right = int(strong["is_found"].sum()), strong.filter(pl.col("is_right").is_not_null())
    section.figures += [
        Figure(
            "faults at 2 x and more, or present, found", ">= 95 %", f"{hits} of {strong.height}",
            hits >= 0.95 * strong.height,
        ),
        Figure(
            "... cell or module right", ">= 95 %", f"{int(right['is_right'].sum())} of {right.height}",
            int(right["is_right"].sum()) >= _RIGHT * right.height,
        ),
    ]  # fmt: skip
    queue = ran.snapshot.rows("select device_no, rank, score, codes, reasons from inspection_queue order by rank")
    ill = set(strong["device_no"].to_list())
    places = math.floor(1.5 * len(ill))
    ranks = dict(queue.select("device_no", "rank").iter_rows())
    inside = sum(ranks.get(device, 10**6) <= places for device in ill)
    section.figures.append(
        Figure(
            f"cars with a fault at 2 x and more in the first {places} places",
            "all",
            f"{inside} of {len(ill)}",
            inside == len(ill),
        )
    )
    _aurocs(section, ran, queue, set(faults["device_no"].to_list()))
    healthy = found.filter(~pl.col("device_no").is_in(faults["device_no"].unique().to_list()))
    months = ran.snapshot.rows("select device_no, count(*) as n from fct_mileage_monthly group by 1")
    of_healthy = months.filter(~pl.col("device_no").is_in(faults["device_no"].unique().to_list()))
    _false(section, healthy, int(of_healthy["n"].sum()))
    section.detail("Every fault", judged.with_columns(rank=pl.col("device_no").replace_strict(ranks, default=None)))
    section.detail("First places of the queue", queue.head(24).with_columns(pl.col("score").round(1)))
    return section


_SAME = {"CELL_OUTLIER": {"CELL_OUTLIER", "CELL_LOWEST"}, "CELL_LOWEST": {"CELL_OUTLIER", "CELL_LOWEST"}}


def _judged(fault: dict[str, Any], found: pl.DataFrame, snapshot: Snapshot) -> dict[str, Any]:
    codes = _SAME.get(fault["code"], {fault["code"]})
    if fault["code"] in ("DEVICE_SILENT", "PARTITION_GATED"):
        found = snapshot.rows("select * from fct_anomaly")
    mine = found.filter(
        (pl.col("device_no") == fault["device_no"])
        & pl.col("code").is_in(list(codes))
        & (pl.col("opened_at") >= fault["onset_at"])
    ).sort("opened_at")
    item = fault["cell_no"] if fault["cell_no"] is not None else fault["module_no"]
    named = "cell_no" if fault["cell_no"] is not None else "module_no"
    is_right = None
    if mine.height and item is not None and fault["code"].startswith(("CELL_", "TEMP_")):
        is_right = item in mine[named].to_list()
    first = mine["opened_at"].min()
    return {
        "device_no": fault["device_no"], "code": fault["code"], "strength": fault["strength"],
        "item": item, "onset_at": fault["onset_at"], "is_found": mine.height > 0, "is_right": is_right,
        "severity": mine["severity"].max(), "delay_d": None if first is None else (first - fault["onset_at"]).days,
    }  # fmt: skip


def _aurocs(section: Section, ran: Ran, queue: pl.DataFrame, ill: set[str]) -> None:
    """Car level: the queue's score against two baselines on the same rows."""
    settings = ran.snapshot.settings
    scores = dict(queue.select("device_no", "score").iter_rows())
    devices = ran.truth["truth_device"]["device_no"].sort().to_list()
    by_gbt: dict[str, float] = {}
    by_spread: dict[str, float] = {}
    with staged_home(settings) as connection:
        for device in devices:
            months = list(rows_of_home(settings, connection, [device]))
            rows = [part.rows for part in months]
            if months:
                by_gbt[device] = gbt_score(rows, months[0].context.car)
                by_spread[device] = spread_score(rows)
    labels = [device in ill for device in devices]
    ours, gbt, spread = (
        auroc([found.get(device, 0.0) for device in devices], labels) for found in (scores, by_gbt, by_spread)
    )
    section.figures += [
        Figure("AUROC of the queue's score, car level", f">= {_AUROC}, above both below", f"{ours:.3f}",
               ours >= _AUROC and ours > max(gbt, spread)),
        Figure("... of the z-score of instantaneous spread", "", f"{spread:.3f}", None),
        Figure("... of the rules of GB/T 32960 alone", "", f"{gbt:.3f}", None),
    ]  # fmt: skip


def bench_section(result: BenchResult, slow: pl.DataFrame) -> Section:
    """Faults put into healthy logs: share found, item right, delay. ``slow``: what the plot shows beside them."""
    section = Section(
        "Fault bench: faults of a fixed size in healthy logs of `faulty`",
        "Strengths are multiples of the reference sizes (0.5, 1, 2, 4), never of a detector's own setting. Found: an "
        "episode of the code that the untouched logs do not have, after the onset.",
    )
    section.figures += [_bench_figure(row) for row in result.summary.iter_rows(named=True)]
    _false(section, result.untouched, result.car_months)
    section.detail("Cars that got no fault of a code", result.unjudged)
    summary = pl.concat([result.summary.select(slow.columns), slow], how="vertical_relaxed")
    section.plots.append(
        Plot("fault_bench.png", "Share of faults found by strength", lambda to: plot_bench(summary, _FOUND_AT, to))
    )
    return section


def slow_section(result: SlowBench) -> Section:
    """Faults that take months to show."""
    section = Section(
        "Fault bench: counters and fade, in cars simulated as awake periods and sessions",
        "The fault begins in the middle of a month (fade: after a year); audit, slope and detector are those of the "
        "platform. Delays are days from the onset to the end of the month that shows it: a month is the window; a "
        "reset is dated by itself. A fade of 4 % a year is 0.15 points in 14 days, which no estimate of capacity "
        "shows.",
    )
    section.figures += [_bench_figure(row) for row in result.summary.iter_rows(named=True)]
    _false(section, result.false, result.car_months)
    return section


def _bench_figure(row: dict[str, Any]) -> Figure:
    """Code, variant and strength against what the issue asks."""
    code, strength = row["code"], row["strength"]
    name = f"{code}{' ' + row['variant'] if row['variant'] else ''}"
    name += "" if strength is None else f" at {strength:g} x"
    target = _FOUND_AT.get(strength)
    found, right, delay = row["found_share"], row["right_share"], row["delay_days"]
    wait = _DELAY_D.get(code, _DELAY_OTHERS_D)
    met, told = None, []
    if target is not None:
        met = found >= target
        told.append(f">= {target:.0%}")
    if strength is None or strength >= _STRONG:
        if right is not None:
            met = (met is not False) and right >= _RIGHT
            told.append(f"item >= {_RIGHT:.0%}")
        if delay is not None:
            met = (met is not False) and delay <= wait
            told.append(f"<= {wait} d")
    measured = f"{found:.0%} of {row['n']}"
    measured += "" if right is None else f", item {right:.0%}"
    measured += "" if delay is None else f", {delay:g} d"
    return Figure(name, ", ".join(told), measured, met)


def real_section(published: Snapshot) -> Section:
    """Two real cars whose cells are known."""
    section = Section(
        "Real logs: cells", "Logs of real cars in the delivery layout, which are no part of this project."
    )
    cells = published.rows(
        "select device_no, cell_no, code, severity, value from fct_anomaly where code like 'CELL%' order by all"
    )
    outliers = cells.filter((pl.col("device_no") == "01290000003") & (pl.col("code") == "CELL_OUTLIER"))
    numbers = sorted(set(outliers["cell_no"].to_list()))
    section.figures.append(
        Figure("01290000003: cells with CELL_OUTLIER", "81 and 2, no other", str(numbers), numbers == [2, 81])
    )
    residual = published.rows(
        "select cell_no, sum(coalesce(residual_rest_mv, residual_charge_mv) * n) / sum(n) as mv "
        "from fct_cell_monthly where device_no = '01290000003' and cell_no in (2, 81) group by 1 order by 1"
    )
    told = dict(residual.iter_rows())
    near = abs(told.get(81, 0) + 31) <= 4 and abs(told.get(2, 0) + 26) <= 4
    section.figures.append(
        Figure(
            "01290000003: their residuals at rest", "about -31 and -26 mV",
            f"{told.get(81, math.nan):.1f} and {told.get(2, math.nan):.1f} mV", near,
        )
    )  # fmt: skip
    other = cells.filter(pl.col("device_no") == "01290000001")
    section.figures.append(Figure("01290000001: cell episodes", "none", str(other.height), other.height == 0))
    return section
