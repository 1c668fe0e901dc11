"""Slopes: what a single bad estimate may do to them."""

from __future__ import annotations

import numpy as np
import pytest

from baas_dagster.battery.trend import slope_of


@pytest.mark.parametrize("at", [0.0, 0.25, 0.5])
@pytest.mark.parametrize("said_sd", [0.1, 0.3, 3.0])
def test_one_estimate_that_claims_to_be_sure_makes_no_slope(at: float, said_sd: float) -> None:
    """36 estimates of half a year around 95 %, and one of 9 % that claims a small error."""
    rng = np.random.default_rng(3)
    year = np.append(np.sort(rng.uniform(0, 0.5, 36)), at)
    value = np.append(95 + rng.normal(0, 2.0, 36), 9.0)
    sd = np.append(np.full(36, 2.0), said_sd)
    month = np.floor(year * 12).astype(np.int64)
    found = slope_of(year, value, sd, month)
    assert found is not None
    assert abs(found.value) < 12
    assert abs(found.value) < 1.5 * found.half_90
