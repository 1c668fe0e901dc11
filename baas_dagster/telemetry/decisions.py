"""What a device's data say about the device: sign, scale, cells, sensors, pack type, with the evidence for it.

Belongs here: evidence of one partition (LOCAL), and the decision from the evidence of all partitions (STITCHED). Pure
functions. Does not belong here: applying decisions (dbt staging), or storing them (``assets``).

Evidence is a dictionary of counts and sums that add up over partitions, so that any grouping gives the same decision.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from baas_dagster.settings import PROJECT_ROOT, sql_vars

__all__ = [
    "CHANNELS", "EVIDENCE_COLUMNS", "Decision", "DeviceDecisions", "PackType", "add_up", "decide", "evidence",
    "pack_types", "read_overrides",
]  # fmt: skip

Evidence = dict[str, Any]

ZERO_CHANNELS: tuple[str, ...] = tuple(sql_vars()["zero_channels"])
"""Channels that a car does not support when they are 0 in all its rows (DOMAIN 3, kind 2)."""

FLAG_CHANNELS: tuple[str, ...] = tuple(sql_vars()["flag_channels"])
"""Flags that a car does not support when they are set while it drives (DOMAIN 1: they can be constant)."""

CHANNELS = ZERO_CHANNELS + FLAG_CHANNELS

EVIDENCE_COLUMNS = [
    "time", "pack_current", "pack_volt", "soc", "emobility_spd", "cumul_current_chrgd", "cumul_current_dischrgd",
    "cell_n", "cell_sum_mv", "cell_max_mv", "mod_temp_dc", "insul_resistance", "layout_id",
    *CHANNELS,
]  # fmt: skip
"""The columns of a raw BMS partition that evidence reads; the cell lists are not among them."""

ALL_SUPPORTED = "none"
"""Value of the decision `unsupported_channels` where there is no such channel."""

_PAIR_GAP_S = 90.0
"""Row pairs further apart than this say little of the ohmic response; fleets that log once a minute still count."""
_CURRENT_STEP_A = 5.0
"""Steps of the delivered current (resolution 0.1 A) that move the voltage of any pack above its 0.1 V resolution."""
_LFP_CEILING_MV = 3700
"""LFP is charged to 3.65 V and rests below 3.4 V; NMC passes 3.7 V above about 40 % SoC."""
_SOC_POINT_AH = 20.0
"""Ah that move the delivered SoC by 1: 0.4 to 2 where it is in %, 40 to 200 where it runs from 0 to 1."""
_SOC_STRETCHES = 5
"""Stretches of 600 s in which both moved before a SoC from 0 to 1 is believed, beside that it is never above 1."""
_PLATEAU_SOC_PCT, _PLATEAU_MV, _PLATEAU_SHARE, _PLATEAU_ROWS = 60.0, 3550, 0.9, 100
"""From 60 % on LFP stands below 3.55 V but for the end of a charge, NMC above it but for heavy loads. In simulated
months at least 0.995 of the readings of LFP cells are below, of others at most 0.015."""
_CHANNEL_READINGS = 1000
"""Readings before 0 counts as "not there": a temperature in whole degrees can rest at 0 for minutes, not for all of the
17 h that these are at one a minute; at one a second (17 minutes) later months decide anew."""
_FLAG_DRIVING_ROWS = 100
"""Rows in motion before a flag is judged by them: two minutes at one a second, more than any message is late."""
_FLAG_STUCK_SHARE = 0.9
"""Share of them from which a flag is stuck: plugged in nothing drives, but rows can be late."""
_TEMP_SENTINELS_DC = (-400, 2150, 4710)


@dataclass(frozen=True)
class PackType:
    """One pack type of the registry `pack_type.csv`."""

    pack_type: str
    cell_count: int
    chemistry: str
    capacity_nominal_ah: float
    capacity_source: str
    car_types: tuple[str, ...]


@lru_cache(maxsize=1)
def pack_types() -> tuple[PackType, ...]:
    """The registry of pack types: a seed of the project, with the source of each capacity."""
    path = PROJECT_ROOT / "dbt_project" / "seeds" / "pack_type.csv"
    with path.open(encoding="utf-8", newline="") as handle:
        return tuple(
            PackType(
                row["pack_type"],
                int(row["cell_count"]),
                row["chemistry"],
                float(row["capacity_nominal_ah"]),
                row["capacity_source"],
                tuple(row["car_types"].split()),
            )
            for row in csv.DictReader(handle)
        )


@dataclass(frozen=True)
class Decision:
    """One decision: its value as text, how sure (0-1), from how many observations, and the figures behind it."""

    decision: str
    layout_id: str | None
    value: str | None
    confidence: float
    n: int
    evidence: Evidence
    is_overridden: bool = False
    measured_month: str | None = None
    """The one month it holds for, other than its layout's; None: all others."""


