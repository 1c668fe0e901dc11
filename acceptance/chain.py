"""PART chain: from delivery to published mileage, on the fleets `fine` and `coarse` and on real logs.

Belongs here: running the chain on a home of its own, reading what it published, and the targets. Does not belong here:
how a figure is compared (``compare``).
"""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from acceptance.compare import (
    MONTH_KEYS,
    compare_accounts,
    compare_decisions,
    compare_months,
    days_against_months_km,
    match_events,
    outside_months,
    unbalanced_files,
    unexpected_events,
)
from acceptance.figures import Figure, Section
from acceptance.runs import Ran, Runs, Snapshot
from baas_dagster.settings import sql_vars
from baas_dagster.simulator import STANDARD_FLEETS

__all__ = ["FLEETS", "accept", "fleet_section", "real_section"]

FLEETS = ("fine", "coarse")
_RECALL = 0.95
_DAYS_KM = 1e-6
_WORST = 8
"""Rows of a table of worst cases."""


def accept(runs: Runs) -> list[Section]:
    """All sections of this part."""
    sections = [fleet_section(name, runs.fleet(name)) for name in FLEETS]
    section = Section("Real logs", "Logs of three real cars in the delivery layout, which are no part of this project.")
    ran = runs.real_logs()
    if ran is None:
        section.figures.append(
            Figure("all", "", "not measured: the folder of real logs is not beside the project", None)
        )
        return [*sections, section]
    return [*sections, real_section(section, ran.snapshot)]


# --- simulated fleets -----------------------------------------------------------------------------------------------


def fleet_section(name: str, ran: Ran) -> Section:
    """The figures of one simulated fleet."""
    spec = STANDARD_FLEETS[name]
    section = Section(
        f"Fleet `{name}`",
        f"{spec.devices} cars x {spec.months} months, a BMS row every {spec.dt_s:g} s while a car is awake, delivered "
        "with all quirks of real deliveries.",
    )
    for figures in (_months, _events, _decisions, _accounts):
        figures(section, ran.snapshot, ran.truth)
    return section


def _count(part: int, whole: int) -> str:
    return f"{part} of {whole}" + (f" ({100 * part / whole:.1f} %)" if whole else "")


def _all(name: str, good: int, whole: int, target: str = "all") -> Figure:
    return Figure(name, target, _count(good, whole), good == whole)


def _months(section: Section, snapshot: Snapshot, truth: Mapping[str, pl.DataFrame]) -> None:
    events = truth["truth_odometer_event"]
    monthly = snapshot.rows("select * from fct_mileage_monthly")
    compared = compare_months(monthly, truth["truth_month"], events.filter(pl.col("code") == "ODO_RESET"))
    judged = compared.filter(pl.col("excepted_because") == "")
    within, contained = judged.filter("is_within"), judged.filter("is_contained")
    section.figures += [
        _all(
            "device-months whose distance is within max(1 km, 0.2 %) + boundary + 3 % of repaired km of the truth",
            within.height,
            judged.height,
        ),
        _all("device-months whose stated interval contains the truth", contained.height, judged.height),
    ]
    for source in sorted(judged["distance_source"].drop_nulls().unique()):
        mine = judged.filter(pl.col("distance_source") == source)
        text = f"{mine.filter('is_within').height} within, {mine.filter('is_contained').height} contained"
        half_km = (pl.col("distance_hi_km") - pl.col("distance_lo_km")) / 2
        error_km, stated_km = mine.select(pl.median("error_km"), stated=half_km.median()).row(0)
        text += f", of {mine.height}; median error {error_km:.2f} km, stated +- {stated_km:.2f} km"
        section.figures.append(Figure(f"... of these with distance from {source}", "", text, None))
    error, whole = judged.select(pl.sum("error_km", "true_km")).row(0)
    text = f"{error:,.1f} km of {whole:,.0f} km ({100 * error / whole:.3f} %)"
    section.figures.append(Figure("sum of the months' errors", "", text, None))
    for because, target in (("reset", "all grade C or D, and say why"), ("gated", "all NULL, grade D, check named")):
        excepted = compared.filter(pl.col("excepted_because") == because)
        explained = excepted.filter("is_explained").height
        section.figures.append(_all(f"months excepted: {because}", explained, excepted.height, target))
        section.detail(f"Excepted as {because}", _shown(excepted))
    off = days_against_months_km(snapshot.rows("select * from fct_mileage_daily"), monthly)
    section.figures.append(
        Figure("days add up to months", "1e-6 km", f"largest difference {off:.1e} km", off <= _DAYS_KM)
    )
    missed = judged.filter(~pl.col("is_within") | ~pl.col("is_contained"))
    section.detail("Months that miss", _shown(missed))
    worst = judged.filter("is_within").sort(pl.col("error_km") / pl.col("allowed_km"), descending=True).head(_WORST)
    section.detail("Months nearest to the limit", _shown(worst))


def _shown(compared: pl.DataFrame) -> pl.DataFrame:
    return compared.select(
        "device_no",
        "measured_month",
        source="distance_source",
        true_km="true_km",
        stated_km="distance_km",
        error_km="error_km",
        allowed_km="allowed_km",
        low_km="distance_lo_km",
        high_km="distance_hi_km",
        grade="grade",
        verdict="verdict",
    )


