"""How well detectors find injected faults: share found, cell or module right, delay, and false episodes.

Belongs here: who gets which fault, and counting. Does not belong here: what a fault looks like (``inject``), where rows
come from, which detectors and settings there are: all of these are given.

Windows of the untouched rows are made once; for a fault only the months from its onset on are made anew, and only by
the detectors that know its code. A car of which a detector says that it cannot judge a code gets no fault of that code.
An injected fault that changes no row of a car (no charge after the onset) is no case.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import groupby
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from baas_dagster.anomaly.detector import READING_SCHEMA, WINDOW_SCHEMA, Context, Detector
from baas_dagster.anomaly.rows import NO_VALUE, Rows
from baas_dagster.faultbench.inject import ROW_CODES, Injection, inject, settled
from baas_dagster.faultbench.reference import BENCH_STRENGTHS, PRESENT_OR_ABSENT

__all__ = ["CASE_SCHEMA", "BenchResult", "Partition", "Plan", "run_bench"]

_DAY_S = 86_400
_SILENT = "DEVICE_SILENT"
_BURNING = ("hot", "cell", "insulation")


@dataclass(frozen=True)
class Partition:
    """Rows of one month of a car. ``context`` is that of the car, the same in all its months."""

    context: Context
    month: str
    rows: Rows


Partitions = Callable[[], Iterable[Partition]]
"""Gives the partitions from the beginning each time it is called: all months of a car together, in order of time."""

Episodes = Callable[[str, pl.DataFrame], pl.DataFrame]
"""(device_no, READING_SCHEMA) -> episodes with code, severity, opened_at, cell_no, module_no and, if there is one,
score (of two episodes of one severity the one with the higher score is the worse)."""

Silent = Callable[[pl.DataFrame, list[str], datetime], pl.DataFrame]
"""(device_no and last_seen_at, devices with open episodes, last row of the fleet) -> episodes of DEVICE_SILENT."""


@dataclass(frozen=True)
class Plan:
    """What is injected. ``count`` cases of each code and strength are drawn; a few may change no row: draw some more
    than are needed. The onset falls between two shares of a car's days with data."""

    codes: tuple[str, ...] = ROW_CODES
    strengths: tuple[float, ...] = BENCH_STRENGTHS
    count: int = 24
    seed: int = 1
    onset_share: tuple[float, float] = (0.3, 0.55)
    min_days: int = 20  # days with data a car needs

    def __post_init__(self) -> None:
        """Refuse what cannot be injected."""
        if unknown := set(self.codes) - set(ROW_CODES):
            raise ValueError(f"no faults of staged rows: {sorted(unknown)}")

    @property
    def kinds(self) -> list[tuple[str, str, float | None]]:
        """(code, variant, strength) of every group of cases."""
        found: list[tuple[str, str, float | None]] = []
        for code in self.codes:
            variants = _BURNING if code == "FAULT_OR_SENSOR" else ("",)
            strengths: Sequence[float | None] = (None,) if code in PRESENT_OR_ABSENT else self.strengths
            found += [(code, variant, strength) for variant in variants for strength in strengths]
        return found


CASE_SCHEMA: dict[str, Any] = {
    "code": pl.String,
    "variant": pl.String,
    "strength": pl.Float64,  # NULL: present or absent
    "device_no": pl.String,
    "cell_no": pl.Int32,
    "module_no": pl.Int32,
    "onset_at": pl.Datetime("us"),
    "shown_at": pl.Datetime("us"),  # first row that the fault changes
    "is_found": pl.Boolean,  # an episode of the code that the untouched rows do not have
    "is_item_right": pl.Boolean,  # its worst such episode names the cell or module; NULL: not found, or about the car
    "severity": pl.Int32,  # highest of such episodes
    "opened_at": pl.Datetime("us"),  # first of such episodes
    "delay_days": pl.Int32,  # days with data from the onset to it; FAULT_OR_SENSOR, an event: from where it first shows
    "other_codes": pl.String,  # codes of other new episodes, with a comma
}


