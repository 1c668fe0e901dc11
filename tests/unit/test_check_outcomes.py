"""What a check says of the rows that failed it."""

from __future__ import annotations

import pandera.polars as pa
import polars as pl
import pytest

from baas_dagster.schemas.outcome import outcomes_by

SCHEMA = pa.DataFrameSchema(
    {
        "km": pa.Column(pl.Float64, pa.Check.ge(0, error="km_not_negative")),
        "trip_id": pa.Column(pl.String),
    }
)
TRIPS = pl.DataFrame(
    {
        "device_no": ["1", "1", "1", "2"],
        "trip_id": ["c", "a", "b", "d"],
        "km": [-3.0, -1.0, 5.0, -2.0],
        "cell_mv": [[1], [2], [3], [4]],
    }
)


@pytest.mark.parametrize("seed", range(5))
def test_the_example_of_a_failure_is_the_same_for_any_order_of_the_rows(seed: int) -> None:
    found = outcomes_by(SCHEMA, TRIPS.sample(fraction=1, shuffle=True, seed=seed), {}, ["device_no"])
    examples = {key: outcomes[0].example for key, outcomes in found.items()}
    assert examples == {("1",): "km=-1.0", ("2",): "km=-2.0"}, "the first in the order of what the rows hold"
    assert [outcomes[0].rows_failed for _, outcomes in sorted(found.items())] == [2, 1]


@pytest.mark.parametrize("seed", range(3))
def test_rows_with_a_time_are_shown_from_the_first_on(seed: int) -> None:
    days = TRIPS.with_columns(service_date=pl.Series(["2023-01-03", "2023-01-02", "2023-01-01", "2023-01-01"]))
    found = outcomes_by(SCHEMA, days.sample(fraction=1, shuffle=True, seed=seed), {}, [])
    assert found[()][0].example == "km=-2.0 at service_date 2023-01-01"
