"""Stitching of the odometer of one device: from monotone runs to kilometres in time, and to events.

Belongs here: what a cut between two runs means, after the whole history of the device is known (DOMAIN 4): a glitch that
is taken out, a step that stays, a freeze that speed or GPS contradict, kilometres over silences. Does not belong here:
how runs are cut (dbt ``int_odometer_run``), calendar days, months, grades (dbt marts), storage.

The trusted chain: runs are walked in time order. A run that continues the chain is appended. When the odometer falls,
either the runs before were a glitch upwards (the fall comes back to the level before an undriven rise: they are taken
out), or the runs from here are a glitch downwards (a later undriven rise comes back to the level before the fall: they
are skipped), or the fall stays (small fall, rollback, reset). A rise that no car drives and that nothing undoes is a
jump. Rises and falls that stay carry no kilometres of the odometer; what the witnesses saw meanwhile replaces them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from enum import StrEnum
from typing import Any

import polars as pl

from baas_dagster.mileage.gps import GpsRules, GpsRun, TrackPiece, Travelled, track

__all__ = [
    "EVENT_SCHEMA",
    "SEGMENT_SCHEMA",
    "Action",
    "Code",
    "OdometerRules",
    "Source",
    "Stitched",
    "stitch",
]


class Code(StrEnum):
    """Events of the odometer (DOMAIN 4)."""

    ZERO = "ODO_ZERO"
    STALE = "ODO_STALE"
    SMALL_FALL = "ODO_SMALL_FALL"
    ROLLBACK = "ODO_ROLLBACK"
    JUMP = "ODO_JUMP"
    FROZEN = "ODO_FROZEN"
    RESET = "ODO_RESET"
    GAP = "ODO_GAP"


class Action(StrEnum):
    """What became of the kilometres of an event."""

    COUNTED = "counted"  # nothing to repair: the event is counted and shown
    REMOVED = "removed"  # the readings were a glitch and are taken out
    EXCLUDED = "excluded"  # the step is no distance; what the witnesses saw meanwhile replaces it
    SPREAD = "spread"  # the odometer caught up: its step is spread over the time it stood still
    REPAIRED = "repaired"  # the odometer never caught up: the kilometres of the witness are added
    UNLOGGED = "unlogged"  # driven in a silence: counted, and shown as unlogged


class Source(StrEnum):
    """Where kilometres come from."""

    ODOMETER = "odometer"
    SPEED = "speed"
    GPS = "gps"


@dataclass(frozen=True)
class OdometerRules:
    """Limits of the stitching; values and reasons stand in ``dbt_project.yml`` under the same names."""

    logging_gap_s: float
    odometer_max_kmh: float
    odometer_slack_km: float
    odometer_small_fall_km: float
    odometer_reset_below_km: float
    odometer_frozen_km: float
    odometer_gap_event_km: float
    witness_gain: float
    witness_slack_kmh: float
    witness_match_share: float
    counter_reset_ah: float
    stale_max_h: float
    small_glitch_max_h: float
    scale_min_km: float
    scale_max: float
    gps_max_kmh: float
    gps_step_slack_km: float
    gps_bridge_s: float
    gps_standing_km: float
    gps_moved_km: float
    gps_glitch_max_s: float

    @property
    def gps(self) -> GpsRules:
        """The part of the rules that the GPS track needs."""
        return GpsRules(**{f.name: getattr(self, f.name) for f in fields(GpsRules)})


SEGMENT_SCHEMA: dict[str, pl.DataType] = {
    "source": pl.String(),
    "kind": pl.String(),
    "from_at": pl.Datetime("us"),
    "to_at": pl.Datetime("us"),
    "km": pl.Float64(),
    "scaled_km": pl.Float64(),
    "unlogged_km": pl.Float64(),
    "repaired_km": pl.Float64(),
    "uncertain_km": pl.Float64(),
    "from_km": pl.Float64(),
    "to_km": pl.Float64(),
    "resolution_km": pl.Float64(),
    "device_no": pl.String(),
}
"""One row per stretch of time and source.

