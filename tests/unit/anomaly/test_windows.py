"""What lasts is told by time: whatever the interval of the rows, and where it changes within a log."""

from __future__ import annotations

import numpy as np
import pytest

from baas_dagster.anomaly.rows import Rows
from baas_dagster.anomaly.windows import held


def kept(t_s: list[float], values: list[float], *, hold_s: float, min_rows: int) -> list[float | None]:
    rows = Rows(np.array(t_s, dtype=float), {})
    found = held(np.array(values, dtype=float), rows, hold_s=hold_s, min_rows=min_rows, gap_s=180)
    return [None if np.isnan(x) else float(x) for x in found]


def test_a_level_is_kept_up_by_the_least_value_of_its_time() -> None:
    assert kept([0, 30, 60, 90], [5, 3, 4, 6], hold_s=60, min_rows=2) == [None, None, 3, 3]


def test_a_gap_and_a_missing_value_end_what_is_kept_up() -> None:
    assert kept([0, 60, 600, 660], [5, 5, 5, 5], hold_s=60, min_rows=2) == [None, 5, None, 5]
    assert kept([0, 60, 120, 180], [5, float("nan"), 5, 5], hold_s=60, min_rows=2) == [None, None, None, 5]


def test_fewer_rows_than_asked_for_keep_nothing_up() -> None:
    assert kept([0, 60, 120], [5, 5, 5], hold_s=60, min_rows=3) == [None, None, 5]


@pytest.mark.parametrize("n", [0, 1, 2])
def test_a_month_of_fewer_rows_than_asked_for_keeps_nothing_up(n: int) -> None:
    assert kept([10.0 * i for i in range(n)], [5.0] * n, hold_s=5, min_rows=3) == [None] * n


@pytest.mark.parametrize("slow_first", [True, False])
def test_a_log_that_changes_its_interval_is_judged_by_time_in_both_parts(slow_first: bool) -> None:
    fast, slow = np.arange(0, 300, 2.0), np.arange(0, 6_000, 60.0)
    parts = (slow, fast + 100_000) if slow_first else (fast, slow + 100_000)
    t_s = np.concatenate(parts)
    rows = Rows(t_s, {})
    found = held(np.ones(len(rows)), rows, hold_s=60, min_rows=2, gap_s=180)
    # all rows of both parts but those of their first minute
    assert np.isfinite(found).sum() == len(fast) - 27 + len(slow) - 1


@pytest.mark.parametrize("dt", [1, 7, 60])
def test_columns_are_judged_apart_and_agree_with_a_plain_count(dt: int) -> None:
    rng = np.random.default_rng(dt)
    t_s = np.cumsum(rng.integers(1, 2 * dt + 1, 200)).astype(float)
    rows, values = Rows(t_s, {}), rng.normal(size=(200, 3))
    values[rng.random((200, 3)) < 0.02] = np.nan
    found = held(values, rows, hold_s=60, min_rows=3, gap_s=100)
    for i in range(len(rows)):
        j = min(i - 2, int(np.searchsorted(t_s, t_s[i] - 54, side="right")) - 1)
        part = values[max(j, 0) : i + 1]
        alone = np.full(3, np.nan) if j < 0 or (np.diff(t_s[j : i + 1]) > 100).any() else part.min(axis=0)
        np.testing.assert_array_equal(found[i], alone)
