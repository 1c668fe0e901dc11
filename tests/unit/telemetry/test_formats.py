"""Text and Parquet: what is a row, what a value means, and which line a rejected row stands on."""

from __future__ import annotations

import csv
import gzip
import io
import re
from datetime import datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from landing_tools import DEVICE, OTHER, Intake, bms_row, comma, psql, zipped

from baas_dagster.telemetry.archives import IntakeLimits
from baas_dagster.telemetry.delivery import FileReport
from baas_dagster.telemetry.formats import times_from_text

TEN = datetime(2023, 1, 5, 10)
fixture_once = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def summary(intake: Intake, report: FileReport) -> list[tuple[Any, ...]]:
    """Everything a row is, without its file."""
    rows = [tuple(v for k, v in r.items() if k not in ("source_file", "layout_id")) for r in intake.rows(report)]
    return rows + [(r["source_row"], r["reason"], r["text"]) for r in intake.rejected(report)]


def account(report: FileReport) -> tuple[int, int, int]:
    member = report.members[0]
    return member.rows_read, member.rows_rejected, sum(s.rows for s in member.slices)


# formats -----------------------------------------------------------------------------------------------------------

ROWS = [bms_row(s, odometer=1000 + s, soc="" if s == 2 else 50.5) for s in range(6)]


def parquet(rows: list[dict[str, str]], *, typed: bool) -> bytes:
    table = pa.Table.from_pylist(rows)
    if typed:
        when = [datetime.strptime(r["time"], "%y-%m-%d %H:%M:%S") for r in rows]
        lists = [[float(v) for v in r["cell_volt_list"].split(",")] for r in rows]
        table = (
            table.set_column(table.schema.get_field_index("time"), "time", pa.array(when, pa.timestamp("ns")))
            .set_column(table.schema.get_field_index("msg_time"), "msg_time", pa.array(when, pa.timestamp("s")))
            .set_column(table.schema.get_field_index("cell_volt_list"), "cell_volt_list", pa.array(lists))
        )
        odometer = pa.array([float(r["odometer"]) for r in rows], pa.float32())
        soc = pa.array([float(r["soc"] or "nan") for r in rows])
        relay = pa.array([r["main_relay_conn"] == "1" for r in rows])
        for name, values in (("odometer", odometer), ("soc", soc), ("main_relay_conn", relay)):
            table = table.set_column(table.schema.get_field_index(name), name, values)
    out = io.BytesIO()
    pq.write_table(table, out)
    return out.getvalue()


@pytest.mark.parametrize(
    ("name", "data", "first_row"),
    [
        ("bms.csv", psql(ROWS), 3),
        ("bms.txt", psql(ROWS, bom=False), 3),
        ("bms_crlf.csv", psql(ROWS).replace("\n", "\r\n"), 3),
        ("bms_comma.csv", comma(ROWS), 2),
        ("bms_semicolon.csv", comma(ROWS, end="\n", delimiter=";"), 2),
        ("bms.tsv", comma(ROWS, delimiter="\t"), 2),
        ("bms.csv.gz", gzip.compress(comma(ROWS).encode()), 2),
        ("bms.parquet", parquet(ROWS, typed=True), 1),
        ("bms_text.parquet", parquet(ROWS, typed=False), 1),
        ("a.zip", zipped({"bms.parquet": parquet(ROWS, typed=True)}), 1),
    ],
)
def test_every_format_gives_the_same_rows(intake: Intake, name: str, data: bytes | str, first_row: int) -> None:
    report = intake.read(name, data)
    assert (report.status, account(report)) == ("ok", (6, 0, 6))
    rows = intake.rows(report)
    assert [r["source_row"] for r in rows] == list(range(first_row, first_row + 6))
    assert [r["time"] for r in rows] == [TEN + timedelta(seconds=s) for s in range(6)]
    assert [r["odometer"] for r in rows] == [1000.0 + s for s in range(6)]
    assert [r["soc"] for r in rows] == [50.5, 50.5, None, 50.5, 50.5, 50.5]
    assert {(r["main_relay_conn"], r["cell_sum_mv"], r["temp_mean_c"], r["device_no"]) for r in rows} == {
        (True, 7800, 25.5, DEVICE)
    }


