"""Order does not matter: any order and grouping of arrivals and runs gives the same published tables, row for row."""

from __future__ import annotations

import hashlib
import random
import shutil
import tempfile
from datetime import datetime
from operator import itemgetter
from pathlib import Path
from typing import Any

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


def counted(home: Settings, query: str) -> int:
    with duckdb.connect(str(home.publish / "fleet.duckdb"), read_only=True) as reader:
        return int(reader.execute(f"select count(*) from {query}").fetchall()[0][0])


def arrive(source: Path, names: list[str], landing: Path) -> None:
    for name in names:
        target = landing / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, target)  # a new modification time: when a file was copied must not matter


@pytest.fixture(scope="module")
def landing(tmp_path_factory: pytest.TempPathFactory, tiny: tuple[Path, Path]) -> Path:
    """The fleet `tiny`, and two cars with faults whose twelve days lie over the end of January, a file a month.

    Their days begin at half past eleven, so that they charge from 23:40 to 00:30: also as January ends.
    """
    folder = tmp_path_factory.mktemp("order") / "landing"
    shutil.copytree(tiny[0], folder)
    for device in (HOT, LEAKING):
        rows = days_of(device, start=datetime(2023, 1, 25, 11, 30))
        CARS[device](rows)
        for month in ("2023-01", "2023-02"):
            stem = f"bms_{device}_{month}"
            put_zip(folder / f"{stem}.zip", f"{stem}.csv", psql([r for r in rows if str(r["time"])[:7] == month]))
    return folder


@pytest.fixture(scope="module")
def at_once(tmp_path_factory: pytest.TempPathFactory, parsed_dbt: Path, landing: Path) -> Settings:
    """A home after one run over everything, and another with the curves that its fleet taught."""
    home = Homes(tmp_path_factory.mktemp("at_once"), parsed_dbt).new(landing)
    with Homes.chain(home) as chain:
        assert chain.run(Asked()).errors == []
        assert chain.release(activate=True).errors == []
        assert chain.run(Asked()).errors == []
    found = contents(home)
    over_the_end = "where strftime(started_at, '%Y-%m') < strftime(ended_at, '%Y-%m')"
    assert counted(home, f"fct_charging_session {over_the_end}") == 2
    assert counted(home, "fct_soh_monthly where soh_ocv_pct is not null and curve_origin = 'fleet'") >= 2
    assert found["fct_anomaly"][0] >= 2, "there are episodes whose ids and figures can differ"
    assert found["inspection_queue"][0] >= 2
    return home


# the simplest plan, which comes first, is one worth its run: shuffled, in two parts, a later month first
PLAN = st.fixed_dictionaries(
    {
        "order": st.integers(1, 1000).map(random.Random),
        "parts": st.lists(
            st.tuples(st.integers(6, 16), st.sampled_from(["2023-02", None, "2023-01"]), st.booleans(), st.booleans()),
            min_size=1,
            max_size=2,
        ),
    }
)
"""An order of the files, and after how many of them a run asks for which month, for one device alone, twice."""


@given(plan=PLAN)
# one example is the whole chain twice, a minute; its landing and its order are shuffled, and it runs in parts
@settings(max_examples=1, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_order_of_arrivals_and_runs_gives_the_same_tables(
    plan: dict[str, Any], landing: Path, parsed_dbt: Path, at_once: Settings
) -> None:
    names = sorted(p.relative_to(landing).as_posix() for p in landing.rglob("*") if p.is_file())
    plan["order"].shuffle(names)
    with tempfile.TemporaryDirectory() as folder:
        homes = Homes(Path(folder), parsed_dbt)
        home = homes.new(Path(folder) / "landing")
        with homes.chain(home) as chain:
            first = 0
            for cut, month, one_device, again in sorted(plan["parts"], key=itemgetter(0)):
                arrive(landing, names[first:cut], home.landing_dir)
                first = cut
                devices = chain.state().devices[:1] if one_device else []
                months = (month, month) if month else None
                for _ in range(2 if again else 1):
                    chain.run(Asked(months=months, devices=tuple(devices)))
            arrive(landing, names[first:], home.landing_dir)
            shutil.copytree(at_once.released, home.released)  # what came before was made with outside curves
            assert chain.run(Asked()).errors == []
        found = contents(home)
    assert found == contents(at_once)


def test_running_everything_again_changes_nothing(homes: Homes, at_once: Settings) -> None:
    home = homes.copy(at_once)
    with homes.chain(home) as chain:
        chain.run(Asked(everything=True))
    assert contents(home) == contents(at_once)