@dataclass(frozen=True)
class DeviceDecisions:
    """All decisions of one device."""

    device_no: str
    decisions: tuple[Decision, ...]

    def value(self, decision: str, layout_id: str | None = None) -> str | None:
        """The value of a decision that holds for all months, None where nothing could be decided."""
        found = [
            d.value
            for d in self.decisions
            if d.decision == decision and d.layout_id == layout_id and d.measured_month is None
        ]
        return found[0] if found else None


def _layout_evidence(rows: pl.DataFrame) -> Evidence:
    """Sums over one partition and layout. `rows` are ascending in time."""
    time_s = rows["time"].to_numpy().astype("datetime64[us]").astype(np.int64) / 1e6
    current = rows["pack_current"].to_numpy()
    volt = rows["pack_volt"].to_numpy()
    dt = np.diff(time_s)
    d_current, d_volt = np.diff(current), np.diff(volt)
    # a difference to a missing voltage is NaN, which is neither 0 nor of any sign
    step = (dt <= _PAIR_GAP_S) & (np.abs(d_current) >= _CURRENT_STEP_A) & np.isfinite(d_volt) & (d_volt != 0)
    agree = int(np.sum(step & (np.sign(d_current) == np.sign(d_volt))))
    oppose = int(np.sum(step & (np.sign(d_current) != np.sign(d_volt))))

    # charge moved, as the delivered sign has it, against what SoC and counters did (silences of any length count not)
    amp_s = np.where(dt <= _PAIR_GAP_S, 0.5 * (current[1:] + current[:-1]) * dt, 0.0)
    found: Evidence = {"step_agree": agree, "step_oppose": oppose, "rows": rows.height}
    found["current_rows"] = int(np.sum(np.isfinite(current)))
    for name, column in (("soc", "soc"), ("counter", None)):
        level = (
            rows["cumul_current_chrgd"].to_numpy() - rows["cumul_current_dischrgd"].to_numpy()
            if column is None
            else np.where(rows[column].to_numpy() == 0, np.nan, rows[column].to_numpy())
        )
        good = np.isfinite(level[1:]) & np.isfinite(level[:-1]) & np.isfinite(amp_s) & (dt <= _PAIR_GAP_S)
        # stretches of 600 s: a quantised level needs time to move
        bucket = np.floor(time_s[1:] / 600.0).astype(np.int64)
        keys, inverse = np.unique(bucket[good], return_inverse=True)
        moved = np.bincount(inverse, weights=amp_s[good], minlength=len(keys))
        rise = np.bincount(inverse, weights=np.diff(level)[good], minlength=len(keys))
        clear = (np.abs(moved) > 3600.0) & (rise != 0)  # more than 1 Ah
        found[f"{name}_agree"] = int(np.sum(clear & (np.sign(moved) == np.sign(rise))))
        found[f"{name}_oppose"] = int(np.sum(clear & (np.sign(moved) != np.sign(rise))))
        if column == "soc":
            found["soc_stretches"] = int(np.sum(clear))
            found["soc_of_one"] = int(np.sum(np.abs(moved[clear]) / 3600.0 > _SOC_POINT_AH * np.abs(rise[clear])))
            found["soc_rows"] = int(np.sum(np.isfinite(level)))
            found["soc_above_1"] = int(np.sum(level > 1))

    cell_sum_v = rows["cell_sum_mv"].to_numpy() / 1000.0
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = volt / cell_sum_v
    ratio = ratio[np.isfinite(ratio) & (cell_sum_v > 50)]
    found["ratio_1"] = int(np.sum(np.abs(ratio - 1) < 0.1))
    found["ratio_10"] = int(np.sum(np.abs(ratio / 10 - 1) < 0.1))
    found["ratio_other"] = int(ratio.size) - found["ratio_1"] - found["ratio_10"]
    finite = volt[np.isfinite(volt) & (volt > 0)]
    found["volt_above_1000"] = int(np.sum(finite > 1000))
    found["volt_rows"] = int(finite.size)
    return found


