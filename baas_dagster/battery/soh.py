"""State of health month by month: the car's claim, the echo, the independent value, the fused one, bias and trend.

Belongs here: the rows of ``fct_soh_monthly`` of one device from its rests and capacity estimates. Does not belong here:
single estimates (``capacity``), slopes (``trend``), where the inputs come from.

A month sees what lies up to its end and nothing later. 100 % is the nominal capacity of the registry, shown on every
row; that new cars differ from it by 1 % is in every interval, that the registry may be wrong is not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import hypot
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from baas_dagster.battery.capacity import Pool, direction_number, pool_estimates
from baas_dagster.battery.curve import Curve, correlation, soc_from_rest
from baas_dagster.battery.rules import RULES, BatteryRules
from baas_dagster.battery.trend import Slope, combine, shrink, slope_of

__all__ = ["SOH_SCHEMA", "Pack", "soh_months", "throughput"]

Floats = NDArray[np.float64]

_FLOATS = (
    "soh_bms_pct",
    "soh_charge_pct",
    "soh_charge_lo_pct",
    "soh_charge_hi_pct",
    "soh_ocv_pct",
    "soh_ocv_lo_pct",
    "soh_ocv_hi_pct",
    "soh_pct",
    "soh_lo_pct",
    "soh_hi_pct",
    "capacity_nominal_ah",
    "slope_pct_per_year",
    "slope_lo_pct_per_year",
    "slope_hi_pct_per_year",
    "slope_data_pct_per_year",
    "slope_data_lo_pct_per_year",
    "slope_data_hi_pct_per_year",
    "prior_share",
    "slope_data_pct_per_100_cycles",
    "slope_data_lo_pct_per_100_cycles",
    "slope_data_hi_pct_per_100_cycles",
    "equivalent_full_cycles",
    "soc_bias_pct",
    "soc_bias_lo_pct",
    "soc_bias_hi_pct",
    "bms_min_deter_pct",
)
SOH_SCHEMA: dict[str, pl.DataType] = {
    "device_no": pl.String(),
    **{name: pl.Float64() for name in _FLOATS},
    "n": pl.Int64(),
    "n_charge": pl.Int64(),
    "n_ocv": pl.Int64(),
    "n_soc_bias": pl.Int64(),
    "n_slope": pl.Int64(),
    "method": pl.String(),
    "soh_ocv_reason": pl.String(),
    "soh_charge_reason": pl.String(),
    "soc_bias_reason": pl.String(),
    "slope_verdict": pl.String(),
    "capacity_source": pl.String(),
    "curve_version": pl.String(),
    "curve_origin": pl.String(),
    "bms_max_deter_cell_no": pl.Int64(),
    "pack_epoch": pl.Int64(),
    "measured_month": pl.String(),
}
"""One row per device and month. ``method``: ocv+charge, ocv, charge (an echo of the BMS), none. Reasons for NULL: no
capacity, no curve, not identifiable, too few, too uncertain. ``slope_verdict``: identified, not identifiable, too few
(on the data-only interval)."""


@dataclass(frozen=True)
class Pack:
    """What the registry and the decisions say about a device's pack."""

    chemistry: str | None
    pack_type: str | None
    cell_count: int | None
    capacity_nominal_ah: float | None
    capacity_source: str | None
    is_nominal_guessed: bool = False
    """True where the type follows from the number of cells alone: no vehicle master, no override."""


def throughput(lives: pl.DataFrame) -> pl.DataFrame:
    """Charge counted in both directions in every awake period of one device and the silence before it: ended_at, epoch,
    moved_ah (NULL in an epoch without one of the counters), in order.

    ``lives``: ``to_at, life_no, charged_ah, discharged_ah`` as of ``int_counter_life``.
    """
    counters = ("charged_ah", "discharged_ah")
    is_counted = pl.all_horizontal(pl.col(name).is_not_null().any().over("life_no") for name in counters)
    moved = pl.when(is_counted).then(pl.sum_horizontal(counters).clip(0))
    return lives.select(ended_at="to_at", epoch="life_no", moved_ah=moved).sort("ended_at", "moved_ah")


