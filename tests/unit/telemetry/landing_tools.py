"""Small deliveries built in code."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from baas_dagster.telemetry.delivery import FileReport, IntakeLimits, read_landing_file, sha256_of

DEVICE = "01290001001"
OTHER = "01290001002"

Row = Mapping[str, Any]


def bms_row(second: int = 0, **values: Any) -> dict[str, Any]:
    minute, second = divmod(second, 60)
    row = {
        "device_no": DEVICE,
        "time": f"23-01-05 10:{minute:02d}:{second:02d}",
        "msg_time": f"23-01-05 10:{minute:02d}:{second:02d}",
        "pack_volt": "7.8",
        "odometer": "1234.5",
        "main_relay_conn": "1",
        "cell_volt_list": "3.92,3.88",
        "mod_temp_list": "25,26",
    }
    return row | {k: str(v) for k, v in values.items()}


def psql(rows: Sequence[Row], *, bom: bool = True, footer: int | None = None) -> str:
    """A psql dump: padded, dashes below the header, a footer."""
    names = list(rows[0])
    width = {n: max(len(n), *(len(r[n]) for r in rows)) for n in names}
    lines = [
        "|".join(f" {n:<{width[n]}} " for n in names),
        "+".join("-" * (width[n] + 2) for n in names),
        *("|".join(f" {r[n]:<{width[n]}} " for n in names) for r in rows),
        f"({len(rows) if footer is None else footer} rows)",
        "",
    ]
    return ("\ufeff" if bom else "") + "\n".join(lines)


def comma(rows: Sequence[Row], *, end: str = "\r\n", delimiter: str = ",") -> str:
    def quoted(text: str) -> str:
        return f'"{text}"' if delimiter in text else text

    lines = [delimiter.join(rows[0]), *(delimiter.join(quoted(v) for v in r.values()) for r in rows)]
    return end.join(lines) + end


def zipped(members: Mapping[str, bytes | str] | Iterable[tuple[str, bytes | str]]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items() if isinstance(members, Mapping) else members:
            archive.writestr(zipfile.ZipInfo(name, (2023, 2, 5, 10, 10, 0)), data, zipfile.ZIP_DEFLATED)
    return out.getvalue()


class Intake:
    """Reads bytes as a landing file below a temporary folder."""

    def __init__(self, folder: Path) -> None:
        self.landing, self.lake = folder / "landing", folder / "lake"
        self.landing.mkdir()

    def read(self, name: str, data: bytes | str, limits: IntakeLimits | None = None, **options: Any) -> FileReport:
        path = self.landing / name
        path.write_bytes(data.encode() if isinstance(data, str) else data)
        months = {"earliest_month": "2015-01", "latest_month": "2023-06"}
        return read_landing_file(path, sha256_of(path), self.lake, limits or IntakeLimits(), **(months | options))

    def rows(self, report: FileReport) -> list[dict[str, Any]]:
        found = [
            row
            for member in report.members
            for one in member.slices
            for row in pq.ParquetFile(self.lake / one.path).read().to_pylist()
        ]
        return sorted(found, key=lambda r: (r["source_file"], r["source_row"]))

    def rejected(self, report: FileReport) -> list[dict[str, Any]]:
        path = self.lake / "rejected" / f"{report.sha256[:12]}.parquet"
        return pq.ParquetFile(path).read().to_pylist() if path.exists() else []

    def leftovers(self) -> list[Path]:
        return [p for p in self.lake.rglob("*") if p.name.startswith(".tmp-")]
