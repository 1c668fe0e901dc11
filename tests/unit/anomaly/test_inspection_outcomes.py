"""What a workshop found, beside what the platform had said before."""

from __future__ import annotations

from datetime import date, datetime
from itertools import count
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from baas_dagster.anomaly.detector import readings_frame
from baas_dagster.anomaly.episodes import CLOSING_SCHEMA, episodes
from baas_dagster.anomaly.outcomes import (
    INSPECTION_OUTCOME_SCHEMA,
    OUTCOME_SCHEMA,
    closing_dates,
    inspection_outcome,
    precision,
    unreported,
    wilson,
)

CAR = "01290000003"
DAY = date(2024, 3, 11)
_number = count()


def outcome(finding: str = "replaced", code: str | None = None, cell: int | None = None, **more: Any) -> dict[str, Any]:
    return {
        "outcome_id": f"o{next(_number):06d}", "device_no": CAR, "inspected_on": DAY, "finding": finding, "code": code,
        "cell_no": cell, "note": None, **more,
    }  # fmt: skip


def reported(*rows: dict[str, Any]) -> pl.DataFrame:
    return pl.DataFrame(list(rows), schema=OUTCOME_SCHEMA)


def episode(code: str, opened: date, item: int | None = None, severity: int = 2, **more: Any) -> dict[str, Any]:
    is_cell = code.startswith("CELL")
    return {
        "device_no": CAR, "anomaly_id": f"a{next(_number):06d}", "code": code, "severity": severity,
        "opened_at": datetime.combine(opened, datetime.min.time()).replace(hour=9), "closed_at": None,
        "cell_no": item if is_cell else None, "module_no": None if is_cell else item, "evidence": "{}", **more,
    }  # fmt: skip


def told(*rows: dict[str, Any]) -> pl.DataFrame:
    schema = {
        "device_no": pl.String, "anomaly_id": pl.String, "code": pl.String, "severity": pl.Int32,
        "opened_at": pl.Datetime("us"), "closed_at": pl.Datetime("us"), "cell_no": pl.Int32, "module_no": pl.Int32,
        "evidence": pl.String, "closed_by": pl.String,
    }  # fmt: skip
    return pl.DataFrame(list(rows), schema=schema)


def matched(*rows: dict[str, Any], episodes: list[dict[str, Any]]) -> dict[str, Any]:
    return inspection_outcome(reported(*rows), told(*episodes)).row(0, named=True)


@pytest.mark.parametrize(
    ("said", "is_answered"),
    [
        (None, False),
        (outcome("no_fault", "TEMP_HIGH", 8), True),
        (outcome("replaced"), True),
        (outcome("inconclusive", "TEMP_HIGH", 8), False),
        (outcome("replaced", "TEMP_HIGH", 7), False),
        (outcome("replaced", "INSULATION_LOW"), False),
        (outcome("replaced", "TEMP_HIGH", 8, inspected_on=date(2024, 2, 1)), False),
    ],
)
def test_a_severe_episode_that_closed_by_itself_waits_for_an_answer(
    said: dict[str, Any] | None, is_answered: bool
) -> None:
    ended = {"closed_at": datetime(2024, 3, 1), "closed_by": "clear data"}
    hot = episode("TEMP_HIGH", date(2024, 2, 10), 8, severity=3, anomaly_id="hot", **ended)
    others = [
        episode("TEMP_HIGH", date(2024, 2, 10), 5, severity=2, **ended),
        episode("TEMP_RISE", date(2024, 2, 10), 3, severity=3),
        episode("TEMP_RISE", date(2024, 2, 10), 4, severity=3, closed_at=datetime(2024, 3, 11), closed_by="outcome"),
    ]
    assert unreported(reported(*[said] if said else []), told(hot, *others)) == ([] if is_answered else ["hot"])


def test_lead_time_counts_from_the_first_episode_of_what_was_found() -> None:
    found = matched(
        outcome("replaced", "CELL_OUTLIER", 81),
        episodes=[
            episode("CELL_OUTLIER", date(2024, 2, 20), 81, anomaly_id="later"),
            episode("CELL_SELF_DISCHARGE", date(2024, 2, 10), 81, severity=3, anomaly_id="first"),
            episode("CELL_OUTLIER", date(2024, 1, 1), 2, anomaly_id="another cell"),
            episode("INSULATION_LOW", date(2024, 1, 1), anomaly_id="another cause"),
        ],
    )
    assert found["lead_time_d"] == 30
    assert found["anomaly_ids"] == "first, later"
    assert found["top_severity"] == 3
    assert found["is_confirmed"]


