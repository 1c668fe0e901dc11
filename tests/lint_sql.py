"""Lint of the dbt models: sqlfluff on a warehouse that has the platform's tables and nothing in them.

``python -m tests.lint_sql``. A model that sqlfluff cannot compile is an error here, not a skipped file.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from baas_dagster.resources import Lake, Warehouse
from baas_dagster.settings import PROJECT_ROOT, Settings
from baas_dagster.telemetry.columns import TableKind


def main() -> int:
    """Exit code of the lint."""
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(home=Path(folder))
        lake = Lake(settings.lake)
        with Warehouse.of(settings).open() as connection:
            for kind in TableKind:
                connection.execute("insert into ops.scope_file values (?, ?)", [str(kind), str(lake.empty_path(kind))])
        environment = {
            **os.environ,
            "BAAS_WAREHOUSE": str(settings.warehouse),
            "DBT_TARGET_PATH": str(Path(folder) / "target"),
            "DBT_LOG_PATH": str(Path(folder) / "logs"),
        }
        command = [Path(sys.executable).parent / "sqlfluff", "lint", "dbt_project/models", "dbt_project/tests"]
        found = subprocess.run(command, cwd=PROJECT_ROOT, env=environment, capture_output=True, text=True, check=False)
    text = found.stdout + found.stderr
    print(text)
    skipped = [line for line in text.splitlines() if "Skipped file" in line and "is a macro" not in line]
    return 1 if found.returncode or skipped else 0


if __name__ == "__main__":
    sys.exit(main())
