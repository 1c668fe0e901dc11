"""The track of one device from its runs of GPS positions.

Belongs here: which runs are glitches of the receiver, and the chords between the others. Does not belong here: single
fixes and their steps (dbt ``int_gps_position``), calendar days (dbt marts).
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from datetime import datetime
from math import asin, cos, radians, sin, sqrt
from typing import NamedTuple

__all__ = ["GpsRules", "GpsRun", "TrackPiece", "Travelled", "haversine_km", "track"]

EARTH_RADIUS_KM = 6371.0088
"""Mean radius of the Earth (IUGG)."""


@dataclass(frozen=True)
class GpsRules:
    """Limits of a plausible track; values and reasons stand in ``dbt_project.yml``."""

    gps_max_kmh: float
    gps_step_slack_km: float
    gps_bridge_s: float
    gps_standing_km: float
    gps_glitch_max_s: float


class GpsRun(NamedTuple):
    """A run of positions without a silence and without an implausible step: ends in time and place, and kilometres.

    ``is_after_jump``: the step from the run just before is none that a car could drive.
    """

    from_at: datetime
    to_at: datetime
    is_after_jump: bool
    from_lat: float
    from_lng: float
    to_lat: float
    to_lng: float
    km: float


class TrackPiece(NamedTuple):
    """A stretch of the cleaned track; ``bridged_km`` of its ``km`` is a chord over a silence."""

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
    seconds = (after.from_at - before.to_at).total_seconds()
    return _chord_km(before, after) <= rules.gps_max_kmh * seconds / 3600 + rules.gps_step_slack_km


def _without_glitches(runs: list[GpsRun], rules: GpsRules) -> tuple[list[GpsRun], list[bool]]:
    """Runs without stays elsewhere from which the track comes back to where it was, however many fixes they hold.

    Beside each kept run: whether it can be reached from the kept run before it.
    """
    kept: list[GpsRun] = []
    reached: list[bool] = []
    jumps: list[int] = []  # positions in `kept` that could not be reached
    for previous, run in zip([None, *runs], runs, strict=False):
        for entered in reversed(jumps):
            base, top = kept[entered - 1], kept[-1]
            stay_s = sum((r.to_at - r.from_at).total_seconds() for r in kept[entered:])
            if stay_s > rules.gps_glitch_max_s:
                break
            # after a long silence anything is drivable: nearer to the old track than to the stay elsewhere is back
            if _is_drivable(base, run, rules) and _chord_km(base, run) < _chord_km(top, run):
                del kept[entered:], reached[entered:]
                jumps = [jump for jump in jumps if jump < entered]
                break
        is_reached = True
        if kept:
            is_direct_jump = run.is_after_jump and kept[-1] is previous
            is_reached = not is_direct_jump and _is_drivable(kept[-1], run, rules)
        if not is_reached:
            jumps.append(len(kept))
        kept.append(run)
        reached.append(is_reached)
    return kept, reached


def track(runs: list[GpsRun], rules: GpsRules) -> list[TrackPiece]:
    """Pieces of the cleaned track in time order: the kept runs and the chords between them.

    ``runs`` are sorted by time and do not overlap; a run that begins where and when the one before ended goes on from
    it. A step that stays implausible (the receiver moved for good) is no distance. A chord over more than
    ``gps_bridge_s`` is bridged.
    """
    kept, reached = _without_glitches(runs, rules)
    pieces: list[TrackPiece] = []
    for before, run, is_reached in zip([None, *kept], kept, reached, strict=False):
        if before is not None and before.to_at < run.from_at and is_reached:
            chord = _chord_km(before, run)
            is_bridged = (run.from_at - before.to_at).total_seconds() > rules.gps_bridge_s
            chord = chord if chord >= rules.gps_standing_km else 0.0
            pieces.append(TrackPiece("link", before.to_at, run.from_at, chord, chord if is_bridged else 0.0))
        pieces.append(TrackPiece("run", run.from_at, run.to_at, run.km, 0.0))
    return pieces


class Travelled:
    """Kilometres of a track up to any time: linear inside a piece."""

    def __init__(self, pieces: list[TrackPiece]) -> None:
        self._at: list[datetime] = []
        self._km: list[float] = []
        total = 0.0
        for piece in pieces:
            self._at += [piece.from_at, piece.to_at]
            self._km += [total, total + piece.km]
            total += piece.km

    def _until(self, at: datetime) -> float:
        after = bisect_right(self._at, at)
        if after == 0:
            return 0.0
        if after == len(self._at):
            return self._km[-1]
        begin, end = self._at[after - 1], self._at[after]
        share = (at - begin) / (end - begin)
        return self._km[after - 1] + share * (self._km[after] - self._km[after - 1])

    def between(self, begin: datetime, end: datetime) -> float:
        """Kilometres between two times; 0 where nothing is known."""
        return self._until(end) - self._until(begin)