``scaled_km``: ``km`` times the scale of the source, which the receiver's own speed gives for speed and GPS (1 for the
odometer). ``uncertain_km``: what a step that is no distance leaves open. ``from_km`` and ``to_km`` are readings, on kept runs
of the odometer only.
"""

EVENT_SCHEMA: dict[str, pl.DataType] = {
    "code": pl.String(),
    "occurred_at": pl.Datetime("us"),
    "ended_at": pl.Datetime("us"),
    "from_km": pl.Float64(),
    "to_km": pl.Float64(),
    "distance_km": pl.Float64(),
    "action": pl.String(),
    "row_count": pl.Int64(),
    "device_no": pl.String(),
}
"""One row per event. ``distance_km``: kilometres the event is about (fall, jump, frozen or unlogged kilometres)."""


@dataclass(frozen=True)
class Stitched:
    """Kilometres in time (`SEGMENT_SCHEMA`) and events (`EVENT_SCHEMA`) of one device."""

    segments: pl.DataFrame
    events: pl.DataFrame


_RUN_KINDS = ("reading", "zero", "silence")

_EPSILON_KM = 1e-6
"""Readings have one decimal; differences of floating-point numbers below this are zero."""


@dataclass(frozen=True)
class _Run:
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


@dataclass(frozen=True)
class _Piece:
    """A stretch of time with what a witness saw in it, and how long of it was silent."""

    from_at: datetime
    to_at: datetime
    seen_km: float
    silent_s: float = 0.0


@dataclass
class _Link:
    """How a kept run follows the one before it."""

    kind: str
    step_km: float
    seen_km: float
    silent_s: float
    skipped: list[_Run] = field(default_factory=list)


@dataclass
class _Ledger:
    """Segments and events as they are found."""

    device_no: str
    segments: list[tuple[Any, ...]] = field(default_factory=list)
    events: list[tuple[Any, ...]] = field(default_factory=list)

    def add(
        self,
        source: Source,
        kind: str,
        from_at: datetime,
        to_at: datetime,
        km: float,
        *,
        unlogged_km: float = 0.0,
        repaired_km: float = 0.0,
        uncertain_km: float = 0.0,
        scaled_km: float | None = None,
        run: _Run | None = None,
    ) -> None:
        readings = (run.from_km, run.to_km, run.resolution_km) if run else (None, None, None)
        scaled = km if scaled_km is None else scaled_km
        figures = (km, scaled, unlogged_km, repaired_km, uncertain_km)
        self.segments.append((source, kind, from_at, to_at, *figures, *readings, self.device_no))

    def event(
        self,
        code: Code,
        occurred_at: datetime,
        ended_at: datetime,
        from_km: float | None,
        to_km: float | None,
        distance_km: float,
        action: Action,
        row_count: int,
    ) -> None:
        row = (code, occurred_at, ended_at, from_km, to_km, distance_km, action, row_count, self.device_no)
        self.events.append(row)

    def result(self) -> Stitched:
        segments = pl.DataFrame(self.segments, schema=SEGMENT_SCHEMA, orient="row")
        events = pl.DataFrame(self.events, schema=EVENT_SCHEMA, orient="row")
        return Stitched(
            segments.sort("source", "from_at", "to_at", "kind"),
            events.sort("occurred_at", "code", "ended_at"),
        )


def _seconds(earlier: datetime, later: datetime) -> float:
    return (later - earlier).total_seconds()


# --- what the pieces say --------------------------------------------------------------------------------------------


def _midnight_km(before: dict[str, Any], after: dict[str, Any], rules: OdometerRules) -> float:
    """Kilometres of the pair of messages between two days (trapezoid), 0 when it is a logging gap."""
    if before["last_at"] is None or after["first_at"] is None:
        return 0.0
    seconds = _seconds(before["last_at"], after["first_at"])
    speeds = (before["last_speed_kmh"], after["first_speed_kmh"])
    if seconds > rules.logging_gap_s or None in speeds:
        return 0.0
    return float(sum(speeds)) / 2 * seconds / 3600


@dataclass(frozen=True)
class _MonthEdge:
    """What lies between the months with messages before this one and its first message, and whom to believe in it."""

    seen_km: float
    silent_s: float
    use_speed: bool
    has_witness: bool


def _month_edges(
    days: list[dict[str, Any]], gps_km: dict[str, float], with_runs: set[str], rules: OdometerRules
) -> dict[str, _MonthEdge]:
    """Per month with runs. Months whose readings are all missing leave their speed kilometres to the next month."""
    by_month: dict[str, list[dict[str, Any]]] = {}
    for day in days:
        by_month.setdefault(day["measured_month"], []).append(day)
    edges: dict[str, _MonthEdge] = {}
    carried_km = carried_s = 0.0
    last: dict[str, Any] | None = None
    for month, its_days in sorted(by_month.items()):
        logged = [day for day in its_days if day["first_at"] is not None]
        speed_km = sum(day["speed_km"] for day in its_days)
        messages = sum(day["message_count"] for day in its_days)
        has_speed = messages > 0 and sum(day["speed_count"] for day in its_days) >= messages / 2
        # a speed channel that stays at 0 while the position moves is not supported by this car
        use_speed = has_speed and speed_km >= 0.1 * gps_km.get(month, 0.0)
        if last is not None and logged:
            between_s = _seconds(last["last_at"], logged[0]["first_at"])
            carried_s += between_s if between_s > rules.logging_gap_s else 0.0
            carried_km += _midnight_km(last, logged[0], rules)
        if month in with_runs:
            edges[month] = _MonthEdge(carried_km, carried_s, use_speed, use_speed or month in gps_km)
            carried_km = carried_s = 0.0
        else:
            carried_km += sum(_day_speeds(its_days, rules))
            carried_s += sum(day["silent_s"] for day in its_days)
        last = logged[-1] if logged else last
    return edges


def _day_speeds(days: Sequence[dict[str, Any]], rules: OdometerRules) -> Iterable[float]:
    """Speed kilometres of consecutive days, the pairs over midnight included."""
    for before, day in zip([None, *days], days, strict=False):
        yield day["speed_km"] + (_midnight_km(before, day, rules) if before else 0.0)


def _readings(rows: list[dict[str, Any]], edges: dict[str, _MonthEdge], travelled: Travelled) -> list[_Run]:
    """Runs in time order with running sums of what the witness saw (speed, else the track) and of silence."""
    runs: list[_Run] = []
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
            _Run(
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


# --- judging a step -------------------------------------------------------------------------------------------------


def _drivable_km(before: _Run, after: _Run, rules: OdometerRules) -> float:
    """The most a car can have driven between two runs, by time alone."""
    return rules.odometer_max_kmh * _seconds(before.to_at, after.from_at) / 3600 + rules.odometer_slack_km


def _seen_km(before: _Run, after: _Run) -> float:
    return after.seen_from - before.seen_to


def _silent_s(before: _Run, after: _Run) -> float:
    return after.silent_from - before.silent_to


def _is_undriven(before: _Run, after: _Run, rules: OdometerRules) -> bool:
    """Whether the rise between two consecutive runs was not driven: by the witness where rows arrive, else by time."""
    step = after.from_km - before.to_km
    limit = _drivable_km(before, after, rules)
    if after.has_witness and _silent_s(before, after) <= 0:
        seen = _seen_km(before, after)
        slack = rules.witness_slack_kmh * _seconds(before.to_at, after.from_at) / 3600
        limit = min(limit, max(rules.witness_gain * seen, seen + slack) + 1.05 * after.resolution_km)
    return step > limit


def _continues(base: _Run, run: _Run, rules: OdometerRules) -> bool:
    """Whether a run goes on from the level of an earlier one as far as the witnesses, or else time, allow."""
    rise = run.from_km - base.to_km
    if not -_EPSILON_KM <= rise <= _drivable_km(base, run, rules):
        return False
    if not (base.has_witness and run.has_witness):
        return True
    seen = _seen_km(base, run)
    unseen = rules.odometer_max_kmh * _silent_s(base, run) / 3600
    return rise <= seen * (1 + rules.witness_match_share) + rules.odometer_slack_km + unseen


def _logged_h(first: _Run, last: _Run) -> float:
    """Hours with rows from the start of one run to the start of a later one."""
    return (_seconds(first.from_at, last.from_at) - (last.silent_from - first.silent_from)) / 3600


# --- the chain ------------------------------------------------------------------------------------------------------


@dataclass
class _Chain:
    """The trusted runs in time order, each with the link to the one before (None for the first)."""

    runs: list[_Run] = field(default_factory=list)
    links: list[_Link | None] = field(default_factory=list)

    def push(self, run: _Run, kind: str, skipped: list[_Run] | None = None) -> None:
        if not self.runs:
            self.runs.append(run)
            self.links.append(None)
            return
        top = self.runs[-1]
        link = _Link(kind, run.from_km - top.to_km, _seen_km(top, run), _silent_s(top, run), skipped or [])
        self.runs.append(run)
        self.links.append(link)

    def pop_to(self, size: int) -> list[_Run]:
        """Take out the runs from position `size`, with those they had skipped themselves, in time order."""
        popped: list[_Run] = []
        for run, link in zip(self.runs[size:], self.links[size:], strict=True):
            popped += [*(link.skipped if link else []), run]
        del self.runs[size:]
        del self.links[size:]
        return popped


def _undriven_rise_km(before: _Run, after: _Run) -> float:
    """The part of a rise that the witness did not see; all of it without a witness."""
    seen = _seen_km(before, after) if after.has_witness else 0.0
    return after.from_km - before.to_km - seen


def _matches(one_km: float, other_km: float, run: _Run, rules: OdometerRules) -> bool:
    """Whether a rise and a fall undo each other, as far as resolution and witness can tell."""
    return abs(one_km - other_km) <= rules.witness_match_share * max(one_km, other_km) + 1.05 * run.resolution_km


def _glitch_upwards(chain: _Chain, run: _Run, rules: OdometerRules) -> int | None:
    """Position of the first kept run of a glitch upwards that ends with this run; None if there is none."""
    fall = chain.runs[-1].to_km - run.from_km
    # a small rise may be sampling: it explains a fall only when it is near
    longest_h = rules.stale_max_h if fall > rules.odometer_slack_km else rules.small_glitch_max_h
    for position in range(len(chain.runs) - 1, 0, -1):
        base, entered = chain.runs[position - 1], chain.runs[position]
        if _logged_h(entered, run) > longest_h:
            return None
        if (
            _is_undriven(base, entered, rules)
            and _matches(_undriven_rise_km(base, entered), fall, run, rules)
            and _continues(base, run, rules)
        ):
            return position
    return None


def _glitch_downwards(runs: list[_Run], top: _Run, fallen: int, rules: OdometerRules) -> int | None:
    """Position of the run that comes back to the level before a fall by a step that nobody drove; None if none does."""
    low = runs[fallen]
    counted = low.to_km - low.from_km  # what odometer and witness counted at the low level
    seen = low.seen_to - low.seen_from
    for position in range(fallen + 1, len(runs)):
        if low.to_km >= top.to_km - _EPSILON_KM:
            return None  # the level before the fall was reached by driving
        run, before = runs[position], runs[position - 1]
        if _logged_h(runs[fallen], run) > rules.stale_max_h:
            return None
        if run.from_km < top.to_km - _EPSILON_KM:
            low = run
            counted += low.to_km - low.from_km
            seen += low.seen_to - low.seen_from
        elif _continues(top, run, rules) and (before is low or run.from_km < before.from_km):
            is_stuck = counted <= max(low.resolution_km, rules.witness_match_share * seen)
            is_back = _is_undriven(low, run, rules) or (is_stuck and _silent_s(low, run) > 0)
            return position if is_back else None
    return None


def _kind_of_fall(top: _Run, run: _Run, rules: OdometerRules) -> Code:
    fall = top.to_km - run.from_km
    if run.from_km < rules.odometer_reset_below_km <= top.to_km:
        return Code.RESET
    if fall < rules.odometer_small_fall_km - _EPSILON_KM:
        return Code.SMALL_FALL
    counter_fell = (
        top.counter_to is not None
        and run.counter_from is not None
        and run.counter_from < top.counter_to - rules.counter_reset_ah
    )
    other_pack = bool(top.cell_slots and run.cell_slots and top.cell_slots != run.cell_slots)
    return Code.RESET if counter_fell or other_pack else Code.ROLLBACK


def _trusted_chain(runs: list[_Run], rules: OdometerRules, ledger: _Ledger) -> _Chain:
    """Walk the runs; see the module's docstring."""
    chain = _Chain()
    position = 0
    while position < len(runs):
        run = runs[position]
        position += 1
        if not chain.runs:
            chain.push(run, "first")
            continue
        top = chain.runs[-1]
        if run.from_km >= top.to_km - _EPSILON_KM:
            is_jump = run.from_km - top.to_km > _drivable_km(top, run, rules)
            chain.push(run, Code.JUMP if is_jump else "plain")
            continue
        glitch = _glitch_upwards(chain, run, rules)
        if glitch is not None:
            base = chain.runs[glitch - 1]
            taken = chain.pop_to(glitch)
            rise = taken[0].from_km - base.to_km
            code = Code.JUMP if rise > _drivable_km(base, taken[0], rules) else Code.STALE
            rows = sum(r.row_count for r in taken)
            ledger.event(
                code, taken[0].from_at, taken[-1].to_at, base.to_km, taken[0].from_km, rise, Action.REMOVED, rows
            )
            chain.push(run, "return", taken)
            continue
        back = _glitch_downwards(runs, top, position - 1, rules)
        if back is not None:
            taken = runs[position - 1 : back]
            rows = sum(r.row_count for r in taken)
            ledger.event(
                Code.STALE,
                run.from_at,
                taken[-1].to_at,
                top.to_km,
                run.from_km,
                top.to_km - run.from_km,
                Action.REMOVED,
                rows,
            )
            chain.push(runs[back], "return", taken)
            position = back + 1
            continue
        chain.push(run, _kind_of_fall(top, run, rules))
    return chain


