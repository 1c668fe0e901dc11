"""Episodes: opening, raising, closing with hysteresis, outcomes, and nothing of it depends on the order of readings."""

from __future__ import annotations

from datetime import date, datetime, timedelta

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from baas_dagster.anomaly.detector import readings_frame
from baas_dagster.anomaly.episodes import CLOSING_SCHEMA, episodes

CAR = "01290007001"
START = datetime(2023, 1, 1, 8)


def track(
    values: list[float],
    *,
    code: str = "CELL_OUTLIER",
    item: int | None = 7,
    lines: tuple[float | None, float | None, float | None] = (20, 30, 60),
    low_bad: bool = False,
    first_day: int = 0,
) -> pl.DataFrame:
    """One reading a day."""
    return readings_frame(
        [
            {
                "code": code, "item_no": item, "value": value, "watch": lines[0], "warn": lines[1], "alarm": lines[2],
                "from_at": START + timedelta(days=first_day + day),
                "to_at": START + timedelta(days=first_day + day, hours=1), "is_low_bad": low_bad,
            }
            for day, value in enumerate(values)
        ]
    )  # fmt: skip


def rows(readings: pl.DataFrame, closings: pl.DataFrame | None = None) -> list[tuple[object, ...]]:
    found = episodes(CAR, readings, closings)
    return found.select("code", "severity", "opened_at", "closed_at").rows()


def day(number: int) -> datetime:
    return START + timedelta(days=number, hours=1)


def test_one_window_beyond_a_line_is_noise_and_two_open_an_episode() -> None:
    assert rows(track([0, 25, 0, 0])) == []
    assert rows(track([0, 25, 0, 25])) == [("CELL_OUTLIER", 1, day(3), None)]


def test_three_windows_beyond_warn_are_severity_two_and_two_beyond_alarm_three() -> None:
    assert [r[1] for r in rows(track([35, 35]))] == [1]
    assert [r[1] for r in rows(track([35, 35, 35]))] == [2]
    assert [r[1] for r in rows(track([35, 65, 65]))] == [3]
    assert [r[1] for r in rows(track([65]))] == []


def test_an_episode_keeps_its_opening_while_it_rises() -> None:
    assert rows(track([25, 25, 65, 65])) == [("CELL_OUTLIER", 3, day(1), None)]


def test_it_closes_after_its_days_of_data_below_a_share_of_its_line() -> None:
    assert rows(track([25, 25] + [15.9] * 13))[0][3] is None
    assert rows(track([25, 25] + [15.9] * 14))[0][3] == day(15)
    # 80 % of the line of 20 is 16: between the two it stays open
    assert rows(track([25, 25] + [17.0] * 40))[0][3] is None
    assert rows(track([35, 35, 35] + [23.0] * 20))[0][3] is None
    assert rows(track([35, 35, 35] + [23.0] * 21))[0][3] == day(23)


def test_severity_three_waits_sixty_days_or_for_an_outcome() -> None:
    burning = track([65, 65] + [0.0] * 30)
    assert rows(burning)[0][1:] == (3, day(1), None)
    assert rows(track([65, 65] + [0.0] * 60))[0][3] == day(61)
    closed = pl.DataFrame([{"code": None, "item_no": None, "closed_on": date(2023, 1, 10)}], schema=CLOSING_SCHEMA)
    found = episodes(CAR, burning, closed)
    assert found["closed_by"].to_list() == ["outcome"]
    assert found["closed_at"][0].date() == date(2023, 1, 10)
    other = pl.DataFrame([{"code": None, "item_no": 8, "closed_on": date(2023, 1, 10)}], schema=CLOSING_SCHEMA)
    assert rows(burning, other)[0][3] is None, "an outcome of another cell closes nothing"


def test_a_fault_that_goes_on_after_its_outcome_opens_again() -> None:
    closed = pl.DataFrame(
        [{"code": "CELL_OUTLIER", "item_no": 7, "closed_on": date(2023, 1, 3)}], schema=CLOSING_SCHEMA
    )
    found = rows(track([65] * 6), closed)
    assert [(r[1], r[3] is None) for r in found] == [(3, False), (3, True)]


