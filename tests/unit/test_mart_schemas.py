"""What the schemas of the marts refuse: figures outside of their interval, devices and sites that cannot be."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import polars as pl
import pytest

from baas_dagster.battery.sites import SITE_SCHEMA, USAGE_SCHEMA
from baas_dagster.battery.soh import SOH_SCHEMA
from baas_dagster.schemas.marts import check_devices, check_sites

D = "01290001001"
MONTH: dict[str, Any] = {"device_no": D, "measured_month": "2023-01", "method": "none"}
DEVICE: dict[str, Any] = {
    "device_no": D, "measured_month": "2023-01", "chemistry": "NMC622", "cell_count": 96, "temp_sensor_count": 6,
    "capacity_nominal_ah": 180.0, "insulation_cap_kohm": 3000.0, "delivered_current_sign": -1,
    "delivered_voltage_scale": 0.1, "layout_count": 1, "first_seen_at": datetime(2023, 1, 1),
    "last_seen_at": datetime(2023, 1, 31), "row_count": 10, "gps_row_count": 0,
}  # fmt: skip
DEVICE_SCHEMA = {"cell_count": pl.Int32, "temp_sensor_count": pl.Int32, "delivered_current_sign": pl.Int32,
                 "layout_count": pl.Int32}  # fmt: skip
SITE: dict[str, Any] = {
    "site_id": "a", "lat": 36.0, "lng": 127.0, "first_session_at": datetime(2023, 1, 1),
    "last_session_at": datetime(2023, 1, 2), "device_count": 1, "session_count": 3, "dc_session_count": 1,
    "energy_kwh": 40.0, "charging_min": 90.0, "connected_min": 100.0, "power_max_kw": 11.0,
}  # fmt: skip
HOUR: dict[str, Any] = {
    "site_id": "a",
    "weekday": 1,
    "hour": 8,
    "sessions": 1,
    "energy_kwh": 4.0,
    "charging_min": 9.0,
    "connected_min": 9.0,
}


def failed_of_device(table: str, row: dict[str, Any], schema: Any) -> set[str]:
    frame = pl.DataFrame([row], schema=schema) if table == "fct_soh_monthly" else pl.DataFrame([row]).cast(schema)
    by_device, by_month = check_devices(table, frame, [D])
    assert by_device[D] == by_month[D, "2023-01"]
    return {o.check_name for o in by_device[D] if not o.is_passed}


@pytest.mark.parametrize(
    "figure", ["soc_bias{}_pct", "slope_data{}_pct_per_year", "slope_data{}_pct_per_100_cycles", "slope{}_pct_per_year"]
)
def test_a_figure_of_health_lies_in_its_interval(figure: str) -> None:
    value, lo, hi = (figure.format(end) for end in ("", "_lo", "_hi"))
    assert failed_of_device("fct_soh_monthly", MONTH, SOH_SCHEMA) == set(), "no figure, no interval"
    inside = MONTH | {value: -1.0, lo: -2.0, hi: 0.0}
    assert failed_of_device("fct_soh_monthly", inside, SOH_SCHEMA) == set()
    turned = MONTH | {value: -1.0, lo: 0.0, hi: -2.0}
    assert failed_of_device("fct_soh_monthly", turned, SOH_SCHEMA) == {f"{value}_in_its_interval"}


@pytest.mark.parametrize(
    ("change", "check"),
    [
        ({"chemistry": "lead"}, "device_chemistry_known"),
        ({"cell_count": 0}, "device_cells_possible"),
        ({"capacity_nominal_ah": 0.0}, "device_capacity_possible"),
        ({"delivered_current_sign": 0}, "device_sign_is_a_sign"),
        ({"delivered_voltage_scale": 0.0}, "device_scale_above_0"),
        ({"row_count": -1}, "device_count_not_negative"),
        ({"last_seen_at": datetime(2022, 1, 1)}, "first_seen_at_not_after_last_seen_at"),
    ],
)
def test_a_device_is_one_that_can_be(change: dict[str, Any], check: str) -> None:
    assert failed_of_device("dim_device", DEVICE, DEVICE_SCHEMA) == set()
    assert failed_of_device("dim_device", DEVICE | change, DEVICE_SCHEMA) == {check}


@pytest.mark.parametrize(
    ("site", "hour", "check"),
    [
        ({"lat": 127.0}, {}, "site_is_on_earth"),
        ({"session_count": 0, "dc_session_count": 0, "device_count": 0}, {}, "site_has_a_session"),
        ({"dc_session_count": 4}, {}, "dc_session_count_not_after_session_count"),
        ({"last_session_at": datetime(2022, 1, 1)}, {}, "first_session_at_not_after_last_session_at"),
        ({"energy_kwh": -1.0}, {}, "site_use_not_negative"),
        ({}, {"hour": 24}, "hour_0_to_23"),
        ({}, {"weekday": 0}, "weekday_1_to_7"),
        ({}, {"connected_min": -1.0}, "hour_use_not_negative"),
    ],
)
def test_a_site_and_its_use_are_ones_that_can_be(site: dict[str, Any], hour: dict[str, Any], check: str) -> None:
    def failed(one: dict[str, Any], use: dict[str, Any]) -> set[str]:
        found = check_sites(pl.DataFrame([one], schema=SITE_SCHEMA), pl.DataFrame([use], schema=USAGE_SCHEMA))
        return {o.check_name for o in found if not o.is_passed}

    assert failed(SITE, HOUR) == set()
    assert check in failed(SITE | site, HOUR | hour)


def test_an_hour_of_a_site_stands_once_and_no_sites_are_fine() -> None:
    twice = check_sites(pl.DataFrame([SITE], schema=SITE_SCHEMA), pl.DataFrame([HOUR, HOUR], schema=USAGE_SCHEMA))
    assert [o.check_name for o in twice if not o.is_passed] == ["schema"]
    none = check_sites(pl.DataFrame(schema=SITE_SCHEMA), pl.DataFrame(schema=USAGE_SCHEMA))
    assert all(o.is_passed for o in none)
