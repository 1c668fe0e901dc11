"""Whatever a month holds, a single row or a channel that is mostly missing: detectors judge it and do not fail."""

from __future__ import annotations

import numpy as np
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from baas_dagster.anomaly.registry import DETECTORS
from baas_dagster.anomaly.rows import NO_VALUE, Car, Rows
from baas_dagster.assets.anomalies import windows_of
from baas_dagster.schemas.anomalies import check_windows

COLUMNS = sorted({column for detector in DETECTORS for column in detector.columns} - {"cell_mv", "module_temp_dc"})
START_S = 1_672_963_200.0  # 2023-01-06
CELLS, MODULES = 4, 3
NUMBERS = st.sampled_from([float("nan"), 0.0, 1.0, -60.0, 3.0, 50.0, 350.0, 3000.0, 1e5])
CELL_MV = st.sampled_from([int(NO_VALUE), 0, 1200, 3600, 3620, 4300, 5100])
MODULE_DC = st.sampled_from([int(NO_VALUE), -400, 0, 200, 650, 950])


@st.composite
def months(draw: st.DrawFn) -> Rows:
    n = draw(st.integers(0, 6))
    steps = draw(st.lists(st.sampled_from([0.5, 1.0, 10.0, 60.0, 400.0, 9000.0, 90_000.0]), min_size=n, max_size=n))
    columns = {name: draw(arrays.arrays(float, n, elements=NUMBERS)) for name in COLUMNS if draw(st.booleans())}
    cells = draw(st.none() | arrays.arrays(np.int16, (n, CELLS), elements=CELL_MV))
    modules = draw(st.none() | arrays.arrays(np.int16, (n, MODULES), elements=MODULE_DC))
    return Rows(START_S + np.cumsum(np.array(steps, dtype=float)), columns, cells, modules)


CARS = st.sampled_from(
    [
        Car("01290007009"),
        Car("01290007009", "NMC622", "TYPE", CELLS, MODULES, None, 3000.0, 100.0),
        Car("01290007009", "LFP"),
    ]
)


@given(months(), CARS)
@settings(max_examples=200)
def test_windows_of_any_rows_pass_their_checks(rows: Rows, car: Car) -> None:
    month = ("01290007009", "2023-01")
    found = windows_of(rows, car).with_columns(device_no=pl.lit(month[0]), measured_month=pl.lit(month[1]))
    outcomes = check_windows(found, [month])["|".join(month)]
    assert [o for o in outcomes if not o.is_passed] == []
