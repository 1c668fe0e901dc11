"""Order does not matter: any order and grouping of arrivals and runs gives the same published tables, row for row."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from pathlib import Path

import duckdb
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from baas_dagster.runs import Asked
from baas_dagster.settings import Settings
from tests.conftest import Homes


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
    plan: dict[str, object], tiny: tuple[Path, Path], parsed_dbt: Path, ran: Settings
) -> None:
    names = sorted(p.relative_to(tiny[0]).as_posix() for p in tiny[0].rglob("*") if p.is_file())
    plan["order"].shuffle(names)  # type: ignore[attr-defined]
    cuts = sorted({min(c, len(names)) for c in plan["cuts"]} | {len(names)})  # type: ignore[attr-defined]
    with tempfile.TemporaryDirectory() as folder:
        homes = Homes(Path(folder), parsed_dbt)
        home = homes.new(Path(folder) / "landing")
        with homes.chain(home) as chain:
            first = 0
            for cut, (month, one_device, again) in zip(cuts, [*plan["asks"], (None, False, False)], strict=False):  # type: ignore[misc]
                arrive(tiny[0], names[first:cut], home.landing_dir)
                first = cut
                devices = (chain.state().devices or [])[:1] if one_device else []
                months = (month, month) if month else None
                for _ in range(2 if again else 1):
                    chain.run(Asked(months=months, devices=tuple(devices)))
            arrive(tiny[0], names[first:], home.landing_dir)
            assert chain.run(Asked()).errors == []
        found = contents(home)
    assert found == contents(ran)


def test_running_everything_again_changes_nothing(homes: Homes, ran: Settings) -> None:
    home = homes.copy(ran)
    with homes.chain(home) as chain:
        chain.run(Asked(everything=True))
    assert contents(home) == contents(ran)
