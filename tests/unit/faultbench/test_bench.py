"""The bench counts what a detector with known behaviour finds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest

from baas_dagster.anomaly.detector import Context, Detector, readings_frame, windows_frame
from baas_dagster.anomaly.rows import Car, Rows
from baas_dagster.faultbench.bench import Partition, Plan, run_bench
from tests.unit.faultbench.test_inject import BEGIN, CAR, DAY, log

EPOCH = datetime(1970, 1, 1)
LOW_MV = 60.0


def windows(rows: Rows, car: Car, rules: Any) -> pl.DataFrame:
    """A day's mean of each cell against the others."""
    made = []
    for day in np.unique(rows.day):
        mine = rows.day == day
        if rows.cell_mv is None:
            continue
        mean = rows.cell_mv[mine].mean(axis=0)
        at = EPOCH + timedelta(seconds=float(rows.t_s[mine][-1]))
        made.append(
            {"detector": "toy", "kind": "day", "from_at": at, "to_at": at, "values": list(mean - np.median(mean))}
        )
    return windows_frame(made)


def readings(found: pl.DataFrame, context: Context) -> pl.DataFrame:
    """A reading of every cell that is low by ``LOW_MV``."""
    return readings_frame(
        [
            {
                "code": "CELL_OUTLIER",
                "item_no": i + 1,
                "to_at": row["to_at"],
                "from_at": row["from_at"],
                "value": -value,
            }
            for row in found.iter_rows(named=True)
            for i, value in enumerate(row["values"])
            if value < -LOW_MV
        ]
    )


def episodes(device_no: str, given: pl.DataFrame) -> pl.DataFrame:
    """An episode from the first reading of a cell on; a car named 9 always has one of cell 1."""
    found = [
        {"code": code, "severity": 2, "opened_at": part["to_at"].min(), "cell_no": item, "module_no": None}
        for (code, item), part in given.partition_by(["code", "item_no"], as_dict=True).items()
    ]
    if device_no == "9":
        found.append(
            {"code": "CELL_OUTLIER", "severity": 3, "opened_at": EPOCH + timedelta(seconds=BEGIN), "cell_no": 1}
        )
    schema = {
        "code": pl.String, "severity": pl.Int32, "opened_at": pl.Datetime("us"), "cell_no": pl.Int32,
        "module_no": pl.Int32,
    }  # fmt: skip
    return pl.DataFrame(found, schema=schema)


def unjudged(_windows: pl.DataFrame, context: Context) -> dict[str, str]:
    return {"CELL_OUTLIER": "too odd"} if context.car.device_no == "5" else {}


TOY = Detector("toy", ("CELL_OUTLIER", "CELL_OVERVOLT"), ("cell_mv",), windows, readings, unjudged)
PLAN = Plan(codes=("CELL_OUTLIER",), strengths=(1.0, 4.0), count=10, min_days=5)