def _device_evidence(rows: pl.DataFrame) -> Evidence:
    """What does not depend on the layout: cells, sensors, chemistry, insulation."""
    cells = rows["cell_n"].drop_nulls()
    found: Evidence = {"cell_n": {str(k): v for k, v in cells.filter(cells > 0).value_counts().iter_rows()}}
    top = rows["cell_max_mv"].drop_nulls()
    # the 99th percentile of a month, as a count above the ceiling, adds up over months
    found["cell_max_rows"] = top.len()
    found["cell_max_above_lfp"] = int((top > _LFP_CEILING_MV).sum())
    high = rows.filter(pl.col("soc") >= _PLATEAU_SOC_PCT)["cell_max_mv"].drop_nulls()
    found["plateau_rows"], found["plateau_low"] = high.len(), int((high < _PLATEAU_MV).sum())
    temps = _temp_evidence(rows["mod_temp_dc"].drop_nulls())
    if temps:
        found["temps"] = temps
    insulation = rows["insul_resistance"].drop_nulls()
    if insulation.len():
        highest = float(insulation.max())  # type: ignore[arg-type]
        found["insulation"] = {
            "max": highest, "at_max": int((insulation == highest).sum()), "n": insulation.len(),
        }  # fmt: skip
    found["channels"] = {
        name: [rows.height - rows[name].null_count(), int((rows[name] != 0).sum())]
        for name in ZERO_CHANNELS if name in rows.columns and rows[name].null_count() < rows.height
    }  # fmt: skip
    is_moving = (rows["emobility_spd"] >= sql_vars()["moving_min_kmh"]).fill_null(value=False)
    found["flags"] = {
        name: [
            rows.height - rows[name].null_count(), int(rows[name].sum()),
            int((is_moving & rows[name].is_not_null()).sum()), int((is_moving & rows[name]).sum()),
        ]
        for name in FLAG_CHANNELS if name in rows.columns and rows[name].null_count() < rows.height
    }  # fmt: skip
    return found


def _temp_evidence(temps: pl.Series) -> list[Evidence]:
    """Per position of the list: readings, those that are no sentinel, zeros, and the lowest 12 distinct values."""
    lengths = temps.list.len().to_numpy().astype(np.int64)
    if not lengths.size or not lengths.max():
        return []
    values = temps.filter(temps.list.len() > 0).explode().cast(pl.Float64).to_numpy()
    row = np.repeat(np.arange(lengths.size), lengths)
    position = np.arange(values.size) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    table = np.full((lengths.size, int(lengths.max())), np.nan)
    table[row, position] = values
    found: list[Evidence] = []
    for readings in table.T:
        there = readings[np.isfinite(readings)]
        found.append(
            {
                "n": int(there.size),
                "valid": int(np.sum(~np.isin(there, _TEMP_SENTINELS_DC))),
                "zero": int(np.sum(there == 0)),
                "distinct": [int(v) for v in np.unique(there)[:12]],
            }
        )
    return found


