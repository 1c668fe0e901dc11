"""The trusted chain of an odometer's runs (see ``odometer`` for the idea).

Belongs here: judging steps between runs, taking glitches out, naming what stays. Does not belong here: kilometres in
time (``odometer``).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from baas_dagster.mileage.ledger import Action, Code, Ledger, OdometerRules
from baas_dagster.mileage.pieces import Run, elapsed_s, seen_km, silent_s

__all__ = ["EPSILON_KM", "Chain", "Link", "trusted_chain"]

EPSILON_KM = 1e-6
"""Readings have one decimal; differences of floating-point numbers below this are zero."""


@dataclass
class Link:
    """How a kept run follows the one before it."""

    kind: str
    step_km: float
    seen_km: float
    silent_s: float
    skipped: list[Run] = field(default_factory=list)


def _drivable_km(before: Run, after: Run, rules: OdometerRules) -> float:
    """The most a car can have driven between two runs, by time alone."""
    return rules.odometer_max_kmh * elapsed_s(before.to_at, after.from_at) / 3600 + rules.odometer_slack_km


def _is_undriven(before: Run, after: Run, rules: OdometerRules) -> bool:
    """Whether the rise between two consecutive runs was not driven: by the witness where rows arrive, else by time."""
    step = after.from_km - before.to_km
    limit = _drivable_km(before, after, rules)
    if after.has_witness and silent_s(before, after) <= 0:
        seen = seen_km(before, after)
        slack = rules.witness_slack_kmh * elapsed_s(before.to_at, after.from_at) / 3600
        limit = min(limit, max(rules.witness_gain * seen, seen + slack) + 1.05 * after.resolution_km)
    return step > limit


def _continues(base: Run, run: Run, rules: OdometerRules) -> bool:
    """Whether a run goes on from the level of an earlier one as far as the witnesses, or else time, allow."""
    rise = run.from_km - base.to_km
    if not -EPSILON_KM <= rise <= _drivable_km(base, run, rules):
        return False
    if not (base.has_witness and run.has_witness):
        return True
    seen = seen_km(base, run)
    unseen = rules.odometer_max_kmh * silent_s(base, run) / 3600
    return rise <= seen * (1 + rules.witness_match_share) + rules.odometer_slack_km + unseen


def _logged_h(first: Run, last: Run) -> float:
    """Hours with rows from the start of one run to the start of a later one."""
    return (elapsed_s(first.from_at, last.from_at) - (last.silent_from - first.silent_from)) / 3600


@dataclass
class Chain:
    """The trusted runs in time order, each with the link to the one before (None for the first)."""

    runs: list[Run] = field(default_factory=list)
    links: list[Link | None] = field(default_factory=list)

    def push(self, run: Run, kind: str, skipped: list[Run] | None = None) -> None:
        """Append a run that follows the last one as `kind` says; `skipped` runs between them are taken out."""
        if not self.runs:
            self.runs.append(run)
            self.links.append(None)
            return
        top = self.runs[-1]
        link = Link(kind, run.from_km - top.to_km, seen_km(top, run), silent_s(top, run), skipped or [])
        self.runs.append(run)
        self.links.append(link)

    def pop_to(self, size: int) -> list[Run]:
        """Take out the runs from position `size`, with those they had skipped themselves, in time order."""
        popped: list[Run] = []
        for run, link in zip(self.runs[size:], self.links[size:], strict=True):
            popped += [*(link.skipped if link else []), run]
        del self.runs[size:]
        del self.links[size:]
        return popped


def _undriven_rise_km(before: Run, after: Run) -> float:
    """The part of a rise that the witness did not see; all of it without a witness."""
    seen = seen_km(before, after) if after.has_witness else 0.0
    return after.from_km - before.to_km - seen


def _matches(one_km: float, other_km: float, run: Run, rules: OdometerRules) -> bool:
    """Whether a rise and a fall undo each other, as far as resolution and witness can tell."""
    return abs(one_km - other_km) <= rules.witness_match_share * max(one_km, other_km) + 1.05 * run.resolution_km


def _is_catch_up(chain: Chain, position: int, rules: OdometerRules) -> bool:
    """Whether the rise into a kept run is what the witness saw while the odometer stood still before it."""
    stood = 0.0
    for before in range(position - 1, -1, -1):
        stood += chain.runs[before].tail_km
        link = chain.links[before]
        if chain.runs[before].change_count or link is None or abs(link.step_km) > EPSILON_KM:
            break
        stood += link.seen_km
    entered = chain.links[position]
    if stood <= rules.odometer_frozen_km or entered is None:
        return False
    return abs(entered.step_km - stood - entered.seen_km) <= rules.witness_match_share * entered.step_km


def _glitch_upwards(chain: Chain, run: Run, rules: OdometerRules) -> int | None:
    """Position of the first kept run of a glitch upwards that ends with this run; None if there is none."""
    fall = chain.runs[-1].to_km - run.from_km
    # a small rise may be sampling: it explains a fall only when it is near
    longest_h = rules.stale_max_h if fall > rules.odometer_slack_km else rules.small_glitch_max_h
    for position in range(len(chain.runs) - 1, 0, -1):
        base, entered = chain.runs[position - 1], chain.runs[position]
        if _logged_h(entered, run) > longest_h:
            return None
        if (
            _is_undriven(base, entered, rules)
            and not _is_catch_up(chain, position, rules)
            and _matches(_undriven_rise_km(base, entered), fall, run, rules)
            and _continues(base, run, rules)
        ):
            return position
    return None


def _glitch_downwards(runs: list[Run], top: Run, fallen: int, rules: OdometerRules) -> int | None:
    """Position of the run that comes back to the level before a fall by a step that nobody drove; None if none does."""
    low = runs[fallen]
    counted = low.to_km - low.from_km  # what odometer and witness counted at the low level
    seen = low.seen_to - low.seen_from
    for position in range(fallen + 1, len(runs)):
        if low.to_km >= top.to_km - EPSILON_KM:
            return None  # the level before the fall was reached by driving
        run, before = runs[position], runs[position - 1]
        if _logged_h(runs[fallen], run) > rules.stale_max_h:
            return None
        if run.from_km < top.to_km - EPSILON_KM:
            low = run
            counted += low.to_km - low.from_km
            seen += low.seen_to - low.seen_from
        elif _continues(top, run, rules) and (before is low or run.from_km < before.from_km):
            is_stuck = counted <= max(low.resolution_km, rules.witness_match_share * seen)
            is_back = _is_undriven(low, run, rules) or (is_stuck and silent_s(low, run) > 0)
            return position if is_back else None
    return None


def _kind_of_fall(top: Run, run: Run, rules: OdometerRules) -> Code:
    fall = top.to_km - run.from_km
    if run.from_km < rules.odometer_reset_below_km <= top.to_km:
        return Code.RESET
    if fall < rules.odometer_small_fall_km - EPSILON_KM:
        return Code.SMALL_FALL
    counter_fell = (
        top.counter_to is not None
        and run.counter_from is not None
        and run.counter_from < top.counter_to - rules.counter_reset_ah
    )
    other_pack = bool(top.cell_slots and run.cell_slots and top.cell_slots != run.cell_slots)
    return Code.RESET if counter_fell or other_pack else Code.ROLLBACK


def trusted_chain(runs: list[Run], rules: OdometerRules, ledger: Ledger) -> Chain:
    """Walk the runs; see the module's docstring."""
    chain = Chain()
    position = 0
    while position < len(runs):
        run = runs[position]
        position += 1
        if not chain.runs:
            chain.push(run, "first")
            continue
        top = chain.runs[-1]
        if run.from_km >= top.to_km - EPSILON_KM:
            is_jump = run.from_km - top.to_km > _drivable_km(top, run, rules)
            chain.push(run, Code.JUMP if is_jump else "plain")
            continue
        glitch = _glitch_upwards(chain, run, rules)
        if glitch is not None:
            base = chain.runs[glitch - 1]
            taken = chain.pop_to(glitch)
            rise = taken[0].from_km - base.to_km
            code = Code.JUMP if rise > _drivable_km(base, taken[0], rules) else Code.STALE
            rows = sum(r.row_count for r in taken)
            ledger.event(
                code, taken[0].from_at, taken[-1].to_at, base.to_km, taken[0].from_km, rise, Action.REMOVED, rows
            )
            chain.push(run, "return", taken)
            continue
        back = _glitch_downwards(runs, top, position - 1, rules)
        if back is not None:
            taken = runs[position - 1 : back]
            rows = sum(r.row_count for r in taken)
            ledger.event(
                Code.STALE,
                run.from_at,
                taken[-1].to_at,
                top.to_km,
                run.from_km,
                top.to_km - run.from_km,
                Action.REMOVED,
                rows,
            )
            chain.push(runs[back], "return", taken)
            position = back + 1
            continue
        chain.push(run, _kind_of_fall(top, run, rules))
    return chain