# --- kilometres in time ---------------------------------------------------------------------------------------------


def _spread(ledger: _Ledger, kind: str, total_km: float, pieces: list[_Piece]) -> None:
    """Kilometres of the odometer over pieces of time: by what the witness saw, the rest over the silences."""
    silent_s = sum(piece.silent_s for piece in pieces)
    seen_km = sum(piece.seen_km for piece in pieces)
    logged_km = min(total_km, seen_km) if silent_s > 0 else total_km
    whole_s = sum(_seconds(piece.from_at, piece.to_at) for piece in pieces)
    for piece in pieces:
        if seen_km > 0:
            share = piece.seen_km / seen_km
        elif whole_s > 0:
            share = _seconds(piece.from_at, piece.to_at) / whole_s
        else:
            share = 1 / len(pieces)
        unlogged = (total_km - logged_km) * piece.silent_s / silent_s if silent_s > 0 else 0.0
        ledger.add(
            Source.ODOMETER, kind, piece.from_at, piece.to_at, logged_km * share + unlogged, unlogged_km=unlogged
        )


def _return_pieces(top: _Run, skipped: list[_Run], run: _Run) -> list[_Piece]:
    """The time from a kept run over removed ones to the next kept one."""
    pieces: list[_Piece] = []
    before = top
    for taken in skipped:
        pieces.append(_Piece(before.to_at, taken.from_at, _seen_km(before, taken), _silent_s(before, taken)))
        pieces.append(_Piece(taken.from_at, taken.to_at, taken.seen_to - taken.seen_from))
        before = taken
    return [*pieces, _Piece(before.to_at, run.from_at, _seen_km(before, run), _silent_s(before, run))]


