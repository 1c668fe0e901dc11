"""Killed runs, full disks, empty landings: the last good state stays readable, the next run repairs everything."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb
import pytest

from baas_dagster.assets.publish import publish_snapshot
from baas_dagster.doctor import examine
from baas_dagster.resources import Lake
from baas_dagster.runs import Asked
from baas_dagster.settings import Settings
from baas_dagster.state import Unit
from tests.conftest import Homes
from tests.deliveries import bms_rows, gps_rows, psql, put_zip
from tests.integration.test_order import contents

pytestmark = pytest.mark.e2e
DEVICES = ("01290004001", "01290004002", "01290004003")


def deliver(landing: Path, month: int) -> None:
    for number, device in enumerate(DEVICES):
        stem = f"bms_{device}_2023-{month:02d}"
        start = datetime(2023, month, 5 + number, 8)
        rows = bms_rows(device, start, odometer_km=1000 + 100 * month)
        put_zip(landing / f"{stem}.zip", f"{stem}.csv", psql(rows + rows[-1:]))
        stem = f"gps_{device}_2023-{month:02d}"
        put_zip(landing / f"{stem}.zip", f"{stem}.csv", psql(gps_rows(device, start)))


# each patch kills the process with -9 in the middle of a stage, after some of its work is done
KILLED_IN = {
    "intake": """
import baas_dagster.intake as m
real, calls = m._write_report, []
def patched(*a):
    calls.append(1)
    if len(calls) == 3: os.kill(os.getpid(), 9)
    real(*a)
m._write_report = patched
""",
    "raw": """
from baas_dagster.resources import Lake
real, calls = Lake.link, []
def patched(source, target):
    real(source, target)
    calls.append(1)
    if len(calls) == 2: os.kill(os.getpid(), 9)
Lake.link = staticmethod(patched)
""",
    "dbt": """
from baas_dagster.resources import Dbt
real = Dbt.run
def patched(self, select):
    real(self, [name for name in select if name != "int_odometer_run"])
    os.kill(os.getpid(), 9)
Dbt.run = patched
""",
    "marts": """
from baas_dagster.resources import Dbt
real = Dbt.run
def patched(self, select):
    if "dim_device" not in select: return real(self, select)
    real(self, ["dim_device"])
    os.kill(os.getpid(), 9)
Dbt.run = patched
""",
    "publish": """
