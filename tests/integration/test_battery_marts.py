"""Cars that lack something, through the whole chain: what can be known is there, the rest is NULL and says why."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import duckdb
import polars as pl
import pytest

from baas_dagster.runs import Asked
from baas_dagster.settings import Settings
from tests.conftest import Homes
from tests.deliveries import Row, gps_rows, psql, put_zip

DAYS = 12
OHM = 0.1
AH = 100.0

PLAIN, NO_COUNTERS, NO_CELLS, FLAT_SOC, MINUTE, SWAPPED, PADDED, GPS_ONLY, SLOW_CLOCK, SMALLER, USED, BLANK = (
    f"0129000{number}" for number in range(4001, 4013)
)
NO_VOLTAGE, NO_CURRENT, NO_MOTION, SILENT_DRIVES = (f"0129000{number}" for number in range(4013, 4017))
SPARSE, SPARSER, HOLE, WHOLE_KM, BLANK_SPEED, SPIKE, V2L_FLAG, ZERO = (
    f"0129000{number}" for number in range(4017, 4025)
)
COUNTERS = ("cumul_current_chrgd", "cumul_current_dischrgd", "cumul_pw_chrgd", "cumul_pw_dischrgd")
ENERGY_COUNTERS = COUNTERS[2:]
HOUR_KWH = 30 * 0.35
"""What the car takes from the pack in its hour of driving."""


def days_of(device: str, dt_s: int = 10) -> list[Row]:
    """Twelve days of a car that drives for an hour at eight, rests, and charges at noon, in turns less and more."""
    rows: list[Row] = []
    start = datetime(2023, 1, 3)
    soc, charged, discharged, charged_kwh, discharged_kwh, clock, km = 70.0, 500.0, 480.0, 180.0, 172.0, 9e5, 1000.0
    for day in range(DAYS):
        for hour in (8, 12):
            for number, second in enumerate(range(0, 3601, dt_s)):
                current = (-60.0, -5.0, -25.0)[number % 3] if hour == 8 else (26.0, 33.0)[day % 2]
                speed = 50.0 if hour == 8 else 0.0
                if second:
                    step = current * dt_s / 3600
                    soc += 100 * step / AH
                    charged, discharged = charged + max(step, 0), discharged + max(-step, 0)
                    charged_kwh += max(step, 0) * 0.35
                    discharged_kwh += max(-step, 0) * 0.35
                    clock += dt_s
                    km += speed * dt_s / 3600
                at = start + timedelta(days=day, hours=hour, seconds=second)
                volts = 350 + current * OHM
                rows.append(
                    {
                        "device_no": device,
                        "time": at.strftime("%Y-%m-%d %H:%M:%S"),
                        "odometer": f"{km:.1f}",
                        "emobility_spd": speed,
                        "pack_current": current,
                        "pack_volt": f"{volts:.1f}",
                        "soc": f"{soc:.1f}",
                        "cell_volt_list": ",".join([f"{volts / 96:.3f}"] * 96),
                        "mod_temp_list": "8,9,8",
                        "main_relay_conn": "t",
                        "chrg_cable_conn": "t" if hour == 12 else "f",
                        "acceptable_chrg_pw": "80",
                        "acceptable_dischrg_pw": "0",
                        "cumul_current_chrgd": f"{charged:.1f}",
                        "cumul_current_dischrgd": f"{discharged:.1f}",
                        "cumul_pw_chrgd": f"{charged_kwh:.1f}",
                        "cumul_pw_dischrgd": f"{discharged_kwh:.1f}",
                        "op_time": f"{clock:.0f}",
                    }
                )
    return rows


def _without(*columns: str) -> Callable[[int, Row], Row]:
    return lambda _, row: row | dict.fromkeys(columns, "")


def _swapped(number: int, row: Row) -> Row:
    """Another pack from the middle on: its counters begin at 5 Ah."""
    if number < DAYS * ROWS:
        return row
    return row | {name: f"{float(str(row[name])) % 100 + 5:.1f}" for name in COUNTERS}


def _smaller(number: int, row: Row) -> Row:
    """A pack of 90 cells and 80 Ah from the middle on; the counters of the BMS go on."""
    if number < DAYS * ROWS:
        return row
    soc = 50 + 1.25 * (float(str(row["soc"])) - 50)
    return row | {"soc": f"{soc:.1f}", "cell_volt_list": ",".join(str(row["cell_volt_list"]).split(",")[:90])}


def _used(number: int, row: Row) -> Row:
    """A used pack of 80 Ah from the middle on: its counters stand higher, by charge as by discharge."""
    if number < DAYS * 361:
        return row
    found = row | {"soc": f"{50 + 1.25 * (float(str(row['soc'])) - 50):.1f}"}
    for name, ah in (("chrgd", 4000), ("dischrgd", 3950)):
        found[f"cumul_current_{name}"] = f"{float(str(row[f'cumul_current_{name}'])) + ah:.1f}"
        found[f"cumul_pw_{name}"] = f"{float(str(row[f'cumul_pw_{name}'])) + 0.35 * ah:.1f}"
    return found


def _blank(number: int, row: Row) -> Row:
    """The last block of cells is missing throughout one drive."""
    if number // 361 != DAYS:
        return row
    return row | {"cell_volt_list": ",".join(str(row["cell_volt_list"]).split(",")[:88])}


CARS: dict[str, Callable[[int, Row], Row]] = {
    PLAIN: lambda _, row: row,
    NO_COUNTERS: _without(*COUNTERS),
    NO_CELLS: _without("cell_volt_list"),
    FLAT_SOC: lambda _, row: row | {"soc": "50.0"},
    MINUTE: lambda _, row: row,
    SWAPPED: _swapped,
    PADDED: lambda _, row: row | {"mod_temp_list": "8,9,8,0,0,215"},
    SMALLER: _smaller,
    NO_VOLTAGE: _without("pack_volt", *ENERGY_COUNTERS),
    NO_CURRENT: _without("pack_current"),
    NO_MOTION: _without("emobility_spd", "odometer"),
    SILENT_DRIVES: lambda _, row: row,
    SPARSE: lambda _, row: row,
    SPARSER: lambda _, row: row,
    HOLE: lambda _, row: row,
    WHOLE_KM: lambda _, row: row | {"emobility_spd": "", "odometer": str(int(float(str(row["odometer"]))))},
    BLANK_SPEED: lambda number, row: row | ({"emobility_spd": ""} if number % 3 == 0 else {}),
    SPIKE: lambda number, row: row | ({"pack_current": 250.0} if number % (2 * ROWS) == ROWS + 180 else {}),
    ZERO: lambda number, row: row | (dict.fromkeys(COUNTERS, "0.0") if number % ROWS == 0 else {}),
    V2L_FLAG: lambda _, row: row | {"v2l": "t"},
    USED: _used,
    BLANK: _blank,
    SLOW_CLOCK: lambda number, row: row | {"op_time": f"{9e5 + number:.0f}"},
}
ROWS = 361
"""Of an hour, at 10 s."""
LOGGED: dict[str, Callable[[int], bool]] = {
    # of every second drive nothing is logged; of charges a row every 4 and every 10 minutes, and all but 4 minutes
    SILENT_DRIVES: lambda number: number // ROWS % 4 != 2,
    SPARSE: lambda number: number // ROWS % 2 == 0 or number % ROWS % 24 == 0,
    SPARSER: lambda number: number // ROWS % 2 == 0 or number % ROWS % 60 == 0,
    HOLE: lambda number: number // ROWS % 2 == 0 or not 150 < number % ROWS < 174,
}


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory, parsed_dbt: Path) -> Settings:
    """Every car of this page in one home."""
    folder = tmp_path_factory.mktemp("lacking")
    for device, change in CARS.items():
        rows = [change(i, row) for i, row in enumerate(days_of(device, 60 if device == MINUTE else 10))]
        rows = [row for i, row in enumerate(rows) if device not in LOGGED or LOGGED[device](i)]
        put_zip(folder / f"bms_{device}.zip", f"bms_{device}_2023-01.csv", psql(rows))
    fixes = gps_rows(GPS_ONLY, datetime(2023, 1, 3, 8), n=60)
    put_zip(folder / f"gps_{GPS_ONLY}.zip", f"gps_{GPS_ONLY}_2023-01.csv", psql(fixes))
    homes = Homes(tmp_path_factory.mktemp("lacking_homes"), parsed_dbt)
    settings = homes.new(folder)
    with homes.chain(settings) as chain:
        assert chain.run(Asked()).errors == []
    return settings


def rows_of(settings: Settings, table: str, device: str) -> pl.DataFrame:
    with duckdb.connect(str(settings.publish / "fleet.duckdb"), read_only=True) as reader:
        found = pl.from_arrow(reader.execute(f"select * from {table} where device_no = ?", [device]).to_arrow_table())
    assert isinstance(found, pl.DataFrame)
    return found


def audit_of(settings: Settings, device: str) -> tuple[str, str]:
    row = rows_of(settings, "fct_counter_audit_monthly", device).row(0, named=True)
    return row["verdict"], row["reason"] or ""


def test_no_device_is_held_and_no_check_of_these_marts_fails(published: Settings) -> None:
    with duckdb.connect(str(published.publish / "fleet.duckdb"), read_only=True) as reader:
        failed = reader.execute(
            "select device_no, table_name, check_name, example from partition_quality "
            "where not is_passed and table_name like 'fct%'"
        ).fetchall()
    assert failed == []


def test_a_car_with_everything_has_every_figure(published: Settings) -> None:
    assert audit_of(published, PLAIN)[0] == "ok"
    power = rows_of(published, "fct_power_monthly", PLAIN).drop_nulls("resistance_mohm")
    assert power.height
    assert power.select(pl.col("resistance_mohm").is_between(97, 103).all()).item()
    assert set(power["temperature_band"]) == {"5-10"}
    assert power["acceptable_discharge_p90_kw"].null_count() == power.height, "a limit that is always 0 is no limit"
    curve = rows_of(published, "fct_charge_curve", PLAIN)
    assert set(curve["mode"]) == {"AC"}
    assert curve.select(pl.col("power_p50_kw").is_between(7, 14).all()).item()
    whole = rows_of(published, "fct_efficiency_monthly", PLAIN).filter(pl.col("band_kind") == "all")
    assert whole["kwh_per_100km"].drop_nulls().len() == 1
    assert whole["regen_share_pct"].item() == pytest.approx(0, abs=0.5)


def test_a_car_without_counters_has_no_audit_and_keeps_the_rest(published: Settings) -> None:
    assert audit_of(published, NO_COUNTERS) == ("insufficient", "no counters")
    assert rows_of(published, "fct_power_monthly", NO_COUNTERS)["resistance_mohm"].drop_nulls().len()
    assert rows_of(published, "fct_charge_curve", NO_COUNTERS).height
    assert rows_of(published, "fct_soc_daily", NO_COUNTERS).height == DAYS


def test_a_car_without_cells_has_a_resistance_from_its_pack_voltage(published: Settings) -> None:
    assert rows_of(published, "fct_power_monthly", NO_CELLS)["resistance_mohm"].drop_nulls().len()
    assert audit_of(published, NO_CELLS)[0] == "ok"
    rates = rows_of(published, "fct_exposure_monthly", NO_CELLS).filter(pl.col("kind") == "charge_rate")
    unknown = rates.filter(pl.col("band") == "unknown")["unknown_because"].to_list()
    assert unknown == ["nominal capacity unknown"], "without cells there is no type, and no capacity to compare with"


def test_a_soc_that_never_moves_audits_no_counter(published: Settings) -> None:
    assert audit_of(published, FLAT_SOC) == ("insufficient", "SoC does not move")
    soc = rows_of(published, "fct_exposure_monthly", FLAT_SOC).filter(pl.col("kind") == "soc")
    assert soc["band"].to_list() == ["50-55"]


def test_one_row_a_minute_makes_no_resistance_and_says_so(published: Settings) -> None:
    power = rows_of(published, "fct_power_monthly", MINUTE)
    assert power["resistance_mohm"].null_count() == power.height
    assert power["resistance_missing_because"].str.contains("sampled too slowly").all()
    assert rows_of(published, "fct_charge_curve", MINUTE).height
    assert audit_of(published, MINUTE)[0] == "ok"


def test_another_pack_in_mid_month_is_a_reset_and_no_drift(published: Settings) -> None:
    verdict, reason = audit_of(published, SWAPPED)
    assert verdict == "reset"
    assert "began anew" in reason
    assert "balance" not in reason


def test_a_pack_of_other_cells_in_mid_month_is_estimated_by_itself(published: Settings) -> None:
    estimates = rows_of(published, "fct_capacity_estimate", SMALLER).filter(pl.col("method") == "charge")
    by_pack = dict(estimates.group_by("pack_epoch").agg(pl.col("capacity_ah").median()).iter_rows())
    assert by_pack == {0: pytest.approx(AH, rel=0.03), 1: pytest.approx(0.8 * AH, rel=0.03)}
    same = rows_of(published, "fct_capacity_estimate", PLAIN)
    assert set(same["pack_epoch"]) == {0}
    month = rows_of(published, "fct_soh_monthly", SMALLER)
    assert month["pack_epoch"].to_list() == [1], "the month is the pack's that it ends with"


def test_a_used_pack_charged_nothing_by_its_counters_standing_higher(published: Settings) -> None:
    verdict, reason = audit_of(published, USED)
    assert verdict == "reset"
    assert "another pack" in reason
    for table, figures in (
        ("fct_charging_session", ("started_at", "ended_at", "is_inferred", "energy_kwh", "charge_ah", "energy_method")),
        ("fct_energy_daily", ("service_date", "charged_kwh", "driven_net_kwh", "session_count")),
    ):
        used, plain = (rows_of(published, table, device).select(figures).sort(figures[0]) for device in (USED, PLAIN))
        assert used.equals(plain), table


def test_a_used_pack_is_estimated_by_itself(published: Settings) -> None:
    estimates = rows_of(published, "fct_capacity_estimate", USED).filter(pl.col("method") == "charge")
    by_pack = dict(estimates.group_by("pack_epoch").agg(pl.col("capacity_ah").median()).iter_rows())
    assert by_pack == {0: pytest.approx(AH, rel=0.03), 1: pytest.approx(0.8 * AH, rel=0.03)}
    assert rows_of(published, "fct_soh_monthly", USED)["pack_epoch"].to_list() == [1]


def test_a_drive_with_a_block_of_cells_missing_is_of_the_same_pack(published: Settings) -> None:
    assert audit_of(published, BLANK) == audit_of(published, PLAIN)
    for table in ("fct_capacity_estimate", "fct_soh_monthly"):
        blank, plain = (rows_of(published, table, device)["pack_epoch"].to_list() for device in (BLANK, PLAIN))
        assert blank == plain


def test_sensors_that_pad_do_not_cool_the_pack(published: Settings) -> None:
    bands = rows_of(published, "fct_exposure_monthly", PADDED).filter(pl.col("kind") == "temperature")["band"]
    assert set(bands) == {"5-10", "unknown"}


def test_positions_alone_give_a_soc_and_nothing_else(published: Settings) -> None:
    assert rows_of(published, "fct_soc_daily", GPS_ONLY)["soc_mean_pct"].to_list() == [80.0]
    bands = rows_of(published, "fct_exposure_monthly", GPS_ONLY).sort("kind")["band"].to_list()
    assert bands == ["unknown", "unknown", "80-85", "unknown"]
    assert rows_of(published, "fct_power_monthly", GPS_ONLY).is_empty()
    assert audit_of(published, GPS_ONLY) == ("insufficient", "no counters")


def test_a_day_without_sessions_took_nothing_only_where_the_pack_is_metered(published: Settings) -> None:
    energy = ("charged_kwh", "charged_dc_kwh", "v2l_kwh")
    unknown = rows_of(published, "fct_energy_daily", GPS_ONLY)
    assert unknown.select(energy).rows() == [(None, None, None)]
    assert unknown.select("driven_net_kwh", "regen_kwh", "parked_kwh").rows() == [(None, None, None)]
    assert unknown["driven_missing_because"].to_list() == ["neither current nor energy counter"]
    assert unknown["session_count"].to_list() == [0]
    for device in (PLAIN, NO_COUNTERS, NO_CELLS):
        days = rows_of(published, "fct_energy_daily", device)
        assert days["charged_kwh"].null_count() == 0
        sessions = rows_of(published, "fct_charging_session", device)
        assert days["charged_kwh"].sum() == pytest.approx(sessions["energy_kwh"].sum(), abs=1e-9)


def test_a_current_without_a_voltage_is_a_charge_and_no_energy(published: Settings) -> None:
    sessions = rows_of(published, "fct_charging_session", NO_VOLTAGE)
    assert sessions.height == DAYS
    assert set(sessions["energy_method"]) == {"none: no voltage and no counter"}
    assert sessions["energy_kwh"].null_count() == sessions["energy_integral_kwh"].null_count() == DAYS
    assert sessions["charge_ah"].is_between(25, 34).all()
    trips = rows_of(published, "fct_trip", NO_VOLTAGE)
    assert set(trips["energy_method"]) == {"none: no voltage and no counters"}
    assert trips["energy_net_kwh"].null_count() == trips.height == DAYS
    days = rows_of(published, "fct_energy_daily", NO_VOLTAGE)
    assert days["charged_kwh"].null_count() == days["driven_net_kwh"].null_count() == DAYS
    assert set(days["driven_missing_because"]) == {"a trip without energy"}
    assert days["parked_kwh"].drop_nulls().is_empty()


def test_a_charge_without_a_power_is_fast_only_when_it_was_fast(published: Settings) -> None:
    sessions = rows_of(published, "fct_charging_session", NO_CURRENT)
    assert sessions.height
    assert set(sessions["mode"]) <= {"AC", "UNKNOWN"}
    assert set(sessions["energy_method"]) == {"counter"}
    assert sessions["energy_kwh"].is_between(8, 13).all()
    days = rows_of(published, "fct_energy_daily", NO_CURRENT)
    assert days["charged_dc_kwh"].sum() == 0
    assert days["charged_kwh"].sum() == pytest.approx(sessions["energy_kwh"].sum(), abs=1e-9)
    parked = rows_of(published, "fct_parked_loss", NO_CURRENT)
    assert parked["idle_h"].to_list() == [0.0], "a car that charges does not idle"


def test_without_speed_and_odometer_nobody_knows_what_was_driven(published: Settings) -> None:
    days = rows_of(published, "fct_energy_daily", NO_MOTION)
    assert days["charged_kwh"].null_count() == 0
    assert days["driven_net_kwh"].null_count() == days["parked_kwh"].null_count() == DAYS
    assert set(days["driven_missing_because"]) == {"neither speed nor odometer"}
    parked = rows_of(published, "fct_parked_loss", NO_MOTION)
    assert parked["idle_h"].to_list() == parked["idle_kwh"].to_list() == [None]
    assert "neither speed nor odometer" in parked["missing_because"].item()


def test_a_drive_in_a_silence_takes_what_the_counters_say(published: Settings) -> None:
    days = rows_of(published, "fct_energy_daily", SILENT_DRIVES).sort("service_date")
    assert days["driven_net_kwh"].null_count() == 0
    assert days["driven_net_kwh"].sum() == pytest.approx(DAYS * HOUR_KWH, rel=0.02)
    silent = days.filter(pl.col("trip_count") == 0)
    assert silent.height == DAYS // 2
    assert silent["driven_net_kwh"].min() > 0


@pytest.mark.parametrize("device", [SPARSE, SPARSER, HOLE])
def test_a_charge_is_found_once_however_rarely_it_is_written(published: Settings, device: str) -> None:
    sessions = rows_of(published, "fct_charging_session", device)
    assert sessions.height == DAYS
    assert set(sessions["mode"]) == {"AC"}
    twice = sessions.filter(pl.col("energy_integral_kwh") > pl.col("energy_counter_kwh") + 0.25)
    assert twice.is_empty(), "what is integrated is no silence beside"
    days, plain = rows_of(published, "fct_energy_daily", device), rows_of(published, "fct_energy_daily", PLAIN)
    assert days["charged_kwh"].sum() == pytest.approx(plain["charged_kwh"].sum(), rel=0.01)
    assert days["parked_kwh"].sum() == pytest.approx(plain["parked_kwh"].sum(), abs=0.5)
    capacity = rows_of(published, "fct_capacity_estimate", device).filter(pl.col("method") == "charge")["capacity_ah"]
    assert capacity.len() >= DAYS // 2
    assert capacity.median() == pytest.approx(AH, rel=0.02)


@pytest.mark.parametrize("device", [WHOLE_KM, BLANK_SPEED])
def test_a_coarse_odometer_and_a_speed_with_holes_still_make_trips(published: Settings, device: str) -> None:
    trips, plain = rows_of(published, "fct_trip", device), rows_of(published, "fct_trip", PLAIN)
    assert trips.height == plain.height == DAYS
    assert trips["distance_km"].sum() == pytest.approx(plain["distance_km"].sum(), rel=0.03)
    days = rows_of(published, "fct_energy_daily", device)
    assert days["driven_net_kwh"].sum() == pytest.approx(DAYS * HOUR_KWH, rel=0.05)
    month = rows_of(published, "fct_mileage_monthly", device)
    assert month["grade"].item() in ("A", "B", "C")


def test_one_row_of_current_makes_no_fast_charge(published: Settings) -> None:
    assert set(rows_of(published, "fct_charging_session", SPIKE)["mode"]) == {"AC"}


def test_counters_that_read_0_on_waking_begin_nothing_anew(published: Settings) -> None:
    days, plain = rows_of(published, "fct_energy_daily", ZERO), rows_of(published, "fct_energy_daily", PLAIN)
    for column in ("charged_kwh", "driven_net_kwh"):
        assert days[column].sum() == pytest.approx(plain[column].sum(), rel=0.02)
    assert set(rows_of(published, "fct_capacity_estimate", ZERO)["pack_epoch"]) == {0}
    assert audit_of(published, ZERO)[0] == "ok"


def test_a_flag_does_not_turn_a_charge_round(published: Settings) -> None:
    sessions = rows_of(published, "fct_charging_session", V2L_FLAG).filter(pl.col("mode") != "V2L")
    assert sessions.height == DAYS
    assert sessions["energy_kwh"].is_between(8, 13).all()


def test_an_operating_time_that_runs_slow_is_a_drift(published: Settings) -> None:
    verdict, reason = audit_of(published, SLOW_CLOCK)
    assert verdict == "drift"
    assert "operating time" in reason


def test_every_kind_of_exposure_covers_the_span_from_first_to_last_message(published: Settings) -> None:
    hours = rows_of(published, "fct_exposure_monthly", PLAIN).group_by("kind").agg(pl.sum("hours"))
    assert hours.height == 4
    span = (DAYS - 1) * 24 + 5
    assert hours["hours"].to_list() == pytest.approx([span] * 4, abs=1e-6)
