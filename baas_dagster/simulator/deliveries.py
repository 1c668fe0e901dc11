"""The delivery layout: what arrives in the landing folder, with all that is wrong with it.

Belongs here: row faults, files, containers, names, re-deliveries, broken files, and the truth about each file. Does not
belong here: what the cars did (``life``), how text is written (``table``), what an export looks like (``layouts``).

Packages of a car's month (``_PACKAGES``) and row faults (``_FAULTS``) go round by car and month, so that every one of
them occurs in a fleet of five BMS cars and three months.
"""

from __future__ import annotations

import gzip
import io
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from baas_dagster.simulator.fleet import DELIVERY_STREAM, FleetSpec, draw_car, stream
from baas_dagster.simulator.layouts import FLEET_LAYOUT, layout_of
from baas_dagster.simulator.life import CarLife, CarMonth
from baas_dagster.simulator.packs import PACKS
from baas_dagster.simulator.schedule import DAY_S, month_bounds
from baas_dagster.simulator.table import (
    Choice,
    Layout,
    Lists,
    Number,
    Table,
    TextFaults,
    concat,
    moment_texts,
    render,
    to_frame,
)
from baas_dagster.simulator.truth import Truth, moment
from baas_dagster.simulator.vehicle import Car, Ints

__all__ = ["Deliveries", "gates_of", "in_master"]

_LEVEL = 3
"""zlib level: the text is so repetitive that more costs time and saves little."""

_PACKAGES = ("plain", "zip_in_zip", "overlap", "corrected", "copy", "wrong_month_name", "late", "plain")
_FAULTS = ("duplicates", "bad_fields", "column_count", "placeholders", "soc_zero", "mixed")


@dataclass(frozen=True)
class Dump:
    """A data file before it is packed. ``rows`` counts physical data rows, bad ones included."""

    name: str
    data: bytes
    kind: str
    devices: tuple[str, ...]
    months: tuple[str, ...]
    rows: int
    quirks: tuple[str, ...]
    broken_rows: int = 0

    def marked(self, *quirks: str) -> Dump:
        """The same with further quirks."""
        return replace(self, quirks=(*self.quirks, *quirks))


@dataclass
class _Shared:
    """Months of several cars that are delivered together, waiting for the others."""

    bms: list[Table] = field(default_factory=list)
    gps: list[Table] = field(default_factory=list)
    inner: list[tuple[Dump, int, bytes]] = field(default_factory=list)


