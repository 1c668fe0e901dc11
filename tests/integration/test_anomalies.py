"""Episodes and the queue through the whole chain: a burning car is called in, odd but healthy cars are not."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import duckdb
import pytest

from baas_dagster import outcomes
from baas_dagster.runs import Asked
from baas_dagster.settings import Settings
from tests.conftest import Homes
from tests.deliveries import Row, psql, put_zip

CELLS = 96
HOT, LOW_CELL, NO_INSULATION, GLITCH, HEALTHY, FINE_STEPS, NO_CELLS, NO_TEMPS, PADDED, SMALL_PACK, LEAKING = (
    f"012900080{number:02d}" for number in range(1, 12)
)
DAYS = 12


def days_of(device: str, cells: int = CELLS, start: datetime = datetime(2023, 1, 3)) -> list[Row]:
    """Twelve days with an hour's drive at eight and a charge at noon, rows every 20 s. Cells differ by up to 4 mV."""
    rows: list[Row] = []
    soc, km = 70.0, 1000.0
    for day in range(DAYS):
        for hour in (8, 12):
            for second in range(0, 3600, 20):
                at = start + timedelta(days=day, hours=hour, seconds=second)
                driving = hour == 8 and second >= 600
                current = (-60.0, -5.0, -25.0)[second // 20 % 3] if driving else 0.0 if second < 600 else 26.0
                soc += 100 * current * 20 / 3600 / 100
                km += 50 * 20 / 3600 if driving else 0
                mean_mv = 3500 + 7 * soc + current * 0.5
                levels = [20 * round((mean_mv + i % 5 - 2 + second % 20) / 20) for i in range(cells)]
                temp = 10 + 12 * second // 3600
                rows.append(
                    {
                        "device_no": device,
                        "time": at.strftime("%Y-%m-%d %H:%M:%S"),
                        "odometer": f"{km:.1f}",
                        "emobility_spd": (50.0 + second // 20 % 2) if driving else 0.0,
                        "pack_current": current,
                        "pack_volt": f"{mean_mv * cells / 1000:.1f}",
                        "soc": f"{soc:.1f}",
                        "cell_volt_list": ",".join(f"{mv / 1000:.2f}" for mv in levels),
                        "mod_temp_list": ",".join(str(temp + k % 2) for k in range(6)),
                        "insul_resistance": 0 if second < 40 else 3000,
                        "main_relay_conn": "t",
                        "chrg_cable_conn": "t" if hour == 12 else "f",
                    }
                )
    return rows


def _rows_of_days(rows: list[Row], per_day: int, first: int = 60) -> list[int]:
    """Row numbers of `per_day` rows in a row of each day's drive."""
    return [day * 360 + first + i for day in range(DAYS) for i in range(per_day) if day * 360 + first + i < len(rows)]


def _hot(rows: list[Row]) -> None:
    for i in _rows_of_days(rows, 6)[:6]:  # two minutes, once
        rows[i]["mod_temp_list"] = "20,21,95,21,20,21"


def _low_cell(rows: list[Row]) -> None:
    for i in _rows_of_days(rows, 30)[:30]:
        values = str(rows[i]["cell_volt_list"]).split(",")
        values[16] = "1.20"
        rows[i]["cell_volt_list"] = ",".join(values)


def _no_insulation(rows: list[Row]) -> None:
    for i in range(3, 180):
        rows[i]["insul_resistance"] = 0


def _glitch(rows: list[Row]) -> None:
    """One row of each, and no more: noise."""
    rows[70]["mod_temp_list"] = "20,21,95,21,20,21"
    values = str(rows[80]["cell_volt_list"]).split(",")
    values[16] = "1.20"
    rows[80]["cell_volt_list"] = ",".join(values)
    rows[90]["insul_resistance"] = 0


def _fine_steps(rows: list[Row]) -> None:
    for number, row in enumerate(rows):
        mean = 1000 * float(str(row["pack_volt"])) / CELLS
        row["cell_volt_list"] = ",".join(f"{(mean + (i * 7 + number) % 5 - 2) / 1000:.3f}" for i in range(CELLS))


def _padded(rows: list[Row]) -> None:
    for row in rows:
        row["mod_temp_list"] = f"{row['mod_temp_list']},{','.join(['0'] * 8)},215,215,-40,21"


def _leaking(rows: list[Row]) -> None:
    """Cell 33 falls by 8 mV a day from the second day on."""
    for number, row in enumerate(rows):
        values = str(row["cell_volt_list"]).split(",")
        off = 8 * max(0.0, number / 360 - 1)
        values[32] = f"{20 * round((1000 * float(values[32]) - off + number % 20 - 10) / 20) / 1000:.2f}"
        row["cell_volt_list"] = ",".join(values)


def _without(column: str) -> Callable[[list[Row]], None]:
    def change(rows: list[Row]) -> None:
        for row in rows:
            row[column] = ""

    return change


CARS: dict[str, Callable[[list[Row]], None]] = {
    HOT: _hot, LOW_CELL: _low_cell, NO_INSULATION: _no_insulation, GLITCH: _glitch, HEALTHY: lambda _: None,
    FINE_STEPS: _fine_steps, NO_CELLS: _without("cell_volt_list"), NO_TEMPS: _without("mod_temp_list"),
    PADDED: _padded, SMALL_PACK: lambda _: None, LEAKING: _leaking,
}  # fmt: skip


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory, parsed_dbt: Path) -> Settings:
    """One run over every car of this page."""
    homes = Homes(tmp_path_factory.mktemp("judged"), parsed_dbt)
    home = homes.new()
    for device, change in CARS.items():
        rows = days_of(device, 87 if device == SMALL_PACK else CELLS)
        change(rows)
        put_zip(home.landing_dir / f"bms_{device}.zip", f"bms_{device}_2023-01.csv", psql(rows))
    master = "device_no,car_type\n" + "".join(f"{device},NIRO\n" for device in CARS if device != SMALL_PACK)
    (home.landing_dir / "vehicle_master.csv").write_text(master, encoding="utf-8")
    with homes.chain(home) as chain:
        assert chain.run(Asked()).errors == []
    return home


def rows_of(home: Settings, query: str) -> list[tuple[object, ...]]:
    with duckdb.connect(str(home.publish / "fleet.duckdb"), read_only=True) as reader:
        return reader.sql(query).fetchall()


@pytest.mark.parametrize(
    ("device", "channel", "number"),
    [(HOT, "temperature", 3), (LOW_CELL, "cells", 17), (NO_INSULATION, "insulation", None)],
)
def test_what_could_be_a_fire_is_severity_three(
    judged: Settings, device: str, channel: str, number: int | None
) -> None:
    found = rows_of(
        judged,
        "select severity, evidence->'worst'->'detail'->>'channel', "
        "cast(coalesce(evidence->'worst'->'detail'->>'cell_no', evidence->'worst'->'detail'->>'module_no') as integer) "
        f"from fct_anomaly where device_no = '{device}' and code = 'FAULT_OR_SENSOR'",
    )
    assert found == [(3, channel, number)]
    listed = rows_of(
        judged, f"select is_bypass, is_listed, rank <= 4 from inspection_queue where device_no = '{device}'"
    )
    assert listed == [(True, True, True)]


@pytest.mark.parametrize("device", [GLITCH, HEALTHY, FINE_STEPS, NO_CELLS, NO_TEMPS, PADDED, SMALL_PACK])
def test_odd_but_healthy_cars_have_no_episode(judged: Settings, device: str) -> None:
    # the voltages of these cars lie on a straight line, which no chemistry has: what is read off a curve is wrong
    query = (
        f"select code, cell_no, module_no from fct_anomaly where device_no = '{device}' "
        "and code not in ('SOC_BIAS', 'SOH_LOW')"
    )
    assert rows_of(judged, query) == []


def test_what_cannot_be_judged_says_so(judged: Settings) -> None:
    missing = dict[object, set[object]]()
    for device, code in rows_of(judged, "select device_no, code from anomaly_coverage"):
        missing.setdefault(device, set()).add(code)
    assert {"CELL_OUTLIER", "CELL_SPREAD", "CELL_SELF_DISCHARGE"} <= missing[NO_CELLS]
    assert {"TEMP_SPREAD", "TEMP_HIGH"} <= missing[NO_TEMPS]
    assert not {"CELL_OUTLIER", "TEMP_SPREAD", "INSULATION_LOW"} & missing[HEALTHY]


def test_a_leaking_cell_is_named_with_its_current(judged: Settings) -> None:
    found = rows_of(
        judged,
        f"select cell_no, value, severity from fct_anomaly where device_no = '{LEAKING}' and code like '%DISCHARGE'",
    )
    assert [row[0] for row in found] == [33]
    # 8 mV a day over 7 mV a point of 180 Ah are 86 mA
    assert 60 < float(str(found[0][1])) < 120
    reasons = rows_of(judged, f"select reasons, reasons_ko from inspection_queue where device_no = '{LEAKING}'")
    assert "cell 33" in str(reasons[0][0])
    assert "셀 33" in str(reasons[0][1])


def test_every_cell_of_every_month_has_its_residual(judged: Settings) -> None:
    found = rows_of(
        judged,
        "select count(*), max(cell_no), max(abs(residual_rest_mv)) from fct_cell_monthly "
        f"where device_no = '{HEALTHY}'",
    )
    assert found[0][:2] == (CELLS, CELLS)
    assert float(str(found[0][2])) < 10


def test_an_outcome_closes_the_episode_and_gives_the_lead_time(homes: Homes, judged: Settings) -> None:
    home = homes.copy(judged)
    said = {"device_no": HOT, "inspected_on": "2023-01-20", "finding": "replaced", "note": "module 3"}
    outcomes.add(home.outcomes, outcomes.outcome_of(said))
    (home.outcomes / "by_hand.csv").write_text("device_no,inspected_on,finding\n1290008001,2023-01-20,repaired\n")
    with homes.chain(home) as chain:
        work = {unit: [w.key for w in items] for unit, items in chain.state().plan().items() if items}
        assert work == {"anomaly": [HOT], "fleet": ["fleet"]}, "an outcome makes nothing stale but its car's episodes"
        assert chain.run(Asked()).errors == []
    closed = rows_of(home, f"select closed_by from fct_anomaly where device_no = '{HOT}' and code = 'FAULT_OR_SENSOR'")
    assert closed == [("outcome",)]
    assert rows_of(home, f"select count(*) from inspection_queue where device_no = '{HOT}' and is_bypass") == [(0,)]
    assert rows_of(home, "select is_confirmed, lead_time_d from inspection_outcome") == [(True, 17)]
    assert rows_of(home, "select file_name, source_row from rejected_outcome") == [("by_hand.csv", 2)]
