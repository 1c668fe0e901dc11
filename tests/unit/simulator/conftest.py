"""Small fleets, simulated once per test run: folders with ``landing`` and ``truth``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from baas_dagster.simulator import STANDARD_FLEETS, FleetSpec, simulate

Simulated = tuple[Path, dict[str, pl.DataFrame]]


@pytest.fixture(scope="session")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Callable[[FleetSpec, int], Simulated]:
    """Simulates a fleet: landing folder and truth tables by name without ``truth_``."""

    def run(spec: FleetSpec, seed: int) -> Simulated:
        home = tmp_path_factory.mktemp(spec.name)
        simulate(home / "landing", home / "truth", spec, seed)
        tables = {path.stem.removeprefix("truth_"): pl.read_parquet(path) for path in (home / "truth").iterdir()}
        return home / "landing", tables

    return run


@pytest.fixture(scope="session")
def demo(simulated: Callable[[FleetSpec, int], Simulated]) -> Simulated:
    """The demo fleet with a row a minute."""
    return simulated(replace(STANDARD_FLEETS["demo"], dt_s=60.0), 5)


@pytest.fixture(scope="session")
def coarse(simulated: Callable[[FleetSpec, int], Simulated]) -> Simulated:
    """The coarse fleet with three months, a row a minute, and less driving."""
    return simulated(replace(STANDARD_FLEETS["coarse"], months=3, dt_s=60.0, hours_per_day=0.8), 5)