def test_a_row_number_is_the_physical_line_whatever_stands_between(intake: Intake) -> None:
    lines = psql([bms_row(s) for s in range(8)]).split("\n")
    lines[3:3] = ["", "   ", lines[0].lstrip("\ufeff"), lines[1], "only|three|columns", lines[0], "\\."]
    report = intake.read("bms.csv", "\n".join(lines))
    assert account(report) == (9, 1, 8)
    assert [r["source_row"] for r in intake.rows(report)] == [3, *range(11, 18)]
    (bad,) = intake.rejected(report)
    assert (bad["source_row"], bad["text"]) == (8, "only|three|columns")
    assert bad["reason"] == "3 columns instead of 8"


def test_decoration_is_no_data(intake: Intake) -> None:
    report = intake.read("bms.csv", psql(ROWS[:1]).replace("(1 rows)", "(1 row)"))
    assert (report.status, report.reason, account(report)) == ("ok", None, (1, 0, 1))
    empty = psql(ROWS[:1], footer=0).split("\n")
    report = intake.read("bms0.csv", "\n".join([*empty[:2], *empty[3:]]))
    assert (report.status, report.members[0].status, account(report)) == ("empty", "empty", (0, 0, 0))


def test_a_footer_that_counts_other_rows_says_truncated(intake: Intake) -> None:
    report = intake.read("bms.csv", psql(ROWS, footer=7))
    assert report.status == "partial"
    assert report.reason == "footer says 7 rows, read 6: truncated?"


def test_files_put_together_are_read_as_each_one_says(intake: Intake) -> None:
    other = [
        {k: bms_row(s + 20, odometer=7)[k] for k in ("odometer", "time", "device_no", "v2l") if k != "v2l"}
        for s in range(3)
    ]
    report = intake.read("bms.csv", psql(ROWS) + psql(other) + psql(ROWS[:2]))
    assert (report.status, report.reason, account(report)) == ("ok", None, (11, 0, 11))
    slices = report.members[0].slices
    assert len({s.layout_id for s in slices}) == len({s.path for s in slices}) == 2
    assert [r["odometer"] for r in intake.rows(report)][6:9] == [7.0] * 3


def test_bms_and_gps_are_told_apart_by_columns_then_by_name(intake: Intake) -> None:
    gps = [{"device_no": DEVICE, "time": "2023-01-05 10:00:00", "timestamp": "2023-01-05 10:00:01", "lon": "127.1"}]
    report = intake.read("bms_2023-01.csv", comma(gps))
    assert report.members[0].kind == "gps"
    assert intake.rows(report)[0]["lng"] == 127.1
    assert intake.rows(report)[0]["msg_time"] == TEN + timedelta(seconds=1)
    bare = comma([{"device_no": DEVICE, "time": "2023-01-05 10:00:00"}])
    assert intake.read("gps_1.csv", bare).members[0].kind == "gps"
    assert intake.read("bms_1.csv", bare).members[0].kind == "bms"
    assert intake.read("bms_2.zip", zipped({"data.csv": bare})).members[0].kind == "bms"
    assert "no usable header" in str(intake.read("what.csv", bare).reason)


@pytest.mark.parametrize("data", ["", "a,b\n1,2\n", "hello\n" * 100, "\x00\x01\x02" * 50, "device_no,soc\n1,2\n"])
def test_a_member_without_header_says_what_it_takes(intake: Intake, data: str) -> None:
    report = intake.read("bms.csv", data)
    if not data:
        assert report.status == "empty"
        return
    assert (report.status, report.members[0].slices) == ("failed", ())
    assert "device_no" in str(report.reason)


def test_a_line_without_end_is_no_table(intake: Intake) -> None:
    limits = IntakeLimits(chunk_bytes=1000, max_line_bytes=5000)
    assert "a line longer" in str(intake.read("bms.csv", "x" * 20_000, limits).reason)


@pytest.mark.parametrize("data", [b"PAR1 and nothing of the kind", parquet(ROWS, typed=True)[:-40]])
def test_unreadable_parquet_says_so(intake: Intake, data: bytes) -> None:
    assert "unreadable Parquet" in str(intake.read("bms.parquet", data).reason)


def test_columns_of_no_use_are_named_and_the_rest_is_read(intake: Intake) -> None:
    report = intake.read("bms.csv", comma([bms_row(0, vendor_note="x,y", 비고="z")]))
    assert report.members[0].unknown_columns == ("vendor_note", "비고")
    assert account(report) == (1, 0, 1)


