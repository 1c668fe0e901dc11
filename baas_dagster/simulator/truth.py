"""What really happened: the truth tables beside a delivery, one Parquet file each.

Belongs here: collecting and writing the truth. Does not belong here: anything a delivery is made of.
Times are naive KST (microseconds); current and energy as in ``vehicle`` (charge positive at the pack terminals).

=========================== ============================== ==========================================================
table                       one row per                    columns
=========================== ============================== ==========================================================
``truth_device``            car                            device_no, car_type, pack_type, chemistry, cell_count,
                                                           temp_sensor_count (padded positions not counted),
                                                           temp_padded_count, capacity_nominal_ah, capacity_new_ah,
                                                           capacity_now_ah (end of history), bms_capacity_ah,
                                                           soh_start_pct, fade_pct_per_year, delivered_current_sign and
                                                           delivered_voltage_scale (of its last month), has_bms,
                                                           has_gps, has_odometer, odometer_resolution_km,
                                                           cell_step_mv, insulation_cap_kohm, current_gain,
                                                           current_offset_a, speed_gain, ocv_warp_rms_mv,
                                                           hysteresis_mv, resistance_mohm, in_vehicle_master,
                                                           has_odometer_events
``truth_layout``            car, month                     device_no, measured_month, layout, form,
                                                           delivered_current_sign (+1 charge positive),
                                                           delivered_voltage_scale (delivered x scale = V)
``truth_day``               car, KST day                   device_no, service_date, measured_month, distance_km (driven,
                                                           logged or not), unlogged_km, energy_out_kwh,
                                                           energy_regen_kwh, charged_kwh, charged_dc_kwh, v2l_kwh,
                                                           idle_kwh (awake, neither driving nor charging), parked_kwh,
                                                           charge_ah, discharge_ah (true, awake), parked_ah
``truth_month``             car, month                     the same sums; logged_share (of km), capacity_ah, soh_pct
                                                           (of new), soc_start, soc_end (true, 0-1),
                                                           gated_because ('' or the gate), bms_rows, gps_rows
                                                           (distinct good samples before row faults)
``truth_odometer_event``    event                          device_no, measured_month, code, variant, started_at,
                                                           ended_at, size_km, from_km, to_km (displayed; true for
                                                           ODO_GAP)
``truth_trip``              drive                          device_no, started_at, ended_at (wheels turn), distance_km,
                                                           energy_out_kwh, energy_regen_kwh, soc_start, soc_end,
                                                           logged_share (of its time)
``truth_charging_session``  connection (AC, DC, V2L)       device_no, connected_at, started_at, ended_at,
                                                           disconnected_at, mode, energy_kwh, charge_ah, soc_start,
                                                           soc_end, power_max_kw, temp_start_c, lat, lng, logged_share
``truth_fault``             fault of a car                 device_no, code, variant (``faults``), cell_no, module_no,
                                                           strength (multiple of the reference; NULL: present or
                                                           absent), size, unit, onset_at, ended_at (NULL: it lasts)
``truth_row_fault``         car, month, table, kind        device_no, measured_month, table_name, kind, n (rows)
``truth_file``              member that holds data, or     path (landing file), member (inside it; '' for a bare file),
                            is no data                     kind, container, devices, months, quirks, data_rows,
                                                           broken_rows (of them, to be rejected), is_data,
                                                           is_broken, delivered_at
=========================== ============================== ==========================================================

``truth_row_fault`` counts a faulty row once, however many files it is delivered in. Its kinds: impossible_date,
bad_number, column_count (rejected rows); duplicate_row, conflicting_duplicate (twice in the file); cell_placeholder,
cell_sentinel (66.535 V), soc_zero (rows with a value that is none); gps_teleport (fixes), gps_zero (lat and lng 0).
``devices``, ``months`` and ``quirks`` are lists.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from baas_dagster.simulator.vehicle import Stretch

__all__ = ["DayBook", "Truth", "moment"]

DAY_S = 86_400
_FLOWS = (
    "distance_km",
    "unlogged_km",
    "energy_out_kwh",
    "energy_regen_kwh",
    "charged_kwh",
    "charged_dc_kwh",
    "v2l_kwh",
    "idle_kwh",
    "parked_kwh",
    "charge_ah",
    "discharge_ah",
    "parked_ah",
)


def moment(seconds: int) -> datetime:
    """Timestamp of whole seconds since 1970."""
    return datetime(1970, 1, 1) + timedelta(seconds=seconds)


@dataclass
class DayBook:
    """Flows of one car per KST day (days since 1970)."""

    days: dict[int, dict[str, float]] = field(default_factory=dict)

    def add(self, day: int, **flows: float) -> None:
        """Add flows to a day."""
        entry = self.days.setdefault(day, dict.fromkeys(_FLOWS, 0.0))
        for name, value in flows.items():
            entry[name] += value

    def add_stretch(self, stretch: Stretch) -> None:
        """Add what a stretch moved, cut at midnight."""
        seconds = stretch.seconds[:-1]
        first = int(seconds[0] // DAY_S) if len(seconds) else 0
        index = seconds // DAY_S - first
        current = stretch.current_a[:-1]
        kwh = current * stretch.voltage_v[:-1] / 3.6e6
        active = stretch.is_active[:-1]
        flows: dict[str, NDArray[np.float64]] = {
            "distance_km": np.diff(stretch.odometer_m) / 1000,
            "charge_ah": np.maximum(current, 0) / 3600,
            "discharge_ah": np.maximum(-current, 0) / 3600,
            "idle_kwh": np.where(active, 0, -kwh),
        }
        if stretch.kind == "drive":
            flows |= {"energy_out_kwh": np.maximum(-kwh, 0) * active, "energy_regen_kwh": np.maximum(kwh, 0) * active}
        elif stretch.kind == "v2l":
            flows["v2l_kwh"] = -kwh * active
        else:
            flows["charged_kwh"] = kwh * active
            if stretch.kind == "dc":
                flows["charged_dc_kwh"] = kwh * active
        for name, flow in flows.items():
            for day, total in enumerate(np.bincount(index, weights=flow)):
                self.add(first + day, **{name: float(total)})

    def add_parked(self, begin_s: int, end_s: int, watt: float, volts: float) -> None:
        """Add what a sleeping car drew between two times, cut at midnight."""
        for day in range(begin_s // DAY_S, end_s // DAY_S + 1):
            span = min(end_s, (day + 1) * DAY_S) - max(begin_s, day * DAY_S)
            if span > 0:
                self.add(day, parked_kwh=watt * span / 3.6e6, parked_ah=watt / volts * span / 3600)


@dataclass
class Truth:
    """Rows of every truth table, collected while simulating."""

    rows: dict[str, list[dict[str, object]]] = field(default_factory=dict)

    def add(self, table: str, row: Mapping[str, object]) -> None:
        """Add a row."""
        self.rows.setdefault(table, []).append(dict(row))

    def extend(self, table: str, rows: Iterable[Mapping[str, object]]) -> None:
        """Add rows; the table exists even if there are none."""
        self.rows.setdefault(table, []).extend(dict(row) for row in rows)

    def frames(self) -> dict[str, pl.DataFrame]:
        """Every table as a frame, typed also where it is empty."""
        return {name: pl.DataFrame(self.rows.get(name, []), schema=schema) for name, schema in SCHEMAS.items()}

    def write(self, folder: Path) -> None:
        """Write every table to ``folder``."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, frame in self.frames().items():
            frame.write_parquet(folder / f"{name}.parquet", compression="zstd", statistics=True)


