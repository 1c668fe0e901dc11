"""From delivered slices to the raw rows of one partition: which delivery wins, which row of a repeated time is kept.

Belongs here: superseding, de-duplication, order, and the accounting of every row. Pure functions on polars frames.
Does not belong here: reading and writing files (``assets``), and what is a measurement (dbt staging).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import polars as pl

__all__ = ["Delivered", "Merged", "SourceCount", "merge", "precedence", "superseding_spans"]

_LINEAGE = {"source_file", "source_row", "layout_id"}


@dataclass(frozen=True)
class Delivered:
    """What is known of one slice before its rows are read."""

    source_file: str
    logical_name: str
    delivered_at: datetime | None
    first_at: datetime
    last_at: datetime
    row_count: int
    is_sorted_unique: bool
    path: str = ""
    sha256: str = ""


@dataclass(frozen=True)
class SourceCount:
    """What became of the rows of one delivered file in one partition; the three add up to its rows."""

    source_file: str
    kept: int
    duplicates: int
    superseded: int


@dataclass(frozen=True)
class Merged:
    """Raw rows of a partition and their accounting.

    `conflicting` is the number of times for which files that all count delivered different content, or one of them rows
    that nothing orders (neither `msg_time` nor `seq`).
    """

    rows: pl.DataFrame
    sources: tuple[SourceCount, ...]
    conflicting: int


def precedence(slices: Sequence[Delivered]) -> list[Delivered]:
    """Slices from the weakest to the strongest: by delivery time, unknown first, then by content hash.

    A function of the deliveries alone: when a file was seen or copied does not enter.
    """
    return sorted(slices, key=lambda s: (s.delivered_at or datetime.min, s.source_file))


def superseding_spans(slices: Sequence[Delivered]) -> dict[str, list[tuple[datetime, datetime]]]:
    """For each slice the time spans that a stronger delivery of the same logical file covers.

    A corrected delivery replaces the earlier one for the time it covers, also where it has fewer rows; what lies
    outside that time stays, so that a partial re-delivery takes nothing away.
    """
    spans: dict[str, list[tuple[datetime, datetime]]] = {}
    stronger: dict[str, list[tuple[datetime, datetime]]] = {}
    for item in reversed(precedence(slices)):
        above = stronger.setdefault(item.logical_name, [])
        spans[item.source_file] = list(above)
        above.append((item.first_at, item.last_at))
    return spans


def merge(slices: Sequence[Delivered], frames: Sequence[pl.DataFrame]) -> Merged:
    """One row per time, ascending: the last message wins (`msg_time`, then `seq`), then the stronger delivery.

    `frames` are the rows of `slices`, in the same order. Within one file the later line wins a full tie.
    """
    rank = {item.source_file: i for i, item in enumerate(precedence(slices))}
    spans = superseding_spans(slices)
    parts: list[pl.DataFrame] = []
    delivered: dict[str, int] = {}
    superseded: dict[str, int] = {}
    for item, frame in zip(slices, frames, strict=True):
        rows = frame.with_columns(pl.lit(rank[item.source_file], dtype=pl.Int32).alias("__rank"))
        for first, last in spans[item.source_file]:
            rows = rows.filter(~pl.col("time").is_between(first, last))
        delivered[item.source_file] = frame.height
        superseded[item.source_file] = frame.height - rows.height
        parts.append(rows)
    together = pl.concat(parts, how="vertical_relaxed") if parts else pl.DataFrame()
    message = [c for c in ("msg_time", "seq") if c in together.columns]
    order = ["time", *message, "__rank", "source_row"]
    together = together.sort(order, nulls_last=False, maintain_order=False)
    is_last = pl.col("time") != pl.col("time").shift(-1)
    kept = together.filter(is_last.fill_null(value=True))

    conflicting = 0
    duplicates = dict.fromkeys(delivered, 0)
    if kept.height < together.height:
        repeated = together.filter(pl.col("time").is_duplicated())
        content = [c for c in repeated.columns if c not in _LINEAGE and c != "__rank"]
        # hashes of this frame are compared among themselves only, so their seed does not matter
        marked = repeated.select("time", "__rank", *message, repeated.select(content).hash_rows().alias("content"))
        per_time = marked.group_by("time").agg(pl.col("content").last().alias("winner"))
        # several messages within a second are none: what a file says is its last
        said = marked.group_by("time", "__rank").agg(pl.col("content").last().alias("said"))
        tied = marked.unique(["time", "__rank", *message, "content"]).filter(
            pl.struct("time", "__rank", *message).is_duplicated()
        )
        differ = said.unique(["time", "said"]).filter(pl.col("time").is_duplicated())
        conflicting = pl.concat([tied["time"], differ["time"]]).n_unique()
        winners = kept.select("time", pl.col("__rank").alias("winner_rank"))
        lost = marked.join(per_time, on="time").join(said, on=["time", "__rank"]).join(winners, on="time")
        # a row whose file loses to another with different content was corrected, any other is a repetition
        corrected = (pl.col("__rank") != pl.col("winner_rank")) & (pl.col("said") != pl.col("winner"))
        counted = lost.group_by("__rank").agg(corrected.sum().alias("corrected"))
        by_rank = dict(counted.iter_rows())
        lost_by_rank = dict(together.group_by("__rank").len().iter_rows())
        kept_by_rank = dict(kept.group_by("__rank").len().iter_rows())
        for source, number in rank.items():
            gone = lost_by_rank.get(number, 0) - kept_by_rank.get(number, 0)
            corrections = by_rank.get(number, 0)
            superseded[source] += corrections
            duplicates[source] = gone - corrections
    counts = tuple(
        SourceCount(s, delivered[s] - duplicates[s] - superseded[s], duplicates[s], superseded[s])
        for s in sorted(delivered)
    )
    return Merged(kept.drop("__rank"), counts, conflicting)