def evidence(rows: pl.DataFrame) -> dict[str, Evidence]:
    """Evidence of one raw BMS partition: layout id -> sums; the key "" holds what does not depend on the layout."""
    rows = rows.with_columns(pl.col("layout_id").cast(pl.String))
    found = {"": _device_evidence(rows)}
    for (layout,), part in rows.group_by(["layout_id"], maintain_order=True):
        found[str(layout)] = _layout_evidence(part)
    return found


def add_up(pieces: Iterable[Evidence]) -> Evidence:
    """Sum of evidence over partitions, whatever their order."""
    total: Evidence = {}
    for piece in pieces:
        for name, value in piece.items():
            if name == "cell_n":
                counts: Counter[str] = Counter(total.get(name, {}))
                counts.update(value)
                total[name] = dict(sorted(counts.items()))
            elif name in {"channels", "flags"}:
                old_counts = total.get(name, {})
                both = sorted({*old_counts, *value})
                total[name] = {
                    c: [a + b for a, b in zip_longest(old_counts.get(c, []), value.get(c, []), fillvalue=0)]
                    for c in both
                }
            elif name == "temps":
                total[name] = _add_temps(total.get(name, []), value)
            elif name == "insulation":
                old = total.get(name)
                if old is None or value["max"] > old["max"]:
                    total[name] = {**value, "n": value["n"] + (old["n"] if old else 0)}
                else:
                    at_max = old["at_max"] + (value["at_max"] if value["max"] == old["max"] else 0)
                    total[name] = {"max": old["max"], "at_max": at_max, "n": old["n"] + value["n"]}
            else:
                total[name] = total.get(name, 0) + value
    return total


def _add_temps(left: Sequence[Evidence], right: Sequence[Evidence]) -> list[Evidence]:
    blank: Evidence = {"n": 0, "valid": 0, "zero": 0, "distinct": []}
    width = max(len(left), len(right))
    pairs = (((left[i] if i < len(left) else blank), (right[i] if i < len(right) else blank)) for i in range(width))
    return [
        {
            **{k: a[k] + b[k] for k in ("n", "valid", "zero")},
            "distinct": sorted({*a["distinct"], *b["distinct"]})[:12],
        }
        for a, b in pairs
    ]


@dataclass(frozen=True)
class _Vote:
    """What the evidence says of the sign: +1 charge positive, -1 discharge positive, None where it is not sure."""

    sign: int | None
    confidence: float
    n: int
    is_heard: bool
    """There was enough evidence to be sure, had it agreed."""


def _vote(found: Evidence, min_n: int, min_confidence: float) -> _Vote:
    """Sign of the delivered current.

    Three witnesses, none of which needs a flag: the ohmic response (voltage rises with charging current), SoC and the
    charge counters against the charge moved. Each votes with its share; a witness without evidence abstains.
    """
    score, weight, n = 0.0, 0.0, 0
    for name, trust in (("step", 1.0), ("soc", 1.0), ("counter", 2.0)):
        agree, oppose = found.get(f"{name}_agree", 0), found.get(f"{name}_oppose", 0)
        seen = agree + oppose
        if seen == 0:
            continue
        # a handful of observations is worth less than many: seen / (seen + min_n)
        strength = trust * seen / (seen + min_n)
        score += strength * (agree - oppose) / seen
        weight += strength
        n += seen
    confidence = abs(score) / max(weight, 1e-9) * min(1.0, weight)
    sign = (1 if score > 0 else -1) if confidence >= min_confidence else None
    return _Vote(sign, confidence, n, weight >= min_confidence)