def _events(section: Section, snapshot: Snapshot, truth: Mapping[str, pl.DataFrame]) -> None:
    gated = truth["truth_month"].filter(pl.col("gated_because") != "").select(MONTH_KEYS)
    # smaller steps over a silence count as unlogged kilometres and make no event
    least_km = float(sql_vars()["odometer_gap_event_km"])
    injected = (
        truth["truth_odometer_event"]
        .filter((pl.col("code") != "ODO_GAP") | (pl.col("size_km") >= least_km))
        .join(gated, on=MONTH_KEYS, how="anti")
    )
    published = snapshot.rows("select * from fct_odometer_event")
    found, injected = match_events(published, injected)
    # a gated month is a silence to its neighbours: its gap is right, and in no list of what was put in
    found = outside_months(found, gated)
    for code in sorted(injected["code"].unique()):
        there = injected.filter(pl.col("code") == code)
        hit = there.filter("is_matched").height
        text = _count(hit, there.height)
        section.figures.append(Figure(f"recall {code}", f">= {_RECALL}", text, hit >= _RECALL * there.height))
    for code in sorted(found["code"].unique()):
        mine = found.filter(pl.col("code") == code)
        section.figures.append(
            Figure(f"precision {code}", "", _count(mine.filter("is_matched").height, mine.height), None)
        )
    quiet = truth["truth_device"].filter(~pl.col("has_odometer_events"))["device_no"].to_list()
    unexpected = unexpected_events(found, quiet)
    section.figures.append(
        Figure(
            f"events on the {len(quiet)} cars without any (zeros and gaps that the truth has left out)",
            "0",
            str(unexpected.height),
            unexpected.height == 0,
        )
    )
    lost = injected.filter(~pl.col("is_matched")).select(
        "device_no", "code", "variant", "started_at", "ended_at", "size_km", found_instead=_instead(found, injected)
    )
    section.detail("Events put in and not found", lost.head(40))
    columns = ["device_no", "code", "occurred_at", "ended_at", "distance_km", "action"]
    extra = found.filter(~pl.col("is_matched")).sort("device_no", "occurred_at")
    section.detail("Events found that nobody put in", extra.select(columns).head(40))


def _instead(found: pl.DataFrame, injected: pl.DataFrame) -> pl.Series:
    """What was found in the time of each lost event, in words."""
    texts = []
    for row in injected.filter(~pl.col("is_matched")).iter_rows(named=True):
        near = found.filter(
            (pl.col("device_no") == row["device_no"])
            & (pl.col("occurred_at") <= row["ended_at"])
            & (pl.col("ended_at") >= row["started_at"])
        )
        texts.append(", ".join(sorted(near["code"].unique())))
    return pl.Series("found_instead", texts, dtype=pl.String)


def _decisions(section: Section, snapshot: Snapshot, truth: Mapping[str, pl.DataFrame]) -> None:
    with_bms = truth["truth_month"].filter(pl.col("bms_rows") > 0).select(MONTH_KEYS)
    layouts = truth["truth_layout"].join(with_bms, on=MONTH_KEYS, how="semi")
    compared = compare_decisions(
        layouts, snapshot.rows("select * from delivery"), snapshot.rows("select * from device_decision")
    )
    cars = layouts["device_no"].n_unique()
    for name, column in (("sign of the current", "is_sign_right"), ("scale of the voltage", "is_scale_right")):
        wrong = compared.filter(~pl.col(column))["device_no"].n_unique()
        missing = cars - compared["device_no"].n_unique()
        section.figures.append(_all(f"cars whose {name} is right in every export layout", cars - wrong - missing, cars))
    section.detail(
        "Decisions that are wrong",
        compared.filter(~pl.col("is_sign_right") | ~pl.col("is_scale_right")).drop("form"),
    )
    expected = truth["truth_device"].filter("has_bms").select("device_no", true_cells="cell_count")
    cells = expected.join(snapshot.rows("select device_no, cell_count from dim_device"), on="device_no", how="left")
    right = cells.filter(pl.col("true_cells") == pl.col("cell_count")).height
    section.figures.append(Figure("cars whose cell count is right", "", _count(right, cells.height), None))


def _accounts(section: Section, snapshot: Snapshot, truth: Mapping[str, pl.DataFrame]) -> None:
    delivery = snapshot.rows("select * from delivery")
    files = delivery.filter(pl.col("kind").is_in(["bms", "gps"])).height
    unbalanced = unbalanced_files(delivery)
    section.figures.append(
        _all("files with rows read = kept + duplicates + superseded + rejected", files - unbalanced.height, files)
    )
    section.detail("Files that do not balance", unbalanced.select(pl.exclude("devices", "months", "unknown_columns")))
    wrong = compare_accounts(delivery, truth["truth_file"])
    section.figures.append(_all("files whose rows read and rejected are what was written", files - wrong.height, files))
    section.detail("Files that were read otherwise than written", wrong.head(20))
    sums = delivery.select(pl.sum("rows_read", "rows_kept", "rows_duplicate", "rows_superseded", "rows_rejected"))
    text = ", ".join(f"{sums[c].item():,} {c.removeprefix('rows_')}" for c in sums.columns)
    section.figures.append(Figure("rows", "", text, None))


