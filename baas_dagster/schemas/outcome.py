"""Running a pandera schema on a frame and turning what it finds into counted outcomes.

Belongs here: the outcome of a check, and the one way to validate. Does not belong here: which checks there are.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

# full depth also for lazy frames: the default looks at the schema alone and passes bad data
os.environ.setdefault("PANDERA_VALIDATION_DEPTH", "SCHEMA_AND_DATA")

import pandera.polars as pa
import polars as pl
from pandera.errors import SchemaErrors

__all__ = ["Outcome", "Severity", "check_names", "outcomes_by"]


_NAMED = ("time", "service_date", "measured_month", "source_file", "source_row")
"""Columns that an example names its row by."""


class Severity(StrEnum):
    """What a failed check does: `gate` keeps a raw partition out, `hold` keeps a device's last good figures, `flag`
    only says so."""

    GATE = "gate"
    HOLD = "hold"
    FLAG = "flag"


@dataclass(frozen=True)
class Outcome:
    """One check on one table and partition."""

    check_name: str
    severity: str  # a Severity; of counted values (int_value_count) their kind
    is_passed: bool
    rows_checked: int
    rows_failed: int
    example: str | None


def check_names(schema: pa.DataFrameSchema) -> list[tuple[str | None, str]]:
    """(column or None, check) of every check of a schema."""
    found: list[tuple[str | None, str]] = [(None, str(c.error)) for c in schema.checks]
    for name, column in schema.columns.items():
        found += [(name, str(c.error)) for c in column.checks]
    return found


def outcomes_by(
    schema: pa.DataFrameSchema, frame: pl.DataFrame, severities: dict[str, Severity], by: Sequence[str]
) -> dict[tuple[str, ...], list[Outcome]]:
    """One outcome per check of `schema` for each group of rows that shares the columns `by` (none: the whole frame).

    `severities` names the checks that do more than flag. The frame is validated once for all groups. A wrong type or a
    missing column is the outcome `schema` of the severest kind: structure. Errors of the checks themselves raise: a
    broken check is no bad data.
    """
    groups: dict[tuple[str, ...], int] = {(): frame.height}
    if by:
        groups = {tuple(map(str, key)): size for *key, size in frame.group_by(by).len().iter_rows()}
    failed: dict[tuple[str, ...], dict[str, tuple[int, str | None]]] = {}
    try:
        schema.validate(frame, lazy=True)
    except SchemaErrors as error:
        failed = _failures(error.failure_cases, frame, by, list(groups))
    structural = max(
        severities.values(), key=[Severity.FLAG, Severity.HOLD, Severity.GATE].index, default=Severity.FLAG
    )
    names = [name for _, name in check_names(schema)]
    found: dict[tuple[str, ...], list[Outcome]] = {}
    for key, size in groups.items():
        mine = dict(failed.get(key, {}))
        made = []
        for name in names:
            count, example = mine.pop(name, (0, None))
            made.append(Outcome(name, severities.get(name, Severity.FLAG), count == 0, size, count, example))
        broken = sum(count for count, _ in mine.values())
        text = "; ".join(f"{name}: {example}" for name, (_, example) in sorted(mine.items()))[:500] or None
        made.append(Outcome("schema", structural, broken == 0, size, broken, text))
        found[key] = made
    return found


def _failures(
    cases: pl.DataFrame, frame: pl.DataFrame, by: Sequence[str], groups: Sequence[tuple[str, ...]]
) -> dict[tuple[str, ...], dict[str, tuple[int, str | None]]]:
    """Group -> check -> (failed rows, an example). Aggregated first: there is one case per bad cell.

    A failure without a row (a missing column, a wrong type) is one of every group. The example is the first in the
    order of what the rows hold, time first: a frame comes in any order.
    """
    found: dict[tuple[str, ...], dict[str, tuple[int, str | None]]] = {}
    cases = cases.with_columns(pl.col("index").cast(pl.UInt32))
    plain = [name for name, kind in frame.schema.items() if not kind.is_nested()]
    failing = frame.with_row_index("index").join(cases, on="index", how="semi")
    order = [c for c in _NAMED if c in plain] + [c for c in plain if c not in _NAMED]
    keys = failing.sort(order).select("index", *(pl.col(c).cast(pl.String) for c in by))
    placed = cases.join(keys.with_row_index("place"), on="index", how="left").sort("place", "column", "failure_case")
    grouped = placed.group_by([*by, "check"], maintain_order=True).agg(
        pl.len(), pl.col("failure_case").first(), pl.col("column").first(), pl.col("index").first()
    )
    for *key, check, count, value, column, index in grouped.iter_rows():
        targets = [tuple(key)] if index is not None or not by else groups
        for target in targets:
            found.setdefault(target, {})[str(check)] = (int(count), _example(frame, column, value, index))
    return found


def _example(frame: pl.DataFrame, column: str | None, value: object, index: int | None) -> str:
    text = f"{column}={value}" if column else str(value)
    where = [c for c in _NAMED if c in frame.columns]
    if index is not None and 0 <= index < frame.height and where:
        row = frame.row(index, named=True)
        text += " at " + ", ".join(f"{c} {row[c]}" for c in where)
    return text[:500]
