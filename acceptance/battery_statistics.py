"""Statistics of the battery estimates: many cars over years, at the level of sessions and rests.

Belongs here: simulating them, running the estimators as the platform does, errors and coverage of intervals. Does not
belong here: whole deliveries through the chain (``chain``), and anything the estimators assume.

For the coverage every car is of a type of its own: the curve of the type, the maker's table and what is learnt of it
(from the car itself and two others of its type, one year each) are drawn anew for each car, as is its capacity around
the nominal one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from acceptance.figures import Figure, Section
from baas_dagster.battery.capacity import charge_estimates, rest_pair_estimates
from baas_dagster.battery.ocv import Curve, learn, outside_curve
from baas_dagster.battery.rests import rest_readings
from baas_dagster.battery.rules import RULES
from baas_dagster.battery.soh import Pack, soh_months, throughput
from baas_dagster.settings import DBT_PROJECT
from baas_dagster.simulator.longterm import FADES, LongCars, LongHistory, draw_long_cars, live
from baas_dagster.simulator.packs import PACK_ORDER, PACKS, PackType

__all__ = ["estimated", "month_names", "statistics_sections"]

CARS = 400  # per pack type (issue)
MONTHS = 36
DONORS = 2
LEARN_MONTHS = 12
CHUNK = 50  # cars simulated at a time: bounds the memory
EVERY = 6  # months between the rows that are compared
MIX = ("normal", "normal", "flat", "fast", "knee")
FIRST = "2021-01"


def statistics_sections(
    seed: int, cars: int = CARS, months: int = MONTHS, special: int = 40, packs: Sequence[str] = PACK_ORDER
) -> list[Section]:
    """Errors and coverage per method and pack type, slopes, and what a wrong BMS or a missing curve does."""
    reference = pl.read_csv(DBT_PROJECT / "seeds" / "ocv_reference.csv")
    rows, learnt = [], []
    for number, name in enumerate(packs):
        rng = np.random.default_rng([seed, number])
        for result in _population(PACKS[name], cars, months, rng, reference):
            rows.append(result.rows)
            learnt += [result.quality] if result.quality.height else []
    table = pl.concat(rows)
    return [
        _accuracy(table, cars, months, packs),
        _slopes(table, packs),
        _curves(pl.concat(learnt)),
        _special(seed, special, reference),
    ]


def _chemistry(pack: PackType) -> str:
    """Chemistry as the registry of the platform knows it."""
    return "LFP" if pack.chemistry == "LFP" else "NMC"


def month_names(months: int) -> list[str]:
    """The first months of the simulated histories, YYYY-MM."""
    begin = np.datetime64(FIRST, "M")
    return [str(begin + np.timedelta64(i, "M")) for i in range(months)]


@dataclass(frozen=True)
class _Result:
    rows: pl.DataFrame
    quality: pl.DataFrame


def _population(
    pack: PackType, cars: int, months: int, rng: np.random.Generator, reference: pl.DataFrame
) -> Iterator[_Result]:
    """Cars of one pack type, each of a type of its own, in chunks: their monthly rows beside the truth."""
    outside = outside_curve(reference, _chemistry(pack))
    for begin in range(0, cars, CHUNK):
        n = min(CHUNK, cars - begin)
        drawn = draw_long_cars(rng, pack, n, 1 + DONORS, prefix=f"{PACK_ORDER.index(pack.name)}{begin:03d}")
        every = np.arange(n * (1 + DONORS))
        tested = drawn.take(every[:: 1 + DONORS])
        others = drawn.take(every[every % (1 + DONORS) > 0])
        tested = _with_fades(tested, rng)
        history, donors = live(tested, months, rng, FIRST), live(others, LEARN_MONTHS, rng, FIRST)
        lent = dict(zip(others.device_no, others.type_no.tolist(), strict=True))
        by_type: dict[int, list[pl.DataFrame]] = {}
        for key, periods in donors.periods.group_by("device_no"):
            by_type.setdefault(lent[str(key[0])], []).append(rest_readings(periods, pack.cell_count))
        yield _judge(tested, history, by_type, outside, months)


def _with_fades(cars: LongCars, rng: np.random.Generator) -> LongCars:
    """The same cars on every path of capacity."""
    n = len(cars.device_no)
    fade = [MIX[i % len(MIX)] for i in range(n)]
    rate = np.array([{"flat": 0.0, "fast": 6.0, "knee": 1.5}.get(name, -1.0) for name in fade])
    knee = np.where([name == "knee" for name in fade], rng.uniform(10, 24, n) / 12, 1e9)
    return replace(cars, fade=fade, fade_pct_per_year=np.where(rate < 0, cars.fade_pct_per_year, rate), knee_year=knee)


def _judge(
    cars: LongCars, history: LongHistory, lent: dict[int, list[pl.DataFrame]], outside: Curve, months: int
) -> _Result:
    """Learn each car's curve and estimate as the platform does."""
    names = month_names(months)
    asked = names[EVERY - 1 :: EVERY]
    periods = {str(key[0]): part for key, part in history.periods.group_by("device_no")}
    sessions = {str(key[0]): part for key, part in history.sessions.group_by("device_no")}
    rows, quality = [], []
    until = names[min(LEARN_MONTHS, months) - 1]
    for i, device in enumerate(cars.device_no):
        rests = rest_readings(periods[device], cars.pack.cell_count)
        seen = pl.concat([rests.filter(pl.col("measured_month") <= until), *lent.get(int(cars.type_no[i]), [])])
        curve = learn(seen.with_columns(pack_type=pl.lit(cars.pack.name)), outside.chemistry, cars.pack.name, outside)
        used = curve or outside
        rows.append(estimated(cars, device, rests, sessions.get(device), used, asked, periods[device]))
        if curve is not None:
            quality.append(
                pl.DataFrame([{"pack_type": cars.pack.name, **_curve_error(cars, i, curve), **curve.quality}])
            )
    truth = history.truth.join(
        pl.DataFrame(
            {"device_no": cars.device_no, "fade": cars.fade, "pack_type": [cars.pack.name] * len(cars.device_no)}
        ),
        on="device_no",
    )
    truth = truth.rename({"soh_pct": "true_pct"}).with_columns(true_slope=_true_slope(truth))
    return _Result(
        pl.concat(rows).join(truth, on=["device_no", "measured_month"]),
        pl.concat(quality) if quality else pl.DataFrame(),
    )


