"""The landing folder of a simulated fleet, and the truth beside it."""

from __future__ import annotations

import csv
import hashlib
import zipfile
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from baas_dagster.simulator import STANDARD_FLEETS, FleetSpec, custom_fleet, simulate
from tests.unit.simulator.conftest import Simulated
from tests.unit.simulator.delivered import largest, member_bytes, rows_of, smallest

LITTLE = replace(STANDARD_FLEETS["tiny"], months=1, hours_per_day=0.5)


def content_of(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        simulate(tmp_path / name / "landing", tmp_path / name / "truth", LITTLE, seed)
    assert content_of(tmp_path / "a") == content_of(tmp_path / "b")
    first, other = content_of(tmp_path / "a" / "landing"), content_of(tmp_path / "c" / "landing")
    assert [name for name in first if first[name] == other.get(name)] == ["vehicle_master.csv"]


def test_progress_is_reported_for_every_device_month(tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    summary = simulate(tmp_path / "landing", None, LITTLE, 1, lambda *step: seen.append(step))
    assert seen == [("2023-01", done, 3) for done in (1, 2, 3)]
    assert (summary.devices, summary.months) == (3, 1)
    assert summary.files == len(content_of(tmp_path / "landing"))


def test_standard_fleets_have_the_sizes_of_the_design() -> None:
    sizes = {name: (f.devices, f.months, f.dt_s, f.rows_per_device_month) for name, f in STANDARD_FLEETS.items()}
    assert sizes == {
        "tiny": (3, 2, 60, 2_000),
        "demo": (6, 3, 10, 15_000),
        "fine": (12, 3, 2, 60_000),
        "coarse": (20, 6, 10, 25_000),
        "faulty": (60, 6, 30, 8_000),
        "year": (10, 12, 60, 5_000),
    }


@pytest.mark.parametrize("options", [{"devices": 0}, {"dt_s": 0.5}, {"hours_per_day": 20.0}, {"gated": ("nonsense",)}])
def test_a_fleet_that_cannot_be_simulated_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"fleet|gates"):
        custom_fleet(**{"devices": 1, "months": 1, "dt_s": 60.0, "hours_per_day": 1.0, **options})


def test_a_fleet_has_about_the_rows_it_is_meant_to_have(demo: Simulated) -> None:
    rows = demo[1]["month"].filter(pl.col("bms_rows") > 0)["bms_rows"]
    assert rows.mean() == pytest.approx(15_000 / 6, rel=0.15)


DELIVERY_QUIRKS = {
    "zip_in_zip", "psql", "bom", "footer", "repeated_header", "csv", "csv_gz", "parquet", "cp949", "aliases",
    "numbered_columns", "list_columns", "newest_first", "short_dates", "long_dates", "padded_dates", "impossible_date",
    "bad_number", "column_count", "charge_positive", "discharge_positive", "voltage_in_tenths", "duplicate_row",
    "overlapping", "corrected", "superseded", "byte_identical_copy", "wrong_month_name", "late", "several_devices",
    "cell_placeholder", "cell_sentinel", "soc_zero", "gps_zero", "junk",
}  # fmt: skip
ROW_FAULTS = {
    "impossible_date", "bad_number", "column_count", "duplicate_row", "cell_placeholder", "cell_sentinel", "soc_zero",
    "gps_zero", "gps_teleport",
}  # fmt: skip
ODOMETER_CODES = {
    "ODO_ZERO", "ODO_STALE", "ODO_SMALL_FALL", "ODO_ROLLBACK", "ODO_JUMP", "ODO_FROZEN", "ODO_RESET", "ODO_GAP",
}  # fmt: skip


def test_demo_and_coarse_hold_every_quirk(demo: Simulated, coarse: Simulated) -> None:
    for _, truth in (demo, coarse):
        assert set(truth["file"]["quirks"].explode().drop_nulls()) >= DELIVERY_QUIRKS
        assert set(truth["row_fault"]["kind"]) >= ROW_FAULTS
        assert set(truth["odometer_event"]["code"]) == ODOMETER_CODES


def test_coarse_has_each_odometer_code_on_two_cars_and_a_third_of_clean_cars(coarse: Simulated) -> None:
    truth = coarse[1]
    cars = truth["odometer_event"].group_by("code").agg(pl.col("device_no").n_unique(), pl.len())
    assert smallest(cars["device_no"]) >= 2
    odometers = truth["device"].filter("has_odometer")
    assert odometers.filter(~pl.col("has_odometer_events")).height >= odometers.height / 3
    clean = odometers.filter(~pl.col("has_odometer_events"))["device_no"]
    codes = truth["odometer_event"].filter(pl.col("device_no").is_in(clean.to_list()))["code"]
    assert set(codes) <= {"ODO_ZERO", "ODO_GAP"}


def test_coarse_has_cars_of_every_part(coarse: Simulated) -> None:
    devices = coarse[1]["device"]
    assert devices.filter(~pl.col("has_gps") & pl.col("has_bms")).height >= 1
    assert devices.filter(~pl.col("has_bms") & pl.col("has_gps")).height >= 1
    assert devices.filter(pl.col("has_bms") & ~pl.col("has_odometer")).height >= 1
    assert set(devices["odometer_resolution_km"]) == {0.1, 1.0}
    assert set(devices["cell_step_mv"]) == {1, 20}
    assert set(devices["in_vehicle_master"]) == {True, False}
    assert {90, 96, 98, 144, 180, 192} <= set(devices["cell_count"])
    signs = coarse[1]["layout"].group_by("device_no").agg(pl.col("delivered_current_sign").n_unique())
    assert largest(signs["delivered_current_sign"]) == 2


def test_rows_of_every_text_file_are_counted_in_the_truth(demo: Simulated) -> None:
    landing, truth = demo
    for file in truth["file"].filter("is_data").iter_rows(named=True):
        data = member_bytes(landing, file["path"], file["member"])
        if "parquet" in file["quirks"]:
            assert pl.read_parquet(data).height == file["data_rows"]
            continue
        lines = data.splitlines()
        if "psql" in file["quirks"]:
            assert lines[-1] == f"({file['data_rows']} rows)".encode()
            repeated = sum(line == lines[0].removeprefix(b"\xef\xbb\xbf") for line in lines[1:])
            lines = lines[: len(lines) - 2 - 2 * repeated]
        assert len(lines) - 1 == file["data_rows"]


def test_only_rows_with_that_fault_have_another_number_of_columns_than_the_header(demo: Simulated) -> None:
    landing, truth = demo
    for file in truth["file"].filter("is_data").iter_rows(named=True):
        if not {"csv", "csv_gz"} & set(file["quirks"]):
            continue
        encoding = "cp949" if "cp949" in file["quirks"] else "utf-8-sig"
        text = member_bytes(landing, file["path"], file["member"]).decode(encoding)
        widths = Counter(len(row) for row in csv.reader(text.splitlines()))
        odd = sum(widths.values()) - max(widths.values())
        assert (odd > 0) == ("column_count" in file["quirks"])
        assert odd < 0.02 * file["data_rows"]


def test_broken_rows_of_a_file_are_the_row_faults_of_its_device_month(demo: Simulated) -> None:
    _, truth = demo
    rejected = truth["row_fault"].filter(pl.col("kind").is_in(["impossible_date", "bad_number", "column_count"]))
    faults = {
        (device, month, kind): n
        for device, month, kind, n in rejected.group_by("device_no", "measured_month", "table_name")
        .agg(pl.col("n").sum())
        .iter_rows()
    }
    whole = truth["file"].filter(pl.col("kind").is_in(["bms", "gps"]) & ~pl.col("quirks").list.contains("overlapping"))
    assert largest(whole["broken_rows"]) > 0
    for file in whole.iter_rows(named=True):
        if len(file["devices"]) == 1 and "superseded" not in file["quirks"]:
            key = (file["devices"][0], file["months"][0], file["kind"])
            assert file["broken_rows"] == faults.get(key, 0)


def test_files_on_disk_are_those_of_the_truth(demo: Simulated) -> None:
    landing, truth = demo
    assert set(content_of(landing)) == set(truth["file"]["path"])


def test_days_add_up_to_months(coarse: Simulated) -> None:
    day, month = coarse[1]["day"], coarse[1]["month"]
    flows = [name for name in day.columns if name.endswith(("_km", "_kwh", "_ah"))]
    sums = day.group_by("device_no", "measured_month").agg(pl.col(flows).sum()).sort("device_no", "measured_month")
    months = month.sort("device_no", "measured_month")
    for flow in flows:
        assert largest((sums[flow] - months[flow]).abs()) < 1e-6


def test_trips_and_sessions_add_up_to_the_days(coarse: Simulated) -> None:
    truth = coarse[1]
    assert truth["trip"]["distance_km"].sum() == pytest.approx(truth["day"]["distance_km"].sum())
    assert truth["trip"]["energy_out_kwh"].sum() == pytest.approx(truth["day"]["energy_out_kwh"].sum(), rel=1e-3)
    charged = truth["charging_session"].filter(pl.col("mode") != "V2L")["energy_kwh"].sum()
    assert charged == pytest.approx(truth["day"]["charged_kwh"].sum(), rel=1e-3)
    assert set(truth["charging_session"]["mode"]) == {"AC", "DC", "V2L"}
    assert smallest(truth["charging_session"]["logged_share"]) < 0.05  # some charges have no rows


def test_true_charge_balances_over_the_month(coarse: Simulated) -> None:
    # the capacity falls at the month's edge, the state of charge stays: compare within a fleet's first month
    month = coarse[1]["month"].filter(pl.col("measured_month") == "2023-01")
    moved = (month["charge_ah"] - month["discharge_ah"] - month["parked_ah"]) / month["capacity_ah"]
    assert largest(((month["soc_end"] - month["soc_start"]) - moved).abs()) < 1e-4


def test_the_odometer_of_a_clean_car_moves_by_the_true_distance(
    simulated: Callable[[FleetSpec, int], Simulated],
) -> None:
    spec = custom_fleet(2, 2, 60.0, 1.0, name="clean", quirks=False, plain_cars=True)
    landing, truth = simulated(spec, 9)
    assert sorted(content_of(landing)) == sorted(
        f"{month}/{kind}_{device}_{month}.zip"
        for month in ("2023-01", "2023-02")
        for kind in ("bms", "gps")
        for device in truth["device"]["device_no"]
    )
    for device, resolution in truth["device"].select("device_no", "odometer_resolution_km").iter_rows():
        readings: list[dict[str, str]] = []
        for month in ("2023-01", "2023-02"):
            name = f"bms_{device}_{month}"
            readings += rows_of(member_bytes(landing, f"{month}/{name}.zip", f"{name}.csv"))
        odometer = pl.Series([float(row["odometer"]) for row in readings])
        distance = truth["month"].filter(pl.col("device_no") == device)["distance_km"].sum()
        assert odometer[-1] - odometer[0] == pytest.approx(distance, abs=resolution)
        for counter in ("odometer", "cumul_current_chrgd", "cumul_pw_dischrgd", "op_time", "chrg_cnt"):
            values = pl.Series([float(row[counter]) for row in readings]).diff().drop_nulls()
            assert smallest(values) >= 0
        cell_sum = pl.Series([sum(map(float, r["cell_volt_list"].split(","))) for r in readings])
        assert largest((cell_sum - pl.Series([float(r["pack_volt"]) for r in readings])).abs()) < 8


def test_a_forced_cell_count_gives_that_pack_to_every_car(simulated: Callable[[FleetSpec, int], Simulated]) -> None:
    spec = custom_fleet(2, 1, 60.0, 0.5, name="forced", quirks=False, cell_count=180, has_gps=False)
    _, truth = simulated(spec, 1)
    assert truth["device"]["cell_count"].to_list() == [180, 180]
    assert set(truth["file"]["kind"]) == {"bms"}


def test_events_show_in_the_delivered_odometer(demo: Simulated) -> None:
    landing, truth = demo
    files = truth["file"].filter(pl.col("quirks").list.contains("psql") & (pl.col("kind") == "bms"))
    checked: Counter[str] = Counter()
    for file in files.iter_rows(named=True):
        rows = rows_of(member_bytes(landing, file["path"], file["member"]))
        shown = {row["time"][-17:]: row["odometer"] for row in rows}
        events = truth["odometer_event"].filter(
            (pl.col("device_no") == file["devices"][0]) & (pl.col("measured_month") == file["months"][0])
        )
        for event in events.iter_rows(named=True):
            at = event["started_at"].strftime("%y-%m-%d %H:%M:%S")
            if event["code"] in ("ODO_GAP", "ODO_FROZEN") or at not in shown:
                continue
            assert float(shown[at]) == pytest.approx(event["to_km"], abs=0.11)
            checked[event["code"]] += 1
    assert {"ODO_ZERO", "ODO_STALE"} <= set(checked)


def test_a_gap_has_no_rows_and_its_kilometres_are_driven(demo: Simulated) -> None:
    _, truth = demo
    gaps = truth["odometer_event"].filter(pl.col("code") == "ODO_GAP")
    assert smallest(gaps["size_km"]) > 0
    assert largest(gaps["size_km"]) > 10
    with_odometer = truth["device"].filter("has_odometer")["device_no"].to_list()
    lost = truth["day"].filter(pl.col("device_no").is_in(with_odometer))["unlogged_km"].sum()
    assert gaps["size_km"].sum() == pytest.approx(lost, abs=0.2)


def test_a_corrected_file_has_its_name_again_and_a_later_time_stamp(demo: Simulated) -> None:
    landing, truth = demo
    early, late = (
        truth["file"].filter(pl.col("quirks").list.contains(quirk)).sort("member")
        for quirk in ("superseded", "corrected")
    )
    assert early["member"].to_list() == late["member"].to_list()
    for first, second in zip(early.iter_rows(named=True), late.iter_rows(named=True), strict=True):
        stamps = [zipfile.ZipFile(landing / f["path"]).getinfo(f["member"]).date_time for f in (first, second)]
        assert stamps[0] < stamps[1]
        assert first["data_rows"] < second["data_rows"]


def test_the_interleaved_month_holds_two_odometers_and_two_cell_counts(coarse: Simulated) -> None:
    landing, truth = coarse
    gated = truth["month"].filter(pl.col("gated_because") != "")
    assert gated["gated_because"].to_list() == ["interleaved"]
    device, month = gated["device_no"][0], gated["measured_month"][0]
    file = truth["file"].filter(
        pl.col("devices").list.contains(device) & pl.col("months").list.contains(month) & (pl.col("kind") == "bms")
    )
    data = member_bytes(landing, file["path"][0], file["member"][0]).decode("cp949").splitlines()
    cells = Counter(line.split('"')[1].count(",") + 1 for line in data[1:] if line.count('"') >= 2)
    (_, most), (_, fewer) = cells.most_common(2)
    assert fewer > 0.3 * most
    assert truth["month"].filter(pl.col("gated_because") == "interleaved").height == 1


def test_gates_of_rejected_and_conflicting_rows_pass_their_limits(
    simulated: Callable[[FleetSpec, int], Simulated],
) -> None:
    spec = custom_fleet(3, 1, 60.0, 0.6, name="gates", gated=("rejected", "conflicting"))
    _, truth = simulated(spec, 2)
    rows = {row["device_no"]: row for row in truth["month"].iter_rows(named=True)}
    faults = {(r["device_no"], r["kind"]): r["n"] for r in truth["row_fault"].iter_rows(named=True)}
    gated = {row["gated_because"]: device for device, row in rows.items() if row["gated_because"]}
    assert faults[gated["rejected"], "impossible_date"] > 0.05 * rows[gated["rejected"]]["bms_rows"]
    assert faults[gated["conflicting"], "conflicting_duplicate"] > 0.2 * rows[gated["conflicting"]]["bms_rows"]


def test_broken_files_are_broken_as_named(simulated: Callable[[FleetSpec, int], Simulated]) -> None:
    spec = custom_fleet(1, 1, 60.0, 0.4, name="broken", broken_files=True)
    landing, truth = simulated(spec, 2)
    broken = {row["quirks"][0]: row for row in truth["file"].filter("is_broken").iter_rows(named=True)}
    assert set(broken) == {"truncated", "not_a_zip", "bad_crc", "encrypted", "escaping_name", "nested_too_deep"}
    paths = {case: landing / row["path"] for case, row in broken.items()}
    for case in ("truncated", "not_a_zip"):
        assert not zipfile.is_zipfile(paths[case])
    assert zipfile.ZipFile(paths["bad_crc"]).testzip() is not None
    assert zipfile.ZipFile(paths["encrypted"]).infolist()[0].flag_bits & 1
    assert zipfile.ZipFile(paths["escaping_name"]).namelist()[0].startswith("../")
    depth, data = 0, paths["nested_too_deep"]
    archive = zipfile.ZipFile(data)
    while archive.namelist()[0].endswith(".zip"):
        archive = zipfile.ZipFile(archive.open(archive.namelist()[0]))
        depth += 1
    assert depth > 3
