"""Marts of driving, exposure, power, parking and counters against the truth of a simulated fleet.

Belongs here: which published figure has which true counterpart, how far off it is, and sums that must add up whatever
the data are. Does not belong here: sessions, trips and energy per day (``sessions``), capacity and SoH, the counters
audit on cars with faults (``counters``).
"""

from __future__ import annotations

from pathlib import Path

import polars as pl

from acceptance.compare import MONTH_KEYS
from acceptance.figures import Figure, Section
from acceptance.sessions import Published
from baas_dagster.settings import sql_vars

__all__ = ["marts_section"]

_HOURS = 1e-3
"""h by which sums of hours may differ: thousands of parts, each rounded to a nanohour."""
_WORST = 8


def marts_section(name: str, snapshot: Published, truth: Path) -> Section:
    """The figures of one fleet. ``truth``: folder with its truth tables."""
    section = Section(
        f"Driving, exposure, power, parking and counters, fleet `{name}`",
        "Published marts against what the simulated cars did. Figures without a target say how far off they are: the "
        "BMS's SoC, on which SoC and exposure rest, is itself off by what these cars' BMS get wrong.",
    )
    tables = {path.stem: pl.read_parquet(path) for path in truth.glob("truth_*.parquet")}
    gated = tables["truth_month"].filter(pl.col("gated_because") != "").select(MONTH_KEYS)
    _hours(section, snapshot)
    _soc(section, snapshot, tables, gated)
    _consumption(section, snapshot, tables, gated)
    _resistance(section, snapshot, tables)
    _charge_curve(section, snapshot, tables)
    _parking(section, snapshot, tables, gated)
    _counters(section, snapshot, tables, gated)
    return section


def _spread(errors: pl.Series, unit: str, digits: int = 2) -> str:
    """Median and 95th percentile of the absolute values, in words."""
    found = errors.drop_nulls().abs()
    if not found.len():
        return "none to compare"
    middle, high = found.to_frame("e").select(pl.median("e"), high=pl.quantile("e", 0.95, "linear")).row(0)
    return f"median {middle:.{digits}f} {unit}, p95 {high:.{digits}f} {unit} (n {found.len()})"


def _hours(section: Section, snapshot: Published) -> None:
    daily = snapshot.rows("select * from fct_soc_daily")
    longest = daily.select((pl.col("logged_h") + pl.col("silent_h")).max()).item() or 0.0
    section.figures.append(Figure("hours of a day", "<= 24", f"at most {longest:.6f}", longest <= 24 + _HOURS))
    inner = daily.filter(
        (pl.col("service_date") > pl.col("service_date").min().over("device_no"))
        & (pl.col("service_date") < pl.col("service_date").max().over("device_no"))
    )
    off = inner.select(((pl.col("logged_h") + pl.col("silent_h")) - 24).abs().max()).item() or 0.0
    section.figures.append(
        Figure("days inside a car's span have 24 hours", "to 1e-3 h", f"largest difference {off:.1e} h", off <= _HOURS)
    )
    kinds = snapshot.rows("select * from fct_exposure_monthly").group_by([*MONTH_KEYS, "kind"]).agg(pl.sum("hours"))
    span = daily.group_by(MONTH_KEYS).agg(span_h=(pl.col("logged_h") + pl.col("silent_h")).sum())
    compared = kinds.join(span, on=MONTH_KEYS, how="full", coalesce=True)
    worst = compared.select((pl.col("hours") - pl.col("span_h")).abs().max()).item() or 0.0
    complete = kinds.height == 4 * span.height and compared.height == kinds.height
    section.figures.append(
        Figure(
            "hours of every kind of exposure add up to the car's span in the month",
            "to 1e-3 h",
            f"largest difference {worst:.1e} h over {span.height} device-months",
            complete and worst <= _HOURS,
        )
    )


def _soc(section: Section, snapshot: Published, truth: dict[str, pl.DataFrame], gated: pl.DataFrame) -> None:
    ends = (
        snapshot.rows("select * from fct_soc_daily")
        .filter(pl.col("service_date") == pl.col("service_date").dt.month_end())
        .join(truth["truth_month"].select(*MONTH_KEYS, true_pct=100 * pl.col("soc_end")), on=MONTH_KEYS)
        .join(gated, on=MONTH_KEYS, how="anti")
        .with_columns(error_pct=pl.col("soc_end_pct") - pl.col("true_pct"))
    )
    section.figures.append(
        Figure("SoC at the end of a month against the true one", "", _spread(ends["error_pct"], "points"), None)
    )


