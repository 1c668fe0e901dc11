"""Lists: exact fixed point, what is no value, and the figures over what is left."""

from __future__ import annotations

import math
import re
import statistics

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baas_dagster.telemetry import cells

PACK_UNKNOWN = math.nan


def columns(*rows: str | None, pack_volt: float = PACK_UNKNOWN) -> list[dict[str, object]]:
    lists = cells.lists_from_text(pa.array(rows, pa.string()), cells.CELL_SCALE, cells.CELL_SENTINEL_MV)
    assert not lists.bad
    return pa.table(cells.cell_columns(lists, np.full(len(rows), pack_volt))).to_pylist()


def temps(*rows: str | None) -> list[dict[str, object]]:
    return pa.table(
        cells.temp_columns(cells.lists_from_text(pa.array(rows, pa.string()), cells.TEMP_SCALE))
    ).to_pylist()


def text(*values: float) -> str:
    return ",".join(f"{v:.3f}" for v in values)


# a slow reference -------------------------------------------------------------------------------------------------


def slow(row: str | None, scale: int) -> tuple[list[int | None] | None, str | None]:
    """Values of one list and the first token that is no number, one token at a time."""
    if row is None:
        return None, None
    values: list[int | None] = []
    bad = None
    for token in row.split(","):
        stripped = token.strip(" \t\r\n[](){}\"'")
        if stripped.lower() in cells.NULL_TOKENS:
            values.append(None)
        elif re.fullmatch(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?", stripped):
            number = float(np.rint(float(stripped) * scale))
            values.append(int(number) if -32768 <= number <= 32767 else -99999)
        else:
            bad = bad if bad is not None else token
            values.append(-99999)
    while values and values[-1] is None:
        values.pop()
    return [None if v == -99999 else v for v in values] or None, bad


token = st.one_of(
    st.floats(-5, 70, allow_nan=False).map(lambda v: f"{v:.2f}"),
    st.floats(0, 5).map(repr),
    st.sampled_from(
        ["3.92", "3.920", " 3.9 ", "", "  ", "NULL", "-", "nan", "66.535", "[3.9", "3.9]", "'3.9'", "4", "1e0"]
    ),
    st.sampled_from(["+3.9", ".5", "5.", "-0.5", "99.9", "1e300", "        3.9", "3.90000000000001"]),
)
bad_token = st.sampled_from(["abc", "3,9x", "0x10", "1_0", "3.9.9", "inf", "--1", "3 9"])
row = st.one_of(st.none(), st.lists(token, max_size=40).map(",".join))


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.one_of(row, st.lists(st.one_of(token, bad_token), max_size=6).map(",".join)), min_size=1, max_size=12)
)
def test_lists_read_as_a_slow_reader_reads_them(rows: list[str | None]) -> None:
    lists = cells.lists_from_text(pa.array(rows, pa.string()), cells.CELL_SCALE, cells.CELL_SENTINEL_MV)
    got = cells.cell_columns(lists, np.full(len(rows), np.nan))["cell_mv"].to_pylist()
    for index, text_row in enumerate(rows):
        values, bad = slow(text_row, cells.CELL_SCALE)
        assert lists.bad.get(index) == (None if bad is None else lists.bad[index])
        assert (bad is None) == (index not in lists.bad)
        if bad is None:
            assert got[index] == values


@settings(max_examples=60, deadline=None)
@given(st.lists(row, min_size=2, max_size=12), st.integers(1, 11))
def test_rows_read_the_same_however_they_are_cut(rows: list[str | None], cut: int) -> None:
    def read(part: list[str | None]) -> list[dict[str, object]]:
        lists = cells.lists_from_text(pa.array(part, pa.string()), cells.CELL_SCALE, cells.CELL_SENTINEL_MV)
        return pa.table(cells.cell_columns(lists, np.full(len(part), 350.0))).to_pylist()

    assert read(rows) == [one for part in (rows[:cut], rows[cut:]) if part for one in read(part)]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.integers(1000, 4500), max_size=70), min_size=1, max_size=8))
def test_figures_are_those_of_the_measured_cells(packs: list[list[int]]) -> None:
    rows = [text(*(v / 1000 for v in pack)) for pack in packs]
    for pack, got in zip(packs, columns(*rows), strict=True):
        if not pack:
            assert got["cell_mv"] is None
            assert got["cell_n"] is None
        elif pack.count(4000) < 28:
            assert got["cell_mv"] == pack
            assert (got["cell_n"], got["cell_sum_mv"]) == (len(pack), sum(pack))
            assert (got["cell_min_mv"], got["cell_max_mv"]) == (min(pack), max(pack))
            assert got["cell_mean_mv"] == pytest.approx(statistics.fmean(pack))


# fixed point ------------------------------------------------------------------------------------------------------


def test_every_step_of_a_cell_is_exact() -> None:
    steps = [f"{mv / 1000:.3f}" for mv in range(-500, 6000)]
    assert columns(",".join(steps))[0]["cell_mv"] == list(range(-500, 6000))
    hundredths = [f"{v / 100:.2f}" for v in range(100, 500)]
    assert columns(",".join(hundredths))[0]["cell_mv"] == [v * 10 for v in range(100, 500)]