def _sign_decisions(
    months: Mapping[str, Mapping[str, Evidence]], min_n: int, min_confidence: float
) -> dict[str, list[Decision]]:
    """Layout -> its sign of the current, and after it the months that have another, or none that could be told.

    `months`: layout -> month -> evidence. A month with too little evidence of its own keeps its layout's sign.
    """
    totals = {layout: add_up(months[layout].values()) for layout in months}
    votes = {layout: _vote(total, min_n, min_confidence) for layout, total in totals.items()}
    believed = {vote.sign for vote in votes.values() if vote.sign is not None}
    found: dict[str, list[Decision]] = {}
    for layout, vote in votes.items():
        sign, confidence, total = vote.sign, vote.confidence, totals[layout]
        if not vote.is_heard and len(believed) == 1:
            # an export with too little of its own follows the device's other exports, and says so
            sign, confidence, total = next(iter(believed)), 0.3, {**total, "from": "other layouts"}
        found[layout] = [Decision("current_sign", layout, _text(sign), round(confidence, 3), vote.n, total)]
        for month in sorted(months[layout]):
            own = _vote(months[layout][month], min_n, min_confidence)
            if own.is_heard and own.sign != sign:
                found[layout].append(
                    Decision(
                        "current_sign", layout, _text(own.sign), round(own.confidence, 3), own.n,
                        months[layout][month], measured_month=month,
                    )
                )  # fmt: skip
    return found


def decide(
    device_no: str,
    pieces: Mapping[str, Mapping[str, Evidence]],
    car_type: str | None,
    overrides: Mapping[tuple[str, str | None], str],
    min_sign_evidence: int,
    min_sign_confidence: float,
) -> DeviceDecisions:
    """Decisions of one device from the evidence of all its partitions (`pieces`: layout id -> month -> evidence).

    Where the evidence says nothing, or not clearly, the value is None: consumers get NULL figures, never a guess.
    """
    made: list[Decision] = []
    device = add_up(pieces.get("", {}).values())
    layouts = {layout: pieces[layout] for layout in sorted(pieces) if layout}
    for layout, (sign, *of_months) in _sign_decisions(layouts, min_sign_evidence, min_sign_confidence).items():
        total = add_up(layouts[layout].values())
        made.append(_overridden(sign, overrides))
        if not made[-1].is_overridden:
            made += of_months
        for name, (scale, sure, seen) in (("voltage_scale", _scale(total)), ("soc_scale", _soc_scale(total))):
            made.append(_overridden(Decision(name, layout, _text(scale), round(sure, 3), seen, total), overrides))
    made += [_overridden(d, overrides) for d in _pack_decisions(device, car_type)]
    return DeviceDecisions(device_no, tuple(made))


def _scale(total: Evidence) -> tuple[float | None, float, int]:
    """Factor from the delivered pack voltage to volts: 1 or 0.1."""
    one, ten = total.get("ratio_1", 0), total.get("ratio_10", 0)
    if one + ten:
        return (1.0 if one >= ten else 0.1), max(one, ten) / (one + ten + total.get("ratio_other", 0)), one + ten
    rows = total.get("volt_rows", 0)
    if rows:
        # without cells: no road vehicle of this class has a pack above 1000 V
        above = total["volt_above_1000"]
        return (0.1 if above * 2 > rows else 1.0), 0.8, rows
    return None, 0.0, 0


def _soc_scale(total: Evidence) -> tuple[float | None, float, int]:
    """Factor from the delivered state of charge to %: 1, or 100 where it runs from 0 to 1. Not shown otherwise, 1."""
    rows, stretches = total.get("soc_rows", 0), total.get("soc_stretches", 0)
    if not rows:
        return None, 0.0, 0
    share = total["soc_of_one"] / stretches if stretches else 0.0
    if total["soc_above_1"] <= 0.001 * rows and stretches >= _SOC_STRETCHES and share > 0.5:
        return 100.0, share, stretches
    return 1.0, total["soc_above_1"] / rows, rows


