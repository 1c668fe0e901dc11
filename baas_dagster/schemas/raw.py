"""What a raw partition must look like.

Belongs here: structure, which keeps a partition out when it is broken (GATE), and what is delivered outside the range
of its unit, which is flagged and handed on. Does not belong here: what is a measurement and what is not (dbt staging
counts that after the device's decisions), and the marts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandera.polars as pa
import polars as pl

from baas_dagster.schemas.outcome import Outcome, Severity, outcomes_by
from baas_dagster.telemetry.columns import TableKind

__all__ = ["CHECKED_COLUMNS", "RawPartition", "check_partitions", "interleaved_share"]

CHECKED_COLUMNS: dict[TableKind, list[str]] = {
    TableKind.BMS: [
        "time", "soc", "socd", "soh", "odometer", "emobility_spd", "pack_current", "cell_min_mv", "cell_max_mv",
        "cell_n", "cell_placeholder_n", "cell_sentinel_n", "cell_unfit_n", "temp_min_c", "temp_max_c",
        "insul_resistance", "source_file", "source_row", "device_no", "measured_month",
    ],
    TableKind.GPS: [
        "time", "lat", "lng", "speed", "fuel_pct", "hdop", "source_file", "source_row", "device_no", "measured_month",
    ],
}  # fmt: skip
"""The columns that a check reads; cells are not read again, their per-row figures stand for them."""


_PARTITION = ["partition_device", "partition_month"]
"""Columns that say which partition a row was found in, whatever the row itself says."""
_STRANGERS = "rows_belong_here"
_BATCH_ROWS = 300_000  # bounds the memory of the checked columns: about 50 MB


def _ascends(data: pa.PolarsData) -> pl.LazyFrame:
    frame: pl.LazyFrame = data.lazyframe
    return frame.select((pl.col(data.key).diff().over(_PARTITION) > pl.duration(seconds=0)).fill_null(value=True))


def _within(low: float, high: float, name: str) -> pa.Check:
    return pa.Check.in_range(low, high, error=name)


def _at_most(limit: float, name: str) -> pa.Check:
    return pa.Check.less_than_or_equal_to(limit, error=name)


def _number(check: pa.Check) -> pa.Column:
    return pa.Column(pl.Float64, check, nullable=True)


_SHARED = {
    "time": pa.Column(pl.Datetime("us"), pa.Check(_ascends, error="times_ascend"), nullable=False),
    "source_file": pa.Column(pl.String, nullable=False),
    "source_row": pa.Column(pl.Int64, pa.Check.ge(1, error="source_row_counts_from_one"), nullable=False),
}

_ROWS: dict[TableKind, pa.DataFrameSchema] = {
    # ranges of the units themselves (DOMAIN 1); what a car can physically do is judged in staging
    TableKind.BMS: pa.DataFrameSchema(
        {
            **_SHARED,
            "soc": _number(_within(0, 100, "soc_0_100_pct")),
            "socd": _number(_within(0, 100, "socd_0_100_pct")),
            "soh": _number(_within(0, 100, "soh_0_100_pct")),
            "odometer": _number(_within(0, 3_000_000, "odometer_0_3000000_km")),
            "emobility_spd": _number(_within(0, 250, "speed_0_250_kmh")),
            "pack_current": _number(_within(-600, 600, "current_within_600_a")),
            "cell_min_mv": pa.Column(pl.Int16, pa.Check.ge(1500, error="cell_min_1500_mv"), nullable=True),
            "cell_max_mv": pa.Column(pl.Int16, pa.Check.le(4500, error="cell_max_4500_mv"), nullable=True),
            "cell_n": pa.Column(pl.Int16, _at_most(192, "cells_at_most_192"), nullable=True),
            "temp_min_c": _number(_within(-40, 90, "temperature_min_40_90_c")),
            "temp_max_c": _number(_within(-40, 90, "temperature_max_40_90_c")),
            "insul_resistance": _number(pa.Check.ge(0, error="insulation_not_negative")),
        },
        strict=False,
    ),
    TableKind.GPS: pa.DataFrameSchema(
        {
            **_SHARED,
            "lat": _number(_within(-90, 90, "lat_90_deg")),
            "lng": _number(_within(-180, 180, "lng_180_deg")),
            "speed": _number(_within(0, 250, "gps_speed_0_250_kmh")),
            "fuel_pct": _number(_within(0, 100, "fuel_0_100_pct")),
            "hdop": _number(pa.Check.ge(0, error="hdop_not_negative")),
        },
        strict=False,
    ),
}

_STRUCTURE = {
    "times_ascend": Severity.GATE,
    "source_row_counts_from_one": Severity.GATE,
    "cells_at_most_192": Severity.GATE,
}


def _partition_schema(limits: Mapping[str, float]) -> pa.DataFrameSchema:
    """The frame of one row that describes a whole partition."""
    share = {name: pa.Column(pl.Float64, _at_most(limit, name), nullable=False) for name, limit in limits.items()}
    return pa.DataFrameSchema({**share, "strangers": pa.Column(pl.Int64, _at_most(0, _STRANGERS))})


def _alternates(rises: Any, falls: Any, rows: int) -> float:
    """Share of rows that change back and forth: the rarer of the two directions counts."""
    return 2.0 * min(int(np.sum(rises)), int(np.sum(falls))) / max(rows, 1)


def interleaved_share(rows: pl.DataFrame) -> float:
    """Share of rows at which the odometer steps by 1 km or more against the time, or the cell count goes to and fro.

    One car steps back a few times in 50,000 rows; two cars in one file do so at almost every row.
    """
    share = 0.0
    odometer = rows["odometer"].drop_nulls()
    odometer = odometer.filter(odometer > 0)
    if odometer.len() > 1:
        step = np.diff(odometer.to_numpy())
        share = _alternates(step >= 1.0, step <= -1.0, rows.height)
    counted = ("cell_n", "cell_placeholder_n", "cell_sentinel_n", "cell_unfit_n")
    cells = rows.select(pl.sum_horizontal(pl.col(c).cast(pl.Int32) for c in counted)).to_series().to_numpy()
    cells = cells[cells > 0]
    if cells.size > 1:
        step = np.diff(cells)
        share = max(share, _alternates(step > 0, step < 0, rows.height))
    return share


@dataclass(frozen=True)
class RawPartition:
    """One raw partition to be checked.

    `rows` has CHECKED_COLUMNS; `rejected` rows of this partition did not come in; `conflicting` times were delivered
    twice with different content.
    """

    device_no: str
    measured_month: str
    rows: pl.DataFrame
    rejected: int
    conflicting: int


def check_partitions(
    kind: TableKind, partitions: Sequence[RawPartition], limits: Mapping[str, float]
) -> dict[tuple[str, str], list[Outcome]]:
    """All checks of raw partitions: (device, month) -> outcomes.

    Validated together, because a check costs a millisecond however few rows it sees; what a group of rows gets does
    not depend on its neighbours. `limits` are the shares above which a partition is kept out (settings).
    """
    found: dict[tuple[str, str], list[Outcome]] = {}
    batch: list[RawPartition] = []
    for partition in partitions:
        batch.append(partition)
        if sum(p.rows.height for p in batch) >= _BATCH_ROWS:
            found |= _check_batch(kind, batch, limits)
            batch = []
    return found | (_check_batch(kind, batch, limits) if batch else {})


def _check_batch(
    kind: TableKind, partitions: Sequence[RawPartition], limits: Mapping[str, float]
) -> dict[tuple[str, str], list[Outcome]]:
    rows = pl.concat(
        [
            p.rows.with_columns(
                pl.col("source_file", "device_no", "measured_month").cast(pl.String),
                pl.lit(p.device_no).alias(_PARTITION[0]),
                pl.lit(p.measured_month).alias(_PARTITION[1]),
            )
            for p in partitions
        ]
    )
    found = {(k[0], k[1]): v for k, v in outcomes_by(_ROWS[kind], rows, _STRUCTURE, _PARTITION).items()}
    is_stranger = (
        (pl.col("device_no") != pl.col(_PARTITION[0]))
        | (pl.col("measured_month") != pl.col(_PARTITION[1]))
        | (pl.col("time").dt.strftime("%Y-%m") != pl.col(_PARTITION[1]))
    )
    strangers = {
        (device, month): count
        for device, month, count in rows.filter(is_stranger).group_by(_PARTITION).len().iter_rows()
    }
    whole = pl.DataFrame(
        [
            {
                _PARTITION[0]: p.device_no,
                _PARTITION[1]: p.measured_month,
                "rejected_share": p.rejected / max(p.rows.height + p.rejected, 1),
                "conflicting_share": p.conflicting / max(p.rows.height, 1),
                "interleaved_share": interleaved_share(p.rows) if kind is TableKind.BMS else 0.0,
                "strangers": strangers.get((p.device_no, p.measured_month), 0),
            }
            for p in partitions
        ],
        schema_overrides={"strangers": pl.Int64},
    )
    of_whole = outcomes_by(
        _partition_schema(limits), whole, dict.fromkeys([*limits, _STRANGERS], Severity.GATE), _PARTITION
    )
    for partition, shares in zip(partitions, whole.iter_rows(named=True), strict=True):
        key = (partition.device_no, partition.measured_month)
        counts = {
            "rejected_share": partition.rejected,
            "conflicting_share": partition.conflicting,
            "interleaved_share": round(shares["interleaved_share"] * partition.rows.height),
            _STRANGERS: shares["strangers"],
        }
        mine = found.setdefault(key, [])
        for outcome in of_whole[key]:
            if outcome.check_name not in counts:
                continue
            checked = partition.rows.height + (partition.rejected if outcome.check_name == "rejected_share" else 0)
            failed = counts[outcome.check_name]
            mine.append(Outcome(outcome.check_name, Severity.GATE, outcome.is_passed, checked, failed, outcome.example))
    return found
