"""What the marts must look like: per device, and the sites of the whole fleet.

A device that fails a HOLD check keeps its last published figures.

Belongs here: rules that hold for every row of a mart whatever the data are. Does not belong here: what a table must
look like as a whole (dbt tests: keys, relationships), and grades of bad data (the marts themselves).
"""

from __future__ import annotations

from collections.abc import Sequence

import pandera.polars as pa
import polars as pl

from baas_dagster.schemas.outcome import Outcome, Severity, outcomes_by

__all__ = ["MART_CHECKS", "SITE_CHECKS", "check_devices", "check_sites"]

_KM_PER_DAY = 24 * 220.0  # what a car can drive in a day (DOMAIN 4: 220 km/h)
_ROUNDING_KM = 1e-6
_ROUNDING_KWH = 1e-6
_MODES = ("AC", "DC", "V2L", "UNKNOWN")
_PACK_KWH = 500.0  # more than any pack of a car or bus holds
_CHARGER_KW = 400.0  # the strongest chargers in service
_ROUNDING_H = 1e-6
_OHM_MAX_M = 5_000.0  # ten times a cold pack of 200 cells
_KWH_PER_100KM_MAX = 300.0  # a bus uphill in winter
_VERDICTS = ("ok", "drift", "reset", "insufficient")
_EXPOSURES = ("temperature", "soc", "charge_rate", "discharge_rate")
_CELLS_MAX = 192  # the longest list of the export (DOMAIN 1)
_BAND_KINDS = ("all", "ambient", "speed", "season")


def _number(*checks: pa.Check) -> pa.Column:
    return pa.Column(pl.Float64, list(checks), nullable=True)


def _count(low: int = 0, high: int | None = None, *, name: str, kind: type[pl.DataType] = pl.Int64) -> pa.Column:
    check = pa.Check.ge(low, error=name) if high is None else pa.Check.in_range(low, high, error=name)
    return pa.Column(kind, check, nullable=True)


def _at_least(low: float, name: str) -> pa.Check:
    return pa.Check.ge(low, error=name)


def _within(low: float, high: float, name: str) -> pa.Check:
    return pa.Check.in_range(low, high, error=name)


def _not_after(first: str, last: str) -> pa.Check:
    """Of two times or counts the first is no larger."""

    def is_in_order(data: pa.PolarsData) -> pl.LazyFrame:
        frame: pl.LazyFrame = data.lazyframe
        return frame.select((pl.col(first) <= pl.col(last)).fill_null(value=True))

    return pa.Check(is_in_order, error=f"{first}_not_after_{last}")


def _days_add_up(data: pa.PolarsData) -> pl.LazyFrame:
    frame: pl.LazyFrame = data.lazyframe
    difference = (pl.col("distance_km") - pl.col("days_distance_km")).abs()
    return frame.select((difference <= _ROUNDING_KM).fill_null(value=True))


def _ends_after_start(data: pa.PolarsData) -> pl.LazyFrame:
    frame: pl.LazyFrame = data.lazyframe
    return frame.select((pl.col("ended_at") >= pl.col("started_at")).fill_null(value=False))


def _days_add_up_to_sessions(data: pa.PolarsData) -> pl.LazyFrame:
    frame: pl.LazyFrame = data.lazyframe
    difference = (pl.col("session_charged_kwh") - pl.col("days_charged_kwh")).abs()
    return frame.select((difference <= _ROUNDING_KWH).fill_null(value=True))


def _in_order(low: str, middle: str, high: str) -> pa.Check:
    """An estimate lies in its own interval."""

    def is_in_order(data: pa.PolarsData) -> pl.LazyFrame:
        frame: pl.LazyFrame = data.lazyframe
        slack = 1e-9 * pl.col(middle).abs()
        is_held = (pl.col(low) <= pl.col(middle) + slack) & (pl.col(middle) <= pl.col(high) + slack)
        return frame.select(is_held.fill_null(value=True))

    return pa.Check(is_in_order, error=f"{middle}_in_its_interval")


def _day_has_its_hours(data: pa.PolarsData) -> pl.LazyFrame:
    frame: pl.LazyFrame = data.lazyframe
    hours = pl.col("logged_h") + pl.col("silent_h")
    return frame.select((hours <= 24 + _ROUNDING_H).fill_null(value=True))