def test_aliases_and_numbered_columns_are_the_contract_columns(intake: Intake) -> None:
    row = {"DEVICE NO": DEVICE, "messageTime": "23-01-05 10:00:00", "emobilitySpeed": "30", "packVolt": "7.0"}
    cells = {f"cell_v_{n:03d}": f"{3.5 + n / 1000:.3f}" if n < 4 else "" for n in range(1, 193)}
    report = intake.read("bms.csv", comma([row | cells | {"modTemp1": "20", "mod_temp_02": "", "mod_temp_3": "22"}]))
    (got,) = intake.rows(report)
    assert (got["time"], got["msg_time"], got["emobility_spd"], got["pack_volt"]) == (TEN, TEN, 30.0, 7.0)
    assert got["cell_mv"] == [3501, 3502, 3503]
    assert got["mod_temp_dc"] == [200, None, 220]
    assert report.members[0].unknown_columns == ()


def test_two_columns_of_one_meaning_fill_each_other(intake: Intake) -> None:
    rows = [
        {
            "device_no": DEVICE,
            "time": f"2023-01-05 10:00:0{s}",
            "lng": "" if s else "127.1",
            "lon": "127.2",
            "lat": "37",
        }
        for s in range(2)
    ]
    assert [r["lng"] for r in intake.rows(intake.read("gps.csv", comma(rows)))] == [127.1, 127.2]


def test_a_layout_id_names_the_layout_and_nothing_else(intake: Intake) -> None:
    def layout(name: str, text: str) -> str:
        return intake.read(name, text).members[0].layout_id

    first = layout("bms_a.csv", psql(ROWS))
    assert re.fullmatch(r"psql-[0-9a-f]{8}", first)
    assert layout("bms_b.csv", psql([bms_row(9, odometer="123456789012345", soc=1)])) == first
    assert layout("bms_c.csv", comma(ROWS)) != first
    assert layout("bms_d.csv", psql([dict(reversed(r.items())) for r in ROWS])) != first


# encodings ---------------------------------------------------------------------------------------------------------

KOREAN = [bms_row(s, hvac_list1="난방 켬" if s % 2 else "off") for s in range(9)]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp949"])
@pytest.mark.parametrize("chunk", [100, 1 << 20])
def test_korean_text_is_read_in_either_encoding(intake: Intake, encoding: str, chunk: int) -> None:
    report = intake.read("bms.csv", psql(KOREAN, bom=False).encode(encoding), IntakeLimits(chunk_bytes=chunk))
    assert report.status == "ok"
    assert report.members[0].encoding == encoding.removesuffix("-sig")
    assert [r["hvac_list1"] for r in intake.rows(report)] == ["off", "난방 켬"] * 4 + ["off"]


def test_a_few_lines_in_another_encoding_are_rejected_with_their_line(intake: Intake) -> None:
    rows = [bms_row(s, hvac_list1="난방") for s in range(50)]
    lines = comma(rows, end="\n").encode().split(b"\n")
    lines[20] = lines[20].decode().encode("cp949")
    report = intake.read("bms.csv", b"\n".join(lines))
    assert account(report) == (50, 1, 49)
    (bad,) = intake.rejected(report)
    assert (bad["source_row"], bad["reason"]) == (21, "mixed encodings: this line is not UTF-8")


def test_half_a_member_in_another_encoding_fails_it(intake: Intake) -> None:
    rows = [bms_row(s, hvac_list1="난방") for s in range(20)]
    text = comma(rows, end="\n").encode() + comma(rows, end="\n").encode("cp949")
    report = intake.read("bms.csv", text)
    assert report.status == "failed"
    assert "mixed encodings" in str(report.reason)
    assert [r["source_row"] for r in intake.rejected(report)] == [None]
    assert not list(intake.lake.glob("delivered/*/*/*/*"))


def test_a_header_that_cannot_be_decoded_fails_the_member(intake: Intake) -> None:
    text = b"device_no,time,odometer,\xb0\xff\xff\xe3\n" + comma(ROWS).encode()
    assert "mixed encodings: the header" in str(intake.read("bms.csv", text).reason)
    assert "UTF-16" in str(intake.read("bms16.csv", comma(ROWS).encode("utf-16")).reason)


