"""Capacity estimates of one device: from charging sessions and from pairs of rests, and the pooling of either.

Belongs here: single estimates with their errors, random and systematic apart, and what many of them say together.
Does not belong here: state of health in percent (``soh``), trends (``trend``), rests and curves.

Single estimate: C = Q / dSoC. Pooling: errors in variables after Plett (2011, J. Power Sources 196, 2319), J(C) = (y -
C x)' S(C)^-1 (y - C x) with S(C) = S_y + C^2 S_x, var(C) = 2 / J''(C); written with full covariances, so that errors
which estimates share (a curve's error at one SoC, a current offset, one rest in two pairs) are one error and not many.
What multiplies every estimate alike (gain of the sensor, capacity of the BMS) is added after pooling and never shrinks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from baas_dagster.battery.curve import Curve, correlation, soc_from_rest
from baas_dagster.battery.pairs import rest_pairs
from baas_dagster.battery.rules import RULES, BatteryRules

__all__ = [
    "ESTIMATE_SCHEMA",
    "Pool",
    "charge_estimates",
    "direction_number",
    "pool",
    "pool_estimates",
    "rest_pair_estimates",
]

Floats = NDArray[np.float64]

ESTIMATE_SCHEMA: dict[str, pl.DataType] = {
    "device_no": pl.String(),
    "method": pl.String(),
    "estimated_at": pl.Datetime("us"),
    "from_at": pl.Datetime("us"),
    "to_at": pl.Datetime("us"),
    "capacity_ah": pl.Float64(),
    "capacity_sd_ah": pl.Float64(),
    "random_sd_ah": pl.Float64(),
    "charge_ah": pl.Float64(),
    "charge_sd_ah": pl.Float64(),
    "soc_from_pct": pl.Float64(),
    "soc_to_pct": pl.Float64(),
    "soc_delta_pct": pl.Float64(),
    "soc_from_sd_pct": pl.Float64(),
    "soc_to_sd_pct": pl.Float64(),
    "curve_from_sd_pct": pl.Float64(),
    "curve_to_sd_pct": pl.Float64(),
    "curve_correlation_pct": pl.Float64(),
    "hysteresis_pct_per_v": pl.Float64(),
    "hysteresis_sd_v": pl.Float64(),
    "awake_h": pl.Float64(),
    "parked_h": pl.Float64(),
    "temp_mean_c": pl.Float64(),
    "charge_source": pl.String(),
    "reference": pl.String(),
    "epoch": pl.Int64(),
    "measured_month": pl.String(),
}
"""One row per charging session (method ``charge``) or pair of rests (``ocv``).

