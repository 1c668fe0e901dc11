"""Pieces of a device in the order of time: what the witnesses saw in and between them, over month edges too.

Belongs here: whom to believe in a month (speed, or else the track), running sums of witness kilometres and silence.
Does not belong here: what a cut between two runs means (``chain``).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from baas_dagster.mileage.gps import Travelled
from baas_dagster.mileage.ledger import OdometerRules

__all__ = [
    "MonthEdge",
    "Row",
    "Run",
    "elapsed_s",
    "midnight_km",
    "month_edges",
    "readings_in_order",
    "seen_km",
    "silent_s",
]

Row = dict[str, Any]
"""A row of one of the local models."""


@dataclass(frozen=True)
class Run:
    """A run of readings, with what the witnesses saw, and running sums over the device's history."""

    from_at: datetime
    to_at: datetime
    from_km: float
    to_km: float
    row_count: int
    resolution_km: float
    change_count: int
    first_change_at: datetime
    last_change_at: datetime
    head_km: float
    tail_km: float
    counter_from: float | None
    counter_to: float | None
    cell_slots: int | None
    has_witness: bool
    # witness kilometres and silent seconds since the start of the history
    seen_from: float
    seen_to: float
    silent_from: float
    silent_to: float


def elapsed_s(earlier: datetime, later: datetime) -> float:
    """Seconds from one time to a later one."""
    return (later - earlier).total_seconds()


def midnight_km(before: Row, after: Row, rules: OdometerRules) -> float:
    """Kilometres of the pair of messages between two days (trapezoid), 0 when it is a logging gap."""
    if before["last_at"] is None or after["first_at"] is None:
        return 0.0
    seconds = elapsed_s(before["last_at"], after["first_at"])
    speeds = (before["last_speed_kmh"], after["first_speed_kmh"])
    if seconds > rules.logging_gap_s or None in speeds:
        return 0.0
    return float(sum(speeds)) / 2 * seconds / 3600


@dataclass(frozen=True)
class MonthEdge:
    """What lies between the months with messages before this one and its first message, and whom to believe in it."""

    seen_km: float
    silent_s: float
    use_speed: bool
    has_witness: bool


def month_edges(
    days: list[Row], gps_km: dict[str, float], with_runs: set[str], rules: OdometerRules
) -> dict[str, MonthEdge]:
    """Per month with runs. Months whose readings are all missing leave their speed kilometres to the next month."""
    by_month: dict[str, list[Row]] = {}
    for day in days:
        by_month.setdefault(day["measured_month"], []).append(day)
    edges: dict[str, MonthEdge] = {}
    carried_km = carried_s = 0.0
    last: Row | None = None
    for month, its_days in sorted(by_month.items()):
        logged = [day for day in its_days if day["first_at"] is not None]
        speed_km = sum(day["speed_km"] for day in its_days)
        messages = sum(day["message_count"] for day in its_days)
        has_speed = messages > 0 and sum(day["speed_count"] for day in its_days) >= messages / 2
        # a speed channel that stays at 0 while the position moves is not supported by this car
        use_speed = has_speed and speed_km >= 0.1 * gps_km.get(month, 0.0)
        if last is not None and logged:
            between_s = elapsed_s(last["last_at"], logged[0]["first_at"])
            carried_s += between_s if between_s > rules.logging_gap_s else 0.0
            carried_km += midnight_km(last, logged[0], rules)
        if month in with_runs:
            edges[month] = MonthEdge(carried_km, carried_s, use_speed, use_speed or month in gps_km)
            carried_km = carried_s = 0.0
        else:
            carried_km += sum(_day_speeds(its_days, rules))
            carried_s += sum(day["silent_s"] for day in its_days)
        last = logged[-1] if logged else last
    return edges


def _day_speeds(days: Sequence[Row], rules: OdometerRules) -> Iterable[float]:
    """Speed kilometres of consecutive days, the pairs over midnight included."""
    for before, day in zip([None, *days], days, strict=False):
        yield day["speed_km"] + (midnight_km(before, day, rules) if before else 0.0)


def readings_in_order(rows: list[Row], edges: dict[str, MonthEdge], travelled: Travelled) -> list[Run]:
    """Runs in time order with running sums of what the witness saw (speed, else the track) and of silence."""
    runs: list[Run] = []
    seen = silent = 0.0
    month = None
    before_at: datetime | None = None
    for row in rows:
        edge = edges[row["measured_month"]]
        begin, end = row["from_at"], row["to_at"]
        first_change, last_change = row["first_change_at"] or end, row["last_change_at"]
        is_new_month = row["measured_month"] != month
        month = row["measured_month"]
        if is_new_month:
            silent += edge.silent_s
        if edge.use_speed:
            before_km = row["before_speed_km"] + (edge.seen_km if is_new_month else 0.0)
            inside_km, after_km = row["speed_km"], row["after_speed_km"]
            head_km, tail_km = row["head_speed_km"], row["tail_speed_km"]
        else:
            before_km = travelled.between(before_at, begin) if before_at else 0.0
            inside_km, after_km = travelled.between(begin, end), 0.0
            head_km, tail_km = travelled.between(begin, first_change), travelled.between(last_change, end)
        seen += before_km
        silent += row["before_silent_s"]
        runs.append(
            Run(
                from_at=begin,
                to_at=end,
                from_km=row["from_km"],
                to_km=row["to_km"],
                row_count=row["row_count"],
                resolution_km=row["resolution_km"],
                change_count=row["change_count"],
                first_change_at=first_change,
                last_change_at=last_change,
                head_km=head_km,
                tail_km=tail_km,
                counter_from=row["charged_total_from_ah"],
                counter_to=row["charged_total_to_ah"],
                cell_slots=row["cell_slot_count"],
                has_witness=edge.has_witness,
                seen_from=seen,
                seen_to=seen + inside_km,
                silent_from=silent,
                silent_to=silent,
            )
        )
        seen += inside_km + after_km
        silent += row["after_silent_s"]
        before_at = end
    return runs


def seen_km(before: Run, after: Run) -> float:
    """Kilometres that the witness saw between two runs."""
    return after.seen_from - before.seen_to


def silent_s(before: Run, after: Run) -> float:
    """Seconds of logging gaps between two runs."""
    return after.silent_from - before.silent_to