@dataclass(frozen=True)
class BenchResult:
    """Cases one by one, and the episodes of the untouched rows."""

    cases: pl.DataFrame  # CASE_SCHEMA
    untouched: pl.DataFrame  # device_no, code, severity, opened_at, cell_no, module_no, score
    car_months: int
    unjudged: pl.DataFrame  # code, reason, n: cars that got no fault of that code

    @property
    def summary(self) -> pl.DataFrame:
        """One row per code, variant and strength: n, found_share, right_share (of found), delay_days (median), severe
        (share of all that reach severity 2)."""
        return (
            self.cases.group_by("code", "variant", "strength", maintain_order=True)
            .agg(
                n=pl.len(),
                found_share=pl.col("is_found").mean(),
                right_share=pl.col("is_item_right").mean(),
                delay_days=pl.col("delay_days").median(),
                severe_share=(pl.col("severity").fill_null(0) >= 2).mean(),
            )
            .sort("code", "variant", "strength")
        )

    def false_per_100(self, severity: int) -> float:
        """Episodes of at least that severity on the untouched rows, per 100 car-months."""
        n = self.untouched.filter(pl.col("severity") >= severity).height
        return 100 * n / self.car_months if self.car_months else 0.0


@dataclass
class _Car:
    """What the first pass keeps of a car: its windows, what it can show, when it has data."""

    context: Context
    windows: dict[str, dict[str, pl.DataFrame]] = field(default_factory=dict)  # detector -> month -> windows
    days: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    cells: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))  # numbers with values
    modules: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    channels: set[str] = field(default_factory=set)
    last_s: float = -np.inf
    unjudged: dict[str, str] = field(default_factory=dict)
    untouched: dict[str, pl.DataFrame] = field(default_factory=dict)  # episodes by the names of detectors

    @property
    def device_no(self) -> str:
        return self.context.car.device_no

    def see(self, rows: Rows) -> None:
        self.days = np.union1d(self.days, rows.day)
        self.cells = np.union1d(self.cells, _present(rows.cell_mv))
        self.modules = np.union1d(self.modules, _present(rows.module_temp_dc))
        self.channels |= {name for name, values in rows.columns.items() if np.isfinite(values).any()}
        self.last_s = max(self.last_s, float(rows.t_s[-1])) if len(rows) else self.last_s


def _present(values: NDArray[np.int16] | None) -> NDArray[np.int64]:
    return np.zeros(0, dtype=np.int64) if values is None else np.flatnonzero((values != NO_VALUE).any(axis=0)) + 1


_CHANNELS = {
    "CELL_SPREAD": ("pack_current_a",),
    "CELL_OVERVOLT": ("pack_current_a",),
    "CELL_UNDERVOLT": ("pack_current_a",),
    "INSULATION_LOW": ("insulation_kohm", "pack_voltage_v"),
    "SOC_JUMP": ("soc_pct",),
    "SOC_LOW": ("soc_pct",),
    "SENSOR_FROZEN": ("pack_voltage_v", "pack_current_a", "speed_kmh"),
}


def _why_not(car: _Car, code: str, variant: str, min_days: int) -> str | None:
    """Why a car gets no fault of that code; None: it may."""
    if code in car.unjudged:
        return car.unjudged[code]
    if len(car.days) < min_days:
        return f"fewer than {min_days} days with data"
    if (code.startswith("CELL_") or variant == "cell") and not len(car.cells):
        return "no cell voltages"
    if (code.startswith("TEMP_") or variant == "hot") and not len(car.modules):
        return "no module temperatures"
    if code == "CELL_SELF_DISCHARGE" and (car.context.ocv_slope is None or not car.context.car.capacity_nominal_ah):
        return "capacity or curve not known"
    wanted = ("insulation_kohm",) if variant == "insulation" else _CHANNELS.get(code, ())
    missing = [name for name in wanted if name not in car.channels]
    return f"no {', '.join(missing)}" if missing else None