# values ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        ("odometer", "12x", "odometer: '12x' is not a number"),
        ("odometer", "1 234", "odometer: '1 234' is not a number"),
        ("odometer", "inf", "odometer: 'inf' is not a number"),
        ("odometer", "1e999", "odometer: '1e999' is not a number"),
        ("seq", "1.5", "seq: '1.5' is not a whole number"),
        ("main_relay_conn", "2", "main_relay_conn: '2' is not a flag"),
        ("cell_volt_list", "3.9,abc,3.8", "cell_volt_list: 'abc' is not a number"),
        ("mod_temp_list", "25,warm", "mod_temp_list: 'warm' is not a number"),
        ("device_no", "1290001001", "device_no: '1290001001' is not 11 digits"),
        ("device_no", "", "device_no: no value"),
        ("device_no", "0129000100x", "device_no: '0129000100x' is not 11 digits"),
        ("time", "2023-02-30 10:00:00", "time: '2023-02-30 10:00:00' is not a date"),
        ("time", "23-01-05 24:00:00", "time: '23-01-05 24:00:00' is not a date"),
        ("time", "2023-01-05 10:00:00Z", "time: '2023-01-05 10:00:00Z' is not a date"),
        ("msg_time", "soon", "msg_time: 'soon' is not a date"),
        ("time", "2023-07-01 00:00:00", "time: month 2023-07 is in the future"),
        ("time", "2014-12-31 23:59:59", "time: month 2014-12 is before 2015-01, the first month accepted"),
    ],
)
@pytest.mark.parametrize("form", ["psql", "comma", "parquet"])
def test_broken_structure_rejects_the_row_and_says_column_and_value(
    intake: Intake, form: str, column: str, value: str, reason: str
) -> None:
    rows = [bms_row(s, seq=s) for s in range(5)]
    rows[3] |= {column: value}
    data = {"psql": psql, "comma": comma, "parquet": lambda r: parquet(r, typed=False)}[form](rows)
    report = intake.read("bms.csv", data)
    assert (report.status, account(report)) == ("partial", (5, 1, 4))
    (bad,) = intake.rejected(report)
    assert (bad["source_row"], bad["reason"]) == ({"psql": 6, "comma": 5, "parquet": 4}[form], reason)
    assert value in bad["text"]


def test_a_lost_zero_is_not_guessed_back_from_a_number_column(intake: Intake) -> None:
    table = pa.table({"device_no": pa.array([int(DEVICE)]), "time": ["23-01-05 10:00:00"], "odometer": [1.0]})
    out = io.BytesIO()
    pq.write_table(table, out)
    report = intake.read("bms.parquet", out.getvalue())
    assert account(report) == (1, 1, 0)
    assert intake.rejected(report)[0]["reason"] == "device_no: '1290001001' is not 11 digits"


@pytest.mark.parametrize("null", ["", "  ", "NULL", "null", "\\N", "NaN", "None", "-"])
@pytest.mark.parametrize("form", [psql, comma])
def test_spellings_of_no_value_are_null_in_every_column(intake: Intake, null: str, form: Any) -> None:
    free = ("odometer", "soc", "seq", "main_relay_conn", "hvac_list1", "cell_volt_list", "mod_temp_list", "msg_time")
    rows = [bms_row(0, **dict.fromkeys(free, null)), bms_row(1, soc=1, seq=1, hvac_list1="x")]
    report = intake.read("bms.csv", form(rows))
    assert (report.status, account(report)) == ("ok", (2, 0, 2))
    got = intake.rows(report)[0]
    assert [got[n] for n in (*free[:5], "cell_mv", "mod_temp_dc", "msg_time", "cell_n", "temp_n")] == [None] * 10


@pytest.mark.parametrize("text", ["1", "true", "T", "t", "Y", "yes", "on", "1.0", " 1 ", "TRUE"])
def test_spellings_of_a_set_flag(intake: Intake, text: str) -> None:
    rows = [bms_row(0, v2l=text), bms_row(1, v2l="0"), bms_row(2, v2l="f"), bms_row(3, v2l="N"), bms_row(4, v2l="0.0")]
    assert [r["v2l"] for r in intake.rows(intake.read("bms.csv", psql(rows)))] == [True, False, False, False, False]


