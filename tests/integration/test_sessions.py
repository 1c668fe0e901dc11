"""Sessions, trips, energy per day through the whole chain: month ends, order of arrival, channels that are missing."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import duckdb
import pytest

from baas_dagster.runs import Asked
from baas_dagster.settings import Settings
from tests.conftest import Homes
from tests.deliveries import Row, bms_rows, psql, put_zip

CAR = "01290001001"
CHARGE_A, CELLS = 20.0, 90


def life(
    device: str,
    drive_at: datetime,
    charge_h: float,
    *,
    counters: bool = True,
    constant_soc: bool = False,
    cells: int = CELLS,
    with_cells: bool = True,
    counter_start: float = 500.0,
    odometer_km: float = 1000.0,
    hidden: bool = False,
) -> list[Row]:
    """An hour's drive, ten minutes at rest, a charge at 20 A (its rows left out if `hidden`), ten minutes at rest.

    Current is delivered discharge positive; one row a minute. The pack has 3.8 V a cell throughout.
    """
    rows = bms_rows(device, drive_at, n=60, odometer_km=odometer_km, cells=cells)
    charged_ah, discharged_ah, soc = counter_start, counter_start, 40.0
    volt = 3.8 * cells
    stops = [("rest", 10), ("charge", int(charge_h * 60)), ("rest", 10)]
    at, last_km = drive_at + timedelta(minutes=60), odometer_km + 60 * 0.6
    for kind, minutes in stops:
        for _ in range(minutes):
            amps = -CHARGE_A if kind == "charge" else 0.4
            rows += [
                {
                    **bms_rows(device, at, n=1, odometer_km=last_km, speed_kmh=0.0, cells=cells)[0],
                    "pack_current": amps,
                    "pack_volt": f"{volt:.1f}",
                    "chrg_cable_conn": "t" if kind == "charge" else "f",
                    "main_relay_conn": "t" if kind == "charge" else "f",
                }
            ]
            at += timedelta(minutes=1)
    kept: list[Row] = []
    charging_began = False
    for row in rows:
        amps = -float(str(row["pack_current"]))
        charging_began = charging_began or (amps > 10 and float(str(row["emobility_spd"])) == 0)
        row["soc"] = "60.0" if constant_soc else f"{soc:.1f}"
        row.setdefault("chrg_cable_conn", "f")
        row["cumul_current_chrgd"] = f"{charged_ah:.1f}" if counters else ""
        row["cumul_current_dischrgd"] = f"{discharged_ah:.1f}" if counters else ""
        row["cumul_pw_chrgd"] = f"{charged_ah * volt / 1000:.1f}" if counters else ""
        row["cumul_pw_dischrgd"] = f"{discharged_ah * volt / 1000:.1f}" if counters else ""
        if not with_cells:
            row["cell_volt_list"] = ""
        charged_ah += max(amps, 0) / 60
        discharged_ah += max(-amps, 0) / 60
        soc += amps / 60  # 100 Ah
        if not (hidden and amps == CHARGE_A and float(str(row["emobility_spd"])) == 0):
            kept.append(row)
    return kept


def deliver(landing: Path, name: str, rows: list[Row]) -> None:
    for month in sorted({str(row["measured_month"]) for row in rows}):
        mine = [row for row in rows if row["measured_month"] == month]
        put_zip(landing / f"bms_{name}_{month}.zip", f"bms_{name}_{month}.csv", psql(mine))


def published(home: Settings, query: str) -> list[tuple[object, ...]]:
    with duckdb.connect(str(home.publish / "fleet.duckdb"), read_only=True) as reader:
        return reader.sql(query).fetchall()


TABLES = ("fct_charging_session", "fct_trip", "fct_energy_daily")


def test_a_charge_over_a_month_s_end_is_one_session_whichever_month_arrives_first(homes: Homes, tmp_path: Path) -> None:
    rows = life(CAR, datetime(2023, 1, 31, 20, 0), charge_h=5)
    january = [row for row in rows if row["measured_month"] == "2023-01"]
    february = [row for row in rows if row["measured_month"] == "2023-02"]
    found = []
    for name, parts in (("together", [rows]), ("late", [february, january])):
        home = homes.new(tmp_path / name)
        with homes.chain(home) as chain:
            for part in parts:
                deliver(home.landing_dir, CAR, part)
                assert chain.run(Asked()).errors == []
        found.append({table: published(home, f"select * from {table} order by all") for table in TABLES})
    assert found[0] == found[1]
    session = "started_at, ended_at, mode, is_inferred, energy_method, measured_month"
    assert published(home, f"select {session} from fct_charging_session") == [
        (datetime(2023, 1, 31, 21, 10), datetime(2023, 2, 1, 2, 9), "AC", False, "counter", "2023-01")
    ]
    ((energy_kwh, charge_ah),) = published(home, "select energy_kwh, charge_ah from fct_charging_session")
    assert energy_kwh == pytest.approx(5 * CHARGE_A * 3.8 * CELLS / 1000, rel=0.02)
    assert charge_ah == pytest.approx(5 * CHARGE_A, rel=0.02)
    days = published(home, "select service_date::varchar, charged_kwh, session_count from fct_energy_daily order by 1")
    assert [day[0] for day in days] == ["2023-01-31", "2023-02-01"]
    assert sum(float(str(day[1])) for day in days) == pytest.approx(float(str(energy_kwh)), abs=1e-9)
    assert [day[2] for day in days] == [1, 0]
    assert all(float(str(day[1])) > 14 for day in days), "cut at midnight"


def test_a_car_with_channels_missing_gives_what_can_be_known(homes: Homes, tmp_path: Path) -> None:
    home = homes.new(tmp_path / "landing")
    noon = datetime(2023, 1, 10, 12)
    cars: dict[str, list[Row]] = {
        "01290000101": life("01290000101", noon, 3, counters=False),
        "01290000102": life("01290000102", noon, 3, constant_soc=True),
        "01290000103": life("01290000103", noon, 3, with_cells=False),
        "01290000104": life("01290000104", noon, 3, hidden=True),
        "01290000105": life("01290000105", noon, 3, counters=False, constant_soc=True, hidden=True),
        # a new pack: other cells, counters from the start, in the middle of the month
        "01290000106": life("01290000106", noon, 3)
        + life("01290000106", noon + timedelta(days=5), 3, cells=96, counter_start=20.0, odometer_km=1036.0),
        "01290000107": life("01290000107", noon, 3, counters=False, hidden=True),
    }
    for device, rows in cars.items():
        deliver(home.landing_dir, device, rows)
    with homes.chain(home) as chain:
        assert chain.run(Asked()).errors == []
    sessions = {
        device: published(
            home,
            "select is_inferred, evidence, energy_method, round(energy_kwh, 0), mode from fct_charging_session "
            f"where device_no = '{device}' order by started_at",
        )
        for device in cars
    }
    # 3 h x 20 A x 342 V; at one row a minute the first and the last minute are not in the integral
    assert sessions["01290000101"] == [(False, "current", "integral", 20.0, "AC")]
    assert sessions["01290000102"] == [(False, "current", "counter", 21.0, "AC")]
    assert sessions["01290000103"] == [(False, "current", "counter", 21.0, "AC")]
    assert sessions["01290000104"] == [(True, "charge counter", "counter", 21.0, "UNKNOWN")]
    assert sessions["01290000105"] == [], "nothing shows it"
    assert [(s[0], s[2]) for s in sessions["01290000106"]] == [(False, "counter"), (False, "counter")]
    assert sessions["01290000107"] == [(True, "SoC", "none: no counter over the silence", None, "UNKNOWN")]
    unmetered = published(
        home, "select unmetered_session_count, charged_kwh from fct_energy_daily where device_no = '01290000107'"
    )
    assert unmetered == [(1, None)], "it charged: nobody knows how much"
    trips = published(
        home, "select device_no, energy_net_kwh is null, energy_method from fct_trip order by 1, started_at"
    )
    assert ("01290000101", True, "none: no counters and rows too far apart") in trips
    assert ("01290000102", False, "counter") in trips
    assert len(trips) == len(cars) + 1


def test_no_session_and_no_trip_overlaps_another_and_days_add_up(ran: Settings) -> None:
    for table in ("fct_charging_session", "fct_trip"):
        assert (
            published(
                ran,
                f"select a.started_at from {table} as a inner join {table} as b on a.device_no = b.device_no "
                "and a.started_at < b.started_at and a.ended_at > b.started_at",
            )
            == []
        )
    off = published(
        ran,
        """
        select max(abs(days.kwh - sessions.kwh))
        from (select device_no, sum(charged_kwh - v2l_kwh) as kwh from fct_energy_daily group by all) as days
        inner join (select device_no, sum(energy_kwh) as kwh from fct_charging_session group by all) as sessions
            using (device_no)
        """,
    )
    assert float(str(off[0][0])) < 1e-6
