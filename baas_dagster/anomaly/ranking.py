"""The order in which cars are called in: a score that is a sum of named components, and the reasons in words.

Belongs here: components, score, length of the list, words. Does not belong here: when an episode opens and how severe
it is (``episodes``), what a code means (``codes``), any number (``rules.QueueRules``).

A car is on the list for a case that is open, for one of severity 3 that closed by itself and that nobody looked at, or
because too little of it can be seen: that is a risk of its own, ranked below every proven fault of severity 2 and 3,
and never counted as health. Components are taken over the cases of a car as a maximum, so that a further episode never
lowers a score and a further independent case raises it.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

import polars as pl

from baas_dagster.anomaly.cases import BLIND_CODES, case_of, detail_of
from baas_dagster.anomaly.codes import CODES, Family
from baas_dagster.anomaly.rules import RULES, QueueRules

__all__ = ["QUEUE_SCHEMA", "Action", "inspection_queue", "ranking"]

QUEUE_SCHEMA: dict[str, Any] = {
    "rank": pl.Int32,  # 1: call in first
    "device_no": pl.String,
    "score": pl.Float64,  # points, 0-100: the sum of the nine below
    "score_severity": pl.Float64,  # points by the worst proven case
    "score_cases": pl.Float64,  # ... by further independent cases
    "score_excess": pl.Float64,  # ... by how far beyond its line
    "score_growth": pl.Float64,  # ... by how fast it gets worse
    "score_persistence": pl.Float64,  # ... by the windows it was seen in
    "score_exposure": pl.Float64,  # ... by hours parked at a high state of charge
    "score_heat": pl.Float64,  # ... by hot hours
    "score_blindness": pl.Float64,  # ... by what cannot be seen or judged
    "score_age": pl.Float64,  # ... by the age of the oldest case
    "top_severity": pl.Int32,  # of the proven cases; 0: on the list because it cannot be seen
    "case_count": pl.Int32,  # independent proven cases
    "codes": pl.String,  # of the open episodes, the worst case first
    "reasons": pl.String,  # English, the worst case first, "; " between
    "reasons_ko": pl.String,  # Korean, the same
    "action": pl.String,  # Action
    "first_opened_at": pl.Datetime("us"),  # of the open episodes; NULL: none, it only cannot be judged
    "days_open": pl.Int32,
    "is_bypass": pl.Boolean,  # severity 3: on the list whatever its length
}
"""One row per car on the list."""

_COMPONENTS = ("severity", "cases", "excess", "growth", "persistence", "exposure", "heat", "blindness", "age")
_DIGITS = 3  # of points: equal to the reader is equal to the rank

_FAMILY_KO = {
    Family.CELLS: "셀",
    Family.TEMPERATURE: "온도",
    Family.INSULATION: "절연",
    Family.CHARGE: "SoC·전류·카운터",
    Family.HEALTH: "건강도",
}
_DECIMALS = {"mV": 0, "mA": 0, "min": 0, "d": 0, "Ohm/V": 0, "V": 2, "1": 2}  # others 1
_TOLD_FAMILY_WEIGHT = 0.1  # a family of less weight is no reason to call a car in; it counts all the same


class Action(StrEnum):
    """What the workshop is asked for."""

    INSPECTION = "inspection"
    REPLACEMENT = "replacement"  # the pack is old, not broken: measure its capacity, plan a new one
    BOTH = "inspection and replacement"
    DATA = "data link"  # nothing is proven: look at the telematics unit and the deliveries


@dataclass(frozen=True)
class _Case:
    """Episodes of one cause; the first leads: the most severe, then the furthest beyond its line."""

    name: str
    episodes: tuple[dict[str, Any], ...]

    @property
    def severity(self) -> int:
        return int(self.episodes[0]["severity"])

    @property
    def opened_at(self) -> datetime:
        return min(e["opened_at"] for e in self.episodes)  # type: ignore[no-any-return]

    @property
    def closed_at(self) -> datetime | None:
        """When the last of them closed by itself; None: one is open."""
        ends = [e["closed_at"] for e in self.episodes if e.get("was_severity")]
        return max(ends) if len(ends) == len(self.episodes) else None

    def highest(self, column: str) -> float:
        return max(_number(e[column]) for e in self.episodes)


@dataclass(frozen=True)
class _Told:
    """A case in words."""

    case: _Case
    is_growing: bool

    @property
    def en(self) -> str:
        texts = ", ".join(_texts(self.case, "en", "of unknown number"))
        growing = ", getting worse" if self.is_growing else ""
        if self.case.closed_at is not None:
            span = f"{self.case.opened_at:%Y-%m-%d} to {self.case.closed_at:%Y-%m-%d}"
            return f"{texts} (was severity 3 from {span}, closed by itself, no inspection reported)"
        return f"{texts} (severity {self.case.severity} since {self.case.opened_at:%Y-%m-%d}{growing})"

    @property
    def ko(self) -> str:
        texts = ", ".join(_texts(self.case, "ko", "번호 미상"))
        growing = ", 악화 중" if self.is_growing else ""
        if self.case.closed_at is not None:
            span = f"{self.case.opened_at:%Y-%m-%d}~{self.case.closed_at:%Y-%m-%d}"
            return f"{texts} (과거 심각도 3: {span}, 저절로 종료, 점검 보고 없음)"
        return f"{texts} (심각도 {self.case.severity}, {self.case.opened_at:%Y-%m-%d}부터{growing})"


@dataclass(frozen=True)
class _Blindness:
    """How much of a car cannot be seen, 0 to 1, and why."""

    share: float
    reasons: tuple[str, ...]
    reasons_ko: tuple[str, ...]


def inspection_queue(
    episodes: pl.DataFrame,
    exposure: pl.DataFrame,
    coverage: pl.DataFrame,
    as_of: datetime,
    rules: QueueRules = RULES.queue,
    unreported: Collection[str] = (),
) -> pl.DataFrame:
    """The list: QUEUE_SCHEMA, by rank. Arguments as in `ranking`.

    At most ``max(places_min, places_share of the fleet)`` cars, and every car of severity 3 beside.
    """
    return ranking(episodes, exposure, coverage, as_of, rules, unreported).filter("is_listed").drop("is_listed")


def ranking(
    episodes: pl.DataFrame,
    exposure: pl.DataFrame,
    coverage: pl.DataFrame,
    as_of: datetime,
    rules: QueueRules = RULES.queue,
    unreported: Collection[str] = (),
) -> pl.DataFrame:
    """Every car of the fleet in the order of the list, healthy ones last: QUEUE_SCHEMA and ``is_listed``.

    ``episodes``: rows of ``fct_anomaly`` (device_no, anomaly_id, code, severity, opened_at, closed_at, cell_no,
    module_no, value, score, growth_per_day, window_count, evidence); score is 1 at the line and larger beyond,
    whichever side is bad, growth_per_day its change a day. ``exposure``: device_no, high_soc_share (of parked hours at
    >= 95 %), hot_share (of hours at >= 35 degC), NULL where not known. ``coverage``: one row per device of the fleet:
    device_no, last_seen_at, data_days_90, unjudged (list of codes or families that cannot be judged); a device without
    one has not been seen. ``as_of``: last row of the fleet, naive KST. ``unreported``: ids of severe episodes that
    closed by themselves and that nobody looked at (``outcomes.unreported``).

    The same rows in any order give the same frame; equal scores are ordered by device number.
    """
    known = coverage.unique("device_no").sort("device_no").to_dicts()
    cover = {row["device_no"]: row for row in known}
    exposed = {row["device_no"]: row for row in exposure.to_dicts()}
    open_by_device = _open_episodes(episodes, as_of, unreported, rules)
    fleet = sorted({*cover, *open_by_device, *exposed})
    rows = [
        _row(device, open_by_device.get(device, []), exposed.get(device, {}), cover.get(device), as_of, rules)
        for device in fleet
    ]
    rows.sort(key=lambda row: (not row["is_listed"], -row["score"], row["device_no"]))
    places = max(rules.places_min, math.ceil(rules.places_share * len(fleet)))
    for rank, row in enumerate(rows, start=1):
        row["rank"] = rank
        if row["is_listed"] and not row["is_bypass"]:
            row["is_listed"] = places > 0
            places -= 1
    return pl.DataFrame(rows, schema={**QUEUE_SCHEMA, "is_listed": pl.Boolean})


def _open_episodes(
    episodes: pl.DataFrame, as_of: datetime, unreported: Collection[str], rules: QueueRules
) -> dict[str, list[dict[str, Any]]]:
    """Device -> its open episodes at `as_of`, in an order that the rows' order does not decide.

    Unreported ones are among them, of a lower severity and with ``was_severity``.
    """
    is_open = (pl.col("opened_at") <= as_of) & (pl.col("closed_at").is_null() | (pl.col("closed_at") > as_of))
    is_recent = pl.col("closed_at") > as_of - timedelta(days=rules.unreported_days)
    is_unreported = ~is_open & is_recent & pl.col("anomaly_id").is_in(list(unreported))
    found: dict[str, list[dict[str, Any]]] = {}
    kept = episodes.with_columns(is_open=is_open, is_unreported=is_unreported.fill_null(False))
    kept = kept.filter(pl.col("is_open") | pl.col("is_unreported"))
    for row in kept.unique("anomaly_id").sort("device_no", "anomaly_id").to_dicts():
        if row["is_unreported"]:
            row |= {
                "was_severity": row["severity"], "severity": min(row["severity"], rules.unreported_severity),
                "growth_per_day": 0.0,
            }  # fmt: skip
        found.setdefault(row["device_no"], []).append(row)
    return found


def _row(
    device: str,
    episodes: list[dict[str, Any]],
    exposed: dict[str, Any],
    cover: dict[str, Any] | None,
    as_of: datetime,
    rules: QueueRules,
) -> dict[str, Any]:
    # whatever the code, nothing of severity 3 is merely "cannot be seen"
    proven = _cases(e for e in episodes if e["code"] not in BLIND_CODES or e["severity"] >= 3)
    unseen = _blindness(episodes, cover, as_of, rules)
    top = max((case.severity for case in proven), default=0)
    first = min((e["opened_at"] for e in episodes), default=None)
    shares = {
        "severity": rules.severity_points[top - 1] / rules.severity_points[2] if top else 0.0,
        "cases": _further(proven, top),
        "excess": max((1 - 1 / max(1.0, case.highest("score")) for case in proven), default=0.0),
        "growth": _share(max((case.highest("growth_per_day") for case in proven), default=0.0) * rules.growth_days),
        "persistence": max((_half_at(c.highest("window_count"), rules.half_windows) for c in proven), default=0.0),
        "exposure": _share(_number(exposed.get("high_soc_share")) / rules.high_soc_share_full),
        "heat": _share(_number(exposed.get("hot_share")) / rules.hot_share_full),
        "blindness": unseen.share,
        "age": 0.0 if first is None else _share((as_of - first).total_seconds() / 86_400 / rules.age_full_days),
    }
    points = {name: round(share * rules.weights[name], _DIGITS) for name, share in shares.items()}
    told = [_Told(case, case.highest("growth_per_day") * rules.growth_days >= rules.growth_told) for case in proven]
    told, more = told[: rules.reasons_max], len(proven[rules.reasons_max :])
    circumstances, circumstances_ko = _circumstances(shares, exposed)
    return {
        "device_no": device,
        "score": round(sum(points[name] for name in _COMPONENTS), _DIGITS),
        **{f"score_{name}": points[name] for name in _COMPONENTS},
        "top_severity": top,
        "case_count": len(proven),
        "codes": ", ".join(dict.fromkeys(_codes(proven, episodes))),
        "reasons": "; ".join(
            [*(t.en for t in told), *([f"and {more} more cases"] if more else []), *unseen.reasons, *circumstances]
        ),
        "reasons_ko": "; ".join(
            [*(t.ko for t in told), *([f"외 {more}건"] if more else []), *unseen.reasons_ko, *circumstances_ko]
        ),
        "action": str(_action(proven, rules)),
        "first_opened_at": first,
        "days_open": None if first is None else (as_of - first).days,
        "is_bypass": top >= 3,
        "is_listed": bool(proven) or unseen.share >= rules.blind_listed,
    }


def _cases(episodes: Iterable[dict[str, Any]]) -> list[_Case]:
    """Independent cases, the worst first."""
    by_name: dict[str, list[dict[str, Any]]] = {}
    for episode in episodes:
        by_name.setdefault(case_of(episode), []).append(episode)
    cases = [_Case(name, tuple(sorted(found, key=_worst_first))) for name, found in by_name.items()]
    return sorted(cases, key=lambda case: _worst_first(case.episodes[0]))


def _worst_first(episode: dict[str, Any]) -> tuple[Any, ...]:
    return (-episode["severity"], -_number(episode["score"]), episode["opened_at"], episode["anomaly_id"])


def _further(cases: Sequence[_Case], top: int) -> float:
    """0 with one case, a half with two of the same severity, towards 1 with more; milder ones count in proportion."""
    weight = sum(case.severity for case in cases) / top if top else 1.0
    return 1 - 1 / weight


def _blindness(
    episodes: list[dict[str, Any]], cover: dict[str, Any] | None, as_of: datetime, rules: QueueRules
) -> _Blindness:
    """The largest of: silent, seldom seen, a month kept out, codes that cannot be judged."""
    blind = {e["code"]: int(e["severity"]) for e in episodes if e["code"] in BLIND_CODES}
    parts, told, told_ko = [0.0], [], []
    cover = cover or {"last_seen_at": None, "data_days_90": 0, "unjudged": None}
    last = cover["last_seen_at"]
    silent_days = math.inf if last is None else (as_of - last).total_seconds() / 86_400
    silent = _share((silent_days - rules.silent_from_days) / (rules.silent_full_days - rules.silent_from_days))
    if "DEVICE_SILENT" in blind:
        silent = max(silent, rules.blind_when_silent if blind["DEVICE_SILENT"] < 2 else rules.blind_when_hiding)
    if silent > 0:
        parts.append(silent)
        told.append("no data yet" if last is None else f"no data since {last:%Y-%m-%d} ({int(silent_days)} days)")
        told_ko.append("데이터 없음" if last is None else f"{last:%Y-%m-%d} 이후 데이터 없음 ({int(silent_days)}일)")
    days = cover["data_days_90"]
    sparse = _share(1 - (days or 0) / rules.data_days_enough)
    if sparse > 0:
        parts.append(sparse)
        told.append(f"data on {days or 0} of the last 90 days")
        told_ko.append(f"최근 90일 중 {days or 0}일만 데이터 있음")
    if "PARTITION_GATED" in blind:
        parts.append(rules.blind_when_gated if blind["PARTITION_GATED"] < 2 else rules.blind_when_hiding)
        told.append(CODES["PARTITION_GATED"].en)
        told_ko.append(CODES["PARTITION_GATED"].ko)
    share, names, names_ko = _unjudged(cover["unjudged"], rules)
    if names:
        told.append(f"cannot be judged: {', '.join(names)}")
        told_ko.append(f"판단 불가: {', '.join(names_ko)}")
    return _Blindness(max(*parts, share), tuple(told), tuple(told_ko))


def _unjudged(listed: Sequence[str] | None, rules: QueueRules) -> tuple[float, list[str], list[str]]:
    """Weighted share of what cannot be judged, and its names (whole families by theirs)."""
    named = set(listed or ())
    share, names, names_ko = 0.0, [], []
    for family_name, weight in rules.family_weights:
        family = Family(family_name)
        codes = [code for code, known in CODES.items() if known.family is family]
        missing = codes if family.value in named else [code for code in codes if code in named]
        share += weight * len(missing) / len(codes)
        if missing and weight >= _TOLD_FAMILY_WEIGHT:
            is_whole = len(missing) == len(codes)
            names += [family.value] if is_whole else missing
            names_ko += [_FAMILY_KO[family]] if is_whole else missing
    return min(share, 1.0), names, names_ko


def _circumstances(shares: dict[str, float], exposed: dict[str, Any]) -> tuple[list[str], list[str]]:
    """What makes a fault worse, where it is more than half of what counts as full."""
    told, told_ko = [], []
    if shares["exposure"] > 0.5:
        share = exposed["high_soc_share"]
        told.append(f"parked at 95 % or more for {share:.0%} of the time")
        told_ko.append(f"주차 시간의 {share:.0%}가 SoC 95 % 이상")
    if shares["heat"] > 0.5:
        share = exposed["hot_share"]
        told.append(f"at 35 degC or more for {share:.0%} of the time")
        told_ko.append(f"전체 시간의 {share:.0%}가 35 °C 이상")
    return told, told_ko


def _codes(proven: Sequence[_Case], episodes: Sequence[dict[str, Any]]) -> list[str]:
    return [e["code"] for case in proven for e in case.episodes] + sorted(
        e["code"] for e in episodes if e["code"] in BLIND_CODES
    )


def _action(proven: Sequence[_Case], rules: QueueRules) -> Action:
    if not proven:
        return Action.DATA
    is_replaced = {case.name == "capacity" and case.severity >= rules.replace_severity for case in proven}
    if is_replaced == {True, False}:
        return Action.BOTH
    return Action.REPLACEMENT if True in is_replaced else Action.INSPECTION


def _texts(case: _Case, language: str, unknown: str) -> list[str]:
    """What each code of a case says, the worst of each code once; what all say first ("cell 81") is said once."""
    texts: list[str] = []
    seen: set[str] = set()
    start = ""
    for episode in case.episodes:
        code = CODES[episode["code"]]
        if episode["code"] in seen:
            continue
        seen.add(episode["code"])
        template: str = getattr(code, language)
        item = episode["cell_no"] or episode["module_no"] or unknown
        text = template.format(item=item, value=_figure(episode["value"], code.unit))
        if episode["code"] == "FAULT_OR_SENSOR":
            text = template.format(value=_fault(detail_of(episode)))
        head, placeholder, _ = template.partition("{item}")
        said = f"{head}{item}".lstrip() if placeholder else ""
        texts.append(text[len(said) :].lstrip(" :") if texts and said and said == start else text)
        start = start or said
    return texts


def _fault(detail: dict[str, Any]) -> str:
    """What lies outside: channel, which cell or module, the limit and the figure."""
    number = detail.get("cell_no") or detail.get("module_no")
    named = f"{detail.get('channel', '')} {number}" if number else str(detail.get("channel", ""))
    if detail.get("limit") is None or "value" not in detail:
        return f"{named}, {detail['what']}" if "what" in detail else named
    return f"{named}, {detail.get('what', '')} {_number(detail.get('limit')):g}: {_number(detail['value']):g}".strip(
        " ,"
    )


def _figure(value: float | None, unit: str) -> str:
    """A figure as a mechanic reads it; "?" where there is none."""
    if value is None or not math.isfinite(value):
        return "?"
    text = f"{value:.{_DECIMALS.get(unit, 1)}f}"
    return text.removeprefix("-") if float(text) == 0 else text


def _number(value: float | None) -> float:
    """A value that counts; not known counts 0."""
    return 0.0 if value is None or math.isnan(value) else float(value)


def _share(value: float) -> float:
    return min(1.0, max(0.0, value))


def _half_at(value: float, half: float) -> float:
    return value / (value + half)