@pytest.mark.parametrize(
    ("named", "lead"),
    [
        ((None, None), 70),
        ((None, 81), 30),
        (("CELL_OUTLIER", None), 30),
        (("TEMP_HIGH", 4), 70),
        (("TEMP_RISE", 5), None),
        (("INSULATION_LOW", None), 10),
        (("INSULATION_LOW", 81), 10),  # a cell says nothing more of a car
        (("SOH_LOW", None), None),
    ],
)
def test_an_outcome_is_about_what_it_names(named: tuple[str | None, int | None], lead: int | None) -> None:
    before = [
        episode("CELL_OUTLIER", date(2024, 2, 10), 81),
        episode("TEMP_HIGH", date(2024, 1, 1), 4),
        episode("INSULATION_LOW", date(2024, 3, 1)),
    ]
    assert matched(outcome("replaced", *named), episodes=before)["lead_time_d"] == lead


@pytest.mark.parametrize(
    ("episodes", "lead"),
    [
        ([], None),
        ([episode("INSULATION_LOW", date(2024, 3, 12))], None),
        ([episode("INSULATION_LOW", DAY)], 0),
        ([episode("INSULATION_LOW", date(2024, 3, 1), device_no="01290000001")], None),
        ([episode("INSULATION_LOW", date(2024, 3, 1), closed_at=datetime(2024, 3, 5))], 10),
        ([episode("INSULATION_LOW", date(2020, 3, 1), closed_at=datetime(2022, 3, 5))], None),
    ],
    ids=["none", "later", "same day", "another car", "closed before", "closed years before"],
)
def test_only_what_was_said_before_is_lead(episodes: list[dict[str, Any]], lead: int | None) -> None:
    assert matched(outcome(), episodes=episodes)["lead_time_d"] == lead


def test_an_outcome_that_could_not_tell_confirms_and_denies_nothing() -> None:
    said = [outcome(finding) for finding in ("confirmed", "repaired", "no_fault", "inconclusive")]
    frame = inspection_outcome(reported(*said), told())
    assert dict(frame.schema) == INSPECTION_OUTCOME_SCHEMA
    assert dict(frame.select("finding", "is_confirmed").iter_rows()) == {
        "confirmed": True, "repaired": True, "no_fault": False, "inconclusive": None,
    }  # fmt: skip


def visits(hits: int, misses: int, severity: int = 2, code: str | None = None, day: int = 1) -> list[dict[str, Any]]:
    return [
        {
            **outcome("replaced" if i < hits else "no_fault", code), "device_no": f"{i:011d}",
            "inspected_on": date(2024, 3, day), "is_confirmed": i < hits, "lead_time_d": 5, "top_severity": severity,
            "anomaly_ids": "x",
        }
        for i in range(hits + misses)
    ]  # fmt: skip


def judged(*rows: dict[str, Any]) -> dict[str, dict[str, Any]]:
    frame = precision(pl.DataFrame(list(rows), schema=INSPECTION_OUTCOME_SCHEMA))
    return {row["scope"]: row for row in frame.to_dicts()}


def test_precision_comes_with_its_n_and_interval() -> None:
    found = judged(*visits(8, 2, 3, "CELL_OUTLIER"), *visits(6, 6, 1, day=2))
    assert (found["all"]["n"], found["all"]["confirmed"]) == (22, 14)
    assert found["all"]["precision_pct"] == pytest.approx(100 * 14 / 22)
    assert found["severity 3"]["precision_pct"] == 80
    assert found["severity 3"]["precision_lo_pct"] == pytest.approx(54.1, abs=0.1)
    assert found["severity 3"]["precision_hi_pct"] == pytest.approx(93.1, abs=0.1)
    assert found["CELL_OUTLIER"]["n"] == 10
    assert found["severity 2+"]["unforetold"] == 6


def test_few_visits_make_no_precision() -> None:
    found = judged(*visits(3, 0))["all"]
    assert found["verdict"] == "n too small"
    assert found["precision_pct"] is None
    assert found["precision_lo_pct"] < 55
    nothing = judged()["all"]
    assert (nothing["n"], nothing["precision_lo_pct"], nothing["verdict"]) == (0, None, "n too small")