def _pack_decisions(device: Evidence, car_type: str | None) -> list[Decision]:
    made = []
    cells: dict[str, int] = device.get("cell_n", {})
    total = sum(cells.values())
    cell_count, share = None, 0.0
    if total:
        best = max(cells.items(), key=lambda item: (item[1], int(item[0])))
        cell_count, share = int(best[0]), best[1] / total
    made.append(Decision("cell_count", None, _text(cell_count), round(share, 3), total, {"cell_n": cells}))

    sensors = device.get("temps", [])
    present = [int(s["valid"] > 0 and not (s["zero"] == s["n"] or (len(s["distinct"]) == 1 and s["n"] > 100 and
               s["distinct"][0] == 0))) for s in sensors]  # fmt: skip
    seen = max((s["n"] for s in sensors), default=0)
    sure = min(1.0, seen / 1000)
    made.append(Decision("temp_sensor_count", None, _text(sum(present) if sensors else None), round(sure, 3), seen, {}))
    made.append(
        Decision("temp_sensor_map", None, str(present).replace(" ", "") if sensors else None, round(sure, 3), seen, {})
    )

    made.append(_channel_decision(device.get("channels", {}), device.get("flags", {})))

    rows, is_lfp = device.get("cell_max_rows", 0), _is_lfp(device)
    candidates = [p for p in pack_types() if p.cell_count == cell_count]
    by_car = [p for p in candidates if car_type and car_type in p.car_types]
    by_chemistry = [p for p in candidates if is_lfp is None or (p.chemistry == "LFP") == is_lfp]
    chosen = next(iter(by_car or by_chemistry), None)
    why: Evidence = {
        "car_type": car_type,
        "cell_max_rows": rows,
        "cell_max_above_3700_mv": device.get("cell_max_above_lfp", 0),
        "plateau_rows": device.get("plateau_rows", 0),
        "plateau_low": device.get("plateau_low", 0),
    }
    chemistry = {True: "LFP", False: "NMC", None: None}[is_lfp]
    if chosen is None and cell_count is not None and chemistry is not None:
        pack = f"{chemistry}-{cell_count}S"
        made.append(Decision("pack_type", None, pack, 0.3, total, {**why, "from": "cell count alone"}))
    else:
        certainty = 0.95 if by_car else 0.7 / max(1, len(by_chemistry))
        name = chosen.pack_type if chosen else None
        made.append(Decision("pack_type", None, name, round(certainty if chosen else 0.0, 3), total, why))
    made.append(Decision("car_type", None, car_type, 1.0 if car_type else 0.0, int(bool(car_type)), {}))
    if chosen is not None and rows:
        chemistry = chosen.chemistry
    sure_of_it = 0.0 if chemistry is None or rows <= 1000 else 0.5 if is_lfp is None else 0.9
    made.append(Decision("chemistry", None, chemistry, sure_of_it, rows, why))
    capacity = chosen.capacity_nominal_ah if chosen else None
    source = chosen.capacity_source if chosen else None
    made.append(Decision("capacity_nominal_ah", None, _text(capacity), 0.5 if chosen else 0.0, 0, {"source": source}))

    insulation = device.get("insulation")
    cap = None
    if insulation and insulation["n"] >= 100 and insulation["at_max"] / insulation["n"] > 0.2:
        cap = insulation[
            "max"
        ]  # a value that a fifth of all readings share exactly is the sensor's end, not the pack's
    made.append(Decision("insulation_cap_kohm", None, _text(cap), 0.9 if cap else 0.0,
                         insulation["n"] if insulation else 0, insulation or {}))  # fmt: skip
    return made


def _is_lfp(device: Evidence) -> bool | None:
    """Whether the cells are LFP; None where they show neither its plateau nor a voltage that it does not reach."""
    rows, high = device.get("cell_max_rows", 0), device.get("plateau_rows", 0)
    if rows and device.get("cell_max_above_lfp", 0) >= 0.001 * rows:
        return False
    if rows > 1000 and high >= _PLATEAU_ROWS and device.get("plateau_low", 0) >= _PLATEAU_SHARE * high:
        return True
    return None