def _true_slope(truth: pl.DataFrame) -> pl.Series:
    """Points a year that the truth fell over the window of the trend, up to each month (as far as the history goes)."""
    window = RULES.trend_months - 1
    return truth.with_row_index().sort("device_no", "measured_month").with_columns(
        nth=pl.int_range(pl.len()).over("device_no")
    ).with_columns(
        slope=(
            pl.col("soh_pct") - pl.coalesce(pl.col("soh_pct").shift(window).over("device_no"),
            pl.col("soh_pct").first().over("device_no"))
        )
        / pl.min_horizontal(pl.col("nth"), pl.lit(window)).clip(1)
        * 12
    ).sort("index")["slope"]  # fmt: skip


def estimated(
    cars: LongCars,
    device: str,
    rests: pl.DataFrame,
    sessions: pl.DataFrame | None,
    curve: Curve | None,
    months: list[str],
    periods: pl.DataFrame,
) -> pl.DataFrame:
    """Rows of ``fct_soh_monthly`` of one simulated car, from its rests and sessions as the platform makes them."""
    found = [] if sessions is None else [charge_estimates(sessions)]
    if curve is not None:
        found.append(rest_pair_estimates(rests, curve))
    pack = Pack(_chemistry(cars.pack), cars.pack.name, cars.pack.cell_count, cars.nominal_ah, "simulated")
    return soh_months(device, months, pack, rests, pl.concat(found), curve, counted=throughput(periods))


def _curve_error(cars: LongCars, index: int, curve: Curve) -> dict[str, float]:
    """Largest and root mean square error of the learnt table against the maker's, 15 to 95 %, points."""
    grid = np.linspace(0, 100, cars.maker_v.shape[1])
    off = np.interp(curve.ocv_v, cars.maker_v[index], grid) - np.arange(101.0)
    return {"off_rms_pct": float(np.sqrt(np.mean(off[15:96] ** 2))), "off_max_pct": float(np.abs(off[15:96]).max())}


def _coverage(rows: pl.DataFrame, column: str) -> tuple[int, int, float, float]:
    """Cars, rows, median error (points) and share of intervals that hold the truth."""
    name = f"soh_{column}" if column else "soh"
    known = rows.filter(pl.col(f"{name}_pct").is_not_null())
    if known.is_empty():
        return 0, 0, float("nan"), float("nan")
    inside = known["true_pct"].is_between(known[f"{name}_lo_pct"], known[f"{name}_hi_pct"])
    error = (known[f"{name}_pct"] - known["true_pct"]).abs()
    return known["device_no"].n_unique(), known.height, _median(error), float(inside.to_numpy().mean())


