"""Small deliveries built in code: psql dumps of a car that drives and rests, as files or ZIPs."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

__all__ = ["bms_rows", "gps_rows", "psql", "put_zip"]

Row = dict[str, object]


def bms_rows(
    device: str,
    start: datetime,
    n: int = 60,
    dt_s: int = 60,
    odometer_km: float = 1000.0,
    speed_kmh: float = 36.0,
    cells: int = 90,
) -> list[Row]:
    """A drive at constant speed: the odometer counts, current follows the road, voltage follows the current."""
    rows: list[Row] = []
    for i in range(n):
        current = (40.0, -20.0, 60.0, 10.0)[i % 4]
        cell = 3.80 - 0.001 * current / 10
        at = start + timedelta(seconds=i * dt_s)
        rows.append(
            {
                "device_no": device,
                "measured_month": at.strftime("%Y-%m"),
                "time": at.strftime("%Y-%m-%d %H:%M:%S"),
                "msg_time": at.strftime("%Y-%m-%d %H:%M:%S"),
                "seq": i + 1,
                "odometer": f"{odometer_km + i * dt_s * speed_kmh / 3600:.1f}",
                "emobility_spd": speed_kmh,
                "pack_current": current,  # discharge positive, as most exports have it
                "pack_volt": f"{cell * cells:.1f}",
                "soc": f"{90 - i * 0.1:.1f}",
                "cell_volt_list": ",".join([f"{cell:.2f}"] * cells),
                "mod_temp_list": "21,22,21",
                "main_relay_conn": "t",
            }
        )
    return rows


def gps_rows(
    device: str, start: datetime, n: int = 60, dt_s: int = 60, speed_kmh: float = 36.0, from_km: float = 0.0
) -> list[Row]:
    """Fixes on a straight road to the east, `from_km` along it."""
    step_deg = speed_kmh * dt_s / 3600 / 111.32 / 0.8
    return [
        {
            "device_no": device,
            "time": (start + timedelta(seconds=i * dt_s)).strftime("%Y-%m-%d %H:%M:%S"),
            "lat": "36.869898",
            "lng": f"{127.0 + from_km / 111.32 / 0.8 + i * step_deg:.6f}",
            "speed": speed_kmh,
            "fuel_pct": 80,
            "hdop": 1.0,
        }
        for i in range(n)
    ]


def psql(rows: Sequence[Row]) -> bytes:
    """The rows as psql prints them: byte-order mark, padded header, dashes, footer."""
    names = list(rows[0])
    lines = ["\ufeff " + " | ".join(names), "-+-".join("-" * len(n) for n in names)]
    lines += [" " + " | ".join(str(row[n]) for n in names) + " " for row in rows]
    return ("\n".join([*lines, f"({len(rows)} rows)", ""])).encode()


def put_zip(path: Path, member: str, content: bytes, delivered: datetime = datetime(2023, 3, 1, 12)) -> Path:
    """Write a ZIP of one member with a fixed time stamp."""
    path.parent.mkdir(parents=True, exist_ok=True)
    info = zipfile.ZipInfo(member, delivered.timetuple()[:6])
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(info, content)
    return path