@dataclass
class _Standstill:
    """Time in which the odometer did not move, with what the witnesses saw in it."""

    level_km: float
    pieces: list[_Piece] = field(default_factory=list)
    row_count: int = 0

    @property
    def seen_km(self) -> float:
        return sum(piece.seen_km for piece in self.pieces)


def _repair(ledger: _Ledger, still: _Standstill) -> None:
    """The odometer never caught up: add what the witness saw."""
    seen = still.seen_km
    for piece in still.pieces:
        ledger.add(Source.ODOMETER, "frozen", piece.from_at, piece.to_at, piece.seen_km, repaired_km=piece.seen_km)
    ledger.event(
        Code.FROZEN,
        still.pieces[0].from_at,
        still.pieces[-1].to_at,
        still.level_km,
        still.level_km,
        seen,
        Action.REPAIRED,
        still.row_count,
    )


def _settle(ledger: _Ledger, still: _Standstill, top: _Run, run: _Run, link: _Link, rules: OdometerRules) -> bool:
    """Settle a standstill that ends with a step between two runs; True when the step is thereby spread."""
    if still.seen_km <= rules.odometer_frozen_km:
        return False
    witnessed = still.seen_km + link.seen_km
    unseen = rules.odometer_max_kmh * (link.silent_s + sum(p.silent_s for p in still.pieces)) / 3600
    enough = witnessed * (1 - rules.witness_match_share) - 1.05 * run.resolution_km
    most = witnessed * (1 + rules.witness_match_share) + rules.odometer_slack_km + unseen
    if link.kind not in ("plain", Code.JUMP, "return") or not enough <= link.step_km <= most:
        _repair(ledger, still)
        return False
    pieces = [*still.pieces, *_return_pieces(top, link.skipped, run)]
    _spread(ledger, "frozen", link.step_km, pieces)
    ledger.event(
        Code.FROZEN,
        still.pieces[0].from_at,
        run.from_at,
        still.level_km,
        run.from_km,
        link.step_km,
        Action.SPREAD,
        still.row_count,
    )
    return True


