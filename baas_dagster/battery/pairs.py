"""Pairs of rests between which the state of charge moved far: what a capacity can be read from.

Belongs here: choosing the pairs and the charge between them. Does not belong here: SoC (``curve``), capacity
(``capacity``).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from baas_dagster.battery.rules import RULES, BatteryRules

__all__ = ["Pairs", "rest_pairs"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Pairs:
    """Pairs of rests, as indices into the rests, with the charge that flowed from the first to the second."""

    first: Ints
    second: Ints
    charge_ah: Floats  # positive into the pack
    charge_sd_ah: Floats  # random
    awake_h: Floats
    parked_h: Floats
    is_counter: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.first)


def rest_pairs(rests: pl.DataFrame, soc_pct: Floats, rules: BatteryRules = RULES) -> Pairs:
    """Pairs of successive turning points of SoC at least ``pair_min_delta_pct`` apart.

    ``rests``: rows of ``rests.REST_SCHEMA`` of one device in order of time; ``soc_pct``: their SoC, NaN where not
    identifiable. Charge from the counters where they were read at both rests (immune to gaps), else from integration
    without a hole. No pair spans two epochs or more than ``pair_max_days``.
    """
    at_s = rests["rest_at"].dt.epoch("us").to_numpy() / 1e6
    epoch = rests["epoch"].to_numpy()
    usable = np.flatnonzero(np.isfinite(soc_pct))
    shown = _column(rests, "soc_bms_pct")[usable]
    # turning points by what the car shows: chosen by the noisy reading itself, extremes would be too far apart
    position = soc_pct.copy()
    if len(usable) and np.isfinite(shown).all() and np.ptp(shown) >= rules.pair_min_delta_pct:
        position[usable] = shown
    first: list[int] = []
    second: list[int] = []
    block: list[int] = []
    for i in usable.tolist():
        if block and (epoch[i] != epoch[block[0]] or at_s[i] - at_s[block[-1]] > rules.pair_max_days * 86_400):
            _turns(block, position, rules.pair_min_delta_pct, first, second)
            block = []
        block.append(i)
    if block:
        _turns(block, position, rules.pair_min_delta_pct, first, second)
    a, b = np.array(first, dtype=np.int64), np.array(second, dtype=np.int64)
    counted = _column(rests, "charged_total_ah") - _column(rests, "discharged_total_ah")
    net, segment = _column(rests, "net_ah"), rests["net_segment"].to_numpy()
    awake = _column(rests, "awake_h")
    by_counter = counted[b] - counted[a]
    by_integral = np.where(segment[a] == segment[b], net[b] - net[a], np.nan)
    is_counter = np.isfinite(by_counter)
    charge = np.where(is_counter, by_counter, by_integral)
    sd = np.where(is_counter, rules.counter_step_ah * np.sqrt(4 / 12), rules.integral_sd_share * np.abs(charge))
    hours = (at_s[b] - at_s[a]) / 3600
    delta = soc_pct[b] - soc_pct[a]
    keep = (
        np.isfinite(charge)
        & (np.abs(delta) >= rules.pair_min_delta_pct)
        & (hours <= rules.pair_max_days * 24)
        & (charge * delta > 0)
    )
    pairs = Pairs(a, b, charge, sd, awake[b] - awake[a], np.maximum(hours - (awake[b] - awake[a]), 0.0), is_counter)
    return Pairs(*(getattr(pairs, name)[keep] for name in Pairs.__dataclass_fields__))


def _column(rests: pl.DataFrame, name: str) -> Floats:
    return rests[name].fill_null(float("nan")).to_numpy()


def _turns(block: list[int], soc_pct: Floats, least: float, first: list[int], second: list[int]) -> None:
    """Append the pairs of successive turning points of one block: a zigzag that ignores moves below ``least``."""
    low = high = turn = block[0]
    way = 0
    for i in block[1:]:
        soc = soc_pct[i]
        if way == 0:
            if soc - soc_pct[low] >= least:
                turn, high, way = low, i, 1
            elif soc_pct[high] - soc >= least:
                turn, low, way = high, i, -1
            else:
                low = i if soc <= soc_pct[low] else low
                high = i if soc >= soc_pct[high] else high
        elif way == 1:
            if soc > soc_pct[high]:
                high = i
            elif soc_pct[high] - soc >= least:
                first.append(turn)
                second.append(high)
                turn, low, way = high, i, -1
        elif soc < soc_pct[low]:
            low = i
        elif soc - soc_pct[low] >= least:
            first.append(turn)
            second.append(low)
            turn, high, way = low, i, 1
    if way:
        first.append(turn)
        second.append(high if way == 1 else low)
