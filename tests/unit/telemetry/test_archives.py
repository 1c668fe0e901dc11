"""Containers: what a person is told about a bad one, and that it never stops the others."""

from __future__ import annotations

import gzip
import io
import zipfile
from datetime import datetime

import pytest
from landing_tools import Intake, bms_row, comma, psql, zipped

from baas_dagster.telemetry.archives import ByteCounter, IntakeLimits, delivery_stamp, logical_name

GOOD = psql([bms_row(s) for s in range(5)])


def reasons(report: object) -> dict[str, tuple[str, str | None]]:
    return {m.member: (m.status, m.reason) for m in report.members}  # type: ignore[attr-defined]


def only_reason(intake: Intake, name: str, data: bytes | str, limits: IntakeLimits | None = None) -> str:
    report = intake.read(name, data, limits)
    assert report.status == "failed"
    assert report.reason
    assert [r["source_row"] for r in intake.rejected(report)] == [None]
    assert intake.rejected(report)[0]["reason"] == report.reason
    assert not intake.leftovers()
    return report.reason


def test_zip_in_zip_in_zip_is_read_and_one_deeper_is_refused(intake: Intake) -> None:
    three = zipped({"b.zip": zipped({"c.zip": zipped({"bms.csv": GOOD})})})
    report = intake.read("a.zip", three)
    assert report.members[0].member == "b.zip/c.zip/bms.csv"
    assert len(intake.rows(report)) == 5
    assert "deeper than 3" in only_reason(intake, "z.zip", zipped({"a.zip": three}))


def test_what_is_not_a_zip_says_so(intake: Intake) -> None:
    assert "not a ZIP" in only_reason(intake, "bms.zip", GOOD)