def _account_link(ledger: _Ledger, top: _Run, run: _Run, link: _Link, rules: OdometerRules) -> None:
    """Kilometres and event of the step between two kept runs."""
    gap_km = 0.0
    if link.kind == "plain":
        unlogged = link.step_km if link.silent_s > 0 else 0.0
        kind = "gap" if link.silent_s > 0 else "link"
        ledger.add(
            Source.ODOMETER, kind, top.to_at, run.from_at, max(link.step_km, 0.0), unlogged_km=max(unlogged, 0.0)
        )
        gap_km = unlogged
    elif link.kind == "return":
        _spread(ledger, "return", max(link.step_km, 0.0), _return_pieces(top, link.skipped, run))
        if link.silent_s > 0:
            gap_km = link.step_km - link.seen_km
    else:
        code = Code(link.kind)
        seen = max(link.seen_km, 0.0) if code is not Code.SMALL_FALL else 0.0
        # two speeds and the time between them are all that is known of the way; a jump holds at least its kilometres
        open_km = seen + rules.witness_slack_kmh * _seconds(top.to_at, run.from_at) / 3600
        if code is Code.SMALL_FALL:
            open_km = abs(link.step_km)
        elif code is Code.JUMP:
            open_km = min(open_km, link.step_km)
        ledger.add(Source.ODOMETER, "step", top.to_at, run.from_at, seen, repaired_km=seen, uncertain_km=open_km)
        action = Action.COUNTED if code is Code.SMALL_FALL else Action.EXCLUDED
        ledger.event(code, run.from_at, run.from_at, top.to_km, run.from_km, abs(link.step_km), action, 1)
    if gap_km >= rules.odometer_gap_event_km:
        ledger.event(Code.GAP, top.to_at, run.from_at, top.to_km, run.from_km, gap_km, Action.UNLOGGED, 0)


