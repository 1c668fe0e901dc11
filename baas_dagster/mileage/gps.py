"""The track of one device from its runs of GPS positions.

Belongs here: which runs are glitches of the receiver, and the chords between the others. Does not belong here: single
fixes and their steps (dbt ``int_gps_position``), calendar days (dbt marts).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from math import asin, cos, radians, sin, sqrt

__all__ = ["GpsRules", "GpsRun", "TrackPiece", "haversine_km", "track"]

EARTH_RADIUS_KM = 6371.0088
"""Mean radius of the Earth (IUGG)."""


@dataclass(frozen=True)
class GpsRules:
    """Limits of a plausible track; values and reasons stand in ``dbt_project.yml``."""

    gps_max_kmh: float
    gps_step_slack_km: float
    gps_hold_s: float
    gps_bridge_s: float
    gps_standing_km: float
    gps_glitch_max_s: float


@dataclass(frozen=True)
class GpsRun:
    """A run of positions without an implausible step: ends in time and place, kilometres, how many of them bridged.

    ``to_held_s``: how long the last position was reported unchanged; the car may have moved on meanwhile.
    """

    from_at: datetime
    to_at: datetime
    from_lat: float
    from_lng: float
    to_lat: float
    to_lng: float
    to_held_s: float
    km: float
    bridged_km: float


@dataclass(frozen=True)
class TrackPiece:
    """A stretch of the cleaned track. ``bridged_km`` of its ``km`` are chords over silences."""

    kind: str
    from_at: datetime
    to_at: datetime
    km: float
    bridged_km: float


def haversine_km(from_lat: float, from_lng: float, to_lat: float, to_lng: float) -> float:
    """Great-circle distance in km of two positions in degrees (haversine formula)."""
    half = (
        sin(radians(to_lat - from_lat) / 2) ** 2
        + cos(radians(from_lat)) * cos(radians(to_lat)) * sin(radians(to_lng - from_lng) / 2) ** 2
    )
    return 2 * EARTH_RADIUS_KM * asin(min(1.0, sqrt(half)))


def _chord_km(before: GpsRun, after: GpsRun) -> float:
    return haversine_km(before.to_lat, before.to_lng, after.from_lat, after.from_lng)


def _is_drivable(before: GpsRun, after: GpsRun, rules: GpsRules) -> bool:
    seconds = (after.from_at - before.to_at).total_seconds() + min(before.to_held_s, rules.gps_hold_s)
    return _chord_km(before, after) <= rules.gps_max_kmh * seconds / 3600 + rules.gps_step_slack_km


def _without_glitches(runs: list[GpsRun], rules: GpsRules) -> list[GpsRun]:
    """Runs without stays elsewhere from which the track comes back to where it was, however many fixes they hold."""
    kept: list[GpsRun] = []
    jumps: list[int] = []  # positions in `kept` that were entered by a step no car could drive
    for run in runs:
        for entered in reversed(jumps):
            base, top = kept[entered - 1], kept[-1]
            stay_s = sum((r.to_at - r.from_at).total_seconds() for r in kept[entered:])
            if stay_s > rules.gps_glitch_max_s:
                break
            # after a long silence anything is drivable: nearer to the old track than to the stay elsewhere is back
            if _is_drivable(base, run, rules) and _chord_km(base, run) < _chord_km(top, run):
                del kept[entered:]
                jumps = [jump for jump in jumps if jump < entered]
                break
        if kept and not _is_drivable(kept[-1], run, rules):
            jumps.append(len(kept))
        kept.append(run)
    return kept


def track(runs: list[GpsRun], rules: GpsRules) -> list[TrackPiece]:
    """Pieces of the cleaned track in time order: the kept runs and the chords between them.

    ``runs`` are sorted by time and do not overlap. A step that stays implausible (the receiver moved for good) is no
    distance. A chord over more than ``gps_bridge_s`` is bridged.
    """
    kept = _without_glitches(runs, rules)
    pieces: list[TrackPiece] = []
    for before, run in zip([None, *kept], kept, strict=False):
        if before is not None and _is_drivable(before, run, rules):
            chord = _chord_km(before, run)
            is_bridged = (run.from_at - before.to_at).total_seconds() > rules.gps_bridge_s
            if chord >= rules.gps_standing_km:
                pieces.append(TrackPiece("link", before.to_at, run.from_at, chord, chord if is_bridged else 0.0))
        pieces.append(TrackPiece("run", run.from_at, run.to_at, run.km + run.bridged_km, run.bridged_km))
    return pieces