def soh_months(
    device_no: str,
    months: Sequence[str],
    pack: Pack,
    rests: pl.DataFrame,
    estimates: pl.DataFrame,
    curve: Curve | None,
    claims: pl.DataFrame | None = None,
    counted: pl.DataFrame | None = None,
    rules: BatteryRules = RULES,
) -> pl.DataFrame:
    """Rows of ``SOH_SCHEMA`` for ``months`` (``YYYY-MM``) of one device, in order.

    ``rests``: of ``rest_readings``; ``estimates``: of both methods; ``claims``: measured_month, soh_bms_pct,
    bms_min_deter_pct, bms_max_deter_cell_no (passed through); ``counted``: of ``throughput``.
    """
    history = _History.of(pack, rests, estimates, curve, counted, rules)
    said = {row["measured_month"]: row for row in claims.to_dicts()} if claims is not None else {}
    rows = []
    for month in sorted(set(months)):
        row: dict[str, Any] = dict.fromkeys(SOH_SCHEMA)
        row |= {name: value for name, value in said.get(month, {}).items() if name in SOH_SCHEMA}
        row |= history.row(month)
        row |= {"device_no": device_no, "measured_month": month}
        rows.append(row)
    return pl.DataFrame(rows, schema=SOH_SCHEMA)


def _number(month: str) -> int:
    return int(month[:4]) * 12 + int(month[5:7]) - 1