``capacity_sd_ah`` is everything, ``random_sd_ah`` what many estimates average out. ``charge_source``: counter,
integral, steps. ``reference``: id of the session, or the version of the curve. ``*_from_sd``, ``*_to_sd``: random and
curve error of both SoCs.
"""


@dataclass(frozen=True)
class Pool:
    """What estimates say together. Standard deviations in Ah; ``systematic`` does not shrink with ``n``."""

    capacity_ah: float
    random_sd_ah: float
    systematic_sd_ah: float
    n: int
    chi2: float  # scatter against what was expected; above 1 the random error was widened by it

    @property
    def sd_ah(self) -> float:
        """Both errors together."""
        return float(np.hypot(self.random_sd_ah, self.systematic_sd_ah))


def pool(
    soc_delta_pct: Floats,
    charge_ah: Floats,
    random_x: Floats,
    shared_x: Floats,
    random_y: Floats,
    shared_y: Floats,
    gain_sd: float,
    rules: BatteryRules = RULES,
) -> Pool | None:
    """Capacity from n pairs of SoC change (points) and charge (Ah); None without any, or when they contradict each
    other.

    ``random_x``: covariance (n, n) of what differs from estimate to estimate, points^2; ``shared_x``: of what they
    share; ``random_y`` and ``shared_y`` the same for charge, Ah^2. ``gain_sd``: relative error common to all. A single
    estimate far from the others (Huber) is weighted down.
    """
    n = len(charge_ah)
    if n == 0:
        return None
    x, y = np.asarray(soc_delta_pct) / 100, np.asarray(charge_ah)
    cov_rx, cov_sx = random_x / 1e4, shared_x / 1e4
    single = y / x
    weight = x**2 / np.maximum(np.diag(cov_rx + cov_sx) + np.diag(random_y + shared_y) / np.median(single) ** 2, 1e-12)
    beta = 1 / _weighted_median(single, weight)
    if not np.isfinite(beta) or beta <= 0:
        return None
    huber: Floats = np.ones(n)
    inverse: Floats = np.eye(n)
    information = 0.0
    # weights: what a car's curve is off alike is used, but not trusted to the last tenth of a point; drifts of the
    # counters,
    # which add up over many pairs, are as good as taken out. Errors come from the covariances as they are.
    tempered = (
        rules.pool_random_factor * np.diag(np.diag(cov_rx))
        + (1 - rules.pool_curve_trust) * np.diag(np.diag(cov_sx))
        + rules.pool_curve_trust * cov_sx
    )
    for _ in range(15):
        weigh = tempered + beta**2 * (random_y + rules.pool_drift_factor * shared_y) + 1e-12 * np.eye(n)
        extra = np.diag(np.diag(weigh) * (1 / huber - 1))
        inverse = np.asarray(np.linalg.inv(weigh + extra), dtype=np.float64)
        pull = inverse @ (x - beta * y)
        information = float(y @ inverse @ y - pull @ random_y @ pull)
        if information <= 0:
            return None
        new = float(y @ inverse @ x) / information
        if new <= 0:
            return None
        marginal = np.sqrt(np.diag(cov_rx + cov_sx + beta**2 * (random_y + shared_y)) + 1e-12)
        if n > 2:
            off = np.abs(x - new * y) / marginal
            huber = np.asarray(np.minimum(1.0, rules.pool_huber / np.maximum(off, 1e-9)), dtype=np.float64)
        done = abs(new / beta - 1) < 1e-6
        beta = new
        if done:
            break
    influence = inverse @ y / information  # of each SoC change on 1 / C
    expected = cov_rx + cov_sx + beta**2 * (random_y + shared_y)
    left = x - beta * y
    freedom = np.eye(n) - np.outer(y, influence)
    chi2 = (
        float((huber * left**2 / marginal**2).sum())
        / max(float((huber * np.diag(freedom @ expected @ freedom.T) / marginal**2).sum()), 1e-9)
        if n > 2
        else 1.0
    )
    widen = max(chi2, 1.0)
    var_random = float(influence @ (cov_rx + beta**2 * random_y + extra) @ influence) * widen
    var_shared = float(influence @ (cov_sx + beta**2 * shared_y) @ influence)
    capacity = 1 / beta
    return Pool(
        capacity_ah=capacity,
        random_sd_ah=capacity**2 * float(np.sqrt(max(var_random, 0.0))),
        systematic_sd_ah=capacity * float(np.hypot(capacity * np.sqrt(max(var_shared, 0.0)), gain_sd)),
        n=n,
        chi2=chi2,
    )


def _weighted_median(values: Floats, weights: Floats) -> float:
    order = np.lexsort((weights, values))
    cumulated = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(cumulated, cumulated[-1] / 2)])


def pool_estimates(estimates: pl.DataFrame, rules: BatteryRules = RULES) -> Pool | None:
    """Pool rows of ``ESTIMATE_SCHEMA`` of **one** method, device and epoch (in any order)."""
    if estimates.is_empty():
        return None
    rows = estimates.sort("from_at", "to_at", "reference")
    gain = rules.bms_capacity_sd if rows["method"][0] == "charge" else 0.0
    cov = covariances(rows, rules)
    return pool(
        rows["soc_delta_pct"].to_numpy(),
        rows["charge_ah"].to_numpy(),
        *cov,
        float(np.hypot(gain, rules.current_gain_sd)),
        rules,
    )


def covariances(rows: pl.DataFrame, rules: BatteryRules = RULES) -> tuple[Floats, Floats, Floats, Floats]:
    """Random and shared covariance of SoC change (points^2), then of charge (Ah^2), of rows in order of time."""
    f = {name: rows[name].to_numpy() for name, kind in ESTIMATE_SCHEMA.items() if kind == pl.Float64()}
    begin, end = rows["from_at"].to_numpy(), rows["to_at"].to_numpy()
    random_x = np.diag(f["soc_from_sd_pct"] ** 2 + f["soc_to_sd_pct"] ** 2)
    meets = end[:, None] == begin[None, :]  # one rest ends a pair and begins another: one error with opposite signs
    joint = -(f["soc_to_sd_pct"][:, None] * f["soc_from_sd_pct"][None, :]) * meets
    random_x = random_x + joint + joint.T
    soc = np.concatenate([f["soc_from_pct"], f["soc_to_pct"]])
    sd = np.concatenate([f["curve_from_sd_pct"], f["curve_to_sd_pct"]])
    ends = sd[:, None] * correlation(soc, soc, float(f["curve_correlation_pct"][0])) * sd[None, :]
    n = rows.height
    shared_x = ends[n:, n:] - ends[n:, :n] - ends[:n, n:] + ends[:n, :n]
    gap = f["hysteresis_pct_per_v"] * f["hysteresis_sd_v"]
    shared_x = shared_x + np.outer(gap, gap)
    random_y = np.diag(f["charge_sd_ah"] ** 2)
    offset, parked = rules.current_offset_sd_a * f["awake_h"], rules.parked_sd_a * f["parked_h"]
    return random_x, shared_x, random_y, np.outer(offset, offset) + np.outer(parked, parked)


def rest_pair_estimates(rests: pl.DataFrame, curve: Curve, rules: BatteryRules = RULES) -> pl.DataFrame:
    """Capacity from every pair of rests of one device, method ``ocv``. Empty where the curve identifies none."""
    if rests.is_empty() or curve.is_plateau:
        return pl.DataFrame(schema=ESTIMATE_SCHEMA)
    direction = direction_number(rests)
    read = soc_from_rest(rests["cell_v"].to_numpy(), direction, curve, rules)
    found = rest_pairs(rests, read.soc_pct, rules)
    a, b = found.first, found.second
    temp = rests["temp_c"].cast(pl.Float64).fill_null(float("nan")).to_numpy()
    estimates = pl.DataFrame(
        {
            "device_no": rests["device_no"].gather(b),
            "method": ["ocv"] * len(found),
            "estimated_at": rests["rest_at"].gather(b),
            "from_at": rests["rest_at"].gather(a),
            "to_at": rests["rest_at"].gather(b),
            "charge_ah": found.charge_ah,
            "charge_sd_ah": found.charge_sd_ah,
            "soc_from_pct": read.soc_pct[a],
            "soc_to_pct": read.soc_pct[b],
            "soc_delta_pct": read.soc_pct[b] - read.soc_pct[a],
            "soc_from_sd_pct": read.sd_random_pct[a],
            "soc_to_sd_pct": read.sd_random_pct[b],
            "curve_from_sd_pct": read.sd_curve_pct[a],
            "curve_to_sd_pct": read.sd_curve_pct[b],
            "curve_correlation_pct": np.full(len(found), curve.correlation_pct),
            "hysteresis_pct_per_v": read.hysteresis_pct[b] - read.hysteresis_pct[a],
            "hysteresis_sd_v": np.full(len(found), curve.hysteresis_sd_v),
            "awake_h": found.awake_h,
            "parked_h": found.parked_h,
            "temp_mean_c": (temp[a] + temp[b]) / 2,
            "charge_source": np.where(found.is_counter, "counter", "integral"),
            "reference": [curve.version_id] * len(found),
            "epoch": rests["epoch"].gather(b),
            "measured_month": rests["measured_month"].gather(b),
        },
        schema_overrides=ESTIMATE_SCHEMA,
    )
    return _with_capacity(estimates, rules.current_gain_sd, rules).filter(
        pl.col("capacity_sd_ah") <= rules.pair_sd_max_share * pl.col("capacity_ah")
    )


def direction_number(rests: pl.DataFrame) -> Floats:
    """+1 after charge, -1 after discharge, 0 unknown."""
    way = rests["direction"]
    return np.asarray((way == "charge").to_numpy().astype(np.float64) - (way == "discharge").to_numpy())


def charge_estimates(sessions: pl.DataFrame, rules: BatteryRules = RULES) -> pl.DataFrame:
    """Capacity from every charging session of one device, method ``charge``: an **echo** of the BMS's own capacity.

    ``sessions``: rows of ``fct_charging_session``, with an ``epoch`` where known. Timed by SoC steps where two
    were seen (``step_*``), else between first and last SoC. Inferred sessions and V2L make none.
    """
    if sessions.is_empty():
        return pl.DataFrame(schema=ESTIMATE_SCHEMA)
    rows = sessions.filter(pl.col("mode").is_in(["AC", "DC", "UNKNOWN"]) & ~pl.col("is_inferred"))
    # over a hole that no counter bridges neither charge nor change of SoC is seen: the session sums both over what is
    by_steps = _or_null(rows, "step_soc_delta_pct")
    plain = rows["soc_end_pct"] - rows["soc_start_pct"]
    has_steps = (by_steps >= rules.min_soc_delta_pct) & _or_null(rows, "step_charge_ah").is_not_null()
    has_steps = has_steps.fill_null(False)
    frame = rows.select(
        "device_no",
        "measured_month",
        method=pl.lit("charge"),
        estimated_at=pl.col("ended_at"),
        from_at=pl.col("started_at"),
        to_at=pl.col("ended_at"),
        reference=pl.col("session_id"),
        temp_mean_c=_or_null(rows, "temp_mean_c"),
        epoch=rows["epoch"].cast(pl.Int64) if "epoch" in rows.columns else pl.lit(0, pl.Int64),
        has_steps=has_steps,
        charge_ah=pl.when(has_steps).then(_or_null(rows, "step_charge_ah")).otherwise(pl.col("charge_ah")),
        soc_from_pct=pl.when(has_steps).then(_or_null(rows, "step_soc_first_pct")).otherwise(pl.col("soc_start_pct")),
        soc_to_pct=pl.when(has_steps).then(_or_null(rows, "step_soc_last_pct")).otherwise(pl.col("soc_end_pct")),
        soc_delta_pct=pl.when(has_steps).then(by_steps).otherwise(plain),
        by_counter=rows["energy_method"].str.starts_with("counter").fill_null(False)
        & _or_null(rows, "charge_counter_ah").is_not_null()
        if "energy_method" in rows.columns
        else pl.lit(False),
        awake_h=(pl.col("ended_at") - pl.col("started_at")).dt.total_seconds() / 3600,
    ).filter((pl.col("soc_delta_pct") >= rules.min_soc_delta_pct) & (pl.col("charge_ah") > 0))
    soc_sd = pl.when("has_steps").then(rules.soc_step_sd_pct).otherwise(rules.soc_plain_sd_pct)
    full_sd = pl.when(pl.col("soc_to_pct") >= rules.full_from_pct).then(rules.full_sd_pct).otherwise(0.0)
    zero = pl.lit(0.0)
    estimates = frame.with_columns(
        charge_source=pl.when("has_steps")
        .then(pl.lit("steps"))
        .otherwise(pl.when("by_counter").then(pl.lit("counter")).otherwise(pl.lit("integral"))),
        charge_sd_ah=(pl.col("charge_ah") * rules.integral_sd_share).pow(2).add(rules.counter_step_ah**2 / 6).sqrt(),
        soc_from_sd_pct=soc_sd,
        soc_to_sd_pct=(soc_sd.pow(2) + full_sd.pow(2)).sqrt(),
        curve_from_sd_pct=zero,
        curve_to_sd_pct=zero,
        curve_correlation_pct=pl.lit(rules.curve_correlation_pct),
        hysteresis_pct_per_v=zero,
        hysteresis_sd_v=zero,
        parked_h=zero,
        awake_h=zero,  # an offset that the BMS counts with is in its SoC as well: it cancels
    )
    return _with_capacity(estimates, float(np.hypot(rules.current_gain_sd, rules.bms_capacity_sd)), rules)


def _or_null(rows: pl.DataFrame, column: str) -> pl.Series:
    if column in rows.columns:
        return rows[column].cast(pl.Float64)
    return pl.Series(column, [None] * rows.height, dtype=pl.Float64)


def _with_capacity(estimates: pl.DataFrame, gain_sd: float, rules: BatteryRules) -> pl.DataFrame:
    """Add capacity and its errors to single estimates."""
    share = pl.col("soc_delta_pct").abs() / 100
    far = np.sqrt(3) * pl.col("soc_delta_pct").abs() / pl.col("curve_correlation_pct")
    curve = (
        pl.col("curve_from_sd_pct").pow(2)
        + pl.col("curve_to_sd_pct").pow(2)
        - 2 * pl.col("curve_from_sd_pct") * pl.col("curve_to_sd_pct") * (1 + far) * (-far).exp()
    )
    shared = curve + (pl.col("hysteresis_pct_per_v") * pl.col("hysteresis_sd_v")).pow(2)
    soc_random = (pl.col("soc_from_sd_pct").pow(2) + pl.col("soc_to_sd_pct").pow(2)) / 1e4
    offset = (rules.current_offset_sd_a * pl.col("awake_h")).pow(2) + (rules.parked_sd_a * pl.col("parked_h")).pow(2)
    capacity = pl.col("charge_ah") / (pl.col("soc_delta_pct") / 100)
    random = soc_random * pl.col("capacity_ah").pow(2) + pl.col("charge_sd_ah").pow(2)
    systematic = shared / 1e4 * pl.col("capacity_ah").pow(2) + offset
    return (
        estimates.with_columns(capacity_ah=capacity)
        .with_columns(
            random_sd_ah=random.sqrt() / share,
            capacity_sd_ah=((random + systematic) / share.pow(2) + (gain_sd * pl.col("capacity_ah")).pow(2)).sqrt(),
            temp_mean_c=pl.col("temp_mean_c").cast(pl.Float64).fill_nan(None),
        )
        .select([pl.col(name).cast(kind) for name, kind in ESTIMATE_SCHEMA.items()])
        .sort("from_at", "to_at", "reference")
    )
