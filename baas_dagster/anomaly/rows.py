"""Staged BMS rows of one partition as NumPy columns, for detectors.

Belongs here: turning an Arrow table of the staging view into arrays, cells and module temperatures into matrices, what
is no value masked. Does not belong here: any rule of a detector.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

__all__ = ["NO_VALUE", "Car", "Rows"]

NO_VALUE = np.int16(-32_768)
"""In ``cell_mv`` and ``module_temp_dc``: no value (not delivered, a sentinel, a placeholder)."""

_PLACEHOLDER_MV = (0, 4000, 5100)  # values of placeholder blocks (DOMAIN 3); intake counts them per row
_TEMP_SENTINEL_DC = (-400, 2150, 4710)  # 0.1 degC, absent sensors (DOMAIN 3)

F64 = NDArray[np.float64]
I16 = NDArray[np.int16]


@dataclass(frozen=True)
class Car:
    """What a detector may know of the car: the device's decisions."""

    device_no: str
    chemistry: str | None = None
    pack_type: str | None = None
    cell_count: int | None = None
    temp_sensor_count: int | None = None
    temp_sensors: tuple[int, ...] | None = None  # 1-based positions of the sensors that exist; None: not known, all
    insulation_cap_kohm: float | None = None  # readings from here on are censored
    capacity_nominal_ah: float | None = None


@dataclass(frozen=True)
class Rows:
    """Rows of one partition, ascending in time. Numbers are float64 with NaN for "no value"; flags are 1, 0, NaN."""

    t_s: F64  # (n,) seconds since 1970 in naive KST
    columns: Mapping[str, F64]  # staged name -> (n,)
    cell_mv: I16 | None = None  # (n, cells) mV, NO_VALUE where there is none; None: no cells delivered
    module_temp_dc: I16 | None = None  # (n, sensors) 0.1 degC, NO_VALUE where there is none; None: none delivered

    def __len__(self) -> int:
        return len(self.t_s)

    def __getitem__(self, column: str) -> F64:
        """A column; all NaN where it was not asked for."""
        found = self.columns.get(column)
        return np.full(len(self), np.nan) if found is None else found

    @cached_property
    def day(self) -> NDArray[np.int64]:
        """(n,) KST day of each row, days since 1970."""
        return np.asarray(self.t_s // 86_400, dtype=np.int64)

    @cached_property
    def gap_s(self) -> F64:
        """(n,) seconds since the row before; infinite for the first."""
        return np.diff(self.t_s, prepend=-np.inf)

    @classmethod
    def of(cls, table: pa.Table, car: Car) -> Rows:
        """From the staging view: ``recorded_at`` and any columns, lists ``cell_mv`` and ``module_temp_dc`` included."""
        time = table.column("recorded_at").cast(pa.timestamp("us")).to_numpy().astype("datetime64[us]").astype(np.int64)
        order = None if bool(np.all(np.diff(time) >= 0)) else np.argsort(time, kind="stable")
        if order is not None:
            table, time = table.take(pa.array(order)), time[order]
        columns: dict[str, F64] = {}
        for name in table.column_names:
            column = table.column(name)
            if (
                pa.types.is_floating(column.type)
                or pa.types.is_integer(column.type)
                or pa.types.is_boolean(column.type)
            ):
                columns[name] = _numbers(column)
        cells = _matrix(table, "cell_mv", car.cell_count)
        if cells is not None and "cell_placeholder_n" in columns:
            held = np.flatnonzero(columns["cell_placeholder_n"] > 0)
            if len(held):
                part = cells[held]
                part[np.isin(part, _PLACEHOLDER_MV)] = NO_VALUE
                cells[held] = part
        temps = _matrix(table, "module_temp_dc", None)
        if temps is not None:
            temps[np.isin(temps, _TEMP_SENTINEL_DC)] = NO_VALUE
            if car.temp_sensors is not None:
                keep = [i - 1 for i in car.temp_sensors if i <= temps.shape[1]]
                absent = np.setdiff1d(np.arange(temps.shape[1]), keep)
                temps[:, absent] = NO_VALUE
        return cls(time / 1e6, columns, cells, temps)


def _numbers(column: Any) -> F64:
    flat = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    return np.asarray(flat.cast(pa.float64()).fill_null(np.nan).to_numpy(zero_copy_only=False), dtype=np.float64)


def _matrix(table: pa.Table, name: str, width: int | None) -> I16 | None:
    """Lists as (rows, width). A list of another length than the decided one is a broken message: no value."""
    if name not in table.column_names:
        return None
    lists = table.column(name).combine_chunks()
    if isinstance(lists, pa.ChunkedArray):
        lists = lists.chunk(0) if lists.num_chunks else pa.array([], lists.type)
    lengths = np.asarray(lists.value_lengths().fill_null(0)).astype(np.int64)
    if not lengths.any():
        return None
    wide = int(width) if width else int(np.bincount(lengths[lengths > 0]).argmax())
    flat = np.asarray(lists.flatten().cast(pa.int16()).fill_null(int(NO_VALUE)), dtype=np.int16)
    if bool((lengths == wide).all()):
        return flat.reshape(-1, wide).copy()
    out = np.full((len(lengths), wide), NO_VALUE, np.int16)
    starts = np.concatenate(([0], np.cumsum(lengths)[:-1]))
    good = np.flatnonzero(lengths == wide)
    out[good] = flat[starts[good, None] + np.arange(wide)]
    return out