@dataclass(frozen=True, eq=False)
class _History:
    """All that is known of one device, as arrays with the month of each entry."""

    pack: Pack
    curve: Curve | None
    rules: BatteryRules
    estimates: dict[str, pl.DataFrame]
    month: dict[str, NDArray[np.int64]]
    rest_month: NDArray[np.int64]
    rest_epoch: NDArray[np.int64]
    rest_identified: NDArray[np.bool_]
    rest_bias: Floats
    rest_soc: Floats
    rest_random: Floats
    counted_month: NDArray[np.int64]
    counted_epoch: NDArray[np.int64]
    counted_year: Floats
    cycles: Floats

    @staticmethod
    def of(
        pack: Pack,
        rests: pl.DataFrame,
        estimates: pl.DataFrame,
        curve: Curve | None,
        counted: pl.DataFrame | None,
        rules: BatteryRules,
    ) -> _History:
        parts = {
            name: estimates.filter(pl.col("method") == name).sort("from_at", "to_at") for name in ("ocv", "charge")
        }
        months = {name: _months(part["measured_month"]) for name, part in parts.items()}
        n = rests.height
        bias, soc, random, identified = np.full(n, np.nan), np.zeros(n), np.zeros(n), np.zeros(n, dtype=bool)
        if curve is not None and n and not curve.is_plateau:
            read = soc_from_rest(rests["cell_v"].to_numpy(), direction_number(rests), curve, rules)
            shown = rests["soc_bms_pct"].fill_null(float("nan")).to_numpy()
            bias, soc, random, identified = shown - read.soc_pct, read.soc_pct, read.sd_random_pct, read.is_identifiable
        at_month, epoch, year, cycles = _cycles(counted, pack.capacity_nominal_ah)
        return _History(
            pack, curve, rules, parts, months, _months(rests["measured_month"]), rests["epoch"].to_numpy(),
            identified, bias, soc, random, at_month, epoch, year, cycles,
        )  # fmt: skip

    def row(self, month: str) -> dict[str, Any]:
        """The row of one month, without the car's claims."""
        at, pack, rules = _number(month), self.pack, self.rules
        epoch = self._epoch(at)
        row: dict[str, Any] = {
            "capacity_nominal_ah": pack.capacity_nominal_ah,
            "capacity_source": pack.capacity_source,
            "curve_version": self.curve.version_id if self.curve else None,
            "curve_origin": self.curve.origin if self.curve else None,
            "pack_epoch": epoch,
            "equivalent_full_cycles": self._cycles_at(at, epoch),
            "n": 0,
            "method": "none",
            **self._bias(at, epoch),
        }
        if not pack.capacity_nominal_ah:
            return row | {
                "soh_ocv_reason": "no capacity",
                "soh_charge_reason": "no capacity",
                "slope_verdict": "no capacity",
            }
        percent = 100 / pack.capacity_nominal_ah
        values: list[tuple[float, float]] = []
        used = []
        for name in ("ocv", "charge"):
            found, age_years, reason = self._window(name, at, epoch)
            row[f"n_{name}"] = found.n if found else 0
            if found is not None:
                sd = hypot(found.sd_ah * percent, rules.fade_sd_pct_per_year * age_years)
                value = found.capacity_ah * percent
                interval = rules.z90 * hypot(sd, rules.new_capacity_sd * value)
                if interval > rules.z90 * rules.soh_sd_max_pct:
                    reason = "too uncertain"
                else:
                    row |= {f"soh_{name}_pct": value, f"soh_{name}_lo_pct": value - interval}
                    row |= {f"soh_{name}_hi_pct": value + interval}
                    values.append((value, sd))
                    used.append(name)
                    row["n"] += found.n
            row[f"soh_{name}_reason"] = reason
        low, high = rules.guessed_soh_min_pct, rules.guessed_soh_max_pct
        if pack.is_nominal_guessed and values and not low <= values[0][0] <= high:
            # what was measured speaks against the guess, not for a broken pack
            for name in ("ocv", "charge"):
                row |= dict.fromkeys((f"soh_{name}_pct", f"soh_{name}_lo_pct", f"soh_{name}_hi_pct"))
                row[f"soh_{name}_reason"] = "nominal capacity in doubt"
            return row | {"n": 0, "slope_verdict": "nominal capacity in doubt"}
        if values:
            weights = np.array([1 / sd**2 for _, sd in values])
            fused = float((weights * [value for value, _ in values]).sum() / weights.sum())
            interval = rules.z90 * hypot(weights.sum() ** -0.5, rules.new_capacity_sd * fused)
            row |= {
                "soh_pct": fused,
                "soh_lo_pct": fused - interval,
                "soh_hi_pct": fused + interval,
                "method": "+".join(used),
            }
        return row | self._trend(at, epoch, percent)

    def _epoch(self, at: int) -> int | None:
        """The pack and counter epoch a month belongs to: the last one seen until its end."""
        parts = [(self.counted_month, self.counted_epoch), (self.rest_month, self.rest_epoch)]
        parts += [(months, self.estimates[name]["epoch"].to_numpy()) for name, months in self.month.items()]
        seen = [int(epochs[months <= at].max()) for months, epochs in parts if (months <= at).any()]
        return max(seen) if seen else None

    def _window(self, name: str, at: int, epoch: int | None) -> tuple[Pool | None, float, str | None]:
        """Pool of the last months, how old it is on average in years, and the reason where there is none."""
        rules, months = self.rules, self.month[name]
        if name == "ocv" and self.curve is None:
            return None, 0.0, "no curve"
        if name == "ocv" and self.curve is not None and self.curve.is_plateau:
            return None, 0.0, "not identifiable"
        mine = self.estimates[name]["epoch"].to_numpy() == epoch
        for length in range(rules.window_months, rules.window_months_max + 1):
            chosen = mine & (months <= at) & (months > at - length)
            if chosen.sum() >= rules.min_estimates:
                found = pool_estimates(self.estimates[name].filter(pl.Series(chosen)), rules)
                return found, float((at - months[chosen]).mean()) / 12, None if found else "too uncertain"
        reason = "too few"
        if name == "ocv":
            recent = (self.rest_month <= at) & (self.rest_month > at - rules.window_months_max)
            if recent.any() and self.rest_identified[recent].mean() < rules.identifiable_share_min:
                reason = "not identifiable"
        return None, 0.0, reason

    def _bias(self, at: int, epoch: int | None) -> dict[str, Any]:
        """BMS SoC of the first rows after a rest against the SoC of its voltage, this month."""
        chosen = (self.rest_month == at) & (self.rest_epoch == epoch) & np.isfinite(self.rest_bias)
        n = int(chosen.sum())
        if self.curve is None:
            return {"n_soc_bias": n, "soc_bias_reason": "no curve"}
        if n < self.rules.min_estimates:
            return {"n_soc_bias": n, "soc_bias_reason": "not identifiable" if self.curve.is_plateau else "too few"}
        bias, soc = self.rest_bias[chosen], self.rest_soc[chosen]
        middle = float(np.median(bias))
        sd = np.interp(soc, np.arange(101.0), self.curve.sd_soc_pct)
        shared = float((sd[:, None] * correlation(soc, soc, self.curve.correlation_pct) * sd[None, :]).mean())
        scatter = float(np.median(np.abs(bias - middle))) * 1.4826 * 1.25
        random = hypot(scatter, float(np.mean(self.rest_random[chosen]))) / np.sqrt(n)
        half = self.rules.z90 * float(np.sqrt(shared + random**2))
        return {
            "soc_bias_pct": middle,
            "soc_bias_lo_pct": middle - half,
            "soc_bias_hi_pct": middle + half,
            "n_soc_bias": n,
        }

    def _cycles_at(self, at: int, epoch: int | None) -> float | None:
        until = (self.counted_month <= at) & (self.counted_epoch == epoch)
        return float(self.cycles[until][-1]) if np.isfinite(self.cycles[until]).any() else None

    def _trend(self, at: int, epoch: int | None, percent: float) -> dict[str, Any]:
        """Slopes of the last year of the epoch."""
        rules = self.rules
        by_time: dict[str, Slope | None] = {}
        by_cycle: Slope | None = None
        for name in ("ocv", "charge"):
            months = self.month[name]
            chosen = (
                (self.estimates[name]["epoch"].to_numpy() == epoch)
                & (months <= at)
                & (months > at - rules.trend_months)
            )
            rows = self.estimates[name].filter(pl.Series(chosen))
            year = _years(rows["estimated_at"])
            soh = rows["capacity_ah"].to_numpy() * percent
            sd = np.maximum(rows["random_sd_ah"].to_numpy() * percent, rules.trend_sd_min_pct)
            by_time[name] = slope_of(year, soh, sd, months[chosen], rules)
            counted = (self.counted_epoch == epoch) & np.isfinite(self.cycles)
            if name == "ocv" and counted.any() and by_time[name] is not None:
                cycles = np.interp(year, self.counted_year[counted], self.cycles[counted])
                by_cycle = slope_of(cycles, soh, sd, months[chosen], rules)
        data = combine(by_time["ocv"], by_time["charge"], rules)
        trend = shrink(data, rules)
        row: dict[str, Any] = {
            "slope_pct_per_year": trend.value,
            "slope_lo_pct_per_year": trend.lo,
            "slope_hi_pct_per_year": trend.hi,
            "prior_share": trend.prior_share,
            "n_slope": data.n if data else 0,
            "slope_verdict": "too few",
        }
        if data is not None:
            row |= {
                "slope_data_pct_per_year": data.value,
                "slope_data_lo_pct_per_year": data.value - data.half_90,
                "slope_data_hi_pct_per_year": data.value + data.half_90,
                "slope_verdict": "identified" if data.half_90 <= rules.slope_identifiable else "not identifiable",
            }
        if by_cycle is not None:
            row |= {
                "slope_data_pct_per_100_cycles": 100 * by_cycle.value,
                "slope_data_lo_pct_per_100_cycles": 100 * (by_cycle.value - by_cycle.half_90),
                "slope_data_hi_pct_per_100_cycles": 100 * (by_cycle.value + by_cycle.half_90),
            }
        return row


