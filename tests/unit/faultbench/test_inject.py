"""What an injected fault does to rows, and what it leaves alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from baas_dagster.anomaly.rows import NO_VALUE, Car, Rows
from baas_dagster.faultbench.inject import (
    ROW_CODES,
    WHOLE_CHAIN,
    Counters,
    Injection,
    drift_counters,
    inject,
    reset_counters,
    resolution,
    settled,
)
from baas_dagster.faultbench.reference import BENCH_STRENGTHS, PRESENT_OR_ABSENT, REFERENCE, size_of
from baas_dagster.telemetry.columns import TableKind, lake_schema

F64 = NDArray[np.float64]
DAY = 86_400.0
BEGIN = 19_400 * DAY
CAR = Car("01290000001", "NMC", "egmp_180", 12, 6, None, 3000.0, 111.2)
FIGURES = ("cell_min_mv", "cell_max_mv", "cell_mean_mv", "cell_sum_mv")


def log(step_mv: int = 20, days: int = 12, dt_s: float = 30.0) -> Rows:
    """Days of two drives of half an hour and a charge of an hour, silence between; 12 cells and 6 modules."""
    rng = np.random.default_rng(4)
    parts: list[tuple[F64, F64, F64, F64]] = []
    for day in range(days):
        for hour, length, amps, kmh in ((8, 1800, -25.0, 50.0), (14, 3600, 17.0, 0.0), (18, 1800, -25.0, 50.0)):
            t = BEGIN + day * DAY + hour * 3600 + np.arange(0, length + 1, dt_s)
            current = np.full(len(t), amps)
            current[[0, 1, -2, -1]] = -0.3
            soc = (62.0 if hour == 14 else 70.0) + np.sign(amps) * np.linspace(0, 8, len(t))
            parts.append((t, current, soc, np.where(current < -1, kmh, 0.0)))
    t, current, soc, speed = (np.concatenate(column) for column in zip(*parts, strict=True))
    n = len(t)
    volts = 3300 + 8 * soc + 0.4 * current
    cells = volts[:, None] + rng.normal(0, 2, 12) + rng.normal(0, 1, (n, 12))
    cell_mv = (np.round(cells / step_mv) * step_mv).astype(np.int16)
    temps = 20 + 4 * np.sin(t / 40_000)[:, None] + np.linspace(0, 1.5, 6)
    module_temp_dc = (10 * np.round(temps)).astype(np.int16)
    columns = {
        "pack_voltage_v": np.round(cell_mv.sum(axis=1) / 100) / 10,
        "pack_current_a": np.round(current, 1),
        "soc_pct": np.round(2 * soc) / 2,
        "soc_display_pct": np.round(2 * soc) / 2,
        "speed_kmh": speed + rng.integers(0, 3, n) * (speed > 0),
        "insulation_kohm": np.where(np.append(True, np.diff(t) > 180), 0.0, 3000.0),
        "module_max_c": module_temp_dc.max(axis=1) / 10,
        "module_min_c": module_temp_dc.min(axis=1) / 10,
        "pack_temp_c": module_temp_dc.mean(axis=1) / 10,
        "is_cell_suspect": np.zeros(n),
        "cell_min_mv": cell_mv.min(axis=1).astype(float),
        "cell_max_mv": cell_mv.max(axis=1).astype(float),
        "cell_mean_mv": cell_mv.mean(axis=1),
        "cell_sum_mv": cell_mv.sum(axis=1).astype(float),
    }
    return Rows(t, columns, cell_mv, module_temp_dc)


ROWS = log()
ONSET = BEGIN + 3 * DAY + 10 * 3600
AFTER = ROWS.t_s >= ONSET


def fault(code: str, strength: float | None = 1.0, **more: object) -> Injection:
    known: dict[str, object] = {"cell_no": 5, "module_no": 2, "slope": lambda soc: 8.0, "seed": 3}
    if code == "FAULT_OR_SENSOR":
        known["variant"] = "hot"
    return replace(Injection(code, ONSET, None if code in PRESENT_OR_ABSENT else strength), **{**known, **more})  # type: ignore[arg-type]


def shift(after: Rows, before: Rows = ROWS) -> F64:
    assert after.cell_mv is not None
    assert before.cell_mv is not None
    return (after.cell_mv[:, 4].astype(float) - before.cell_mv[:, 4])[before.t_s >= ONSET]


def module(rows: Rows, number: int = 2) -> F64:
    assert rows.module_temp_dc is not None
    return rows.module_temp_dc[:, number - 1] / 10


def minutes(mask: NDArray[np.bool_]) -> list[float]:
    """Minutes from the first to the last row of every run without a gap."""
    at = np.flatnonzero(mask)
    parts = np.split(at, np.flatnonzero(np.diff(ROWS.t_s[at]) > 180) + 1)
    return [float(ROWS.t_s[part[-1]] - ROWS.t_s[part[0]]) / 60 for part in parts]


# --- every code -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("code", [c for c in ROW_CODES if c != "DEVICE_SILENT"])
def test_rows_before_the_onset_flags_and_the_given_rows_stay_as_they_are(code: str) -> None:
    given = log()
    found = inject(given, CAR, fault(code))
    assert np.array_equal(found.t_s, ROWS.t_s)
    for name, values in ROWS.columns.items():
        assert np.array_equal(found[name][~AFTER], values[~AFTER], equal_nan=True), name
        assert np.array_equal(given[name], values, equal_nan=True), name
    assert np.array_equal(found["is_cell_suspect"], ROWS["is_cell_suspect"])
    for mine, theirs in ((found.cell_mv, ROWS.cell_mv), (found.module_temp_dc, ROWS.module_temp_dc)):
        assert mine is not None
        assert theirs is not None
        assert np.array_equal(mine[~AFTER], theirs[~AFTER])
    assert np.array_equal(given.cell_mv, ROWS.cell_mv)  # type: ignore[arg-type]


@pytest.mark.parametrize("code", ROW_CODES)
def test_every_fault_changes_rows_and_the_same_fault_gives_the_same_rows(code: str) -> None:
    first, second = inject(ROWS, CAR, fault(code)), inject(ROWS, CAR, fault(code))
    if code == "DEVICE_SILENT":
        assert len(first) == (~AFTER).sum()
        assert first.cell_mv is not None
        assert len(first.cell_mv) == len(first["soc_pct"]) == len(first)
        return
    names = list(ROWS.columns)
    assert all(np.array_equal(first[n], second[n], equal_nan=True) for n in names)
    assert np.array_equal(first.cell_mv, second.cell_mv)  # type: ignore[arg-type]
    is_same = all(np.array_equal(first[n], ROWS[n], equal_nan=True) for n in names)
    assert not (
        is_same and np.array_equal(first.cell_mv, ROWS.cell_mv)  # type: ignore[arg-type]
        and np.array_equal(first.module_temp_dc, ROWS.module_temp_dc)  # type: ignore[arg-type]
    )  # fmt: skip


@pytest.mark.parametrize("code", [c for c in ROW_CODES if c != "DEVICE_SILENT"])
def test_a_car_without_the_channel_keeps_lacking_it(code: str) -> None:
    bare = Rows(ROWS.t_s, {"pack_current_a": ROWS["pack_current_a"]})
    found = inject(bare, CAR, fault(code))
    assert set(found.columns) == {"pack_current_a"}
    assert found.cell_mv is None
    assert found.module_temp_dc is None


@pytest.mark.parametrize("code", WHOLE_CHAIN)
def test_what_is_judged_from_marts_is_refused(code: str) -> None:
    with pytest.raises(ValueError, match="staged rows"):
        inject(ROWS, CAR, Injection(code, ONSET, 1.0))


@pytest.mark.parametrize("given", [{"cell_no": None}, {"cell_no": 13}, {"slope": None}])
def test_a_leak_without_a_cell_or_a_curve_is_refused(given: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"cell|slope"):
        inject(ROWS, CAR, fault("CELL_SELF_DISCHARGE", **given))


# --- cells ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("step_mv", [1, 20])
@pytest.mark.parametrize("strength", BENCH_STRENGTHS)
def test_a_low_cell_is_low_by_its_size_on_average_and_keeps_the_cars_resolution(step_mv: int, strength: float) -> None:
    rows = log(step_mv)
    found = inject(rows, CAR, fault("CELL_OUTLIER", strength))
    moved = shift(found, rows)
    assert moved.mean() == pytest.approx(-25 * strength, abs=1.5)
    assert found.cell_mv is not None
    assert (found.cell_mv % step_mv == 0).all()
    assert np.array_equal(np.delete(found.cell_mv, 4, axis=1), np.delete(rows.cell_mv, 4, axis=1))  # type: ignore[arg-type]
    assert np.allclose(found["cell_min_mv"], found.cell_mv.min(axis=1))
    assert np.allclose(found["cell_sum_mv"], found.cell_mv.sum(axis=1))
    assert np.allclose(found["cell_mean_mv"], found.cell_mv.mean(axis=1))
    volts = (found["pack_voltage_v"] - rows["pack_voltage_v"])[AFTER]
    assert volts.mean() == pytest.approx(-0.025 * strength, abs=0.005)


def test_a_reading_that_stands_still_goes_on_standing_still() -> None:
    assert ROWS.cell_mv is not None
    still = Rows(ROWS.t_s, ROWS.columns, np.full_like(ROWS.cell_mv, 3_800))
    still.cell_mv[::97, 0] = 3_820  # type: ignore[index]  # the other cells say what a step is
    found = inject(still, CAR, fault("CELL_OUTLIER", 1.0)).cell_mv
    assert found is not None
    for day in np.unique(ROWS.day[AFTER]):
        drive = AFTER & (ROWS.day == day) & (ROWS.t_s % DAY > 17.9 * 3600)
        assert len(np.unique(found[drive, 4])) == 1


def test_no_value_stays_none_and_does_not_enter_the_figures() -> None:
    holed = log()
    assert holed.cell_mv is not None
    holed.cell_mv[::3, 4] = NO_VALUE
    holed.cell_mv[:, 7] = NO_VALUE
    found = inject(holed, CAR, fault("CELL_OUTLIER", 2.0))
    assert found.cell_mv is not None
    assert np.array_equal(found.cell_mv == NO_VALUE, holed.cell_mv == NO_VALUE)
    assert found["cell_min_mv"].min() > 3_000


def test_a_leak_grows_with_time_parked_or_not_through_the_slope_and_the_capacity() -> None:
    fine = log(1)
    found = shift(inject(fine, CAR, fault("CELL_SELF_DISCHARGE", 2.0)), fine)
    hours = (ROWS.t_s[AFTER] - ONSET) / 3600
    expected = -8.0 * 100 * 0.040 * hours / 111.2
    assert np.polyfit(expected, found, 1)[0] == pytest.approx(1, abs=0.01)
    assert found[-240:].mean() == pytest.approx(expected[-240:].mean(), rel=0.02)
    flat = shift(inject(fine, CAR, fault("CELL_SELF_DISCHARGE", 2.0, slope=lambda soc: 4.0)), fine)
    assert flat[-240:].mean() == pytest.approx(expected[-240:].mean() / 2, rel=0.02)


def test_a_leak_ends_where_balancing_keeps_up_with_it_and_a_cell_within_what_units_report() -> None:
    long = log(days=60)
    moved = shift(inject(long, CAR, fault("CELL_SELF_DISCHARGE", 4.0)), long)
    assert moved.min() >= -8 * 25 - 20
    assert moved[-40:].mean() == pytest.approx(-8 * 25, abs=5)
    low = inject(long, CAR, fault("CELL_SELF_DISCHARGE", 4.0, slope=lambda soc: 400.0)).cell_mv
    assert low is not None
    assert low.min() >= 1_500


def test_a_cell_is_apart_while_the_car_charges_and_only_then() -> None:
    moved = shift(inject(ROWS, CAR, fault("CELL_SPREAD", 2.0)))
    charging = (ROWS["pack_current_a"] > 3)[AFTER]
    assert moved[charging].mean() == pytest.approx(200, abs=3)
    assert (moved[~charging] == 0).all()


def test_recuperation_is_no_charge() -> None:
    current = ROWS["pack_current_a"].copy()
    braking = (ROWS["speed_kmh"] > 5) & (np.arange(len(ROWS)) % 7 < 3)
    current[braking] = 40.0
    rows = replace(ROWS, columns={**ROWS.columns, "pack_current_a": current})
    assert (shift(inject(rows, CAR, fault("CELL_SPREAD", 2.0)), rows)[braking[AFTER]] == 0).all()


@pytest.mark.parametrize(
    ("code", "chemistry", "limit"),
    [
        ("CELL_OVERVOLT", "NMC", 4_380),
        ("CELL_UNDERVOLT", "NMC", 2_200),
        ("CELL_OVERVOLT", "LFP", 3_950),
        ("CELL_UNDERVOLT", "LFP", 1_800),
    ],
)
def test_a_cell_leaves_its_limits_for_some_minutes_a_day(code: str, chemistry: str, limit: int) -> None:
    found = inject(ROWS, replace(CAR, chemistry=chemistry), fault(code))
    moved = np.zeros(len(ROWS), dtype=bool)
    moved[AFTER] = shift(found) != 0
    assert found.cell_mv is not None
    assert np.abs(found.cell_mv[moved, 4] - limit).max() <= 20
    assert len(minutes(moved)) == 8 + (code == "CELL_OVERVOLT") + (code == "CELL_UNDERVOLT")  # days from the onset on
    assert 4 <= min(minutes(moved)) <= max(minutes(moved)) <= 10.5


# --- modules ----------------------------------------------------------------------------------------------------------
def test_a_module_is_warmer_under_load_and_no_warmer_after_a_silence() -> None:
    found = inject(ROWS, CAR, fault("TEMP_SPREAD", 2.0))
    excess = module(found) - module(ROWS)
    assert excess.max() == pytest.approx(16, abs=1)
    late = AFTER & (np.abs(ROWS["pack_current_a"]) > 10) & (np.roll(ROWS.gap_s, 0) < 60)
    assert np.median(excess[late]) > 13
    assert np.abs(excess[AFTER & (ROWS.gap_s > 3_600)]).max() <= 1
    assert np.allclose(found["module_max_c"], found.module_temp_dc.max(axis=1) / 10)  # type: ignore[union-attr]
    assert np.allclose(found["pack_temp_c"], found.module_temp_dc.mean(axis=1) / 10)  # type: ignore[union-attr]
    assert (found.module_temp_dc % 10 == 0).all()  # type: ignore[operator]


@pytest.mark.parametrize("strength", [0.5, 2.0, 4.0])
def test_the_hottest_module_is_at_its_temperature_for_ten_minutes_a_day(strength: float) -> None:
    found = inject(ROWS, CAR, fault("TEMP_HIGH", strength))
    target = round(45 + 5 * strength)
    hot = module(found) >= target - 1
    assert module(found).max() == pytest.approx(target, abs=1)
    assert len(minutes(hot)) == 9
    assert 9 <= min(minutes(hot)) <= max(minutes(hot)) <= 13
    assert (found.module_temp_dc[hot].argmax(axis=1) == 1).all()  # type: ignore[index]
    spread = found["module_max_c"] - found["module_min_c"]
    assert spread.max() < 8


def test_a_module_rises_by_its_rate_for_three_minutes_a_day() -> None:
    excess = module(inject(ROWS, CAR, fault("TEMP_RISE", 2.0))) - module(ROWS)
    assert excess.max() == pytest.approx(18, abs=1.1)
    near = ROWS.t_s[4:] - ROWS.t_s[:-4] == 120
    assert (excess[4:] - excess[:-4])[near].max() == pytest.approx(12, abs=1.1)
    assert len(minutes(excess > 10)) == 9


def test_a_stuck_sensor_keeps_the_value_it_had_at_the_onset_through_the_months() -> None:
    stuck = settled(fault("TEMP_SENSOR"), ROWS)
    at = int(np.argmin(np.abs(ROWS.t_s - ONSET)))
    assert (module(inject(ROWS, CAR, stuck))[AFTER] == module(ROWS)[at]).all()
    later = replace(ROWS, t_s=ROWS.t_s + 30 * DAY)
    assert (module(inject(later, CAR, stuck)) == module(ROWS)[at]).all()


# --- insulation, charge, sensors --------------------------------------------------------------------------------------
@pytest.mark.parametrize("strength", [1.0, 4.0])
def test_insulation_is_ohm_per_volt_and_zero_at_waking_and_what_is_lower_stays(strength: float) -> None:
    found = inject(ROWS, CAR, fault("INSULATION_LOW", strength))["insulation_kohm"]
    asleep = ROWS["insulation_kohm"] == 0
    ohm_per_v = 1000 * found / ROWS["pack_voltage_v"]
    assert ohm_per_v[AFTER & ~asleep] == pytest.approx(300 / strength, abs=12)
    assert (found[asleep] == 0).all()
    low = replace(ROWS, columns={**ROWS.columns, "insulation_kohm": np.full(len(ROWS), 1.0)})
    assert (inject(low, CAR, fault("INSULATION_LOW", strength))["insulation_kohm"] == 1.0).all()


def test_charge_jumps_by_its_size_in_one_row_and_is_right_after_a_rest() -> None:
    found = inject(ROWS, CAR, fault("SOC_JUMP", 2.0))
    off = found["soc_pct"] - ROWS["soc_pct"]
    steps = np.abs(np.diff(off))[np.diff(ROWS.t_s) < 120]
    assert set(np.unique(steps)) == {0.0, 12.0}
    assert (steps > 0).sum() == 3  # every fourth day of nine
    assert (off[ROWS.gap_s > 7_200] == 0).all()
    assert np.array_equal(off, found["soc_display_pct"] - ROWS["soc_display_pct"])


def test_charge_is_all_but_gone_for_minutes_without_a_jump_between_near_rows() -> None:
    soc = inject(ROWS, CAR, fault("SOC_LOW"))["soc_pct"]
    low = soc <= 3
    assert len(minutes(low)) >= 8
    assert min(minutes(low)) >= 9
    assert np.abs(np.diff(soc))[np.diff(ROWS.t_s) < 120].max() <= 2


def test_voltage_and_current_stand_still_while_speed_changes() -> None:
    found = inject(ROWS, CAR, fault("SENSOR_FROZEN"))
    noisy = replace(ROWS, columns={**ROWS.columns, "pack_current_a": ROWS["pack_current_a"] + ROWS.t_s % 7})
    held = np.diff(inject(noisy, CAR, fault("SENSOR_FROZEN"))["pack_current_a"]) == 0
    assert max(minutes(np.append(False, held))) == pytest.approx(5, abs=1)
    assert not held[ROWS["speed_kmh"][1:] < 5].any()
    assert np.array_equal(found["speed_kmh"], ROWS["speed_kmh"])


@pytest.mark.parametrize("variant", ["hot", "cell", "insulation"])
def test_a_burning_car_is_outside_of_physics_for_minutes(variant: str) -> None:
    found = inject(ROWS, CAR, fault("FAULT_OR_SENSOR", variant=variant))
    assert found.cell_mv is not None
    wrong = {
        "hot": module(found) > 90,
        "cell": found.cell_mv[:, 4] == 1_200,
        "insulation": (found["insulation_kohm"] == 0) & (ROWS["insulation_kohm"] > 0),
    }[variant]
    assert not wrong[~AFTER].any()
    assert max(minutes(wrong)) >= {"hot": 4, "cell": 17, "insulation": 29}[variant]
    assert wrong.sum() >= {"hot": 8, "cell": 30, "insulation": 50}[variant]
    if variant == "cell":
        assert found["cell_min_mv"].min() == 1_200


# --- tools ------------------------------------------------------------------------------------------------------------
def test_resolution_is_the_step_of_the_readings() -> None:
    assert resolution(np.array([3_780, 3_800, 3_860, NO_VALUE], dtype=np.int16)) == 20
    assert resolution(np.array([3_780, 3_801], dtype=np.int16)) == 1
    assert resolution(np.array([NO_VALUE, 3_800], dtype=np.int16)) == 20
    assert resolution(np.array([NO_VALUE], dtype=np.int16)) == 1
    assert resolution(np.array([205, 210], dtype=np.int16), (10, 5, 1)) == 5


def test_reference_sizes_are_those_of_domain_7() -> None:
    sizes = {key: reference.at(1.0) for key, reference in REFERENCE.items()}
    assert sizes == {
        ("CELL_OUTLIER", ""): 25, ("CELL_LOWEST", ""): 25, ("CELL_SELF_DISCHARGE", ""): 20, ("CELL_SPREAD", ""): 100,
        ("TEMP_SPREAD", ""): 8, ("TEMP_HIGH", ""): 50, ("TEMP_RISE", ""): 3, ("INSULATION_LOW", ""): 300,
        ("SOC_JUMP", ""): 6, ("SOH_FADE", ""): 4, ("COUNTER_DRIFT", "asymmetry"): 3, ("COUNTER_DRIFT", "offset"): 0.3,
    }  # fmt: skip
    assert size_of("TEMP_HIGH", 2.0) == (55, "degC")
    assert size_of("INSULATION_LOW", 4.0) == (75, "Ohm/V")
    assert size_of("SOC_LOW", None) == (None, "")
    with pytest.raises(ValueError, match="strength"):
        size_of("CELL_OUTLIER", None)


# --- counters in delivered slices -------------------------------------------------------------------------------------
def delivered(current_sign: float = -1.0) -> pa.Table:
    """The log as a slice of the lake, newest first, counters in tenths."""
    hours = np.where(ROWS.gap_s < 180, ROWS.gap_s, 0.0) / 3600
    amps = ROWS["pack_current_a"]
    charged, discharged = 1000 + np.cumsum(np.maximum(amps, 0) * hours), 900 + np.cumsum(np.maximum(-amps, 0) * hours)
    columns = {
        "time": (ROWS.t_s * 1e6).astype("int64").astype("datetime64[us]"),
        "pack_current": amps * current_sign,
        "cumul_current_chrgd": np.floor(10 * charged) / 10,
        "cumul_current_dischrgd": np.floor(10 * discharged) / 10,
        "cumul_pw_chrgd": np.floor(10 * 0.4 * charged) / 10,
        "cumul_pw_dischrgd": np.floor(10 * 0.4 * discharged) / 10,
        "op_time": 5e6 + np.cumsum(hours) * 3600,
    }
    schema = lake_schema(TableKind.BMS)
    arrays = [
        pa.array(columns[field.name][::-1]).cast(field.type)
        if field.name in columns
        else pa.nulls(len(ROWS), field.type)
        for field in schema
    ]
    return pa.Table.from_arrays(arrays, schema=schema)


def column(table: pa.Table, name: str) -> F64:
    return np.asarray(table.column(name).to_numpy(zero_copy_only=False), dtype=float)[::-1]


def test_asymmetric_counters_miss_a_share_of_what_was_taken_since_the_onset() -> None:
    before = delivered()
    after, _ = drift_counters(before, ONSET, 2.0, "asymmetry", 1.0, -1.0)
    taken = [np.diff(column(t, "cumul_current_dischrgd")[[int(np.argmax(AFTER)), -1]])[0] for t in (before, after)]
    assert taken[1] / taken[0] == pytest.approx(0.94, abs=0.005)
    assert np.array_equal(column(after, "cumul_current_chrgd"), column(before, "cumul_current_chrgd"))
    driving = AFTER & (ROWS["pack_current_a"] < -20)
    assert column(after, "pack_current")[driving] == pytest.approx(25 * 0.94, abs=0.06)
    assert np.array_equal(column(after, "pack_current")[~AFTER], column(before, "pack_current")[~AFTER])
    assert after.schema == before.schema
    assert after.column("soc").null_count == len(ROWS)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_an_offset_is_counted_while_the_car_is_awake(sign: float) -> None:
    before = delivered()
    after, _ = drift_counters(before, ONSET, 1.0, "offset", sign, -1.0)
    hours = (np.where(ROWS.gap_s < 180, ROWS.gap_s, 0.0) / 3600)[AFTER].sum()
    net = [column(t, "cumul_current_chrgd") - column(t, "cumul_current_dischrgd") for t in (before, after)]
    assert (net[1] - net[0])[-1] == pytest.approx(sign * 0.3 * hours, rel=0.1, abs=0.2)
    for name in ("cumul_current_chrgd", "cumul_current_dischrgd", "cumul_pw_dischrgd"):
        assert np.diff(column(after, name)).min() >= 0


@pytest.mark.parametrize("kind", ["asymmetry", "offset", "reset"])
def test_a_car_in_two_slices_reads_as_in_one(kind: str) -> None:
    whole = delivered()
    cut = len(ROWS) // 2  # newest first: the later half comes first in the table

    def run(table: pa.Table, state: Counters | None) -> tuple[pa.Table, Counters]:
        if kind == "reset":
            return reset_counters(table, ONSET, state)
        return drift_counters(table, ONSET, 2.0, kind, 1.0, -1.0, state)

    one, _ = run(whole, None)
    early, state = run(whole.slice(cut), None)
    late, _ = run(whole.slice(0, cut), state)
    for name in ("cumul_current_chrgd", "cumul_current_dischrgd", "pack_current", "op_time"):
        joined = np.concatenate([column(early, name), column(late, name)])
        assert joined == pytest.approx(column(one, name), abs=0.1001), name


def test_counters_start_anew_and_go_on() -> None:
    before = delivered()
    after, _ = reset_counters(before, ONSET)
    for name in ("cumul_current_chrgd", "cumul_pw_dischrgd", "op_time"):
        values, old = column(after, name), column(before, name)
        assert np.array_equal(values[~AFTER], old[~AFTER])
        assert values[int(np.argmax(AFTER))] == 0
        assert values[-1] == pytest.approx(old[-1] - old[int(np.argmax(AFTER))], abs=0.1)
