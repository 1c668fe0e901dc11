"""What the stitching writes down: kilometres in time and events of one device, and the limits it works with.

Belongs here: the shape of the results and of the rules. Does not belong here: how anything is judged (``chain``) or
accounted for (``odometer``).
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from datetime import datetime
from enum import StrEnum
from typing import Any

import polars as pl

from baas_dagster.mileage.gps import GpsRules

__all__ = ["EVENT_SCHEMA", "SEGMENT_SCHEMA", "Action", "Code", "Ledger", "OdometerRules", "Source", "Stitched"]


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
    speed_dense_s: float
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
odometer). ``uncertain_km``: what a step that is no distance leaves open. ``from_km`` and ``to_km`` are readings, on
kept runs of the odometer only.
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


@dataclass
class Ledger:
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
        readings: tuple[float | None, float | None, float | None] = (None, None, None),
    ) -> None:
        """A stretch of time; `readings` are first and last reading and resolution of a kept run of the odometer."""
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
        """An event of the odometer."""
        row = (code, occurred_at, ended_at, from_km, to_km, distance_km, action, row_count, self.device_no)
        self.events.append(row)

    def result(self) -> Stitched:
        """Everything found, in an order that does not depend on how it was found."""
        segments = pl.DataFrame(self.segments, schema=SEGMENT_SCHEMA, orient="row")
        events = pl.DataFrame(self.events, schema=EVENT_SCHEMA, orient="row")
        return Stitched(
            segments.sort("source", "from_at", "to_at", "kind"),
            events.sort("occurred_at", "code", "ended_at"),
        )