def _kinds_have_the_same_hours(data: pa.PolarsData) -> pl.LazyFrame:
    frame: pl.LazyFrame = data.lazyframe
    difference = (pl.col("kind_h") - pl.col("span_h")).abs()
    return frame.select((difference <= _ROUNDING_H * 1_000).fill_null(value=True))


def _gap_has_its_reason(figure: str, reason: str) -> pa.Check:
    """A figure that is missing says why, and one that is there has nothing to explain."""

    def is_explained(data: pa.PolarsData) -> pl.LazyFrame:
        frame: pl.LazyFrame = data.lazyframe
        return frame.select(pl.col(figure).is_null() == pl.col(reason).is_not_null())

    return pa.Check(is_explained, error=f"{figure}_or_its_reason")


MART_CHECKS: dict[str, pa.DataFrameSchema] = {
    "dim_device": pa.DataFrameSchema(
        {
            "device_no": pa.Column(
                pl.String, pa.Check.str_matches(r"^\d{11}$", error="device_no_11_digits"), nullable=False
            ),
            "chemistry": pa.Column(
                pl.String, pa.Check.str_matches(r"^(NMC|LFP)", error="device_chemistry_known"), nullable=True
            ),
            "cell_count": _count(1, _CELLS_MAX, name="device_cells_possible", kind=pl.Int32),
            "temp_sensor_count": _count(name="device_count_not_negative", kind=pl.Int32),
            "capacity_nominal_ah": _number(_within(1, 1_000, "device_capacity_possible")),
            "insulation_cap_kohm": _number(_at_least(0, "device_insulation_cap_not_negative")),
            "delivered_current_sign": pa.Column(
                pl.Int32, pa.Check.isin([-1, 1], error="device_sign_is_a_sign"), nullable=True
            ),
            "delivered_voltage_scale": _number(pa.Check.gt(0, error="device_scale_above_0")),
            "layout_count": _count(name="device_count_not_negative", kind=pl.Int32),
            "row_count": _count(name="device_count_not_negative"),
            "gps_row_count": _count(name="device_count_not_negative"),
        },
        checks=[_not_after("first_seen_at", "last_seen_at")],
        strict=False,
    ),
    "fct_mileage_daily": pa.DataFrameSchema(
        {
            "device_no": pa.Column(pl.String, nullable=False),
            "service_date": pa.Column(pl.Date, nullable=False),
            "distance_km": _number(_within(-_ROUNDING_KM, _KM_PER_DAY, "day_distance_possible")),
            "unlogged_km": _number(_at_least(-_ROUNDING_KM, "day_unlogged_not_negative")),
            "boundary_uncertain_km": _number(_at_least(-_ROUNDING_KM, "day_uncertainty_not_negative")),
            "coverage_pct": _number(_within(-_ROUNDING_KM, 100 + _ROUNDING_KM, "day_coverage_0_100_pct")),
        },
        strict=False,
    ),
    "fct_mileage_monthly": pa.DataFrameSchema(
        {
            "device_no": pa.Column(pl.String, nullable=False),
            "measured_month": pa.Column(pl.String, nullable=False),
            "distance_km": _number(_within(-_ROUNDING_KM, 31 * _KM_PER_DAY, "month_distance_possible")),
            "unlogged_km": _number(_at_least(-_ROUNDING_KM, "month_unlogged_not_negative")),
            "boundary_uncertain_km": _number(_at_least(-_ROUNDING_KM, "month_uncertainty_not_negative")),
            "coverage_pct": _number(_within(-_ROUNDING_KM, 100 + _ROUNDING_KM, "month_coverage_0_100_pct")),
            "grade": pa.Column(pl.String, pa.Check.isin(list("ABCD"), error="grade_a_to_d"), nullable=False),
        },
        checks=[pa.Check(_days_add_up, error="days_add_up_to_month")],
        strict=False,
    ),
    "fct_odometer_event": pa.DataFrameSchema(
        {
            "device_no": pa.Column(pl.String, nullable=False),
            "code": pa.Column(pl.String, pa.Check.str_startswith("ODO_", error="event_code_known"), nullable=False),
            "occurred_at": pa.Column(pl.Datetime("us"), nullable=False),
        },
        strict=False,
    ),
    "fct_charging_session": pa.DataFrameSchema(
        {
            "device_no": pa.Column(pl.String, nullable=False),
            "session_id": pa.Column(pl.String, nullable=False),
            "started_at": pa.Column(pl.Datetime("us"), nullable=False),
            "mode": pa.Column(pl.String, pa.Check.isin(list(_MODES), error="session_mode_known"), nullable=False),
            "energy_kwh": _number(_within(-_PACK_KWH, _PACK_KWH, "session_energy_possible")),
            "soc_start_pct": _number(_within(0, 100, "session_soc_0_100_pct")),
            "soc_end_pct": _number(_within(0, 100, "session_soc_0_100_pct")),
            "gap_share": _number(_within(0, 1, "session_gap_share_0_1")),
        },
        checks=[pa.Check(_ends_after_start, error="session_ends_after_its_start")],
        strict=False,
    ),
    "fct_trip": pa.DataFrameSchema(
        {
            "device_no": pa.Column(pl.String, nullable=False),
            "trip_id": pa.Column(pl.String, nullable=False),
            "started_at": pa.Column(pl.Datetime("us"), nullable=False),
            "distance_km": _number(_at_least(0, "trip_distance_not_negative")),
            "energy_out_kwh": _number(_within(-_ROUNDING_KWH, _PACK_KWH, "trip_energy_possible")),
            "energy_regen_kwh": _number(_within(-_ROUNDING_KWH, _PACK_KWH, "trip_energy_possible")),
        },
        checks=[pa.Check(_ends_after_start, error="trip_ends_after_its_start")],
        strict=False,
    ),
    "fct_energy_daily": pa.DataFrameSchema(
        {
            "device_no": pa.Column(pl.String, nullable=False),
            "service_date": pa.Column(pl.Date, nullable=False),
            "charged_kwh": _number(_within(-_ROUNDING_KWH, 24 * _CHARGER_KW, "day_charge_possible")),
            "charged_dc_kwh": _number(_at_least(-_ROUNDING_KWH, "day_charge_not_negative")),
            "session_charged_kwh": _number(),
            "days_charged_kwh": _number(),
        },
        checks=[pa.Check(_days_add_up_to_sessions, error="days_add_up_to_sessions")],
        strict=False,
    ),
    "fct_soc_daily": pa.DataFrameSchema(
        {
            "device_no": pa.Column(pl.String, nullable=False),
            "service_date": pa.Column(pl.Date, nullable=False),
            "soc_min_pct": _number(_within(0, 100, "day_soc_0_100_pct")),
            "soc_max_pct": _number(_within(0, 100, "day_soc_0_100_pct")),
            "soc_end_pct": _number(_within(0, 100, "day_soc_0_100_pct")),
            "high_soc_h": _number(_within(-_ROUNDING_H, 24 + _ROUNDING_H, "day_soc_hours_0_24")),
            "low_soc_h": _number(_within(-_ROUNDING_H, 24 + _ROUNDING_H, "day_soc_hours_0_24")),
        },
        checks=[
            pa.Check(_day_has_its_hours, error="day_has_24_hours_at_most"),
            _in_order("soc_min_pct", "soc_mean_pct", "soc_max_pct"),
        ],
        strict=False,
    ),
    "fct_exposure_monthly": pa.DataFrameSchema(
        {
            "device_no": pa.Column(pl.String, nullable=False),
            "measured_month": pa.Column(pl.String, nullable=False),
            "kind": pa.Column(pl.String, pa.Check.isin(list(_EXPOSURES), error="exposure_kind_known"), nullable=False),
            "hours": _number(_within(-_ROUNDING_H, 31 * 24 + _ROUNDING_H, "exposure_hours_possible")),
            "share_pct": _number(_within(0, 100 + _ROUNDING_H, "exposure_share_0_100_pct")),
        },
        checks=[
            pa.Check(_kinds_have_the_same_hours, error="exposure_kinds_have_the_same_hours"),
            _gap_has_its_reason("band_from", "unknown_because"),
        ],
        strict=False,
    ),
    "fct_efficiency_monthly": pa.DataFrameSchema(
        {
            "device_no": pa.Column(pl.String, nullable=False),
            "measured_month": pa.Column(pl.String, nullable=False),
            "band_kind": pa.Column(
                pl.String, pa.Check.isin(list(_BAND_KINDS), error="efficiency_kind_known"), nullable=False
            ),
            "kwh_per_100km": _number(_within(0, _KWH_PER_100KM_MAX, "consumption_possible")),
            "regen_share_pct": _number(_within(-_ROUNDING_KWH, 100, "regen_share_0_100_pct")),
        },
        checks=[
            _in_order("kwh_per_100km_lo", "kwh_per_100km", "kwh_per_100km_hi"),
            _gap_has_its_reason("kwh_per_100km", "missing_because"),
        ],
        strict=False,
    ),
    "fct_power_monthly": pa.DataFrameSchema(
        {
            "device_no": pa.Column(pl.String, nullable=False),
            "measured_month": pa.Column(pl.String, nullable=False),
            "resistance_mohm": _number(_within(0, _OHM_MAX_M, "resistance_possible")),
            "acceptable_charge_p90_kw": _number(_at_least(0, "power_limit_not_negative")),
            "acceptable_discharge_p90_kw": _number(_at_least(0, "power_limit_not_negative")),
        },
        checks=[
            _in_order("resistance_lo_mohm", "resistance_mohm", "resistance_hi_mohm"),
            _gap_has_its_reason("resistance_mohm", "resistance_missing_because"),
        ],
        strict=False,
    ),
    "fct_charge_curve": pa.DataFrameSchema(
        {
            "device_no": pa.Column(pl.String, nullable=False),
            "power_p50_kw": _number(_within(0, _CHARGER_KW, "charge_power_possible")),
            "current_p50_a": _number(_at_least(0, "charge_current_not_negative")),
        },
        checks=[_in_order("power_p50_kw", "power_p90_kw", "power_max_kw")],
        strict=False,
    ),
    "fct_parked_loss": pa.DataFrameSchema(
        {
            "device_no": pa.Column(pl.String, nullable=False),
            "measured_month": pa.Column(pl.String, nullable=False),
            "parked_h": _number(_within(-_ROUNDING_H, 31 * 24 + _ROUNDING_H, "parked_hours_possible")),
            "idle_h": _number(_within(-_ROUNDING_H, 31 * 24 + _ROUNDING_H, "idle_hours_possible")),
        },
        checks=[_in_order("soc_lost_lo_pct_per_day", "soc_lost_pct_per_day", "soc_lost_hi_pct_per_day")],
        strict=False,
    ),
    "fct_counter_audit_monthly": pa.DataFrameSchema(
        {
            "device_no": pa.Column(pl.String, nullable=False),
            "measured_month": pa.Column(pl.String, nullable=False),
            "verdict": pa.Column(pl.String, pa.Check.isin(list(_VERDICTS), error="verdict_known"), nullable=False),
            "discharged_ah": _number(_at_least(-_ROUNDING_H, "discharge_not_negative")),
        },
        checks=[
            _in_order("charge_balance_lo", "charge_balance_ratio", "charge_balance_hi"),
            _in_order("current_offset_lo_a", "current_offset_a", "current_offset_hi_a"),
        ],
        strict=False,
    ),
    "fct_capacity_estimate": pa.DataFrameSchema(
        {
            "device_no": pa.Column(pl.String, nullable=False),
            "method": pa.Column(
                pl.String, pa.Check.isin(["charge", "ocv"], error="capacity_method_known"), nullable=False
            ),
            "capacity_ah": _number(_within(1, 1_000, "capacity_possible")),
            "capacity_sd_ah": _number(_at_least(0, "capacity_sd_not_negative")),
            "soc_delta_pct": _number(_within(-101, 101, "capacity_soc_delta_possible")),
        },
        strict=False,
    ),
    "fct_soh_monthly": pa.DataFrameSchema(
        {
            "device_no": pa.Column(pl.String, nullable=False),
            "measured_month": pa.Column(pl.String, nullable=False),
            "soh_pct": _number(_within(30, 130, "soh_possible")),
            "prior_share": _number(_within(0, 1, "prior_share_0_1")),
            "method": pa.Column(
                pl.String,
                pa.Check.isin(["none", "charge", "ocv", "ocv+charge"], error="soh_method_known"),
                nullable=False,
            ),
        },
        checks=[
            _in_order("soh_lo_pct", "soh_pct", "soh_hi_pct"),
            _in_order("soh_ocv_lo_pct", "soh_ocv_pct", "soh_ocv_hi_pct"),
            _in_order("soh_charge_lo_pct", "soh_charge_pct", "soh_charge_hi_pct"),
            _in_order("slope_lo_pct_per_year", "slope_pct_per_year", "slope_hi_pct_per_year"),
            _in_order("slope_data_lo_pct_per_year", "slope_data_pct_per_year", "slope_data_hi_pct_per_year"),
            _in_order(
                "slope_data_lo_pct_per_100_cycles", "slope_data_pct_per_100_cycles", "slope_data_hi_pct_per_100_cycles"
            ),
            _in_order("soc_bias_lo_pct", "soc_bias_pct", "soc_bias_hi_pct"),
        ],
        strict=False,
    ),
}
"""One schema per checked mart. `days_distance_km` is added to a month: the sum of its days; `session_charged_kwh` and
`days_charged_kwh` to a day: the sums of its device's sessions and of all its device's days; `kind_h` and `span_h` to an
exposure: the hours of its kind in the month, and those of its device's days there."""

