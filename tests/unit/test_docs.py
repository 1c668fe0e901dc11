"""The documents say what is: generated pages are up to date, links lead somewhere, commands exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer

from baas_dagster.cli import app
from baas_dagster.dictionary import PAGE, PLATFORM_TABLES, published_tables, render
from baas_dagster.resources import dbt_manifest
from baas_dagster.settings import PROJECT_ROOT, Settings

DOCUMENTS = [PROJECT_ROOT / "README.md", PROJECT_ROOT / "README.ko.md", PROJECT_ROOT / "CHANGELOG.md"]
DOCUMENTS += sorted((PROJECT_ROOT / "docs").glob("*.md"))
NAMES = [str(path.relative_to(PROJECT_ROOT)) for path in DOCUMENTS]
MAKEFILE = (PROJECT_ROOT / "Makefile").read_text(encoding="utf-8")


def commands() -> set[str]:
    group = typer.main.get_command(app)
    return set(group.list_commands(typer.Context(group)))  # type: ignore[attr-defined]  # a group, typed as a command


def test_the_committed_dictionary_is_up_to_date(parsed_dbt: Path) -> None:
    tables = published_tables(dbt_manifest(Settings(home=parsed_dbt.parent)))
    assert PAGE.read_text(encoding="utf-8") == render(tables), "run: python -m baas_dagster.dictionary"


def test_every_column_of_the_dictionary_has_a_meaning_and_a_type(parsed_dbt: Path) -> None:
    tables = published_tables(dbt_manifest(Settings(home=parsed_dbt.parent)))
    bare = [f"{t.name}.{c.name}" for t in tables for c in t.columns if not (c.meaning and c.data_type)]
    assert bare == []
    assert all(t.meaning for t in tables)


def test_a_number_of_the_platform_tables_has_a_unit() -> None:
    numbers = ("bigint", "integer")
    bare = [f"{t.name}.{c.name}" for t in PLATFORM_TABLES for c in t.columns if c.data_type in numbers and not c.unit]
    assert bare == ["rejected_row.source_row"], "a line number has none"


@pytest.mark.parametrize("name", NAMES)
def test_links_within_the_project_lead_somewhere(name: str) -> None:
    path = PROJECT_ROOT / name
    targets = re.findall(r"\]\((?!https?:|#)([^)#]+)(?:#[^)]*)?\)", path.read_text(encoding="utf-8"))
    assert [t for t in targets if not (path.parent / t).exists()] == []


@pytest.mark.parametrize("name", NAMES)
def test_commands_that_a_document_names_exist(name: str) -> None:
    text = (PROJECT_ROOT / name).read_text(encoding="utf-8")
    made = set(re.findall(r"^([a-z]+):", MAKEFILE, flags=re.MULTILINE))
    assert set(re.findall(r"`make ([a-z]+)", text)) <= made
    assert set(re.findall(r"`baas ([a-z]+)", text)) <= commands()


@pytest.mark.parametrize("name", NAMES)
def test_settings_that_a_document_names_exist(name: str) -> None:
    text = (PROJECT_ROOT / name).read_text(encoding="utf-8")
    known = {f"BAAS_{field.upper()}" for field in Settings.model_fields}
    assert set(re.findall(r"\bBAAS_[A-Z_]+\b", text)) <= known


def test_operations_names_every_setting() -> None:
    text = (PROJECT_ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    assert [f for f in Settings.model_fields if f"BAAS_{f.upper()}" not in text] == []
