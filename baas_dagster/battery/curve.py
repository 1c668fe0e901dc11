"""A curve of open-circuit voltage with its errors, and the state of charge read from it.

Belongs here: the shape of a curve, where it is flat, SoC from a rest voltage, how its error at two SoCs goes together.
Does not belong here: where a curve comes from (``ocv``).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import polars as pl
from numpy.typing import NDArray

from baas_dagster.battery.rules import RULES, BatteryRules

__all__ = ["SOC_PCT", "Curve", "RestSoc", "correlation", "soc_from_rest"]

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

SOC_PCT: Floats = np.arange(101.0)
"""Grid of every curve, %. A 10 % grid would add up to 44 mV of error (data/ocv)."""


def correlation(from_pct: Floats, to_pct: Floats, length_pct: float) -> Floats:
    """Correlation of a curve's error between SoCs (n,) and (m,), (n, m): Matern 3/2, errors are smooth."""
    distance = np.sqrt(3) * np.abs(from_pct[:, None] - to_pct[None, :]) / length_pct
    return np.asarray((1 + distance) * np.exp(-distance))


@dataclass(frozen=True, eq=False)
class Curve:
    """Voltage of the mean cell at rest against SoC, between charge and discharge, with what is not known about it.

    ``ocv_v``: V on ``SOC_PCT``, strictly rising. ``sd_soc_pct``: how far the SoC of **one car** read from it is off,
    points, at each SoC: the error of the curve and the spread between cars. It is systematic: it stays when many rests
    are averaged. ``hysteresis_v``: half the gap between rests after charge and after discharge, ``hysteresis_sd_v``:
    how far one car's may be off it. ``correlation_pct``: points of SoC over which the error of a car's curve stays
    alike.
    """

    chemistry: str
    pack_type: str
    ocv_v: Floats
    sd_soc_pct: Floats
    hysteresis_v: float
    hysteresis_sd_v: float
    correlation_pct: float
    origin: str = "outside"  # or "fleet"
    quality: Mapping[str, float] = field(default_factory=dict)
    rules: BatteryRules = RULES

    @cached_property
    def slope_mv_per_pct(self) -> Floats:
        """Slope over the points around each SoC, mV per point."""
        window = self.rules.flat_window_pct
        low = np.clip(SOC_PCT - window, 0, 100).astype(np.int64)
        high = np.clip(SOC_PCT + window, 0, 100).astype(np.int64)
        return np.asarray(1000 * (self.ocv_v[high] - self.ocv_v[low]) / (high - low))

    @cached_property
    def is_flat(self) -> Flags:
        """Where SoC from a rest voltage is not identifiable. What lies between two flat stretches is flat as well.

        A steeper step in a plateau does not help: voltages there differ by no more than a curve's error.
        """
        flat = self.slope_mv_per_pct < self.rules.flat_mv_per_pct
        where = np.flatnonzero(flat)
        if len(where):
            flat = flat.copy()
            flat[where[0] : where[-1] + 1] = True
        return flat

    @cached_property
    def is_plateau(self) -> bool:
        """Whether so much of it is flat that no rest voltage tells a state of charge, not even beside the flat part.

        Where a plateau ends, a curve that is off by a few mV reads 80 % as full.
        """
        return bool(self.is_flat.mean() > self.rules.plateau_share)

    @cached_property
    def covariance(self) -> Floats:
        """Systematic error of SoC between any two points of ``SOC_PCT``, points squared, (101, 101)."""
        together = correlation(SOC_PCT, SOC_PCT, self.correlation_pct)
        return np.asarray(self.sd_soc_pct[:, None] * together * self.sd_soc_pct[None, :])

    @cached_property
    def version_id(self) -> str:
        """Name by content: hash of everything an estimate can depend on."""
        text = "|".join(
            [self.chemistry, self.pack_type, self.origin]
            + [f"{v:.4f}" for v in self.ocv_v]
            + [f"{v:.2f}" for v in self.sd_soc_pct]
            + [f"{self.hysteresis_v:.4f}", f"{self.hysteresis_sd_v:.4f}", f"{self.correlation_pct:.1f}"]
        )
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def frame(self) -> pl.DataFrame:
        """The curve as rows: one per percent of SoC."""
        return pl.DataFrame(
            {
                "version_id": [self.version_id] * len(SOC_PCT),
                "chemistry": [self.chemistry] * len(SOC_PCT),
                "pack_type": [self.pack_type] * len(SOC_PCT),
                "origin": [self.origin] * len(SOC_PCT),
                "soc_pct": SOC_PCT,
                "ocv_v": self.ocv_v,
                "sd_soc_pct": self.sd_soc_pct,
                "hysteresis_v": [self.hysteresis_v] * len(SOC_PCT),
                "hysteresis_sd_v": [self.hysteresis_sd_v] * len(SOC_PCT),
                "correlation_pct": [self.correlation_pct] * len(SOC_PCT),
            }
        )

    @staticmethod
    def from_frame(
        rows: pl.DataFrame, quality: Mapping[str, float] | None = None, rules: BatteryRules = RULES
    ) -> Curve:
        """The curve that ``frame`` wrote. ValueError unless it has one row per percent."""
        rows = rows.sort("soc_pct")
        if rows["soc_pct"].to_list() != SOC_PCT.tolist():
            raise ValueError("a curve has one row for each of 0..100 %")
        first = rows.row(0, named=True)
        return Curve(
            chemistry=first["chemistry"],
            pack_type=first["pack_type"],
            ocv_v=rows["ocv_v"].to_numpy().astype(np.float64),
            sd_soc_pct=rows["sd_soc_pct"].to_numpy().astype(np.float64),
            hysteresis_v=float(first["hysteresis_v"]),
            hysteresis_sd_v=float(first["hysteresis_sd_v"]),
            correlation_pct=float(first["correlation_pct"]),
            origin=first["origin"],
            quality=quality or {},
            rules=rules,
        )


