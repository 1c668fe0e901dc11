"""Pack and vehicle types of the simulated cars, and their open-circuit voltage.

Belongs here: what a type has in common (cells, capacity, resistance, mass, charging power, voltage curve).
Does not belong here: what differs from car to car (``vehicle``), what a delivery looks like (``deliveries``).

The voltage curves are the simulator's own: none of them is one of the outside curves an estimator may start from.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

__all__ = ["CURVES", "PACKS", "PACK_ORDER", "SOC_GRID", "PackType", "maker_table", "pack_with_cells", "type_curve"]

Floats = NDArray[np.float64]

SOC_GRID: Floats = np.linspace(0.0, 1.0, 501)
"""State of charge (share of 1) at which every curve is tabulated."""

_KNOTS = np.array([0.0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0])
CURVES: dict[str, Floats] = {
    # V per cell at _KNOTS, rest after charge and discharge averaged
    "NCM622": np.array(
        [3.05, 3.23, 3.372, 3.462, 3.522, 3.561, 3.617, 3.655, 3.702, 3.797, 3.902, 4.003, 4.092, 4.131, 4.178]
    ),
    "NCM811": np.array(
        [3.01, 3.17, 3.318, 3.421, 3.489, 3.534, 3.589, 3.644, 3.723, 3.811, 3.897, 3.986, 4.066, 4.103, 4.171]
    ),
    "LFP": np.array(
        [2.72, 3.02, 3.155, 3.207, 3.231, 3.252, 3.283, 3.291, 3.294, 3.298, 3.327, 3.331, 3.334, 3.341, 3.412]
    ),
}


@dataclass(frozen=True)
class PackType:
    """A pack and the car around it. Resistance is that of the whole pack's cells at 25 degC, new."""

    name: str
    car_types: tuple[str, ...]
    cell_count: int
    chemistry: str
    capacity_ah: float
    cell_resistance_mohm: float
    temp_sensors: int
    mass_kg: float
    drag_area_m2: float
    ac_kw: float
    dc_kw: float
    has_v2l: bool = False


PACKS: dict[str, PackType] = {
    pack.name: pack
    for pack in (
        PackType("truck_90", ("PORTER2", "BONGO3"), 90, "NCM622", 180.0, 0.62, 8, 2150, 1.75, 7.0, 72.0),
        PackType("niro_96", ("NIRO_EV",), 96, "NCM622", 180.0, 0.64, 10, 1870, 0.72, 7.0, 75.0),
        PackType("kona_98", ("KONA_EV",), 98, "NCM622", 180.5, 0.63, 10, 1820, 0.70, 7.0, 75.0),
        PackType("egmp_144", ("IONIQ5", "EV6"), 144, "NCM811", 111.2, 0.98, 12, 2010, 0.72, 10.5, 140.0, True),
        PackType("egmp_180", ("IONIQ5", "EV6"), 180, "NCM811", 111.2, 0.97, 16, 2100, 0.73, 10.5, 180.0, True),
        PackType("egmp_192", ("GV60", "IONIQ6"), 192, "NCM811", 111.2, 0.97, 16, 2190, 0.69, 10.5, 200.0, True),
        PackType("lfp_108", ("TORRES_EVX",), 108, "LFP", 200.0, 0.55, 9, 2000, 0.82, 7.0, 85.0, True),
    )
}
PACK_ORDER = ("egmp_180", "truck_90", "lfp_108", "egmp_192", "niro_96", "egmp_144", "kona_98")
"""Order in which the cars of a fleet take their pack types."""


def pack_with_cells(cell_count: int) -> PackType:
    """Pack type with that many cells; ValueError where there is none."""
    for pack in PACKS.values():
        if pack.cell_count == cell_count:
            return pack
    raise ValueError(f"no simulated pack has {cell_count} cells: {sorted(p.cell_count for p in PACKS.values())}")


@cache
def type_curve(chemistry: str) -> Floats:
    """Open-circuit voltage of a new cell of the type on ``SOC_GRID``, V (monotone cubic through the knots)."""
    return _monotone(_KNOTS, CURVES[chemistry])


@cache
def maker_table(chemistry: str) -> Floats:
    """What the type's BMS takes the curve to be, on ``SOC_GRID``, V: the type curve with the maker's 2 mV error."""
    return np.maximum.accumulate(type_curve(chemistry) + 0.002 * np.sin(7.3 * SOC_GRID + 0.6)) + 1e-7 * SOC_GRID


def _monotone(x: Floats, y: Floats) -> Floats:
    """Piecewise cubic through (x, y) on ``SOC_GRID`` that keeps monotone data monotone (Fritsch-Carlson 1980)."""
    width, rise = np.diff(x), np.diff(y)
    slope = rise / width
    tangent = np.empty_like(y)
    tangent[0], tangent[-1] = slope[0], slope[-1]
    left, right = 2 * width[1:] + width[:-1], width[1:] + 2 * width[:-1]
    tangent[1:-1] = (left + right) / (left / slope[:-1] + right / slope[1:])
    i = np.clip(np.searchsorted(x, SOC_GRID, side="right") - 1, 0, len(x) - 2)
    s = (SOC_GRID - x[i]) / width[i]
    return (
        y[i] * (1 + 2 * s) * (1 - s) ** 2
        + tangent[i] * width[i] * s * (1 - s) ** 2
        + y[i + 1] * s**2 * (3 - 2 * s)
        + tangent[i + 1] * width[i] * s**2 * (s - 1)
    )
