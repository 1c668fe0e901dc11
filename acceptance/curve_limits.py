"""How much of the error of a state of health is the curve's: the same estimator with curves that nobody can have.

Belongs here: the estimates of a simulated fleet made again with the maker's own table, and with each car's own curve,
both known to the simulator alone. Does not belong here: the published figures (``battery``), learning (``ocv``).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
from numpy.typing import NDArray

from acceptance.compare import MONTH_KEYS
from acceptance.figures import Figure
from acceptance.runs import Ran
from baas_dagster.battery.capacity import rest_pair_estimates
from baas_dagster.battery.curve import SOC_PCT, Curve
from baas_dagster.battery.ocv import outside_curve
from baas_dagster.battery.soh import Pack, soh_months
from baas_dagster.resources import Warehouse, query
from baas_dagster.settings import DBT_PROJECT
from baas_dagster.simulator.fleet import STANDARD_FLEETS, draw_fleet
from baas_dagster.simulator.packs import SOC_GRID, maker_table
from baas_dagster.simulator.vehicle import ERRORS, Car

__all__ = ["limit_figures"]

_HYSTERESIS_SHARE = 0.15
"""Spread of the simulated half gap from car to car, of its mean."""
_KNOWN_V = 0.0002
"""V; error of a curve that is known."""


def _curve(like: Curve, volts: NDArray[np.float64], sd_v: float, gap_v: float, gap_sd_v: float) -> Curve:
    """A curve on the simulator's grid, with that error."""
    made = replace(
        like,
        ocv_v=np.interp(SOC_PCT / 100, SOC_GRID, volts),
        hysteresis_v=gap_v,
        hysteresis_sd_v=gap_sd_v,
    )
    return replace(made, sd_soc_pct=1000 * sd_v / np.maximum(made.slope_mv_per_pct, 0.5))


def _known_curves(car: Car, like: Curve) -> dict[str, Curve]:
    return {
        "the maker's own table": _curve(
            like,
            maker_table(car.pack.chemistry),
            ERRORS.ocv_warp_v,
            ERRORS.hysteresis_v,
            _HYSTERESIS_SHARE * ERRORS.hysteresis_v,
        ),
        "each car's own curve": _curve(like, car.ocv_curve_v, _KNOWN_V, car.hysteresis_v, _KNOWN_V),
    }


def limit_figures(name: str, ran: Ran, seed: int, paired: pl.DataFrame) -> list[Figure]:
    """Median error of `soh_ocv_pct` on the months of `paired` (with `true_soh_pct`), were the curves known."""
    like = outside_curve(pl.read_csv(DBT_PROJECT / "seeds" / "ocv_reference.csv"), "NMC")
    cars = {car.device_no: car for car in draw_fleet(STANDARD_FLEETS[name], seed)}
    found: dict[str, list[pl.DataFrame]] = {}
    with Warehouse.of(ran.snapshot.settings).open() as connection:
        rests = query(connection, "select * from stitched.rest order by device_no, rest_at")
    for (device,), months in paired.group_by("device_no", maintain_order=True):
        car, mine = cars[str(device)], rests.filter(pl.col("device_no") == device)
        for words, curve in _known_curves(car, like).items():
            pack = Pack("NMC", car.pack.name, car.pack.cell_count, car.pack.capacity_ah, "simulated")
            made = soh_months(
                str(device), months["measured_month"].to_list(), pack, mine, rest_pair_estimates(mine, curve), curve
            )
            found.setdefault(words, []).append(made.select(*MONTH_KEYS, "soh_ocv_pct"))
    figures = []
    for words, parts in found.items():
        both = pl.concat(parts).join(paired.select(*MONTH_KEYS, "true_soh_pct"), on=MONTH_KEYS)
        off = (both["soh_ocv_pct"] - both["true_soh_pct"]).abs().drop_nulls()
        text = f"{float(np.median(off.to_numpy())):.2f} points ({len(off)} months)" if len(off) else "no month"
        figures.append(Figure(f"the same months, were {words} known", "", text, None))
    return figures
