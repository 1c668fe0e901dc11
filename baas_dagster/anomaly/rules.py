"""Every number of the detectors, episodes and the inspection queue, with unit, reason and source.

Belongs here: one settings block per detector, one for episodes, one for the queue. Does not belong here: numbers that
SQL uses too (``dbt_project.yml``), and what is learnt from the fleet (released baselines).

"DOMAIN n" is a section of the domain reference; [prop] marks a starting value of our own.
"""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = [
    "RULES", "AnomalyRules", "CellRules", "EpisodeRules", "HealthRules", "InsulationRules", "OutcomeRules",
    "QueueRules", "SensorRules", "TemperatureRules",
]  # fmt: skip


# --- cells ------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class CellRules:
    """Cells: residuals at rest and on steady charge, spread, self-discharge, over- and undervoltage."""

    # windows
    rest_current_a: float = 2.0  # A; |I| of a rest row (as dbt var rest_current_max_a)
    standing_kmh: float = 1.0  # km/h; faster is driving (as dbt var moving_min_kmh)
    silence_s: float = 7200.0  # s of silence after which the first rows still show the rest before (DOMAIN 6)
    settle_s: float = (
        120.0  # s without load before a row counts as rest: six times the fast time constant of 20 s [prop]
    )
    gap_s: float = 180.0  # s; rows further apart are no stretch (as dbt var logging_gap_s)
    rest_min_rows: int = 1  # rows of a rest: at 60 s a waking may show one before the car drives off
    charge_current_a: float = 1.0  # A; less is no charge (as dbt var charge_current_min_a)
    steady_step_a: float = 2.0  # A; |dI| between rows of a steady charge (DOMAIN 3)
    charge_min_rows: int = 5  # rows of a steady stretch: their ramp must pass some of a 20 mV step [prop]
    held_rows: int = 3  # messages over which a voltage must last (as insulation, DOMAIN 7); one alone is noise
    # outliers
    pooled_windows: int = 3  # rests or charges whose mean is judged (DOMAIN 7: in >= 3 sessions)
    weight_cap: float = 20.0  # rows beyond which a window weighs no more: its steps are dithered by then [prop]
    sigma_floor_mv: float = 5.8  # mV; a step of 20 mV / sqrt(12) (DOMAIN 7)
    outlier_z: float = 4.0  # robust z (DOMAIN 7)
    false_discovery_rate: float = (
        0.05  # 1; share of false cells among those found in a window (Benjamini-Hochberg 1995)
    )
    outlier_warn_mv: float = 40.0  # mV; about 6 % of charge on the steep part of a curve: it limits the pack [prop]
    outlier_alarm_mv: float = 150.0  # mV; 20 % of charge: the pack ends with this cell [prop]
    moving_mv_per_month: float = 10.0  # mV a month (DOMAIN 7)
    moving_days: float = 45.0  # d over which a movement is looked at: a month and a half, so that a month is whole
    moving_span_days: float = 14.0  # d that the windows must span
    moving_min_windows: int = 8  # windows of a movement [prop]
    moving_z: float = 5.0  # standard errors: 192 cells are looked at on every window [prop]
    moving_min_mv: float = 15.0  # mV off the pack; a cell that moves within what cells differ by is no finding [prop]
    lowest_share_pct: float = 20.0  # % of rest rows (DOMAIN 7); ties are shared
    lowest_windows: int = 6  # rests whose rows are counted: rests of one or two rows tie by their 20 mV steps [prop]
    lowest_mv: float = 15.0  # mV below the pack: in any pack some cell is the lowest; 5 sd of healthy cells [prop] ...
    lowest_z: float = (
        2.5  # ... and this many robust sd of the pack's own cells: some packs are wider (01290000001) [prop]
    )
    # spread on charge
    spread_warn_mv: float = 100.0  # mV (DOMAIN 7)
    spread_alarm_mv: float = 200.0  # mV (DOMAIN 7)
    spread_own_days: float = 90.0  # d of the pack's own median (DOMAIN 7)
    spread_own_factor: float = 2.0  # 1; the watch line is this times the own median ... [prop]
    spread_watch_min_mv: float = 60.0  # mV; ... and never below what healthy 20 mV packs show averaged (30 mV), doubled
    # self-discharge
    leak_days: tuple[float, ...] = (7.0, 21.0)  # d of residuals looked at: fast for strong leaks, long for weak ones
    leak_span_share: float = 0.6  # 1; share of those days that the windows must span
    leak_min_windows: int = 6  # rests and slow charges of a fit [prop]
    leak_min_mv_per_pct: float = 3.0  # mV per point; flatter, and a voltage says nothing of charge (DOMAIN 6)
    leak_charge_c: float = 0.3  # C; on faster charges resistance hides what charge differs by [prop]
    leak_floor_mv: float = 2.0  # mV; scatter of a window that no fit may undercut: 5.8 mV over 9 rows [prop]
    leak_z: float = 5.0  # standard errors by which a leak differs from none: 192 cells a day, 1 in 1.7 million [prop]
    leak_below_mv: float = (
        10.0  # mV below the pack that a leaking cell lies; a balancing BMS moves cells by less [prop]
    )
    leak_fell_mv: float = 10.0  # mV that it fell by in the days looked at [prop]
    leak_watch_ma: float = 10.0  # mA; a quarter of 100 Ohm on one cell (DOMAIN 7: 100 Ohm = 37 mA)
    leak_warn_ma: float = 20.0  # mA; 0.5 Ah a day: a parked car loses 10 % of one cell in three weeks [prop]
    leak_alarm_ma: float = 100.0  # mA; 2.4 Ah a day, beyond what balancing (30-100 mA) makes good [prop]
    # limits, (watch, warn, alarm) of low and high, V; after the limits of cell makers, and GB/T 32960.3 order of alarms
    nmc_limits_v: tuple[tuple[float, float, float], tuple[float, float, float]] = ((2.7, 2.5, 2.0), (4.28, 4.3, 4.4))
    lfp_limits_v: tuple[tuple[float, float, float], tuple[float, float, float]] = ((2.3, 2.0, 1.8), (3.75, 3.8, 3.9))


