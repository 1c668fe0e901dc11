"""Which episodes are one case: several codes can tell of the same cell, the same module, the same cause.

Belongs here: naming the case of a code and an item. Does not belong here: how bad it is (``episodes``, ``ranking``).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from baas_dagster.anomaly.codes import CODES, Item

__all__ = ["BLIND_CODES", "case_of", "codes_of_case", "detail_of", "is_of_case"]

BLIND_CODES = frozenset({"DEVICE_SILENT", "PARTITION_GATED"})
"""Codes that say "this car cannot be seen", not "this car has a fault"."""

_ONE_CAUSE = {
    "SOH_LOW": "capacity",  # fading is how it became low
    "SOH_FADE": "capacity",
    "SOC_JUMP": "soc",  # a jump is a bias that the BMS takes back
    "SOC_BIAS": "soc",
    "COUNTER_DRIFT": "counters",
    "COUNTER_RESET": "counters",
    "DEVICE_SILENT": "unseen",
    "PARTITION_GATED": "unseen",
}
"""Codes of the car that have one cause."""


def detail_of(episode: Mapping[str, Any]) -> dict[str, Any]:
    """Detail of an episode's worst window; empty where there is none or it cannot be read."""
    try:
        found = json.loads(episode.get("evidence") or "{}")
    except ValueError:
        return {}
    detail = (found.get("worst") or {}).get("detail") if isinstance(found, dict) else None
    return detail if isinstance(detail, dict) else {}


def case_of(episode: Mapping[str, Any]) -> str:
    """The case of an episode (a row of ``fct_anomaly`` with code, cell_no, module_no, evidence), unique within its car.

    All codes of one cell are one case, all codes of one module are. FAULT_OR_SENSOR belongs to the cell, module or
    channel that its detail names with ``cell_no``, ``module_no`` or ``channel``, where it names one.
    """
    code = str(episode["code"])
    detail = detail_of(episode) if code == "FAULT_OR_SENSOR" else {}
    cell = episode.get("cell_no") or detail.get("cell_no")
    module = episode.get("module_no") or detail.get("module_no")
    if cell:
        return f"cell {cell}"
    if module:
        return f"module {module}"
    if detail.get("channel") == "insulation":
        return "INSULATION_LOW"
    item = CODES[code].item
    return item.value if item is not Item.CAR else _ONE_CAUSE.get(code, code)


def codes_of_case(code: str) -> list[str]:
    """Codes that can tell of the same case as `code`, itself among them, sorted."""
    item = CODES[code].item
    if item is not Item.CAR:
        return sorted(other for other, known in CODES.items() if known.item is item)
    cause = _ONE_CAUSE.get(code, code)
    return sorted(other for other in CODES if CODES[other].item is Item.CAR and _ONE_CAUSE.get(other, other) == cause)


def is_of_case(episode: Mapping[str, Any], code: str | None, item_no: int | None) -> bool:
    """True where an episode may tell of what a workshop names: a code and the number of a cell or module, either None.

    A number without a code is a cell's. A number beside a code of the car says nothing more.
    """
    case = case_of(episode)
    if code is None:
        return item_no is None or case == f"cell {item_no}"
    item = CODES[code].item
    if item is Item.CAR:
        return episode["code"] == code or case == case_of({"code": code})
    if item_no is None:
        return case == item.value or case.startswith(f"{item.value} ")
    return case in (item.value, f"{item.value} {item_no}")
