"""Places where our own cars charge, and how they use them.

Belongs here: clustering the places of charging sessions into sites, and the use of each by weekday and hour. Does not
belong here: anything about other people's cars. Only our fleet's use of a site can be known from our own logs; it is
never the site's utilisation.

Everything is a function of the sessions alone: the same sessions in any order give the same sites with the same ids.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import polars as pl
from sklearn.cluster import DBSCAN

__all__ = ["SITE_SCHEMA", "USAGE_SCHEMA", "SiteRules", "site_usage", "sites", "sites_of_sessions"]

PolarsType = pl.DataType | type[pl.DataType]

_EARTH_RADIUS_M = 6_371_008.8  # mean radius (IUGG)
_GRID_DEG = 1e-4
"""About 10 m: sessions in one square are one point with a weight, a year at one plug costs one search."""

SITE_SCHEMA: dict[str, PolarsType] = {
    "site_id": pl.String, "lat": pl.Float64, "lng": pl.Float64, "first_session_at": pl.Datetime("us"),
    "last_session_at": pl.Datetime("us"), "device_count": pl.Int64, "session_count": pl.Int64,
    "dc_session_count": pl.Int64, "energy_kwh": pl.Float64, "charging_min": pl.Float64, "connected_min": pl.Float64,
    "power_max_kw": pl.Float64,
}  # fmt: skip
USAGE_SCHEMA: dict[str, PolarsType] = {
    "site_id": pl.String, "weekday": pl.Int64, "hour": pl.Int64, "sessions": pl.Int64, "energy_kwh": pl.Float64,
    "charging_min": pl.Float64, "connected_min": pl.Float64,
}  # fmt: skip


@dataclass(frozen=True)
class SiteRules:
    """What makes a site."""

    radius_m: float
    """Two sessions this near to each other may be one site, m."""
    min_sessions: int
    """Sessions that a place needs within that radius to be a site."""


def sites_of_sessions(sessions: pl.DataFrame, rules: SiteRules) -> pl.DataFrame:
    """Which site each session was at: rows (session_id, site_id) of the sessions that belong to one.

    `sessions` has session_id, started_at, lat and lng (degrees, NULL without a position). DBSCAN on great-circle
    distances (Ester et al. 1996). A site is named after its earliest session, which later sessions do not change;
    where two sites grow together the older name stays.
    """
    placed = sessions.filter(pl.col("lat").is_not_null() & pl.col("lng").is_not_null()).sort("started_at", "session_id")
    empty = pl.DataFrame(schema={"session_id": pl.String, "site_id": pl.String})
    if placed.is_empty():
        return empty
    squares = placed.with_columns(
        y=(pl.col("lat") / _GRID_DEG).round().cast(pl.Int64), x=(pl.col("lng") / _GRID_DEG).round().cast(pl.Int64)
    )
    points = squares.group_by("y", "x").agg(weight=pl.len()).sort("y", "x")
    labels = DBSCAN(
        eps=rules.radius_m / _EARTH_RADIUS_M, min_samples=rules.min_sessions, metric="haversine", algorithm="ball_tree"
    ).fit_predict(
        np.radians(points.select(pl.col("y") * _GRID_DEG, pl.col("x") * _GRID_DEG).to_numpy()),
        sample_weight=points["weight"].to_numpy(),
    )
    named = (
        squares.join(points.with_columns(label=pl.Series(labels, dtype=pl.Int64)), on=["y", "x"], how="inner")
        .filter(pl.col("label") >= 0)
        .sort("started_at", "session_id")
    )
    if named.is_empty():
        return empty
    names = named.group_by("label", maintain_order=True).agg(pl.col("session_id").first().alias("first_session"))
    names = names.with_columns(pl.col("first_session").map_elements(_name, return_dtype=pl.String).alias("site_id"))
    return named.join(names, on="label").select("session_id", "site_id").sort("session_id")


def _name(session_id: str) -> str:
    return hashlib.sha256(f"site|{session_id}".encode()).hexdigest()[:16]


def sites(sessions: pl.DataFrame, at: pl.DataFrame) -> pl.DataFrame:
    """One row per site (`SITE_SCHEMA`): middle of its sessions, and our cars' use of it in all.

    `sessions` has the columns of fct_charging_session, `at` is the result of `sites_of_sessions`.
    """
    joined = sessions.join(at, on="session_id", how="inner").sort("session_id")
    found = joined.group_by("site_id").agg(
        pl.col("lat").median(),
        pl.col("lng").median(),
        first_session_at=pl.col("started_at").min(),
        last_session_at=pl.col("started_at").max(),
        device_count=pl.col("device_no").n_unique(),
        session_count=pl.len(),
        dc_session_count=(pl.col("mode") == "DC").sum(),
        energy_kwh=_exact_sum("energy_kwh"),
        charging_min=_exact_sum("charging_min"),
        connected_min=_exact_sum("connected_min"),
        power_max_kw=pl.col("power_max_kw").max(),
    )
    return found.select(pl.col(name).cast(kind) for name, kind in SITE_SCHEMA.items()).sort("site_id")


def _exact_sum(column: str) -> pl.Expr:
    """Sum in units of 1e-6, null over nulls alone: whole numbers add up to the same in any order."""
    total = (pl.col(column) * 1e6).round().cast(pl.Int64).sum() / 1e6
    return pl.when(pl.col(column).is_not_null().any()).then(total).alias(column)


def site_usage(sessions: pl.DataFrame, at: pl.DataFrame) -> pl.DataFrame:
    """One row per site, ISO weekday (1 Monday) and KST hour in which our cars were connected (`USAGE_SCHEMA`).

    A session counts in the hour of its start; its energy and charging time are spread evenly from its start to its end,
    its connected time evenly from connection to disconnection. What is known of no session of a site is null.
    """
    joined = sessions.join(at, on="session_id", how="inner").filter(pl.col("ended_at") > pl.col("started_at"))
    if joined.is_empty():
        return pl.DataFrame(schema=USAGE_SCHEMA)
    starts = joined.select(
        "site_id",
        at=pl.col("started_at").dt.truncate("1h"),
        sessions=pl.lit(1, dtype=pl.Int64),
        energy_kwh=pl.lit(0.0),
        charging_min=pl.lit(0.0),
        connected_min=pl.lit(0.0),
    )
    charging = _spread(joined, "started_at", "ended_at", ["energy_kwh", "charging_min"])
    connected = _spread(joined, "connected_at", "disconnected_at", ["connected_min"])
    whole = pl.concat([starts, charging, connected])
    found = whole.group_by(
        "site_id", weekday=pl.col("at").dt.weekday().cast(pl.Int64), hour=pl.col("at").dt.hour().cast(pl.Int64)
    ).agg(pl.col("sessions").sum(), _exact_sum("energy_kwh"), _exact_sum("charging_min"), _exact_sum("connected_min"))
    metered = ("energy_kwh", "charging_min")
    known = joined.group_by("site_id").agg(pl.col(metered).is_not_null().any().name.prefix("has_"))
    found = found.join(known, on="site_id").with_columns(pl.when(f"has_{c}").then(c).alias(c) for c in metered)
    return found.select(pl.col(n).cast(kind) for n, kind in USAGE_SCHEMA.items()).sort("site_id", "weekday", "hour")


def _spread(sessions: pl.DataFrame, begin: str, end: str, columns: list[str]) -> pl.DataFrame:
    """The columns of each session cut into the hours between two times, by duration."""
    hours = sessions.select(
        "site_id",
        pl.col(begin).alias("begin"),
        pl.col(end).alias("end"),
        *(pl.col(c).fill_null(0.0) for c in columns),
        at=pl.datetime_ranges(pl.col(begin).dt.truncate("1h"), pl.col(end), "1h"),
    ).explode("at")
    inside = (
        pl.min_horizontal(pl.col("end"), pl.col("at").dt.offset_by("1h"))
        - pl.max_horizontal(pl.col("begin"), pl.col("at"))
    ).dt.total_microseconds()
    share = inside / (pl.col("end") - pl.col("begin")).dt.total_microseconds()
    zero = [c for c in ("energy_kwh", "charging_min", "connected_min") if c not in columns]
    return hours.select(
        "site_id",
        "at",
        sessions=pl.lit(0, dtype=pl.Int64),
        **{c: pl.col(c) * share for c in columns},
        **{c: pl.lit(0.0) for c in zero},
    ).select("site_id", "at", "sessions", "energy_kwh", "charging_min", "connected_min")