def _consumption(section: Section, snapshot: Published, truth: dict[str, pl.DataFrame], gated: pl.DataFrame) -> None:
    true = (
        truth["truth_trip"]
        .with_columns(measured_month=pl.col("started_at").dt.strftime("%Y-%m"))
        .group_by(MONTH_KEYS)
        .agg(
            true_kwh=100 * (pl.sum("energy_out_kwh").abs() - pl.sum("energy_regen_kwh").abs()) / pl.sum("distance_km"),
            true_regen_pct=100 * pl.sum("energy_regen_kwh").abs() / pl.sum("energy_out_kwh").abs(),
        )
    )
    mine = (
        snapshot.rows("select * from fct_efficiency_monthly where band_kind = 'all'")
        .join(true, on=MONTH_KEYS)
        .join(gated, on=MONTH_KEYS, how="anti")
        .with_columns(
            error_pct=100 * (pl.col("kwh_per_100km") / pl.col("true_kwh") - 1),
            regen_error=pl.col("regen_share_pct") - pl.col("true_regen_pct"),
        )
    )
    known = mine.drop_nulls("kwh_per_100km")
    months = f"; {known.height} of {mine.height} device-months have one"
    section.figures += [
        Figure("kWh/100 km of a month against all its true trips", "", _spread(mine["error_pct"], "%") + months, None),
        Figure("share of energy returned, of a month", "", _spread(mine["regen_error"], "points"), None),
    ]
    section.detail(
        "Consumption furthest from the truth",
        known.sort(pl.col("error_pct").abs(), descending=True)
        .head(_WORST)
        .select(*MONTH_KEYS, "kwh_per_100km", "kwh_per_100km_lo", "kwh_per_100km_hi", "true_kwh", "n", "trip_count"),
    )


def _resistance(section: Section, snapshot: Published, truth: dict[str, pl.DataFrame]) -> None:
    found = snapshot.rows(
        "select * from fct_power_monthly "
        "where resistance_mohm is not null and temperature_from_c is not null and soc_from_pct between 20 and 80"
    ).join(truth["truth_device"].select("device_no", true_mohm="resistance_mohm"), on="device_no")
    if found.is_empty():
        section.figures.append(Figure("resistance from current steps", "", "none: rows too far apart", None))
        return
    by_car = found.group_by("device_no", "temperature_from_c").agg(
        ratio=((pl.col("resistance_mohm") / pl.col("true_mohm")) * pl.col("n")).sum() / pl.col("n").sum(),
        resistance_mohm=(pl.col("resistance_mohm") * pl.col("n")).sum() / pl.col("n").sum(),
        true_mohm=pl.first("true_mohm"),
        n=pl.sum("n"),
    )
    mild = by_car.filter(pl.col("temperature_from_c").is_between(20, 25))
    if mild.height:
        middle, low, high = mild.select(pl.median("ratio"), low=pl.min("ratio"), high=pl.max("ratio")).row(0)
        text = f"median {middle:.2f}, {low:.2f}-{high:.2f}"
        text += f" (n {mild.height})"
    else:
        text = "no car was that warm"
    step = found.select(pl.median("step_mean_s")).item()
    section.figures.append(
        Figure(f"resistance at 20-30 degC, steps of {step:.0f} s, / true series resistance at 25 degC", "", text, None)
    )
    # rank between cars at one temperature: the band that most cars have
    size = by_car.group_by("temperature_from_c").len().sort("len", "temperature_from_c", descending=[True, False])
    band = size["temperature_from_c"][0]
    same = by_car.filter(pl.col("temperature_from_c") == band)
    rank, ratio, spread = same.select(
        pl.corr("resistance_mohm", "true_mohm", method="spearman"),
        pl.median("ratio"),
        spread=pl.std("ratio") / pl.mean("ratio"),
    ).row(0)
    text = "too few cars"
    if same.height > 2:
        text = f"{rank:.2f} over {same.height} cars at {band:.0f} degC; there {ratio:.2f} x that at 25 degC, "
        text += f"+- {100 * spread:.0f} % between cars"
    section.figures.append(Figure("rank correlation of cars by resistance with the truth", "", text, None))