def run_bench(
    partitions: Partitions,
    detectors: Sequence[Detector],
    episodes: Episodes,
    plan: Plan,
    silent: Silent | None = None,
    on_progress: Callable[[str, int, int], None] | None = None,
) -> BenchResult:
    """Inject the faults of ``plan`` into the rows of healthy cars and count what the detectors make of them.

    ``partitions`` is gone through twice; memory holds the rows of one car, and the windows of all. ``on_progress`` is
    called with (what, done, in all). ValueError where a code belongs to no detector, DEVICE_SILENT is planned without
    ``silent``, or the months of a car do not come together.
    """
    for code in plan.codes:
        if code != _SILENT and not any(code in d.codes and d.windows is not None for d in detectors):
            raise ValueError(f"no detector of rows knows {code}")
        if code == _SILENT and silent is None:
            raise ValueError(f"{_SILENT} needs a function that judges the fleet")
    cars: dict[str, _Car] = {}
    untouched: list[pl.DataFrame] = []
    car_months = 0
    for months in _cars(partitions()):
        car = _watch(months, detectors)
        cars[car.device_no] = car
        car_months += len(months)
        untouched.append(_episodes_of(car, detectors, {}, episodes))
        if on_progress is not None:
            on_progress("untouched rows", len(cars), 0)
    drawn, unjudged = _draw(plan, cars)
    total, done = sum(len(mine) for mine in drawn.values()), 0
    fleet_end_s = max((car.last_s for car in cars.values()), default=0.0)
    found: list[tuple[int, dict[str, Any]]] = []
    for months in _cars(partitions()):
        car = cars[months[0].context.car.device_no]
        for number, fault in drawn.get(car.device_no, []):
            case = (
                _judge_silence(car, fault, silent, fleet_end_s)
                if fault.code == _SILENT and silent is not None
                else _judge(car, months, fault, detectors, episodes)
            )
            found += [(number, case)] if case is not None else []
            done += 1
            if on_progress is not None:
                on_progress("faults", done, total)
    cases = [case for _, case in sorted(found, key=lambda pair: pair[0])]
    return BenchResult(
        cases=pl.DataFrame(cases, schema=CASE_SCHEMA),
        untouched=pl.concat(untouched) if untouched else pl.DataFrame(schema=_EPISODES),
        car_months=car_months,
        unjudged=unjudged,
    )


_EPISODES: dict[str, Any] = {
    "device_no": pl.String, "code": pl.String, "severity": pl.Int32, "opened_at": pl.Datetime("us"),
    "cell_no": pl.Int32, "module_no": pl.Int32, "score": pl.Float64,
}  # fmt: skip


def _cars(partitions: Iterable[Partition]) -> Iterator[list[Partition]]:
    """Months of one car after the other."""
    seen: set[str] = set()
    for device, months in groupby(partitions, key=lambda p: p.context.car.device_no):
        if device in seen:
            raise ValueError(f"the months of {device} do not come together")
        seen.add(device)
        yield list(months)


def _watch(months: list[Partition], detectors: Sequence[Detector]) -> _Car:
    """Windows and abilities of an untouched car."""
    car = _Car(months[0].context)
    for part in months:
        car.see(part.rows)
        for detector in detectors:
            if detector.windows is not None:
                made = detector.windows(part.rows, car.context.car, car.context.rules)
                car.windows.setdefault(detector.name, {})[part.month] = made
    for detector in detectors:
        car.unjudged.update(detector.unjudged(_joined(car, detector, {}), car.context))
    return car


def _joined(car: _Car, detector: Detector, anew: dict[str, dict[str, pl.DataFrame]]) -> pl.DataFrame:
    """Windows of all months of a detector in time, those of ``anew`` (detector -> month) instead of the untouched."""
    months = {**car.windows.get(detector.name, {}), **anew.get(detector.name, {})}
    frames = [pl.DataFrame(schema=WINDOW_SCHEMA), *(months[month] for month in sorted(months))]
    return pl.concat(frames).sort("from_at", "to_at", "detector", "kind", maintain_order=True)


