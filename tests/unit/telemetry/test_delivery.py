"""One landing file -> slices and a report: whole members or nothing, and an account to the row."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from landing_tools import DEVICE, OTHER, Intake, bms_row, comma, psql, zipped

from baas_dagster.telemetry import delivery
from baas_dagster.telemetry.archives import IntakeLimits
from baas_dagster.telemetry.columns import TableKind, lake_schema
from baas_dagster.telemetry.delivery import MemberReport, read_landing_file, sha256_of

REAL_LOGS = Path(__file__).parents[3].parent / "shared" / "data" / "landing"


def at(device: str, time: str, **values: object) -> dict[str, str]:
    return bms_row(0, **values) | {"device_no": device, "time": time, "msg_time": time}


def partitions(member: MemberReport) -> dict[tuple[str, str], int]:
    return {(s.device_no, s.measured_month): s.rows for s in member.slices}


def test_the_rows_decide_device_and_month_not_the_name(intake: Intake) -> None:
    rows = [
        at(DEVICE, "2023-01-31 23:59:59"),
        at(OTHER, "2023-02-01 00:00:00"),
        at(DEVICE, "2023-02-01 00:00:00"),
        at(DEVICE, "2022-12-31 23:00:00"),
    ]
    member = intake.read("bms_01290009999_2020-05.csv", comma(rows)).members[0]
    assert partitions(member) == {
        (DEVICE, "2022-12"): 1,
        (DEVICE, "2023-01"): 1,
        (DEVICE, "2023-02"): 1,
        (OTHER, "2023-02"): 1,
    }
    for one in member.slices:
        folder = one.path.parent
        assert folder == Path(f"delivered/bms/measured_month={one.measured_month}/device_no={one.device_no}")


def test_a_slice_has_the_lake_schema_and_names_its_source(intake: Intake) -> None:
    report = intake.read("a.zip", zipped({"x/bms.csv": psql([bms_row(0)])}))
    (one,) = report.members[0].slices
    file = pq.ParquetFile(intake.lake / one.path)
    assert file.schema_arrow.names == lake_schema(TableKind.BMS).names
    (row,) = file.read().to_pylist()
    assert row["source_file"] == one.source_file == f"{report.sha256[:12]}/x/bms.csv"
    assert (row["layout_id"], row["measured_month"], row["device_no"]) == (one.layout_id, "2023-01", DEVICE)
    assert (one.logical_name, one.delivered_at) == ("bms", datetime(2023, 2, 5, 10, 10))


def test_other_engines_read_a_slice_alike(intake: Intake) -> None:
    rows = [bms_row(s, odometer=s / 10, seq=s, cell_volt_list="3.9,66.535,3.921", v2l="t") for s in range(300)]
    report = intake.read("bms.csv", psql(rows))
    path = intake.lake / report.members[0].slices[0].path
    ours = intake.rows(report)
    assert pl.read_parquet(path, hive_partitioning=False).to_dicts() == ours
    relation = duckdb.sql(f"from read_parquet('{path}', hive_partitioning = false)")
    assert [dict(zip(relation.columns, r, strict=True)) for r in relation.fetchall()] == ours


def test_first_and_last_time_and_order_are_those_of_the_rows(intake: Intake) -> None:
    def order(*seconds: int, chunk: int = 1 << 20) -> tuple[bool, int, int]:
        rows = comma([bms_row(s) for s in seconds])
        (one,) = intake.read("bms.csv", rows, IntakeLimits(chunk_bytes=chunk)).members[0].slices
        assert one.first_time is not None
        assert one.last_time is not None
        return one.is_sorted_unique, one.first_time.second, one.last_time.second

    for chunk in (50, 1 << 20):
        assert order(1, 2, 5, chunk=chunk) == (True, 1, 5)
        assert order(5, 2, 1, chunk=chunk) == (False, 1, 5)
        assert order(1, 1, 2, chunk=chunk) == (False, 1, 2)
        assert order(1, 3, 2, chunk=chunk) == (False, 1, 3)


def test_rejected_rows_count_for_the_device_month_they_name(intake: Intake) -> None:
    rows = [
        at(DEVICE, "2023-01-05 10:00:00"),
        at(DEVICE, "2023-01-05 10:00:01", odometer="x"),
        at(DEVICE, "2023-02-30 10:00:01"),  # no date, and the device has one month in this member
        at(OTHER, "2023-01-05 10:00:00"),
        at(OTHER, "2023-02-05 10:00:00"),
        at(OTHER, "2023-02-30 10:00:01"),  # no date, and the device has two months
        at(OTHER, "2024-01-01 10:00:01"),  # the future
        at("12900", "2023-01-05 10:00:00"),
    ]
    member = intake.read("bms.csv", comma(rows)).members[0]
    assert {(s.device_no, s.measured_month): s.rows_rejected for s in member.slices} == {
        (DEVICE, "2023-01"): 2,
        (OTHER, "2023-01"): 0,
        (OTHER, "2023-02"): 0,
    }
    assert (member.rows_read, member.rows_rejected, member.rejected_unattributed) == (8, 5, 3)


def test_a_measured_month_column_names_the_month_of_a_row_without_date(intake: Intake) -> None:
    rows = [at(DEVICE, f"2023-0{m}-05 10:00:00", measured_month=f"2023-0{m}") for m in (1, 2)]
    rows += [at(DEVICE, "90/02/2032 10:00:00", measured_month=m) for m in ("2023-02", "2023-05", "May")]
    report = intake.read("bms.csv", psql(rows))
    member = report.members[0]
    assert {s.measured_month: s.rows_rejected for s in member.slices} == {"2023-01": 0, "2023-02": 1}
    assert (member.rows_rejected, member.rejected_unattributed) == (3, 2)
    assert [r["measured_month"] for r in intake.rejected(report)] == ["2023-02", "2023-05", None]


def test_a_device_month_of_which_every_row_is_rejected_still_shows(intake: Intake) -> None:
    rows = [at(DEVICE, "2023-01-05 10:00:00"), at(OTHER, "2023-01-05 10:00:00", odometer="x")]
    member = intake.read("bms.csv", comma(rows)).members[0]
    assert partitions(member) == {(DEVICE, "2023-01"): 1, (OTHER, "2023-01"): 0}
    empty = member.slices[1]
    assert (empty.rows_rejected, empty.first_time, empty.last_time) == (1, None, None)
    assert pq.ParquetFile(intake.lake / empty.path).metadata.num_rows == 0


def test_reading_again_replaces_and_leaves_nothing_else(intake: Intake) -> None:
    data = zipped({"bms.csv": psql([bms_row(s, odometer="x" if s == 3 else 5) for s in range(6)])})
    first = intake.read("a.zip", data)
    files = {p: p.read_bytes() for p in sorted(intake.lake.rglob("*")) if p.is_file()}
    again = intake.read("copy.zip", data)
    assert again == first
    assert {p: p.read_bytes() for p in sorted(intake.lake.rglob("*")) if p.is_file()} == files


def test_threads_change_nothing(intake: Intake) -> None:
    rows = [bms_row(s, device_no=DEVICE if s % 3 else OTHER, odometer="x" if s % 17 == 5 else s) for s in range(600)]
    limits = IntakeLimits(chunk_bytes=4000)
    alone = intake.read("bms.csv", psql(rows), limits)
    files = {p: p.read_bytes() for p in intake.lake.rglob("*") if p.is_file()}
    with ThreadPoolExecutor(4) as pool:
        assert intake.read("bms.csv", psql(rows), limits, pool=pool) == alone
    assert {p: p.read_bytes() for p in intake.lake.rglob("*") if p.is_file()} == files


def test_many_cars_in_one_member_need_few_open_files(intake: Intake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "_OPEN_SLICES", 3)
    monkeypatch.setattr(delivery, "_BUFFERED_ROWS", 4)
    rows = [bms_row(s, device_no=f"012900{car:05d}") for s in range(12) for car in range(10)]
    report = intake.read("bms.csv", comma(rows), IntakeLimits(chunk_bytes=600))
    assert set(partitions(report.members[0]).values()) == {12}
    assert all(s.is_sorted_unique for s in report.members[0].slices)
    assert [r["source_row"] for r in intake.rows(report)] == list(range(2, 122))
    for one in report.members[0].slices:
        assert pq.ParquetFile(intake.lake / one.path).read()["time"].to_pylist() == sorted(
            bms_time(s) for s in range(12)
        )
    assert not intake.leftovers()


def bms_time(second: int) -> datetime:
    return datetime(2023, 1, 5, 10, 0, second)


def test_rows_of_a_quiet_car_do_not_hold_the_chunks_of_a_busy_one(
    intake: Intake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "_BUFFERED_CHUNKS", 2)
    rows = [bms_row(s, device_no=OTHER if s % 10 == 0 else DEVICE) for s in range(100)]
    report = intake.read("bms.csv", comma(rows), IntakeLimits(chunk_bytes=1000))
    quiet = next(s for s in report.members[0].slices if s.device_no == OTHER)
    assert quiet.rows == 10
    assert pq.ParquetFile(intake.lake / quiet.path).num_row_groups > 2


def test_a_vehicle_master_is_kept_apart(intake: Intake) -> None:
    rows = [{"device_no": DEVICE, "car_type": "PORTER2"}, {"device_no": "129", "car_type": "EV6"}]
    report = intake.read("vehicles.csv", comma(rows))
    member = report.members[0]
    assert (member.kind, member.status, member.rows_read, member.rows_rejected) == ("master", "partial", 2, 1)
    assert member.master_path is not None
    assert pq.ParquetFile(intake.lake / member.master_path).read().to_pylist() == [
        {"device_no": DEVICE, "car_type": "PORTER2", "source_file": member.source_file, "source_row": 2}
    ]


def test_a_member_that_ends_badly_leaves_neither_rows_nor_row_rejects(intake: Intake) -> None:
    rows = [bms_row(s, odometer="x" if s == 1 else random.Random(s).random()) for s in range(50)]
    text = comma(rows, end="\n").encode() + b"x" * 3000
    report = intake.read("bms.csv", text, IntakeLimits(chunk_bytes=500, max_line_bytes=1000))
    assert report.status == "failed"
    assert [r["source_row"] for r in intake.rejected(report)] == [None]
    assert not [p for p in intake.lake.rglob("delivered/*/*/*/*") if p.is_file()]


def test_many_rejected_rows_wait_on_disk_and_arrive_all(intake: Intake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "_REJECTS_IN_MEMORY", 10)
    rows = [bms_row(s, odometer="x") for s in range(100)]
    report = intake.read("a.zip", zipped({"a": comma(rows), "b": comma(rows)}), IntakeLimits(chunk_bytes=1000))
    assert [r["source_row"] for r in intake.rejected(report)] == [*range(2, 102)] * 2
    assert len(list(intake.lake.rglob("rejected/*"))) == 1


def test_a_full_disk_raises_and_leaves_no_part_of_a_slice(intake: Intake, monkeypatch: pytest.MonkeyPatch) -> None:
    good = intake.read("a.zip", zipped({"bms.csv": psql([bms_row(1)])}))

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pq.ParquetWriter, "write_table", full)
    with pytest.raises(OSError, match="No space"):
        intake.read("b.zip", zipped({"bms.csv": psql([bms_row(2)])}))
    assert not intake.leftovers()
    assert len(intake.rows(good)) == 1


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.permutations(range(12)), st.integers(200, 5000))
def test_the_order_of_rows_changes_only_their_numbers(intake: Intake, order: list[int], chunk: int) -> None:
    rows = [at((DEVICE, OTHER)[s % 2], f"2023-0{1 + s % 3}-05 10:00:{s:02d}", odometer=s) for s in range(12)]

    def content(rows: list[dict[str, str]]) -> list[tuple[object, ...]]:
        report = intake.read("bms.csv", comma(rows), IntakeLimits(chunk_bytes=chunk))
        found = [(r["device_no"], r["measured_month"], r["time"], r["odometer"]) for r in intake.rows(report)]
        return sorted(found)

    assert content([rows[i] for i in order]) == content(rows)


@pytest.mark.real_logs
@pytest.mark.skipif(not REAL_LOGS.is_dir(), reason="no real logs beside the project")
def test_the_real_logs_read_as_their_readme_says(tmp_path: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        reports = [
            read_landing_file(
                path,
                sha256_of(path),
                tmp_path,
                IntakeLimits(),
                earliest_month="2015-01",
                latest_month="2026-12",
                pool=pool,
            )
            for path in sorted(REAL_LOGS.rglob("*.zip"))
        ]
    members = [m for r in reports for m in r.members]
    slices = [s for m in members for s in m.slices]
    rows = {
        (s.kind.value, s.device_no): sum(x.rows for x in slices if (x.kind, x.device_no) == (s.kind, s.device_no))
        for s in slices
    }
    assert rows == {
        ("bms", "01290000001"): 66_666,
        ("bms", "01290000003"): 50_000,
        ("bms", "01290000005"): 26_307 - 100,
        ("gps", "01290000005"): 26_307 - 100,
    }
    assert all(m.rows_read == m.rows_rejected + sum(s.rows for s in m.slices) for m in members)
    one = pa.concat_tables(
        pq.ParquetFile(tmp_path / s.path).read(["cell_sentinel_n", "cell_unfit_n", "cell_placeholder_n"])
        for s in slices
        if s.device_no == "01290000001"
    )
    counts = one.to_pydict()
    assert (sum(counts["cell_sentinel_n"]), sum(n > 0 for n in counts["cell_sentinel_n"])) == (1_537, 64)
    assert sum(counts["cell_unfit_n"]) == sum(counts["cell_placeholder_n"]) == 0
    rejected = [r for p in (tmp_path / "rejected").glob("*") for r in pq.ParquetFile(p).read().to_pylist()]
    assert len(rejected) == 200
    assert {r["reason"].split(":")[0] for r in rejected} == {"time"}
    assert min(r["source_row"] for r in rejected) == 234
