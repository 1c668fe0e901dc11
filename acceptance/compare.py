"""Comparing published figures with the truth. Pure functions on frames; distances in km, times naive KST.

Belongs here: which rows belong together, what counts as right, and what is excepted and why. Does not belong here:
reading snapshots and truth, running the chain (``chain``), and targets as text.

The targets are those of the product: a month's distance is right when it is within max(1 km, 0.2 %) of the truth, plus
what the month itself declares open (`boundary_uncertain_km`), plus 3 % of its repaired kilometres.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import polars as pl

__all__ = [
    "compare_accounts",
    "compare_decisions",
    "compare_months",
    "days_against_months_km",
    "match_events",
    "outside_months",
    "unbalanced_files",
    "unexpected_events",
]

MONTH_KEYS = ["device_no", "measured_month"]

ALLOWED_KM = 1.0
"""km a month may always be off: the resolution of an integer odometer."""
ALLOWED_SHARE = 0.002
"""Share of the true distance a month may be off."""
ALLOWED_REPAIRED_SHARE = 0.03
"""Share of the kilometres taken from a witness a month may be off."""
_ROUNDING_KM = 1e-6

EVENT_TOLERANCE = timedelta(minutes=5)
"""An event is found when a found one of its code overlaps it, or comes this near: standstills begin with parking."""


def compare_months(published: pl.DataFrame, truth: pl.DataFrame, reset_months: pl.DataFrame) -> pl.DataFrame:
    """One row per device-month of truth or snapshot, with what may be expected of it and whether that holds.

    ``published``: rows of ``fct_mileage_monthly``; ``truth``: rows of ``truth_month``; ``reset_months``: device-months
    with an odometer reset. Adds ``true_km, error_km, allowed_km, excepted_because`` ('', 'reset', 'gated'),
    ``is_within`` (the target), ``is_contained`` (the stated interval holds the truth), ``is_explained`` (an excepted
    month says why, as it must). A month that is in one of the two alone is neither within nor contained.
    """
    true = truth.select(*MONTH_KEYS, true_km="distance_km", gate="gated_because")
    resets = reset_months.select(MONTH_KEYS).unique().with_columns(is_reset=pl.lit(value=True))
    error = (pl.col("distance_km") - pl.col("true_km")).abs()
    allowed = (
        pl.max_horizontal(pl.lit(ALLOWED_KM), ALLOWED_SHARE * pl.col("true_km"))
        + pl.col("boundary_uncertain_km").fill_null(0.0)
        + ALLOWED_REPAIRED_SHARE * pl.col("repaired_km").fill_null(0.0)
    )
    low, high = pl.col("distance_lo_km") - _ROUNDING_KM, pl.col("distance_hi_km") + _ROUNDING_KM
    is_gated_as_it_must = (
        pl.col("distance_km").is_null()
        & (pl.col("grade") == "D")
        & (pl.col("published_state") == "gated")
        & pl.col("gated_by").is_not_null()
    )
    is_reset_as_it_must = pl.col("grade").is_in(["C", "D"]) & pl.col("verdict").str.contains("reset")
    because = (
        pl.when(pl.col("gate").fill_null("") != "")
        .then(pl.lit("gated"))
        .when(pl.col("is_reset").fill_null(value=False))
        .then(pl.lit("reset"))
        .otherwise(pl.lit(""))
    )
    return (
        true.join(published, on=MONTH_KEYS, how="full", coalesce=True)
        .join(resets, on=MONTH_KEYS, how="left")
        .with_columns(error_km=error, allowed_km=allowed, excepted_because=because)
        .with_columns(
            is_within=(pl.col("error_km") <= pl.col("allowed_km") + _ROUNDING_KM).fill_null(value=False),
            is_contained=pl.col("true_km").is_between(low, high).fill_null(value=False),
            is_explained=pl.when(pl.col("excepted_because") == "gated")
            .then(is_gated_as_it_must)
            .when(pl.col("excepted_because") == "reset")
            .then(is_reset_as_it_must)
            .fill_null(value=False),
        )
        .drop("is_reset")
        .sort(MONTH_KEYS)
    )


def days_against_months_km(daily: pl.DataFrame, monthly: pl.DataFrame) -> float:
    """The largest difference between a month's distance and the sum of its days; gated months have neither."""
    days = daily.group_by(MONTH_KEYS).agg(pl.col("distance_km").sum().alias("days_km"))
    both = monthly.filter(pl.col("distance_km").is_not_null()).join(days, on=MONTH_KEYS, how="left")
    off = both.select((pl.col("distance_km") - pl.col("days_km").fill_null(0.0)).abs().max()).item()
    return float(off or 0.0)