def test_arrow_floats_text_and_numbered_columns_read_alike() -> None:
    expected = [[3920, 3880], None, [3921, None, 3900]]
    values = [[3.92, 3.88], None, [3.921, None, 3.9]]
    for arrow in (pa.list_(pa.float64()), pa.list_(pa.float32()), pa.large_list(pa.float64())):
        lists = cells.lists_from_arrow(pa.array(values, arrow), cells.CELL_SCALE)
        assert cells.cell_columns(lists, np.full(3, np.nan))["cell_mv"].to_pylist() == expected
    texts = pa.array([["3.92", "3.88"], None, ["3.921", None, "3.9", ""]], pa.list_(pa.string()))
    assert (
        cells.cell_columns(cells.lists_from_arrow(texts, 1000), np.full(3, np.nan))["cell_mv"].to_pylist() == expected
    )
    nan = math.nan
    matrix = np.array([[3.92, 3.88, nan, nan], [nan] * 4, [3.921, nan, 3.9, nan]])
    assert (
        cells.cell_columns(cells.lists_from_matrix(matrix, 1000), np.full(3, np.nan))["cell_mv"].to_pylist() == expected
    )


def test_the_list_wins_over_numbered_columns_where_it_is_not_empty() -> None:
    lists = cells.lists_from_text(pa.array(["3.9", None, "", "3.7,3.6"]), 1000)
    numbered = cells.lists_from_matrix(np.array([[1.0, 1.0], [2.0, 2.1], [3.0, np.nan], [4.0, 4.0]]), 1000)
    both = cells.first_non_empty(lists, numbered)
    got = cells.cell_columns(both, np.full(4, np.nan))["cell_mv"].to_pylist()
    assert got == [[3900], [2000, 2100], [3000], [3700, 3600]]


# no value ---------------------------------------------------------------------------------------------------------


def test_the_cell_sentinel_is_counted_and_other_misfits_apart() -> None:
    got = columns("3.9,66.535,66.534,-40", "3.9,3.8,3.7,3.6")[0]
    assert got["cell_mv"] == [3900, None, None, None]
    assert (got["cell_n"], got["cell_sentinel_n"], got["cell_unfit_n"], got["cell_placeholder_n"]) == (1, 1, 2, 0)


@pytest.mark.parametrize("value", [5.10, 0.00])
@pytest.mark.parametrize("block", [0, 1, 2])
def test_a_block_of_5_10_or_0_is_a_placeholder_and_stays_in_the_list(value: float, block: int) -> None:
    pack = [3.9] * 96
    pack[32 * block : 32 * block + 28] = [value] * 28
    got = columns(text(*pack))[0]
    assert got["cell_mv"] == [round(v * 1000) for v in pack]
    assert (got["cell_placeholder_n"], got["cell_n"]) == (28, 68)
    assert (got["cell_min_mv"], got["cell_max_mv"], got["cell_sum_mv"]) == (3900, 3900, 68 * 3900)


def test_27_equal_cells_and_cells_across_a_block_edge_are_measurements() -> None:
    assert columns(text(*[0.0] * 27, *[3.9] * 5))[0]["cell_n"] == 32
    assert columns(text(*[3.9] * 16, *[0.0] * 32, *[3.9] * 16))[0]["cell_n"] == 64


def test_a_last_block_of_28_cells_counts_and_a_shorter_one_does_not() -> None:
    assert columns(text(*[3.9] * 32, *[5.1] * 28))[0]["cell_placeholder_n"] == 28
    assert columns(text(*[3.9] * 32, *[5.1] * 27))[0]["cell_placeholder_n"] == 0


def test_a_healthy_pack_at_4_00_keeps_its_cells() -> None:
    pack = [4.00] * 90 + [4.02] * 6
    for volts in (PACK_UNKNOWN, 0.0, 384.1, 3841.0):
        got = columns(text(*pack), pack_volt=volts)[0]
        assert (got["cell_n"], got["cell_placeholder_n"]) == (96, 0)


def test_4_00_beside_cells_that_say_otherwise_is_a_placeholder() -> None:
    got = columns(text(*[4.00] * 32, *[3.70] * 64))[0]
    assert (got["cell_placeholder_n"], got["cell_n"], got["cell_max_mv"]) == (32, 64, 3700)
    assert columns(text(*[4.00] * 32, *[3.945] * 64))[0]["cell_placeholder_n"] == 0


@pytest.mark.parametrize("scale", [1.0, 10.0])
def test_4_00_throughout_is_a_placeholder_when_the_pack_voltage_says_otherwise(scale: float) -> None:
    assert columns(text(*[4.00] * 96), pack_volt=355.0 * scale)[0]["cell_placeholder_n"] == 96
    assert columns(text(*[4.00] * 96), pack_volt=380.0 * scale)[0]["cell_placeholder_n"] == 0


def test_a_suspect_cell_is_a_measurement() -> None:
    got = columns("3.9,1.2,4.9,0.00,5.10")[0]
    assert (got["cell_n"], got["cell_min_mv"], got["cell_max_mv"]) == (5, 0, 5100)


def test_temperature_sentinels_are_left_out_and_counted_and_zero_is_not() -> None:
    got = temps("25,215,-40,471,0,26", "-40,215", None, "20.5,21.04")
    figures = ("temp_n", "temp_min_c", "temp_max_c", "temp_mean_c", "temp_sentinel_n")
    assert [got[0][name] for name in figures] == [3, 0.0, 26.0, 17.0, 3]
    assert got[0]["mod_temp_dc"] == [250, 2150, -400, 4710, 0, 260]
    assert (got[1]["temp_n"], got[1]["temp_min_c"], got[1]["temp_sentinel_n"]) == (0, None, 2)
    assert got[2]["mod_temp_dc"] is None
    assert got[3]["mod_temp_dc"] == [205, 210]