def _charge_curve(section: Section, snapshot: Published, truth: dict[str, pl.DataFrame]) -> None:
    curve = snapshot.rows("select * from fct_charge_curve")
    sessions = truth["truth_charging_session"].filter(pl.col("logged_share") >= 0.9)
    best = sessions.group_by("device_no", mode=pl.col("mode").str.to_uppercase()).agg(
        true_kw=pl.max("power_max_kw"), true_n=pl.len()
    )
    for mode in ("AC", "DC"):
        mine = (
            curve.filter(pl.col("mode") == mode)
            .group_by("device_no", "mode")
            .agg(pl.max("power_max_kw"), pl.max("power_p90_kw"))
            .join(best, on=["device_no", "mode"])
            .with_columns(error_pct=100 * (pl.col("power_max_kw") / pl.col("true_kw") - 1))
        )
        section.figures.append(
            Figure(f"largest {mode} power of a car's charge curve", "", _spread(mine["error_pct"], "%"), None)
        )


def _parking(section: Section, snapshot: Published, truth: dict[str, pl.DataFrame], gated: pl.DataFrame) -> None:
    true = truth["truth_month"].select(*MONTH_KEYS, "parked_ah", "capacity_ah")
    mine = (
        snapshot.rows("select * from fct_parked_loss")
        .join(true, on=MONTH_KEYS)
        .join(gated, on=MONTH_KEYS, how="anti")
        .with_columns(
            true_loss=100 * pl.col("parked_ah") / pl.col("capacity_ah") / (pl.col("parked_h") / 24),
        )
        .filter(pl.col("parked_h") > 240)
        .drop_nulls("soc_lost_pct_per_day")
        .with_columns(
            error=pl.col("soc_lost_pct_per_day") - pl.col("true_loss"),
            is_held=pl.col("true_loss").is_between("soc_lost_lo_pct_per_day", "soc_lost_hi_pct_per_day"),
        )
    )
    held = f"; {mine.filter('is_held').height} of {mine.height} of the 90 % intervals hold the truth"
    text = _spread(mine["error"], "%/day") + held
    section.figures.append(Figure("loss of SoC while parked, of a month", "", text, None))


def _counters(section: Section, snapshot: Published, truth: dict[str, pl.DataFrame], gated: pl.DataFrame) -> None:
    audit = (
        snapshot.rows("select * from fct_counter_audit_monthly")
        .join(truth["truth_device"].select("device_no", true_a="current_offset_a"), on="device_no")
        .join(gated, on=MONTH_KEYS, how="anti")
    )
    resets = (
        truth["truth_odometer_event"]
        .filter((pl.col("code") == "ODO_RESET") & pl.col("variant").str.contains("counters"))
        .select(MONTH_KEYS)
        .unique()
        .join(audit.select(*MONTH_KEYS, "verdict"), on=MONTH_KEYS)
    )
    found = resets.filter(pl.col("verdict") == "reset").height
    judged = audit.join(resets, on=MONTH_KEYS, how="anti").filter(pl.col("verdict") != "insufficient")
    flagged = judged.filter(pl.col("verdict") != "ok")
    counts = audit.group_by("verdict").len().sort("verdict")
    text = ", ".join(f"{n} {verdict}" for verdict, n in counts.iter_rows())
    section.figures += [
        Figure("resets of counters found", "all", f"{found} of {resets.height}", found == resets.height),
        Figure(
            "months without a reset, none with a fault of its counters, that the audit flags",
            "<= 1 %",
            f"{flagged.height} of {judged.height} judged ({text})",
            flagged.height <= 0.01 * judged.height,
        ),
        Figure(
            "offset of the current, of a month, against the true one",
            "",
            _spread(audit["current_offset_a"] - audit["true_a"], "A", 3)
            + f"; parked cars take {sql_vars()['parked_load_w']} W by assumption",
            None,
        ),
    ]
    section.detail("Months that the audit flags", flagged.select(*MONTH_KEYS, "verdict", "reason", "n").head(_WORST))
