"""A tiny battery in closed form: awake periods of cars whose truth is known, without any simulator."""

from __future__ import annotations

from datetime import datetime, timedelta

import numpy as np
import polars as pl

from baas_dagster.battery.curve import SOC_PCT, Curve

CELLS = 100
BEGIN = datetime(2023, 1, 2, 8)


def linear_ocv(low_v: float = 3.2, high_v: float = 4.2) -> np.ndarray:
    return np.linspace(low_v, high_v, 101)


def a_curve(
    ocv_v: np.ndarray | None = None, sd_pct: float = 0.5, hysteresis_v: float = 0.0, chemistry: str = "NMC"
) -> Curve:
    volts = linear_ocv() if ocv_v is None else ocv_v
    return Curve(chemistry, "TYPE", volts, np.full(101, sd_pct), hysteresis_v, 0.001, 20.0, "fleet")


def periods(
    days: int,
    capacity_ah: float = 100.0,
    ocv_v: np.ndarray | None = None,
    device_no: str = "01290000001",
    hysteresis_v: float = 0.0,
    anchor_share: float = 1.0,
    bms_capacity_ah: float | None = None,
    low_pct: float = 20.0,
    high_pct: float = 90.0,
    rng: np.random.Generator | None = None,
    legs: int = 2,
    scale: float = 1.0,
) -> pl.DataFrame:
    """One cycle per two days: driving down in ``legs`` stretches with rests of 10 h, then a charge, then a rest.

    The BMS counts with its own capacity and moves by ``anchor_share`` to the SoC of ``ocv_v`` over each rest.
    ``scale`` multiplies every charge (another unit of capacity).
    """
    volts = linear_ocv() if ocv_v is None else ocv_v
    bms_ah = bms_capacity_ah or capacity_ah
    soc, shown, way = high_pct, high_pct, 1.0
    at, charged, discharged = BEGIN, 5_000.0 * scale, 4_900.0 * scale
    rows = []
    while at < BEGIN + timedelta(days=days):
        low, high = (low_pct, high_pct) if rng is None else (rng.uniform(10, 40), rng.uniform(70, 97))
        for to_pct in [*(soc + (low - soc) * np.arange(1, legs + 1) / legs), high]:
            volt = float(np.interp(soc, SOC_PCT, volts)) + hysteresis_v * way
            if rng is not None:
                volt += rng.normal(0, 0.0005)
            shown += anchor_share * (float(np.interp(volt, volts, SOC_PCT)) - shown)
            moved = (to_pct - soc) / 100 * capacity_ah * scale
            first = round(shown * 2) / 2
            row = {"charged_total_first_ah": charged, "discharged_total_first_ah": discharged}
            charged, discharged = charged + max(moved, 0), discharged + max(-moved, 0)
            shown += 100 * moved / (bms_ah * scale)
            rows.append(
                {
                    "device_no": device_no,
                    "source": "bms",
                    "from_at": at,
                    "to_at": at + timedelta(hours=2),
                    "soc_first_pct": first,
                    "soc_last_pct": round(shown * 2) / 2,
                    **row,
                    "charged_total_last_ah": charged,
                    "discharged_total_last_ah": discharged,
                    "charge_ah": max(moved, 0.0),
                    "discharge_ah": max(-moved, 0.0),
                    "integrated_s": 7200.0,
                    "cell_slot_count": CELLS,
                    "charged_ah": max(moved, 0.0),
                    "discharged_ah": max(-moved, 0.0),
                    "life_no": 0,
                    "rest_at": at,
                    "rest_pack_voltage_v": volt * CELLS,
                    "rest_current_a": -0.3,
                    "rest_cell_mean_mv": volt * 1000,
                    "rest_soc_pct": first,
                    "rest_temp_c": 15.0,
                }
            )
            way, soc = (1.0 if moved > 0 else -1.0), to_pct
            at += timedelta(hours=12)
    return pl.DataFrame(rows).with_columns(measured_month=pl.col("from_at").dt.strftime("%Y-%m"))


def sessions(
    n: int, capacity_ah: float = 100.0, device_no: str = "01290000001", every_days: int = 2, delta_pct: float = 40.0
) -> pl.DataFrame:
    begin = [BEGIN + timedelta(days=every_days * i) for i in range(n)]
    return pl.DataFrame(
        {
            "session_id": [f"s{i:04d}" for i in range(n)],
            "device_no": [device_no] * n,
            "measured_month": [at.strftime("%Y-%m") for at in begin],
            "started_at": begin,
            "ended_at": [at + timedelta(hours=4) for at in begin],
            "mode": ["AC"] * n,
            "is_inferred": [False] * n,
            "soc_start_pct": [30.0] * n,
            "soc_end_pct": [30.0 + delta_pct] * n,
            "charge_ah": [capacity_ah * delta_pct / 100] * n,
            "charge_counter_ah": [capacity_ah * delta_pct / 100] * n,
            "energy_method": ["counter"] * n,
            "step_soc_first_pct": [30.5] * n,
            "step_soc_last_pct": [30.0 + delta_pct] * n,
            "step_soc_delta_pct": [delta_pct - 0.5] * n,
            "step_charge_ah": [capacity_ah * (delta_pct - 0.5) / 100] * n,
            "temp_mean_c": [15.0] * n,
        }
    )
