"""What a detector is: evidence from the rows of one partition, readings from the evidence of a device's whole history.

Belongs here: the types and schemas that all detectors share. Does not belong here: any rule of one detector.

LOCAL: ``windows`` reduces the rows of one partition to evidence windows (a rest, a steady stretch of a charge, a day).
A window never decides: no line is applied to it, because lines may depend on the device's history and its pack type.
STITCHED: ``readings`` turns the windows of all months of a device into readings: a figure of one code (and of one cell
or module) over a time range, beside the lines it is judged by. What follows from readings (how many make an episode,
when it closes) is the same for all codes and stands in ``episodes``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import polars as pl

from baas_dagster.anomaly.rows import Car, Rows

__all__ = ["READING_SCHEMA", "WINDOW_SCHEMA", "Context", "Detector", "readings_frame", "windows_frame"]

WINDOW_SCHEMA: dict[str, Any] = {
    "detector": pl.String,  # name of the detector that made it
    "kind": pl.String,  # what it is a window of, in the detector's words: rest, charge, day, ...
    "from_at": pl.Datetime("us"),  # KST, first row of the window
    "to_at": pl.Datetime("us"),  # last row
    "n": pl.Int32,  # rows in it
    "value": pl.Float64,  # figure of the pack, in the detector's unit; NULL where there is none
    "values": pl.List(pl.Float32),  # figure of each cell or module, by position; NULL in it: no value
    "counts": pl.List(pl.Int32),  # count beside each figure, where the detector needs one
    "soc_pct": pl.Float64,  # mean over the window, where known
    "current_a": pl.Float64,  # mean over the window, charge positive
    "temp_c": pl.Float64,  # mean pack temperature over the window
    "detail": pl.String,  # JSON: what a mechanic or the stitching wants beside it
}
"""Evidence of one partition. The asset adds ``device_no`` and ``measured_month``."""

READING_SCHEMA: dict[str, Any] = {
    "code": pl.String,
    "item_no": pl.Int32,  # 1-based number of the cell or module; NULL: the pack or car as a whole
    "from_at": pl.Datetime("us"),
    "to_at": pl.Datetime("us"),
    "n": pl.Int32,  # rows or windows behind it
    "value": pl.Float64,  # the figure, in the unit of the code (``codes.CODES``)
    "sd": pl.Float64,  # standard error of the figure, where it is an estimate
    "watch": pl.Float64,  # line of severity 1; NULL: there is none
    "warn": pl.Float64,  # line of severity 2
    "alarm": pl.Float64,  # line of severity 3
    "is_low_bad": pl.Boolean,  # True: below the line is bad (insulation, health); the lines then fall
    "detail": pl.String,  # JSON: evidence
}
"""Readings of one device. All readings of an item that ever crossed a line are given, also those below it: they close
episodes. An item that never crossed one may be left out."""


@dataclass(frozen=True)
class Context:
    """What is known of a device beside its windows, for stitching."""

    car: Car
    rules: Any  # rules.AnomalyRules
    months: tuple[str, ...] = ()  # every delivered month, gated ones included
    marts: Mapping[str, pl.DataFrame] = field(default_factory=dict)  # rows of this device, by table name
    baseline: Mapping[str, Any] | None = None  # released figures of healthy cars of its pack type; None: none released
    baseline_version: str | None = None
    ocv_slope: Callable[[float], float] | None = None  # SoC in % -> dOCV/dSoC of a cell, mV per %; None: not known
    last_seen_at: datetime | None = None  # last row of the device: no window ends later


@dataclass(frozen=True)
class Detector:
    """One detector; its module registers it in ``registry``."""

    name: str
    codes: tuple[str, ...]
    columns: tuple[str, ...]  # staged columns that ``windows`` reads, lists (cell_mv, module_temp_dc) included
    windows: (
        Callable[[Rows, Car, Any], pl.DataFrame] | None
    )  # (rows, car, rules) -> WINDOW_SCHEMA; None: reads marts alone
    readings: Callable[[pl.DataFrame, Context], pl.DataFrame]  # (its windows, time ascending) -> READING_SCHEMA
    unjudged: Callable[[pl.DataFrame, Context], dict[str, str]] = lambda _windows, _context: {}
    """(its windows, context) -> code -> why this car cannot be judged by it (no cells delivered, too few rests)."""


def windows_frame(rows: list[dict[str, Any]]) -> pl.DataFrame:
    """Windows from dictionaries; what is not named is NULL."""
    return pl.DataFrame(rows, schema=WINDOW_SCHEMA)


def readings_frame(rows: list[dict[str, Any]]) -> pl.DataFrame:
    """Readings from dictionaries; what is not named is NULL, ``is_low_bad`` False."""
    return pl.DataFrame(rows, schema=READING_SCHEMA).with_columns(pl.col("is_low_bad").fill_null(value=False))
