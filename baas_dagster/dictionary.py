"""`docs/data_dictionary.md`: meaning, unit, formula and minimum data of every published column.

Belongs here: turning the dbt manifest into the page, and the words for the platform's own tables, which no dbt model
makes. Does not belong here: meanings of mart columns; they stand in the YAML beside each model.

`python -m baas_dagster.dictionary` writes the page; a test says whether the committed one is up to date.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from baas_dagster.settings import PROJECT_ROOT, Settings

__all__ = ["PAGE", "PLATFORM_TABLES", "Column", "Table", "published_tables", "render"]

PAGE = PROJECT_ROOT / "docs" / "data_dictionary.md"


@dataclass(frozen=True)
class Column:
    """One published column. ``unit``, ``formula`` and ``minimum_data`` are empty where there is none."""

    name: str
    data_type: str
    meaning: str
    unit: str = ""
    formula: str = ""
    minimum_data: str = ""


@dataclass(frozen=True)
class Table:
    """One published table."""

    name: str
    meaning: str
    columns: tuple[Column, ...]


_DEVICE = Column("device_no", "varchar", "Device number, 11 digits as text.")
_SOURCE_FILE = Column(
    "source_file",
    "varchar",
    "Identifier of the delivered content: first 12 hex digits of the landing file's SHA-256, then the path of the "
    "member in it. The same as `source_file` in `lake/raw`.",
)
_KEPT_OUT = "NULL where it could not be read."

_SITE_ID = Column(
    "site_id",
    "varchar",
    "Site of our own charging sessions; named after its earliest session, so that it keeps its name.",
    minimum_data="3 sessions with a position within 120 m",
)
_SITE_FLOWS = (
    Column("energy_kwh", "double", "Energy that our cars took there.", unit="kWh"),
    Column("charging_min", "double", "Time in which they charged.", unit="min"),
    Column("connected_min", "double", "Time in which they were connected.", unit="min"),
)

PUBLISHED_COLUMNS: Mapping[str, tuple[Column, ...]] = {"fct_charging_session": (_SITE_ID,)}
"""Columns that publishing adds to a mart."""

PLATFORM_TABLES: tuple[Table, ...] = (
    Table(
        "dim_site",
        "One row per site: a place where our own cars charged at least three times. Only our fleet's use of it can be "
        "known from our logs, never how busy it is.",
        (
            _SITE_ID,
            Column("lat", "double", "Median of its sessions.", unit="deg"),
            Column("lng", "double", "Median of its sessions.", unit="deg"),
            Column("first_session_at", "timestamp", "Start of our first session there."),
            Column("last_session_at", "timestamp", "Start of our latest session there."),
            Column("device_count", "bigint", "Cars of ours that charged there.", unit="1"),
            Column("session_count", "bigint", "Sessions of ours.", unit="1"),
            Column("dc_session_count", "bigint", "Of these with direct current.", unit="1"),
            *_SITE_FLOWS,
            Column("power_max_kw", "double", "Greatest power that one of our cars took.", unit="kW"),
        ),
    ),
    Table(
        "fct_site_usage",
        "One row per site, weekday and KST hour in which our cars were connected: our fleet's demand over the week. "
        "Energy and times are spread evenly over a session; a session counts in the hour of its start.",
        (
            _SITE_ID,
            Column("weekday", "bigint", "ISO weekday: 1 Monday to 7 Sunday.", unit="1"),
            Column("hour", "bigint", "KST hour, 0 to 23.", unit="h"),
            Column("sessions", "bigint", "Sessions that began in this hour.", unit="1"),
            *_SITE_FLOWS,
        ),
    ),
    Table(
        "fct_anomaly",
        "One row per episode: something that is going wrong in a car, opened, raised and closed with hysteresis "
        "(docs/methods.md). Monthly batch analysis, not a safety system; no anomaly does not mean safe.",
        (
            Column(
                "anomaly_id", "varchar", "Hash of device, code, item and opening: the same whatever ran in which order."
            ),
            _DEVICE,
            Column("measured_month", "varchar", "KST month of the opening, YYYY-MM."),
            Column("code", "varchar", "What it is: the codes and their lines stand in docs/methods.md."),
            Column(
                "severity",
                "integer",
                "1 watch, 2 look at it on the next visit, 3 call in now; the highest so far.",
                unit="1",
            ),
            Column("first_crossed_at", "timestamp", "Start of the first window beyond a line."),
            Column("opened_at", "timestamp", "End of the window that made it an episode."),
            Column("last_seen_at", "timestamp", "End of the last window beyond a line."),
            Column("closed_at", "timestamp", "NULL while it is open."),
            Column("closed_by", "varchar", "clear data, or outcome (a workshop's report)."),
            Column("cell_no", "integer", "Cell, 1-based; NULL where it is not about a cell.", unit="1"),
            Column(
                "module_no", "integer", "Temperature sensor, 1-based; NULL where it is not about a module.", unit="1"
            ),
            Column(
                "value",
                "double",
                "Figure of the last windows beyond a line.",
                unit="see unit",
                formula="median of the last three",
            ),
            Column("worst_value", "double", "Worst figure of the episode.", unit="see unit"),
            Column("unit", "varchar", "Unit of value and worst_value."),
            Column(
                "score",
                "double",
                "How far beyond its lowest line: 1 at it.",
                unit="1",
                formula="value / line, line / value where low is bad",
            ),
            Column(
                "growth_per_day",
                "double",
                "Change of the score a day over the last 60 days.",
                unit="1/d",
                minimum_data="6 windows over 7 days",
            ),
            Column("window_count", "integer", "Independent windows (rests, charges, days) beyond a line.", unit="1"),
            Column(
                "evidence",
                "varchar",
                "What a mechanic asks for, as JSON: lines, the worst and last windows with time ranges, details.",
            ),
            Column("clears_when", "varchar", "What would close it."),
        ),
    ),
    Table(
        "fct_cell_monthly",
        "One row per device, month and cell, where the car showed rests or steady charges with cell voltages.",
        (
            _DEVICE,
            Column("measured_month", "varchar", "KST month, YYYY-MM."),
            Column("cell_no", "integer", "Cell, 1-based.", unit="1"),
            Column(
                "residual_rest_mv",
                "double",
                "How far the cell rests from the median cell.",
                unit="mV",
                formula="time average over rests less that of the median cell",
                minimum_data="one rest",
            ),
            Column(
                "residual_charge_mv",
                "double",
                "The same on steady charge.",
                unit="mV",
                formula="time average over steady stretches less that of the median cell",
                minimum_data="one steady stretch of 5 messages",
            ),
            Column(
                "lowest_share_pct",
                "double",
                "Rest rows in which it is the pack's lowest; ties are shared.",
                unit="%",
                minimum_data="one rest",
            ),
            Column(
                "highest_share_pct",
                "double",
                "Rest rows in which it is the pack's highest; ties are shared.",
                unit="%",
                minimum_data="one rest",
            ),
            Column("n", "bigint", "Rows of rests and steady charges.", unit="1"),
        ),
    ),
    Table(
        "anomaly_coverage",
        "One row per device and code that the car cannot be judged on. No row: it is judged.",
        (
            _DEVICE,
            Column("code", "varchar", "Anomaly code."),
            Column("reason", "varchar", "Why it cannot be judged."),
        ),
    ),
    Table(
        "inspection_queue",
        "One row per car with an open case, or that cannot be seen or judged, in the order in which to call them in. "
        "Rows with is_listed are the list; the others are beyond its length. Monthly batch analysis, not a safety "
        "system; a car that is not here is not proven safe.",
        (
            Column("rank", "integer", "1: call in first.", unit="1"),
            _DEVICE,
            Column("score", "double", "Sum of the nine components.", unit="points", formula="docs/methods.md"),
            Column("score_severity", "double", "By the worst proven case.", unit="points"),
            Column("score_cases", "double", "By further independent cases.", unit="points"),
            Column("score_excess", "double", "By how far beyond its line.", unit="points"),
            Column("score_growth", "double", "By how fast it gets worse.", unit="points"),
            Column("score_persistence", "double", "By the windows it was seen in.", unit="points"),
            Column("score_exposure", "double", "By hours parked at a high state of charge.", unit="points"),
            Column("score_heat", "double", "By hours with a hot pack.", unit="points"),
            Column("score_blindness", "double", "By what cannot be seen or judged of it.", unit="points"),
            Column("score_age", "double", "By the age of the oldest case.", unit="points"),
            Column("top_severity", "integer", "Of the proven cases; 0: here because it cannot be seen.", unit="1"),
            Column("case_count", "integer", "Independent proven cases.", unit="1"),
            Column("codes", "varchar", "Codes of the open episodes, the worst case first."),
            Column("reasons", "varchar", "Why, in English, the worst case first."),
            Column("reasons_ko", "varchar", "The same in Korean."),
            Column("action", "varchar", "inspection, replacement, both, or data link."),
            Column("first_opened_at", "timestamp", "Opening of the oldest open episode; NULL: there is none."),
            Column("days_open", "integer", "Days from it to the last row of the fleet.", unit="d"),
            Column("is_bypass", "boolean", "True for severity 3: on the list whatever its length."),
            Column("is_listed", "boolean", "True within the length of the list, or severity 3."),
        ),
    ),
    Table(
        "inspection_outcome",
        "One row per outcome that a workshop reported, with what the platform had said before.",
        (
            Column("outcome_id", "varchar", "Hash of its content: reported twice it is one."),
            _DEVICE,
            Column("inspected_on", "date", "KST day of the visit."),
            Column("finding", "varchar", "confirmed, replaced, repaired, no_fault or inconclusive."),
            Column("code", "varchar", "Anomaly code it is about; NULL: none named."),
            Column("cell_no", "integer", "Cell, or module for codes about modules; NULL: none named.", unit="1"),
            Column("note", "varchar", "In the workshop's words."),
            Column("is_confirmed", "boolean", "True where a fault was found; NULL: inconclusive."),
            Column(
                "lead_time_d",
                "integer",
                "Days from the opening of the first matching episode to the visit; NULL: none preceded.",
                unit="d",
            ),
            Column("top_severity", "integer", "Of the matching episodes.", unit="1"),
            Column("anomaly_ids", "varchar", "Matching episodes."),
        ),
    ),
    Table(
        "inspection_precision",
        "One row per scope: how often workshops found a fault where an episode had been open.",
        (
            Column("scope", "varchar", "all, severity 2+, severity 3, or a code that workshops named."),
            Column("n", "integer", "Conclusive visits that an episode preceded.", unit="1"),
            Column("confirmed", "integer", "Of them, with a fault.", unit="1"),
            Column("precision_pct", "double", "Share confirmed.", unit="%", minimum_data="10 visits"),
            Column(
                "precision_lo_pct",
                "double",
                "Lower end of its 90 % interval (Wilson).",
                unit="%",
                minimum_data="1 visit",
            ),
            Column("precision_hi_pct", "double", "Upper end of it.", unit="%", minimum_data="1 visit"),
            Column("unforetold", "integer", "Visits with a fault that no episode preceded.", unit="1"),
            Column("inconclusive", "integer", "Visits that could not tell.", unit="1"),
            Column("verdict", "varchar", "ok, or n too small."),
        ),
    ),
    Table(
        "rejected_outcome",
        "One row per line of the outcomes ledger that cannot be used.",
        (
            Column("file_name", "varchar", "File below outcomes/."),
            Column("source_row", "bigint", "Line, 1-based; NULL: the whole file.", unit="1"),
            Column("reason", "varchar", "What is wrong, for a person to act on."),
            Column("text", "varchar", "Its first 500 characters."),
        ),
    ),
    Table(
        "released_version",
        "One row per released version: what was learnt from the fleet, named by its content. One is active per kind, "
        "chemistry and pack type; figures are made with the active ones.",
        (
            Column("version_id", "varchar", "Hash of what it says."),
            Column(
                "kind",
                "varchar",
                "ocv: open-circuit voltage over state of charge; baseline: what healthy cars of the type look like.",
            ),
            Column("chemistry", "varchar", "Cell chemistry it holds for."),
            Column("pack_type", "varchar", "Pack type it holds for; NULL for the whole chemistry."),
            Column("is_active", "boolean", "True when figures are made with it."),
            Column("content", "varchar", "The version itself, as JSON."),
            Column("made_from", "varchar", "What it was learnt from, as JSON: cars, rests, hash of the data."),
            Column("quality", "varchar", "How well it fits, as JSON."),
        ),
    ),
    Table(
        "device_decision",
        "One row per device and decision: what the platform decided about a car from all its data, and how sure it "
        "is. Sign of the current and scale of the voltage are decided per export layout, because a car's export can "
        "change; the sign has a row more for every month whose own evidence says otherwise.",
        (
            _DEVICE,
            Column(
                "decision",
                "varchar",
                "What was decided: current_sign, voltage_scale, soc_scale, cell_count, temp_sensor_count, "
                "temp_sensor_map, pack_type, chemistry, car_type, capacity_nominal_ah, insulation_cap_kohm, "
                "unsupported_channels.",
            ),
            Column(
                "layout_id",
                "varchar",
                "Export layout the decision is for (form and spelling of the columns); NULL for one about the car.",
            ),
            Column("measured_month", "varchar", "The one month it holds for, YYYY-MM; NULL: for all others."),
            Column(
                "value",
                "varchar",
                "The decision as text; NULL where the data say nothing, or no clear thing. No guess.",
            ),
            Column(
                "confidence",
                "double",
                "How sure it is, 0 to 1; 0 without evidence, 1 for a decision made by hand.",
                formula="share of the evidence that agrees, weighed by how much there is",
            ),
            Column("n", "bigint", "Observations behind it.", unit="1"),
            Column("evidence", "varchar", "The figures behind it, as JSON."),
            Column("is_overridden", "boolean", "True when `decision_overrides.csv` made the decision."),
        ),
    ),
    Table(
        "partition_quality",
        "One row per table, device, month and check: what was checked, how many rows failed, and one of them. A failed "
        "check of severity gate keeps the month out; of severity hold, the device keeps its last published figures; "
        "all others count and show.",
        (
            Column("measured_month", "varchar", "KST month, YYYY-MM."),
            _DEVICE,
            Column(
                "table_name",
                "varchar",
                "Checked table: raw_bms, raw_gps, stg_bms, stg_gps, device_decision, or a mart.",
            ),
            Column("check_name", "varchar", "Name of the check or of the row rule."),
            Column(
                "severity",
                "varchar",
                "gate, hold, flag (pandera checks); no_value, suspect (row rules of the staging views: a listed "
                "sentinel, or a value outside what physics allows).",
            ),
            Column("is_passed", "boolean", "True when no row failed."),
            Column("rows_checked", "bigint", "Rows the check looked at.", unit="1"),
            Column("rows_failed", "bigint", "Rows that failed.", unit="1"),
            Column("example", "varchar", "A failed value and where it is; NULL when none failed."),
        ),
    ),
    Table(
        "delivery",
        "One row per delivered file and member of an archive: what it held and what became of its rows. For BMS and "
        "GPS members rows_read = rows_kept + rows_duplicate + rows_superseded + rows_rejected.",
        (
            Column("file_name", "varchar", "Path below the landing folder."),
            Column("member", "varchar", "Path of the member inside the archive; NULL for a file that was not opened."),
            _SOURCE_FILE,
            Column("sha256", "varchar", "SHA-256 of the landing file."),
            Column(
                "kind", "varchar", "bms, gps, master (vehicle master) or unknown; NULL for a file that was not opened."
            ),
            Column("devices", "varchar[]", "Devices its rows belong to."),
            Column("months", "varchar[]", "KST months its rows belong to, whatever the file name says."),
            Column("rows_read", "bigint", "Data rows read; header, footer and dashes are none.", unit="1"),
            Column("rows_rejected", "bigint", "Rows that could not be parsed; they are in rejected_row.", unit="1"),
            Column("rows_kept", "bigint", "Rows that came into the raw partitions.", unit="1"),
            Column("rows_duplicate", "bigint", "Rows that another kept row repeats.", unit="1"),
            Column("rows_superseded", "bigint", "Rows that a later delivery replaced.", unit="1"),
            Column(
                "delivered_at",
                "timestamp",
                "When it was delivered: its time stamp inside the ZIP, else one in its name, else NULL.",
            ),
            Column(
                "status",
                "varchar",
                "ok; partial (some rows rejected); failed; empty; ignored (no data); duplicate (content of another "
                "file); deferred (waits for the next run).",
            ),
            Column("reason", "varchar", "Why it is not ok, in words a person can act on."),
            Column("unknown_columns", "varchar[]", "Delivered columns the platform does not know; they are left out."),
            Column("layout_id", "varchar", "Export layout: form and spelling of the columns."),
            Column("encoding", "varchar", "Character encoding of a text file."),
            Column("is_present", "boolean", "False when the file has left the landing; its rows stay."),
        ),
    ),
    Table(
        "rejected_row",
        "One row per row that could not be read, and per file that could not: with file, line and reason.",
        (
            Column("file_name", "varchar", "Path below the landing folder, then the member of the archive."),
            _SOURCE_FILE,
            Column("source_row", "bigint", "Line in the member, counted from 1, the header included; NULL: the file."),
            Column("reason", "varchar", "Why it was rejected."),
            Column("text", "varchar", "The row, first 500 characters."),
            Column("device_no", "varchar", f"Device number of the row. {_KEPT_OUT}"),
            Column("measured_month", "varchar", f"KST month of the row. {_KEPT_OUT}"),
        ),
    ),
)
"""The published tables that no dbt model makes."""

_KEYS = ("device_no", "measured_month", "service_date", "event_id", "session_id", "trip_id")
"""Columns a reader looks for first; the models have partition columns last."""


def published_tables(manifest: Mapping[str, Any]) -> tuple[Table, ...]:
    """All published tables: marts from the dbt manifest, then the platform's own."""
    nodes = [n for n in manifest["nodes"].values() if n["resource_type"] == "model" and n["schema"] == "marts"]
    marts = tuple(_mart(node) for node in sorted(nodes, key=lambda n: str(n["name"])))
    return (*marts, *PLATFORM_TABLES)


