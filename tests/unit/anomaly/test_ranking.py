"""Which car is called in first, and what is said of it."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import count
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from baas_dagster.anomaly.episodes import EPISODE_SCHEMA
from baas_dagster.anomaly.ranking import QUEUE_SCHEMA, inspection_queue, ranking
from baas_dagster.anomaly.rules import RULES, QueueRules
from baas_dagster.settings import PROJECT_ROOT

AS_OF = datetime(2024, 3, 31, 18)
QUEUE = RULES.queue
COMPONENTS = [f"score_{name}" for name in QUEUE.weights]
_number = count()


def episode(device: str, code: str = "CELL_OUTLIER", severity: int = 2, **more: Any) -> dict[str, Any]:
    is_cell = code.startswith("CELL")
    return {
        "device_no": device,
        "anomaly_id": f"{next(_number):016d}",
        "code": code,
        "severity": severity,
        "opened_at": datetime(2024, 3, 1),
        "last_seen_at": datetime(2024, 3, 30),
        "closed_at": None,
        "cell_no": 81 if is_cell else None,
        "module_no": 3 if code.startswith("TEMP") else None,
        "value": -31.0,
        "score": 1.5,
        "growth_per_day": 0.0,
        "window_count": 5,
        "evidence": "{}",
        **more,
    }


def frame(*rows: dict[str, Any]) -> pl.DataFrame:
    return pl.DataFrame(
        list(rows),
        schema={"device_no": pl.String, **{k: v for k, v in EPISODE_SCHEMA.items() if not rows or k in rows[0]}},
    )


def seen(*devices: str, **more: Any) -> pl.DataFrame:
    return pl.DataFrame(
        [
            {"device_no": d, "last_seen_at": AS_OF, "data_days_90": 60, "unjudged": list[str](), **more.get(d, {})}
            for d in devices
        ],
        schema={
            "device_no": pl.String, "last_seen_at": pl.Datetime("us"), "data_days_90": pl.Int32,
            "unjudged": pl.List(pl.String),
        },
    )  # fmt: skip


def exposed(**shares: tuple[float | None, float | None]) -> pl.DataFrame:
    return pl.DataFrame(
        [{"device_no": d, "high_soc_share": soc, "hot_share": hot} for d, (soc, hot) in shares.items()],
        schema={"device_no": pl.String, "high_soc_share": pl.Float64, "hot_share": pl.Float64},
    )


def ranked(*episodes: dict[str, Any], coverage: pl.DataFrame | None = None, **more: Any) -> pl.DataFrame:
    devices = sorted({e["device_no"] for e in episodes})
    return ranking(frame(*episodes), more.get("exposure", exposed()), seen(*devices) if coverage is None else coverage,
                   AS_OF, more.get("rules", QUEUE))  # fmt: skip


def order(found: pl.DataFrame) -> list[str]:
    return found["device_no"].to_list()


def only(found: pl.DataFrame) -> dict[str, Any]:
    assert found.height == 1
    return found.row(0, named=True)


def test_a_healthy_fleet_has_an_empty_list() -> None:
    coverage = seen("A", "B")
    found = inspection_queue(frame(), exposed(A=(0.9, 0.9)), coverage, AS_OF)
    assert found.is_empty()
    assert dict(found.schema) == QUEUE_SCHEMA
    assert inspection_queue(frame(), exposed(), seen(), AS_OF).is_empty()


def test_what_was_severe_and_closed_by_itself_stays_on_the_list_until_somebody_looks() -> None:
    burnt = episode("B", "FAULT_OR_SENSOR", 3, closed_at=datetime(2024, 3, 20), closed_by="clear data", score=9.0)
    mild = episode("M", severity=1)
    grave = episode("G", severity=2)
    assert order(ranked(burnt, grave, mild).filter("is_listed")) == ["G", "M"]
    found = ranking(frame(burnt, grave, mild), exposed(), seen("B", "G", "M"), AS_OF, QUEUE, [burnt["anomaly_id"]])
    assert sorted(order(found.filter("is_listed"))) == ["B", "G", "M"]
    assert order(found)[0] == "G", "behind what is open and worse"
    row = found.row(by_predicate=pl.col("device_no") == "B", named=True)
    assert (row["top_severity"], row["is_bypass"]) == (1, False)
    assert "was severity 3 from 2024-03-01 to 2024-03-20, closed by itself, no inspection reported" in row["reasons"]
    assert "점검 보고 없음" in row["reasons_ko"]
    at = AS_OF + timedelta(days=QUEUE.unreported_days)
    later = ranking(frame(burnt), exposed(), seen("B", B={"last_seen_at": at}), at, QUEUE, [burnt["anomaly_id"]])
    assert not later["is_listed"].any()


def test_the_score_is_the_sum_of_its_published_components() -> None:
    found = ranked(
        episode("A", severity=3, score=2.7, growth_per_day=0.013),
        episode("A", "INSULATION_LOW", severity=1),
        episode("B", "DEVICE_SILENT", severity=1),
        exposure=exposed(A=(0.31, 0.07), B=(None, 0.2)),
    )
    assert found["score"].to_list() == pytest.approx(found.select(pl.sum_horizontal(COMPONENTS)).to_series().to_list())
    for name, weight in QUEUE.weights.items():
        assert found[f"score_{name}"].is_between(0, weight).all(), name
    assert sum(QUEUE.weights.values()) == 100


episode_facts = st.fixed_dictionaries(
    {
        "code": st.sampled_from(["CELL_OUTLIER", "CELL_SELF_DISCHARGE", "TEMP_HIGH", "INSULATION_LOW", "SOH_LOW"]),
        "score": st.floats(0, 50),
        "growth_per_day": st.none() | st.floats(-1, 1),
        "window_count": st.integers(1, 500),
        "opened_at": st.datetimes(datetime(2020, 1, 1), AS_OF),
    }
)
shares = st.none() | st.floats(0, 1)


@settings(max_examples=60, deadline=None)
@given(mild=st.lists(episode_facts, min_size=1, max_size=6), severe=episode_facts, severity=st.integers(2, 3),
       exposure=st.tuples(shares, shares), days=st.integers(0, 90), silent_days=st.integers(0, 400))  # fmt: skip
def test_no_circumstance_lifts_a_car_above_a_higher_severity(
    mild: list[dict[str, Any]], severe: dict[str, Any], severity: int, exposure: Any, days: int, silent_days: int
) -> None:
    unseen = {"last_seen_at": AS_OF - timedelta(days=silent_days), "data_days_90": days, "unjudged": ["cells"]}
    found = ranked(
        *(episode("A", severity=severity - 1, **facts) for facts in mild),
        episode("B", severity=severity, **severe),
        exposure=exposed(A=exposure),
        coverage=seen("A", "B", A=unseen),
    )
    assert order(found) == ["B", "A"]


@settings(max_examples=60, deadline=None)
@given(facts=st.lists(st.tuples(episode_facts, st.integers(1, 3), st.integers(1, 3)), min_size=1, max_size=6))
def test_a_further_episode_never_lowers_a_score(facts: list[tuple[dict[str, Any], int, int]]) -> None:
    rows = [episode("A", severity=severity, **more) | {"cell_no": cell} for more, severity, cell in facts]
    scores = [ranked(*rows[:n])["score"][0] for n in range(1, len(rows) + 1)]
    assert scores == sorted(scores)


def test_several_independent_cases_rank_above_one_of_the_same_severity() -> None:
    found = ranked(
        episode("A"),
        episode("B"),
        episode("B", "INSULATION_LOW"),
        episode("C"),
        episode("C", cell_no=12),
        episode("C", "TEMP_HIGH"),
    )
    assert order(found) == ["C", "B", "A"]
    assert found["case_count"].to_list() == [3, 2, 1]


def test_codes_of_the_same_cell_are_one_case() -> None:
    found = ranked(
        episode("A", "CELL_OUTLIER"),
        episode("A", "CELL_LOWEST"),
        episode("A", "CELL_SELF_DISCHARGE"),
        episode("B", "CELL_SELF_DISCHARGE"),
        episode("B", "CELL_OUTLIER", cell_no=2),
    )
    assert order(found) == ["B", "A"]
    alone = ranked(episode("A", "CELL_OUTLIER"))
    assert found["score"][1] == alone["score"][0]
    assert found["case_count"].to_list() == [2, 1]
    assert found["codes"][1] == "CELL_OUTLIER, CELL_LOWEST, CELL_SELF_DISCHARGE"


def test_a_physical_limit_and_the_cell_it_names_are_one_case() -> None:
    evidence = json.dumps({"worst": {"detail": {"cell_no": 81, "channel": "cells"}}})
    found = only(ranked(episode("A", "CELL_UNDERVOLT", 3), episode("A", "FAULT_OR_SENSOR", 3, evidence=evidence)))
    assert found["case_count"] == 1


def test_a_closed_or_later_episode_is_no_case() -> None:
    found = ranked(
        episode("A", closed_at=datetime(2024, 3, 20)),
        episode("B", opened_at=AS_OF + timedelta(days=1)),
        episode("C", closed_at=AS_OF + timedelta(days=1)),
    )
    assert found.filter("is_listed")["device_no"].to_list() == ["C"]
    assert found["score_severity"].to_list()[1:] == [0, 0]


@pytest.mark.parametrize(
    ("column", "less", "more"),
    [
        ("score", 1.2, 3.0),
        ("growth_per_day", 0.001, 0.02),
        ("growth_per_day", None, 0.02),
        ("window_count", 3, 30),
        ("opened_at", datetime(2024, 3, 1), datetime(2023, 12, 1)),
    ],
)
def test_what_is_worse_comes_first_among_equals(column: str, less: Any, more: Any) -> None:
    found = ranked(episode("A", **{column: less}), episode("B", **{column: more}))
    assert order(found) == ["B", "A"]


def test_heat_and_a_full_battery_make_the_same_case_more_pressing() -> None:
    cases = [episode(device) for device in "ABC"]
    found = ranked(*cases, exposure=exposed(A=(None, None), B=(0.4, 0.0), C=(0.4, 0.15)))
    assert order(found) == ["C", "B", "A"]
    assert "parked at 95 % or more for 40% of the time" in found["reasons"][0]
    assert "at 35 degC or more for 15% of the time" in found["reasons"][0]
    assert "35 °C 이상" in found["reasons_ko"][0]


def test_a_silent_car_ranks_below_proven_severity_2_and_above_a_healthy_one() -> None:
    silent = {"last_seen_at": datetime(2024, 1, 15), "data_days_90": 14}
    found = ranked(
        episode("A", "DEVICE_SILENT", 2, value=76.0),
        episode("B", "INSULATION_LOW", 2, score=1.0, window_count=3),
        coverage=seen("A", "B", "C", A=silent),
    )
    assert order(found) == ["B", "A", "C"]
    assert found["is_listed"].to_list() == [True, True, False]
    car = found.row(1, named=True)
    assert car["top_severity"] == 0
    assert car["action"] == "data link"
    assert car["reasons"] == "no data since 2024-01-15 (76 days)"
    assert car["reasons_ko"] == "2024-01-15 이후 데이터 없음 (76일)"


@pytest.mark.parametrize(
    ("cover", "reason"),
    [
        ({"last_seen_at": datetime(2024, 1, 1)}, "no data since 2024-01-01 (90 days)"),
        ({"last_seen_at": None, "data_days_90": None}, "no data yet"),
        ({"data_days_90": 3}, "data on 3 of the last 90 days"),
        ({"unjudged": ["cells"]}, "cannot be judged: cells"),
        ({"unjudged": ["temperature", "insulation", "CELL_OUTLIER", "CELL_LOWEST"]},
         "cannot be judged: CELL_OUTLIER, CELL_LOWEST, temperature, insulation"),
    ],
)  # fmt: skip
def test_a_car_that_cannot_be_judged_is_on_the_list_for_that(cover: dict[str, Any], reason: str) -> None:
    found = only(ranking(frame(), exposed(), seen("A", A=cover), AS_OF))
    assert found["is_listed"]
    assert reason in found["reasons"]
    assert found["first_opened_at"] is None
    assert found["days_open"] is None


def test_figures_of_health_that_are_not_there_yet_call_no_car_in() -> None:
    found = only(ranking(frame(), exposed(), seen("A", A={"unjudged": ["health", "INSULATION_LOW"]}), AS_OF))
    assert not found["is_listed"]
    assert found["score_blindness"] > 0


def test_a_car_that_nobody_has_coverage_of_has_not_been_seen() -> None:
    assert only(ranking(frame(), exposed(A=(0.1, 0.1)), seen(), AS_OF))["is_listed"]


def test_severity_3_takes_no_place_of_the_list() -> None:
    fleet = [f"{i:03d}" for i in range(200)]
    urgent = [episode(device, severity=3) for device in fleet[:14]]
    others = [episode(device) for device in fleet[20:60]]
    found = inspection_queue(frame(*urgent, *others), exposed(), seen(*fleet), AS_OF)
    assert found["is_bypass"].sum() == 14
    assert found.height == 14 + 10  # 5 % of 200
    assert found["rank"].to_list() == list(range(1, 25))
    assert found["is_bypass"].to_list() == [True] * 14 + [False] * 10


def test_a_small_fleet_has_five_places() -> None:
    found = inspection_queue(frame(*(episode(device) for device in "ABCDEFGH")), exposed(), seen(*"ABCDEFGH"), AS_OF)
    assert order(found) == list("ABCDE"), "equal scores go by device number"


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_the_order_of_rows_decides_nothing(data: st.DataObject) -> None:
    devices = list("ABCDEFG")
    rows = [
        episode(
            data.draw(st.sampled_from(devices)), severity=data.draw(st.integers(1, 3)), **data.draw(episode_facts)
        ) | {"cell_no": data.draw(st.none() | st.integers(1, 3))}
        for _ in range(12)
    ]  # fmt: skip
    covers = seen(*devices, C={"data_days_90": 1})
    shares_of = exposed(A=(0.2, 0.1), B=(None, 0.3))
    first = inspection_queue(frame(*rows), shares_of, covers, AS_OF)
    again = inspection_queue(
        frame(*data.draw(st.permutations(rows))), shares_of.reverse(), covers.sample(fraction=1, shuffle=True), AS_OF
    )
    assert_frame_equal(first, again)


def test_reasons_name_cell_and_figures_in_both_languages() -> None:
    found = only(
        ranked(
            episode("A", "CELL_SELF_DISCHARGE", 3, value=23.7, growth_per_day=0.02),
            episode("A", "CELL_OUTLIER", 2, value=-31.2, opened_at=datetime(2024, 2, 3)),
            episode("A", "TEMP_SPREAD", 2, value=11.25),
        )
    )
    assert found["reasons"] == (
        "cell 81 discharges itself by 24 mA, rests -31 mV off the pack (severity 3 since 2024-02-03, getting worse); "
        "module 3 is 11.2 K apart from the others (severity 2 since 2024-03-01)"
    )
    assert found["reasons_ko"] == (
        "셀 81: 자가방전 24 mA, 팩 중앙값 대비 -31 mV (심각도 3, 2024-02-03부터, 악화 중); "
        "모듈 3: 온도 편차 11.2 K (심각도 2, 2024-03-01부터)"
    )
    assert found["first_opened_at"] == datetime(2024, 2, 3)
    assert found["days_open"] == 57


def test_a_figure_or_cell_that_is_not_known_is_not_made_up() -> None:
    found = only(ranked(episode("A", cell_no=None, value=None, score=None, growth_per_day=float("nan"))))
    assert found["reasons"].startswith("cell of unknown number rests ? mV off the pack")
    assert "번호 미상" in found["reasons_ko"]
    assert found["score_growth"] == found["score_excess"] == 0


def test_many_cases_are_counted_not_all_told() -> None:
    found = only(ranked(*(episode("A", cell_no=cell) for cell in range(1, 10))))
    assert found["reasons"].count("rests") == QUEUE.reasons_max
    assert "and 5 more cases" in found["reasons"]
    assert "외 5건" in found["reasons_ko"]


@pytest.mark.parametrize(
    ("cases", "action"),
    [
        ([("SOH_LOW", 2)], "replacement"),
        ([("SOH_LOW", 1)], "inspection"),  # the estimate alone: its capacity has to be measured first
        ([("SOH_FADE", 2), ("SOH_LOW", 1)], "replacement"),
        ([("SOH_LOW", 2), ("INSULATION_LOW", 1)], "inspection and replacement"),
        ([("TEMP_SENSOR", 1)], "inspection"),
        ([("PARTITION_GATED", 1)], "data link"),
    ],
)
def test_low_health_asks_for_a_new_pack_a_fault_for_an_inspection(cases: list[tuple[str, int]], action: str) -> None:
    assert only(ranked(*(episode("A", code, severity) for code, severity in cases)))["action"] == action


def test_weights_that_would_turn_severities_round_are_refused() -> None:
    with pytest.raises(ValueError, match="a step of severity_points"):
        QueueRules(weight_growth=20.0)
    with pytest.raises(ValueError, match="a step of severity_points"):
        replace(QUEUE, severity_points=(10.0, 70.0, 80.0))


def test_the_published_weights_are_those_of_the_score() -> None:
    text = (PROJECT_ROOT / "docs" / "methods.md").read_text(encoding="utf-8")
    published = {name: float(points) for name, points in re.findall(r"^\| (\w+) \| (\d+) \|", text, flags=re.MULTILINE)}
    assert published == QUEUE.weights
