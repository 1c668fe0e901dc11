"""Releasing fleet versions: learning changes nothing, activating makes what stands on them stale, and nothing else."""

from __future__ import annotations

import shutil
from pathlib import Path

import dagster as dg
import duckdb
import pytest

from baas_dagster.definitions import build
from baas_dagster.released import Releases
from baas_dagster.runs import Asked, Chain, instance_of
from baas_dagster.settings import Settings
from baas_dagster.state import Unit


@pytest.fixture
def home(ran: Settings, tmp_path: Path) -> Settings:
    """A copy of the home of the fleet `tiny`, to be changed."""
    shutil.copytree(ran.root, tmp_path / "home", symlinks=True)
    return Settings(home=tmp_path / "home", landing=ran.landing_dir)


def pending(chain: Chain) -> dict[Unit, int]:
    return {unit: len(work) for unit, work in chain.state().plan().items() if work}


def origins(home: Settings) -> dict[str, str]:
    """Device -> where the curve of its state of health is from."""
    with duckdb.connect(str(home.publish / "fleet.duckdb"), read_only=True) as reader:
        rows = reader.execute("select distinct device_no, curve_origin from fct_soh_monthly").fetchall()
    return dict(rows)


def test_activating_a_learnt_curve_makes_state_of_health_stale_and_nothing_below_it(home: Settings) -> None:
    with instance_of(home) as instance:
        chain = Chain(home, build(home), instance)
        assert set(origins(home).values()) == {"outside"}
        assert chain.release(activate=False).errors == []
        learnt = Releases(home.released).versions()
        assert learnt
        assert pending(chain) == {}, "a version that is not active changes nothing"
        assert chain.release(activate=True).errors == []
        assert Releases(home.released).versions() == learnt, "the same rests give the same version"
        stale = pending(chain)
        assert set(stale) == {Unit.HEALTH, Unit.ANOMALY, Unit.FLEET}
        assert chain.run(Asked()).errors == []
        assert pending(chain) == {}
    found = origins(home)
    assert sorted(found.values()).count("fleet") == stale[Unit.HEALTH]
    with duckdb.connect(str(home.publish / "fleet.duckdb"), read_only=True) as reader:
        rows = reader.execute("select version_id, is_active from released_version order by 1").fetchall()
    assert rows == sorted((v.version_id, True) for v in learnt)


def test_the_monthly_close_learns_and_activates(home: Settings) -> None:
    platform = build(home)
    schedule = platform.definitions.resolve_schedule_def("monthly_close")
    context = dg.build_schedule_context(scheduled_execution_time=None)
    requests = schedule.evaluate_tick(context).run_requests
    assert requests is not None
    assert [r.run_config for r in requests] == [{"ops": {"released_versions": {"config": {"activate": True}}}}]
    with instance_of(home) as instance:
        job = platform.definitions.resolve_job_def("release")
        assert job.execute_in_process(instance=instance, run_config=requests[0].run_config).success
    assert Releases(home.released).active()
