"""Imports run one way, and the project says nothing of machines."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "baas_dagster"

# a module (or folder) may import the package's modules named here and those of the same folder, no others
ALLOWED = {
    "settings": set(),
    "durable": set(),
    "progress": set(),
    "partitions": {"settings"},
    "telemetry": {"settings", "durable"},
    "mileage": set(),
    "battery": set(),
    "anomaly": set(),
    "outcomes": {"settings", "durable", "anomaly.codes", "anomaly.outcomes"},
    "schemas": {"telemetry", "settings", "anomaly"},
    # never the settings of detectors: a fault's size is its own
    "faultbench": {"anomaly.detector", "anomaly.rows", "telemetry.columns"},
    "simulator": {"faultbench.reference", "telemetry.columns"},
    "resources": {"settings", "durable", "partitions", "telemetry"},
    "released": {"durable"},
    "state": {"settings", "outcomes", "partitions", "released", "resources", "telemetry"},
    "intake": {"settings", "partitions", "progress", "resources", "state", "telemetry"},
}
WITHOUT_DAGSTER = (
    "settings", "durable", "progress", "telemetry", "mileage", "battery", "anomaly", "outcomes", "faultbench",
    "schemas", "simulator", "state", "intake", "released",
)  # fmt: skip


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names


def modules(name: str) -> list[Path]:
    folder = PACKAGE / name
    return sorted(folder.rglob("*.py")) if folder.is_dir() else [PACKAGE / f"{name}.py"]


@pytest.mark.parametrize("name", sorted(ALLOWED))
def test_imports_run_one_way(name: str) -> None:
    for path in modules(name):
        own = {n.removeprefix("baas_dagster.") for n in imported(path) if n.startswith("baas_dagster.")}
        allowed = ALLOWED[name] | {name}
        wrong = {n for n in own if not any(n == a or n.startswith(f"{a}.") for a in allowed)}
        assert not wrong, f"{path.relative_to(ROOT)} imports {sorted(wrong)}"


@pytest.mark.parametrize("name", WITHOUT_DAGSTER)
def test_what_holds_the_domain_knows_nothing_of_dagster(name: str) -> None:
    for path in modules(name):
        assert not {n for n in imported(path) if n.split(".")[0].startswith("dagster")}, path


def test_only_one_file_opens_the_warehouse() -> None:
    opens = re.compile(r"duckdb\.connect\(")
    found = {p.relative_to(PACKAGE).as_posix() for p in PACKAGE.rglob("*.py") if opens.search(p.read_text("utf-8"))}
    assert found <= {"resources.py", "doctor.py", "demo.py"}, (
        "readers open the snapshot; the warehouse is opened by resources.Warehouse"
    )


def test_only_one_file_reads_partition_keys() -> None:
    splits = re.compile(r"""(split|partition)\(["']\|["']\)""")
    found = {p.relative_to(PACKAGE).as_posix() for p in PACKAGE.rglob("*.py") if splits.search(p.read_text("utf-8"))}
    assert found <= {"partitions.py"}


def test_the_project_names_no_machine() -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.split()
    if not tracked:
        pytest.skip("not a git checkout")
    machine = re.compile(r"(?<![\w.])/(root|home/\w+|work)/")
    index = re.compile(r"https?://(?:pypi|files\.pythonhosted|registry)")
    for name in tracked:
        path = ROOT / name
        if path.suffix in {".png", ".parquet"} or not path.exists() or path == Path(__file__):
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        assert not machine.search(text), name
        assert not index.search(text), name
