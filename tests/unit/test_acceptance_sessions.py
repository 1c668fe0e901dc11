"""How sessions and trips are compared with the truth: the comparison must not be kinder than the targets."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from acceptance.sessions import covered_share, in_months, match_intervals, sessions_section, targets_of

CAR, OTHER = "01290001001", "01290001002"
NOON = datetime(2023, 1, 31, 12)


def intervals(*minutes: tuple[float, float], device: str = CAR) -> pl.DataFrame:
    """Intervals in minutes from noon on the last day of January."""
    return pl.DataFrame(
        {
            "device_no": [device] * len(minutes),
            "started_at": [NOON + timedelta(minutes=begin) for begin, _ in minutes],
            "ended_at": [NOON + timedelta(minutes=end) for _, end in minutes],
        },
        schema={"device_no": pl.String, "started_at": pl.Datetime("us"), "ended_at": pl.Datetime("us")},
    )


@pytest.mark.parametrize(
    ("found", "is_match"),
    [((0, 60), True), ((0, 48), True), ((0, 47), False), ((-7, 65), True), ((-10, 70), False), ((70, 130), False)],
)
def test_a_match_overlaps_in_four_fifths_of_the_longer_interval(found: tuple[float, float], is_match: bool) -> None:
    assert match_intervals(intervals(found), intervals((0, 60))).height == is_match


def test_another_device_is_no_match() -> None:
    assert match_intervals(intervals((0, 60), device=OTHER), intervals((0, 60))).is_empty()


def test_each_interval_is_used_once_and_the_best_overlap_wins() -> None:
    pairs = match_intervals(intervals((0, 55), (0, 60)), intervals((0, 60)))
    assert pairs.rows() == [(1, 0, 1.0)]


def test_two_halves_of_a_session_are_no_match() -> None:
    assert match_intervals(intervals((0, 30), (30, 60)), intervals((0, 60))).is_empty()


def test_the_share_of_an_interval_that_another_covers() -> None:
    shares = covered_share(intervals((0, 60), (100, 160), (300, 360)), intervals((30, 400), (90, 130)))
    assert shares.to_list() == pytest.approx([0.5, 1.0, 1.0])
    assert covered_share(intervals((0, 60)), intervals((0, 60), device=OTHER)).to_list() == [0.0]


def test_what_reaches_into_a_month_is_in_it() -> None:
    february = pl.DataFrame({"device_no": [CAR], "measured_month": ["2023-02"]})
    rows = intervals((0, 60), (0, 13 * 60), (24 * 60, 25 * 60))
    assert in_months(rows, february).to_list() == [False, True, True]
    assert in_months(rows, february.clear()).to_list() == [False, False, False]


def test_coarse_rows_may_be_off_by_three_of_them() -> None:
    assert targets_of(2).edge_s == 60
    assert targets_of(10).edge_s == 30
    assert targets_of(60).edge_s == 180


class Snapshot:
    """Published tables from frames."""

    def __init__(self, sessions: pl.DataFrame, trips: pl.DataFrame, days: pl.DataFrame) -> None:
        self.tables = {"fct_charging_session": sessions, "fct_trip": trips, "fct_energy_daily": days}

    def rows(self, query: str) -> pl.DataFrame:
        return pl.SQLContext(self.tables, eager=True).execute(query.replace("group by all", "group by device_no"))


def figures(
    tmp_path: Path, sessions: pl.DataFrame, mode: str = "AC", gated: str = ""
) -> dict[str, tuple[str, bool | None]]:
    """Figures by name, for a car with one true AC charge of an hour and 7 kWh, and no trip."""
    span = intervals((0, 60))
    day = {"device_no": CAR, "service_date": NOON.date(), "measured_month": "2023-01"}
    flows = {"charged_kwh": 7.0, "energy_out_kwh": 0.0, "energy_regen_kwh": 0.0, "unlogged_km": 0.0, "idle_kwh": 0.1}
    truth = {
        "truth_device": pl.DataFrame({"device_no": [CAR], "has_bms": [True]}),
        "truth_month": pl.DataFrame({"device_no": [CAR], "measured_month": ["2023-01"], "gated_because": [gated]}),
        "truth_charging_session": span.with_columns(
            mode=pl.lit("AC"), energy_kwh=7.0, charge_ah=20.0, logged_share=1.0, lat=37.0, lng=127.0
        ),
        "truth_trip": intervals().with_columns(
            distance_km=pl.lit(1.0), energy_out_kwh=pl.lit(1.0), energy_regen_kwh=pl.lit(0.0), logged_share=pl.lit(1.0)
        ),
        "truth_day": pl.DataFrame([{**day, **flows, "parked_kwh": 0.1}]),
    }
    for name, frame in truth.items():
        frame.write_parquet(tmp_path / f"{name}.parquet")
    filled = sessions.with_columns(
        mode=pl.lit(mode), is_inferred=pl.lit(value=False), evidence=pl.lit("current"), soc_start_pct=40.0,
        soc_end_pct=50.0, energy_kwh=7.0, charge_ah=20.0, energy_method=pl.lit("counter"), gap_share=0.0,
    )  # fmt: skip
    trips = intervals().with_columns(
        distance_km=pl.lit(1.0), distance_method=pl.lit("odometer"), energy_net_kwh=pl.lit(1.0),
        energy_method=pl.lit("counter"), logged_share=pl.lit(1.0),
    )  # fmt: skip
    days = pl.DataFrame(
        [{**day, "gated_by": None, "charged_kwh": 7.0 * sessions.height, "inferred_session_count": 0,
          "driven_net_kwh": 0.0, "parked_kwh": 0.1}],
        schema_overrides={"gated_by": pl.String},
    )  # fmt: skip
    section = sessions_section("demo", Snapshot(filled, trips, days), tmp_path)
    return {figure.name: (figure.measured, figure.is_met) for figure in section.figures}


def test_a_session_that_is_right_meets_its_targets(tmp_path: Path) -> None:
    found = figures(tmp_path, intervals((0, 60)))
    for name in ("charging sessions: recall", "charging sessions: precision", "mode right", "session energy"):
        assert found[name][1] is True, name


def test_a_session_too_many_costs_precision_and_a_missed_one_recall(tmp_path: Path) -> None:
    found = figures(tmp_path, intervals((0, 60), (100, 160)))
    assert found["charging sessions: precision"] == ("1 of 2 (0.500)", False)
    found = figures(tmp_path, intervals((100, 160)))
    assert found["charging sessions: recall"] == ("0 of 1 (0.000)", False)


def test_a_wrong_mode_is_a_miss(tmp_path: Path) -> None:
    found = figures(tmp_path, intervals((0, 60)), mode="DC")
    assert found["mode right"] == ("0 of 1 (0.000)", False)


def test_a_gated_month_is_left_out_on_both_sides(tmp_path: Path) -> None:
    found = figures(tmp_path, intervals((0, 60)), gated="interleaved")
    assert found["charging sessions: recall"] == ("none there", None)