def test_silence_heals_nothing() -> None:
    later = track([25.0], first_day=200)
    assert len(rows(pl.concat([track([25, 25]), later]))) == 1


def test_low_is_bad_where_it_is() -> None:
    insulation = {"code": "INSULATION_LOW", "item": None, "lines": (None, 500.0, 100.0), "low_bad": True}
    assert rows(track([1000, 900, 800], **insulation)) == []  # type: ignore[arg-type]
    found = episodes(CAR, track([1000, 300, 300, 300], **insulation))  # type: ignore[arg-type]
    assert found["severity"].to_list() == [2]
    assert found["worst_value"].to_list() == [300]
    assert abs(found["score"][0] - 500 / 300) < 1e-9
    assert found["cell_no"].to_list() == [None]
    # clear is above 500 / 0.8
    assert rows(track([300] * 3 + [600] * 30, **insulation))[0][3] is None  # type: ignore[arg-type]
    assert rows(track([300] * 3 + [700] * 21, **insulation))[0][3] is not None  # type: ignore[arg-type]


def test_a_trend_that_reaches_the_alarm_line_in_time_is_severity_two() -> None:
    rising = [21 + 0.8 * i + 0.1 * (i % 2) for i in range(12)]
    assert [r[1] for r in rows(track(rising))] == [2]
    flat = [21 + 0.5 * (i % 2) for i in range(12)]
    assert [r[1] for r in rows(track(flat))] == [1]


def test_what_is_urgent_opens_at_once() -> None:
    hot = track([95.0], code="FAULT_OR_SENSOR", item=None, lines=(None, None, 90.0))
    assert [r[1] for r in rows(hot)] == [3]


def test_a_rise_beside_heat_is_severity_three() -> None:
    rise = track([4.0, 4.0], code="TEMP_RISE", lines=(None, 3.0, None))
    assert [r[1] for r in rows(rise)] == [2]
    heat = track([58.0], code="TEMP_HIGH", lines=(45, 55, 60))
    assert [(r[0], r[1]) for r in rows(pl.concat([rise, heat]))] == [("TEMP_RISE", 3)]


def test_a_broken_channel_rises_while_it_hides_what_another_episode_needs() -> None:
    drift = track([5.0], code="COUNTER_DRIFT", item=None, lines=(1.0, None, None))
    assert [r[1] for r in rows(drift)] == [1]
    low = track([60.0, 60.0], code="SOH_LOW", item=None, lines=(80.0, 80.0, None), low_bad=True)
    assert dict(r[:2] for r in rows(pl.concat([drift, low]))) == {"COUNTER_DRIFT": 2, "SOH_LOW": 2}  # type: ignore[misc]


@given(
    values=st.lists(st.floats(0, 100), min_size=1, max_size=60),
    order=st.randoms(use_true_random=False),
)
def test_the_order_of_readings_does_not_matter(values: list[float], order: object) -> None:
    readings = pl.concat([track(values), track(values[::-1], item=8)])
    shuffled = list(range(readings.height))
    order.shuffle(shuffled)  # type: ignore[attr-defined]
    assert episodes(CAR, readings).equals(episodes(CAR, readings[shuffled]))


@given(values=st.lists(st.floats(0, 100), min_size=1, max_size=80))
def test_episodes_of_an_item_follow_each_other_and_hold_their_windows(values: list[float]) -> None:
    found = episodes(CAR, track(values)).sort("opened_at")
    for row in found.iter_rows(named=True):
        assert row["first_crossed_at"] <= row["opened_at"] <= row["last_seen_at"]
        assert row["closed_at"] is None or row["last_seen_at"] <= row["closed_at"]
        assert row["window_count"] >= 2
    closed = found["closed_at"].to_list()
    assert all(end is not None for end in closed[:-1])
    assert all(end < start for end, start in zip(closed, found["opened_at"].to_list()[1:], strict=False))
    assert found["anomaly_id"].n_unique() == found.height
