"""Cells: what is an outlier, a leak, a spread, an extreme; and what is none of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from baas_dagster.anomaly.cells import CODES, DETECTOR, cell_months, false_discovery
from baas_dagster.anomaly.detector import Context
from baas_dagster.anomaly.episodes import episodes
from baas_dagster.anomaly.rows import Car, Rows
from baas_dagster.anomaly.rules import RULES

F64 = NDArray[np.float64]
DAY = 86_400.0
BEGIN = 19_400 * DAY
CELLS = 40
CAR = Car("01290000001", "NMC", "egmp_180", CELLS, capacity_nominal_ah=111.0)


@dataclass
class World:
    """A car that is driven twice a day and charged slowly every third night; 30 s rows, 20 mV steps."""

    days: int = 28
    step_mv: int = 20
    cells: int = CELLS
    every: int = 1  # days between days on which it is used
    charged_every: int = 3
    shift: Any = None  # (t_s, kind, soc) -> (n, cells) mV, what is wrong
    seed: int = 5
    offset_mv: F64 = field(init=False)

    def __post_init__(self) -> None:
        rng = np.random.default_rng(self.seed)
        self.offset_mv = rng.normal(0, 3, self.cells)

    def rows(self) -> Rows:
        rng = np.random.default_rng(self.seed + 1)
        t, current, speed, soc, kind = [], [], [], [], []
        for day in range(0, self.days, self.every):
            level = 75.0 - 8 * (day % self.charged_every) + rng.uniform(-4, 4)
            for hour in (7.5, 18.0):
                at = BEGIN + day * DAY + (hour + rng.uniform(-0.5, 0.5)) * 3600
                n = 40
                t.append(at + 30 * np.arange(n))
                driving = np.arange(n) >= 3
                current.append(np.where(driving, rng.normal(-40, 25, n), -0.4))
                speed.append(np.where(driving, 45.0, 0.0))
                soc.append(level - 4 * np.arange(n) / n)
                kind.append(np.where(driving, 1, 0))
                level -= 6
            if day % self.charged_every == self.charged_every - 1:
                n = 240
                t.append(BEGIN + day * DAY + 21 * 3600 + 60 * np.arange(n))
                current.append(np.full(n, 25.0))
                speed.append(np.zeros(n))
                soc.append(np.linspace(level, 80, n))
                kind.append(np.full(n, 2))
        time, amps, percent = np.concatenate(t), np.concatenate(current), np.concatenate(soc)
        kinds = np.concatenate(kind)
        mean = 3400 + 9 * percent + 0.8 * amps
        volts = mean[:, None] + self.offset_mv + rng.normal(0, 1.2, (len(time), self.cells))
        # blocks of 32 are polled one after the other: under load they disagree by what the voltage moved meanwhile
        volts += np.where(kinds == 1, rng.normal(0, 40, len(time)), 0.0)[:, None] * (np.arange(self.cells) // 32)
        if self.shift is not None:
            volts += self.shift(time, kinds, percent)
        mv = (np.round(volts / self.step_mv) * self.step_mv).astype(np.int16)
        return Rows(
            time,
            {
                "pack_current_a": np.round(amps, 1),
                "speed_kmh": np.concatenate(speed),
                "soc_pct": np.round(percent * 2) / 2,
            },
            mv,
        )


def judged(
    rows: Rows, car: Car = CAR, slope: float | None = 9.0
) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame, dict[str, str]]:
    """Windows, readings, episodes, what is not judged."""
    assert DETECTOR.windows is not None
    windows = DETECTOR.windows(rows, car, RULES).sort("from_at", "to_at", "kind")
    context = Context(car, RULES, ocv_slope=None if slope is None else lambda _soc: slope)
    readings = DETECTOR.readings(windows, context)
    return windows, readings, episodes(car.device_no, readings), DETECTOR.unjudged(windows, context)


def found(world: World, **more: Any) -> set[tuple[str, int]]:
    frame = judged(world.rows(), **more)[2]
    return set(zip(frame["code"], frame["cell_no"], strict=True))


def one_cell(cell_no: int, mv: Any, cells: int = CELLS) -> Any:
    """Shift of one cell: ``mv`` of (t_s, kind, soc)."""

    def shift(t: F64, kind: Any, soc: F64) -> F64:
        out = np.zeros((len(t), cells))
        out[:, cell_no - 1] = mv(t, kind, soc)
        return out

    return shift


def days_since(t: F64, day: float) -> F64:
    return np.maximum((t - BEGIN) / DAY - day, 0.0)


# --- healthy ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("step_mv", [1, 20])
@pytest.mark.parametrize("cells", [CELLS, 87])
def test_a_healthy_pack_has_no_episode_and_is_judged(step_mv: int, cells: int) -> None:
    car = Car("01290000001", "NMC", None, cells, capacity_nominal_ah=111.0)
    _, _, opened, unjudged = judged(World(step_mv=step_mv, cells=cells).rows(), car)
    assert opened.is_empty()
    assert unjudged == {}


def test_rows_under_load_make_no_residual() -> None:
    windows = judged(World(days=6).rows())[0]
    used = windows.filter(pl.col("kind").is_in(["rest", "charge"]))
    assert used["current_a"].abs().max() == 25.0
    assert (used.filter(pl.col("kind") == "rest")["current_a"].abs() < 2).all()


def test_averages_find_what_lies_between_the_steps_of_a_reading() -> None:
    world = World(days=28)
    month = cell_months(judged(world.rows())[0])
    true = world.offset_mv - np.median(world.offset_mv)
    for month_rows in month.partition_by("measured_month"):
        assert np.abs(month_rows["residual_charge_mv"].to_numpy() - true).max() < 3


def test_every_cell_has_a_row_in_every_month_and_shares_add_up() -> None:
    month = cell_months(judged(World(days=40).rows())[0])
    assert month.height == CELLS * month["measured_month"].n_unique()
    for part in month.partition_by("measured_month"):
        assert part["lowest_share_pct"].sum() == pytest.approx(100)
        assert part["highest_share_pct"].sum() == pytest.approx(100)
        assert part["n"].min() > 0


# --- outliers, the lowest ---------------------------------------------------------------------------------------------
def test_a_cell_that_is_low_from_a_day_on_is_an_outlier_and_the_lowest() -> None:
    world = World(days=40, shift=one_cell(7, lambda t, kind, soc: np.where(days_since(t, 15) > 0, -40.0, 0.0)))
    _, readings, opened, _ = judged(world.rows())
    assert set(zip(opened["code"], opened["cell_no"], strict=True)) == {("CELL_OUTLIER", 7), ("CELL_LOWEST", 7)}
    outlier = opened.filter(pl.col("code") == "CELL_OUTLIER")
    assert outlier["severity"][0] == 2
    assert outlier["value"][0] == pytest.approx(40, abs=6)
    assert '"residual_mv": -' in readings.filter(pl.col("code") == "CELL_OUTLIER")["detail"][-1]
    assert (opened["opened_at"].dt.epoch("s").to_numpy() / DAY - BEGIN / DAY < 15 + 10).all()


def test_a_cell_that_always_was_the_lowest_is_not_falling() -> None:
    world = World(step_mv=1, shift=one_cell(7, lambda t, kind, soc: np.full(len(t), -14.0)))
    windows, _, opened, _ = judged(world.rows())
    assert cell_months(windows)["lowest_share_pct"].max() > 50
    assert opened.is_empty()


def test_a_cell_of_less_capacity_is_not_falling_when_the_car_is_driven_lower() -> None:
    # its residual follows charge; the second half of the time the car is kept at lower charge
    world = World(days=40, step_mv=1, shift=one_cell(7, lambda t, kind, soc: 0.4 * (soc - 85)))
    assert found(world) == set()


def test_a_cell_above_the_pack_is_an_outlier_but_not_the_lowest() -> None:
    assert found(World(shift=one_cell(3, lambda t, kind, soc: np.full(len(t), 45.0)))) == {("CELL_OUTLIER", 3)}


def test_cells_that_balancing_moves_by_a_few_millivolts_are_no_finding() -> None:
    rng = np.random.default_rng(3)
    steps = rng.uniform(-5, 5, (8, CELLS)) * (rng.uniform(size=(8, CELLS)) < 0.1)

    def shift(t: F64, kind: Any, soc: F64) -> F64:
        return np.asarray(steps[((t - BEGIN) // (9 * DAY)).astype(int)])

    for step_mv in (1, 20):
        assert found(World(days=60, step_mv=step_mv, shift=shift)) == set()


# --- spread -----------------------------------------------------------------------------------------------------------
def test_a_cell_apart_on_charge_is_named_and_its_own_width_does_not_raise_the_line() -> None:
    world = World(days=40, shift=one_cell(11, lambda t, kind, soc: np.where(kind == 2, 120.0, 0.0)))
    _, readings, opened, _ = judged(world.rows())
    spread = opened.filter(pl.col("code") == "CELL_SPREAD")
    assert spread["cell_no"].to_list() == [11]
    assert spread["severity"].to_list() == [2]
    assert readings.filter(pl.col("code") == "CELL_SPREAD")["warn"].max() == 100.0


def test_a_pack_that_is_wide_by_itself_has_a_higher_line() -> None:
    def wide(t: F64, kind: Any, soc: F64) -> F64:
        return np.where((kind == 2)[:, None], np.linspace(-45, 45, CELLS), 0.0)

    assert found(World(shift=wide)) == set()


# --- self-discharge ---------------------------------------------------------------------------------------------------
def leak_mv(ma: float, t: F64, day: float) -> F64:
    return -2.4 * ma / 111.0 * 9.0 * days_since(t, day)


@pytest.mark.parametrize("ma", [20.0, 40.0])
def test_a_leak_is_found_on_its_cell_with_its_current(ma: float) -> None:
    world = World(days=45, shift=one_cell(9, lambda t, kind, soc: leak_mv(ma, t, 20)))
    _, readings, opened, _ = judged(world.rows())
    leaks = opened.filter(pl.col("code") == "CELL_SELF_DISCHARGE")
    assert leaks["cell_no"].to_list() == [9]
    opened_d = leaks["opened_at"].dt.epoch("s")[0] / DAY - BEGIN / DAY
    assert 20 < opened_d <= 20 + (8 if ma == 40 else 16)
    last = readings.filter(pl.col("code") == "CELL_SELF_DISCHARGE").sort("to_at")[-1]
    assert abs(last["value"][0] - ma) < 4 * last["sd"][0] + 2


@pytest.mark.parametrize(
    "mv",
    [
        lambda t, kind, soc: np.full(len(t), -40.0),  # low since ever
        lambda t, kind, soc: np.where(days_since(t, 20) > 0, -40.0, 0.0),  # one step
        lambda t, kind, soc: 90 + leak_mv(20, t, 20),  # bled by balancing: falls, but lies above
        lambda t, kind, soc: 0.5 * (soc - 80),  # less capacity
    ],
)
def test_what_is_low_steps_or_lies_above_is_no_leak(mv: Any) -> None:
    codes = {code for code, _ in found(World(days=40, shift=one_cell(9, mv)))}
    assert "CELL_SELF_DISCHARGE" not in codes


def test_a_leak_cannot_be_judged_without_capacity_or_on_a_plateau() -> None:
    rows = World().rows()
    no_capacity = Car("01290000001", "NMC", None, CELLS)
    assert "CELL_SELF_DISCHARGE" in judged(rows, no_capacity)[3]
    assert "CELL_SELF_DISCHARGE" in judged(rows, slope=0.05)[3]
    unknown = Car("01290000001", None, None, CELLS, capacity_nominal_ah=111.0)
    assert "CELL_SELF_DISCHARGE" in judged(rows, unknown, slope=None)[3]


# --- extremes ---------------------------------------------------------------------------------------------------------
def with_values(rows: Rows, at: NDArray[np.int64], cell_no: int, mv: int) -> Rows:
    assert rows.cell_mv is not None
    cells = rows.cell_mv.copy()
    cells[at, cell_no - 1] = mv
    return Rows(rows.t_s, rows.columns, cells)


def test_a_dead_cell_over_thirty_rows_is_an_alarm_and_a_single_row_is_none() -> None:
    rows = World(days=4).rows()
    lasting = with_values(rows, np.r_[45:75, 125:155], 4, 1200)
    opened = judged(lasting)[2].filter(pl.col("code") == "CELL_UNDERVOLT")
    assert opened["cell_no"].to_list() == [4]
    assert opened["severity"].to_list() == [3]
    assert opened["value"][0] == pytest.approx(1.2)
    assert judged(with_values(rows, np.array([45, 60, 125]), 4, 1200))[2].is_empty()


def test_a_suspect_cell_leaves_the_residuals_of_the_others_alone() -> None:
    rows = World(days=9).rows()
    broken = with_values(rows, np.arange(len(rows)), 4, 1200)
    sound, other = (cell_months(judged(r)[0])["residual_rest_mv"].to_numpy() for r in (rows, broken))
    assert np.isnan(other[3])
    assert np.nanmax(np.abs(np.delete(sound - other, 3))) < 2


@pytest.mark.parametrize(("chemistry", "mv", "codes"), [
    ("NMC", 4380, {"CELL_OVERVOLT"}), ("NMC", 4220, set()), ("LFP", 3660, set()), ("LFP", 3900, {"CELL_OVERVOLT"}),
])  # fmt: skip
def test_limits_are_those_of_the_chemistry(chemistry: str, mv: int, codes: set[str]) -> None:
    days = np.arange(6)
    time = np.concatenate([BEGIN + d * DAY + 60 * np.arange(20) for d in days])
    cells = np.full((len(time), CELLS), 3400, dtype=np.int16)
    cells[np.arange(len(time)) % 20 >= 12, 5] = mv
    rows = Rows(time, {"pack_current_a": np.full(len(time), 20.0), "speed_kmh": np.zeros(len(time))}, cells)
    opened = judged(rows, Car("01290000001", chemistry, None, CELLS))[2]
    limits = opened.filter(pl.col("code").is_in(["CELL_OVERVOLT", "CELL_UNDERVOLT"]))
    assert set(limits["code"]) == codes
    assert set(limits["cell_no"]) <= {6}


def test_a_pack_that_is_lifted_as_a_whole_by_a_fast_charge_is_no_overvoltage_of_its_cells() -> None:
    time = np.concatenate([BEGIN + d * DAY + 60 * np.arange(20) for d in range(6)])
    rng = np.random.default_rng(0)
    cells = (4320 + 20 * rng.integers(-1, 2, (len(time), CELLS))).astype(np.int16)
    rows = Rows(time, {"pack_current_a": np.full(len(time), 150.0), "speed_kmh": np.zeros(len(time))}, cells)
    assert "CELL_OVERVOLT" not in set(judged(rows)[2]["code"])


# --- bad input --------------------------------------------------------------------------------------------------------
def test_without_cells_nothing_is_found_and_nothing_can_be_judged() -> None:
    rows = World(days=3).rows()
    windows, readings, _, unjudged = judged(Rows(rows.t_s, rows.columns, None))
    assert windows.is_empty()
    assert readings.is_empty()
    assert set(unjudged) == set(CODES)


def test_three_rests_a_month_judge_nothing_and_say_so() -> None:
    world = World(days=28, every=10, charged_every=99, shift=one_cell(7, lambda t, kind, soc: np.full(len(t), -25.0)))
    _, _, opened, unjudged = judged(world.rows())
    assert opened.is_empty()
    assert {"CELL_OUTLIER", "CELL_LOWEST", "CELL_SELF_DISCHARGE", "CELL_SPREAD"} <= set(unjudged)


def test_placeholder_blocks_and_voltages_that_do_not_fit_are_no_value() -> None:
    world = World(days=6)
    rows = world.rows()
    assert rows.cell_mv is not None
    lists: list[list[int | None]] = rows.cell_mv.tolist()
    lists[0][:32] = [5100] * 32
    lists[1][:] = [None] * CELLS
    table = pa.table({
        "recorded_at": pa.array((rows.t_s * 1e6).astype(np.int64)).cast(pa.timestamp("us")),
        "cell_mv": pa.array(lists, pa.list_(pa.int16())),
        "cell_placeholder_n": pa.array([32] + [0] * (len(lists) - 1)),
        **{name: pa.array(values) for name, values in rows.columns.items()},
    })  # fmt: skip
    assert judged(Rows.of(table, CAR))[2].is_empty()


def test_a_pack_of_another_size_before_a_swap_is_left_out() -> None:
    small = judged(World(days=10, cells=CELLS - 4).rows(), Car("01290000001", "NMC", None, CELLS - 4))[0]
    large = judged(World(days=28).rows())[0]
    context = Context(CAR, RULES, ocv_slope=lambda _soc: 9.0)
    both = pl.concat([small, large])
    assert DETECTOR.readings(both, context).equals(DETECTOR.readings(large, context))


def test_readings_do_not_depend_on_the_order_of_windows() -> None:
    world = World(days=30, shift=one_cell(9, lambda t, kind, soc: leak_mv(60, t, 10)))
    windows = judged(world.rows())[0]
    context = Context(CAR, RULES, ocv_slope=lambda _soc: 9.0)
    straight = DETECTOR.readings(windows, context)
    assert straight.height > 0
    assert straight.equals(DETECTOR.readings(windows.sample(fraction=1.0, shuffle=True, seed=1), context))


# --- false discoveries ------------------------------------------------------------------------------------------------
def test_false_discovery_keeps_few_of_pure_chance_and_all_that_stand_out() -> None:
    rng = np.random.default_rng(1)
    chance = [false_discovery(rng.standard_normal(192), 0.01).any() for _ in range(300)]
    assert np.mean(chance) < 0.04
    z = np.append(rng.standard_normal(190), [-9.0, np.nan])
    assert np.flatnonzero(false_discovery(z, 0.01)).tolist() == [190]
