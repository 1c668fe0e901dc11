"""The fault bench of what takes months to show: counters that drift or begin anew, a capacity that fades.

Belongs here: cars simulated as awake periods and sessions, judged by the published models, estimators and detectors,
and what their episodes say. Does not belong here: faults of rows (``faultbench``), the audit and the slopes themselves.

The faults begin in the middle of a month, after months without; a car is found where an episode of the code opens
after that, or rises above what the months before had made of it. What is healthy stands beside: the same cars' months
before, and cars without a fault.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from acceptance.battery_statistics import estimated, month_names
from acceptance.counters import Fault, audit
from baas_dagster.anomaly.detector import WINDOW_SCHEMA, Context
from baas_dagster.anomaly.episodes import episodes
from baas_dagster.anomaly.health import DETECTOR
from baas_dagster.anomaly.rows import Car
from baas_dagster.anomaly.rules import RULES
from baas_dagster.battery.ocv import learn, outside_curve
from baas_dagster.battery.rests import rest_readings
from baas_dagster.faultbench.reference import BENCH_STRENGTHS, REFERENCE
from baas_dagster.settings import DBT_PROJECT
from baas_dagster.simulator.longterm import draw_long_cars, live
from baas_dagster.simulator.packs import PACKS

__all__ = ["SlowBench", "counter_cases", "fade_cases", "slow_bench"]

_CODES = ("COUNTER_DRIFT", "COUNTER_RESET", "SOH_FADE")
_NO_WINDOWS = pl.DataFrame(schema={**WINDOW_SCHEMA, "device_no": pl.String, "measured_month": pl.String})


@dataclass(frozen=True)
class SlowBench:
    """Cases one by one, episodes of what is healthy, and how many healthy car-months there were."""

    cases: pl.DataFrame  # code, variant, strength, device_no, is_found, delay_days, severity
    false: pl.DataFrame  # device_no, code, severity, opened_at
    car_months: int

    @property
    def summary(self) -> pl.DataFrame:
        """One row per code, variant and strength, as that of the bench of rows."""
        return (
            self.cases.group_by("code", "variant", "strength")
            .agg(
                n=pl.len(),
                found_share=pl.col("is_found").mean(),
                right_share=pl.lit(None, pl.Float64),
                delay_days=pl.col("delay_days").median(),
            )
            .sort("code", "variant", "strength")
        )


def slow_bench(seed: int, count: int = 22, healthy: int = 60) -> SlowBench:
    """Counters and fade, ``count`` cars of each code, variant and strength, and ``healthy`` ones of either kind."""
    parts = [counter_cases(seed, count, healthy), fade_cases(seed, count, healthy)]
    return SlowBench(
        pl.concat([p.cases for p in parts]), pl.concat([p.false for p in parts]), sum(p.car_months for p in parts)
    )


def _found(device: str, mart: str, rows: pl.DataFrame) -> pl.DataFrame:
    """Episodes of one car from one mart alone."""
    context = Context(Car(device), RULES, tuple(rows["measured_month"].to_list()), {mart: rows})
    made = episodes(device, DETECTOR.readings(_NO_WINDOWS, context))
    return made.filter(pl.col("code").is_in(_CODES)).select(
        pl.lit(device).alias("device_no"), "code", "severity", "opened_at"
    )


def _judged(
    code: str, variant: str, strength: float | None, onset: datetime, mart: str, rows: pl.DataFrame
) -> tuple[dict[str, Any], pl.DataFrame]:
    """The case of one car, and the false episodes of its months before the onset."""
    device = str(rows["device_no"][0])
    before = _found(device, mart, rows.filter(pl.col("measured_month") < f"{onset:%Y-%m}"))
    known = dict(before.filter(pl.col("code") == code).select("opened_at", "severity").iter_rows())
    mine = _found(device, mart, rows).filter(pl.col("code") == code).sort("opened_at")
    new = mine.filter(pl.col("opened_at") >= onset)
    rose = any(known.get(at, severity) < severity for at, severity in mine.select("opened_at", "severity").iter_rows())
    return {
        "code": code, "variant": variant, "strength": strength, "device_no": device,
        "is_found": new.height > 0 or rose, "delay_days": (new["opened_at"][0] - onset).days if new.height else None,
        "severity": mine["severity"].max(),
    }, before  # fmt: skip


_CASES: dict[str, Any] = {
    "code": pl.String, "variant": pl.String, "strength": pl.Float64, "device_no": pl.String, "is_found": pl.Boolean,
    "delay_days": pl.Int32, "severity": pl.Int32,
}  # fmt: skip
_FALSE: dict[str, Any] = {
    "device_no": pl.String, "code": pl.String, "severity": pl.Int32, "opened_at": pl.Datetime("us"),
}  # fmt: skip


# --- counters ---------------------------------------------------------------------------------------------------------
_BEFORE, _MONTHS, _MIDDLE = 5, 10, 14


def counter_cases(seed: int, count: int, healthy: int) -> SlowBench:
    """COUNTER_DRIFT of either kind and COUNTER_RESET, judged by the audit and the detector."""
    kinds: list[tuple[str, str, float | None, Fault]] = [
        ("COUNTER_RESET", "", None, Fault("reset", from_month=_BEFORE, from_day=_MIDDLE, is_reset=True))
    ]
    for strength in BENCH_STRENGTHS:
        asymmetry, offset = (REFERENCE["COUNTER_DRIFT", v].at(strength) for v in ("asymmetry", "offset"))
        begins = Fault("drift", from_month=_BEFORE, from_day=_MIDDLE)
        kinds.append(("COUNTER_DRIFT", "asymmetry", strength, replace(begins, asymmetry=asymmetry / 100)))
        kinds.append(("COUNTER_DRIFT", "offset", strength, replace(begins, offset_a=offset)))
    cars: dict[str, tuple[int, Fault]] = {}
    case_of: dict[str, tuple[str, str, float | None, Fault] | None] = {}
    for kind in [*kinds, None]:
        for _ in range(count if kind else healthy):
            device = f"0131{len(cars):07d}"
            cars[device] = (len(cars), kind[3] if kind else Fault("healthy"))
            case_of[device] = kind
    with tempfile.TemporaryDirectory(prefix="slow-faults-") as folder:
        audited = audit(cars, _MONTHS, seed, Path(folder))
    rows, false, car_months = [], [], 0
    mart = "fct_counter_audit_monthly"
    for (device,), months in audited.group_by("device_no", maintain_order=True):
        kind = case_of[str(device)]
        if kind is None:
            false.append(_found(str(device), mart, months))
            car_months += months.height
        else:
            case, before = _judged(*kind[:3], kind[3].onset_at, mart, months)
            rows.append(case)
            false.append(before)
            car_months += _BEFORE
    return SlowBench(pl.DataFrame(rows, schema=_CASES), pl.DataFrame(pl.concat(false), schema=_FALSE), car_months)


# --- capacity ---------------------------------------------------------------------------------------------------------
_YEARS_BEFORE, _FADE_MONTHS = 1.0, 30


def fade_cases(seed: int, count: int, healthy: int) -> SlowBench:
    """SOH_FADE: cars of one type that fade as it does for a year, and so much faster from then on."""
    rng = np.random.default_rng([seed, 131])
    strengths = [s for s in BENCH_STRENGTHS for _ in range(count)]
    cars = draw_long_cars(rng, PACKS["egmp_180"], 1, len(strengths) + healthy, prefix="0132")
    faster = [REFERENCE["SOH_FADE", ""].at(s) for s in strengths] + [0.0] * healthy
    cars = replace(
        cars, knee_year=np.full(len(faster), _YEARS_BEFORE), knee_pct_per_year=np.asarray(faster, dtype=np.float64)
    )
    history = live(cars, _FADE_MONTHS, rng, month_names(1)[0])
    periods = {str(key[0]): part for key, part in history.periods.group_by("device_no")}
    sessions = {str(key[0]): part for key, part in history.sessions.group_by("device_no")}
    rests = {device: rest_readings(periods[device], cars.pack.cell_count) for device in cars.device_no}
    months = month_names(_FADE_MONTHS)
    # what the fleet's release knew before anything began
    outside = outside_curve(pl.read_csv(DBT_PROJECT / "seeds" / "ocv_reference.csv"), "NMC")
    seen = pl.concat([r.filter(pl.col("measured_month") <= months[11]) for r in list(rests.values())[:20]])
    curve = learn(seen.with_columns(pack_type=pl.lit(cars.pack.name)), "NMC", cars.pack.name, outside) or outside
    begin = datetime.fromisoformat(f"{months[0]}-01")
    onset = begin + timedelta(days=round(365.25 * _YEARS_BEFORE))
    rows, false, car_months = [], [], 0
    for i, device in enumerate(cars.device_no):
        soh = estimated(cars, device, rests[device], sessions.get(device), curve, months, periods[device])
        if i < len(strengths):
            case, before = _judged("SOH_FADE", "", strengths[i], onset, "fct_soh_monthly", soh)
            rows.append(case)
            false.append(before)
            car_months += 12
        else:
            # a car that in truth fades faster than its type is no false alarm
            is_fast = cars.fade_pct_per_year[i] > -RULES.health.slope_p90_pct_per_year
            false.append(_found(device, "fct_soh_monthly", soh).filter(pl.lit(not is_fast)))
            car_months += _FADE_MONTHS
    return SlowBench(pl.DataFrame(rows, schema=_CASES), pl.DataFrame(pl.concat(false), schema=_FALSE), car_months)