def partitions(*devices: str, days: int = 12) -> Iterator[Partition]:
    whole = log(days=days)
    for device in devices:
        context = Context(car=replace(CAR, device_no=device), rules=None)
        for month, rows in enumerate((slice(0, len(whole) // 2), slice(len(whole) // 2, None))):
            part = Rows(
                whole.t_s[rows], {k: v[rows] for k, v in whole.columns.items()},
                whole.cell_mv[rows], whole.module_temp_dc[rows],  # type: ignore[index]
            )  # fmt: skip
            yield Partition(context, f"2023-0{month + 1}", part)


def test_a_fault_beyond_the_line_is_found_with_its_cell_and_one_below_is_not() -> None:
    result = run_bench(lambda: partitions("1", "2", "3"), [TOY], episodes, PLAN)
    rows = {row["strength"]: row for row in result.summary.iter_rows(named=True)}
    assert (rows[1.0]["n"], rows[1.0]["found_share"], rows[1.0]["right_share"]) == (10, 0.0, None)
    assert (rows[4.0]["n"], rows[4.0]["found_share"], rows[4.0]["right_share"]) == (10, 1.0, 1.0)
    assert rows[4.0]["severe_share"] == 1.0
    assert rows[4.0]["delay_days"] <= 1
    assert result.car_months == 6
    assert result.false_per_100(2) == 0


def test_every_car_comes_once_before_one_comes_again_and_the_seed_decides_the_rest() -> None:
    first = run_bench(lambda: partitions("1", "2", "3"), [TOY], episodes, PLAN).cases
    again = run_bench(lambda: partitions("3", "1", "2"), [TOY], episodes, PLAN).cases
    other = run_bench(lambda: partitions("1", "2", "3"), [TOY], episodes, replace(PLAN, seed=2)).cases
    assert first.equals(again)
    assert not first.equals(other)
    counts = first.filter(pl.col("strength") == 4)["device_no"].value_counts()["count"].to_list()
    assert sorted(counts) == [3, 3, 4]


def test_what_the_untouched_rows_show_is_a_false_episode_and_no_detection() -> None:
    result = run_bench(lambda: partitions("9"), [TOY], episodes, replace(PLAN, strengths=(1.0,)))
    assert result.summary["found_share"][0] == 0.0
    assert result.false_per_100(3) == pytest.approx(100 / 2)


def test_a_car_that_cannot_be_judged_gets_no_fault_and_is_told() -> None:
    result = run_bench(lambda: partitions("1", "5"), [TOY], episodes, PLAN)
    assert set(result.cases["device_no"]) == {"1"}
    assert result.unjudged.rows() == [("CELL_OUTLIER", "too odd", 1)]


def test_a_fault_that_changes_no_row_is_no_case() -> None:
    def uncharged() -> Iterator[Partition]:
        for part in partitions("1"):
            current = np.minimum(part.rows["pack_current_a"], 0.0)
            yield replace(part, rows=replace(part.rows, columns={**part.rows.columns, "pack_current_a": current}))

    result = run_bench(uncharged, [TOY], episodes, replace(PLAN, codes=("CELL_OVERVOLT",)))
    assert result.cases.height == 0


def test_delay_counts_days_with_data() -> None:
    late = replace(TOY, readings=lambda found, context: readings(found, context).filter(pl.col("to_at") >= late_at))
    late_at = EPOCH + timedelta(seconds=BEGIN + 11 * DAY)
    result = run_bench(lambda: partitions("1"), [late], episodes, replace(PLAN, strengths=(4.0,)))
    onset = result.cases["onset_at"].dt.date().to_list()
    assert result.cases["delay_days"].to_list() == [(late_at.date() - day).days for day in onset]


def test_a_silent_car_is_judged_by_the_fleet() -> None:
    def silent(seen: pl.DataFrame, _open: list[str], as_of: datetime) -> pl.DataFrame:
        age = as_of - seen["last_seen_at"][0]
        made = [{"code": "DEVICE_SILENT", "severity": 1, "opened_at": as_of}] if age > timedelta(days=2) else []
        schema = {
            "code": pl.String, "severity": pl.Int32, "opened_at": pl.Datetime("us"), "cell_no": pl.Int32,
            "module_no": pl.Int32,
        }  # fmt: skip
        return pl.DataFrame(made, schema=schema)

    plan = replace(PLAN, codes=("DEVICE_SILENT",))
    result = run_bench(lambda: partitions("1", "2"), [TOY], episodes, plan, silent)
    assert result.summary["found_share"].to_list() == [1.0]
    with pytest.raises(ValueError, match="fleet"):
        run_bench(lambda: partitions("1"), [TOY], episodes, plan)


def test_what_cannot_be_measured_is_refused() -> None:
    with pytest.raises(ValueError, match="COUNTER_DRIFT"):
        Plan(codes=("COUNTER_DRIFT",))
    with pytest.raises(ValueError, match="no detector"):
        run_bench(lambda: partitions("1"), [TOY], episodes, replace(PLAN, codes=("TEMP_RISE",)))
    with pytest.raises(ValueError, match="together"):
        run_bench(lambda: partitions("1", "2", "1"), [TOY], episodes, PLAN)


def test_of_two_episodes_of_one_severity_the_one_with_the_higher_score_names_the_cell() -> None:
    def both(device_no: str, given: pl.DataFrame) -> pl.DataFrame:
        found = episodes(device_no, given)
        if found.is_empty():
            return found
        other = found.with_columns(cell_no=pl.lit(None, pl.Int32).fill_null(1), score=pl.lit(1.0))
        return pl.concat([other, found.with_columns(score=pl.lit(2.0))])

    plan = replace(PLAN, strengths=(4.0,), count=6)
    cases = run_bench(lambda: partitions("1"), [TOY], both, plan).cases
    assert cases["is_item_right"].all()
    assert (cases["shown_at"] >= cases["onset_at"]).all()
