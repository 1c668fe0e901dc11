"""Stitching of the odometer of one device: from monotone runs to kilometres in time, and to events.

Belongs here: kilometres and events of the trusted chain after the whole history of the device is known (DOMAIN 4).
Does not belong here: how runs are cut (dbt ``int_odometer_run``), which runs are trusted (``chain``), calendar days,
months, grades (dbt marts), storage.

The trusted chain: runs are walked in time order. A run that continues the chain is appended. When the odometer falls,
either the runs before were a glitch upwards (the fall comes back to the level before an undriven rise: they are taken
out), or the runs from here are a glitch downwards (a later undriven rise comes back to the level before the fall: they
are skipped), or the fall stays (small fall, rollback, reset). A rise that no car drives and that nothing undoes is a
jump. Rises and falls that stay carry no kilometres of the odometer; what the witnesses saw meanwhile replaces them.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import polars as pl

from baas_dagster.mileage.chain import EPSILON_KM, Chain, Link, trusted_chain
from baas_dagster.mileage.gps import GpsRun, TrackPiece, Travelled, track
from baas_dagster.mileage.ledger import (
    EVENT_SCHEMA,
    SEGMENT_SCHEMA,
    Action,
    Code,
    Ledger,
    OdometerRules,
    Source,
    Stitched,
)
from baas_dagster.mileage.pieces import (
    MonthEdge,
    Row,
    Run,
    elapsed_s,
    month_edges,
    readings_in_order,
    seen_km,
    silent_s,
)
from baas_dagster.mileage.witness import add_gps, add_speed

__all__ = ["EVENT_SCHEMA", "SEGMENT_SCHEMA", "Action", "Code", "OdometerRules", "Source", "Stitched", "stitch"]

_RUN_KINDS = ("reading", "zero", "silence")


@dataclass(frozen=True)
class _Piece:
    """A stretch of time with what a witness saw in it, and how long of it was silent."""

    from_at: datetime
    to_at: datetime
    seen_km: float
    silent_s: float = 0.0


def _spread(ledger: Ledger, kind: str, total_km: float, pieces: list[_Piece]) -> None:
    """Kilometres of the odometer over pieces of time: by what the witness saw, the rest over the silences."""
    all_silent_s = sum(piece.silent_s for piece in pieces)
    all_seen_km = sum(piece.seen_km for piece in pieces)
    all_s = sum(elapsed_s(piece.from_at, piece.to_at) for piece in pieces)
    logged_km = min(total_km, all_seen_km) if all_silent_s > 0 else total_km
    for piece in pieces:
        if all_seen_km > 0:
            share = piece.seen_km / all_seen_km
        elif all_s > 0:
            share = elapsed_s(piece.from_at, piece.to_at) / all_s
        else:
            share = 1 / len(pieces)
        unlogged = (total_km - logged_km) * piece.silent_s / all_silent_s if all_silent_s > 0 else 0.0
        km = logged_km * share + unlogged
        ledger.add(Source.ODOMETER, kind, piece.from_at, piece.to_at, km, unlogged_km=unlogged)


def _return_pieces(top: Run, skipped: list[Run], run: Run) -> list[_Piece]:
    """The time from a kept run over removed ones to the next kept one."""
    pieces: list[_Piece] = []
    before = top
    for taken in skipped:
        pieces.append(_Piece(before.to_at, taken.from_at, seen_km(before, taken), silent_s(before, taken)))
        pieces.append(_Piece(taken.from_at, taken.to_at, taken.seen_to - taken.seen_from))
        before = taken
    return [*pieces, _Piece(before.to_at, run.from_at, seen_km(before, run), silent_s(before, run))]


@dataclass
class _Standstill:
    """Time in which the odometer did not move, with what the witnesses saw in it."""

    level_km: float
    pieces: list[_Piece] = field(default_factory=list)
    row_count: int = 0

    @property
    def seen_km(self) -> float:
        return sum(piece.seen_km for piece in self.pieces)


def _repair(ledger: Ledger, still: _Standstill, counted_km: float) -> None:
    """The odometer never caught up: add what the witness saw beyond what the odometer counted when it moved again."""
    missing = max(still.seen_km - counted_km, 0.0)
    for piece in still.pieces:
        km = piece.seen_km * missing / still.seen_km
        ledger.add(Source.ODOMETER, "frozen", piece.from_at, piece.to_at, km, repaired_km=km)
    ledger.event(
        Code.FROZEN,
        still.pieces[0].from_at,
        still.pieces[-1].to_at,
        still.level_km,
        still.level_km,
        still.seen_km,
        Action.REPAIRED,
        still.row_count,
    )


def _settle(ledger: Ledger, still: _Standstill, top: Run, run: Run, link: Link, rules: OdometerRules) -> Action | None:
    """Settle a standstill that ends with a step between two runs: spread, repaired, or nothing to settle."""
    if still.seen_km <= rules.odometer_frozen_km:
        return None
    is_rise = link.kind in ("plain", "return")
    witnessed = still.seen_km + link.seen_km
    unseen = rules.odometer_max_kmh * (link.silent_s + sum(p.silent_s for p in still.pieces)) / 3600
    enough = witnessed * (1 - rules.witness_match_share) - 1.05 * run.resolution_km
    most = witnessed * (1 + rules.witness_match_share) + rules.odometer_slack_km + unseen
    if not ((is_rise or link.kind == Code.JUMP) and enough <= link.step_km <= most):
        _repair(ledger, still, max(link.step_km - link.seen_km, 0.0) if is_rise else 0.0)
        return Action.REPAIRED
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
    return Action.SPREAD


def _account_link(ledger: Ledger, top: Run, run: Run, link: Link, stood_km: float, rules: OdometerRules) -> None:
    """Kilometres and event of the step between two kept runs; `stood_km` were seen since the odometer last moved."""
    gap_km = 0.0
    if link.kind == "plain":
        km = max(link.step_km, 0.0)
        kind, gap_km = ("gap", km) if link.silent_s > 0 else ("link", 0.0)
        ledger.add(Source.ODOMETER, kind, top.to_at, run.from_at, km, unlogged_km=gap_km)
    elif link.kind == "return":
        _spread(ledger, "return", max(link.step_km, 0.0), _return_pieces(top, link.skipped, run))
        if link.silent_s > 0:
            gap_km = link.step_km - link.seen_km
    else:
        _account_step(ledger, Code(link.kind), top, run, link, stood_km, rules)
    if gap_km >= rules.odometer_gap_event_km:
        ledger.event(Code.GAP, top.to_at, run.from_at, top.to_km, run.from_km, gap_km, Action.UNLOGGED, 0)


def _account_step(
    ledger: Ledger, code: Code, top: Run, run: Run, link: Link, stood_km: float, rules: OdometerRules
) -> None:
    """A step of the odometer that is no distance: what the witness saw meanwhile replaces it."""
    fall_or_rise = abs(link.step_km)
    if code is Code.SMALL_FALL:
        ledger.add(Source.ODOMETER, "step", top.to_at, run.from_at, 0.0, uncertain_km=fall_or_rise)
        ledger.event(code, run.from_at, run.from_at, top.to_km, run.from_km, fall_or_rise, Action.COUNTED, 1)
        return
    # two speeds and the time between them are all that is known of the way; a jump holds at least its kilometres
    open_km = link.seen_km + rules.witness_slack_kmh * elapsed_s(top.to_at, run.from_at) / 3600
    if code is Code.JUMP:
        open_km = min(open_km, fall_or_rise)
    # readings are cut to the odometer's resolution: what was driven since it last moved is not counted yet, and its
    # next move counts what was driven before the step
    driven = link.seen_km + stood_km
    if run.has_witness and run.change_count:
        driven += run.head_km - run.resolution_km
    open_km += run.resolution_km
    ledger.add(
        Source.ODOMETER,
        "step",
        top.to_at,
        run.from_at,
        max(driven, 0.0),
        repaired_km=max(driven, 0.0),
        uncertain_km=open_km,
    )
    if driven < 0:  # never more than the run's first move, in the time of which it lies
        ledger.add(Source.ODOMETER, "step", run.from_at, run.first_change_at, max(driven, -run.resolution_km))
    ledger.event(code, run.from_at, run.from_at, top.to_km, run.from_km, fall_or_rise, Action.EXCLUDED, 1)


def _account(chain: Chain, rules: OdometerRules, ledger: Ledger) -> None:
    """Turn the chain into segments and events, standstills included."""
    still: _Standstill | None = None
    top: Run | None = None
    for run, link in zip(chain.runs, chain.links, strict=True):
        if link is not None and top is not None and still is not None:
            if link.kind == "plain" and abs(link.step_km) <= EPSILON_KM:
                still.pieces.append(_Piece(top.to_at, run.from_at, link.seen_km, link.silent_s))
                ledger.add(Source.ODOMETER, "link", top.to_at, run.from_at, 0.0)
            else:
                settled = _settle(ledger, still, top, run, link, rules)
                if settled is not Action.SPREAD:
                    stood_km = 0.0 if settled is Action.REPAIRED else still.seen_km
                    _account_link(ledger, top, run, link, stood_km, rules)
                still = None
        readings = (run.from_km, run.to_km, run.resolution_km)
        ledger.add(Source.ODOMETER, "run", run.from_at, run.to_at, run.to_km - run.from_km, readings=readings)
        still = still or _Standstill(run.from_km)
        still.row_count += run.row_count
        if run.change_count == 0:
            still.pieces.append(_Piece(run.from_at, run.to_at, run.seen_to - run.seen_from))
        else:
            still.pieces.append(_Piece(run.from_at, run.first_change_at, run.head_km))
            if still.seen_km > rules.odometer_frozen_km:
                _repair(ledger, still, run.resolution_km)
            tail = _Piece(run.last_change_at, run.to_at, run.tail_km)
            still = _Standstill(run.to_km, [tail], run.row_count)
        top = run
    if still is not None and still.seen_km > rules.odometer_frozen_km:
        _repair(ledger, still, 0.0)


def _before_and_after(
    rows: list[Row],
    days: list[Row],
    edges: dict[str, MonthEdge],
    track_pieces: Sequence[TrackPiece],
    travelled: Travelled,
    ledger: Ledger,
) -> None:
    """Kilometres that a witness saw before the first reading of the history and after its last one.

    Where the car's own messages are missing too (a month of which only the GPS log was delivered), the track counts:
    a car that was seen moving has not stood still.
    """

    def add(begin: datetime, end: datetime, km: float) -> None:
        if begin < end and km > 0:
            ledger.add(Source.ODOMETER, "step", begin, end, km, repaired_km=km)

    first, last = rows[0], rows[-1]
    logged = [day for day in days if day["first_at"] is not None]
    for day in logged:
        if day["measured_month"] < first["measured_month"] or day["measured_month"] > last["measured_month"]:
            add(day["first_at"], day["last_at"], day["speed_km"] or travelled.between(day["first_at"], day["last_at"]))
    own_first, own_last = min(day["first_at"] for day in logged), max(day["last_at"] for day in logged)
    for piece in track_pieces:
        if (piece.to_at <= own_first or piece.from_at >= own_last) and piece.km > 0:
            # a chord may hide any detour: what was bridged is uncertain by its own length
            ledger.add(
                Source.ODOMETER,
                "step",
                piece.from_at,
                piece.to_at,
                piece.km,
                unlogged_km=piece.bridged_km,
                repaired_km=piece.km,
                uncertain_km=piece.bridged_km,
            )
    begin = min(day["first_at"] for day in logged if day["measured_month"] == first["measured_month"])
    end = max(day["last_at"] for day in logged if day["measured_month"] == last["measured_month"])
    is_fast = edges[first["measured_month"]].use_speed
    add(begin, first["from_at"], first["before_speed_km"] if is_fast else travelled.between(begin, first["from_at"]))
    is_fast = edges[last["measured_month"]].use_speed
    add(last["to_at"], end, last["after_speed_km"] if is_fast else travelled.between(last["to_at"], end))


def _zeros(zero_rows: list[Row], reading_rows: list[Row], ledger: Ledger) -> None:
    """One event per stretch of zeros between two readings; over a month's edge it is one stretch."""
    reading_months = {row["measured_month"] for row in reading_rows}
    stretches: list[list[Row]] = []
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


