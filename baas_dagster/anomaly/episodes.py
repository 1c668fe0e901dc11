"""From readings to episodes: opened, raised and closed with hysteresis, one row per episode.

Belongs here: the severity table of DOMAIN 7, the same for every code. Does not belong here: what is measured and which
lines it is judged by (detectors), the order of cars (``ranking``).

A track is the readings of one code and one item (cell, module, or the car) in time. Crossings count from the first
after the last clear time. An episode opens when enough independent windows have crossed a line, at the end of the
window that made it so; it keeps its highest severity until it closes: after enough days of data that are clear, or at a
reported outcome. Days without readings of the track count for nothing: a silent car heals nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from typing import Any

import numpy as np
import polars as pl

from baas_dagster.anomaly.codes import CODES, Family, Item
from baas_dagster.anomaly.detector import READING_SCHEMA
from baas_dagster.anomaly.rules import RULES, EpisodeRules

__all__ = ["CLOSING_SCHEMA", "EPISODE_SCHEMA", "episodes"]

EPISODE_SCHEMA: dict[str, Any] = {
    "anomaly_id": pl.String,
    "code": pl.String,
    "severity": pl.Int32,
    "first_crossed_at": pl.Datetime("us"),  # first row of the first window that crossed a line
    "opened_at": pl.Datetime("us"),  # end of the window that made it an episode
    "last_seen_at": pl.Datetime("us"),  # end of the last window that crossed a line
    "closed_at": pl.Datetime("us"),  # NULL: open
    "closed_by": pl.String,  # "clear data" or "outcome"; NULL: open
    "cell_no": pl.Int32,
    "module_no": pl.Int32,
    "value": pl.Float64,  # median of the last three windows that crossed, in `unit`
    "worst_value": pl.Float64,
    "unit": pl.String,
    "score": pl.Float64,  # 1: at its lowest line; 2: twice as far
    "growth_per_day": pl.Float64,  # change of the score a day over the last 60 days of readings; NULL: too few
    "window_count": pl.Int32,  # independent windows that crossed a line
    "evidence": pl.String,  # JSON: lines, last and worst windows with their time ranges, details
    "clears_when": pl.String,
}

CLOSING_SCHEMA: dict[str, Any] = {"code": pl.String, "item_no": pl.Int32, "closed_on": pl.Date}
"""Reported outcomes that close: of a code (NULL: any) and an item (NULL: any), on a day."""

_SHOWN = 5  # windows that the evidence lists
_OUTCOME, CLOSED_BY_DATA = "outcome", "clear data"
_HIDES = {
    Family.CHARGE: {Family.CHARGE, Family.HEALTH},
    Family.TEMPERATURE: {Family.TEMPERATURE},
    Family.FLEET: set(Family),
}
"""Families whose figures a broken channel of a family hides."""


@dataclass(frozen=True)
class _Reading:
    from_at: datetime
    to_at: datetime
    value: float
    lines: tuple[float | None, float | None, float | None]  # watch, warn, alarm
    sign: float  # +1: high is bad, -1: low is bad
    n: int | None
    sd: float | None
    detail: str | None
    is_raised: bool = False  # beside another reading that makes it severity 3

    @property
    def level(self) -> int:
        """Highest line that is crossed: 0 none, 1 watch, 2 warn, 3 alarm."""
        crossed = [i + 1 for i, line in enumerate(self.lines) if line is not None and self._beyond(line)]
        return max(crossed, default=0)

    def _beyond(self, line: float) -> bool:
        return self.sign * (self.value - line) >= 0

    @property
    def days(self) -> set[date | None]:
        """KST days that the window covers: one for a rest or a day, all of a month for a month."""
        first, last = self.from_at.date(), self.to_at.date()
        return {first + timedelta(days=i) for i in range((last - first).days + 1)}

    @property
    def lowest(self) -> float:
        return next(line for line in self.lines if line is not None)

    @property
    def warn(self) -> float:
        return self.lowest if self.lines[1] is None else self.lines[1]

    def clear_of(self, severity: int, share: float) -> bool:
        """Clear for an episode of that severity: below the warn line for 3, below a share of its line for 1 and 2."""
        if severity >= 3:
            return not self._beyond(self.warn)
        line = self.lowest if severity == 1 else self.warn
        return not self._beyond(_shared(line, share, self.sign))

    @property
    def score(self) -> float:
        """How far beyond the lowest line; 1 at it."""
        if self.sign > 0:
            return self.value / self.lowest if self.lowest else 1.0 + self.value
        return self.lowest / self.value if self.value > 0 else _FAR


_FAR = 10.0  # score of a value of 0 where low is bad


def _shared(line: float, share: float, sign: float) -> float:
    """The line of being clear: 80 % of a line, on its good side also where the line is negative or falls."""
    good_side_is_nearer_zero = sign * line > 0
    return line * share if good_side_is_nearer_zero else line / share


@dataclass
class _Run:
    """Crossings since the last clear time."""

    crossed: list[_Reading] = field(default_factory=list)
    counts: list[int] = field(default_factory=lambda: [0, 0, 0])  # of them, beyond watch, warn, alarm (or a worse one)
    severity: int = 0
    opened_at: datetime | None = None
    clear_days: set[date | None] = field(default_factory=set)
    unclear_on: date | None = None


def episodes(
    device_no: str, readings: pl.DataFrame, closings: pl.DataFrame | None = None, rules: EpisodeRules = RULES.episodes
) -> pl.DataFrame:
    """EPISODE_SCHEMA of one device, by code, item and opening.

    ``readings``: READING_SCHEMA in any order; rows without a value, a time or a line are none. ``closings``:
    CLOSING_SCHEMA, reported outcomes. The same readings in any order give the same episodes and ids.
    """
    readings = _with_lines(readings)
    found: list[dict[str, Any]] = []
    raised = _beside_heat(readings)
    keys = ["code", "item_no"]
    for (code, item_no), track in sorted(
        readings.partition_by(keys, as_dict=True).items(), key=lambda kv: (kv[0][0], kv[0][1] or 0)
    ):
        days = _closing_days(closings, str(code), item_no)
        for run, end, by in _runs(_track(track, raised if code == "TEMP_RISE" else set()), str(code), days, rules):
            found.append(_episode(device_no, str(code), item_no, run, end, by, rules))
    _raise_sensors(found)
    return pl.DataFrame(found, schema=EPISODE_SCHEMA).sort(
        "code", "cell_no", "module_no", "opened_at", nulls_last=False
    )


def _with_lines(readings: pl.DataFrame) -> pl.DataFrame:
    has_line = pl.any_horizontal(pl.col(name).is_not_null() for name in ("watch", "warn", "alarm"))
    return readings.select(pl.col(name).cast(kind) for name, kind in READING_SCHEMA.items()).filter(
        pl.col("value").is_finite().fill_null(value=False) & pl.col("to_at").is_not_null() & has_line
    )


def _track(track: pl.DataFrame, raised: set[date]) -> list[_Reading]:
    """Readings of a track in time; of windows that end together the worse comes last."""
    sign = pl.when(pl.col("is_low_bad")).then(-1.0).otherwise(1.0)
    ordered = track.with_columns(_sign=sign).sort(
        "to_at", "from_at", pl.col("value") * pl.col("_sign"), "n", "sd", "detail", nulls_last=False
    )
    return [
        _Reading(
            r["from_at"] or r["to_at"], r["to_at"], r["value"], (r["watch"], r["warn"], r["alarm"]), r["_sign"], r["n"],
            r["sd"], r["detail"], r["to_at"].date() in raised,
        )
        for r in ordered.iter_rows(named=True)
    ]  # fmt: skip


def _beside_heat(readings: pl.DataFrame) -> set[date]:
    """Days on which a module was hot: a rise beside heat is an alarm (DOMAIN 7)."""
    hot = readings.filter(
        (pl.col("code") == "TEMP_HIGH") & (pl.col("value") >= pl.min_horizontal("watch", "warn", "alarm"))
    )
    return set(hot["to_at"].dt.date().to_list())


def _closing_days(closings: pl.DataFrame | None, code: str, item_no: int | None) -> list[date]:
    if closings is None or closings.is_empty():
        return []
    of_item = (
        pl.col("item_no").is_null() if item_no is None else pl.col("item_no").is_null() | (pl.col("item_no") == item_no)
    )
    mine = closings.filter((pl.col("code").is_null() | (pl.col("code") == code)) & of_item)
    return sorted(set(mine["closed_on"].to_list()))


def _runs(
    track: list[_Reading], code: str, closing: Iterable[date], rules: EpisodeRules
) -> Iterator[tuple[_Run, datetime | None, str | None]]:
    """Every episode of a track: its crossings, when it closed and by what."""
    run = _Run()
    ends = sorted(datetime.combine(day, time.max) for day in closing)
    for reading in track:
        while ends and ends[0] < reading.to_at:
            end = ends.pop(0)
            if run.opened_at is not None and run.opened_at <= end:
                yield run, end, _OUTCOME
            run = _Run()
        level = reading.level
        if level:
            run.crossed.append(reading)
            run.counts = [count + (level > i) for i, count in enumerate(run.counts)]
            raised = _severity(run, code, rules)
            if raised > run.severity:
                run.severity = raised
                run.opened_at = run.opened_at or reading.to_at
        # before it opens, what would have been severity 1 is forgotten after its clear time
        severity = max(run.severity, 1)
        if not reading.clear_of(severity, rules.clear_share):
            run.clear_days.clear()
            run.unclear_on = reading.to_at.date()
        elif run.crossed:
            run.clear_days |= reading.days - {run.unclear_on}
            if len(run.clear_days) >= rules.clear_days[severity - 1]:
                if run.opened_at is not None:
                    yield run, reading.to_at, CLOSED_BY_DATA
                run = _Run()
    for end in ends:
        if run.opened_at is not None and run.opened_at <= end:
            yield run, end, _OUTCOME
            run = _Run()
    if run.opened_at is not None:
        yield run, None, None


def _severity(run: _Run, code: str, rules: EpisodeRules) -> int:
    """Severity that the crossings so far give; 0: no episode yet."""
    any_line, warn, alarm = run.counts
    known = CODES[code]
    for_watch, for_warn, for_alarm = (
        (1, 1, 1) if known.is_at_once else (rules.windows_watch, rules.windows_warn, rules.windows_alarm)
    )
    opened = int(any_line >= for_watch)
    if known.is_sensor:
        return opened
    if alarm >= for_alarm or run.crossed[-1].is_raised:
        return 3
    if warn >= for_warn:
        return 2
    return 2 if opened and run.severity < 2 and _reaches_alarm(run, rules) else opened


def _reaches_alarm(run: _Run, rules: EpisodeRules) -> bool:
    """True where the crossings of the last days rise significantly, and reach the alarm line in time."""
    last = run.crossed[-1]
    alarm = last.lines[2]
    fit = _trend(run.crossed, rules)
    if alarm is None or fit is None:
        return False
    slope, error = fit
    return slope > rules.trend_z * error and last.sign * (last.value - alarm) + slope * rules.trend_days >= 0


def _trend(crossed: list[_Reading], rules: EpisodeRules) -> tuple[float, float] | None:
    """Slope of the readings in their unit a day, towards the bad side, and its standard error."""
    last = crossed[-1]
    recent = [r for r in crossed if (last.to_at - r.to_at).total_seconds() <= rules.trend_days * 86_400]
    days = np.array([(r.to_at - last.to_at).total_seconds() / 86_400 for r in recent])
    if len(recent) < rules.trend_windows or days[-1] - days[0] < rules.trend_span_days:
        return None
    values = last.sign * np.array([r.value for r in recent])
    centred = days - days.mean()
    spread = float(centred @ centred)
    slope = float(centred @ values) / spread
    residual = values - values.mean() - slope * centred
    return slope, float(np.sqrt(residual @ residual / (len(recent) - 2) / spread))


def _episode(
    device_no: str, code: str, item_no: int | None, run: _Run, end: datetime | None, by: str | None, rules: EpisodeRules
) -> dict[str, Any]:
    last = run.crossed[-1]
    worst = max(run.crossed, key=lambda r: (r.sign * r.value, r.to_at))
    known = CODES[code]
    recent = run.crossed[-3:]
    trend = _trend(run.crossed, rules)
    watch, warn, alarm = last.lines
    evidence = {
        "unit": known.unit,
        "lines": {k: v for k, v in (("watch", watch), ("warn", warn), ("alarm", alarm)) if v is not None},
        "worst": _shown(worst),
        "last_windows": [_shown(r) for r in run.crossed[-_SHOWN:]],
    }
    days = rules.clear_days[run.severity - 1]
    below = "the warn line" if run.severity == 3 else f"{rules.clear_share:.0%} of its line"
    side = "above" if last.sign < 0 else "below"
    cleared = f"{days:g} days of data {side} {below}"
    if last.sign < 0 and run.severity < 3:
        cleared = f"{days:g} days of data above its line divided by {rules.clear_share:g}"
    return {
        "anomaly_id": _identity(device_no, code, item_no, run.opened_at),
        "code": code,
        "severity": run.severity,
        "first_crossed_at": run.crossed[0].from_at,
        "opened_at": run.opened_at,
        "last_seen_at": last.to_at,
        "closed_at": end,
        "closed_by": by,
        "cell_no": item_no if known.item is Item.CELL else None,
        "module_no": item_no if known.item is Item.MODULE else None,
        "value": float(np.median([r.value for r in recent])),
        "worst_value": worst.value,
        "unit": known.unit,
        "score": float(np.median([r.score for r in recent])),
        "growth_per_day": None if trend is None or not last.lowest else trend[0] / abs(last.lowest),
        "window_count": len(run.crossed),
        "evidence": json.dumps(evidence, sort_keys=True, ensure_ascii=False),
        "clears_when": f"a reported outcome, or {cleared}" if run.severity == 3 else cleared,
    }


def _shown(reading: _Reading) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "from": reading.from_at.isoformat(sep=" ", timespec="seconds"),
        "to": reading.to_at.isoformat(sep=" ", timespec="seconds"),
        "value": round(reading.value, 4),
    }
    if reading.sd is not None:
        shown["sd"] = round(reading.sd, 4)
    if reading.n is not None:
        shown["n"] = reading.n
    if reading.detail:
        shown["detail"] = json.loads(reading.detail)
    return shown


def _identity(device_no: str, code: str, item_no: int | None, opened_at: datetime | None) -> str:
    text = f"{device_no}|{code}|{'' if item_no is None else item_no}|{opened_at:%Y-%m-%d %H:%M:%S.%f}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _raise_sensors(found: list[dict[str, Any]]) -> None:
    """A broken channel is severity 2 while it hides what another episode of the car needs (DOMAIN 7)."""
    others = [e for e in found if not CODES[e["code"]].is_sensor]
    for episode in found:
        known = CODES[episode["code"]]
        if not known.is_sensor:
            continue
        hidden = _HIDES.get(known.family, {known.family})
        if any(CODES[e["code"]].family in hidden and _overlap(e, episode) for e in others):
            episode["severity"] = 2


def _overlap(one: dict[str, Any], other: dict[str, Any]) -> bool:
    latest = max(one["opened_at"], other["opened_at"])
    return all(e["closed_at"] is None or e["closed_at"] >= latest for e in (one, other))