def gates_of(spec: FleetSpec) -> dict[tuple[int, int], str]:
    """(index of the car, index of the month) -> gate, for the fleet's gated device-months: its last cars, mid-way."""
    return {(spec.devices - 1 - i, spec.months // 2): gate for i, gate in enumerate(spec.gated)}


@dataclass
class Deliveries:
    """Writes a fleet's landing folder month by month."""

    out: Path
    spec: FleetSpec
    seed: int
    truth: Truth
    files: int = 0
    size_bytes: int = 0
    _shared: _Shared = field(default_factory=_Shared)
    _specimen: Dump | None = None

    # -- a car's month ---------------------------------------------------------------------------------------------

    def deliver(self, car_month: CarMonth) -> None:
        """Write what a car logged in a month."""
        layout = layout_of(self.spec, car_month.car.index, car_month.month_index)
        shares_bms, shares_gps = self._shares(car_month)
        for kind, table, shares in (("bms", car_month.bms, shares_bms), ("gps", car_month.gps, shares_gps)):
            if table is None:
                continue
            if not self.spec.quirks:
                self._zip(self._path(car_month, kind, layout), [self._dump(car_month, kind, table, layout)], car_month)
                continue
            dressed = _dress(table, FLEET_LAYOUT if shares else _for_kind(layout, kind), kind)
            if shares:
                (self._shared.bms if kind == "bms" else self._shared.gps).append(dressed)
            else:
                self._package(car_month, kind, dressed, _for_kind(layout, kind))
        used = FLEET_LAYOUT if shares_bms else layout
        self.truth.add(
            "truth_layout",
            {
                "device_no": car_month.car.device_no,
                "measured_month": car_month.month,
                "layout": used.name,
                "form": used.form,
                "delivered_current_sign": used.current_sign,
                "delivered_voltage_scale": used.voltage_scale,
            },
        )

    def _shares(self, car_month: CarMonth) -> tuple[bool, bool]:
        """Whether BMS and GPS rows of this month travel in a file of several cars."""
        spec, index = self.spec, car_month.car.index
        if not spec.quirks or car_month.month_index != spec.months - 1:
            return False, False
        return spec.devices >= 6 and index in (1, 4), index in (0, 1)

    def close_month(self, month: str, month_index: int) -> None:
        """Write the files that hold several cars of the month."""
        at = self._delivered_at(month_index) + 3 * 3600
        for kind, tables in (("bms", self._shared.bms), ("gps", self._shared.gps)):
            if not tables:
                continue
            table = concat(tables)
            table = table.take(np.argsort(table.seconds(), kind="stable"))
            devices = tuple(_devices(table))
            data = b"".join(render(table, FLEET_LAYOUT))
            dump = Dump(
                f"{kind}_fleet_{month}.csv",
                data,
                kind,
                devices,
                (month,),
                len(table),
                ("several_devices", *_layout_quirks(FLEET_LAYOUT, TextFaults(), kind)),
            )
            self._write(
                f"{month}/{kind}_fleet_{month}.zip", _zip([(dump.name, dump.data, at)]), [(dump.name, dump)], at, "zip"
            )
        if self._shared.inner:
            self._zip_in_zip(month, at)
        self._shared = _Shared()

    def finish(self, cars: Iterable[Car], last_month: str) -> None:
        """Write what belongs to no month: the vehicle master and, where asked for, files that cannot be read."""
        known = [car for car in cars if in_master(car)]
        if self.spec.quirks and known:
            text = "device_no,car_type\n" + "".join(f"{car.device_no},{car.car_type}\n" for car in known)
            dump = Dump(
                "vehicle_master.csv", text.encode(), "master", tuple(c.device_no for c in known), (), len(known), ()
            )
            self._write("vehicle_master.csv", dump.data, [("", dump)], self._delivered_at(0), "bare")
        if self.spec.broken_files and self._specimen:
            self._broken(self._specimen, last_month)

    # -- rows ------------------------------------------------------------------------------------------------------

    def _package(self, car_month: CarMonth, kind: str, table: Table, layout: Layout) -> None:
        """Row faults into ``table``, then files in the package that is this car's and month's turn."""
        car, index = car_month.car, car_month.month_index
        rng = stream(self.seed, DELIVERY_STREAM, car.index, index, int(kind == "gps"))
        gate = gates_of(self.spec).get((car.index, index)) if kind == "bms" else None
        package = _PACKAGES[(2 * car.index + index) % len(_PACKAGES)] if kind == "bms" and not gate else "plain"
        touched = car_month.bms_touched if kind == "bms" else car_month.gps_touched
        if gate == "interleaved":
            table = self._interleaved(car_month, table, layout)
            touched = np.zeros(len(table), dtype=bool)
        marker = _Faults(car_month, kind, table, layout, rng, touched, gate)
        table, faults, quirks, counts = marker.apply()
        if kind == "gps" and car_month.teleport_fixes:
            counts["gps_teleport"] = car_month.teleport_fixes
        self.truth.extend(
            "truth_row_fault",
            (
                {
                    "device_no": car.device_no,
                    "measured_month": car_month.month,
                    "table_name": kind,
                    "kind": fault,
                    "n": n,
                }
                for fault, n in counts.items()
                if n
            ),
        )
        if package in ("overlap", "corrected"):
            getattr(self, f"_{package}")(car_month, kind, table, layout, faults, quirks, rng)
            return
        name_month = _other_year(car_month.month) if package == "wrong_month_name" else car_month.month
        dump = self._dump(car_month, kind, table, layout, faults, name_month=name_month).marked(*quirks)
        path = self._path(car_month, kind, layout, name_month)
        if package == "zip_in_zip":
            at = self._delivered_at(index, car)
            self._shared.inner.append((dump.marked("zip_in_zip"), at, _zip([(dump.name, dump.data, at)])))
        elif package == "copy":
            self._zip(path, [dump], car_month)
            stem, dot, suffix = path.rpartition("/")[2].partition(".")
            self._zip(
                f"{car_month.month}/again/{stem}_copy{dot}{suffix}", [dump.marked("byte_identical_copy")], car_month
            )
        elif package == "wrong_month_name":
            self._zip(path, [dump.marked("wrong_month_name")], car_month)
        elif package == "late":
            late = self._delivered_at(index + 2, car)
            self._zip(f"late/{path.rpartition('/')[2]}", [dump.marked("late")], car_month, late)
        else:
            self._zip(path, [dump], car_month)

    def _overlap(
        self,
        car_month: CarMonth,
        kind: str,
        table: Table,
        layout: Layout,
        faults: TextFaults,
        quirks: tuple[str, ...],
        rng: np.random.Generator,
    ) -> None:
        """The month in two files that share a part of their rows."""
        n = len(table)
        for part, rows in ((1, slice(0, int(n * 0.6))), (2, slice(int(n * 0.52), n))):
            chosen = np.arange(n)[rows]
            dump = self._dump(
                car_month,
                kind,
                table.take(chosen),
                layout,
                _faults_of(faults, rows.start, rows.stop),
                suffix=f"_part{part}",
            )
            path = self._path(car_month, kind, layout, suffix=f"_part{part}")
            self._zip(path, [dump.marked("overlapping", *quirks)], car_month)

    def _corrected(
        self,
        car_month: CarMonth,
        kind: str,
        table: Table,
        layout: Layout,
        faults: TextFaults,
        quirks: tuple[str, ...],
        rng: np.random.Generator,
    ) -> None:
        """First a file wrong in some rows and without the last ones, weeks later the right one under the same name."""
        n = len(table)
        wrong = rng.choice(n, size=max(1, n // 20), replace=False)
        first = table.take(np.arange(int(n * 0.97)))
        wrong = wrong[wrong < len(first)]
        voltage, charge = first.number("pack_volt"), first.number("soc")
        voltage[wrong] -= 70
        charge[wrong] = np.minimum(charge[wrong] + 95, 1000)
        first = first.with_column("pack_volt", replace(_as_number(first, "pack_volt"), values=voltage))
        first = first.with_column("soc", replace(_as_number(first, "soc"), values=charge))
        early = self._dump(car_month, kind, first, layout, _faults_of(faults, 0, len(first)))
        final = self._dump(car_month, kind, table, layout, faults)
        # always in a ZIP: its time stamp is what says which one came later
        path = f"{car_month.month}/{self._name(car_month, kind, layout, None, '')}.zip"
        at = self._delivered_at(car_month.month_index, car_month.car)
        self._zip(path, [early.marked("superseded", *quirks)], car_month, at)
        self._zip(
            f"corrections/{path.rpartition('/')[2]}", [final.marked("corrected", *quirks)], car_month, at + 20 * DAY_S
        )

    def _interleaved(self, car_month: CarMonth, table: Table, layout: Layout) -> Table:
        """The rows of another car under this car's number, sorted in between."""
        packs = [pack for pack in PACKS.values() if pack.cell_count != car_month.car.pack.cell_count]
        other = draw_car(self.spec, self.seed, 1_000 + car_month.car.index, packs[0])
        other = replace(other, device_no=car_month.car.device_no, has_bms=True, has_gps=False, has_odometer=True)
        life = CarLife(other, replace(self.spec, first_month=car_month.month, months=2), self.seed, {}, Truth())
        stranger = life.live(0).bms
        if stranger is None:
            return table
        stranger = _dress(stranger, layout, "bms")
        own = table.columns["odometer"]
        assert isinstance(own, Number)
        theirs = _as_number(stranger, "odometer")
        scaled = theirs.values // 10 if own.decimals < theirs.decimals else theirs.values
        both = concat([table, stranger.with_column("odometer", Number(scaled, min(own.decimals, theirs.decimals)))])
        return both.take(np.argsort(both.seconds(), kind="stable"))

    # -- files -----------------------------------------------------------------------------------------------------

    def _delivered_at(self, month_index: int, car: Car | None = None) -> int:
        """When a month is delivered: on the third of the next month, cars one after the other."""
        first = np.datetime64(self.spec.first_month, "M") + np.timedelta64(month_index + 1, "M")
        return month_bounds(str(first))[0] + 2 * DAY_S + 4 * 3600 + (120 * car.index if car else 0)

    def _name(self, car_month: CarMonth, kind: str, layout: Layout, name_month: str | None, suffix: str) -> str:
        month = name_month or car_month.month
        if layout.month_in_name == "short":
            return f"{car_month.car.device_no}_{kind}_{month[2:4]}{month[5:]}_{suffix.lstrip('_') or 'all'}"
        return f"{kind}_{car_month.car.device_no}_{month}{suffix}"

    def _path(
        self, car_month: CarMonth, kind: str, layout: Layout, name_month: str | None = None, suffix: str = ""
    ) -> str:
        """Landing path of the file, relative."""
        ending = {"psql": "zip", "csv": "zip", "csv_gz": "csv.gz", "parquet": "parquet"}[layout.form]
        return f"{car_month.month}/{self._name(car_month, kind, layout, name_month, suffix)}.{ending}"

    def _dump(
        self,
        car_month: CarMonth,
        kind: str,
        table: Table,
        layout: Layout,
        faults: TextFaults | None = None,
        name_month: str | None = None,
        suffix: str = "",
    ) -> Dump:
        """The data file of a table in a layout."""
        n, quirks = len(table), []
        faults = faults or TextFaults()
        if layout.newest_first:
            table, faults = table.take(np.arange(n)[::-1]), faults.reversed(n)
            quirks.append("newest_first")
        if layout.form == "parquet":
            sink = io.BytesIO()
            to_frame(table, layout).write_parquet(sink, compression="snappy")
            data = sink.getvalue()
        else:
            data = b"".join(render(table, layout, faults))
        if layout.form == "csv_gz":
            data = _gzip(data)
        quirks += _layout_quirks(layout, faults, kind)
        ending = {"psql": "csv", "csv": "csv", "csv_gz": "csv.gz", "parquet": "parquet"}[layout.form]
        name = f"{self._name(car_month, kind, layout, name_month, suffix)}.{ending}"
        if self.spec.broken_files and self._specimen is None and layout.form == "psql":
            lines = data.split(b"\n", 202)
            rows = len(lines[2:-1])
            self._specimen = Dump(
                name, b"\n".join(lines[:-1]) + b"\n", kind, (car_month.car.device_no,), (car_month.month,), rows, ()
            )
        return Dump(
            name, data, kind, (car_month.car.device_no,), (car_month.month,), n, tuple(quirks), len(faults.rows())
        )

    def _zip(self, path: str, dumps: list[Dump], car_month: CarMonth, at: int | None = None) -> None:
        """Write the dumps of a month: in a ZIP, or bare where the form has its own compression."""
        at = self._delivered_at(car_month.month_index, car_month.car) if at is None else at
        if path.endswith(".zip"):
            members = [(dump.name, dump.data, at) for dump in dumps]
            self._write(path, _zip(members), [(dump.name, dump) for dump in dumps], at, "zip")
        else:
            self._write(path, dumps[0].data, [("", dumps[0])], at, "bare")

    def _zip_in_zip(self, month: str, at: int) -> None:
        """One ZIP with the cars' ZIPs inside, and what such archives bring along."""
        junk = [
            ("__MACOSX/._bms_export.csv", b"\x00\x05\x16\x07Mac OS X"),
            (f"export_log_{month}.csv", b"time,message\n2023-01-01 00:00:00,done\n"),
            (f"bms_empty_{month}.csv", b""),
        ]
        members = [(f"{dump.name.split('.')[0]}.zip", data, at_inner) for dump, at_inner, data in self._shared.inner]
        members += [(name, data, at) for name, data in junk]
        found = [(f"{dump.name.split('.')[0]}.zip/{dump.name}", dump) for dump, _, _ in self._shared.inner]
        nothing = [(name, Dump(name, data, "junk", (), (), 0, ("junk",))) for name, data in junk]
        self._write(f"{month}/delivery_{month}.zip", _zip(members), found + nothing, at, "zip_in_zip")

    def _write(
        self, path: str, data: bytes, members: list[tuple[str, Dump]], at: int, container: str, broken: bool = False
    ) -> None:
        """Write a landing file, and the truth about what it holds."""
        target = self.out / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
        self.files += 1
        self.size_bytes += len(data)
        for member, dump in members:
            self.truth.add(
                "truth_file",
                {
                    "path": path,
                    "member": member,
                    "kind": dump.kind,
                    "container": container,
                    "devices": list(dump.devices),
                    "months": list(dump.months),
                    "quirks": sorted(set(dump.quirks)),
                    "data_rows": dump.rows,
                    "broken_rows": dump.broken_rows,
                    "is_data": dump.kind in ("bms", "gps", "master"),
                    "is_broken": broken,
                    "delivered_at": moment(at),
                },
            )

    def _broken(self, specimen: Dump, month: str) -> None:
        """Files that cannot be read, or only in part. Their rows are copies of rows delivered elsewhere."""
        at = self._delivered_at(self.spec.months - 1) + DAY_S
        good = _zip([(specimen.name, specimen.data, at)])
        stored = bytearray(_zip([(specimen.name, specimen.data, at)], stored=True))
        stored[len(specimen.name) + 30 + len(specimen.data) // 2] ^= 0x01
        nested = good
        for depth in range(4):
            nested = _zip([(f"level_{4 - depth}.zip", nested, at)])
        cases = {
            "truncated": good[: len(good) * 3 // 5],
            "not_a_zip": b"<html><body>504 Gateway Time-out</body></html>\n",
            "bad_crc": bytes(stored),
            "encrypted": _with_encrypted_flag(good),
            "escaping_name": _zip([(f"../../outside/{specimen.name}", specimen.data, at)]),
            "nested_too_deep": nested,
        }
        for case, data in cases.items():
            dump = replace(specimen, quirks=(case,))
            self._write(f"{month}/bms_{case}_{month}.zip", data, [(specimen.name, dump)], at, "zip", broken=True)


@dataclass
class _Faults:
    """Puts the row faults of a car's month into its table."""

    car_month: CarMonth
    kind: str
    table: Table
    layout: Layout
    rng: np.random.Generator
    touched: NDArray[np.bool_]
    gate: str | None

    def apply(self) -> tuple[Table, TextFaults, tuple[str, ...], dict[str, int]]:
        """The table with faults, its text faults, the quirks that came of it, and rows per fault."""
        self.faults = TextFaults()
        self.counts: dict[str, int] = {}
        self.quirks: list[str] = []
        self.free = ~self.touched
        self.free[[0, -1]] = False
        index = self.car_month.car.index + self.car_month.month_index
        turn = _FAULTS[index % len(_FAULTS)]
        is_text = self.layout.form != "parquet"
        if self.kind == "gps":
            if turn == "soc_zero":
                self._gps_zero()
            elif is_text and turn == "bad_fields":
                self._bad_dates(4)
            return self._done()
        if turn in ("placeholders", "mixed"):
            self._placeholders()
        if turn in ("soc_zero", "mixed"):
            self._soc_zero()
        if self.gate == "conflicting":
            self._conflicting(int(len(self.table) * 0.32))
        elif turn in ("duplicates", "mixed"):
            self._duplicates()
        if is_text:
            few = max(3, len(self.table) // 4_000)
            if self.gate == "rejected":
                self._bad_dates(int(len(self.table) * 0.08))
            elif turn in ("bad_fields", "mixed"):
                self._bad_dates(few)
                self._bad_numbers(few)
            if turn in ("column_count", "mixed"):
                self._column_counts(few)
            if self.layout.form == "psql" and index % 2 == 0:
                self.faults.header_again_at = (len(self.table) // 3, len(self.table) * 2 // 3)
        return self._done()

    def _done(self) -> tuple[Table, TextFaults, tuple[str, ...], dict[str, int]]:
        return self.table, self.faults, tuple(self.quirks), self.counts

    def _rows(self, count: int) -> Ints:
        """Rows no event and no other fault has touched; they are taken."""
        rows = np.sort(self.rng.choice(np.flatnonzero(self.free), size=count, replace=False))
        self.free[rows] = False
        return rows

    def _note(self, fault: str, count: int) -> None:
        self.counts[fault] = self.counts.get(fault, 0) + int(count)
        self.quirks.append(fault)

    def _bad_dates(self, count: int) -> None:
        rows = self._rows(count)
        texts = moment_texts(self.table.seconds()[rows], self.layout)
        cut = 0 if self.layout.long_dates else 2
        broken = [
            "2023-02-30"[cut:] + text[-9:] if i % 2 else text[:-8] + "25" + text[-6:] for i, text in enumerate(texts)
        ]
        self.faults.texts.setdefault("time", {}).update(zip(rows.tolist(), broken, strict=True))
        self._note("impossible_date", count)

    def _bad_numbers(self, count: int) -> None:
        rows = self._rows(count)
        texts = ["3#7.1", "N/A", "--", "1.2.3"]
        for i, row in enumerate(rows.tolist()):
            column = ("pack_volt", "pack_current", "soc")[i % 3]
            self.faults.texts.setdefault(column, {})[row] = texts[i % len(texts)]
        self._note("bad_number", count)

    def _column_counts(self, count: int) -> None:
        rows = self._rows(2 * count).tolist()
        self.faults.short_rows += rows[::2]
        self.faults.long_rows += rows[1::2]
        self._note("column_count", len(rows))

    def _duplicates(self) -> None:
        """Some rows twice, unchanged, right after themselves."""
        rows = self._rows(max(5, len(self.table) // 400))
        self._repeat(rows)
        self._note("duplicate_row", len(rows))

    def _conflicting(self, count: int) -> None:
        """Some rows twice, the second time with other content."""
        rows = self._rows(count)
        n = len(self.table)
        self._repeat(rows)
        again = rows + np.arange(1, len(rows) + 1)
        assert len(self.table) == n + count
        for name, change in (("pack_volt", -35), ("odometer", 40)):
            values = self.table.number(name)
            values[again] += change
            self.table = self.table.with_column(name, replace(_as_number(self.table, name), values=values))
        self._note("conflicting_duplicate", len(rows))

    def _repeat(self, rows: Ints) -> None:
        order = np.sort(np.concatenate([np.arange(len(self.table)), rows]), kind="stable")
        self.table, self.free = self.table.take(order), self.free[order]

    def _soc_zero(self) -> None:
        """SoC 0 in the first row of many wakings."""
        if len(self.car_month.starts) != len(self.table):
            return
        rows = np.flatnonzero(self.car_month.starts & self.free)
        rows = rows[self.rng.uniform(size=len(rows)) < 0.35]
        for name in ("soc", "socd"):
            values = self.table.number(name)
            values[rows] = 0
            self.table = self.table.with_column(name, replace(_as_number(self.table, name), values=values))
        self._note("soc_zero", len(rows))

    def _placeholders(self) -> None:
        """Blocks of 32 cells at 5.10, 0.00 or 4.00 V, and cells at exactly 66.535 V."""
        cells = self.table.columns["cell_volt_list"]
        assert isinstance(cells, Lists)
        values = cells.values.copy()
        blocks = cells.values.shape[1] // 32
        for i, start in enumerate(self._rows(6).tolist()):
            block = i % max(blocks, 1)
            rows = slice(start, min(start + 4, len(values)))
            values[rows, 32 * block : 32 * block + 32] = (5100, 0, 4000)[i % 3]
            self._note("cell_placeholder", rows.stop - rows.start)
        for start in self._rows(3).tolist():
            rows = slice(start, min(start + 5, len(values)))
            values[rows, 4::4] = 66_535
            self._note("cell_sentinel", rows.stop - rows.start)
        self.table = self.table.with_column("cell_volt_list", replace(cells, values=values))

    def _gps_zero(self) -> None:
        rows = self._rows(min(12, int(self.free.sum()) // 4))
        for name in ("lat", "lng"):
            values = self.table.number(name)
            values[rows] = 0
            self.table = self.table.with_column(name, replace(_as_number(self.table, name), values=values))
        self._note("gps_zero", len(rows))


def _as_number(table: Table, name: str) -> Number:
    column = table.columns[name]
    assert isinstance(column, Number)
    return column


def _devices(table: Table) -> tuple[str, ...]:
    column = table.columns["device_no"]
    assert isinstance(column, Choice)
    return column.labels


def _for_kind(layout: Layout, kind: str) -> Layout:
    """GPS of the numbered CSV export comes as CSV.gz."""
    return replace(layout, form="csv_gz") if kind == "gps" and layout.numbered else layout


def _dress(table: Table, layout: Layout, kind: str) -> Table:
    """The table as the export writes its values: sign, scale, Korean texts."""
    if kind == "gps":
        return table
    current = _as_number(table, "pack_current")
    table = table.with_column("pack_current", replace(current, values=current.values * layout.current_sign))
    if layout.voltage_scale != 1.0:
        table = table.with_column("pack_volt", Number(_as_number(table, "pack_volt").values, 0))
    if layout.korean:
        hvac = table.columns["hvac_list1"]
        assert isinstance(hvac, Choice)
        table = table.with_column("hvac_list1", Choice(hvac.codes, ("꺼짐", "난방")))
    return table


def _layout_quirks(layout: Layout, faults: TextFaults, kind: str) -> list[str]:
    found = {
        "psql": layout.form == "psql",
        "csv": layout.form == "csv",
        "csv_gz": layout.form == "csv_gz",
        "parquet": layout.form == "parquet",
        "bom": layout.bom,
        "footer": layout.form == "psql",
        "repeated_header": bool(faults.header_again_at),
        "cp949": layout.encoding == "cp949",
        "aliases": bool(layout.names),
        "numbered_columns": layout.numbered and kind == "bms",
        "list_columns": not layout.numbered and kind == "bms",
        "long_dates": layout.long_dates,
        "short_dates": not layout.long_dates,
        "padded_dates": layout.padded_dates,
        "voltage_in_tenths": layout.voltage_scale != 1.0 and kind == "bms",
        "discharge_positive": layout.current_sign < 0 and kind == "bms",
        "charge_positive": layout.current_sign > 0 and kind == "bms",
    }
    return [name for name, is_so in found.items() if is_so]


def _faults_of(faults: TextFaults, begin: int, end: int) -> TextFaults:
    """The faults of rows ``begin`` to ``end``, renumbered."""
    return TextFaults(
        {
            name: {row - begin: text for row, text in found.items() if begin <= row < end}
            for name, found in faults.texts.items()
        },
        [row - begin for row in faults.short_rows if begin <= row < end],
        [row - begin for row in faults.long_rows if begin <= row < end],
        tuple(row - begin for row in faults.header_again_at if begin < row < end),
    )


def in_master(car: Car) -> bool:
    """Whether the delivered vehicle master knows the car."""
    return car.index % 3 != 1


def _other_year(month: str) -> str:
    """The month as a slip of the pen names it: a year early, so no other file has that name."""
    return f"{int(month[:4]) - 1}{month[4:]}"


def _gzip(data: bytes) -> bytes:
    sink = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", compresslevel=_LEVEL, fileobj=sink, mtime=0) as packed:
        packed.write(data)
    return sink.getvalue()


def _zip(members: list[tuple[str, bytes, int]], stored: bool = False) -> bytes:
    """A ZIP of (name, content, time stamp in seconds); ZIPs inside are stored. The same input gives the same bytes."""
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        for name, data, at in members:
            stamp = np.datetime64(at, "s").item()
            info = zipfile.ZipInfo(name, stamp.timetuple()[:6])
            info.create_system = 3
            info.external_attr = 0o644 << 16
            packing = zipfile.ZIP_STORED if stored or name.endswith(".zip") else zipfile.ZIP_DEFLATED
            archive.writestr(info, data, packing, _LEVEL)
    return sink.getvalue()


def _with_encrypted_flag(data: bytes) -> bytes:
    """The ZIP with its first member marked as encrypted in both headers."""
    marked = bytearray(data)
    marked[6] |= 0x01
    central = marked.rindex(b"PK\x01\x02")
    marked[central + 8] |= 0x01
    return bytes(marked)