# --- temperature ------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class TemperatureRules:
    """Module temperatures: spread, heat, rise, sensors."""

    gap_s: float = 180.0  # s; rows further apart hold nothing (as dbt var logging_gap_s)
    hold_s: float = 60.0  # s over which a temperature must last (DOMAIN 7)
    hold_rows: int = 2  # rows it must show in: at 60 s rows a minute is two of them
    min_sensors: int = 3  # sensors without which none can be told to be apart: of two, either may be wrong
    spread_lines_k: tuple[float | None, float | None, float | None] = (
        7.0,
        10.0,
        15.0,
    )  # K from the median module; warn
    # and alarm after DOMAIN 7, watch: twice what healthy modules show (1.6 K and 0.6 K of gradient, 1 K steps) [prop]
    high_lines_c: tuple[float | None, float | None, float | None] = (45.0, 55.0, 60.0)  # degC (DOMAIN 7)
    rise_lines_k_per_min: tuple[float | None, float | None, float | None] = (None, 3.0, None)  # K/min (DOMAIN 7)
    rise_s: float = 120.0  # s over which a rise is taken (DOMAIN 7)
    rise_rows: int = 2  # steps between rows it must consist of
    rise_step_share: float = 0.7  # 1; a rise of which one step is more than this is a jump of the sensor [prop]
    stuck_s: float = 21_600.0  # s (DOMAIN 7: 6 h)
    stuck_moved_k: float = 3.0  # K by which the others move (DOMAIN 7)
    jump_k: float = 10.0  # K between two messages (DOMAIN 7)
    jump_gap_s: float = 60.0  # s; messages further apart may rightly differ by so much in a fire
    others_move_k: float = 5.0  # K by which the others moved on some day before one that did not counts as absent
    sensor_exists_k: float = 2.0  # K by which a sensor must have moved on some day to exist: two of its steps [prop]


