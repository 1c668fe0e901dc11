"""Released versions: what was learnt from the fleet (OCV curves), named by content, and which are active.

Belongs here: the files below `BAAS_HOME/released`, their names and the list of active ones. Does not belong here: how a
version is learnt (``battery``) and what it changes (``state``).

A version never changes: its name is a hash of what it says. At most one is active per kind, chemistry and pack type;
the list of active versions is an input of the published tables, like the landing.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from baas_dagster.durable import make_folder, put_in_place

__all__ = ["Releases", "Version"]

_ACTIVE = "active.json"


@dataclass(frozen=True)
class Version:
    """One released version. `pack_type` is None where it holds for a whole chemistry."""

    kind: str
    chemistry: str
    pack_type: str | None
    content: Mapping[str, Any]
    """What it says; figures only, so that its hash is its name."""
    made_from: Mapping[str, Any]
    """What it was learnt from: cars, rests, months, hash of the data."""
    quality: Mapping[str, Any]
    """How well it fits what it was learnt from."""

    @property
    def version_id(self) -> str:
        """First 16 hex digits of the hash of kind, chemistry, pack type and content."""
        said = [self.kind, self.chemistry, self.pack_type, self.content]
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def slot(self) -> str:
        """What at most one version can be active for."""
        return "/".join((self.kind, self.chemistry, self.pack_type or "*"))


@dataclass(frozen=True)
class Releases:
    """The released versions below a folder."""

    folder: Path

    def versions(self) -> list[Version]:
        """Every version, by kind, chemistry, pack type and name."""
        if not self.folder.is_dir():
            return []
        found = [
            Version(**json.loads(path.read_text(encoding="utf-8")))
            for path in self.folder.glob("*.json")
            if path.name != _ACTIVE
        ]
        return sorted(found, key=lambda v: (v.slot, v.version_id))

    def active(self) -> dict[str, str]:
        """Slot -> id of its active version."""
        path = self.folder / _ACTIVE
        if not path.exists():
            return {}
        found: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))
        return found

    def add(self, versions: Iterable[Version]) -> None:
        """Write versions; one that is there already stays as it is."""
        for version in versions:
            path = self.folder / f"{version.kind}-{version.version_id}.json"
            if not path.exists():
                _write(path, vars(version))

    def activate(self, versions: Iterable[Version]) -> list[str]:
        """Make versions the active ones of their slots; returns the slots that changed."""
        active = self.active()
        changed = {v.slot: v.version_id for v in versions if active.get(v.slot) != v.version_id}
        if changed:
            _write(self.folder / _ACTIVE, active | changed)
        return sorted(changed)

    def for_pack(self, kind: str, chemistry: str | None, pack_type: str | None) -> Version | None:
        """The active version for a pack: its type's, else its chemistry's, else None."""
        version_id = self.id_for_pack(kind, chemistry, pack_type)
        if version_id is None:
            return None
        return Version(**json.loads((self.folder / f"{kind}-{version_id}.json").read_text(encoding="utf-8")))

    def id_for_pack(self, kind: str, chemistry: str | None, pack_type: str | None) -> str | None:
        """Id of the active version for a pack, without reading the version itself."""
        if chemistry is None:
            return None
        active = self.active()
        return active.get(f"{kind}/{chemistry}/{pack_type}") or active.get(f"{kind}/{chemistry}/*")


def _write(path: Path, content: Mapping[str, Any]) -> None:
    """Write a file whole or not at all."""
    make_folder(path.parent)
    temporary = path.with_name(f".tmp-{os.getpid()}-{path.name}")
    try:
        temporary.write_text(json.dumps(content, sort_keys=True, indent=1), encoding="utf-8")
        put_in_place(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
