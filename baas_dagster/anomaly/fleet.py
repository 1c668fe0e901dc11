"""What only the whole fleet can tell of a car: that it is silent while others send.

Belongs here: DEVICE_SILENT. Does not belong here: the order of cars (``ranking``).
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

import polars as pl

from baas_dagster.anomaly.detector import readings_frame
from baas_dagster.anomaly.episodes import EPISODE_SCHEMA, episodes
from baas_dagster.anomaly.rules import HealthRules

__all__ = ["silent_episodes"]


def silent_episodes(
    last_seen: pl.DataFrame, open_devices: Iterable[str], as_of: datetime, rules: HealthRules
) -> pl.DataFrame:
    """DEVICE_SILENT, EPISODE_SCHEMA with device_no and measured_month. ``last_seen``: device_no, last_seen_at.

    Ages count to the last row of the fleet. Severity 2 while another episode of the car is open: nobody sees it go on.
    """
    hidden = set(open_devices)
    found = []
    for device, last in last_seen.sort("device_no").select("device_no", "last_seen_at").iter_rows():
        days = (as_of - last).total_seconds() / 86_400
        if days < rules.silent_days:
            continue
        known_at = last + timedelta(days=rules.silent_days)
        reading = {
            "code": "DEVICE_SILENT", "from_at": last, "to_at": known_at, "value": days, "watch": rules.silent_days,
            "warn": rules.silent_warn_days,
        }  # fmt: skip
        made = episodes(device, readings_frame([reading]))
        severity = pl.lit(2 if device in hidden else 1, pl.Int32)
        found.append(
            made.with_columns(
                severity=severity,
                clears_when=pl.lit("a delivery with rows of this car"),
                device_no=pl.lit(device),
                measured_month=pl.col("opened_at").dt.strftime("%Y-%m"),
            )
        )
    empty = pl.DataFrame(schema={**EPISODE_SCHEMA, "device_no": pl.String, "measured_month": pl.String})
    return pl.concat([empty, *found])
