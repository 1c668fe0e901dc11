"""Rows and their text."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from baas_dagster.simulator.table import (
    MISSING,
    Choice,
    Layout,
    Lists,
    Moment,
    Number,
    Table,
    TextFaults,
    concat,
    render,
    to_frame,
)

PSQL = Layout("p", "psql")
CSV = Layout("c", "csv")


def small() -> Table:
    return Table(
        {
            "device_no": Choice(np.zeros(3, dtype=np.int64), ("01290001001",)),
            "time": Moment(np.array([1_672_531_199, 1_672_531_200, 1_672_531_260])),
            "pack_volt": Number(np.array([3621, MISSING, -5]), 1),
            "cell_volt_list": Lists(
                np.array([[3920, 66535], [3940, 5100], [0, MISSING]], dtype=np.int32), milli=True, decimals=2
            ),
            "v2l": Choice(np.array([0, 1, 0]), ("0", "1")),
        }
    )


def text(table: Table, layout: Layout, faults: TextFaults | None = None) -> list[str]:
    return b"".join(render(table, layout, faults)).decode(layout.encoding).splitlines()


def test_psql_dump_has_padded_header_dashes_and_footer() -> None:
    lines = text(small(), PSQL)
    assert [name.strip() for name in lines[0].split("|")] == ["device_no", "time", "pack_volt", "cell_volt_list", "v2l"]
    assert set(lines[1]) == {"-", "+"}
    assert [field.strip() for field in lines[2].split("|")] == [
        "01290001001",
        "22-12-31 23:59:59",
        "362.1",
        "3.92,66.535",
        "0",
    ]
    assert [field.strip() for field in lines[3].split("|")][2:] == ["", "3.94,5.10", "1"]
    assert [field.strip() for field in lines[4].split("|")][2:] == ["-0.5", "0.00", "0"]
    assert lines[5] == "(3 rows)"


def test_csv_quotes_lists_and_brackets_and_flags_follow_the_layout() -> None:
    lines = text(small(), replace(CSV, long_dates=True, brackets=True, flags=("N", "Y"), names={"v2l": "V2L"}))
    assert lines[0] == "device_no,time,pack_volt,cell_volt_list,V2L"
    assert lines[1] == '01290001001,2022-12-31 23:59:59,362.1,"[3.92,66.535]",N'
    assert lines[2] == '01290001001,2023-01-01 00:00:00,,"[3.94,5.10]",Y'


def test_numbered_cells_take_192_columns_with_blanks() -> None:
    lines = text(small(), replace(CSV, numbered=True))
    assert lines[0].split(",")[3:5] == ["cell_v_001", "cell_v_002"]
    assert all(len(line.split(",")) == 4 + 192 for line in lines)
    assert lines[1].split(",")[3:6] == ["3.92", "66.535", ""]
    assert lines[3].split(",")[3:6] == ["0.00", "", ""]


def test_text_faults_hit_exactly_their_rows() -> None:
    faults = TextFaults(texts={"time": {1: "23-02-30 00:00:00"}}, short_rows=[0], long_rows=[2], header_again_at=(1,))
    table = Table({**small().columns, "soc": Number(np.array([1, 2, 3]))})
    lines = text(table, PSQL, faults)
    assert lines[3:5] == lines[:2]
    assert [line.count("|") + 1 for line in (lines[0], lines[2], lines[5], lines[6])] == [6, 4, 6, 8]
    assert lines[5].split("|")[1].strip() == "23-02-30 00:00:00"


def test_joined_tables_pad_shorter_lists_and_keep_the_finer_decimals() -> None:
    other = small()
    other = other.with_column("cell_volt_list", Lists(np.full((3, 4), 3300, dtype=np.int32), True, 3))
    other = other.with_column("pack_volt", Number(np.array([100, 101, MISSING])))
    both = concat([small(), other])
    assert both.number("pack_volt").tolist() == [3621, MISSING, -5, 1000, 1010, MISSING]
    cells = both.columns["cell_volt_list"]
    assert isinstance(cells, Lists)
    assert cells.values[0].tolist() == [3920, 66535, MISSING, MISSING]


def test_parquet_holds_the_same_values_as_the_text() -> None:
    frame = to_frame(small(), PSQL)
    assert frame["pack_volt"].to_list() == [362.1, None, -0.5]
    assert frame["cell_volt_list"].to_list() == ["3.92,66.535", "3.94,5.10", "0.00"]
    assert str(frame["time"][1]) == "2023-01-01 00:00:00"


def test_korean_text_is_written_in_cp949() -> None:
    table = small().with_column("state", Choice(np.array([0, 1, 0]), ("정차", "운행")))
    data = b"".join(render(table, replace(CSV, encoding="cp949")))
    assert "운행" in data.decode("cp949")
    assert "운행".encode() not in data
