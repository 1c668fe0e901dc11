"""Fixtures of all tests: a home of its own for each, and the small fleet, simulated once."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import hypothesis
import pytest

from baas_dagster.definitions import build
from baas_dagster.resources import dbt_manifest
from baas_dagster.runs import Asked, Chain, instance_of
from baas_dagster.settings import Settings

# how long an example takes says how busy the machine is, not whether the code is right
hypothesis.settings.register_profile("no deadline", deadline=None)
hypothesis.settings.load_profile("no deadline")

REAL_LOGS = Path(__file__).resolve().parents[2] / "shared" / "data" / "landing"


@pytest.fixture(scope="session")
def real_logs() -> Path:
    """The folder of real vehicle logs; tests that need it skip where it is missing."""
    if not REAL_LOGS.is_dir():
        pytest.skip("the folder of real vehicle logs is not beside the project")
    return REAL_LOGS


@pytest.fixture(scope="session")
def parsed_dbt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The dbt project, parsed once for all tests of this process."""
    settings = Settings(home=tmp_path_factory.mktemp("parsed"))
    dbt_manifest(settings)
    return settings.root / "dbt"


class Homes:
    """Makes homes that need not parse the dbt project again, and opens the chain on them."""

    def __init__(self, base: Path, parsed: Path) -> None:
        self.base = base
        self.parsed = parsed
        self.count = 0

    def new(self, landing: Path | None = None, **numbers: object) -> Settings:
        """A fresh home."""
        self.count += 1
        home = self.base / f"home{self.count}"
        shutil.copytree(self.parsed, home / "dbt")
        return Settings(home=home, landing=landing, **numbers)  # type: ignore[arg-type]

    def copy(self, settings: Settings) -> Settings:
        """A home as another one is. Homes can be moved, so a state that several tests start from is made once."""
        self.count += 1
        home = self.base / f"home{self.count}"
        shutil.copytree(settings.root, home, symlinks=True)
        return Settings(**settings.model_dump() | {"home": home})

    @staticmethod
    @contextmanager
    def chain(settings: Settings) -> Iterator[Chain]:
        """The chain on a home, with its own Dagster instance."""
        with instance_of(settings) as instance:
            yield Chain(settings, build(settings), instance)


@pytest.fixture
def homes(tmp_path: Path, parsed_dbt: Path) -> Homes:
    """Fresh homes for one test."""
    return Homes(tmp_path, parsed_dbt)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Landing and truth of the fleet `tiny`."""
    from baas_dagster.simulator import STANDARD_FLEETS, simulate

    folder = tmp_path_factory.mktemp("tiny")
    simulate(folder / "landing", folder / "truth", STANDARD_FLEETS["tiny"], seed=1)
    return folder / "landing", folder / "truth"


@pytest.fixture(scope="session")
def ran(tmp_path_factory: pytest.TempPathFactory, parsed_dbt: Path, tiny: tuple[Path, Path]) -> Settings:
    """A home after one run over the fleet `tiny`; tests only read it."""
    homes = Homes(tmp_path_factory.mktemp("ran"), parsed_dbt)
    settings = homes.new(tiny[0])
    with homes.chain(settings) as chain:
        done = chain.run(Asked())
    assert done.errors == []
    return settings