def match_events(found: pl.DataFrame, injected: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Pair found with injected events of the same device and code, each at most once; both with ``is_matched``.

    ``found`` has ``device_no, code, occurred_at, ended_at``; ``injected`` has ``device_no, code, started_at,
    ended_at``. A pair overlaps in time, `EVENT_TOLERANCE` allowed; each injected event, in the order of their ends,
    takes the found one that ends first.
    """
    left = injected.sort("ended_at", "started_at").with_row_index("injected_no")
    right = found.sort("ended_at", "occurred_at").with_row_index("found_no")
    pairs = (
        left.select("injected_no", "device_no", "code", "started_at", "ended_at")
        .join(
            right.select("found_no", "device_no", "code", "occurred_at", found_end="ended_at"), on=["device_no", "code"]
        )
        .filter(
            (pl.col("occurred_at") <= pl.col("ended_at") + EVENT_TOLERANCE)
            & (pl.col("found_end") >= pl.col("started_at") - EVENT_TOLERANCE)
        )
        .sort("injected_no", "found_no")
    )
    taken: dict[int, int] = {}
    used: set[int] = set()
    for injected_no, found_no in pairs.select("injected_no", "found_no").iter_rows():
        if injected_no not in taken and found_no not in used:
            taken[injected_no] = found_no
            used.add(found_no)
    return (
        right.with_columns(is_matched=pl.col("found_no").is_in(sorted(used))).drop("found_no"),
        left.with_columns(is_matched=pl.col("injected_no").is_in(sorted(taken))).drop("injected_no"),
    )


def unexpected_events(found: pl.DataFrame, without_events: Sequence[str]) -> pl.DataFrame:
    """Events on cars that had none put in: all but zeros and gaps that the truth has. ``found``: of `match_events`."""
    is_natural = pl.col("code").is_in(["ODO_ZERO", "ODO_GAP"]) & pl.col("is_matched")
    return found.filter(pl.col("device_no").is_in(list(without_events)) & ~is_natural)


def outside_months(found: pl.DataFrame, months: pl.DataFrame) -> pl.DataFrame:
    """Events that neither lie in one of these device-months nor reach over it."""
    begin, end = pl.col("occurred_at").dt.strftime("%Y-%m"), pl.col("ended_at").dt.strftime("%Y-%m")
    numbered = found.with_row_index("event_no")
    touching = numbered.join(months.select("device_no", touched="measured_month"), on="device_no").filter(
        (begin <= pl.col("touched")) & (end >= pl.col("touched"))
    )
    return numbered.join(touching, on="event_no", how="anti").drop("event_no")


def compare_decisions(layouts: pl.DataFrame, delivery: pl.DataFrame, decisions: pl.DataFrame) -> pl.DataFrame:
    """One row per device-month with BMS rows: the sign and scale that were decided for its export, beside the true.

    ``layouts``: rows of ``truth_layout``; ``delivery`` says which layout a device's month came in; ``decisions``: rows
    of ``device_decision``. A month whose files came in several layouts must have all of them right.
    """
    came_in = (
        delivery.filter((pl.col("kind") == "bms") & pl.col("layout_id").is_not_null() & pl.col("devices").is_not_null())
        .select("layout_id", device_no="devices", measured_month="months")
        .explode("device_no")
        .explode("measured_month")
        .unique()
    )
    decided = decisions.filter(pl.col("layout_id").is_not_null())

    def value(decision: str) -> pl.DataFrame:
        chosen = decided.filter(pl.col("decision") == decision, pl.col("measured_month").is_null())
        return chosen.select("device_no", "layout_id", pl.col("value").cast(pl.Float64).alias(decision))

    own_months = decided.filter(pl.col("decision") == "current_sign", pl.col("measured_month").is_not_null()).select(
        *MONTH_KEYS, "layout_id", has_own=True, own_sign=pl.col("value").cast(pl.Float64)
    )
    keys = ["device_no", "layout_id"]
    return (
        layouts.join(came_in, on=MONTH_KEYS)
        .join(value("current_sign"), on=keys, how="left")
        .join(value("voltage_scale"), on=keys, how="left")
        .join(own_months, on=[*MONTH_KEYS, "layout_id"], how="left")
        .with_columns(current_sign=pl.when("has_own").then("own_sign").otherwise("current_sign"))
        .with_columns(
            is_sign_right=(pl.col("current_sign") == pl.col("delivered_current_sign")).fill_null(value=False),
            is_scale_right=(pl.col("voltage_scale") == pl.col("delivered_voltage_scale")).fill_null(value=False),
        )
        .sort(*MONTH_KEYS, "layout_id")
    )


def unbalanced_files(delivery: pl.DataFrame) -> pl.DataFrame:
    """Delivered BMS and GPS files whose rows read are not kept + duplicate + superseded + rejected."""
    accounted = pl.sum_horizontal("rows_kept", "rows_duplicate", "rows_superseded", "rows_rejected")
    return delivery.filter(pl.col("kind").is_in(["bms", "gps"])).filter(pl.col("rows_read") != accounted)


def compare_accounts(delivery: pl.DataFrame, truth_file: pl.DataFrame) -> pl.DataFrame:
    """Written BMS and GPS files whose rows read or rejected are not what was written; no rows where all are right.

    A byte-identical copy is read once, under its first name; its other names must be marked as duplicates without
    rows. ``delivery`` names a bare file's member like the file, ``truth_file`` leaves it empty.
    """
    is_bare = pl.col("member").fill_null("") == pl.col("file_name").str.split("/").list.last()
    seen = delivery.select(
        path="file_name",
        member=pl.when(is_bare).then(pl.lit("")).otherwise(pl.col("member").fill_null("")),
        status="status",
        rows_read="rows_read",
        rows_rejected="rows_rejected",
    )
    copies = seen.filter(pl.col("status") == "duplicate").select("path")
    written = truth_file.filter(pl.col("kind").is_in(["bms", "gps"]) & ~pl.col("is_broken"))
    right = (pl.col("rows_read") == pl.col("data_rows")) & (pl.col("rows_rejected") == pl.col("broken_rows"))
    return (
        written.join(copies, on="path", how="anti")
        .join(seen.filter(pl.col("status") != "duplicate"), on=["path", "member"], how="left")
        .filter(~right.fill_null(value=False))
        .select("path", "member", "data_rows", "rows_read", "broken_rows", "rows_rejected", "status")
        .sort("path", "member")
    )