# --- real logs ------------------------------------------------------------------------------------------------------

_EV87, _EV96, _TWIZY = "01290000003", "01290000001", "01290000005"


def real_section(section: Section, published: Snapshot) -> Section:
    """Fill the section of the real logs from a snapshot."""
    devices = published.rows("select device_no from dim_device order by 1")["device_no"].to_list()
    section.figures.append(
        Figure("devices", "three, leading zeros kept", ", ".join(devices), devices == [_EV96, _EV87, _TWIZY])
    )
    for device, true_km in ((_EV87, 2472), (_EV96, 496)):
        km = published.one(f"select sum(distance_km) from fct_mileage_monthly where device_no = '{device}'")
        section.figures.append(
            Figure(f"{device}: distance", f"{true_km} +- 1 km", f"{km:,.1f} km", abs(km - true_km) <= 1)
        )
    zeros = published.one(f"select sum(odometer_zero_count) from fct_mileage_daily where device_no = '{_EV87}'")
    twice = published.one(
        "select sum(rows_duplicate + rows_superseded) from delivery "
        f"where list_contains(devices, '{_EV87}') and kind = 'bms'"
    )
    section.figures += [
        Figure(f"{_EV87}: odometer zeros counted", "912", f"{zeros:,.0f}", zeros == 912),
        Figure(f"{_EV87}: duplicate times counted", "34", f"{twice:,.0f}", twice == 34),
        _step_over_silence(published, _EV87, 107),
        _step_over_silence(published, _EV96, 134),
    ]
    _twizy(section, published)
    months = published.rows(
        """
        select
            device_no, measured_month, distance_source as source, distance_km, distance_lo_km as low_km,
            distance_hi_km as high_km, coverage_pct, grade, verdict,
        from fct_mileage_monthly order by all
        """
    )
    section.detail("Months", months)
    return section


def _step_over_silence(published: Snapshot, device: str, km: float) -> Figure:
    """The step of that many kilometres is an ODO_GAP, and no jump."""
    events = published.rows(
        f"select code, distance_km from fct_odometer_event where device_no = '{device}' "
        f"and abs(distance_km - {km}) <= 2"
    )
    jumps = published.one(f"select count(*) from fct_odometer_event where device_no = '{device}' and code = 'ODO_JUMP'")
    found = ", ".join(f"{code} {size:.1f} km" for code, size in events.iter_rows()) or "nothing of that size"
    return Figure(
        f"{device}: its {km:.0f} km step lies over a silence",
        "ODO_GAP, no ODO_JUMP",
        f"{found}; {jumps:.0f} jumps",
        "ODO_GAP" in events["code"].to_list() and jumps == 0,
    )


def _twizy(section: Section, published: Snapshot) -> None:
    mine = f"device_no = '{_TWIZY}'"
    sources = published.rows(f"select distinct distance_source from fct_mileage_monthly where {mine} order by 1")
    km = published.one(f"select sum(distance_km) from fct_mileage_monthly where {mine}")
    gps_km = published.one(f"select max(distance_gps_km) from fct_mileage_daily where {mine}")
    jumps = published.one(f"select sum(gps_jump_count) from fct_mileage_daily where {mine}")
    rejected = published.rows(
        "select count(*) as n, count(source_row) as named, count(*) filter (where reason ilike '%time%' or "
        f"reason ilike '%date%') as dates from rejected_row where {mine} or file_name like '%{_TWIZY}%'"
    ).row(0, named=True)
    names = [str(s) for s in sources["distance_source"]]
    section.figures += [
        Figure(
            f"{_TWIZY}: comes out of speed and GPS",
            "> 0 km, not from an odometer",
            f"{km:,.1f} km from {', '.join(names)}",
            km > 0 and set(names) <= {"speed", "gps"},
        ),
        Figure(
            f"{_TWIZY}: the teleport of 3,780 km is dropped",
            "no day above 300 km by GPS, >= 1 jump",
            f"longest day {gps_km:,.1f} km, {jumps:.0f} jumps",
            gps_km < 300 and jumps >= 1,
        ),
        Figure(
            f"{_TWIZY}: impossible dates are rejected with row numbers",
            "> 0, all with row",
            f"{rejected['dates']} of {rejected['n']} rejected rows for their time, {rejected['named']} with row",
            rejected["dates"] > 0 and rejected["named"] == rejected["n"],
        ),
    ]
    days = published.rows(
        f"select service_date, distance_km, distance_speed_km, distance_gps_km from fct_mileage_daily where {mine} "
        "and service_date in ('2021-03-29', '2021-03-30') order by 1"
    )
    for day, target in zip(days.iter_rows(named=True), (49.6, 52.7), strict=False):
        km = day["distance_speed_km"] or 0.0
        section.figures.append(
            Figure(f"{_TWIZY}: CAN-speed distance on {day['service_date']}", f"{target} km seen", f"{km:.1f} km", None)
        )