def _episodes_of(
    car: _Car, detectors: Sequence[Detector], anew: dict[str, dict[str, pl.DataFrame]], episodes: Episodes
) -> pl.DataFrame:
    readings = [d.readings(_joined(car, d, anew), car.context) for d in detectors]
    found = episodes(car.device_no, pl.concat([pl.DataFrame(schema=READING_SCHEMA), *readings]))
    return _named(found, car)


def _named(found: pl.DataFrame, car: _Car) -> pl.DataFrame:
    """The columns of episodes that count here; one without scores has none."""
    score = [] if "score" in found.columns else [pl.lit(None, pl.Float64).alias("score")]
    return found.with_columns(pl.lit(car.device_no).alias("device_no"), *score).select(
        pl.col(name).cast(kind) for name, kind in _EPISODES.items()
    )


# --- drawing ----------------------------------------------------------------------------------------------------------
def _draw(plan: Plan, cars: dict[str, _Car]) -> tuple[dict[str, list[tuple[int, Injection]]], pl.DataFrame]:
    """Faults by car, numbered; and how many cars got none of a code, by reason."""
    drawn: dict[str, list[tuple[int, Injection]]] = {}
    refused: dict[tuple[str, str], int] = {}
    number = 0
    for code, variant, strength in plan.kinds:
        reasons = {device: _why_not(car, code, variant, plan.min_days) for device, car in sorted(cars.items())}
        able = [device for device, reason in reasons.items() if reason is None]
        for reason in reasons.values():
            if reason is not None and strength in (None, plan.strengths[0]):
                refused[code, reason] = refused.get((code, reason), 0) + 1
        key = zlib.crc32(f"{code} {variant} {strength}".encode())
        rng = np.random.default_rng([plan.seed, key])
        order: list[str] = []
        while able and len(order) < plan.count:  # every car once before one comes again
            order += [able[i] for i in rng.permutation(len(able))]
        for device in order[: plan.count]:
            fault = _fault(cars[device], code, variant, strength, plan, rng)
            drawn.setdefault(device, []).append((number, fault))
            number += 1
    rows = [{"code": code, "reason": reason, "n": n} for (code, reason), n in sorted(refused.items())]
    return drawn, pl.DataFrame(rows, schema={"code": pl.String, "reason": pl.String, "n": pl.Int64})


def _fault(
    car: _Car, code: str, variant: str, strength: float | None, plan: Plan, rng: np.random.Generator
) -> Injection:
    low, high = (int(share * len(car.days)) for share in plan.onset_share)
    day = int(car.days[int(rng.integers(low, max(high, low + 1)))])
    return Injection(
        code=code,
        onset_s=float(day * _DAY_S + rng.integers(0, _DAY_S)),
        strength=strength,
        variant=variant,
        cell_no=int(rng.choice(car.cells)) if code.startswith("CELL_") or variant == "cell" else None,
        module_no=int(rng.choice(car.modules)) if code.startswith("TEMP_") or variant == "hot" else None,
        slope=car.context.ocv_slope if code == "CELL_SELF_DISCHARGE" else None,
        seed=int(rng.integers(2**31)),
    )


