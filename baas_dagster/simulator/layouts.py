"""Export layouts the simulated cars are delivered in, and which car has which.

Belongs here: column names, forms, date styles, signs and scales. Does not belong here: files (``deliveries``).
"""

from __future__ import annotations

from baas_dagster.simulator.fleet import FleetSpec
from baas_dagster.simulator.table import Layout

__all__ = ["FLEET_LAYOUT", "LAYOUTS", "PLAIN", "layout_of"]

_CAMEL = {
    "device_no": "deviceNo",
    "msg_time": "messageTime",
    "cell_volt_list": "cellVoltageList",
    "mod_temp_list": "moduleTempList",
    "cell_volt_dispersion": "cellVoltageDispersion",
    "hvac_list1": "hvacList1",
    "hvac_list2": "hvacList2",
    "drive_motor_spd1": "driveMotorSpd1",
    "emobility_spd": "emobilitySpeed",
    "min_deter": "minDeterioratation",
    "max_deter_cell_no": "maxDeteriorationCellNo",
    "insul_resistance": "insulatedResistance",
    "airbag_hwire_duty": "airbagHWireDuty",
    "cumul_current_chrgd": "cumulativeCurrentCharged",
    "cumul_current_dischrgd": "cumulativeCurrentDischarged",
    "cumul_pw_chrgd": "cumulativePowerCharged",
    "cumul_pw_dischrgd": "cumulativePowerDischarged",
    "mod_avg_temp": "moduleAvgTemp",
    "mod_min_temp": "moduleMinTemp",
    "mod_max_temp": "moduleMaxTemp",
    "max_cell_volt": "maxCellVoltage",
    "max_cell_volt_no": "maxCellVoltageNo",
    "min_cell_volt": "minCellVoltage",
    "min_cell_volt_no": "minCellVoltageNo",
    "batt_internal_temp": "battInternalTemp",
    "sub_batt_volt": "subBattVoltage",
    "lat": "latitude",
    "lng": "longitude",
}
_SPACED = {
    "device_no": "device no",
    "msg_time": "timestamp",
    "cell_volt_list": "cellvolt_list",
    "cell_volt_dispersion": "cellvolt_dispersion",
    "hvac_list1": "hvac_list_1",
    "drive_motor_spd1": "drive_motor_spd_1",
    "lng": "lon",
}
_UPPER = {"device_no": "DEVICE_NO", "msg_time": "msgTime", "lng": "lon"}

PLAIN = Layout("plain", "psql", bom=True)
"""What a fleet without quirks is delivered in."""

LAYOUTS: tuple[Layout, ...] = (
    Layout("psql", "psql", bom=True, padded_dates=True),
    Layout("camel_numbered", "csv", names=_CAMEL, long_dates=True, numbered=True, flags=("f", "t"), current_sign=-1),
    Layout(
        "psql_newest_first",
        "psql",
        bom=True,
        long_dates=True,
        brackets=True,
        newest_first=True,
        flags=("false", "true"),
        current_sign=-1,
        voltage_scale=0.1,
    ),
    Layout("gz_spaced", "csv_gz", names=_SPACED, long_dates=True, brackets=True, flags=("N", "Y")),
    Layout("parquet", "parquet", long_dates=True, current_sign=-1),
    Layout("cp949", "csv", names=_UPPER, encoding="cp949", korean=True, flags=("false", "true"), voltage_scale=0.1),
    Layout("psql_short_name", "psql", names=_UPPER, month_in_name="short", current_sign=-1, newest_first=True),
)
FLEET_LAYOUT = Layout("fleet_csv", "csv", long_dates=True, brackets=True, bom=True)
"""Export of several cars in one file."""

_CHANGED = 6
"""Layout the car that changes its export goes over to: other names, order and sign."""


def layout_of(spec: FleetSpec, car_index: int, month_index: int) -> Layout:
    """Layout a car is delivered in. In fleets of six cars and more the first car's export changes half-way."""
    if not spec.quirks:
        return PLAIN
    if car_index == 0 and spec.devices >= 6 and spec.months > 1 and month_index >= spec.months // 2:
        return LAYOUTS[_CHANGED]
    return LAYOUTS[car_index % len(LAYOUTS)]
