"""What is new, changed, stale or failed: one fingerprint per unit of state, and nothing else says so.

A unit is one raw partition (`raw_bms`, `raw_gps`), one device's decisions (`decision`), one partition's local pieces
(`local`), what its detectors saw (`evidence`), one device's marts (`device`), its state of health (`health`), its
episodes (`anomaly`), or the published snapshot (`fleet`). Its fingerprint is a hash of what makes it: input content,
code, numbers, seeds, decisions, released versions. `wanted` computes what each should be, the table ops.unit_state says
what each is; the difference is the work. `baas run`, `baas status`, the sensor and the self-healing schedule read this.

Belongs here: fingerprints, the catalogue queries they need, the plan. Does not belong here: doing the work.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from functools import lru_cache
from pathlib import Path

import duckdb

from baas_dagster import outcomes as ledger
from baas_dagster.partitions import KST, PartitionId, device_of
from baas_dagster.released import Releases
from baas_dagster.resources import code_hash, insert
from baas_dagster.settings import DBT_PROJECT, Settings
from baas_dagster.telemetry.columns import TableKind
from baas_dagster.telemetry.decisions import read_overrides

__all__ = [
    "CodeVersions", "State", "Unit", "WorkItem", "code_versions", "load", "mark", "mark_failed", "parser_version",
]  # fmt: skip


class Unit(StrEnum):
    """The units of state, in the order in which they build on each other."""

    RAW_BMS = "raw_bms"
    RAW_GPS = "raw_gps"
    DECISION = "decision"
    LOCAL = "local"
    EVIDENCE = "evidence"
    DEVICE = "device"
    HEALTH = "health"
    ANOMALY = "anomaly"
    FLEET = "fleet"

    @classmethod
    def raw(cls, kind: TableKind) -> Unit:
        """The unit of raw partitions of a kind."""
        return cls.RAW_BMS if kind is TableKind.BMS else cls.RAW_GPS


_PACKAGE = Path(__file__).parent
FLEET_KEY = "fleet"


@dataclass(frozen=True)
class CodeVersions:
    """Content hash of the code that makes each unit."""

    parser: str
    raw: str
    decision: str
    local: str
    evidence: str
    device: str
    health: str
    anomaly: str
    fleet: str


_NO_EVIDENCE = {"episodes", "ranking", "cases", "outcomes", "codes", "health", "fleet"}
"""Modules of `anomaly` that see no rows."""


@lru_cache(maxsize=1)
def code_versions(package: Path = _PACKAGE, dbt: Path = DBT_PROJECT) -> CodeVersions:
    """Hashes of the source files behind each unit. A file that only shows or schedules is in none of them.

    A unit holds what makes it from what the unit below left: code and seeds that the unit below holds count through it.
    """
    telemetry, models, macros, seeds = package / "telemetry", dbt / "models", dbt / "macros", dbt / "seeds"
    assets = {name: package / "assets" / f"{name}.py" for name in (
        "anomalies", "battery", "decisions", "marts", "publish", "queue", "raw", "sites",
    )}  # fmt: skip
    schemas = {name: package / "schemas" / f"{name}.py" for name in ("anomalies", "marts", "outcome", "raw")}
    anomaly = package / "anomaly"
    # a number of the queue or of episodes must not make evidence stale, but the numbers of detectors stand beside them
    detectors = [p for p in sorted(anomaly.glob("*.py")) if p.stem not in _NO_EVIDENCE]
    made_by = {
        "parser": [telemetry / f"{name}.py" for name in ("archives", "cells", "columns", "delivery", "formats")],
        # a raw partition leaves the evidence of decisions
        "raw": [
            telemetry / "clean.py", telemetry / "decisions.py", assets["raw"], schemas["raw"], schemas["outcome"],
        ],
        "decision": [telemetry / "decisions.py", seeds / "pack_type.csv", assets["decisions"]],
        "local": [models / "staging", models / "intermediate", macros, assets["marts"]],
        "evidence": [models / "staging", macros, *detectors, assets["anomalies"], schemas["anomalies"]],
        "device": [models / "marts", macros, package / "mileage", assets["marts"], schemas["marts"]],
        "health": [
            package / "battery", seeds / "ocv_reference.csv", models / "marts" / "health", macros, assets["battery"],
            assets["marts"], schemas["marts"],
        ],
        "anomaly": [anomaly, package / "outcomes.py", assets["anomalies"], schemas["anomalies"]],
        "fleet": [anomaly, assets["publish"], assets["sites"], assets["queue"]],
    }  # fmt: skip
    return CodeVersions(**{unit: code_hash(*paths) for unit, paths in made_by.items()})


def parser_version(settings: Settings) -> str:
    """What decides how a landing file is read: code, and the first month that is believed."""
    return _hash(code_versions().parser, settings.first_month)


@dataclass(frozen=True, order=True)
class WorkItem:
    """One unit that needs a run, and why: `new`, `changed` (its input or code), or `failed` (the last time)."""

    unit: Unit
    key: str
    fingerprint: str
    reason: str


@dataclass
class State:
    """The whole state at one moment: wanted and held fingerprints of every unit."""

    wanted: dict[Unit, dict[str, str]]
    made: dict[Unit, dict[str, str]]
    """What each would be if it were made now, from its inputs as they are: the same once those are up to date."""
    held: dict[Unit, dict[str, tuple[str, str, str | None]]]  # key -> fingerprint, status, reason
    weight: dict[PartitionId, int] = field(default_factory=dict)  # BMS rows delivered

    def work(self, unit: Unit, *, retry_failed: bool = True) -> list[WorkItem]:
        """Units of one kind that need a run, in the order of their keys."""
        return self.plan(retry_failed=retry_failed)[unit]

    def plan(self, *, retry_failed: bool = True) -> dict[Unit, list[WorkItem]]:
        """Everything that needs a run, and why.

        A unit needs one when it would come out different now, when something below it is about to be run, or when it
        failed. One that only waits for something below it that failed does not: a run would change nothing.
        """
        found: dict[Unit, list[WorkItem]] = {unit: [] for unit in Unit}
        pending: set[tuple[Unit, str]] = set()
        pending_devices: dict[Unit, set[str]] = {unit: set() for unit in Unit}
        for unit in Unit:
            for key, fingerprint in sorted(self.wanted[unit].items()):
                have = self.held[unit].get(key)
                will_change = self._is_below_pending(unit, key, pending, pending_devices)
                if have is None:
                    reason = "new"
                elif have[1] == "failed" and have[0] == fingerprint and not will_change:
                    if not retry_failed:
                        continue
                    reason = "failed"
                elif have[1] == "failed" or have[0] != self.made[unit].get(key) or will_change:
                    reason = "changed"
                else:
                    continue
                found[unit].append(WorkItem(unit, key, fingerprint, reason))
                pending.add((unit, key))
                pending_devices[unit].add(device_of(key))
        return found

    @staticmethod
    def _is_below_pending(unit: Unit, key: str, pending: set[tuple[Unit, str]], devices: dict[Unit, set[str]]) -> bool:
        device = device_of(key)
        if unit is Unit.DECISION:
            return device in devices[Unit.RAW_BMS]
        if unit is Unit.LOCAL:
            return (Unit.RAW_BMS, key) in pending or (Unit.RAW_GPS, key) in pending
        if unit is Unit.EVIDENCE:
            return (Unit.RAW_BMS, key) in pending
        if unit is Unit.DEVICE:
            return device in devices[Unit.LOCAL]
        if unit is Unit.HEALTH:
            return device in devices[Unit.DEVICE]
        if unit is Unit.ANOMALY:
            return device in devices[Unit.EVIDENCE] or device in devices[Unit.HEALTH]
        return unit is Unit.FLEET and any(devices[below] for below in (Unit.DEVICE, Unit.HEALTH, Unit.ANOMALY))

    def failed(self) -> list[tuple[Unit, str, str]]:
        """Units whose last run failed, with the reason."""
        return [
            (unit, key, reason or "")
            for unit, held in self.held.items()
            for key, (_, status, reason) in sorted(held.items())
            if status == "failed" and key in self.wanted[unit]
        ]

    @property
    def partitions(self) -> list[PartitionId]:
        """Every partition that has been delivered."""
        return [PartitionId.parse(key) for key in sorted(self.wanted[Unit.LOCAL])]

    @property
    def devices(self) -> list[str]:
        """Every device that has been delivered."""
        return sorted(self.wanted[Unit.DEVICE])


def _hash(*parts: object) -> str:
    return hashlib.sha256("\x1f".join(map(str, parts)).encode()).hexdigest()[:24]


def load(connection: duckdb.DuckDBPyConnection, settings: Settings) -> State:
    """Read the catalogue and compute every fingerprint. Linear in partitions, reads no Parquet file."""
    slices: dict[tuple[str, str], list[str]] = {}
    weight: dict[PartitionId, int] = {}
    rows = connection.execute(
        """
        select kind, device_no, measured_month, s.source_file || ':' || f.parser as content, s.row_count
        from ops.delivered_slice as s inner join ops.delivered_file as f using (sha256)
        """
    ).fetchall()
    for kind, device, month, content, count in rows:
        part = PartitionId(device, month)
        slices.setdefault((kind, part.key), []).append(content)
        if kind == "bms":
            weight[part] = weight.get(part, 0) + count
    held: dict[Unit, dict[str, tuple[str, str, str | None]]] = {unit: {} for unit in Unit}
    for unit, key, fingerprint, status, reason in connection.execute(
        "select unit, key, fingerprint, status, reason from ops.unit_state"
    ).fetchall():
        held[Unit(unit)][key] = (fingerprint, status, reason)
    reported = ledger.read(settings.outcomes).fingerprints()
    inputs = _Inputs(
        numbers=settings.numbers_hash(),
        slices={name: sorted(content) for name, content in slices.items()},
        overrides={
            device: str(sorted((d, layout or "", v) for (d, layout), v in by_hand.items()))
            for device, by_hand in read_overrides(settings.overrides).items()
        },
        masters=dict(
            connection.execute(
                "select device_no, string_agg(source_file, '|' order by source_file) from ops.vehicle_master group by 1"
            ).fetchall()
        ),
        decided=dict(connection.execute("select device_no, content from ops.device_setting").fetchall()),
        released=_released(connection, Releases(settings.released)),
        active=json.dumps(Releases(settings.released).active(), sort_keys=True),
        outcomes=reported.by_device,
        all_outcomes=reported.everything,
        delivered=connection.execute(
            "select md5(string_agg(path || coalesce(sha256, ''), '|' order by path)) from ops.landing_file"
        ).fetchall()[0][0],
        # a partition whose last file is gone from the catalogue is made empty, so it stays known
        keys=sorted({key for _, key in slices} | {key for unit in _BY_PARTITION for key in held[unit]}),
    )
    wanted = _fingerprints(inputs, None)
    made = _fingerprints(
        inputs, {unit: {k: f if s == "ok" else f"failed:{f}" for k, (f, s, _) in h.items()} for unit, h in held.items()}
    )
    return State(wanted, made, held, weight)


def _released(connection: duckdb.DuckDBPyConnection, releases: Releases) -> dict[str, tuple[str, str]]:
    """Device -> ids of the released versions that its figures are made with."""
    rows = connection.execute("select device_no, chemistry, pack_type from ops.device_setting").fetchall()
    packs = {(chemistry, pack_type) for _, chemistry, pack_type in rows}
    by_pack = {
        pack: (releases.id_for_pack("ocv", *pack) or "", releases.id_for_pack("baseline", *pack) or "")
        for pack in packs
    }
    return {device: by_pack[chemistry, pack_type] for device, chemistry, pack_type in rows}


_BY_PARTITION = (Unit.RAW_BMS, Unit.RAW_GPS, Unit.LOCAL, Unit.EVIDENCE)
_Fingerprints = dict[Unit, dict[str, str]]


@dataclass(frozen=True)
class _Inputs:
    numbers: str
    slices: Mapping[tuple[str, str], list[str]]
    overrides: Mapping[str, str]
    masters: Mapping[str, str]
    decided: Mapping[str, str]
    released: Mapping[str, tuple[str, str]]  # device -> ids of its OCV curve and of its baseline
    active: str
    outcomes: Mapping[str, str]  # device -> what was reported of it
    all_outcomes: str
    delivered: str | None
    keys: list[str]


def _fingerprints(inputs: _Inputs, held: _Fingerprints | None) -> _Fingerprints:
    """Every fingerprint, each built on what the units below it should be (`held` None) or are (`held`)."""
    code, numbers = code_versions(), inputs.numbers
    made: _Fingerprints = {unit: {} for unit in Unit}
    below = made if held is None else held
    by_device: dict[str, list[str]] = {}
    for key in inputs.keys:
        by_device.setdefault(PartitionId.parse(key).device_no, []).append(key)
        for kind in TableKind:
            made[Unit.raw(kind)][key] = _hash(code.raw, numbers, *inputs.slices.get((str(kind), key), []))
    for device, keys in by_device.items():
        raw = [f"{key}={below[Unit.RAW_BMS].get(key, '')}" for key in keys]
        by_hand, master = inputs.overrides.get(device, ""), inputs.masters.get(device, "")
        made[Unit.DECISION][device] = _hash(code.decision, numbers, by_hand, master, *raw)
        decision = inputs.decided.get(device, "")
        for key in keys:
            parts = (below[Unit.RAW_BMS].get(key, ""), below[Unit.RAW_GPS].get(key, ""))
            made[Unit.LOCAL][key] = _hash(code.local, numbers, decision, *parts)
            made[Unit.EVIDENCE][key] = _hash(code.evidence, numbers, decision, parts[0])
        pieces = [f"{key}={below[Unit.LOCAL].get(key, '')}" for key in keys]
        made[Unit.DEVICE][device] = _hash(code.device, numbers, decision, *pieces)
        marts = below[Unit.DEVICE].get(device, "")
        released = inputs.released.get(device, ("", ""))
        made[Unit.HEALTH][device] = _hash(code.health, numbers, decision, released[0], marts)
        seen = [f"{key}={below[Unit.EVIDENCE].get(key, '')}" for key in keys]
        reported, health = inputs.outcomes.get(device, ""), below[Unit.HEALTH].get(device, "")
        made[Unit.ANOMALY][device] = _hash(code.anomaly, numbers, decision, *released, reported, health, *seen)
    devices = [f"{device}={below[Unit.ANOMALY].get(device, '')}" for device in sorted(by_device)]
    if inputs.delivered is not None:  # before the first delivery there is nothing to publish
        made[Unit.FLEET][FLEET_KEY] = _hash(
            code.fleet, numbers, inputs.delivered, inputs.active, inputs.all_outcomes, *devices
        )
    return made


def mark(connection: duckdb.DuckDBPyConnection, unit: Unit, fingerprints: Mapping[str, str]) -> None:
    """Record that units are now what their fingerprints say."""
    _write(connection, unit, [(k, f, "ok", None) for k, f in fingerprints.items()])


def mark_failed(
    connection: duckdb.DuckDBPyConnection, unit: Unit, fingerprints: Mapping[str, str], reason: str
) -> None:
    """Record that units could not be made, and why."""
    _write(connection, unit, [(k, f, "failed", reason[:2000]) for k, f in fingerprints.items()])


def _write(connection: duckdb.DuckDBPyConnection, unit: Unit, rows: Iterable[tuple[str, str, str, str | None]]) -> None:
    now = datetime.now(KST).replace(tzinfo=None)
    insert(
        connection,
        "ops.unit_state",
        [(str(unit), key, fingerprint, status, reason, now) for key, fingerprint, status, reason in rows],
        or_replace=True,
    )
