"""Rest readings of one device: what the awake periods of its whole history say about voltage at rest.

Belongs here: which first readings are rest voltages, the direction they were reached from, charge counted up to them.
Does not belong here: how awake periods are cut (dbt ``int_awake_period``), where another pack or a counter begins anew
(dbt ``int_counter_life``), SoC from a rest voltage (``curve``).
"""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from baas_dagster.battery.rules import RULES, BatteryRules

__all__ = ["REST_SCHEMA", "rest_readings"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

REST_SCHEMA: dict[str, pl.DataType] = {
    "rest_at": pl.Datetime("us"),
    "rest_h": pl.Float64(),
    "cell_v": pl.Float64(),
    "cell_v_check": pl.Float64(),
    "soc_bms_pct": pl.Float64(),
    "soc_before_pct": pl.Float64(),
    "temp_c": pl.Float64(),
    "current_a": pl.Float64(),
    "direction": pl.String(),
    "charged_total_ah": pl.Float64(),
    "discharged_total_ah": pl.Float64(),
    "net_ah": pl.Float64(),
    "net_segment": pl.Int64(),
    "awake_h": pl.Float64(),
    "epoch": pl.Int64(),
    "measured_month": pl.String(),
    "device_no": pl.String(),
}
"""One row per rest. ``soc_before_pct``: last SoC before the silence. ``net_ah``: integrated net charge, comparable
within one ``net_segment`` (a new one begins with every hole). ``awake_h``: hours awake before the rest, since the first
period. ``epoch``: life of pack and counters (``life_no``); figures of two epochs never go together."""

_DIRECTIONS = np.array(["discharge", "unknown", "charge"])


def rest_readings(periods: pl.DataFrame, cell_count: int | None, rules: BatteryRules = RULES) -> pl.DataFrame:
    """Rests of one device from its awake periods, in columns of ``REST_SCHEMA``, in order of time.

    ``periods``: rows of ``int_awake_period`` of one device with the ``life_no`` of ``int_counter_life``, any order, all
    months. A period that GPS alone made is none. Without ``cell_count`` the mean cell is the voltage.
    """
    periods = _in_order(periods)
    if periods.is_empty():
        return pl.DataFrame(schema=REST_SCHEMA)
    from_s, to_s = _seconds(periods["from_at"]), _seconds(periods["to_at"])
    silence_h = np.append(np.nan, (from_s[1:] - to_s[:-1]) / 3600)
    awake_s = np.maximum(to_s - from_s, 0.0)
    soc_first, soc_last = _floats(periods, "soc_first_pct"), _floats(periods, "soc_last_pct")
    charge, discharge = _floats(periods, "charge_ah"), _floats(periods, "discharge_ah")
    epoch = periods["life_no"].to_numpy()
    direction = _directions(soc_last - soc_first, charge, discharge, silence_h, soc_first, soc_last, rules)
    net, segment = _net_charge(charge, discharge, awake_s, _floats(periods, "integrated_s"), soc_first, soc_last, rules)
    cell_mean_v = _floats(periods, "rest_cell_mean_mv") / 1000
    pack_v = _floats(periods, "rest_pack_voltage_v")
    cell_v = pack_v / cell_count if cell_count else cell_mean_v
    cell_v = np.where(np.isnan(cell_v), cell_mean_v, cell_v)
    agree = np.isnan(cell_mean_v) | (np.abs(cell_v - cell_mean_v) <= rules.cell_check_v)
    same_pack = np.append(False, epoch[1:] == epoch[:-1])
    keep = (silence_h >= rules.rest_min_h) & np.isfinite(cell_v) & agree & same_pack
    keep &= periods["rest_at"].is_not_null().to_numpy()
    found = pl.DataFrame(
        {
            "rest_at": periods["rest_at"],
            "rest_h": silence_h,
            "cell_v": cell_v,
            "cell_v_check": cell_mean_v,
            "soc_bms_pct": _floats(periods, "rest_soc_pct"),
            "soc_before_pct": np.append(np.nan, soc_last[:-1]),
            "temp_c": _floats(periods, "rest_temp_c"),
            "current_a": _floats(periods, "rest_current_a"),
            "direction": _DIRECTIONS[direction + 1],
            "charged_total_ah": _floats(periods, "charged_total_first_ah"),
            "discharged_total_ah": _floats(periods, "discharged_total_first_ah"),
            "net_ah": net,
            "net_segment": segment,
            "awake_h": np.append(0.0, np.cumsum(awake_s)[:-1]) / 3600,
            "epoch": epoch,
            "measured_month": periods["rest_at"].dt.strftime("%Y-%m"),
            "device_no": periods["device_no"],
        },
        schema_overrides=REST_SCHEMA,
    )
    return found.filter(pl.Series(keep)).with_columns(pl.col(pl.Float64).fill_nan(None))


def _in_order(periods: pl.DataFrame) -> pl.DataFrame:
    """The periods that the BMS logged, in order of time."""
    if "source" in periods.columns:
        periods = periods.filter(pl.col("source") == "bms")
    return periods.sort("from_at", "awake_no") if "awake_no" in periods.columns else periods.sort("from_at")


def _seconds(times: pl.Series) -> Floats:
    return times.dt.epoch("us").to_numpy().astype(np.float64) / 1e6


def _floats(rows: pl.DataFrame, column: str) -> Floats:
    """The column with NaN for what is missing; all NaN where there is none."""
    if column not in rows.columns:
        return np.full(rows.height, np.nan)
    return rows[column].cast(pl.Float64).fill_null(float("nan")).to_numpy().copy()


def _net_charge(
    charge: Floats,
    discharge: Floats,
    awake_s: Floats,
    integrated_s: Floats,
    soc_first: Floats,
    soc_last: Floats,
    rules: BatteryRules,
) -> tuple[Floats, Ints]:
    """Integrated net charge before every period, Ah, and the stretch without holes that it belongs to."""
    moved = charge - discharge
    hole = ~np.isfinite(moved) | (awake_s - integrated_s > rules.hole_share * awake_s) | np.isnan(integrated_s)
    unseen = np.append(False, ~(np.abs(soc_first[1:] - soc_last[:-1]) < rules.unseen_soc_pct))
    before = np.append(0.0, np.cumsum(np.where(hole, 0.0, moved))[:-1])
    begins = unseen | np.append(False, hole[:-1])
    return before, np.cumsum(begins).astype(np.int64)


def _directions(
    moved_pct: Floats,
    charge: Floats,
    discharge: Floats,
    silence_h: Floats,
    soc_first: Floats,
    soc_last: Floats,
    rules: BatteryRules,
) -> Ints:
    """Direction the pack came from at the start of every period: +1 charge, -1 discharge, 0 unknown.

    Known once the SoC has moved one way by ``direction_run_pct`` without turning. A period that holds both a charge and
    a load says nothing about its order; SoC that moved over a silence is unseen.
    """
    with np.errstate(invalid="ignore"):
        mixed = np.where(
            moved_pct >= 0, discharge > rules.load_share_max * charge, charge > rules.regen_share_max * discharge
        )
    mixed &= np.abs(moved_pct) > rules.direction_turn_pct
    jumped = np.append(False, np.abs(soc_first[1:] - soc_last[:-1]) > 3 * rules.unseen_soc_pct)
    found = np.zeros(len(moved_pct), dtype=np.int64)
    way, begin, edge, at = 0, 0.0, 0.0, 0.0
    for i, (step, is_mixed, is_jump) in enumerate(
        zip(moved_pct.tolist(), mixed.tolist(), jumped.tolist(), strict=True)
    ):
        if is_jump:
            way, begin, edge = 0, at, at
        found[i] = way if abs(edge - begin) >= rules.direction_run_pct else 0
        if step != step or is_mixed:
            way, begin, edge = 0, at, at
            continue
        at += step
        if way == 0:
            if abs(at - begin) > rules.direction_turn_pct:
                way, edge = (1 if at > begin else -1), at
        elif way * (at - edge) >= 0:
            edge = at
        elif abs(at - edge) > rules.direction_turn_pct:
            way, begin, edge = -way, edge, at
    return found
