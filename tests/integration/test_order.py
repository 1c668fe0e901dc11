"""Order does not matter: any order and grouping of arrivals and runs gives the same published tables, row for row."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from datetime import datetime
from pathlib import Path

import duckdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from baas_dagster.runs import Asked
from baas_dagster.settings import Settings
from tests.conftest import Homes
from tests.deliveries import psql, put_zip
from tests.integration.test_anomalies import CARS, HOT, LEAKING, days_of


def contents(home: Settings) -> dict[str, tuple[int, str]]:
    """Rows and content hash of every published table, without processing times."""
    found = {}
    with duckdb.connect(str(home.publish / "fleet.duckdb"), read_only=True) as reader:
        for (name,) in reader.sql("select table_name from duckdb_tables() order by 1").fetchall():
            rows = reader.sql(f"select t::varchar from {name} as t order by 1").fetchall()
            text = "\n".join(row for (row,) in rows)
            found[name] = (len(rows), hashlib.sha256(text.encode()).hexdigest())
    return found


def arrive(source: Path, names: list[str], landing: Path) -> None:
    for name in names:
        target = landing / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, target)  # a new modification time: when a file was copied must not matter


@pytest.fixture(scope="module")
def landing(tmp_path_factory: pytest.TempPathFactory, tiny: tuple[Path, Path]) -> Path:
    """The fleet `tiny`, and two cars with faults whose twelve days lie over the end of January, a file a month."""
    folder = tmp_path_factory.mktemp("order") / "landing"
    shutil.copytree(tiny[0], folder)
    for device in (HOT, LEAKING):
        rows = days_of(device, start=datetime(2023, 1, 25))
        CARS[device](rows)
        for month in ("2023-01", "2023-02"):
            stem = f"bms_{device}_{month}"
            put_zip(folder / f"{stem}.zip", f"{stem}.csv", psql([r for r in rows if str(r["time"])[:7] == month]))
    return folder


@pytest.fixture(scope="module")
def at_once(tmp_path_factory: pytest.TempPathFactory, parsed_dbt: Path, landing: Path) -> Settings:
    """A home after one run over everything."""
    home = Homes(tmp_path_factory.mktemp("at_once"), parsed_dbt).new(landing)
    with Homes.chain(home) as chain:
        assert chain.run(Asked()).errors == []
    found = contents(home)
    assert found["fct_anomaly"][0] >= 2, "there are episodes whose ids and figures can differ"
    assert found["inspection_queue"][0] >= 2
    return home


PLAN = st.fixed_dictionaries(
    {
        "order": st.randoms(use_true_random=False),
        "cuts": st.lists(st.integers(0, 12), min_size=1, max_size=2),
        "asks": st.lists(
            st.tuples(st.sampled_from([None, "2023-01", "2023-02"]), st.booleans(), st.booleans()),
            min_size=1,
            max_size=2,
        ),
    }
)


@given(plan=PLAN)
@settings(max_examples=2, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_order_of_arrivals_and_runs_gives_the_same_tables(
    plan: dict[str, object], landing: Path, parsed_dbt: Path, at_once: Settings
) -> None:
    names = sorted(p.relative_to(landing).as_posix() for p in landing.rglob("*") if p.is_file())
    plan["order"].shuffle(names)  # type: ignore[attr-defined]
    cuts = sorted({min(c, len(names)) for c in plan["cuts"]} | {len(names)})  # type: ignore[attr-defined]
    with tempfile.TemporaryDirectory() as folder:
        homes = Homes(Path(folder), parsed_dbt)
        home = homes.new(Path(folder) / "landing")
        with homes.chain(home) as chain:
            first = 0
            for cut, (month, one_device, again) in zip(cuts, [*plan["asks"], (None, False, False)], strict=False):  # type: ignore[misc]
                arrive(landing, names[first:cut], home.landing_dir)
                first = cut
                devices = (chain.state().devices or [])[:1] if one_device else []
                months = (month, month) if month else None
                for _ in range(2 if again else 1):
                    chain.run(Asked(months=months, devices=tuple(devices)))
            arrive(landing, names[first:], home.landing_dir)
            assert chain.run(Asked()).errors == []
        found = contents(home)
    assert found == contents(at_once)


def test_running_everything_again_changes_nothing(homes: Homes, at_once: Settings) -> None:
    home = homes.copy(at_once)
    with homes.chain(home) as chain:
        chain.run(Asked(everything=True))
    assert contents(home) == contents(at_once)
