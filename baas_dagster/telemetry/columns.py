"""Names, types and aliases of the delivered BMS and GPS columns.

Belongs here: what a delivered column is called, which canonical column it is, and how it is typed in the lake.
Does not belong here: parsing (``formats``), what is a measurement and what is not (dbt staging, ``cells``).
"""

from __future__ import annotations

import re
from enum import StrEnum

import pyarrow as pa

__all__ = [
    "BMS_COLUMNS",
    "CELL_COLUMN",
    "GPS_COLUMNS",
    "LINEAGE_COLUMNS",
    "MAX_CELLS",
    "MAX_MODULE_TEMPS",
    "MODULE_TEMP_COLUMN",
    "ColumnKind",
    "TableKind",
    "canonical_name",
    "lake_schema",
    "normalised",
    "numbered_position",
]

MAX_CELLS = 192
MAX_MODULE_TEMPS = 32
"""DOMAIN names 18 numbered columns; the real car 01290000001 delivers 24 in its list."""

CELL_COLUMN = "cell_volt_list"
MODULE_TEMP_COLUMN = "mod_temp_list"


class TableKind(StrEnum):
    """The two kinds of telemetry tables."""

    BMS = "bms"
    GPS = "gps"


class ColumnKind(StrEnum):
    """How a delivered text becomes a typed value."""

    DEVICE = "device"
    MONTH = "month"
    TIME = "time"
    NUMBER = "number"
    INTEGER = "integer"
    FLAG = "flag"
    TEXT = "text"
    CELLS = "cells"
    TEMPS = "temps"


_BMS_NUMBERS = [
    "acceptable_chrg_pw",
    "acceptable_dischrg_pw",
    "airbag_hwire_duty",
    "batt_coolant_inlet_temp",
    "batt_internal_temp",
    "batt_ltr_rear_temp",
    "batt_pra_busbar_temp",
    "batt_pw",
    "cell_volt_dispersion",
    "chrg_cnt",
    "chrg_cnt_q",
    "cumul_current_chrgd",
    "cumul_current_dischrgd",
    "cumul_energy_chrgd",
    "cumul_energy_chrgd_q",
    "cumul_pw_chrgd",
    "cumul_pw_dischrgd",
    "drive_motor_spd1",
    "drive_motor_spd2",
    "emobility_spd",
    "est_chrg_time",
    "ext_temp",
    "insul_resistance",
    "int_temp",
    "inverter_capacity_volt",
    "max_cell_volt",
    "max_cell_volt_no",
    "max_deter_cell_no",
    "min_cell_volt",
    "min_cell_volt_no",
    "min_deter",
    "min_deter_cell_no",
    "mod_avg_temp",
    "mod_max_temp",
    "mod_min_temp",
    "odometer",
    "op_time",
    "pack_current",
    "pack_volt",
    "soc",
    "socd",
    "soh",
    "sub_batt_volt",
    "trip_chrg_pw",
    "trip_dischrg_pw",
]
_BMS_FLAGS = [
    "batt_fan_running",
    "bms_running",
    "chrg_cable_conn",
    "fast_chrg_port_conn",
    "fast_chrg_relay_on",
    "main_relay_conn",
    "slow_chrg_port_conn",
    "v2l",
]
_BMS_TEXTS = ["hvac_list1", "hvac_list2", "msg_id", "start_time"]

BMS_COLUMNS: dict[str, ColumnKind] = dict(
    sorted(
        {
            "time": ColumnKind.TIME,
            "msg_time": ColumnKind.TIME,
            "seq": ColumnKind.INTEGER,
            CELL_COLUMN: ColumnKind.CELLS,
            MODULE_TEMP_COLUMN: ColumnKind.TEMPS,
            **dict.fromkeys(_BMS_NUMBERS, ColumnKind.NUMBER),
            **dict.fromkeys(_BMS_FLAGS, ColumnKind.FLAG),
            **dict.fromkeys(_BMS_TEXTS, ColumnKind.TEXT),
        }.items()
    )
)
"""Canonical BMS column -> kind. Not here: ``device_no`` and ``measured_month``, which name the partition."""

GPS_COLUMNS: dict[str, ColumnKind] = {
    "direction": ColumnKind.NUMBER,
    "fuel_pct": ColumnKind.NUMBER,
    "hdop": ColumnKind.NUMBER,
    "lat": ColumnKind.NUMBER,
    "lng": ColumnKind.NUMBER,
    "mode": ColumnKind.TEXT,
    "msg_time": ColumnKind.TIME,
    "source": ColumnKind.TEXT,
    "speed": ColumnKind.NUMBER,
    "state": ColumnKind.TEXT,
    "time": ColumnKind.TIME,
}
"""Canonical GPS column -> kind. A delivered ``timestamp`` beside ``time`` is the message time."""

LINEAGE_COLUMNS = ("layout_id", "source_file", "source_row")