def stitch(
    runs: pl.DataFrame,
    days: pl.DataFrame,
    gps_runs: pl.DataFrame,
    rules: OdometerRules,
    gated_months: Collection[str] = (),
) -> Stitched:
    """Kilometres in time and events of one device, from the pieces of its whole history, in any row order.

    ``runs``, ``days`` and ``gps_runs`` are rows of ``int_odometer_run``, ``int_mileage_day`` and ``int_gps_run`` of one
    device. The pieces of ``gated_months`` are left out: such a month is a silence to its neighbours. Segments of the
    odometer overlap only with ``frozen`` ones, which lie over runs that did not move; those of speed are days, links
    over midnight and bridges over silences.

    Raises ValueError when the pieces are of more than one device.
    """
    kept = [frame.filter(~pl.col("measured_month").is_in(list(gated_months))) for frame in (runs, days, gps_runs)]
    devices = {name for frame in kept for name in frame.get_column("device_no").unique().to_list()}
    if len(devices) > 1:
        raise ValueError(f"Pieces of one device at a time, got {sorted(devices)}")
    ledger = Ledger(devices.pop() if devices else "")

    def rows(frame: pl.DataFrame, *by: str) -> list[Row]:
        return frame.sort(*by).to_dicts()

    day_rows = rows(kept[1], "service_date")
    by_kind = {kind: rows(kept[0].filter(pl.col("run_kind") == kind), "from_at", "run_no") for kind in _RUN_KINDS}
    gps_runs = kept[2].sort("from_at", "run_no").select(GpsRun._fields)
    gps_km = dict(kept[2].group_by("measured_month").agg(pl.col("km").sum()).iter_rows())

    pieces = track([GpsRun(*row) for row in gps_runs.iter_rows()], rules.gps)
    travelled = Travelled(pieces)
    add_gps(day_rows, pieces, rules, ledger)
    add_speed(day_rows, by_kind["silence"], travelled, rules, ledger)
    if by_kind["reading"]:
        months = {row["measured_month"] for row in by_kind["reading"]}
        edges = month_edges(day_rows, gps_km, months, rules)
        readings = readings_in_order(by_kind["reading"], edges, travelled)
        _account(trusted_chain(readings, rules, ledger), rules, ledger)
        _before_and_after(by_kind["reading"], day_rows, edges, pieces, travelled, ledger)
        _zeros(by_kind["zero"], by_kind["reading"], ledger)
    return ledger.result()