# --- insulation -------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class InsulationRules:
    """Insulation resistance in Ohm per volt."""

    gap_s: float = 180.0  # s; after a longer silence the car has woken (as dbt var logging_gap_s)
    wake_s: float = 60.0  # s after waking in which 0 means "not measured yet" (as dbt var insulation_wake_s)
    min_voltage_v: float = 50.0  # V; no pack of a car has less: a voltage below is a broken row
    held_rows: int = 3  # messages over which it must last ... (DOMAIN 7)
    held_s: float = 10.0  # s; ... or so long (DOMAIN 7)
    warn_ohm_per_v: float = 500.0  # Ohm/V (ISO 6469-3, alternating current; DOMAIN 7)
    alarm_ohm_per_v: float = 100.0  # Ohm/V (ISO 6469-3, direct current; DOMAIN 7)


# --- sensors ----------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class SensorRules:
    """Frozen signals, SoC jumps, low SoC, values that could be a fault or a sensor."""

    gap_s: float = 180.0  # s; rows further apart hold nothing (as dbt var logging_gap_s)
    held_rows: int = 3  # messages over which a value must last; one alone is noise (DOMAIN 3)
    frozen_s: float = 120.0  # s (DOMAIN 3)
    frozen_kmh: float = 5.0  # km/h (DOMAIN 3)
    frozen_speeds: int = 2  # different speeds of a speed that changes
    jump_pct: float = 3.0  # points (DOMAIN 3)
    jump_warn_pct: float = 6.0  # points; twice that: a step that no rounding or anchoring explains [prop]
    jump_s: float = 120.0  # s between the two messages (DOMAIN 3)
    full_from_pct: float = 97.0  # %; a step up to here while charging is the BMS leading its SoC to full
    smallest_capacity_ah: float = 55.0  # Ah; where the capacity is not known, the charge moved explains the most it can
    low_s: float = 60.0  # s for which a SoC must stay low
    soc_low_pct: float = 5.0  # %; below, cars limit their power and deep discharge is near [prop]
    soc_empty_pct: float = 1.0  # %; the car stands [prop]
    cell_min_v: float = 1.5  # V (DOMAIN 3)
    cell_max_v: float = 4.5  # V (DOMAIN 3)
    temp_max_c: float = 90.0  # degC (DOMAIN 3)
    temp_min_c: float = -40.0  # degC (DOMAIN 3)
    current_max_a: float = 600.0  # A (DOMAIN 3)
    fault_s: float = 20.0  # s for which such a value must last ... [prop]
    fault_rows: int = 10  # ... and messages: 30 rows of 1 s are a fault, a glitch of a few is not [prop]
    wake_s: float = 60.0  # s after waking in which an insulation of 0 means "not measured yet"
    insulation_zero_s: float = 1_800.0  # s of insulation 0 beyond waking that are no waiting any more [prop]


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
    power_limit_share: float = 0.7  # 1; acceptable power against the type's that is warned of (DOMAIN 7)
    baseline_min_cars: int = 5  # cars of a type whose median makes a line: two ill ones do not move it far [prop]
    baseline_min_slopes: int = 10  # cars whose slopes make a 10th percentile
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
    """Score and length of the inspection queue.

    The score is a sum of components, each 0 to 1 times its weight; the weights add up to 100 points. A step of severity
    is worth as much as everything else together, so that the order never contradicts the severity table; within a
    severity the rest decides. ValueError where replaced numbers break that.
    """

    # --- weights: points of a component that is 1 ---
    severity_points: tuple[float, float, float] = (10.0, 40.0, 70.0)  # of the worst proven case at severity 1, 2, 3:
    # steps of 30 to 2 and to 3, what all other components weigh together [prop]
    weight_growth: float = 6.0  # what gets worse cannot wait for the next list: the most after severity [prop]
    weight_blindness: float = 8.0  # a car that nobody can see ranks beside one that is watched (severity 1, 10 points
    # and what it gathers), far below what is proven (severity 2, 40 points) [prop]
    weight_cases: float = 5.0  # independent cases in one car: one visit answers them all [prop]
    weight_excess: float = 3.0  # how far beyond its line: already told by severity, orders within one [prop]
    weight_persistence: float = 3.0  # seen in many windows: less likely a whim of the data [prop]
    weight_exposure: float = 2.0  # parked full ages cells and makes a fault's outcome worse; no fault by itself [prop]
    weight_heat: float = 2.0  # the same of heat [prop]
    weight_age: float = 1.0  # an old case moves up slowly, so that nothing waits for ever [prop]

    # --- what makes a component 1 ---
    growth_days: float = 30.0  # d; a case that grows by its own line in that time: until the next monthly list [prop]
    growth_told: float = (
        0.1  # 1; of its line in that time from which the reasons say "getting worse": less is noise [prop]
    )
    half_windows: float = 10.0  # windows seen that make persistence a half: three times what severity 2 needs [prop]
    high_soc_share_full: float = 0.5  # 1; of the parked hours at >= 95 % SoC: a car charged full every night [prop]
    hot_share_full: float = 0.2  # 1; of the hours at >= 35 degC: five hours of each day [prop]
    age_full_days: float = 180.0  # d a case is open: half a year is longer than any visit is put off [prop]

    # --- what cannot be seen ---
    silent_from_days: float = 7.0  # d without data that count for nothing: a holiday [prop]
    silent_full_days: float = 60.0  # d without data after which a car is not seen at all: two monthly deliveries [prop]
    data_days_enough: int = 9  # days with data of the last 90 from which a car counts as seen: three a month give the
    # three windows that severity 2 needs within a month [prop]
    blind_when_silent: float = 0.6  # 1; least blindness of an open DEVICE_SILENT [prop]
    blind_when_gated: float = 0.6  # 1; ... and of an open PARTITION_GATED: a month of unknown content [prop]
    blind_when_hiding: float = 1.0  # 1; ... of either at severity 2: it hides what another episode needs (DOMAIN 7)
    blind_listed: float = 0.5  # 1; blindness from which a car is on the list for that alone: all cell codes unjudged
    family_weights: tuple[tuple[str, float], ...] = (  # 1; what not judging a family weighs: cells and temperature are
        ("cells", 0.5), ("temperature", 0.25), ("insulation", 0.15), ("charge", 0.05), ("health", 0.05),
    )  # fmt: skip
    # where fires begin and insulation where people get hurt; counters and health are money [prop]

    # --- length ---
    places_min: int = 5  # cars on the list of a small fleet: about one workshop's slots of a week [prop]
    places_share: float = 0.05  # 1; of the fleet a month. Serious faults are 0.04-0.08 % of cars a year (DOMAIN 7) and
    # small ones some per cent; healthy cars raise up to 1 false episode in 100 car-months, so 5 % is room for
    # all of these and still a list that is worked off. Severity 3 does not take a place [prop]

    # --- words ---
    reasons_max: int = 4  # cases that are told; the others are counted [prop]
    replace_severity: int = 2  # from here on low health means a new pack: its interval lies below the line (DOMAIN 7)

    @property
    def weights(self) -> dict[str, float]:
        """Component -> its weight in points; together 100."""
        return {
            "severity": self.severity_points[2], "cases": self.weight_cases, "excess": self.weight_excess,
            "growth": self.weight_growth, "persistence": self.weight_persistence, "exposure": self.weight_exposure,
            "heat": self.weight_heat, "blindness": self.weight_blindness, "age": self.weight_age,
        }  # fmt: skip

    def __post_init__(self) -> None:
        first, second, third = self.severity_points
        weights = self.weights
        rest = sum(weights.values()) - third
        if min(weights.values()) < 0 or min(second - first, third - second) < rest - 1e-9 or first <= 0:
            raise ValueError(f"a step of severity_points is worth less than the {rest:g} points of all other weights")


# --- outcomes ---------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class OutcomeRules:
    """What workshops found, against what the list had said."""

    match_days: float = 365.0  # d; an episode that closed longer before the visit did not foretell it [prop]
    precision_min_n: int = 10  # visits below which no precision is told: 9 of 9 still allows 77 % (Wilson, 90 %)
    z90: float = 1.645  # standard normal quantile of a two-sided 90 % interval


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
    outcomes: OutcomeRules = field(default_factory=OutcomeRules)


RULES = AnomalyRules()