def _months(column: pl.Series) -> NDArray[np.int64]:
    return (column.str.slice(0, 4).cast(pl.Int64) * 12 + column.str.slice(5, 2).cast(pl.Int64) - 1).to_numpy()


def _years(times: pl.Series) -> Floats:
    return np.asarray(times.dt.epoch("us").to_numpy() / (365.25 * 86_400e6))


def _cycles(
    counted: pl.DataFrame | None, capacity_ah: float | None
) -> tuple[NDArray[np.int64], NDArray[np.int64], Floats, Floats]:
    """Month, epoch, year and equivalent full cycles, (dCCC + dCDC) / 2 C, since the first reading of each epoch; NaN
    where nothing is counted or the capacity is not known."""
    if counted is None or counted.is_empty():
        none = np.zeros(0, dtype=np.int64)
        return none, none, np.zeros(0), np.zeros(0)
    at = counted["ended_at"]
    month = (at.dt.year().cast(pl.Int64) * 12 + at.dt.month().cast(pl.Int64) - 1).to_numpy()
    total = counted.select(pl.col("moved_ah").cum_sum().over("epoch").cast(pl.Float64).fill_null(float("nan")))
    return month, counted["epoch"].to_numpy(), _years(at), total.to_series().to_numpy() / (2 * (capacity_ah or np.nan))