def test_a_truncated_zip_says_so(intake: Intake) -> None:
    data = zipped({"bms.csv": GOOD})
    assert "truncated" in only_reason(intake, "bms.zip", data[: len(data) // 2])


def test_a_bad_crc_discards_the_whole_member_and_reads_the_others(intake: Intake) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("bms_a.csv", GOOD)
        archive.writestr("bms_b.csv", GOOD)
    data = out.getvalue()
    at = data.index(b"1234.5")
    report = intake.read("bms.zip", data[:at] + b"9999.9" + data[at + 6 :], IntakeLimits(chunk_bytes=300))
    assert reasons(report)["bms_a.csv"][0] == "failed"
    assert "CRC" in str(reasons(report)["bms_a.csv"][1])
    assert reasons(report)["bms_b.csv"] == ("ok", None)
    assert report.status == "partial"
    assert {r["source_file"][13:] for r in intake.rows(report)} == {"bms_b.csv"}
    assert not intake.leftovers()
    assert len(list(intake.lake.glob("delivered/bms/*/*/*.parquet"))) == 1


def test_an_encrypted_member_says_so(intake: Intake) -> None:
    data = bytearray(zipped({"bms.csv": GOOD}))
    data[6] |= 1  # the encryption flag, in the local header and in the list of members
    data[data.index(b"PK\x01\x02") + 8] |= 1
    assert "encrypted" in only_reason(intake, "bms.zip", bytes(data))


@pytest.mark.parametrize("name", ["../bms.csv", "/etc/bms.csv", "a/../../bms.csv", "C:\\bms.csv", "..\\bms.csv"])
def test_a_name_that_escapes_its_folder_is_refused(intake: Intake, name: str) -> None:
    report = intake.read("bms.zip", zipped({name: GOOD, "bms.csv": GOOD}))
    assert [m.status for m in report.members] == ["failed", "ok"]
    assert "escapes" in str(report.members[0].reason)


def test_limits_count_bytes_as_they_unpack(intake: Intake) -> None:
    bomb = zipped({"bms.csv": GOOD.encode() + b" " * 200_000})
    assert len(bomb) < 3_000
    member = IntakeLimits(max_member_bytes=100_000)
    assert "limit for one member" in only_reason(intake, "a.zip", bomb, member)
    file = IntakeLimits(max_file_bytes=100_000)
    assert "limit for one file" in only_reason(intake, "b.zip", bomb, file)


def test_the_file_limit_spans_members_and_the_run_limit_spans_files(intake: Intake) -> None:
    half = zipped({"bms_a.csv": GOOD, "bms_b.csv": GOOD})
    report = intake.read("a.zip", half, IntakeLimits(max_file_bytes=int(len(GOOD) * 1.5)))
    assert [m.status for m in report.members] == ["ok", "failed"]
    run, limits = ByteCounter(), IntakeLimits(max_run_bytes=int(len(GOOD) * 3))
    assert intake.read("b.zip", half, limits, run_bytes=run).status == "ok"
    report = intake.read("c.zip", half, limits, run_bytes=run)
    assert report.status == "deferred"
    assert "next run" in str(report.reason)


def test_unpacked_bytes_are_reported_as_they_come(intake: Intake) -> None:
    seen: list[int] = []
    intake.read("a.zip", zipped({"bms.csv": GOOD}), on_bytes=seen.append)
    assert sum(seen) >= len(GOOD)


def test_a_truncated_gzip_says_so_and_a_whole_one_is_read(intake: Intake) -> None:
    data = gzip.compress(comma([bms_row(s, odometer=s * 7919 % 1013) for s in range(60)]).encode())
    report = intake.read("bms.csv.gz", data)
    assert (report.status, report.members[0].rows_read) == ("ok", 60)
    assert "truncated" in only_reason(intake, "bms2.csv.gz", data[:-30])
    assert "not gzip" in only_reason(intake, "bms3.csv.gz", GOOD)
    assert "damaged" in only_reason(intake, "bms4.csv.gz", b"\x1f\x8b\x08\x00rubbish, not deflate at all")


def test_gzip_and_parquet_are_read_inside_zips_by_what_they_are_not_by_name(intake: Intake) -> None:
    report = intake.read("a.zip", zipped({"bms_1.dat": gzip.compress(GOOD.encode())}))
    assert len(intake.rows(report)) == 5


@pytest.mark.parametrize(
    ("name", "is_data"),
    [
        ("bms_2023-01.csv", True),
        ("catalog_bms.csv", True),
        ("bms_logger.csv", True),
        ("import_log.csv", False),
        ("bms.log", False),
        ("log20230101.csv", False),
        ("EMPTY_bms.csv", False),
        ("__MACOSX/bms.csv", False),
        ("._bms.csv", False),
    ],
)
def test_logs_empties_and_companions_are_ignored_with_a_reason(intake: Intake, name: str, is_data: bool) -> None:
    member = intake.read("a.zip", zipped({name: GOOD})).members[0]
    assert member.status == ("ok" if is_data else "ignored")
    assert is_data or member.reason
    assert is_data == bool(member.slices)


def test_a_zero_byte_member_and_an_empty_zip_are_not_failures(intake: Intake) -> None:
    report = intake.read("a.zip", zipped({"bms.csv": b""}))
    assert (report.status, report.members[0].status, report.members[0].reason) == ("empty", "ignored", "0 bytes")
    assert intake.read("b.zip", zipped({})).status == "empty"


def test_the_same_name_twice_in_a_zip_is_two_members(intake: Intake) -> None:
    with pytest.warns(UserWarning, match="Duplicate name"):
        data = zipped([("bms.csv", GOOD), ("bms.csv", psql([bms_row(9)]))])
    report = intake.read("a.zip", data)
    assert [m.member for m in report.members] == ["bms.csv", "bms.csv#2"]
    assert len(intake.rows(report)) == 6


def test_a_korean_name_of_an_old_packer_is_legible(intake: Intake) -> None:
    data = zipped({"bms_XXXX.csv": GOOD}).replace(b"XXXX", "차량".encode("cp949"))
    assert intake.read("a.zip", data).members[0].member == "bms_차량.csv"


def test_a_disk_fault_raises_and_is_no_data_fault(intake: Intake, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> bytes:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(zipfile.ZipExtFile, "read", full)
    with pytest.raises(OSError, match="No space"):
        intake.read("a.zip", zipped({"bms.csv": GOOD}))
    assert not intake.leftovers()


def test_delivered_at_is_the_zip_time_else_the_stamp_in_the_name_else_nothing(intake: Intake) -> None:
    def when(name: str, data: bytes | str) -> datetime | None:
        return intake.read(name, data).members[0].delivered_at

    assert when("a_20230301.zip", zipped({"bms_20230401.csv": GOOD})) == datetime(2023, 2, 5, 10, 10)
    epoch = io.BytesIO()
    with zipfile.ZipFile(epoch, "w") as archive:
        archive.writestr(zipfile.ZipInfo("bms_20230401.csv", (1980, 1, 1, 0, 0, 0)), GOOD)
    assert when("a_20230301.zip", epoch.getvalue()) == datetime(2023, 4, 1)
    assert when("bms_20230205T1010.csv", GOOD) == datetime(2023, 2, 5, 10, 10)
    assert when("bms_2023-01.csv", GOOD) is None


@pytest.mark.parametrize(
    ("name", "stamp"),
    [
        ("bms_01290001001_2023-01.csv", None),
        ("bms_2301_.csv", None),
        ("bms_2023-02-05.csv", datetime(2023, 2, 5)),
        ("bms_20230230.csv", None),
        ("bms_20230205_235959.zip", datetime(2023, 2, 5, 23, 59, 59)),
        ("20230101_bms_20230205.csv", datetime(2023, 2, 5)),
        ("bms_20230112345.csv", None),
    ],
)
def test_a_delivery_stamp_is_a_day_that_exists(name: str, stamp: datetime | None) -> None:
    assert delivery_stamp(name) == stamp


def test_a_corrected_copy_has_the_name_of_the_file_it_corrects() -> None:
    first = logical_name("bms_01290001001_2023-01.csv")
    assert first == "bms_01290001001_2023-01"
    for copy in (
        "BMS_01290001001_2023-01.csv.gz",
        "bms_01290001001_2023-01 (1).csv",
        "bms_01290001001_2023-01_v2.zip",
        "bms_01290001001_2023-01 - copy.csv",
        "bms_01290001001_2023-01_20230205T1010.csv",
        "bms_01290001001_2023-01_2023-02-05_v3 (2).parquet",
    ):
        assert logical_name(copy) == first
    assert logical_name("gps_2301_v2.csv") == "gps_2301"
    assert logical_name("bms_2023-02.csv") != logical_name("bms_2023-01.csv")