def _schema(text: str) -> dict[str, pl.DataType]:
    types: dict[str, pl.DataType] = {
        "s": pl.String(),
        "f": pl.Float64(),
        "i": pl.Int64(),
        "b": pl.Boolean(),
        "t": pl.Datetime("us"),
        "d": pl.Date(),
        "l": pl.List(pl.String()),
    }
    return {name: types[kind] for name, kind in (part.split(":") for part in text.split())}


_FLOW_SCHEMA = " ".join(f"{name}:f" for name in _FLOWS)
SCHEMAS: dict[str, dict[str, pl.DataType]] = {
    "truth_device": _schema(
        "device_no:s car_type:s pack_type:s chemistry:s cell_count:i temp_sensor_count:i temp_padded_count:i "
        "capacity_nominal_ah:f capacity_new_ah:f capacity_now_ah:f bms_capacity_ah:f soh_start_pct:f "
        "fade_pct_per_year:f delivered_current_sign:i delivered_voltage_scale:f has_bms:b has_gps:b has_odometer:b "
        "odometer_resolution_km:f cell_step_mv:i insulation_cap_kohm:i current_gain:f current_offset_a:f speed_gain:f "
        "ocv_warp_rms_mv:f hysteresis_mv:f resistance_mohm:f in_vehicle_master:b has_odometer_events:b"
    ),
    "truth_layout": _schema(
        "device_no:s measured_month:s layout:s form:s delivered_current_sign:i delivered_voltage_scale:f"
    ),
    "truth_day": _schema(f"device_no:s service_date:d measured_month:s {_FLOW_SCHEMA}"),
    "truth_month": _schema(
        f"device_no:s measured_month:s {_FLOW_SCHEMA} logged_share:f capacity_ah:f soh_pct:f soc_start:f soc_end:f "
        "gated_because:s bms_rows:i gps_rows:i"
    ),
    "truth_odometer_event": _schema(
        "device_no:s measured_month:s code:s variant:s started_at:t ended_at:t size_km:f from_km:f to_km:f"
    ),
    "truth_trip": _schema(
        "device_no:s started_at:t ended_at:t distance_km:f energy_out_kwh:f energy_regen_kwh:f soc_start:f soc_end:f "
        "logged_share:f"
    ),
    "truth_charging_session": _schema(
        "device_no:s connected_at:t started_at:t ended_at:t disconnected_at:t mode:s energy_kwh:f charge_ah:f "
        "soc_start:f soc_end:f power_max_kw:f temp_start_c:f lat:f lng:f logged_share:f"
    ),
    "truth_fault": _schema(
        "device_no:s code:s variant:s cell_no:i module_no:i strength:f size:f unit:s onset_at:t ended_at:t"
    ),
    "truth_row_fault": _schema("device_no:s measured_month:s table_name:s kind:s n:i"),
    "truth_file": _schema(
        "path:s member:s kind:s container:s devices:l months:l quirks:l data_rows:i broken_rows:i "
        "is_data:b is_broken:b delivered_at:t"
    ),
}