def _account(chain: _Chain, rules: OdometerRules, ledger: _Ledger) -> None:
    """Turn the chain into segments and events, standstills included."""
    still: _Standstill | None = None
    top: _Run | None = None
    for run, link in zip(chain.runs, chain.links, strict=True):
        if link is not None and top is not None:
            if still is not None and link.kind == "plain" and abs(link.step_km) <= _EPSILON_KM:
                still.pieces.append(_Piece(top.to_at, run.from_at, link.seen_km, link.silent_s))
                ledger.add(Source.ODOMETER, "link", top.to_at, run.from_at, 0.0)
            else:
                if still is None or not _settle(ledger, still, top, run, link, rules):
                    _account_link(ledger, top, run, link, rules)
                still = None
        ledger.add(Source.ODOMETER, "run", run.from_at, run.to_at, run.to_km - run.from_km, run=run)
        still = still or _Standstill(run.from_km)
        still.row_count += run.row_count
        if run.change_count == 0:
            still.pieces.append(_Piece(run.from_at, run.to_at, run.seen_to - run.seen_from))
        else:
            still.pieces.append(_Piece(run.from_at, run.first_change_at, run.head_km))
            if still.seen_km > rules.odometer_frozen_km:
                _repair(ledger, still)
            tail = _Piece(run.last_change_at, run.to_at, run.tail_km)
            still = _Standstill(run.to_km, [tail], run.row_count)
        top = run
    if still is not None and still.seen_km > rules.odometer_frozen_km:
        _repair(ledger, still)