# --- judging ----------------------------------------------------------------------------------------------------------
def _judge(
    car: _Car, months: list[Partition], fault: Injection, detectors: Sequence[Detector], episodes: Episodes
) -> dict[str, Any] | None:
    """A case, or None where the fault changes no row."""
    mine = [d for d in detectors if fault.code in d.codes and d.windows is not None]
    anew: dict[str, dict[str, pl.DataFrame]] = {d.name: {} for d in mine}
    is_begun, shown_s = False, None
    for part in months:
        if not len(part.rows) or part.rows.t_s[-1] < fault.onset_s:
            continue
        if not is_begun:
            fault, is_begun = settled(fault, part.rows), True
        rows = inject(part.rows, car.context.car, fault)
        row = _first_change(rows, part.rows)
        if row is None:
            continue
        shown_s = float(part.rows.t_s[row]) if shown_s is None else shown_s
        for detector in mine:
            assert detector.windows is not None
            anew[detector.name][part.month] = detector.windows(rows, car.context.car, car.context.rules)
    if shown_s is None:
        return None
    keys = ["code", "cell_no", "module_no", "opened_at"]
    named = " ".join(d.name for d in mine)
    if named not in car.untouched:
        car.untouched[named] = _episodes_of(car, mine, {}, episodes)
    before = car.untouched[named]
    after = _episodes_of(car, mine, anew, episodes)
    new = after.join(before, on=keys, how="anti", nulls_equal=True)
    return _case(car, fault, new, shown_s)


def _first_change(a: Rows, b: Rows) -> int | None:
    """First row in which two versions of the same rows differ; None: nowhere."""
    firsts = []
    for x, y in ((a.cell_mv, b.cell_mv), (a.module_temp_dc, b.module_temp_dc)):
        if x is not y and x is not None and y is not None:
            firsts += np.flatnonzero((x != y).any(axis=1))[:1].tolist()
    for name, values in b.columns.items():
        if a.columns[name] is not values:
            other = a.columns[name]
            firsts += np.flatnonzero((other != values) & ~(np.isnan(other) & np.isnan(values)))[:1].tolist()
    return min(firsts, default=None)


def _judge_silence(car: _Car, fault: Injection, silent: Silent, fleet_end_s: float) -> dict[str, Any]:
    last = datetime(1970, 1, 1) + timedelta(seconds=fault.onset_s)
    as_of = datetime(1970, 1, 1) + timedelta(seconds=fleet_end_s)
    seen = pl.DataFrame({"device_no": [car.device_no], "last_seen_at": [last]})
    return _case(car, fault, _named(silent(seen, [], as_of), car), fault.onset_s)


def _case(car: _Car, fault: Injection, new: pl.DataFrame, shown_s: float) -> dict[str, Any]:
    """What new episodes say of an injected fault that first shows at ``shown_s``."""
    onset = datetime(1970, 1, 1) + timedelta(seconds=fault.onset_s)
    new = new.filter(pl.col("opened_at") >= onset)
    own = new.filter(pl.col("code") == fault.code).sort(
        [-pl.col("severity"), -pl.col("score"), pl.col("opened_at"), pl.col("cell_no"), pl.col("module_no")]
    )
    item = fault.cell_no if fault.cell_no is not None else fault.module_no
    named = "cell_no" if fault.cell_no is not None else "module_no"
    is_about_item = item is not None and fault.code.startswith(("CELL_", "TEMP_"))
    opened = own["opened_at"].min()
    days = None
    if isinstance(opened, datetime):
        from_s = shown_s if fault.code == "FAULT_OR_SENSOR" else fault.onset_s
        first, last = from_s // _DAY_S, (opened - datetime(1970, 1, 1)).total_seconds() // _DAY_S
        is_between = (car.days > first) & (car.days <= last)
        days = int(last - first) if fault.code == _SILENT else int(is_between.sum())
    return {
        "code": fault.code,
        "variant": fault.variant,
        "strength": fault.strength,
        "device_no": car.device_no,
        "cell_no": fault.cell_no,
        "module_no": fault.module_no,
        "onset_at": onset,
        "shown_at": datetime(1970, 1, 1) + timedelta(seconds=shown_s),
        "is_found": own.height > 0,
        "is_item_right": own[named][0] == item if own.height and is_about_item else None,
        "severity": own["severity"].max(),
        "opened_at": opened,
        "delay_days": days,
        "other_codes": ", ".join(sorted(set(new["code"].to_list()) - {fault.code})),
    }