def slow_number(text: str) -> float | str | None:
    stripped = text.strip()
    if stripped.lower() in {"", "null", "nan", "none", "\\n", "-"}:
        return None
    if re.fullmatch(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?", stripped) and abs(float(stripped)) < 1e308:
        return float(stripped)
    return "bad"


numbers = st.one_of(
    st.floats(-1e6, 1e6, allow_nan=False).map(repr),
    st.integers(-(10**6), 10**6).map(str),
    st.sampled_from(
        ["", " ", "NULL", "-", "+5", ".5", "5.", "1e3", "abc", "0x10", "1_0", "inf", "-inf", "nan", "1.2.3", "--1", "٣"]
    ),
)


@fixture_once
@given(st.lists(st.tuples(numbers, numbers), min_size=1, max_size=30))
def test_numbers_read_as_a_slow_reader_reads_them(intake: Intake, values: list[tuple[str, str]]) -> None:
    rows = [bms_row(s, odometer=a, soc=b) for s, (a, b) in enumerate(values)]
    report = intake.read("bms.csv", psql(rows))
    expected = [(slow_number(a), slow_number(b)) for a, b in values]
    good = {at + 3: pair for at, pair in enumerate(expected) if "bad" not in pair}
    assert {r["source_row"]: (r["odometer"], r["soc"]) for r in intake.rows(report)} == good
    assert {r["source_row"] for r in intake.rejected(report)} == {at + 3 for at in range(len(rows))} - good.keys()
    assert account(report) == (len(rows), len(rows) - len(good), len(good))


# times -------------------------------------------------------------------------------------------------------------


def times(*texts: str | None) -> list[datetime | None]:
    column = times_from_text(pa.array(texts, pa.string()))
    assert column.bad is None
    return list(column.values.to_pylist())


def test_both_year_widths_mixed_with_fractions_slashes_and_t() -> None:
    assert times(
        "23-01-05 10:00:00", " 2023-01-05 10:00:00  ", "2023/01/05 10:00:00", "2023-01-05T10:00:00", None, "",
        "2023-01-05 10:00:00.25", "23-01-05 10:00:00.5", "2023-01-05 10:00:00.123456789", "2023-01-05 10:00:00+09",
    ) == [
        TEN, TEN, TEN, TEN, None, None,
        TEN + timedelta(milliseconds=250), TEN + timedelta(milliseconds=500), TEN + timedelta(microseconds=123456), TEN,
    ]  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.datetimes(datetime(2000, 1, 1), datetime(2099, 12, 31)).map(lambda t: f"{t:%Y-%m-%d %H:%M:%S}"),
            st.datetimes(datetime(2000, 1, 1), datetime(2099, 12, 31)).map(lambda t: f"{t:%y-%m-%d %H:%M:%S}"),
            st.tuples(*[st.integers(0, 99)] * 6).map(lambda t: "{:02d}-{:02d}-{:02d} {:02d}:{:02d}:{:02d}".format(*t)),
            st.tuples(st.integers(1990, 2100), *[st.integers(0, 61)] * 5).map(
                lambda t: "{}-{:02d}-{:02d} {:02d}:{:02d}:{:02d}".format(*t)
            ),
            st.text(max_size=22),
        ),
        min_size=1,
        max_size=20,
    )
)
def test_times_read_as_the_standard_library_reads_them(texts: list[str]) -> None:
    def slow(text: str) -> datetime | None:
        text = text.strip()
        short = re.fullmatch(r"[0-9]{2}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2}", text)
        full = re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2}", text)
        if not short and not full:
            return None
        try:
            return datetime.fromisoformat("20" + text if short else text)
        except ValueError:
            return None

    texts = [t for t in texts if "+09" not in t]
    column = times_from_text(pa.array(texts, pa.string()))
    assert column.values.to_pylist() == [slow(t) for t in texts]


def test_without_time_the_message_time_serves_for_both_row_by_row(intake: Intake) -> None:
    rows = [bms_row(0), bms_row(1, time="")]
    assert [r["time"] for r in intake.rows(intake.read("bms.csv", comma(rows)))] == [TEN, TEN + timedelta(seconds=1)]
    rows = [{k: v for k, v in bms_row(s).items() if k != "time"} for s in range(2)]
    assert [r["time"] for r in intake.rows(intake.read("b.csv", comma(rows)))] == [TEN, TEN + timedelta(seconds=1)]
    rows = [bms_row(0, time="", msg_time="")]
    assert intake.rejected(intake.read("c.csv", comma(rows)))[0]["reason"] == "time: no value"


