"""What evidence, episodes and the inspection queue must look like, whatever the data are.

Belongs here: rules that hold for every row. Does not belong here: lines of detectors (``anomaly.rules``).
"""

from __future__ import annotations

from collections.abc import Sequence

import pandera.polars as pa
import polars as pl

from baas_dagster.anomaly.codes import CODES
from baas_dagster.anomaly.registry import DETECTORS
from baas_dagster.schemas.outcome import Outcome, Severity, outcomes_by

__all__ = ["ANOMALY_CHECKS", "check_episodes", "check_queue", "check_windows"]


def _in_month(data: pa.PolarsData) -> pl.LazyFrame:
    frame: pl.LazyFrame = data.lazyframe
    return frame.select((pl.col("to_at").dt.strftime("%Y-%m") == pl.col("measured_month")).fill_null(value=False))


def _ends_after_start(data: pa.PolarsData) -> pl.LazyFrame:
    frame: pl.LazyFrame = data.lazyframe
    return frame.select((pl.col("to_at") >= pl.col("from_at")).fill_null(value=False))


def _in_order(data: pa.PolarsData) -> pl.LazyFrame:
    frame: pl.LazyFrame = data.lazyframe
    closed = (pl.col("closed_at") >= pl.col("opened_at")).fill_null(value=True)
    return frame.select((pl.col("first_crossed_at") <= pl.col("opened_at")).fill_null(value=False) & closed)


def _item_known(data: pa.PolarsData) -> pl.LazyFrame:
    frame: pl.LazyFrame = data.lazyframe
    return frame.select(pl.col("cell_no").is_null() | pl.col("module_no").is_null())


_DETECTORS = sorted(d.name for d in DETECTORS if d.windows is not None)

ANOMALY_CHECKS: dict[str, pa.DataFrameSchema] = {
    "anomaly_evidence": pa.DataFrameSchema(
        {
            "detector": pa.Column(pl.String, pa.Check.isin(_DETECTORS, error="detector_known"), nullable=False),
            # a day without what a window counts is a window too: it closes what is no longer seen
            "n": pa.Column(pl.Int32, pa.Check.ge(0, error="window_count_not_negative"), nullable=True),
        },
        checks=[
            pa.Check(_in_month, error="window_ends_in_its_month"),
            pa.Check(_ends_after_start, error="window_ends_after_its_start"),
        ],
        strict=False,
    ),
    "fct_anomaly": pa.DataFrameSchema(
        {
            "code": pa.Column(pl.String, pa.Check.isin(sorted(CODES), error="anomaly_code_known"), nullable=False),
            "severity": pa.Column(pl.Int32, pa.Check.in_range(1, 3, error="severity_1_to_3"), nullable=False),
            "window_count": pa.Column(pl.Int32, pa.Check.ge(1, error="episode_has_windows"), nullable=False),
        },
        checks=[
            pa.Check(_in_order, error="episode_opens_and_closes_in_order"),
            pa.Check(_item_known, error="episode_is_of_a_cell_or_of_a_module"),
        ],
        strict=False,
    ),
    "inspection_queue": pa.DataFrameSchema(
        {
            "rank": pa.Column(pl.Int32, pa.Check.ge(1, error="rank_from_1"), nullable=False, unique=True),
            "device_no": pa.Column(pl.String, nullable=False, unique=True),
            "score": pa.Column(pl.Float64, pa.Check.ge(0, error="score_not_negative"), nullable=False),
            "reasons": pa.Column(
                pl.String, pa.Check.str_length(min_value=1, error="queue_has_a_reason"), nullable=False
            ),
        },
        strict=False,
    ),
}


def check_windows(frame: pl.DataFrame, partitions: Sequence[tuple[str, str]]) -> dict[str, list[Outcome]]:
    """Outcomes of evidence windows: partition key -> its outcomes."""
    by = outcomes_by(ANOMALY_CHECKS["anomaly_evidence"], frame, {}, ["device_no", "measured_month"])
    nothing = outcomes_by(ANOMALY_CHECKS["anomaly_evidence"], frame.clear(), {}, [])[()]
    return {f"{device}|{month}": by.get((device, month), nothing) for device, month in partitions}


def check_episodes(
    frame: pl.DataFrame, devices: Sequence[str]
) -> tuple[dict[str, list[Outcome]], dict[tuple[str, str], list[Outcome]]]:
    """Outcomes of episodes: per device, and per (device, month of opening)."""
    schema = ANOMALY_CHECKS["fct_anomaly"]
    by_device = outcomes_by(schema, frame, {}, ["device_no"])
    by_month = outcomes_by(schema, frame, {}, ["device_no", "measured_month"])
    nothing = outcomes_by(schema, frame.clear(), {}, [])[()]
    return (
        {device: by_device.get((device,), nothing) for device in devices},
        {(key[0], key[1]): found for key, found in by_month.items()},
    )


def check_queue(frame: pl.DataFrame) -> list[Outcome]:
    """Outcomes of the whole queue; structure is an error, for a queue is read as it stands."""
    severities = {"rank_from_1": Severity.HOLD, "queue_has_a_reason": Severity.HOLD}
    return outcomes_by(ANOMALY_CHECKS["inspection_queue"], frame, severities, [])[()]
