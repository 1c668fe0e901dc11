"""What counts as right in the acceptance figures: the comparison must not be kinder than the targets."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import polars as pl
import pytest

from acceptance.compare import (
    compare_accounts,
    compare_decisions,
    compare_months,
    days_against_months_km,
    match_events,
    outside_months,
    unbalanced_files,
    unexpected_events,
)
from acceptance.figures import Detail, Figure, Section
from acceptance.page import misses, put, render

CAR, OTHER = "01290001001", "01290001002"
NO_RESETS = pl.DataFrame(schema={"device_no": pl.String, "measured_month": pl.String})
NOON = datetime(2023, 1, 5, 12)


def truth(km: float = 1000.0, gate: str = "", month: str = "2023-01") -> pl.DataFrame:
    return pl.DataFrame({"device_no": [CAR], "measured_month": [month], "distance_km": [km], "gated_because": [gate]})


def published(km: float | None = 1000.0, half: float = 0.5, **columns: Any) -> pl.DataFrame:
    row: dict[str, object] = {
        "device_no": CAR,
        "measured_month": "2023-01",
        "distance_km": km,
        "distance_lo_km": None if km is None else km - half,
        "distance_hi_km": None if km is None else km + half,
        "boundary_uncertain_km": None if km is None else 0.0,
        "repaired_km": None if km is None else 0.0,
        "grade": "A",
        "verdict": "verified",
        "published_state": "current",
        "gated_by": None,
    }
    types = {
        "gated_by": pl.String,
        **dict.fromkeys([c for c in row if c.endswith("_km")], pl.Float64),
    }
    return pl.DataFrame([{**row, **columns}], schema_overrides=types)


@pytest.mark.parametrize(
    ("true_km", "stated_km", "columns", "is_within"),
    [
        (100.0, 101.0, {}, True),
        (100.0, 101.1, {}, False),
        (1000.0, 1002.0, {}, True),
        (1000.0, 1002.1, {}, False),
        (1000.0, 1007.0, {"boundary_uncertain_km": 5.0}, True),
        (1000.0, 1007.1, {"boundary_uncertain_km": 5.0}, False),
        (1000.0, 1005.0, {"repaired_km": 100.0}, True),
        (1000.0, 1005.1, {"repaired_km": 100.0}, False),
    ],
)
def test_a_month_is_right_within_one_km_or_two_permille_and_what_it_declares(
    true_km: float, stated_km: float, columns: dict[str, Any], is_within: bool
) -> None:
    found = compare_months(published(stated_km, **columns), truth(true_km), NO_RESETS)
    assert found["is_within"].to_list() == [is_within]


def test_a_wide_interval_does_not_make_a_wrong_month_right_nor_a_narrow_one_a_right_month_certain() -> None:
    wide = compare_months(published(1050.0, half=100.0), truth(), NO_RESETS)
    assert wide.select("is_within", "is_contained").rows() == [(False, True)]
    narrow = compare_months(published(1000.9, half=0.1), truth(), NO_RESETS)
    assert narrow.select("is_within", "is_contained").rows() == [(True, False)]


def test_a_month_that_only_one_side_has_counts_as_wrong() -> None:
    found = compare_months(published(), truth(month="2023-02"), NO_RESETS)
    assert found.select("measured_month", "is_within", "is_contained").rows() == [
        ("2023-01", False, False),
        ("2023-02", False, False),
    ]


def test_a_gated_month_is_excepted_only_where_the_truth_has_a_gate_and_must_say_which_check() -> None:
    gated = published(None, grade="D", published_state="gated", gated_by="interleaved_share", verdict="gated")
    explained = compare_months(gated, truth(gate="interleaved"), NO_RESETS)
    assert explained.select("excepted_because", "is_explained").rows() == [("gated", True)]
    silent = compare_months(published(None, grade="D"), truth(gate="interleaved"), NO_RESETS)
    assert silent.select("excepted_because", "is_explained").rows() == [("gated", False)]
    unasked = compare_months(gated, truth(), NO_RESETS)
    assert unasked.select("excepted_because", "is_within").rows() == [("", False)]


def test_a_month_with_a_reset_must_be_grade_c_or_d_and_say_so() -> None:
    resets = pl.DataFrame({"device_no": [CAR], "measured_month": ["2023-01"]})
    said = compare_months(published(grade="C", verdict="odometer reset: a new epoch"), truth(), resets)
    assert said.select("excepted_because", "is_explained").rows() == [("reset", True)]
    assert compare_months(published(grade="C"), truth(), resets)["is_explained"].to_list() == [False]


def test_days_that_do_not_add_up_are_seen() -> None:
    daily = pl.DataFrame({"device_no": [CAR] * 2, "measured_month": ["2023-01"] * 2, "distance_km": [400.0, 599.5]})
    assert days_against_months_km(daily, published()) == pytest.approx(0.5)
    assert days_against_months_km(daily.clear(), published(None)) == 0.0


def events(*spans: tuple[str, float, float], begin: str, device: str = CAR) -> pl.DataFrame:
    """(code, minutes after noon at the start, at the end)."""
    rows = [(device, code, NOON + timedelta(minutes=a), NOON + timedelta(minutes=b)) for code, a, b in spans]
    return pl.DataFrame(
        rows,
        schema={"device_no": pl.String, "code": pl.String, begin: pl.Datetime("us"), "ended_at": pl.Datetime("us")},
        orient="row",
    )


def matched(found: pl.DataFrame, injected: pl.DataFrame) -> tuple[list[bool], list[bool]]:
    left, right = match_events(found, injected)
    return left["is_matched"].to_list(), right["is_matched"].to_list()


def test_an_event_is_found_when_one_of_its_code_and_car_overlaps_it() -> None:
    injected = events(("ODO_FROZEN", 0, 30), begin="started_at")
    assert matched(events(("ODO_FROZEN", 20, 60), begin="occurred_at"), injected) == ([True], [True])
    assert matched(events(("ODO_FROZEN", 34, 60), begin="occurred_at"), injected) == ([True], [True])
    assert matched(events(("ODO_FROZEN", 36, 60), begin="occurred_at"), injected) == ([False], [False])
    assert matched(events(("ODO_STALE", 20, 60), begin="occurred_at"), injected) == ([False], [False])
    assert matched(events(("ODO_FROZEN", 20, 60), begin="occurred_at", device=OTHER), injected) == ([False], [False])


def test_one_found_event_does_not_stand_for_two_and_takes_none_from_another() -> None:
    two = events(("ODO_ZERO", 0, 1), ("ODO_ZERO", 4, 5), begin="started_at")
    assert matched(events(("ODO_ZERO", 0, 9), begin="occurred_at"), two) == ([True], [True, False])
    # the first found one fits both, the second only the later: both are found
    both = events(("ODO_ZERO", 0, 1), ("ODO_ZERO", 9, 10), begin="occurred_at")
    assert matched(both, two) == ([True, True], [True, True])


def test_only_true_zeros_and_gaps_are_expected_on_a_car_without_events() -> None:
    injected = events(("ODO_GAP", 0, 30), begin="started_at")
    found, _ = match_events(
        events(("ODO_GAP", 0, 30), ("ODO_GAP", 300, 330), ("ODO_STALE", 400, 401), begin="occurred_at"), injected
    )
    assert unexpected_events(found, [CAR])["code"].to_list() == ["ODO_GAP", "ODO_STALE"]
    assert unexpected_events(found, [OTHER]).height == 0


def test_a_gap_over_a_gated_month_is_left_out_but_not_one_of_another_car_or_month() -> None:
    months = pl.DataFrame({"device_no": [CAR, CAR], "measured_month": ["2022-06", "2023-01"]})
    over = events(("ODO_GAP", -60 * 24 * 10, 60 * 24 * 40), begin="occurred_at")
    beside = events(("ODO_GAP", -60 * 24 * 20, -60 * 24 * 10), begin="occurred_at")
    other = events(("ODO_GAP", 0, 1), begin="occurred_at", device=OTHER)
    left = outside_months(pl.concat([over, beside, other]), months)
    assert left.select("device_no", "occurred_at").rows() == [
        (CAR, NOON - timedelta(days=20)),
        (OTHER, NOON),
    ]


def delivery(**columns: object) -> pl.DataFrame:
    row: dict[str, object] = {
        "file_name": "2023-01/bms.zip",
        "member": "bms.csv",
        "kind": "bms",
        "devices": [CAR],
        "months": ["2023-01"],
        "layout_id": "psql-1",
        "status": "ok",
        "rows_read": 100,
        "rows_kept": 90,
        "rows_duplicate": 5,
        "rows_superseded": 2,
        "rows_rejected": 3,
    }
    return pl.DataFrame([{**row, **columns}])


def written(**columns: object) -> pl.DataFrame:
    row: dict[str, object] = {
        "path": "2023-01/bms.zip",
        "member": "bms.csv",
        "kind": "bms",
        "data_rows": 100,
        "broken_rows": 3,
        "is_broken": False,
    }
    return pl.DataFrame([{**row, **columns}])


def test_a_file_whose_rows_do_not_add_up_is_named() -> None:
    assert unbalanced_files(delivery()).height == 0
    assert unbalanced_files(delivery(rows_kept=89))["file_name"].to_list() == ["2023-01/bms.zip"]


def test_rows_read_and_rejected_are_those_that_were_written() -> None:
    assert compare_accounts(delivery(), written()).height == 0
    assert compare_accounts(delivery(), written(data_rows=101)).height == 1
    assert compare_accounts(delivery(), written(broken_rows=2)).height == 1
    assert compare_accounts(delivery(), written(path="2023-01/never_read.zip")).height == 1


def test_a_bare_file_is_its_own_member_and_a_copy_has_no_rows() -> None:
    bare = delivery(file_name="2023-01/bms.csv.gz", member="bms.csv.gz")
    copy = delivery(file_name="2023-01/bms_copy.csv.gz", member=None, kind=None, status="duplicate", rows_read=0)
    truth_file = pl.concat([written(path="2023-01/bms.csv.gz", member=""), written(path="2023-01/bms_copy.csv.gz")])
    assert compare_accounts(pl.concat([bare, copy], how="vertical_relaxed"), truth_file).height == 0


def decided(sign: str, scale: str) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "device_no": [CAR, CAR, CAR],
            "decision": ["current_sign", "voltage_scale", "cell_count"],
            "layout_id": ["psql-1", "psql-1", None],
            "value": [sign, scale, "90"],
            "measured_month": [None, None, None],
        },
        schema_overrides={"measured_month": pl.String},
    )


def test_sign_and_scale_must_be_right_for_the_export_of_each_month() -> None:
    layouts = pl.DataFrame(
        {
            "device_no": [CAR],
            "measured_month": ["2023-01"],
            "delivered_current_sign": [-1],
            "delivered_voltage_scale": [0.1],
        }
    )
    right = compare_decisions(layouts, delivery(), decided("-1", "0.1"))
    assert right.select("is_sign_right", "is_scale_right").rows() == [(True, True)]
    wrong = compare_decisions(layouts, delivery(), decided("1", "1"))
    assert wrong.select("is_sign_right", "is_scale_right").rows() == [(False, False)]
    own = decided("-1", "0.1").head(1).with_columns(measured_month=pl.lit("2023-01"), value=pl.lit("1"))
    turned = compare_decisions(layouts, delivery(), pl.concat([decided("-1", "0.1"), own]))
    assert turned.select("is_sign_right", "is_scale_right").rows() == [(False, True)], "the sign of the month counts"
    undecided = compare_decisions(layouts, delivery(), decided("-1", "0.1").clear())
    assert undecided.select("is_sign_right", "is_scale_right").rows() == [(False, False)]


def test_the_page_names_every_miss_as_a_miss() -> None:
    section = Section("Fleet `x`", "two cars")
    section.figures = [
        Figure("good", "all", "2 of 2", is_met=True),
        Figure("bad", "all", "1 of 2", is_met=False),
        Figure("only told", "", "7", is_met=None),
    ]
    section.details = [Detail("Worst", pl.DataFrame({"km": [1.5, None], "why": ["a|b", None]}))]
    page = render("chain", [section], seed=1, took_s=90)
    assert "**1 met, 1 missed.**" in page
    assert "* Fleet `x`: bad (1 of 2)" in page
    assert "| bad | all | 1 of 2 | **MISSED** |" in page
    assert "| 1.50 | a/b |" in page
    assert [figure.name for _, figure in misses([section])] == ["bad"]


def test_a_part_that_is_measured_again_leaves_the_blocks_of_the_others() -> None:
    page = put(put("", "chain", "chain 1\n"), "battery", "battery 1\n")
    page = put(page, "chain", "chain 2\n")
    assert "chain 2" in page
    assert "battery 1" in page
    assert "chain 1" not in page
    assert page.index("chain 2") < page.index("battery 1")
    assert put(page, "chain", "chain 2\n") == page