SITE_CHECKS: dict[str, pa.DataFrameSchema] = {
    "dim_site": pa.DataFrameSchema(
        {
            "site_id": pa.Column(pl.String, nullable=False, unique=True),
            "lat": pa.Column(pl.Float64, _within(-90, 90, "site_is_on_earth"), nullable=False),
            "lng": pa.Column(pl.Float64, _within(-180, 180, "site_is_on_earth"), nullable=False),
            "device_count": _count(1, name="site_has_a_car"),
            "session_count": _count(1, name="site_has_a_session"),
            "dc_session_count": _count(name="site_use_not_negative"),
            "energy_kwh": _number(_at_least(-_ROUNDING_KWH, "site_use_not_negative")),
            "charging_min": _number(_at_least(0, "site_use_not_negative")),
            "connected_min": _number(_at_least(0, "site_use_not_negative")),
            "power_max_kw": _number(_within(0, _CHARGER_KW, "site_power_possible")),
        },
        checks=[
            _not_after("first_session_at", "last_session_at"),
            _not_after("dc_session_count", "session_count"),
            _not_after("device_count", "session_count"),
        ],
        strict=False,
    ),
    "fct_site_usage": pa.DataFrameSchema(
        {
            "site_id": pa.Column(pl.String, nullable=False),
            "weekday": _count(1, 7, name="weekday_1_to_7"),
            "hour": _count(0, 23, name="hour_0_to_23"),
            "sessions": _count(name="hour_use_not_negative"),
            "energy_kwh": _number(_at_least(-_ROUNDING_KWH, "hour_use_not_negative")),
            "charging_min": _number(_at_least(-_ROUNDING_H, "hour_use_not_negative")),
            "connected_min": _number(_at_least(-_ROUNDING_H, "hour_use_not_negative")),
        },
        unique=["site_id", "weekday", "hour"],
        strict=False,
    ),
}
"""One schema per table of sites: they are the fleet's, so nothing of them can be held for a device."""

