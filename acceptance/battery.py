"""PART battery: sessions, trips, energy, capacity, state of health, on the fleets `fine` and `coarse`, on cars
simulated for 36 months, and on real logs.

Belongs here: the order of sections, state of health against the truth, real logs. Does not belong here: how sessions
and trips are matched (``sessions``), what other marts must say (``battery_marts``), coverage (``battery_statistics``).
"""

from __future__ import annotations

import polars as pl

from acceptance.battery_marts import marts_section
from acceptance.battery_statistics import statistics_sections
from acceptance.compare import MONTH_KEYS
from acceptance.counters import counters_section
from acceptance.curve_limits import limit_figures
from acceptance.figures import Figure, Section
from acceptance.runs import Ran, Runs, Snapshot
from acceptance.sessions import real_sessions, sessions_section

__all__ = ["accept", "compare_soh", "real_section"]

FLEETS = ("fine", "coarse")
_SOH_ERROR_PCT = {"fine": 1.5, "coarse": 2.0}
"""Points by which the median state of health may be off (issue)."""
_MIN_PAIRS = 2


def accept(runs: Runs) -> list[Section]:
    """All sections of this part."""
    sections = []
    for name in FLEETS:
        ran = runs.fleet(name)
        assert ran.truth_folder is not None  # a simulated fleet has one
        sections += [
            sessions_section(name, ran.snapshot, ran.truth_folder),
            soh_section(name, ran, runs.seed),
            marts_section(name, ran.snapshot, ran.truth_folder),
        ]
    sections += [*statistics_sections(runs.seed), counters_section(runs.seed)]
    real = runs.real_logs()
    if real is not None:
        sections.append(real_section(real.snapshot))
    return sections


def compare_soh(published: pl.DataFrame, months: pl.DataFrame, devices: pl.DataFrame) -> pl.DataFrame:
    """Published state of health beside the true one, per device and month that are not gated.

    `months` and `devices` are truth_month and truth_device. True is the capacity now as a share of the car's own new
    capacity; adds the errors of each figure in points, and whether the interval holds the truth.
    """
    truth = months.filter(pl.col("gated_because") == "").select(*MONTH_KEYS, true_soh_pct="soh_pct")
    cars = devices.select(
        "device_no", "chemistry", true_bms_pct=100 * pl.col("bms_capacity_ah") / pl.col("capacity_new_ah")
    )
    joined = published.join(truth, on=MONTH_KEYS, how="inner").join(cars, on="device_no")
    return joined.with_columns(
        error_pct=(pl.col("soh_pct") - pl.col("true_soh_pct")).abs(),
        ocv_error_pct=(pl.col("soh_ocv_pct") - pl.col("true_soh_pct")).abs(),
        charge_error_pct=(pl.col("soh_charge_pct") - pl.col("true_bms_pct")).abs(),
        is_inside=pl.col("true_soh_pct").is_between(pl.col("soh_lo_pct"), pl.col("soh_hi_pct")),
    )


def _median(frame: pl.DataFrame, column: str) -> float | None:
    value = frame[column].median()
    return None if value is None else float(str(value))


def _within(name: str, frame: pl.DataFrame, column: str, limit: float) -> Figure:
    known = frame.filter(pl.col(column).is_not_null())
    error = _median(known, column)
    if error is None:
        return Figure(name, f"<= {limit:g} points", "no month with a figure", is_met=False)
    p95 = float(str(known[column].quantile(0.95)))
    text = f"{error:.2f} points (p95 {p95:.2f}, {known.height} months of {known['device_no'].n_unique()} cars)"
    return Figure(name, f"<= {limit:g} points", text, error <= limit)


