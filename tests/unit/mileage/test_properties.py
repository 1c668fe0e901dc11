"""What holds for any log: hypothesis tries to prove otherwise."""

from __future__ import annotations

from datetime import datetime

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from baas_dagster.mileage import Stitched, stitch
from tests.unit.mileage.logbook import RULES, Log, commute, pieces

EDGE_OF_MONTHS = datetime(2023, 1, 30)
CLEAN = {
    resolution: commute(EDGE_OF_MONTHS, 4, minutes=30, dt_s=30, resolution_km=resolution) for resolution in (0.1, 1)
}
ROWS = len(CLEAN[0.1])

few = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
resolutions = st.sampled_from([0.1, 1])


def kilometres(found: Stitched, column: str = "km") -> float:
    return float(found.segments.filter(pl.col("source") == "odometer")[column].sum())


def found_in(log: Log, cuts: set[int] | None = None) -> Stitched:
    return stitch(*pieces(log, cuts or set()), RULES)


@few
@given(resolution=resolutions, cuts=st.sets(st.integers(1, ROWS - 1), max_size=30))
def test_a_clean_log_keeps_its_kilometres_however_it_is_cut(resolution: float, cuts: set[int]) -> None:
    log = CLEAN[resolution]
    found = found_in(log, cuts)
    assert found.events.is_empty()
    assert kilometres(found) == pytest.approx(log.shown_km[-1] - log.shown_km[0], abs=1e-6)


@few
@given(
    resolution=resolutions,
    holes=st.lists(st.tuples(st.integers(1, ROWS - 60), st.integers(1, 50)), max_size=6),
)
def test_a_log_with_holes_keeps_its_kilometres(resolution: float, holes: list[tuple[int, int]]) -> None:
    log = CLEAN[resolution]
    keep = np.ones(len(log), dtype=bool)
    for first, count in holes:
        keep[first : first + count] = False
    keep[[0, -1]] = True
    shown = np.where(keep, log.shown_km, np.nan)
    kept = [row for row in range(len(log)) if keep[row]]
    holey = Log(
        [log.at[row] for row in kept],
        log.true_km[kept],
        shown[kept],
        log.speed_kmh[kept],
        log.counter_ah[kept],
        log.cells[kept],
        log.resolution_km,
    )
    found = found_in(holey)
    assert set(found.events["code"]) <= {"ODO_GAP"}
    assert kilometres(found) == pytest.approx(log.shown_km[-1] - log.shown_km[0], abs=1e-6)


@few
@given(first=st.integers(20, ROWS - 40), rows=st.integers(1, 12), fall_km=st.floats(4, 300), resolution=resolutions)
def test_a_stale_value_anywhere_is_found_and_removed(first: int, rows: int, fall_km: float, resolution: float) -> None:
    log = CLEAN[resolution]
    shown = log.true_km.copy()
    shown[first : first + rows] = shown[first] - fall_km
    found = found_in(log.showing(shown))
    assert "ODO_STALE" in set(found.events["code"])
    assert set(found.events["code"]) <= {"ODO_STALE", "ODO_GAP"}
    assert kilometres(found) == pytest.approx(log.driven_km, abs=2 * resolution)


@few
@given(
    first=st.integers(20, ROWS - 40), rows=st.integers(1, 12), rise_km=st.floats(300, 60_000), resolution=resolutions
)
def test_a_glitch_upwards_anywhere_is_found_and_removed(
    first: int, rows: int, rise_km: float, resolution: float
) -> None:
    log = CLEAN[resolution]
    step_s = (log.at[first] - log.at[first - 1]).total_seconds()
    back_s = (log.at[first + rows] - log.at[first + rows - 1]).total_seconds()
    if max(step_s, back_s) > 600:
        return  # over a night any rise of this size may have been driven
    shown = log.true_km.copy()
    shown[first : first + rows] = shown[first] + rise_km
    found = found_in(log.showing(shown))
    assert found.events.select("code", "action").rows() == [("ODO_JUMP", "removed")]
    assert kilometres(found) == pytest.approx(log.driven_km, abs=2 * resolution)


@few
@given(first=st.integers(20, ROWS - 20), fall_km=st.floats(3, 2_000), resolution=resolutions)
def test_a_rollback_anywhere_is_found_and_costs_no_kilometre(first: int, fall_km: float, resolution: float) -> None:
    log = CLEAN[resolution]
    shown = log.true_km.copy()
    shown[first:] -= fall_km
    found = found_in(log.showing(shown))
    assert found.events["code"].to_list() == ["ODO_ROLLBACK"]
    assert kilometres(found) == pytest.approx(log.driven_km, abs=0.6 + 2 * resolution)


@few
@given(first=st.integers(20, ROWS - 20), rise_km=st.floats(20, 2_000), resolution=resolutions)
def test_a_jump_anywhere_is_found_and_adds_no_kilometre(first: int, rise_km: float, resolution: float) -> None:
    log = CLEAN[resolution]
    if (log.at[first] - log.at[first - 1]).total_seconds() > 60:
        return  # over a silence it may have been driven
    shown = log.true_km.copy()
    shown[first:] += rise_km
    found = found_in(log.showing(shown))
    assert found.events.select("code", "action").rows() == [("ODO_JUMP", "excluded")]
    assert kilometres(found) == pytest.approx(log.driven_km, abs=0.6 + 2 * resolution)


@few
@given(
    first=st.integers(20, ROWS // 2),
    frozen_km=st.floats(10, 40),
    catches_up=st.booleans(),
    resolution=resolutions,
)
def test_a_freeze_anywhere_is_found_and_repaired(
    first: int, frozen_km: float, catches_up: bool, resolution: float
) -> None:
    log = CLEAN[resolution]
    until = int(np.searchsorted(log.true_km, log.true_km[first] + frozen_km))
    shown = log.true_km.copy()
    lost = shown[until] - shown[first]
    shown[first:until] = shown[first]
    if not catches_up:
        shown[until:] -= lost
    found = found_in(log.showing(shown))
    assert found.events["code"].to_list() == ["ODO_FROZEN"]
    repaired = kilometres(found, "repaired_km")
    assert kilometres(found) == pytest.approx(log.driven_km, abs=0.05 * repaired + 2 * resolution)


@few
@given(seed=st.randoms(use_true_random=False))
def test_the_order_of_the_pieces_does_not_matter(seed: object) -> None:
    log = CLEAN[0.1]
    shown = log.true_km.copy()
    shown[60:64] -= 20
    shown[150:] += 300
    shown[300:] -= 30
    runs, days, gps_runs = pieces(log.showing(shown))
    number = seed.randint(0, 10**6)  # type: ignore[attr-defined]  # a random.Random, which hypothesis hands out untyped
    mixed = stitch(runs.sample(fraction=1, shuffle=True, seed=number), days.reverse(), gps_runs, RULES)
    straight = stitch(runs, days, gps_runs, RULES)
    assert mixed.segments.equals(straight.segments)
    assert mixed.events.equals(straight.events)