def _before_and_after(
    rows: list[dict[str, Any]],
    days: list[dict[str, Any]],
    edges: dict[str, _MonthEdge],
    travelled: Travelled,
    ledger: _Ledger,
) -> None:
    """Kilometres that a witness saw before the first reading of the history and after its last one."""

    def add(begin: datetime, end: datetime, km: float) -> None:
        if begin < end and km > 0:
            ledger.add(Source.ODOMETER, "step", begin, end, km, repaired_km=km)

    first, last = rows[0], rows[-1]
    logged = [day for day in days if day["first_at"] is not None]
    for day in logged:
        if day["measured_month"] < first["measured_month"] or day["measured_month"] > last["measured_month"]:
            add(day["first_at"], day["last_at"], day["speed_km"] or travelled.between(day["first_at"], day["last_at"]))
    begin = min(day["first_at"] for day in logged if day["measured_month"] == first["measured_month"])
    end = max(day["last_at"] for day in logged if day["measured_month"] == last["measured_month"])
    is_fast = edges[first["measured_month"]].use_speed
    add(begin, first["from_at"], first["before_speed_km"] if is_fast else travelled.between(begin, first["from_at"]))
    is_fast = edges[last["measured_month"]].use_speed
    add(last["to_at"], end, last["after_speed_km"] if is_fast else travelled.between(last["to_at"], end))


def _zeros(zero_rows: list[dict[str, Any]], reading_rows: list[dict[str, Any]], ledger: _Ledger) -> None:
    """One event per stretch of zeros between two readings; over a month's edge it is one stretch."""
    reading_months = {row["measured_month"] for row in reading_rows}
    stretches: list[list[dict[str, Any]]] = []
    for row in zero_rows:
        before = stretches[-1][-1] if stretches else None
        goes_on = (
            before is not None
            and before["start_reason"] in ("end", "start_end")
            and row["start_reason"] in ("start", "start_end")
            and not any(before["measured_month"] < month < row["measured_month"] for month in reading_months)
        )
        if goes_on:
            stretches[-1].append(row)
        else:
            stretches.append([row])
    for rows in stretches:
        count = sum(row["row_count"] for row in rows)
        ledger.event(Code.ZERO, rows[0]["from_at"], rows[-1]["to_at"], None, None, 0.0, Action.COUNTED, count)


# --- the witnesses --------------------------------------------------------------------------------------------------


def _scale(true_km: float, km: float, rules: OdometerRules) -> float:
    """Factor from a distance to the one that the receiver's own speed gives over the same time; 1 without evidence."""
    if min(true_km, km) < rules.scale_min_km:
        return 1.0
    scale = true_km / km
    return scale if 1 / rules.scale_max <= scale <= rules.scale_max else 1.0


def _speed_segments(
    days: list[dict[str, Any]],
    silences: list[dict[str, Any]],
    travelled: Travelled,
    rules: OdometerRules,
    ledger: _Ledger,
) -> None:
    """Kilometres by speed: days, pairs over midnight, and what the track says of the silences."""
    logged = [day for day in days if day["first_at"] is not None and day["speed_count"] > 0]
    scale = _scale(
        sum(day["paired_gps_speed_km"] for day in logged), sum(day["paired_speed_km"] for day in logged), rules
    )
    gaps = [(row["from_at"], row["to_at"]) for row in silences]
    for before, day in zip([None, *logged], logged, strict=False):
        if before is not None:
            km = _midnight_km(before, day, rules)
            if km > 0:
                ledger.add(Source.SPEED, "link", before["last_at"], day["first_at"], km, scaled_km=km * scale)
            elif before["measured_month"] != day["measured_month"]:
                gaps.append((before["last_at"], day["first_at"]))
        km = day["speed_km"]
        ledger.add(Source.SPEED, "day", day["first_at"], day["last_at"], km, scaled_km=km * scale)
    for begin, end in gaps:
        km = travelled.between(begin, end)
        if km > rules.gps_moved_km:
            ledger.add(Source.SPEED, "bridge", begin, end, km, unlogged_km=km)


