"""What workshops found, beside what the platform had said: lead times, precision, and what an outcome closes.

Belongs here: findings, matching outcomes with episodes, precision of the list so far. Does not belong here: files
(``baas_dagster.outcomes``), and closing itself (``episodes``).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import date
from enum import StrEnum
from typing import Any

import polars as pl

from baas_dagster.anomaly.cases import codes_of_case, is_of_case
from baas_dagster.anomaly.codes import CODES, Item
from baas_dagster.anomaly.episodes import CLOSED_BY_DATA, CLOSING_SCHEMA
from baas_dagster.anomaly.rules import RULES, OutcomeRules

__all__ = [
    "INSPECTION_OUTCOME_SCHEMA", "OUTCOME_SCHEMA", "PRECISION_SCHEMA", "Finding", "closing_dates", "inspection_outcome",
    "precision", "unreported", "wilson",
]  # fmt: skip


class Finding(StrEnum):
    """What a workshop says. Everything else it wants to say is a note."""

    CONFIRMED = "confirmed"  # the fault is there
    REPLACED = "replaced"  # it was, and a part or the pack was replaced
    REPAIRED = "repaired"  # it was, and was put right otherwise
    NO_FAULT = "no_fault"  # looked for, and not there
    INCONCLUSIVE = "inconclusive"  # could not be told: confirms nothing, clears nothing, closes nothing

    @property
    def is_confirmed(self) -> bool | None:
        """True: there was a fault; False: there was none; None: not known."""
        return None if self is Finding.INCONCLUSIVE else self is not Finding.NO_FAULT


OUTCOME_SCHEMA: dict[str, Any] = {
    "outcome_id": pl.String,
    "device_no": pl.String,
    "inspected_on": pl.Date,  # KST
    "finding": pl.String,  # Finding
    "code": pl.String,  # NULL: the workshop named none
    "cell_no": pl.Int32,  # 1-based number of the cell, or of the module where the code is about modules; NULL: none
    "note": pl.String,
}
"""One row per reported outcome."""

INSPECTION_OUTCOME_SCHEMA: dict[str, Any] = {
    **OUTCOME_SCHEMA,
    "is_confirmed": pl.Boolean,  # NULL: inconclusive
    "lead_time_d": pl.Int32,  # days from the opening of the first matching episode to the finding; NULL: none preceded
    "top_severity": pl.Int32,  # of the matching episodes; NULL: none
    "anomaly_ids": pl.String,  # matching episodes by opening, ", " between; NULL: none
}
"""One row per reported outcome, with what the platform had said before."""

PRECISION_SCHEMA: dict[str, Any] = {
    "scope": pl.String,  # all, severity 2+, severity 3, or a code that workshops named
    "n": pl.Int32,  # visits (one car on one day) that an episode preceded and that were conclusive
    "confirmed": pl.Int32,  # of them, with a fault
    "precision_pct": pl.Float64,  # NULL: n too small
    "precision_lo_pct": pl.Float64,  # 90 % interval (Wilson); NULL: n = 0
    "precision_hi_pct": pl.Float64,
    "unforetold": pl.Int32,  # visits with a fault that no episode of this scope had preceded
    "inconclusive": pl.Int32,  # visits that an episode preceded and that could not tell
    "verdict": pl.String,  # ok, or "n too small"
}
"""One row per scope."""


def inspection_outcome(
    outcomes: pl.DataFrame, episodes: pl.DataFrame, rules: OutcomeRules = RULES.outcomes
) -> pl.DataFrame:
    """INSPECTION_OUTCOME_SCHEMA by device, day and id. ``outcomes``: OUTCOME_SCHEMA; ``episodes``: ``fct_anomaly``.

    An episode matches an outcome where it is of the same car, opened on or before that day, did not close more than
    ``match_days`` before it, and may tell of the code and cell that the workshop named (all codes of one cell are one
    case; an outcome that names neither is about the whole car).
    """
    by_device: dict[str, list[dict[str, Any]]] = {}
    for row in episodes.unique("anomaly_id").sort("opened_at", "anomaly_id").to_dicts():
        by_device.setdefault(row["device_no"], []).append(row)
    rows = [
        _matched(outcome, by_device.get(outcome["device_no"], []), rules) for outcome in _listed(outcomes).to_dicts()
    ]
    return pl.DataFrame(rows, schema=INSPECTION_OUTCOME_SCHEMA)


def _listed(outcomes: pl.DataFrame) -> pl.DataFrame:
    return outcomes.select(*OUTCOME_SCHEMA).unique("outcome_id").sort("device_no", "inspected_on", "outcome_id")


def _matched(outcome: dict[str, Any], episodes: list[dict[str, Any]], rules: OutcomeRules) -> dict[str, Any]:
    day: date = outcome["inspected_on"]
    before = [
        e
        for e in episodes
        if e["opened_at"].date() <= day
        and (e["closed_at"] is None or (day - e["closed_at"].date()).days <= rules.match_days)
        and is_of_case(e, outcome["code"], outcome["cell_no"])
    ]
    return {
        **outcome,
        "is_confirmed": Finding(outcome["finding"]).is_confirmed,
        "lead_time_d": (day - before[0]["opened_at"].date()).days if before else None,
        "top_severity": max((e["severity"] for e in before), default=None),
        "anomaly_ids": ", ".join(e["anomaly_id"] for e in before) or None,
    }


def closing_dates(outcomes: pl.DataFrame, device_no: str) -> pl.DataFrame:
    """CLOSING_SCHEMA of one device: what its outcomes close, and when, for ``episodes.episodes``.

    Every conclusive finding answers the case that it names, with all codes that tell of the same cell, module or cause;
    one that names neither code nor cell answers everything of the car. Readings after that day open an episode anew, so
    that a fault that is still in the car comes back by itself.
    """
    rows: set[tuple[str | None, int | None, date]] = set()
    for outcome in outcomes.filter(pl.col("device_no") == device_no).to_dicts():
        if Finding(outcome["finding"]).is_confirmed is None:
            continue
        code, item_no, day = outcome["code"], outcome["cell_no"], outcome["inspected_on"]
        if code is None and item_no is None:
            rows.add((None, None, day))
            continue
        named = codes_of_case(code) if code else [c for c, known in CODES.items() if known.item is Item.CELL]
        rows.update((c, None if CODES[c].item is Item.CAR else item_no, day) for c in named)
    ordered = sorted(rows, key=lambda row: (row[2], row[0] or "", row[1] or 0))
    return pl.DataFrame(ordered, schema=CLOSING_SCHEMA, orient="row")


def unreported(outcomes: pl.DataFrame, episodes: pl.DataFrame) -> list[str]:
    """Ids of the episodes of severity 3 that clear data closed and no conclusive outcome of their case ever answered.

    ``outcomes``: OUTCOME_SCHEMA; ``episodes``: ``fct_anomaly``. An outcome on or after the day of opening is an answer.
    """
    answers: dict[str, list[dict[str, Any]]] = {}
    for outcome in outcomes.to_dicts():
        if Finding(outcome["finding"]).is_confirmed is not None:
            answers.setdefault(outcome["device_no"], []).append(outcome)
    severe = episodes.filter((pl.col("severity") >= 3) & (pl.col("closed_by") == CLOSED_BY_DATA))
    return sorted(
        e["anomaly_id"]
        for e in severe.to_dicts()
        if not any(
            o["inspected_on"] >= e["opened_at"].date() and is_of_case(e, o["code"], o["cell_no"])
            for o in answers.get(e["device_no"], [])
        )
    )


def precision(matched: pl.DataFrame, rules: OutcomeRules = RULES.outcomes) -> pl.DataFrame:
    """PRECISION_SCHEMA: how often workshops found a fault where an episode had been open. ``matched``: the frame of
    `inspection_outcome`.

    A visit (one car on one day) counts once however many lines report it, and counts as confirmed where one of the
    lines that an episode preceded does. What was found without an episode is no success of the list: it is
    ``unforetold``.
    """
    rows = matched.to_dicts()
    codes = sorted({row["code"] for row in rows if row["code"]})
    found = [
        _scope("all", rows, lambda row: row["lead_time_d"] is not None, rules),
        _scope("severity 2+", rows, lambda row: (row["top_severity"] or 0) >= 2, rules),
        _scope("severity 3", rows, lambda row: (row["top_severity"] or 0) >= 3, rules),
    ]
    for code in codes:
        of_code = [row for row in rows if row["code"] == code]
        found.append(_scope(code, of_code, lambda row: row["lead_time_d"] is not None, rules))
    return pl.DataFrame(found, schema=PRECISION_SCHEMA)


def _scope(
    name: str, rows: list[dict[str, Any]], is_foretold: Callable[[dict[str, Any]], bool], rules: OutcomeRules
) -> dict[str, Any]:
    visits: dict[tuple[str, date], tuple[set[bool | None], set[bool | None]]] = {}
    for row in rows:
        foretold, others = visits.setdefault((row["device_no"], row["inspected_on"]), (set(), set()))
        (foretold if is_foretold(row) else others).add(row["is_confirmed"])
    confirmed = sum(True in foretold for foretold, _ in visits.values())
    n = confirmed + sum(False in foretold and True not in foretold for foretold, _ in visits.values())
    low, high = wilson(confirmed, n, rules.z90)
    is_enough = n >= rules.precision_min_n
    return {
        "scope": name,
        "n": n,
        "confirmed": confirmed,
        "precision_pct": 100 * confirmed / n if is_enough else None,
        "precision_lo_pct": None if low is None else 100 * low,
        "precision_hi_pct": None if high is None else 100 * high,
        "unforetold": sum(True in others and True not in foretold for foretold, others in visits.values()),
        "inconclusive": sum(foretold == {None} for foretold, _ in visits.values()),
        "verdict": "ok" if is_enough else "n too small",
    }


def wilson(hits: int, n: int, z: float) -> tuple[float | None, float | None]:
    """Interval of a share (Wilson 1927), 0 to 1; None, None where there is nothing to judge."""
    if n == 0:
        return None, None
    share = hits / n
    centre = share + z * z / (2 * n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    whole = 1 + z * z / n
    return max(0.0, (centre - half) / whole), min(1.0, (centre + half) / whole)