def test_times_with_a_zone_in_parquet_become_korean_time(intake: Intake) -> None:
    when = pa.array([TEN - timedelta(hours=9)], pa.timestamp("us")).cast(pa.timestamp("us", "UTC"))
    out = io.BytesIO()
    pq.write_table(pa.table({"device_no": [DEVICE], "time": when, "odometer": [1.0]}), out)
    assert intake.rows(intake.read("bms.parquet", out.getvalue()))[0]["time"] == TEN


# any cut gives the same ----------------------------------------------------------------------------------------------

line = st.one_of(
    st.integers(0, 599).map(lambda s: list(bms_row(s).values())),
    st.integers(0, 599).map(lambda s: list(bms_row(s, device_no=OTHER, cell_volt_list="3.9,66.535,,").values())),
    st.sampled_from(["12x", "inf", "NULL", " 5 "]).map(lambda v: list(bms_row(1, odometer=v).values())),
    st.sampled_from(["3.9,x", "[3.9, 3.8]", "66.535,3.9", ""]).map(
        lambda v: list(bms_row(2, cell_volt_list=v).values())
    ),
    st.sampled_from(["2023-02-30 10:00:00", "2023-03-01 00:00:00", "2024-01-01 00:00:00"]).map(
        lambda v: list(bms_row(3, time=v).values())
    ),
    st.sampled_from(["", "난방 켬", "a\rb"]).map(lambda v: [*list(bms_row(4).values())[:-1], v]),
    st.sampled_from(
        [[""], ["  "], ["x", "y"], list(bms_row(0)), ["(3 rows)"], ["----+----"], ["\ufeff" + next(iter(bms_row()))]]
    ),
)


@fixture_once
@given(st.lists(line, max_size=25), st.integers(1, 700), st.booleans(), st.sampled_from(["utf-8", "cp949"]))
def test_any_cut_into_chunks_gives_the_same_rows_numbers_and_reasons(
    intake: Intake, lines: list[list[str]], chunk: int, is_comma: bool, encoding: str
) -> None:
    out = io.StringIO()
    if is_comma:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(bms_row())
        for fields in lines:
            writer.writerow(fields)
    else:
        out.write("\n".join("|".join(f" {v} " for v in fields) for fields in [list(bms_row()), *lines]))
    data = out.getvalue().replace("\ufeff" if encoding == "cp949" else "\0", "").encode(encoding)
    whole = intake.read("bms.csv", data)
    expected, kept = summary(intake, whole), account(whole)
    cut = intake.read("bms.csv", data, IntakeLimits(chunk_bytes=chunk))
    assert summary(intake, cut) == expected
    assert (cut.status, cut.reason, account(cut)) == (whole.status, whole.reason, kept)
    assert kept[0] == kept[1] + kept[2]
    assert len(intake.rejected(cut)) == kept[1] or cut.status == "failed"


@fixture_once
@given(st.text(alphabet='"\n,|; ab0\r', max_size=60), st.integers(1, 80))
def test_rubbish_below_a_header_never_breaks_the_reader(intake: Intake, text: str, chunk: int) -> None:
    for header in ("device_no,time,odometer\n", "device_no|time|odometer\n"):
        good = header.replace("device_no", DEVICE).replace("time", "23-01-05 10:00:00").replace("odometer", "1")
        report = intake.read("bms.csv", header + good + text, IntakeLimits(chunk_bytes=chunk))
        rows = account(report)
        assert rows[0] == rows[1] + rows[2]
        assert rows[2] >= 1 or report.status == "failed"


def test_an_open_quote_costs_its_line_and_no_other(intake: Intake) -> None:
    lines = comma([bms_row(s) for s in range(6)], end="\n").split("\n")
    lines[2] = lines[2].replace('25,26"', "25,26")
    report = intake.read("bms.csv", "\n".join(lines))
    assert account(report) == (6, 1, 5)
    assert [r["source_row"] for r in intake.rejected(report)] == [3]
    assert "quotes" in intake.rejected(report)[0]["reason"]
