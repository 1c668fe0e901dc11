"""The sensor and the schedule launch exactly what the state names, tagged with the reason."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import dagster as dg
import pytest

from baas_dagster.automation import REASON_TAG, free_dead_runs
from baas_dagster.definitions import Platform, build
from baas_dagster.runs import Asked, instance_of
from baas_dagster.settings import Settings
from baas_dagster.state import Unit, load, mark_failed
from tests.conftest import Homes
from tests.deliveries import bms_rows, psql, put_zip

MULTI = dg.MultiPartitionsDefinition
ONE, TWO = "01290002001", "01290002002"


def deliver(landing: Path, device: str, month: int = 1) -> None:
    rows = bms_rows(device, datetime(2023, month, 5, 8))
    put_zip(landing / f"bms_{device}_2023-{month:02d}.zip", f"bms_{device}_2023-{month:02d}.csv", psql(rows))


@pytest.fixture(scope="module")
def one_car(tmp_path_factory: pytest.TempPathFactory, parsed_dbt: Path) -> Settings:
    """A home after a run over one month of one car, to be copied."""
    home = Homes(tmp_path_factory.mktemp("one"), parsed_dbt).new()
    deliver(home.landing_dir, ONE)
    with Homes.chain(home) as chain:
        assert chain.run(Asked()).errors == []
    return home


def tick(platform: Platform, instance: dg.DagsterInstance, *, schedule: bool = False) -> list[dg.RunRequest]:
    if schedule:
        made = platform.definitions.resolve_schedule_def("self_healing")
        context = dg.build_schedule_context(instance=instance, scheduled_execution_time=datetime(2023, 6, 1, 5))
        found = made.evaluate_tick(context).run_requests
    else:
        sensor = platform.definitions.resolve_sensor_def("landing_sensor")
        repository = platform.definitions.get_repository_def()
        context = dg.build_sensor_context(instance=instance, repository_def=repository)
        found = sensor.evaluate_tick(context).run_requests
    return list(found or [])


def execute(platform: Platform, instance: dg.DagsterInstance, requests: list[dg.RunRequest]) -> None:
    """What the daemon does with run requests: a run of Dagster's job over all assets, with selection and tags."""
    job = platform.definitions.resolve_implicit_global_asset_job_def()
    for request in requests:
        selection = list(request.asset_selection or [])
        result = job.execute_in_process(
            instance=instance, asset_selection=selection, tags=dict(request.tags), raise_on_error=True
        )
        assert result.success


def test_the_sensor_brings_a_new_file_all_the_way_to_the_snapshot(homes: Homes) -> None:
    home = homes.new()
    deliver(home.landing_dir, ONE)
    platform = build(home)
    with instance_of(home) as instance:
        intake = tick(platform, instance)
        assert [r.asset_selection for r in intake] == [[dg.AssetKey("landing_files")]]
        assert intake[0].tags[REASON_TAG] == "1 new or changed files"
        execute(platform, instance, intake)
        requests = tick(platform, instance)
        assert [r.tags[REASON_TAG] for r in requests] == ["new"] * 8
        assert requests[0].tags["dagster/asset_partition_range_start"] == f"{ONE}|2023-01"
        execute(platform, instance, requests)
        assert tick(platform, instance) == []
    assert (home.publish / "fleet.duckdb").exists()
    assert states(home) == dict.fromkeys(Unit, 0)


def states(home: Settings) -> dict[Unit, int]:
    from baas_dagster.resources import Warehouse

    with Warehouse.of(home).open() as connection:
        state = load(connection, home)
    return {unit: len(state.work(unit)) for unit in Unit}


def test_a_second_car_runs_alone(homes: Homes, one_car: Settings) -> None:
    home = homes.copy(one_car)
    with homes.chain(home) as chain:
        deliver(home.landing_dir, TWO)
        platform = build(home)
        execute(platform, chain.instance, tick(platform, chain.instance))
        requests = tick(platform, chain.instance)
    partitioned = [r for r in requests if "dagster/asset_partition_range_start" in r.tags]
    assert {r.tags["dagster/asset_partition_range_start"].split("|")[0] for r in partitioned} == {TWO}
    assert len(requests) == 8