def _median(values: pl.Series) -> float:
    return float(np.median(values.to_numpy())) if len(values) else float("nan")


def _accuracy(table: pl.DataFrame, cars: int, months: int, packs: Sequence[str]) -> Section:
    section = Section(
        f"Battery: state of health of {cars} cars per pack type",
        f"Each car over {months} months, of a type of its own: the errors that a type shares are drawn anew for each. "
        f"Rows of every {EVERY}th month against 100 x true capacity / the car's own new capacity; the platform takes "
        "the nominal one.",
    )
    for name, label in (("ocv", "`soh_ocv_pct`"), ("", "fused `soh_pct`"), ("charge", "`soh_charge_pct` (echo)")):
        for pack in packs:
            part = table.filter(pl.col("pack_type") == pack)
            n_cars, n, error, inside = _coverage(part, name)
            if not n:
                flat = pack.startswith("lfp") and name == "ocv"
                section.figures.append(
                    Figure(f"{label}, {pack}", "not identifiable" if flat else "", "no value", flat or None)
                )
                continue
            section.figures.append(
                Figure(
                    f"{label}, {pack}: 90 % intervals hold the truth",
                    "0.85-0.95",
                    f"{inside:.3f} ({n_cars} cars, {n} rows)",
                    0.85 <= inside <= 0.95,
                )
            )
            goal = None if name == "charge" or pack.startswith("lfp") else 2.0
            section.figures.append(
                Figure(
                    f"{label}, {pack}: median error",
                    f"<= {goal} points" if goal else "",
                    f"{error:.2f} points",
                    error <= goal if goal else None,
                )
            )
    return section


def _slopes(table: pl.DataFrame, packs: Sequence[str]) -> Section:
    section = Section(
        "Battery: slopes at 12 months",
        "`slope_data`: this car's data of 12 months alone. The fast cars lose 6 points a year, the normal ones "
        "2 +- 0.6, knee cars 1.5 until some month after the tenth.",
    )
    month = month_names(12)[-1]
    known = table.filter(pl.col("slope_data_pct_per_year").is_not_null())
    with_ocv = known.filter(~pl.col("pack_type").str.starts_with("lfp"))
    at = with_ocv.filter(pl.col("measured_month") == month)
    detail: list[dict[str, object]] = []
    shares: dict[str, float] = {}
    for fade in FADES:
        part = at.filter(pl.col("fade") == fade)
        lo, hi = part["slope_data_lo_pct_per_year"], part["slope_data_hi_pct_per_year"]
        if part.is_empty():
            continue
        held = float(part["true_slope"].is_between(lo, hi).to_numpy().mean())
        shares[fade] = float((hi < RULES.slope_prior_pct_per_year).to_numpy().mean())
        detail.append(
            {
                "path": fade,
                "cars": part.height,
                "median slope_data": _median(part["slope_data_pct_per_year"]),
                "median slope (shrunk)": _median(part["slope_pct_per_year"]),
                "half interval": _median((hi - lo) / 2),
                "holds the truth": held,
                "identified": float((part["slope_verdict"] == "identified").to_numpy().mean()),
                "whole interval below the prior": shares[fade],
            }
        )
    if "fast" in shares:
        section.figures.append(
            Figure(
                "fast cars whose whole `slope_data` interval is below the prior",
                ">= 0.9",
                f"{shares['fast']:.3f}",
                shares["fast"] >= 0.9,
            )
        )
    slower = at.filter(pl.col("true_slope") >= RULES.slope_prior_pct_per_year)
    if slower.height:
        wrong = float((slower["slope_data_hi_pct_per_year"] < RULES.slope_prior_pct_per_year).to_numpy().mean())
        section.figures.append(
            Figure(
                "the same, of cars that in truth fade no faster than the prior", "<= 0.1", f"{wrong:.3f}", wrong <= 0.1
            )
        )
    for pack in packs:
        part = known.filter(pl.col("pack_type") == pack).filter(pl.col("measured_month") >= month)
        if part.is_empty():
            continue
        inside = part["true_slope"].is_between(part["slope_data_lo_pct_per_year"], part["slope_data_hi_pct_per_year"])
        share = float(inside.to_numpy().mean())
        section.figures.append(
            Figure(f"`slope_data` intervals hold the truth, {pack}", "0.85-0.95", f"{share:.3f}", 0.85 <= share <= 0.95)
        )
    section.detail("By path of capacity (types with an independent SoH)", pl.DataFrame(detail))
    return section


