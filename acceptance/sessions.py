"""Charging sessions, trips and energy per day: published tables against the truth of a simulated fleet.

Belongs here: which published row is which true one, and how far off it is. Does not belong here: running the chain
(``chain``), the figures of capacity and SoH.

A published and a true interval match when they overlap in at least 80 % of the longer of the two; each is used once,
best overlap first. Left out, and said so in the section: what touches a gated month (no figures by contract); sessions
none of whose time is logged, which are looked for among the inferred ones; trips of which more than 10 minutes or more
than 20 % are lost to a gap: by DOMAIN 5 a gap of 10 minutes ends a trip, and of the rest too little is logged.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import polars as pl

from acceptance.figures import Figure, Section
from baas_dagster.settings import sql_vars
from baas_dagster.simulator import STANDARD_FLEETS

__all__ = ["Targets", "match_intervals", "real_sessions", "sessions_section", "targets_of"]

OVERLAP = 0.8
_WORST = 12
_LARGE_PCT = 20.0


class Published(Protocol):
    """A published snapshot."""

    def rows(self, query: str) -> pl.DataFrame:
        """Result of a query on it."""


@dataclass(frozen=True)
class Targets:
    """Targets of the issue for rows that are ``dt_s`` apart."""

    sessions: float
    edge_s: float
    energy_median_pct: float
    energy_p95_pct: float
    mode: float
    inferred: float
    trips: float
    trip_energy_pct: float


def targets_of(dt_s: float) -> Targets:
    """Those of a fleet with a row at least every 5 s (`fine`), or of a slower one (`coarse`: edges within 3 rows)."""
    if dt_s <= 5:
        return Targets(0.98, 60.0, 1.0, 3.0, 0.98, 0.9, 0.95, 3.0)
    return Targets(0.97, 3 * dt_s, 2.0, 5.0, 0.97, 0.9, 0.9, 5.0)


def match_intervals(found: pl.DataFrame, true: pl.DataFrame, least: float = OVERLAP) -> pl.DataFrame:
    """Pairs of intervals of the same device: columns found_no, true_no (row numbers) and overlap (share, 0-1).

    Both frames have device_no, started_at, ended_at. The overlap is the common time divided by the longer of the two.
    Pairs below `least` are left out; of the others each row is used once, best overlap first.
    """
    columns = ("device_no", "started_at", "ended_at")
    left = found.select(columns).with_row_index("found_no")
    right = true.select(columns).with_row_index("true_no")
    pairs = (
        left.join(right, on="device_no", suffix="_true")
        .filter((pl.col("started_at") <= pl.col("ended_at_true")) & (pl.col("started_at_true") <= pl.col("ended_at")))
        .with_columns(
            common=pl.min_horizontal("ended_at", "ended_at_true") - pl.max_horizontal("started_at", "started_at_true"),
            longer=pl.max_horizontal(
                pl.col("ended_at") - pl.col("started_at"), pl.col("ended_at_true") - pl.col("started_at_true")
            ),
        )
        .with_columns(
            overlap=pl.when(pl.col("longer").dt.total_microseconds() > 0)
            .then(pl.col("common").dt.total_microseconds() / pl.col("longer").dt.total_microseconds())
            .otherwise(1.0)
        )
        .filter(pl.col("overlap") >= least)
        .sort(["overlap", "found_no", "true_no"], descending=[True, False, False])
    )
    used_found: set[int] = set()
    used_true: set[int] = set()
    kept = []
    for row in pairs.select("found_no", "true_no", "overlap").iter_rows():
        if row[0] not in used_found and row[1] not in used_true:
            used_found.add(row[0])
            used_true.add(row[1])
            kept.append(row)
    schema = {"found_no": pl.UInt32, "true_no": pl.UInt32, "overlap": pl.Float64}
    return pl.DataFrame(kept, schema=schema, orient="row")


def covered_share(inner: pl.DataFrame, outer: pl.DataFrame) -> pl.Series:
    """Largest share of each interval of `inner` that one interval of `outer` of the same device covers, 0-1."""
    columns = ("device_no", "started_at", "ended_at")
    left = inner.select(columns).with_row_index("no")
    common = (
        left.join(outer.select(columns), on="device_no", suffix="_outer")
        .with_columns(
            common=(
                pl.min_horizontal("ended_at", "ended_at_outer") - pl.max_horizontal("started_at", "started_at_outer")
            ).dt.total_microseconds(),
            whole=(pl.col("ended_at") - pl.col("started_at")).dt.total_microseconds(),
        )
        .filter(pl.col("common") >= 0)
        .with_columns(share=pl.when(pl.col("whole") > 0).then(pl.col("common") / pl.col("whole")).otherwise(1.0))
        .group_by("no")
        .agg(pl.max("share"))
    )
    return left.join(common, on="no", how="left").sort("no")["share"].fill_null(0.0)


def in_months(rows: pl.DataFrame, months: pl.DataFrame) -> pl.Series:
    """Whether an interval begins or ends in one of these (device_no, measured_month), or spans one."""
    spans = months.select(
        "device_no",
        started_at=pl.col("measured_month").str.strptime(pl.Datetime("us"), "%Y-%m"),
    ).with_columns(ended_at=pl.col("started_at").dt.offset_by("1mo"))
    if spans.is_empty() or rows.is_empty():
        return pl.Series("is_in", [False] * rows.height, dtype=pl.Boolean)
    left = rows.select("device_no", "started_at", "ended_at").with_row_index("no")
    hit = left.join(spans, on="device_no", suffix="_month").filter(
        (pl.col("started_at") < pl.col("ended_at_month")) & (pl.col("ended_at") >= pl.col("started_at_month"))
    )
    return left["no"].is_in(hit["no"].unique().implode())


def sessions_section(name: str, snapshot: Published, truth: Path, dt_s: float | None = None) -> Section:
    """The figures of sessions, trips and energy of one simulated fleet. `dt_s`: of a fleet that is no standard one."""
    every_s = STANDARD_FLEETS[name].dt_s if dt_s is None else dt_s
    section = Section(
        f"Sessions, trips, energy: fleet `{name}`",
        "Matched by overlap >= 80 % of the longer interval. Left out: what touches a gated month; sessions that are "
        "not logged at all (looked for among the inferred ones); trips that lose more than 10 minutes (by definition "
        "more than one trip) or more than 20 % of their time to a gap.",
    )
    tables = {path.stem: pl.read_parquet(path) for path in truth.glob("truth_*.parquet")}
    targets = targets_of(every_s)
    _sessions(section, snapshot, tables, targets)
    _trips(section, snapshot, tables, targets)
    _days(section, snapshot, tables)
    return section


def _gated(truth: dict[str, pl.DataFrame]) -> pl.DataFrame:
    return truth["truth_month"].filter(pl.col("gated_because") != "").select("device_no", "measured_month")


def _share(name: str, part: int, whole: int, target: float | None) -> Figure:
    if not whole:
        return Figure(name, f">= {target}" if target else "", "none there", None)
    text = f"{part} of {whole} ({part / whole:.3f})"
    return Figure(name, f">= {target}" if target else "", text, None if target is None else part >= target * whole)


def _errors(name: str, errors: pl.Series, median: float | None, p95: float | None, unit: str = " %") -> Figure:
    if errors.is_empty():
        return Figure(name, "", "none there", None)
    found = float(errors.median()), float(errors.quantile(0.95, "nearest") or 0.0)  # type: ignore[arg-type]
    limits = (("median", median), ("p95", p95))
    wanted = [f"{kind} <= {limit:g}{unit}" for kind, limit in limits if limit is not None]
    is_met = (median is None or found[0] <= median) and (p95 is None or found[1] <= p95)
    text = f"median {found[0]:.2f}{unit}, p95 {found[1]:.2f}{unit}, n {errors.len()}"
    return Figure(name, ", ".join(wanted), text, is_met if wanted else None)


def _pct(value: str, true: str) -> pl.Expr:
    return 100 * (pl.col(value) - pl.col(true)).abs() / pl.col(true).abs()


def _sessions(section: Section, snapshot: Published, truth: dict[str, pl.DataFrame], targets: Targets) -> None:
    gated = _gated(truth)
    with_bms = truth["truth_device"].filter("has_bms")["device_no"].implode()
    true = truth["truth_charging_session"]
    true = true.filter(~in_months(true, gated))
    published = snapshot.rows("select * from fct_charging_session order by device_no, started_at")
    published = published.filter(~in_months(published, gated))
    is_seen = pl.col("device_no").is_in(with_bms) & (pl.col("logged_share") > 0)
    seen, hidden = true.filter(is_seen), true.filter(~is_seen)
    logged, inferred = published.filter(~pl.col("is_inferred")), published.filter("is_inferred")
    pairs = match_intervals(logged, seen)
    section.figures += [
        _share("charging sessions: recall", pairs.height, seen.height, targets.sessions),
        _share("charging sessions: precision", pairs.height, logged.height, targets.sessions),
    ]
    matched = pl.concat(
        [logged[pairs["found_no"]], seen[pairs["true_no"]].select(pl.all().name.prefix("true_"))], how="horizontal"
    ).with_columns(
        start_s=(pl.col("started_at") - pl.col("true_started_at")).dt.total_seconds().abs().cast(pl.Float64),
        end_s=(pl.col("ended_at") - pl.col("true_ended_at")).dt.total_seconds().abs().cast(pl.Float64),
        energy_error_pct=_pct("energy_kwh", "true_energy_kwh"),
        charge_error_pct=_pct("charge_ah", "true_charge_ah"),
    )
    whole = matched.filter(pl.col("true_logged_share") >= 1)
    right = matched.filter(pl.col("mode") == pl.col("true_mode"))
    section.figures += [
        _errors("start of logged sessions", whole["start_s"], None, targets.edge_s, " s"),
        _errors("end of logged sessions", whole["end_s"], None, targets.edge_s, " s"),
        _errors(
            "session energy", matched["energy_error_pct"].drop_nulls(),
            targets.energy_median_pct, targets.energy_p95_pct,
        ),
        _errors("session charge (Ah)", matched["charge_error_pct"].drop_nulls(), None, None),
        _share("mode right", right.height, matched.height, targets.mode),
    ]  # fmt: skip
    for mode in sorted(matched["true_mode"].unique()):
        mine = matched.filter(pl.col("true_mode") == mode)
        section.figures.append(_errors(f"... energy of {mode}", mine["energy_error_pct"].drop_nulls(), None, None))
    for method in sorted(matched["energy_method"].unique()):
        mine = matched.filter(pl.col("energy_method") == method)
        section.figures.append(
            _errors(f"... energy by {method} ({mine.height})", mine["energy_error_pct"].drop_nulls(), None, None)
        )
    _inferred(section, hidden, inferred, true, with_bms, targets)
    lost = seen.with_row_index("no").filter(~pl.col("no").is_in(pairs["true_no"].implode()))
    section.detail("True sessions not found", lost.drop("no", "lat", "lng").head(_WORST))
    shown = ["device_no", "started_at", "ended_at", "mode", "evidence", "soc_start_pct", "soc_end_pct", "energy_kwh"]
    extra = logged.with_row_index("no").filter(~pl.col("no").is_in(pairs["found_no"].implode()))
    section.detail("Sessions found that were none", extra.select(shown).head(_WORST))
    worst = matched.sort("energy_error_pct", descending=True, nulls_last=True).select(
        "device_no", "started_at", "mode", "energy_method", "energy_kwh", "true_energy_kwh", "energy_error_pct",
        "gap_share", "true_logged_share",
    )  # fmt: skip
    section.detail("Largest errors of session energy", worst.head(_WORST))


def _inferred(
    section: Section,
    hidden: pl.DataFrame,
    inferred: pl.DataFrame,
    true: pl.DataFrame,
    with_bms: pl.Series,
    targets: Targets,
) -> None:
    charges = hidden.filter(pl.col("mode") != "V2L")
    charges = charges.with_columns(covered=covered_share(charges, inferred))
    of_bms = charges.filter(pl.col("device_no").is_in(with_bms))
    found = of_bms.filter(pl.col("covered") >= OVERLAP)
    section.figures.append(_share("inferred charges found", found.height, of_bms.height, targets.inferred))
    of_gps = charges.filter(~pl.col("device_no").is_in(with_bms))
    found = of_gps.filter(pl.col("covered") >= OVERLAP)
    section.figures.append(_share("... charges of cars with GPS only found", found.height, of_gps.height, None))
    rise = true.filter(pl.col("mode") != "V2L")
    hit = inferred.with_columns(touched=covered_share(inferred, rise)).filter(pl.col("touched") > 0)
    section.figures.append(_share("inferred charges that were charges", hit.height, inferred.height, None))
    missed = charges.filter(pl.col("covered") < OVERLAP).drop("lat", "lng")
    section.detail("Charges that were not inferred", missed.head(_WORST))
    none = inferred.with_columns(touched=covered_share(inferred, rise)).filter(pl.col("touched") <= 0)
    shown = ["device_no", "started_at", "ended_at", "evidence", "soc_start_pct", "soc_end_pct", "energy_kwh"]
    section.detail("Inferred charges that were none", none.select(shown).head(_WORST))


def _trips(section: Section, snapshot: Published, truth: dict[str, pl.DataFrame], targets: Targets) -> None:
    gated = _gated(truth)
    true = truth["truth_trip"]
    true = true.filter(~in_months(true, gated)).with_columns(
        lost_s=(1 - pl.col("logged_share")) * (pl.col("ended_at") - pl.col("started_at")).dt.total_seconds()
    )
    published = snapshot.rows("select * from fct_trip order by device_no, started_at")
    published = published.filter(~in_months(published, gated))
    is_split = (pl.col("lost_s") > float(sql_vars()["trip_gap_s"])) | (pl.col("logged_share") < OVERLAP)
    split, whole = true.filter(is_split), true.filter(~is_split)
    pairs = match_intervals(published, whole)
    # what is left of a trip that a long gap cut is no false trip
    rest = published.with_row_index("no").filter(~pl.col("no").is_in(pairs["found_no"].implode())).drop("no")
    rest = rest.with_columns(of_split=covered_share(rest, split))
    false = rest.filter(pl.col("of_split") < 0.5)
    section.figures += [
        _share("trips: recall", pairs.height, whole.height, targets.trips),
        _share("trips: precision", pairs.height, pairs.height + false.height, targets.trips),
    ]
    matched = pl.concat(
        [published[pairs["found_no"]], whole[pairs["true_no"]].select(pl.all().name.prefix("true_"))], how="horizontal"
    ).with_columns(
        true_net_kwh=pl.col("true_energy_out_kwh") - pl.col("true_energy_regen_kwh"),
    ).with_columns(
        distance_error_pct=_pct("distance_km", "true_distance_km"),
        energy_error_pct=_pct("energy_net_kwh", "true_net_kwh"),
    )  # fmt: skip
    measured = matched.filter(pl.col("energy_net_kwh").is_not_null())
    far = measured.filter(pl.col("distance_km") >= float(sql_vars()["trip_counter_min_km"]))
    section.figures += [
        _errors("trip distance", matched["distance_error_pct"], None, None),
        _errors("trip net energy, trips >= 10 km", far["energy_error_pct"], targets.trip_energy_pct, None),
        _errors("... all trips that have one", measured["energy_error_pct"], None, None),
    ]
    for method in sorted(matched["energy_method"].unique()):
        mine = matched.filter(pl.col("energy_method") == method)
        if mine["energy_net_kwh"].null_count() < mine.height:
            figure = _errors(f"... energy by {method}", mine["energy_error_pct"].drop_nulls(), None, None)
        else:
            figure = Figure(f"... NULL, {method}", "", f"{mine.height} of {matched.height}", None)
        section.figures.append(figure)
    lost = whole.with_row_index("no").filter(~pl.col("no").is_in(pairs["true_no"].implode())).drop("no")
    section.detail("True trips not found", lost.head(_WORST))
    shown = ["device_no", "started_at", "ended_at", "distance_km", "distance_method", "logged_share"]
    section.detail("Trips found that were none", false.select(shown).head(_WORST))
    excepted = Figure("trips excepted: too much of them in a gap", "", f"{split.height} of {true.height}", None)
    section.figures.append(excepted)


def _days(section: Section, snapshot: Published, truth: dict[str, pl.DataFrame]) -> None:
    days = snapshot.rows("select * from fct_energy_daily")
    sessions = snapshot.rows(
        "select device_no, sum(energy_kwh) as session_kwh from fct_charging_session where mode <> 'V2L' group by all"
    )
    sums = days.group_by("device_no").agg(pl.sum("charged_kwh")).join(sessions, on="device_no", how="left")
    off = sums.select((pl.col("charged_kwh") - pl.col("session_kwh").fill_null(0)).abs().max()).item() or 0.0
    section.figures.append(
        Figure("days add up to sessions", "1e-6 kWh", f"largest difference {off:.1e} kWh", off <= 1e-6)
    )
    both = days.filter(pl.col("gated_by").is_null()).join(
        truth["truth_day"], on=["device_no", "service_date"], suffix="_true"
    )
    charged = both.filter((pl.col("charged_kwh_true") > 1) & (pl.col("inferred_session_count") == 0))
    error = 100 * (charged["charged_kwh"] - charged["charged_kwh_true"]).abs() / charged["charged_kwh_true"]
    section.figures.append(_errors("energy charged on a day", error.drop_nulls(), None, None))
    net = pl.col("energy_out_kwh") - pl.col("energy_regen_kwh")
    driven = both.with_columns(true_net=net).filter((pl.col("true_net") > 1) & (pl.col("unlogged_km") == 0))
    error = 100 * (driven["driven_net_kwh"] - driven["true_net"]).abs() / driven["true_net"]
    section.figures.append(_errors("net energy driven on a day without gap", error.drop_nulls(), None, None))
    rested = both.filter(pl.col("parked_kwh").is_not_null())
    got, idle, asleep = rested.select(pl.sum("parked_kwh"), pl.sum("idle_kwh"), asleep=pl.sum("parked_kwh_true")).row(0)
    section.figures.append(
        Figure(
            "energy lost at rest", "",
            f"{got:,.1f} kWh stated; true: {idle:,.1f} kWh awake, {asleep:,.1f} kWh asleep (no counter sees it)", None,
        )
    )  # fmt: skip


def real_sessions(section: Section, snapshot: Published) -> None:
    """The figures that are known of the sessions of two real cars, added to a section."""
    sessions = snapshot.rows(
        "select * from fct_charging_session where device_no in ('01290000001', '01290000003') order by started_at"
    ).filter(~pl.col("is_inferred"))
    for device, session_n, period_n in (("01290000001", 2, 5), ("01290000003", 22, None)):
        mine = sessions.filter(
            (pl.col("device_no") == device) & (pl.col("soc_end_pct") - pl.col("soc_start_pct") >= _LARGE_PCT)
        )
        periods = int(mine["period_count"].sum())
        is_met = mine.height == session_n and period_n in (None, periods)
        target = f"{session_n}" + (f" ({period_n} periods)" if period_n else "")
        name = f"{device}: charges with SoC +{_LARGE_PCT:.0f} or more"
        section.figures.append(Figure(name, target, f"{mine.height} ({periods} periods)", is_met))
        per_100 = (100 * mine["step_charge_ah"] / mine["step_soc_delta_pct"]).drop_nulls()
        low, middle, high = (per_100.quantile(q, "linear") or 0.0 for q in (0.25, 0.5, 0.75))
        text = f"median {middle:.1f} Ah, IQR {high - low:.1f}, {per_100.len()} of {mine.height} with an estimate"
        section.figures.append(Figure(f"{device}: Ah per 100 %, timed by steps of the SoC", "", text, None))