def test_what_failed_waits_for_the_schedule(homes: Homes, one_car: Settings) -> None:
    home = homes.copy(one_car)
    with homes.chain(home) as chain:
        with chain.warehouse.open() as connection:
            wanted = load(connection, home).wanted[Unit.DEVICE][ONE]
            mark_failed(connection, Unit.DEVICE, {ONE: wanted}, "no space left on device")
        platform = build(home)
        published = tick(platform, chain.instance)
        health, episodes, snapshot = ([key.to_user_string() for key in r.asset_selection or []] for r in published)
        assert "battery_chain" in health, "what stands on the failed marts is recorded as standing on them"
        assert episodes == ["anomaly_chain"]
        assert snapshot == ["charging_sites", "inspection_queue", "published_snapshot"]
        execute(platform, chain.instance, published)
        assert tick(platform, chain.instance) == [], "the sensor does not try again what failed"
        requests = tick(platform, chain.instance, schedule=True)
        assert [r.tags[REASON_TAG] for r in requests] == ["failed", "changed", "changed", "changed"], (
            "the device, its health, its episodes, the snapshot"
        )
        assert all(r.run_key for r in requests), "a schedule needs a key for each of its runs"
        execute(platform, chain.instance, requests)
        assert tick(platform, chain.instance, schedule=True) == []


def test_nothing_is_requested_while_a_run_is_at_work(homes: Homes) -> None:
    home = homes.new()
    deliver(home.landing_dir, ONE)
    platform = build(home)
    with instance_of(home) as instance:
        job = platform.definitions.resolve_job_def("intake")
        run = instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED)
        assert tick(platform, instance) == []
        instance.report_run_failed(run)
        assert len(tick(platform, instance)) == 1


def test_a_run_whose_process_is_gone_is_marked_as_failed(homes: Homes) -> None:
    home = homes.new()
    deliver(home.landing_dir, ONE)
    platform = build(home)
    with instance_of(home) as instance:
        job = platform.definitions.resolve_job_def("intake")
        run = instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED)
        data = dg._core.events.EngineEventData(metadata={"pid": dg.MetadataValue.text("999999999")})  # type: ignore[attr-defined]
        instance.report_engine_event("started", run, data)
        assert free_dead_runs(instance) == [run.run_id]
        found = instance.get_run_by_id(run.run_id)
        assert found is not None
        assert found.status is dg.DagsterRunStatus.FAILURE


def test_a_partition_that_was_never_delivered_stays_unknown(homes: Homes, one_car: Settings) -> None:
    home = homes.copy(one_car)
    with homes.chain(home) as chain:
        tags = {
            "dagster/asset_partition_range_start": f"{ONE}|2022-11",
            "dagster/asset_partition_range_end": f"{ONE}|2023-01",
        }
        for job in ("raw", "local"):
            made = chain.definitions.resolve_job_def(job)
            assert made.execute_in_process(instance=chain.instance, tags=tags).success
        state = chain.state()
    assert [p.key for p in state.partitions] == [f"{ONE}|2023-01"]
    assert [unit for unit, work in state.plan().items() if work] == []


def test_local_models_are_not_declared_below_the_decisions_of_all_months(homes: Homes) -> None:
    graph = build(homes.new()).definitions.get_repository_def().asset_graph
    by_month = [key for key in graph.get_all_asset_keys() if isinstance(graph.get(key).partitions_def, MULTI)]
    assert len(by_month) > 10
    for key in by_month:
        assert dg.AssetKey("device_decision") not in graph.get(key).parent_keys, key
    for name in ("stg_bms", "stg_gps"):
        parents = {key.to_user_string() for key in graph.get(dg.AssetKey(name)).parent_keys}
        assert parents == {name.replace("stg", "raw")}


def test_a_range_against_the_order_of_registration_is_refused(homes: Homes, one_car: Settings) -> None:
    home = homes.copy(one_car)
    with homes.chain(home) as chain:
        deliver(home.landing_dir, TWO)
        assert chain.definitions.resolve_job_def("intake").execute_in_process(instance=chain.instance).success
        assert chain.instance.get_dynamic_partitions("devices") == [ONE, TWO]
        job = chain.definitions.resolve_job_def("decide")
        tags = {"dagster/asset_partition_range_start": TWO, "dagster/asset_partition_range_end": ONE}
        with pytest.raises(Exception, match=r"covers no partition|range"):
            job.execute_in_process(instance=chain.instance, tags=tags)