def test_a_visit_counts_once_and_what_nobody_foretold_is_no_success() -> None:
    hit, miss = visits(1, 0)[0], {**visits(0, 1)[0]}
    chance = {**visits(1, 0, day=2)[0], "lead_time_d": None, "top_severity": None}
    unclear = {**visits(1, 0, day=3)[0], "is_confirmed": None}
    found = judged(hit, miss, {**hit, "outcome_id": "again"}, chance, unclear)["all"]
    assert (found["n"], found["confirmed"], found["unforetold"], found["inconclusive"]) == (1, 1, 1, 1)
    other_fault = judged(miss, {**hit, "lead_time_d": None, "top_severity": None})["all"]
    assert (other_fault["n"], other_fault["confirmed"], other_fault["unforetold"]) == (1, 0, 1)


def test_the_interval_of_a_share_stays_within_0_and_1() -> None:
    assert wilson(0, 5, 1.645)[0] == 0
    assert wilson(5, 5, 1.645)[1] == pytest.approx(1)
    assert wilson(9, 9, 1.645)[0] == pytest.approx(0.769, abs=0.001)


def test_an_outcome_closes_all_codes_of_the_cell_it_names() -> None:
    found = closing_dates(reported(outcome("replaced", "CELL_OUTLIER", 81)), CAR)
    assert dict(found.schema) == CLOSING_SCHEMA
    assert {"CELL_OUTLIER", "CELL_SELF_DISCHARGE", "CELL_UNDERVOLT"} <= set(found["code"])
    assert set(found["item_no"]) == {81}
    assert not [code for code in found["code"] if not code.startswith("CELL")]
    assert_frame_equal(found, closing_dates(reported(outcome("replaced", None, 81)), CAR))


@pytest.mark.parametrize(
    ("said", "closes"),
    [
        (outcome("no_fault"), {(None, None)}),
        (outcome("inconclusive"), set()),
        (outcome("replaced", "SOH_LOW", 5), {("SOH_LOW", None), ("SOH_FADE", None)}),
        (outcome("replaced", "TEMP_HIGH"), {("TEMP_HIGH", None), ("TEMP_RISE", None), ("TEMP_SENSOR", None),
                                            ("TEMP_SPREAD", None)}),
        (outcome("replaced", device_no="01290000001"), set()),
    ],
)  # fmt: skip
def test_an_outcome_closes_what_it_names_and_nothing_else(said: dict[str, Any], closes: set[Any]) -> None:
    found = closing_dates(reported(said), CAR)
    assert set(found.select("code", "item_no").iter_rows()) == closes
    assert set(found["closed_on"]) <= {DAY}


def test_an_outcome_closes_an_episode_of_severity_3_and_a_fault_that_stays_comes_back() -> None:
    def windows(*days: int) -> list[dict[str, Any]]:
        return [
            {"code": "CELL_SELF_DISCHARGE", "item_no": 81, "from_at": datetime(2024, 3, day), "value": 50.0,
             "to_at": datetime(2024, 3, day, 6), "watch": 5.0, "warn": 10.0, "alarm": 20.0}
            for day in days
        ]  # fmt: skip

    closings = closing_dates(reported(outcome("replaced", "CELL_OUTLIER", 81)), CAR)
    quiet = episodes(CAR, readings_frame(windows(1, 2, 3)), closings)
    assert quiet["severity"].to_list() == [3]
    assert quiet["closed_at"].dt.date().to_list() == [DAY]
    still = episodes(CAR, readings_frame(windows(1, 2, 3, 14, 15)), closings)
    assert still.sort("opened_at")["closed_at"].is_null().to_list() == [False, True]


facts = st.tuples(
    st.sampled_from(["replaced", "no_fault", "inconclusive"]),
    st.sampled_from([None, "CELL_OUTLIER", "INSULATION_LOW", "TEMP_HIGH"]),
    st.none() | st.integers(1, 3),
    st.integers(1, 28),
)


@settings(max_examples=40, deadline=None)
@given(data=st.data(), said=st.lists(facts, max_size=8), before=st.lists(facts, max_size=8))
def test_the_order_of_rows_decides_nothing(data: st.DataObject, said: list[Any], before: list[Any]) -> None:
    outcomes = [outcome(f, code, cell, inspected_on=date(2024, 3, day)) for f, code, cell, day in said]
    earlier = [episode(code or "SOH_LOW", date(2024, 3, day), cell) for _, code, cell, day in before]
    one = inspection_outcome(reported(*outcomes), told(*earlier))
    shuffled = reported(*data.draw(st.permutations(outcomes + outcomes[:2])))
    other = inspection_outcome(shuffled, told(*data.draw(st.permutations(earlier))))
    assert_frame_equal(one, other)
    assert_frame_equal(precision(one), precision(other.reverse()))
    assert_frame_equal(closing_dates(reported(*outcomes), CAR), closing_dates(shuffled, CAR))