def _channel_decision(channels: Mapping[str, Sequence[int]], flags: Mapping[str, Sequence[int]]) -> Decision:
    """Channels that are 0 in every row and flags that are stuck, by name; `none` where all that are delivered move."""
    seen = max((counts[0] for counts in (*channels.values(), *flags.values())), default=0)
    still = [name for name, (n, moved) in channels.items() if moved == 0 and n >= _CHANNEL_READINGS]
    stuck = [name for name, counts in flags.items() if _is_stuck(*counts)]
    value = " ".join(sorted(still + stuck)) or ALL_SUPPORTED
    sure = seen / (seen + _CHANNEL_READINGS)
    why = {"zeros": {name: channels[name][0] for name in still}, "stuck": {name: flags[name] for name in stuck}}
    return Decision("unsupported_channels", None, value if seen else None, round(sure, 3), seen, why)


def _is_stuck(n: int, is_set: int, moving: int, moving_set: int) -> bool:
    """Whether a flag is set whatever the car does: while it drives, or never not in all its life."""
    if moving >= _FLAG_DRIVING_ROWS:
        return moving_set >= _FLAG_STUCK_SHARE * moving
    return n >= _CHANNEL_READINGS and is_set == n


def _text(value: float | int | None) -> str | None:
    return None if value is None else f"{value:g}"


def _overridden(decision: Decision, overrides: Mapping[tuple[str, str | None], str]) -> Decision:
    for key in ((decision.decision, decision.layout_id), (decision.decision, None)):
        if key in overrides:
            return Decision(
                decision.decision, decision.layout_id, overrides[key], 1.0, decision.n,
                {**decision.evidence, "without_override": decision.value}, is_overridden=True,
            )  # fmt: skip
    return decision


_NUMBERS = {
    "current_sign", "voltage_scale", "soc_scale", "cell_count", "temp_sensor_count",
    "capacity_nominal_ah", "insulation_cap_kohm",
}  # fmt: skip
_TEXTS = {"temp_sensor_map", "pack_type", "car_type", "chemistry", "unsupported_channels"}


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def read_overrides(path: Path) -> dict[str, dict[tuple[str, str | None], str]]:
    """Decisions made by hand: CSV `device_no,decision,layout_id,value`; layout_id may be empty (all layouts).

    ValueError with file, line and reason where a line cannot be used.
    """
    found: dict[str, dict[tuple[str, str | None], str]] = {}
    if not path.exists():
        return found
    known = _NUMBERS | _TEXTS
    with path.open(encoding="utf-8-sig", newline="") as handle:
        reader = csv.DictReader(handle)
        for row in reader:
            device, decision = (row.get("device_no") or "").strip(), (row.get("decision") or "").strip()
            value, layout = (row.get("value") or "").strip(), (row.get("layout_id") or "").strip() or None
            where = f"{path.name} line {reader.line_num}"
            if len(device) != 11 or not device.isdigit():
                raise ValueError(f"{where}: device_no {device!r} is not 11 digits")
            if decision not in known:
                raise ValueError(f"{where}: decision {decision!r} is none of {', '.join(sorted(known))}")
            if not value:
                raise ValueError(f"{where}: no value")
            if decision in _NUMBERS and not _is_number(value):
                raise ValueError(f"{where}: {decision} {value!r} is not a number")
            if decision == "unsupported_channels" and value != ALL_SUPPORTED:
                strangers = sorted(set(value.split()).difference(CHANNELS))
                if strangers:
                    raise ValueError(f"{where}: {strangers[0]!r} is no channel of {', '.join(CHANNELS)}")
            found.setdefault(device, {})[(decision, layout)] = value
    return found