def _gps_segments(pieces: list[TrackPiece], rules: OdometerRules, ledger: _Ledger) -> None:
    """Kilometres by GPS, one segment per day and stretch without a link. Chords cut corners: the receiver's own speed says
    by how much; bridged ones stay chords."""
    whole = [piece for piece in pieces if piece.kind == "run"]
    scale = _scale(sum(p.speed_km for p in whole), sum(p.km - p.bridged_km for p in whole), rules)
    joined: list[TrackPiece] = []
    for piece in pieces:
        last = joined[-1] if joined else None
        if (
            last is not None
            and last.kind == piece.kind == "run"
            and last.to_at == piece.from_at
            and last.from_at.date() == piece.to_at.date()
        ):
            km, bridged = last.km + piece.km, last.bridged_km + piece.bridged_km
            joined[-1] = TrackPiece("run", last.from_at, piece.to_at, km, bridged)
        elif piece.kind == "run" or piece.km > 0:
            joined.append(piece)
    for piece in joined:
        ledger.add(
            Source.GPS,
            piece.kind,
            piece.from_at,
            piece.to_at,
            piece.km,
            unlogged_km=piece.bridged_km,
            scaled_km=(piece.km - piece.bridged_km) * scale + piece.bridged_km,
        )


# --- the one way in -------------------------------------------------------------------------------------------------


def stitch(
    runs: pl.DataFrame,
    days: pl.DataFrame,
    gps_runs: pl.DataFrame,
    rules: OdometerRules,
    gated_months: Collection[str] = (),
) -> Stitched:
    """Kilometres in time and events of one device, from the pieces of its whole history, in any row order.

    ``runs``, ``days`` and ``gps_runs`` are rows of ``int_odometer_run``, ``int_mileage_day`` and ``int_gps_run`` of one
    device. The pieces of ``gated_months`` are left out: such a month is a silence to its neighbours. The segments of the
    odometer do not overlap except with ``frozen`` ones, which lie over runs that did not move; those of speed are days,
    links over midnight and bridges over silences.

    Raises ValueError when the pieces are of more than one device.
    """
    kept = [frame.filter(~pl.col("measured_month").is_in(list(gated_months))) for frame in (runs, days, gps_runs)]
    devices = {name for frame in kept for name in frame.get_column("device_no").unique().to_list()}
    if len(devices) > 1:
        raise ValueError(f"Pieces of one device at a time, got {sorted(devices)}")
    ledger = _Ledger(devices.pop() if devices else "")

    def rows(frame: pl.DataFrame, *by: str) -> list[dict[str, Any]]:
        return frame.sort(*by).to_dicts()

    day_rows = rows(kept[1], "service_date")
    by_kind = {kind: rows(kept[0].filter(pl.col("run_kind") == kind), "from_at", "run_no") for kind in _RUN_KINDS}
    gps_rows = rows(kept[2].select("run_no", *(f.name for f in fields(GpsRun))), "from_at", "run_no")
    gps_km = dict(kept[2].group_by("measured_month").agg(pl.col("km").sum()).iter_rows())

    pieces = track([GpsRun(**{k: v for k, v in row.items() if k != "run_no"}) for row in gps_rows], rules.gps)
    travelled = Travelled(pieces)
    _gps_segments(pieces, rules, ledger)
    _speed_segments(day_rows, by_kind["silence"], travelled, rules, ledger)
    if by_kind["reading"]:
        months = {row["measured_month"] for row in by_kind["reading"]}
        edges = _month_edges(day_rows, gps_km, months, rules)
        readings = _readings(by_kind["reading"], edges, travelled)
        _account(_trusted_chain(readings, rules, ledger), rules, ledger)
        _before_and_after(by_kind["reading"], day_rows, edges, travelled, ledger)
        _zeros(by_kind["zero"], by_kind["reading"], ledger)
    return ledger.result()
