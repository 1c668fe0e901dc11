"""Kilometres by speed and by GPS.

Belongs here: days of speed, the track, what the track says of silences, the scale that the receiver's own speed gives.
Does not belong here: the odometer (``odometer``), which source a car's distance comes from (dbt marts).
"""

from __future__ import annotations

from datetime import date

from baas_dagster.mileage.gps import TrackPiece, Travelled
from baas_dagster.mileage.ledger import Ledger, OdometerRules, Source
from baas_dagster.mileage.pieces import Row, midnight_km

__all__ = ["add_gps", "add_speed"]


def _scale(true_km: float, km: float, least_km: float, rules: OdometerRules) -> float:
    """Factor from a distance to the one that the receiver's own speed gives over the same time; 1 without evidence."""
    if min(true_km, km) < least_km:
        return 1.0
    scale = true_km / km
    return scale if 1 / rules.scale_max <= scale <= rules.scale_max else 1.0


def add_speed(
    days: list[Row],
    silences: list[Row],
    travelled: Travelled,
    rules: OdometerRules,
    ledger: Ledger,
) -> None:
    """Kilometres by speed: days, pairs over midnight, and what the track says of the silences."""
    logged = [day for day in days if day["first_at"] is not None and day["speed_count"] > 0]
    seen_km, paired_km = (sum(day[f"paired_{by}_km"] for day in logged) for by in ("gps_speed", "speed"))
    scale = _scale(seen_km, paired_km, rules.scale_min_km, rules)
    gaps = [(row["from_at"], row["to_at"]) for row in silences]
    for before, day in zip([None, *logged], logged, strict=False):
        if before is not None:
            km = midnight_km(before, day, rules)
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


def _daily_scales(days: list[Row], pieces: list[TrackPiece], rules: OdometerRules) -> tuple[dict[date, float], float]:
    """Factor from chords to distance by day where fixes are dense, and over the whole history for other days."""
    chords: dict[date, float] = {}
    for piece in pieces:
        if piece.kind == "run":
            day = piece.from_at.date()
            chords[day] = chords.get(day, 0.0) + piece.km
    seen = {day["service_date"]: day["gps_speed_km"] for day in days}
    dense = {
        day["service_date"]
        for day in days
        if (day["fix_interval_median_s"] or rules.gps_bridge_s) <= rules.speed_dense_s
    }
    whole = _scale(sum(seen.values()), sum(chords.values()), rules.scale_min_km, rules)
    return {day: _scale(seen[day], km, rules.gps_moved_km, rules) for day, km in chords.items() if day in dense}, whole


def add_gps(days: list[Row], pieces: list[TrackPiece], rules: OdometerRules, ledger: Ledger) -> None:
    """Kilometres by GPS, one segment per day and stretch without a link.

    Chords cut corners: the receiver's own speed says by how much; bridged ones stay chords.
    """
    scales, whole = _daily_scales(days, pieces, rules)
    joined: list[TrackPiece] = []
    for piece in pieces:
        last = joined[-1] if joined else None
        if (
            last is not None
            and last.kind == piece.kind == "run"
            and last.to_at == piece.from_at
            and last.from_at.date() == piece.to_at.date()
        ):
            joined[-1] = TrackPiece("run", last.from_at, piece.to_at, last.km + piece.km, 0.0)
        elif piece.kind == "run" or piece.km > 0:
            joined.append(piece)
    for piece in joined:
        scale = scales.get(piece.from_at.date(), whole)
        ledger.add(
            Source.GPS,
            piece.kind,
            piece.from_at,
            piece.to_at,
            piece.km,
            unlogged_km=piece.bridged_km,
            scaled_km=(piece.km - piece.bridged_km) * scale + piece.bridged_km,
        )