_ALIASES: dict[str, str] = {
    # normalised alias (lower case, no separators) -> canonical name
    "timestamp": "msg_time",
    "messagetime": "msg_time",
    "cellvoltagelist": CELL_COLUMN,
    "moduletemplist": MODULE_TEMP_COLUMN,
    "cellvoltagedispersion": "cell_volt_dispersion",
    "emobilityspeed": "emobility_spd",
    "mindeterioratation": "min_deter",  # the vendor's spelling
    "mindeterioration": "min_deter",
    "maxdeteriorationcellno": "max_deter_cell_no",
    "mindeteriorationcellno": "min_deter_cell_no",
    "insulatedresistance": "insul_resistance",
    "cumulativecurrentcharged": "cumul_current_chrgd",
    "cumulativecurrentdischarged": "cumul_current_dischrgd",
    "cumulativepowercharged": "cumul_pw_chrgd",
    "cumulativepowerdischarged": "cumul_pw_dischrgd",
    "cumulativeenergycharged": "cumul_energy_chrgd",
    "moduleavgtemp": "mod_avg_temp",
    "modulemintemp": "mod_min_temp",
    "modulemaxtemp": "mod_max_temp",
    "maxcellvoltage": "max_cell_volt",
    "maxcellvoltageno": "max_cell_volt_no",
    "mincellvoltage": "min_cell_volt",
    "mincellvoltageno": "min_cell_volt_no",
    "battinternaltemp": "batt_internal_temp",
    "subbattvoltage": "sub_batt_volt",
    "longitude": "lng",
    "lon": "lng",
    "latitude": "lat",
}

_SEPARATORS = re.compile(r"[\s_\-.]+")
_NUMBERED = re.compile(r"^(?:(cellvolt|cellv|cellvoltage)|(modtemp|moduletemp))(\d{1,3})$")


def normalised(name: str) -> str:
    """Spelling without case, blanks, underscores, dots, hyphens, quotes and a byte-order mark."""
    return _SEPARATORS.sub("", name.strip().strip("\ufeff\"'").strip().lower())


_CANONICAL: dict[TableKind, dict[str, str]] = {
    kind: {
        **{normalised(name): name for name in (*columns, "device_no", "measured_month")},
        **{alias: name for alias, name in _ALIASES.items() if name in columns},
    }
    for kind, columns in ((TableKind.BMS, BMS_COLUMNS), (TableKind.GPS, GPS_COLUMNS))
}


def canonical_name(kind: TableKind, delivered: str) -> str | None:
    """Canonical name of a delivered column, or None where the platform does not know it (or it is a numbered one)."""
    return _CANONICAL[kind].get(normalised(delivered))


def numbered_position(delivered: str) -> tuple[str, int] | None:
    """(list column, 1-based position) of a numbered column such as ``cell_v_017`` or ``modTemp3``, else None."""
    match = _NUMBERED.match(normalised(delivered))
    if match is None:
        return None
    column, position = (CELL_COLUMN if match[1] else MODULE_TEMP_COLUMN), int(match[3])
    limit = MAX_CELLS if column == CELL_COLUMN else MAX_MODULE_TEMPS
    return (column, position) if 1 <= position <= limit else None


_ARROW = {
    ColumnKind.TIME: pa.timestamp("us"),
    ColumnKind.NUMBER: pa.float64(),
    ColumnKind.INTEGER: pa.int64(),
    ColumnKind.FLAG: pa.bool_(),
    ColumnKind.TEXT: pa.string(),
}


def lake_schema(kind: TableKind) -> pa.Schema:
    """Arrow schema of a delivered slice and of a raw partition: one row per message, partition columns last.

    Cells are ``cell_mv`` (list of int16, mV), module temperatures ``mod_temp_dc`` (list of int16, 0.1 degC); both NULL
    where the export has none. ``cell_*`` and ``temp_*`` beside them are per-row figures over the values that are
    measurements (listed sentinels left out, and counted).
    """
    columns = BMS_COLUMNS if kind is TableKind.BMS else GPS_COLUMNS
    fields = [pa.field(n, _ARROW[k]) for n, k in columns.items() if k in _ARROW]
    if kind is TableKind.BMS:
        fields += [
            pa.field("cell_mv", pa.list_(pa.int16())),
            pa.field("cell_n", pa.int16()),  # cells that hold a measurement
            pa.field("cell_min_mv", pa.int16()),
            pa.field("cell_max_mv", pa.int16()),
            pa.field("cell_mean_mv", pa.float64()),
            pa.field("cell_sum_mv", pa.int32()),
            pa.field("cell_sentinel_n", pa.int16()),  # exactly 66.535 V
            pa.field("cell_placeholder_n", pa.int16()),  # in a 32-cell block of 5.10, 0.00 or contradicted 4.00 V
            pa.field("cell_unfit_n", pa.int16()),  # any other value beyond +-32.767 V: suspect, its text stays by row
            pa.field("mod_temp_dc", pa.list_(pa.int16())),
            pa.field("temp_n", pa.int16()),  # sensors that hold a measurement
            pa.field("temp_min_c", pa.float64()),
            pa.field("temp_max_c", pa.float64()),
            pa.field("temp_mean_c", pa.float64()),
            pa.field("temp_sentinel_n", pa.int16()),  # exactly -40, 215 or 471
        ]
    fields += [
        pa.field("layout_id", pa.dictionary(pa.int32(), pa.string())),
        pa.field("source_file", pa.dictionary(pa.int32(), pa.string())),
        pa.field("source_row", pa.int64()),
        pa.field("device_no", pa.dictionary(pa.int32(), pa.string())),
        pa.field("measured_month", pa.dictionary(pa.int32(), pa.string())),
    ]
    return pa.schema(fields)
