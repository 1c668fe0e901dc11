"""dbt's own tests, as errors: unit tests beside the models, data tests on the fleet `tiny`."""

from __future__ import annotations

from pathlib import Path

import pytest

from baas_dagster.resources import _dbt_paths, _quiet_dbt
from baas_dagster.settings import Settings
from tests.conftest import Homes


def test_dbt_unit_tests_and_data_tests_pass(
    homes: Homes, ran: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from dbt.adapters.duckdb.connections import DuckDBConnectionManager
    from dbt.adapters.factory import reset_adapters
    from dbt.cli.main import dbtRunner

    _quiet_dbt(homes.copy(ran))
    try:
        outcome = dbtRunner().invoke(["--quiet", "test", *_dbt_paths(tmp_path / "target")])
    finally:
        DuckDBConnectionManager.close_all_connections()
        reset_adapters()
    results = list(outcome.result.results) if outcome.result else []
    failed = [f"{r.node.name}: {r.status} {r.message}" for r in results if str(r.status) not in {"pass"}]
    assert failed == []
    assert outcome.success, outcome.exception
    kinds = {str(r.node.resource_type) for r in results}
    assert kinds == {"test", "unit_test"}, "both kinds ran"