from pathlib import Path
def patched(self, target): os.kill(os.getpid(), 9)
Path.symlink_to = patched
""",
}


def baas(home: Settings, *arguments: str, patch: str = "") -> subprocess.CompletedProcess[str]:
    code = f"import os, sys\n{patch}\nfrom baas_dagster.cli import app\napp(sys.argv[1:])"
    environment = {**os.environ, "BAAS_HOME": str(home.root), "BAAS_LANDING": str(home.landing_dir)}
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )


def after(months: tuple[int, ...], homes: Homes) -> Settings:
    home = homes.new()
    for month in months:
        deliver(home.landing_dir, month)
    with homes.chain(home) as chain:
        assert chain.run(Asked()).errors == []
    return home


@pytest.fixture(scope="module")
def one_month(tmp_path_factory: pytest.TempPathFactory, parsed_dbt: Path) -> Settings:
    """A home after the first delivery; tests copy it."""
    return after((1,), Homes(tmp_path_factory.mktemp("one_month"), parsed_dbt))


@pytest.fixture(scope="module")
def two_months(tmp_path_factory: pytest.TempPathFactory, parsed_dbt: Path) -> Settings:
    """A home after both deliveries; tests copy it."""
    return after((1, 2), Homes(tmp_path_factory.mktemp("two_months"), parsed_dbt))


@pytest.fixture(scope="module")
def expected(two_months: Settings) -> dict[str, tuple[int, str]]:
    return contents(two_months)


@pytest.mark.parametrize("stage", list(KILLED_IN))
def test_a_run_killed_in_any_stage_is_repaired_by_the_next(
    stage: str, homes: Homes, one_month: Settings, expected: dict[str, tuple[int, str]]
) -> None:
    home = homes.copy(one_month)
    before = contents(home)
    deliver(home.landing_dir, 2)
    killed = baas(home, "run", patch=KILLED_IN[stage])
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert contents(home) in (before, expected), "a reader finds the old tables or the new ones, nothing between"
    with homes.chain(home) as chain:
        assert chain.run(Asked()).errors == []
        assert all(not chain.state().work(unit) for unit in Unit)
    assert contents(home) == expected
    examine(home, repair=True)
    assert examine(home, repair=False).broken == []


def test_a_full_disk_fails_one_partition_and_the_rest_goes_on(
    homes: Homes, expected: dict[str, tuple[int, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    home = homes.new()
    deliver(home.landing_dir, 1)
    deliver(home.landing_dir, 2)
    real = Lake.write

    def full(path: Path, table: Any) -> None:
        if DEVICES[1] in str(path) and "2023-02" in str(path):
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        real(path, table)

    with homes.chain(home) as chain:
        with monkeypatch.context() as patch:
            patch.setattr(Lake, "write", staticmethod(full))
            done = chain.run(Asked())
        assert any("No space left on device" in text for text in done.errors)
        failed = chain.state().failed()
        assert [(unit, key) for unit, key, _ in failed] == [(Unit.RAW_BMS, f"{DEVICES[1]}|2023-02")]
        with duckdb.connect(str(home.publish / "fleet.duckdb"), read_only=True) as reader:
            rows = reader.sql("select count(*) from fct_mileage_monthly where message_count > 0").fetchall()
        assert rows == [(5,)], "every other month is published"
        assert chain.run(Asked()).errors == []
    assert contents(home) == expected


def test_an_empty_landing_says_so_and_leaves_the_snapshot(homes: Homes, one_month: Settings) -> None:
    home = homes.new()
    home.landing_dir.mkdir(parents=True)
    found = baas(home, "run")
    assert found.returncode == 0, found.stderr
    assert "holds no files" in found.stdout + found.stderr
    home = homes.copy(one_month)
    before = contents(home)
    for path in home.landing_dir.iterdir():
        path.unlink()
    with homes.chain(home) as chain:
        assert chain.run(Asked()).errors == []
    assert {k: v for k, v in contents(home).items() if k != "delivery"} == {
        k: v for k, v in before.items() if k != "delivery"
    }


def test_usage_errors_end_with_two_and_a_reason(homes: Homes) -> None:
    home = homes.new()
    for arguments, reason in (
        (["run", "--month", "2023-13"], "not a month"),
        (["run", "--device", "1290004001"], "11 digits"),
        (["simulate", "--out", "x"], "either --fleet or --devices"),
    ):
        found = baas(home, *arguments)
        assert found.returncode == 2
        assert reason in found.stderr
    home.overrides.write_text("device_no,decision,layout_id,value\n01290004001,colour,,red\n", encoding="utf-8")
    for command in ("run", "status"):
        found = baas(home, command)
        assert found.returncode == 2
        assert "decision_overrides.csv line 2" in found.stderr


def test_a_broken_warehouse_is_rebuilt_from_the_landing(
    homes: Homes, two_months: Settings, expected: dict[str, tuple[int, str]]
) -> None:
    home = homes.copy(two_months)
    home.warehouse.write_bytes(b"no database" * 1000)
    assert contents(home) == expected, "readers do not need the warehouse"
    assert examine(home, repair=False).broken
    examine(home, repair=True)
    with homes.chain(home) as chain:
        assert chain.run(Asked()).errors == []
    assert contents(home) == expected


def test_a_reader_polls_through_two_hundred_publishes_without_an_error(homes: Homes, one_month: Settings) -> None:
    home = homes.copy(one_month)
    with homes.chain(home) as chain:
        stop, polls, problems = threading.Event(), [0], []

        def poll() -> None:
            query = "select count(*), sum(distance_km) from fct_mileage_monthly inner join dim_device using (device_no)"
            while not stop.is_set():
                try:
                    with duckdb.connect(str(home.publish / "fleet.duckdb"), read_only=True) as reader:
                        assert reader.execute(query).fetchall()[0][0] == 3
                    polls[0] += 1
                    time.sleep(0.02)  # a busy reader would take the core from the publishing
                except Exception as error:
                    problems.append(repr(error))

        readers = [subprocess.Popen([sys.executable, "-c", POLL, str(home.publish)], stdout=subprocess.PIPE, text=True)]
        thread = threading.Thread(target=poll)
        thread.start()
        try:
            for _ in range(200):
                with chain.warehouse.open() as connection:
                    publish_snapshot(connection, home, Lake(home.lake))
        finally:
            stop.set()
            thread.join()
            (home.publish / "stop").touch()
        outside = readers[0].communicate(timeout=60)[0].split()
    assert problems == []
    assert polls[0] > 50
    assert outside[0] == "0", outside
    assert int(outside[1]) > 50


# a client in a process of its own, as a BI tool is: it reads the snapshot, the Parquet tables and the manifest
POLL = """
import json, sys, time, duckdb
from pathlib import Path
folder, polls, problems = Path(sys.argv[1]), 0, []
while not (folder / "stop").exists():
    try:
        with duckdb.connect(str(folder / "fleet.duckdb"), read_only=True) as reader:
            (rows,) = reader.execute("select count(*) from fct_mileage_monthly").fetchone()
            manifest = json.loads((folder / "manifest.json").read_text())
            path = folder / manifest["tables"]["fct_mileage_monthly"]["path"]
            (again,) = reader.execute(f"select count(*) from read_parquet('{path}')").fetchone()
        assert rows == again == 3
        polls += 1
        time.sleep(0.02)
    except Exception as error:
        problems.append(repr(error))
print(len(problems), polls, *problems[:3])
"""
