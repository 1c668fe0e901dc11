"""Partitions: device x month and device. The only place that knows how a partition key is written.

Belongs here: the partitions definitions, parsing and writing of keys, and how a set of keys becomes rectangles that one
range run can cover. Does not belong here: which keys need a run (``state``).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from zoneinfo import ZoneInfo

import dagster as dg

from baas_dagster.settings import FIRST_MONTH

__all__ = [
    "DEVICES",
    "KST",
    "MONTHS",
    "PARTITIONS",
    "PartitionId",
    "current_month",
    "device_of",
    "device_range_tags",
    "is_device_no",
    "is_month",
    "month_span",
    "range_tags",
    "rectangles",
    "runs_of",
]

KST = ZoneInfo("Asia/Seoul")


class _Devices(dg.DynamicPartitionsDefinition):
    """Devices, registered as they are delivered. A range is looked up in one query of the instance instead of three:
    Dagster asks for the range of a run at every event and every piece of metadata."""

    def get_partition_keys_in_range(self, partition_key_range: dg.PartitionKeyRange) -> Sequence[str]:
        """The keys from the first to the last, both included, in the order of their registration."""
        start, end = partition_key_range.start, partition_key_range.end
        keys = list(self.get_partition_keys())
        if start not in keys or end not in keys:
            return super().get_partition_keys_in_range(partition_key_range)  # which says what is wrong
        return keys[keys.index(start) : keys.index(end) + 1]


DEVICES = _Devices(name="devices")
MONTHS = dg.TimeWindowPartitionsDefinition(
    # the running month is delivered too, hence end_offset
    start=FIRST_MONTH,
    fmt="%Y-%m",
    cron_schedule="0 0 1 * *",
    timezone="Asia/Seoul",
    end_offset=1,
)
PARTITIONS = dg.MultiPartitionsDefinition({"device_no": DEVICES, "measured_month": MONTHS})

_DEVICE = re.compile(r"^\d{11}$")
_MONTH = re.compile(r"^\d{4}-(0[1-9]|1[0-2])$")
_START = "dagster/asset_partition_range_start"
_END = "dagster/asset_partition_range_end"


def is_device_no(text: str) -> bool:
    """True for the 11 digits that a device number is."""
    return bool(_DEVICE.match(text))


def is_month(text: str) -> bool:
    """True for YYYY-MM."""
    return bool(_MONTH.match(text))


def current_month() -> str:
    """The running month in Korea."""
    return datetime.now(KST).strftime("%Y-%m")


@dataclass(frozen=True, order=True)
class PartitionId:
    """One device and one month."""

    device_no: str
    measured_month: str

    @classmethod
    def parse(cls, key: str) -> PartitionId:
        """Read a Dagster key ``<device_no>|<YYYY-MM>``; ValueError where it is not one."""
        device, _, month = key.partition("|")
        if not (is_device_no(device) and is_month(month)):
            raise ValueError(f"not a partition key <device_no>|<YYYY-MM>: {key!r}")
        return cls(device, month)

    @property
    def key(self) -> str:
        """The Dagster key; dimensions sort by name, so the device stands first."""
        return f"{self.device_no}|{self.measured_month}"


def device_of(key: str) -> str:
    """The device of a partition key, or the key itself where it is a device already."""
    return key.partition("|")[0]


def month_span(text: str) -> tuple[str, str]:
    """First and last month of ``2023-01`` or ``2023-01..2023-03``; ValueError where it is neither."""
    first, _, last = text.partition("..")
    last = last or first
    if not (is_month(first) and is_month(last)) or first > last:
        raise ValueError(f"not a month or a range of months (2023-01 or 2023-01..2023-03): {text!r}")
    return first, last


def runs_of(order: Sequence[str], wanted: Iterable[str]) -> list[tuple[str, str]]:
    """Consecutive stretches of `wanted` along `order`, as (first, last).

    A range over dynamic keys follows the order in which they were registered, not the alphabet.
    """
    chosen = set(wanted)
    missing = chosen.difference(order)
    if missing:
        raise KeyError(f"unknown partition keys: {sorted(missing)[:5]}")
    stretches = []
    for inside, group in groupby(order, key=chosen.__contains__):
        if inside:
            keys = list(group)
            stretches.append((keys[0], keys[-1]))
    return stretches


def _next_month(month: str) -> str:
    year, number = int(month[:4]), int(month[5:])
    return f"{year + number // 12}-{number % 12 + 1:02d}"


def rectangles(
    wanted: Iterable[PartitionId],
    registered: Sequence[str],
    weight: dict[PartitionId, int],
    max_keys: int,
    max_weight: int,
) -> list[list[PartitionId]]:
    """Cut a set of partitions into rectangles (devices in registered order x consecutive months).

    Each rectangle holds exactly wanted partitions, at most `max_keys` of them and about `max_weight` rows.
    Devices that want the same stretch of months share a rectangle.
    """
    months: dict[str, list[str]] = {}
    for part in sorted(set(wanted)):
        months.setdefault(part.device_no, []).append(part.measured_month)
    position = {device: i for i, device in enumerate(registered)}
    stretches: dict[tuple[str, str], list[str]] = {}
    for device, wanted_months in months.items():
        first = previous = wanted_months[0]
        for month in [*wanted_months[1:], ""]:
            if month != _next_month(previous):
                stretches.setdefault((first, previous), []).append(device)
                first = month
            previous = month
    found: list[list[PartitionId]] = []
    for (first, last), devices in sorted(stretches.items()):
        span = [first]
        while span[-1] != last:
            span.append(_next_month(span[-1]))
        block: list[str] = []
        block_weight = 0

        def close(block: list[str], span: list[str]) -> None:
            step = max(1, max_keys // len(block))
            found.extend(
                [PartitionId(d, m) for d in block for m in span[i : i + step]] for i in range(0, len(span), step)
            )

        for device in sorted(devices, key=position.__getitem__):
            device_weight = sum(weight.get(PartitionId(device, m), 0) for m in span)
            apart = bool(block) and position[device] != position[block[-1]] + 1
            full = bool(block) and (
                (len(block) + 1) * len(span) > max_keys or block_weight + device_weight > max_weight
            )
            if apart or full:
                close(block, span)
                block, block_weight = [], 0
            block.append(device)
            block_weight += device_weight
        close(block, span)
    return found


def range_tags(block: Sequence[PartitionId]) -> dict[str, str]:
    """Run tags of a rectangle of partitions."""
    first, last = block[0], block[-1]
    return {_START: first.key, _END: last.key}


def device_range_tags(first: str, last: str) -> dict[str, str]:
    """Run tags of a stretch of devices in registered order."""
    return {_START: first, _END: last}
