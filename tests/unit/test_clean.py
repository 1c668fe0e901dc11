"""Which delivery wins, which row of a repeated time is kept, and that every row is accounted for."""

from __future__ import annotations

from datetime import datetime, timedelta

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from baas_dagster.telemetry.clean import Delivered, merge, precedence

T0 = datetime(2023, 1, 5, 8)


def frame(source: str, rows: list[tuple[int, int | None, int, float]]) -> pl.DataFrame:
    """Rows of (seconds, msg seconds, seq, soc)."""
    return pl.DataFrame(
        {
            "time": [T0 + timedelta(seconds=r[0]) for r in rows],
            "msg_time": [None if r[1] is None else T0 + timedelta(seconds=r[1]) for r in rows],
            "seq": [r[2] for r in rows],
            "soc": [r[3] for r in rows],
            "cell_mv": [[3900, int(r[3])] for r in rows],
            "source_file": [source] * len(rows),
            "source_row": list(range(2, len(rows) + 2)),
            "layout_id": ["a"] * len(rows),
        },
        schema={
            "time": pl.Datetime("us"), "msg_time": pl.Datetime("us"), "seq": pl.Int64, "soc": pl.Float64,
            "cell_mv": pl.List(pl.Int16), "source_file": pl.String, "source_row": pl.Int64, "layout_id": pl.String,
        },
    )  # fmt: skip


def delivered(source: str, rows: pl.DataFrame, logical: str | None = None, at: datetime | None = None) -> Delivered:
    times = rows["time"].to_list()
    return Delivered(source, logical or source, at, min(times), max(times), len(times), is_sorted_unique=False)


def test_the_last_message_of_a_time_is_kept() -> None:
    rows = frame("a", [(0, 5, 1, 50.0), (0, 9, 1, 51.0), (0, 7, 9, 52.0), (1, None, 1, 53.0)])
    found = merge([delivered("a", rows)], [rows])
    assert found.rows["soc"].to_list() == [51.0, 53.0]
    assert found.conflicting == 0, "their order is known"
    assert [(s.kept, s.duplicates, s.superseded) for s in found.sources] == [(2, 2, 0)]


def test_seq_decides_between_messages_of_one_time() -> None:
    rows = frame("a", [(0, 0, 2, 50.0), (0, 0, 10, 51.0), (0, 0, 1, 52.0)])
    assert merge([delivered("a", rows)], [rows]).rows["soc"].to_list() == [51.0]


def test_two_messages_a_second_are_no_conflict_but_rows_that_nothing_orders_are() -> None:
    twice = frame("a", [(s // 2, s // 2, s, 50.0 + s) for s in range(6)])
    again = frame("b", [(s // 2, s // 2, s, 50.0 + s) for s in range(6)])
    found = merge([delivered("a", twice), delivered("b", again)], [twice, again])
    assert found.rows["soc"].to_list() == [51.0, 53.0, 55.0]
    assert found.conflicting == 0
    assert [(s.kept, s.duplicates, s.superseded) for s in found.sources] == [(0, 6, 0), (3, 3, 0)]
    tied = frame("a", [(0, 0, 1, 50.0), (0, 0, 1, 51.0), (1, None, 1, 50.0), (1, None, 1, 51.0), (2, 2, 1, 50.0)])
    assert merge([delivered("a", tied)], [tied]).conflicting == 2


def test_files_that_end_a_second_differently_conflict_whatever_orders_their_rows() -> None:
    one = frame("one", [(0, 0, 1, 50.0), (0, 0, 2, 51.0)])
    two = frame("two", [(0, 0, 1, 50.0), (0, 0, 3, 52.0)])
    assert merge([delivered("one", one), delivered("two", two)], [one, two]).conflicting == 1


def test_a_corrected_delivery_replaces_the_earlier_one_for_the_time_it_covers() -> None:
    old = frame("old", [(s, s, 1, 50.0) for s in (0, 10, 20, 30, 40)])
    new = frame("new", [(s, s, 1, 60.0) for s in (10, 30)])
    slices = [
        delivered("old", old, "bms_2023-01", datetime(2023, 2, 1)),
        delivered("new", new, "bms_2023-01", datetime(2023, 3, 1)),
    ]
    found = merge(slices, [old, new])
    assert found.rows["soc"].to_list() == [50.0, 60.0, 60.0, 50.0], "20 s was withdrawn, 0 s and 40 s stay"
    assert {s.source_file: (s.kept, s.duplicates, s.superseded) for s in found.sources} == {
        "old": (2, 0, 3),
        "new": (2, 0, 0),
    }
    assert found.conflicting == 0, "a correction is no conflict"


def test_identical_rows_of_overlapping_files_are_duplicates_and_no_conflict() -> None:
    one = frame("one", [(0, 0, 1, 50.0), (1, 1, 2, 51.0)])
    two = frame("two", [(1, 1, 2, 51.0), (2, 2, 3, 52.0)])
    found = merge([delivered("one", one), delivered("two", two)], [one, two])
    assert found.rows["soc"].to_list() == [50.0, 51.0, 52.0]
    assert found.conflicting == 0
    assert sum(s.duplicates for s in found.sources) == 1
    assert sum(s.superseded for s in found.sources) == 0


def test_a_delivery_without_a_time_is_the_weakest() -> None:
    rows = frame("a", [(0, 0, 1, 50.0)])
    order = precedence([delivered("z", rows, at=datetime(2023, 2, 1)), delivered("a", rows), delivered("b", rows)])
    assert [s.source_file for s in order] == ["a", "b", "z"]


ROWS = st.lists(
    st.tuples(
        st.integers(0, 6), st.one_of(st.none(), st.integers(0, 3)), st.integers(0, 2), st.sampled_from([1.0, 2.0])
    ),
    min_size=1, max_size=8,
)  # fmt: skip


@given(
    contents=st.lists(ROWS, min_size=1, max_size=4),
    ages=st.lists(st.integers(0, 2), min_size=4, max_size=4),
    logical=st.lists(st.sampled_from(["x", "y"]), min_size=4, max_size=4),
    order=st.permutations(range(4)),
)
def test_the_order_of_arrival_does_not_matter_and_every_row_is_accounted_for(
    contents: list[list[tuple[int, int | None, int, float]]], ages: list[int], logical: list[str], order: list[int]
) -> None:
    frames = [frame(f"f{i}", rows) for i, rows in enumerate(contents)]
    slices = [
        delivered(f"f{i}", f, logical[i], None if ages[i] == 0 else datetime(2023, 2, ages[i]))
        for i, f in enumerate(frames)
    ]
    found = merge(slices, frames)
    shuffled = [i for i in order if i < len(frames)]
    again = merge([slices[i] for i in shuffled], [frames[i] for i in shuffled])
    assert again.rows.select(sorted(again.rows.columns)).equals(found.rows.select(sorted(found.rows.columns)))
    assert again.sources == found.sources
    assert again.conflicting == found.conflicting
    for source in found.sources:
        rows = len(contents[int(source.source_file[1:])])
        assert source.kept + source.duplicates + source.superseded == rows
        assert min(source.kept, source.duplicates, source.superseded) >= 0
    assert found.rows.height == sum(s.kept for s in found.sources)
    times = found.rows["time"].to_list()
    assert times == sorted(set(times))
