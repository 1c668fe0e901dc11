"""The fault bench on a home: faults are put into its own logs, and what the detectors make of them is counted.

Belongs here: bringing the staged rows of a home's cars to ``faultbench``, without changing the home. Does not belong
here: what a fault looks like, counting (``faultbench``), the fleets of acceptance.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import duckdb

from baas_dagster.anomaly.episodes import episodes
from baas_dagster.anomaly.fleet import silent_episodes
from baas_dagster.anomaly.registry import DETECTORS
from baas_dagster.anomaly.rows import Car, Rows
from baas_dagster.anomaly.rules import RULES
from baas_dagster.assets.anomalies import cars, context_of, expected_rows, ocv_slopes, staged
from baas_dagster.assets.common import raw_files, set_scope
from baas_dagster.faultbench.bench import BenchResult, Partition, Plan, run_bench
from baas_dagster.released import Releases
from baas_dagster.resources import Dbt, Lake, Warehouse
from baas_dagster.settings import Settings
from baas_dagster.state import load

__all__ = ["bench_home", "rows_of_home", "staged_home"]


def rows_of_home(
    settings: Settings, connection: duckdb.DuckDBPyConnection, devices: Sequence[str] | None = None
) -> Iterator[Partition]:
    """Staged rows of every month that its checks let in, all months of a car together, in order of time.

    The staging view covers the home's files (``staged_home``). Memory holds the months of one car.
    """
    known = cars(connection)
    slopes = ocv_slopes(known.values(), settings)
    releases = Releases(settings.released)
    wanted = expected_rows(connection, load(connection, settings).partitions)
    for device in sorted({part.device_no for part in wanted}):
        if devices is not None and device not in devices:
            continue
        car = known.get(device, Car(device))
        context = context_of(connection, car, releases, slopes)
        mine = {part: n for part, n in wanted.items() if part.device_no == device}
        tables = dict(staged(connection, mine, device))
        for part in sorted(mine):
            if part in tables:
                yield Partition(context, part.measured_month, Rows.of(tables[part], car))


@contextmanager
def staged_home(settings: Settings) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection whose staging view covers every partition of the home."""
    warehouse = Warehouse.of(settings)
    with warehouse.locked():
        with warehouse.open() as connection:
            parts = load(connection, settings).partitions
            set_scope(connection, parts, raw_files(connection, Lake(settings.lake), parts))
        Dbt(settings, warehouse).run(["stg_bms"])
        with warehouse.open() as connection:
            yield connection


def bench_home(
    settings: Settings,
    plan: Plan,
    devices: Sequence[str] | None = None,
    on_progress: Callable[[str, int, int], None] | None = None,
) -> BenchResult:
    """Run the bench on the logs of a home that is up to date; nothing of the home changes but its staging view."""
    with staged_home(settings) as connection:
        return run_bench(
            lambda: rows_of_home(settings, connection, devices),
            DETECTORS,
            lambda device, readings: episodes(device, readings),
            plan,
            lambda last_seen, opened, as_of: silent_episodes(last_seen, opened, as_of, RULES.health),
            on_progress,
        )
