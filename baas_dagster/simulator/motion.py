"""How a car moves: speed over time, and the track over the ground that belongs to it.

Belongs here: kinematics and geometry. Does not belong here: energy (``vehicle``), when and where to go (``schedule``).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["EARTH_RADIUS_M", "Path", "Site", "distance_m", "ground_path", "speed_profile"]

Floats = NDArray[np.float64]

EARTH_RADIUS_M = 6_371_008.8
"""Mean radius (IUGG)."""

_PATH_STEP_M = 20.0
_MAX_SPEED_MPS = 118 / 3.6


@dataclass(frozen=True)
class Site:
    """A place a car goes to. Every place has some charger: ``has_dc`` says whether a fast one."""

    lat: float
    lng: float
    has_dc: bool


@dataclass(frozen=True)
class Path:
    """A way over the ground: position by distance driven."""

    at_m: Floats
    lat: Floats
    lng: Floats
    direction_deg: Floats

    def position(self, driven_m: Floats) -> tuple[Floats, Floats, Floats]:
        """Latitude, longitude and heading (degrees clockwise from north) after ``driven_m``."""
        lat, lng = np.interp(driven_m, self.at_m, self.lat), np.interp(driven_m, self.at_m, self.lng)
        return lat, lng, np.interp(driven_m, self.at_m, self.direction_deg) % 360.0


def distance_m(a: Site, b: Site) -> float:
    """Straight distance on a plane at the mean latitude, m."""
    north, east = _offset_m(a, b)
    return float(np.hypot(north, east))


def _offset_m(a: Site, b: Site) -> tuple[float, float]:
    cosine = np.cos(np.radians((a.lat + b.lat) / 2))
    return (
        float(np.radians(b.lat - a.lat) * EARTH_RADIUS_M),
        float(np.radians(b.lng - a.lng) * EARTH_RADIUS_M * cosine),
    )


def speed_profile(rng: np.random.Generator, length_m: float) -> Floats:
    """Speed at every full second (m/s) of a drive of exactly ``length_m``: starts and ends at 0.

    Start-stop pieces (accelerate, hold, brake, stand) with town speeds; from 12 km on a middle part at motorway speeds.
    The trapezium sum of the result is ``length_m``.
    """
    count = int(length_m / 150) + 12
    town = rng.uniform(22, 66, count) / 3.6
    hold = 5 + rng.exponential(40, count)
    stand = rng.uniform(4, 50, count)
    if length_m > 12_000:
        motorway = slice(4, 4 + max(3, count // 12))
        size = len(range(*motorway.indices(count)))
        town[motorway] = rng.uniform(78, 106, size) / 3.6
        hold[motorway] = 120 + rng.exponential(360, size)
        stand[motorway] = rng.uniform(4, 12, size)
    speed_up, slow_down = rng.uniform(0.7, 1.5, count), rng.uniform(0.7, 1.7, count)
    ramps = 0.5 / speed_up + 0.5 / slow_down  # metres of both ramps per (m/s)^2
    cumulative = np.cumsum(town**2 * ramps + town * hold)
    last = min(int(np.searchsorted(cumulative, length_m)), count - 1)
    rest = length_m - (cumulative[last - 1] if last else 0.0)
    town[last] = min(town[last], np.sqrt(rest / ramps[last]))
    hold[last] = max(0.0, (rest - town[last] ** 2 * ramps[last]) / town[last])
    v, zero = town[: last + 1], np.zeros(last + 1)
    spans = np.column_stack([v / speed_up[: last + 1], hold[: last + 1], v / slow_down[: last + 1], stand[: last + 1]])
    knots_s = np.concatenate([[0.0], np.cumsum(spans.ravel())[:-1]])
    knots_v = np.concatenate([[0.0], np.column_stack([v, v, zero, zero]).ravel()[:-1]])
    seconds = np.arange(int(np.ceil(knots_s[-1])) + 1)
    speed = np.interp(seconds, knots_s, knots_v)
    phases = rng.uniform(0, 2 * np.pi, 3)
    for period_s, phase in zip((11.0, 27.0, 73.0), phases, strict=True):
        speed *= 1 + 0.03 * np.sin(2 * np.pi * seconds / period_s + phase)
    speed[0] = speed[-1] = 0.0
    speed = np.convolve(speed, np.full(5, 0.2))  # nobody steps on a pedal in no time
    speed *= length_m / max(float(speed.sum()), 1e-9)
    return np.minimum(speed, _MAX_SPEED_MPS) if speed.max() <= _MAX_SPEED_MPS else _limited(speed, length_m)


def _limited(speed: Floats, length_m: float) -> Floats:
    """The same length under the speed limit: capped, and the missing metres driven at the fastest second's speed."""
    capped = np.minimum(speed, _MAX_SPEED_MPS)
    extra_s = int(np.ceil((length_m - capped.sum()) / _MAX_SPEED_MPS))
    fastest = int(capped.argmax())
    longer = np.insert(capped, fastest, np.full(extra_s, capped[fastest])) if extra_s > 0 else capped
    return np.asarray(longer * (length_m / longer.sum()))


def ground_path(rng: np.random.Generator, start: Site, end: Site, length_m: float) -> Path:
    """A winding way from ``start`` to ``end`` whose length is exactly ``length_m`` (at least the straight distance).

    The heading swings about the straight line; how far it swings is solved so that the end is met. Most of the swing
    is kilometres long, a small part is street corners: chords between fixes a minute apart lose 1-3 %.
    """
    north, east = _offset_m(start, end)
    straight = float(np.hypot(north, east))
    points = max(int(length_m / _PATH_STEP_M), 24)
    at_m = np.linspace(0.0, length_m, points + 1)
    middle = (at_m[1:] + at_m[:-1]) / 2
    swing = np.zeros(points)
    for wave_m, weight in (
        (length_m / 1.5, 1.0),
        (length_m / 3.3, 0.8),
        (9_000, 0.5),
        (3_500, 0.35),
        (900, 0.22),
        (350, 0.15),
    ):
        if wave_m <= length_m:
            wave = wave_m * rng.uniform(0.8, 1.25)
            swing += weight * rng.normal(1, 0.15) * np.sin(2 * np.pi * middle / wave + rng.uniform(0, 2 * np.pi))
    low, high = 0.0, 3.0
    wanted = min(straight / length_m, 0.9999)
    for _ in range(22):  # to a few decimetres
        amplitude = (low + high) / 2
        if abs(np.exp(1j * amplitude * swing).mean()) > wanted:
            low = amplitude
        else:
            high = amplitude
    steps = np.exp(1j * low * swing)  # real part along the straight line, imaginary part to its left
    turn = np.exp(1j * np.arctan2(north, east)) * np.exp(-1j * np.angle(steps.mean()))
    track = np.concatenate([[0], np.cumsum(steps * turn)]) * (length_m / points)
    cosine = np.cos(np.radians((start.lat + end.lat) / 2))
    heading = 90.0 - np.degrees(np.unwrap(np.angle(steps * turn)))
    return Path(
        at_m=at_m,
        lat=start.lat + np.degrees(track.imag / EARTH_RADIUS_M),
        lng=start.lng + np.degrees(track.real / (EARTH_RADIUS_M * cosine)),
        direction_deg=np.concatenate([heading[:1], heading]),
    )