_HOLDS = {
    "capacity_method_known", "soh_method_known",
    "day_distance_possible", "month_distance_possible", "days_add_up_to_month", "grade_a_to_d", "event_code_known",
    "session_mode_known", "session_ends_after_its_start", "trip_ends_after_its_start", "days_add_up_to_sessions",
    "day_has_24_hours_at_most", "exposure_kinds_have_the_same_hours", "exposure_kind_known", "efficiency_kind_known",
    "verdict_known",
}  # fmt: skip


def check_devices(
    table: str, frame: pl.DataFrame, devices: Sequence[str]
) -> tuple[dict[str, list[Outcome]], dict[tuple[str, str], list[Outcome]]]:
    """Outcomes of one mart: per device, and per (device, month). `frame` holds the rows of these devices."""
    severities = dict.fromkeys(_HOLDS, Severity.HOLD)
    by_device = outcomes_by(MART_CHECKS[table], frame, severities, ["device_no"])
    by_month = outcomes_by(MART_CHECKS[table], frame, severities, ["device_no", "measured_month"])
    nothing = outcomes_by(MART_CHECKS[table], frame.clear(), severities, [])[()]
    return (
        {device: by_device.get((device,), nothing) for device in devices},
        {(key[0], key[1]): found for key, found in by_month.items()},
    )


def check_sites(sites: pl.DataFrame, usage: pl.DataFrame) -> list[Outcome]:
    """Outcomes of the sites and of their use."""
    frames = {"dim_site": sites, "fct_site_usage": usage}
    return [o for table, frame in frames.items() for o in outcomes_by(SITE_CHECKS[table], frame, {}, [])[()]]