def _mart(node: Mapping[str, Any]) -> Table:
    columns = [_column(column) for column in node["columns"].values()]
    columns += PUBLISHED_COLUMNS.get(str(node["name"]), ())
    first = [column for name in _KEYS for column in columns if column.name == name]
    return Table(str(node["name"]), _flat(node["description"]), (*first, *(c for c in columns if c not in first)))


def _column(column: Mapping[str, Any]) -> Column:
    meta = column.get("config", {}).get("meta") or column.get("meta") or {}
    unit = str(meta.get("unit", ""))
    return Column(
        str(column["name"]),
        str(column["data_type"]),
        _flat(column["description"]),
        "" if unit == "none" else unit,
        _flat(meta.get("formula", "")),
        _flat(meta.get("minimum_data", "")),
    )


def _flat(text: object) -> str:
    return " ".join(str(text).split())


def render(tables: tuple[Table, ...]) -> str:
    """The page as Markdown."""
    lines = [
        "# Data dictionary",
        "",
        "Generated by `python -m baas_dagster.dictionary` from the YAML beside the dbt models; do not edit by hand.",
        "The tables are in `publish/fleet.duckdb` (schema `main`) and, one folder each, below `publish/parquet/`.",
        "Times are KST without a zone. A figure that cannot be stated is NULL, never 0.",
        "",
        *(f"* [{table.name}](#{table.name})" for table in tables),
    ]
    for table in tables:
        lines += ["", f"## {table.name}", "", table.meaning, ""]
        lines += ["| column | type | unit | meaning | formula | minimum data |", "|---|---|---|---|---|---|"]
        for c in table.columns:
            cells = (f"`{c.name}`", c.data_type, c.unit, c.meaning, c.formula, c.minimum_data)
            lines.append("| " + " | ".join(text.replace("|", "\\|") for text in cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Write the page, or with `--check` only say whether it is up to date."""
    parser = argparse.ArgumentParser(prog="python -m baas_dagster.dictionary", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 when it is out of date")
    parser.add_argument("--out", type=Path, default=PAGE)
    asked = parser.parse_args()
    from baas_dagster.resources import dbt_manifest

    text = render(published_tables(dbt_manifest(Settings())))
    if asked.check:
        if not asked.out.exists() or asked.out.read_text(encoding="utf-8") != text:
            print(f"{asked.out} is out of date: run python -m baas_dagster.dictionary", file=sys.stderr)
            return 1
        return 0
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    asked.out.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