def _curves(quality: pl.DataFrame) -> Section:
    section = Section(
        "Battery: curves learnt from a car and two others", "Error of the table against the maker's, 15 to 95 %."
    )
    if quality.height:
        by_type = quality.group_by("pack_type").agg(
            pl.len().alias("types"),
            pl.col("rests").mean().round(0),
            pl.col("off_rms_pct").median().alias("rms error, points"),
            pl.col("off_max_pct").median().alias("largest error, points"),
            pl.col("spread_mv").median().alias("spread learnt, mV"),
            pl.col("anchor_share").median().alias("anchor share"),
        )
        section.detail("Median over the types", by_type.sort("pack_type"))
    return section


def _special(seed: int, n: int, reference: pl.DataFrame) -> Section:
    """A BMS that is 8 % wrong; no learnt curve; a plateau."""
    section = Section(
        "Battery: a wrong BMS, no fleet, a plateau",
        f"{n} cars of one type each, over a year; a quarter of the BMSs count with 8 % too much capacity.",
    )
    rng = np.random.default_rng([seed, 99])
    pack = PACKS["egmp_180"]
    cars = draw_long_cars(rng, pack, 1, n, prefix="0139")
    wrong = replace(cars, bms_error=np.where(np.arange(n) < n // 4, 0.08, cars.bms_error))
    rows = _one_type(wrong, rng, reference)
    rows = rows.filter(pl.col("device_no").is_in(cars.device_no[: n // 4]) & pl.col("soh_ocv_pct").is_not_null())
    charge, ocv = (_median(rows[f"soh_{name}_pct"] - rows["true_pct"]) for name in ("charge", "ocv"))
    section.figures += [
        Figure(
            "BMS 8 % wrong: median error of `soh_charge_pct`", "+6 to +9 points", f"{charge:+.1f}", 6 <= charge <= 9
        ),
        Figure("BMS 8 % wrong: median error of `soh_ocv_pct`", "within 2 points", f"{ocv:+.1f}", abs(ocv) <= 2),
    ]
    outside = outside_curve(reference, "NMC")
    spread = outside.covariance
    alone = 2 * np.sqrt(spread[30, 30] + spread[80, 80] - 2 * spread[30, 80])
    rows = _one_type(cars, rng, reference, with_release=False)
    n_alone = rows["soh_ocv_pct"].is_not_null().sum()
    section.figures += [
        Figure(
            "outside curve alone: error of a 30 -> 80 % pair (1 sigma)",
            "about 10 %, or more",
            f"{alone:.0f} %",
            alone >= 9,
        ),
        Figure("outside curve alone: months with `soh_ocv_pct`", "none that is narrower", f"{n_alone}", n_alone == 0),
    ]
    flat = draw_long_cars(rng, PACKS["lfp_108"], 1, n, prefix="0138")
    rows = _one_type(flat, rng, reference)
    reasons = rows.filter(pl.col("soh_ocv_pct").is_null())["soh_ocv_reason"].value_counts(sort=True)
    n_flat = rows["soh_ocv_pct"].is_not_null().sum()
    said = "; ".join(f"{row['soh_ocv_reason']}: {row['count']}" for row in reasons.to_dicts())
    section.figures.append(Figure("LFP plateau: months with `soh_ocv_pct`", "none", f"{n_flat} ({said})", n_flat == 0))
    return section


def _one_type(
    cars: LongCars, rng: np.random.Generator, reference: pl.DataFrame, with_release: bool = True
) -> pl.DataFrame:
    """A year of cars of one type, one curve for all of them; their last months beside the truth."""
    history = live(cars, 12, rng, FIRST, bms_wanders=False)
    periods = {str(key[0]): part for key, part in history.periods.group_by("device_no")}
    sessions = {str(key[0]): part for key, part in history.sessions.group_by("device_no")}
    rests = {device: rest_readings(periods[device], cars.pack.cell_count) for device in cars.device_no}
    outside = outside_curve(reference, _chemistry(cars.pack))
    curve = outside
    if with_release:
        seen = pl.concat(rests.values()).with_columns(pack_type=pl.lit(cars.pack.name))
        curve = learn(seen, outside.chemistry, cars.pack.name, outside) or outside
    months = month_names(12)[2::3]
    rows = [estimated(cars, d, rests[d], sessions.get(d), curve, months, periods[d]) for d in cars.device_no]
    truth = history.truth.rename({"soh_pct": "true_pct"})
    return pl.concat(rows).join(truth, on=["device_no", "measured_month"])