@dataclass(frozen=True, eq=False)
class RestSoc:
    """SoC of rests, arrays of one length. NaN where not identifiable."""

    soc_pct: Floats
    sd_random_pct: Floats  # differs from rest to rest
    sd_curve_pct: Floats  # the same for all rests at this SoC
    hysteresis_pct: Floats  # points by which the SoC moves per V of half gap (signed by direction, 0 where unknown)
    is_identifiable: Flags


def soc_from_rest(cell_v: Floats, direction: Floats, curve: Curve, rules: BatteryRules = RULES) -> RestSoc:
    """SoC at rest voltages ``cell_v`` (V) with ``direction`` +1 after charge, -1 after discharge, 0 unknown.

    The voltage is led back to the middle of the hysteresis; where the direction is unknown the half gap is an error.
    Outside the curve's voltages, and where it is flat, SoC is not identifiable.
    """
    middle_v = cell_v - curve.hysteresis_v * direction
    soc = np.interp(middle_v, curve.ocv_v, SOC_PCT)
    slope = np.maximum(np.interp(soc, SOC_PCT, curve.slope_mv_per_pct), 1e-3) / 1000
    edge_v = 4 * rules.rest_sd_v + curve.hysteresis_v
    inside = (middle_v > curve.ocv_v[0] - edge_v) & (middle_v < curve.ocv_v[-1] + edge_v)
    index = np.clip(np.round(np.nan_to_num(soc)), 0, 100).astype(np.int64)
    unknown_v = np.where(direction == 0, curve.hysteresis_v, rules.hysteresis_car_share * curve.hysteresis_v / 2)
    random = np.sqrt((rules.rest_sd_v**2 + unknown_v**2) / slope**2 + rules.rest_temp_sd_pct**2)
    systematic = np.interp(soc, SOC_PCT, curve.sd_soc_pct)
    good = inside & ~curve.is_flat[index] & np.isfinite(cell_v) & (np.hypot(random, systematic) <= rules.soc_sd_max_pct)
    return RestSoc(
        soc_pct=np.where(good, soc, np.nan),
        sd_random_pct=random,
        sd_curve_pct=systematic,
        hysteresis_pct=direction / slope,
        is_identifiable=good,
    )