def soh_section(name: str, ran: Ran, seed: int) -> Section:
    """State of health of one simulated fleet, made with the released curves."""
    section = Section(
        f"Fleet `{name}`: state of health",
        "Curves learnt from this very fleet (`baas release --activate`); the truth is the capacity of each car as a "
        "share of its own new capacity, the published figure a share of its type's nominal capacity. What the same "
        "estimator would say if it knew curves that only the simulator knows tells what the data cannot give.",
    )
    compared = compare_soh(
        ran.snapshot.rows("select * from fct_soh_monthly"), ran.truth["truth_month"], ran.truth["truth_device"]
    )
    lfp = compared.filter(pl.col("chemistry") == "LFP")
    other = compared.filter(pl.col("chemistry") != "LFP")
    limit = _SOH_ERROR_PCT[name]
    paired = other.filter(pl.col("n_ocv") >= _MIN_PAIRS)
    fused = other.filter(pl.col("soh_pct").is_not_null())
    inside, known = fused.filter("is_inside").height, fused.height
    identified = lfp.filter(pl.col("soh_ocv_pct").is_not_null() | pl.col("soc_bias_pct").is_not_null()).height
    section.figures += [
        _within(f"`soh_ocv_pct`, median error where >= {_MIN_PAIRS} rest pairs", paired, "ocv_error_pct", limit),
        *limit_figures(name, ran, seed, paired.filter(pl.col("soh_ocv_pct").is_not_null())),
        _within("fused `soh_pct`, median error", other, "error_pct", limit),
        Figure(
            "fused 90 % intervals that hold the truth (few cars of each type: the share scatters)",
            "",
            f"{inside} of {known} ({100 * inside / max(known, 1):.0f} %)",
            None,
        ),
        Figure("LFP cars: rest voltages that made a number", "0", str(identified), identified == 0),
    ]
    echo = _median(other.filter(pl.col("soh_charge_pct").is_not_null()), "charge_error_pct")
    section.figures.append(
        Figure("`soh_charge_pct` off what the car's BMS counts with, median", "", f"{echo or 0:.2f} points", None)
    )
    versions = ran.snapshot.rows(
        "select chemistry, pack_type, version_id, made_from, quality from released_version where is_active "
        "order by chemistry, pack_type"
    )
    section.detail("Released curves", versions)
    worst = other.filter(pl.col("error_pct").is_not_null()).sort("error_pct", descending=True).head(8)
    section.detail(
        "Months that are off the most",
        worst.select(
            "device_no", "measured_month", "true_soh_pct", "soh_pct", "soh_lo_pct", "soh_hi_pct", "soh_ocv_pct",
            "soh_charge_pct", "method", "n",
        ),
    )  # fmt: skip
    return section


_EV87, _EV96, _TWIZY = "01290000003", "01290000001", "01290000005"


def real_section(published: Snapshot) -> Section:
    """What is known of the charges of two real cars."""
    section = Section(
        "Real logs: capacity", "Logs of real cars in the delivery layout, which are no part of this project."
    )
    charges = published.rows(
        f"""
        select s.session_id, e.capacity_ah, e.capacity_sd_ah, s.soc_end_pct - s.soc_start_pct as rise_pct
        from fct_charging_session as s
        left join fct_capacity_estimate as e on s.session_id = e.session_id and e.method = 'charge'
        where s.device_no = '{_EV87}' and s.mode <> 'V2L' and s.soc_end_pct - s.soc_start_pct >= 20
        """
    )
    estimated = charges.filter(pl.col("capacity_ah").is_not_null())
    quartiles = (
        [float(str(estimated["capacity_ah"].quantile(q, "linear"))) for q in (0.25, 0.5, 0.75)]
        if estimated.height
        else [0.0] * 3
    )
    low, median, high = quartiles
    section.figures += [
        Figure(
            f"{_EV87}: charges with SoC +20 or more, each with an estimate",
            "22",
            f"{charges.height}, {estimated.height} with an estimate",
            charges.height == estimated.height == 22,
        ),
        Figure(f"{_EV87}: median capacity", "116-122 Ah", f"{median:.1f} Ah", 116 <= median <= 122),
        Figure(f"{_EV87}: interquartile range", "<= 2.0 Ah", f"{high - low:.2f} Ah", high - low <= 2.0),
    ]
    real_sessions(section, published)
    sessions = published.rows(
        f"""
        select s.started_at, s.period_count, s.soc_start_pct, s.soc_end_pct, e.capacity_ah, e.capacity_sd_ah
        from fct_charging_session as s
        left join fct_capacity_estimate as e on s.session_id = e.session_id and e.method = 'charge'
        where s.device_no = '{_EV96}' and s.mode <> 'V2L' and not s.is_inferred order by 1
        """
    )
    capacities = sessions["capacity_ah"].drop_nulls().to_list()
    section.figures.append(
        Figure(
            f"{_EV96}: Ah per 100 %",
            "110-120 Ah",
            ", ".join(f"{c:.1f} Ah" for c in capacities) or "none",
            bool(capacities) and all(110 <= c <= 120 for c in capacities),
        )
    )
    section.detail(f"Charges of {_EV96}", sessions)
    return section
