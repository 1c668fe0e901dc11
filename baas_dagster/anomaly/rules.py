"""Every number of the detectors, episodes and the inspection queue, with unit, reason and source.

Belongs here: one settings block per detector, one for episodes, one for the queue. Does not belong here: numbers that
SQL uses too (``dbt_project.yml``), and what is learnt from the fleet (released baselines).

"DOMAIN n" is a section of the domain reference; [prop] marks a starting value of our own.
"""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = [
    "RULES", "AnomalyRules", "CellRules", "EpisodeRules", "HealthRules", "InsulationRules", "QueueRules", "SensorRules",
    "TemperatureRules",
]  # fmt: skip


# --- cells ------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class CellRules:
    """Cells: residuals at rest and on steady charge, spread, self-discharge, over- and undervoltage."""


# --- temperature ------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class TemperatureRules:
    """Module temperatures: spread, heat, rise, sensors."""


# --- insulation -------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class InsulationRules:
    """Insulation resistance in Ohm per volt."""


# --- sensors ----------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class SensorRules:
    """Frozen signals, SoC jumps, low SoC, values that could be a fault or a sensor."""


# --- health, counters, fleet ------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class HealthRules:
    """State of health, fade, power, SoC bias, counters, silence: judged from marts."""

    soh_line_pct: float = 80.0  # %; the contract's line (DOMAIN 7)
    soh_second_line_pct: float = 70.0  # %; the contract's second line, told in the evidence (DOMAIN 7)
    slope_typical_pct_per_year: float = -2.0  # points a year; fleets' mean where no baseline is released (DOMAIN 6)
    slope_p90_pct_per_year: float = -3.5  # points a year; ... and the worst tenth of them: 3 for heavy DC, +0.4 hot
    power_min_n: int = 30  # current steps of a month and band that make a resistance (as dbt var power_step_min_n)
    power_watch: float = 1.35  # 1; resistance against type or start that is watched: half-way to the warning [prop]
    power_warn: float = 1.5  # 1; ... and warned of (DOMAIN 7)
    own_start_months: int = (
        3  # first months of a band that are the car's own start: seasons pass within the band [prop]
    )
    soc_bias_pct: float = 5.0  # points the BMS's SoC may be off the rest voltage's (DOMAIN 7)
    soc_bias_excludes_pct: float = 3.0  # points that the interval must lie beyond (DOMAIN 7)
    unsure_share: float = 0.9  # 1; an estimate beyond its line whose interval is not stands just below it: it opens no
    # episode, and closes none either [prop]
    silent_days: float = (
        14.0  # d without a row until a car counts as silent: longer than a holiday's rest is not [prop];
    )
    # the SoC in a longer silence is unknown (DOMAIN 5)
    silent_warn_days: float = 45.0  # d; a whole monthly delivery has been missed [prop]
    z90: float = 1.645  # standard normal quantile of a two-sided 90 % interval


# --- episodes ---------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class EpisodeRules:
    """Opening, rising and closing of episodes (severity table of DOMAIN 7)."""

    windows_watch: int = 2  # independent windows beyond a watch or warn line that open severity 1 (DOMAIN 7)
    windows_warn: int = 3  # windows beyond a warn line that open severity 2 (DOMAIN 7)
    windows_alarm: int = 2  # windows beyond an alarm line that open severity 3 (DOMAIN 7)
    trend_days: float = 60.0  # days within which a trend must reach the alarm line for severity 2 (DOMAIN 7)
    trend_windows: int = 6  # readings that make a trend: fewer give no standard error worth the name [prop]
    trend_span_days: float = 7.0  # days they must span: a trend over less is weather [prop]
    trend_z: float = 3.0  # standard errors by which a trend must differ from none [prop]
    clear_share: float = 0.8  # 1; below this share of a line counts as clear (DOMAIN 7)
    clear_days: tuple[float, float, float] = (14.0, 21.0, 60.0)  # days of data that close severity 1, 2, 3 (DOMAIN 7)


# --- queue ------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class QueueRules:
    """Score and length of the inspection queue."""


@dataclass(frozen=True)
class AnomalyRules:
    """All of them."""

    cells: CellRules = field(default_factory=CellRules)
    temperature: TemperatureRules = field(default_factory=TemperatureRules)
    insulation: InsulationRules = field(default_factory=InsulationRules)
    sensors: SensorRules = field(default_factory=SensorRules)
    health: HealthRules = field(default_factory=HealthRules)
    episodes: EpisodeRules = field(default_factory=EpisodeRules)
    queue: QueueRules = field(default_factory=QueueRules)


RULES = AnomalyRules()
